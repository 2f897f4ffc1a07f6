//! What a provider is configured by: a trait for each type's own configuration, and [`Config`], which holds one of
//! whichever type.

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::poll::PollSchedule;
use super::{Error, Provider};
use crate::model::{FieldFault, Name, Selector};
use crate::sys::unconfined::Unconfined;

/// Asks in which zone this machine is.
pub type ZoneLookup = fn() -> BoxFuture<'static, Result<String, Error>>;

/// The configuration of one type of provider. Its `Debug` shows no secret.
///
/// Equal configurations build equal providers: a reload leaves a provider alone whose configuration is the same.
pub trait Configuration: Any + Clone + fmt::Debug + PartialEq + Send + Sync {
    /// The type, as a section's `type` names it.
    const TYPE: &'static str;

    /// The keys of its section as they are written, beside `type`, `interval` and `timeout`. Its JSON Schema, and with it
    /// the documentation of its fields, becomes part of that of the configuration.
    type Raw: DeserializeOwned + JsonSchema;

    /// The lines of a section to start from, for `elasticd init`, if the type is a good one to start with.
    const EXAMPLE: Option<&'static str> = None;

    /// How this type's cloud is asked in which zone this machine is, if it can be. It is asked whether or not a
    /// provider of this type is configured: a sidecar that reads a fleet has none.
    const OWN_ZONE: Option<ZoneLookup> = None;

    /// The valid configuration.
    ///
    /// # Errors
    ///
    /// Every fault.
    fn resolve(raw: Self::Raw, context: &Context<'_>) -> Result<Self, Vec<FieldFault>>;

    /// Builds the provider; nothing is asked yet.
    fn build(&self, context: &BuildContext<'_>) -> Box<dyn Provider>;

    /// The name of the provider that is to be polled while this one gets no set from its fleet.
    fn fallback(&self) -> Option<&Name> {
        None
    }

    /// Takes the configuration of the provider that [`fallback`](Self::fallback) names.
    fn set_fallback(&mut self, _config: Config, _schedule: PollSchedule) {}

    /// Whether its sets come from a fleet, whose publishers poll the source. Such sets are not published again.
    fn reads_fleet(&self) -> bool {
        false
    }
}

/// What a provider's section takes from the rest of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The provider's name.
    pub name: &'a Name,
    /// How long a poll may take.
    pub timeout: Duration,
    /// Where state is kept across restarts. `None`: that key has a fault.
    pub state_dir: Option<&'a Path>,
}

/// What a provider is built with, beside its configuration.
#[derive(Debug, Clone, Copy)]
pub struct BuildContext<'a> {
    /// The selectors of all its services: a provider whose source can filter asks only for instances that one of them
    /// may select. Without selectors it asks for all.
    pub selectors: &'a [Selector],
    /// Starts programs.
    pub unconfined: &'a Unconfined,
}

/// Something that is done for a type of provider, whichever it is.
pub trait TypeVisitor {
    /// What comes of it.
    type Output;

    /// Does it for the type whose configuration is `C`.
    fn visit<C: Configuration>(self) -> Self::Output;
}

/// The configuration of a provider of any type.
pub struct Config(Box<dyn AnyConfiguration>);

impl Config {
    /// The configuration of a provider of type [`C::TYPE`](Configuration::TYPE).
    pub fn new<C: Configuration>(config: C) -> Self {
        Self(Box::new(config))
    }

    /// The type, as the configuration writes it.
    pub fn type_name(&self) -> &'static str {
        self.0.type_name()
    }

    /// See [`Configuration::build`].
    pub fn build(&self, context: &BuildContext<'_>) -> Box<dyn Provider> {
        self.0.build(context)
    }

    /// See [`Configuration::fallback`].
    pub fn fallback(&self) -> Option<&Name> {
        self.0.fallback()
    }

    /// See [`Configuration::set_fallback`].
    pub fn set_fallback(&mut self, config: Self, schedule: PollSchedule) {
        self.0.set_fallback(config, schedule);
    }

    /// See [`Configuration::reads_fleet`].
    pub fn reads_fleet(&self) -> bool {
        self.0.reads_fleet()
    }
}

impl Clone for Config {
    fn clone(&self) -> Self {
        Self(self.0.boxed_clone())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.0.equals(&*other.0)
    }
}

/// [`Configuration`] without its type.
trait AnyConfiguration: Any + fmt::Debug + Send + Sync {
    fn type_name(&self) -> &'static str;
    fn build(&self, context: &BuildContext<'_>) -> Box<dyn Provider>;
    fn fallback(&self) -> Option<&Name>;
    fn set_fallback(&mut self, config: Config, schedule: PollSchedule);
    fn reads_fleet(&self) -> bool;
    fn boxed_clone(&self) -> Box<dyn AnyConfiguration>;
    fn equals(&self, other: &dyn AnyConfiguration) -> bool;
}

impl<C: Configuration> AnyConfiguration for C {
    fn type_name(&self) -> &'static str {
        C::TYPE
    }

    fn build(&self, context: &BuildContext<'_>) -> Box<dyn Provider> {
        Configuration::build(self, context)
    }

    fn fallback(&self) -> Option<&Name> {
        Configuration::fallback(self)
    }

    fn set_fallback(&mut self, config: Config, schedule: PollSchedule) {
        Configuration::set_fallback(self, config, schedule);
    }

    fn reads_fleet(&self) -> bool {
        Configuration::reads_fleet(self)
    }

    fn boxed_clone(&self) -> Box<dyn AnyConfiguration> {
        Box::new(self.clone())
    }

    fn equals(&self, other: &dyn AnyConfiguration) -> bool {
        (other as &dyn Any).downcast_ref::<C>().is_some_and(|other| self == other)
    }
}
