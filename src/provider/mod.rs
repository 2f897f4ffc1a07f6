//! Where instances are learnt from.
//!
//! A provider answers with the whole set or with an error, never with a part. It never retries by itself: [`poll`] asks
//! it at its interval, with jitter, bounded in time and with back-off, for ever.
//!
//! A new provider is a file or folder here with a [`Configuration`] named `Config`, and a line in the table below.

mod configuration;
mod discovery;
#[cfg(feature = "ec2")]
pub mod ec2;
mod error;
pub mod exec;
pub mod fallback;
pub mod file;
pub mod fixed;
pub mod format;
pub mod http;
pub mod instance_spec;
mod machine_size;
#[cfg(feature = "nats")]
pub mod nats;
pub mod poll;
pub mod rate_limiter;

pub use self::configuration::{BuildContext, Config, Configuration, Context, TypeVisitor, ZoneLookup};
pub use self::discovery::{Observation, Provider};
pub use self::error::{Error, ErrorKind};
pub use crate::status::ApiUsage;

/// Makes a table of modules, each with its [`Configuration`], into the lists and look-ups that go over all types.
macro_rules! types {
    ($($(#[$gate:meta])* $module:ident,)*) => {
        /// Every type that this elasticd was built with, as the configuration writes it.
        pub const TYPES: &[&str] = &[$($(#[$gate])* <$module::Config as Configuration>::TYPE,)*];

        /// What each type gives to start from.
        const EXAMPLES: &[Option<&str>] = &[$($(#[$gate])* <$module::Config as Configuration>::EXAMPLE,)*];

        /// How each type's cloud is asked for our own zone.
        const ZONE_LOOKUPS: &[Option<ZoneLookup>] = &[$($(#[$gate])* <$module::Config as Configuration>::OWN_ZONE,)*];

        /// Has `visitor` visit the configuration of the type that is called `type_name`. `None`: there is no such type.
        pub fn visit_type<V: TypeVisitor>(type_name: &str, visitor: V) -> Option<V::Output> {
            $(
                $(#[$gate])*
                if type_name == <$module::Config as Configuration>::TYPE {
                    return Some(visitor.visit::<$module::Config>());
                }
            )*
            None
        }
    };
}

// One line for each type of provider.
types! {
    fixed,
    file,
    exec,
    http,
    #[cfg(feature = "ec2")]
    ec2,
    #[cfg(feature = "nats")]
    nats,
}

/// Sections to start a configuration from, without their headers: the most usual type first.
pub fn examples() -> impl Iterator<Item = &'static str> {
    EXAMPLES.iter().rev().copied().flatten()
}

/// Whether [`own_zone`] can find out anything: whether a type of provider was built in whose cloud can be asked.
pub fn can_look_up_zone() -> bool {
    ZONE_LOOKUPS.iter().any(Option::is_some)
}

/// The zone that this machine is in, as the metadata service of its cloud says.
///
/// # Errors
///
/// No cloud's metadata service says it.
pub async fn own_zone() -> Result<String, Error> {
    let mut result = Err(Error::new(ErrorKind::Failed, "no type of provider was built in whose cloud could be asked"));
    for look_up in ZONE_LOOKUPS.iter().flatten() {
        result = look_up().await;
        if result.is_ok() {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    struct TypeName;

    impl TypeVisitor for TypeName {
        type Output = &'static str;

        fn visit<C: Configuration>(self) -> &'static str {
            C::TYPE
        }
    }

    #[test]
    fn each_type_is_found_by_its_own_name() {
        assert_eq!(TYPES.iter().collect::<BTreeSet<_>>().len(), TYPES.len());
        for name in TYPES {
            assert_eq!(visit_type(name, TypeName), Some(*name));
        }
        assert_eq!(visit_type("none", TypeName), None);
    }

    #[test]
    fn configurations_are_equal_only_within_their_type() {
        let fixed = Config::new(fixed::Config { instances: Vec::new() });
        let file = |path: &str| Config::new(file::Config { path: path.into() });
        assert!(fixed == fixed.clone() && file("/a") == file("/a"));
        assert!(fixed != file("/a") && file("/a") != file("/b"));
        assert_eq!((fixed.type_name(), format!("{:?}", file("/a"))), ("fixed", "Config { path: \"/a\" }".to_owned()));
    }
}
