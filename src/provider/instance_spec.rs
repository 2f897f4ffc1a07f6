//! An instance as people write it, in the configuration or in a file, and as programs and servers report it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::machine_size;
use crate::model::{Availability, Instance, InstanceState, MAX_WEIGHT, Tags};

/// One instance as written.
// `T` is how its format reads the value of a tag: `Text` where numbers have a type of their own, `String` where a format
// hands over every scalar as it was spelt (YAML: `1.10` must not become `1.1`).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Instance")]
pub struct InstanceSpec<T = Text> {
    /// Unique within the provider. Left out: the text of `address`.
    pub id: Option<String>,
    /// An IPv4 or IPv6 address, with a port or without: `10.0.0.1`, `10.0.0.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
    pub address: Option<String>,
    /// The address inside the cloud's network.
    pub private_ipv4: Option<Ipv4Addr>,
    /// The address on the internet.
    pub public_ipv4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// The port, 1 to 65535.
    pub port: Option<u16>,
    /// The share of traffic, 0 to 256.
    pub weight: Option<u16>,
    /// The availability zone.
    pub zone: Option<String>,
    /// The network, such as a VPC.
    pub vpc: Option<String>,
    /// The part of the network.
    pub subnet: Option<String>,
    /// The group that scales it, such as an Auto Scaling group.
    pub group: Option<String>,
    /// The kind of machine, such as `m7g.large`.
    #[serde(rename = "type")]
    pub instance_type: Option<String>,
    /// The lifecycle state; running, if left out.
    #[serde(default)]
    pub state: InstanceState,
    /// Whether it is meant to take traffic; ready, if left out.
    #[serde(default)]
    pub availability: Reported,
    /// When the machine was last started, RFC 3339.
    #[schemars(with = "Option<String>")]
    pub launched: Option<Timestamp>,
    /// The tags. A value may be a number or a boolean: it counts as its text.
    #[serde(default, deserialize_with = "tags::<T, _>", bound = "T: Deserialize<'de> + Into<String>")]
    #[schemars(with = "BTreeMap<String, Text>")]
    pub tags: Tags,
    /// How the tags' values are read.
    #[serde(skip)]
    pub reads: PhantomData<T>,
}

/// Reads tags whose values are written as `T`.
///
/// # Errors
///
/// Something else is written.
pub fn tags<'de, T, D>(deserializer: D) -> Result<Tags, D::Error>
where
    T: Deserialize<'de> + Into<String>,
    D: Deserializer<'de>,
{
    struct TagsVisitor<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de> + Into<String>> Visitor<'de> for TagsVisitor<T> {
        type Value = Tags;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of tags")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tags, A::Error> {
            let mut tags = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, T>()? {
                tags.insert(key, value.into());
            }
            Ok(tags.into())
        }
    }
    deserializer.deserialize_map(TagsVisitor::<T>(PhantomData))
}

/// Where an entry was written: its index, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the configuration's `instances`.
    Listed(usize),
    /// In a document.
    Entry(usize),
    /// In a document, and among an entry's `targets`.
    Target(usize, usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(i) => write!(f, "instances[{i}]"),
            Self::Entry(i) => write!(f, "entry {i}"),
            Self::Target(i, j) => write!(f, "entry {i}, target {j}"),
        }
    }
}

/// Whether an instance is meant to take traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reported {
    /// It may take traffic.
    #[default]
    Ready,
    /// It may finish what it has begun, and gets no new traffic.
    Leaving,
    /// It takes no traffic.
    Out,
}

impl From<Reported> for Availability {
    fn from(reported: Reported) -> Self {
        match reported {
            Reported::Ready => Self::Ready,
            Reported::Leaving => Self::Leaving { why: "is reported as leaving".to_owned() },
            Reported::Out => Self::Out { why: "is reported as out".to_owned() },
        }
    }
}

/// A text, or a number or boolean that counts as its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text(pub String);

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl schemars::JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or a boolean")
    }

    fn visit_str<E>(self, value: &str) -> Result<Text, E> {
        Ok(Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Text, E> {
        Ok(Text(value))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }
}

/// What is wrong with one entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct Fault {
    /// The entry.
    pub at: Place,
    /// What is wrong with it.
    pub reason: Reason,
}

/// Why an entry is not an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The address is something else, a host name perhaps.
    #[error(
        "the address {0:?} is not an IP address, with a port from 1 to 65535 or without: elasticd does no DNS; write \
         10.0.0.1, 10.0.0.1:8080, 2001:db8::1 or [2001:db8::1]:8080"
    )]
    NotAnAddress(String),
    /// `address` and the key of its kind differ.
    #[error("`address` says {address}, `{key}` says {other}: keep one of them")]
    TwoAddresses {
        /// What `address` says.
        address: IpAddr,
        /// The other key.
        key: &'static str,
        /// What that says.
        other: IpAddr,
    },
    /// The port in `address` and `port` differ.
    #[error("`address` says port {address}, `port` says {port}: keep one of them")]
    TwoPorts {
        /// What `address` says.
        address: u16,
        /// What `port` says.
        port: u16,
    },
    /// Nothing listens on port 0.
    #[error("port 0 is not a port: use 1 to 65535, or leave it out")]
    PortZero,
    /// More than some frontend takes.
    #[error("the weight {0} is too large: use 0 to {MAX_WEIGHT}")]
    Weight(u16),
    /// Neither an id nor an address.
    #[error("it has neither an `id` nor an `address`: give it one of them")]
    NoId,
    /// An id that another entry has.
    #[error("the id {id:?} is that of {first} too: give each its own `id`")]
    Duplicate {
        /// The id.
        id: String,
        /// The entry that had it first.
        first: Place,
    },
}

/// The instances of all entries, each with the place it was written at.
///
/// # Errors
///
/// All faults at once, duplicate ids included.
pub fn resolve<T>(entries: impl IntoIterator<Item = (Place, InstanceSpec<T>)>) -> Result<Vec<Instance>, Vec<Fault>> {
    let mut first: HashMap<String, Place> = HashMap::new();
    let (mut instances, mut faults) = (Vec::new(), Vec::new());
    for (at, entry) in entries {
        match entry.resolve() {
            Err(reason) => faults.push(Fault { at, reason }),
            Ok(instance) => match first.get(&instance.id) {
                Some(first) => {
                    let reason = Reason::Duplicate { id: instance.id, first: *first };
                    faults.push(Fault { at, reason });
                }
                None => {
                    first.insert(instance.id.clone(), at);
                    instances.push(instance);
                }
            },
        }
    }
    if faults.is_empty() { Ok(instances) } else { Err(faults) }
}

impl<T> InstanceSpec<T> {
    /// The instance meant.
    ///
    /// # Errors
    ///
    /// The first thing wrong with the entry.
    pub fn resolve(self) -> Result<Instance, Reason> {
        let id = self.id.clone().or_else(|| self.address.clone()).filter(|id| !id.is_empty()).ok_or(Reason::NoId)?;
        let (ip, port) = match &self.address {
            Some(text) => parse(text)?,
            None => (None, None),
        };
        let mut instance = Instance::new(id);
        instance.private_ipv4 = self.private_ipv4;
        instance.public_ipv4 = self.public_ipv4;
        instance.ipv6 = self.ipv6;
        match ip {
            Some(IpAddr::V4(ip)) => instance.private_ipv4 = Some(one(ip, self.private_ipv4, "private_ipv4")?),
            Some(IpAddr::V6(ip)) => instance.ipv6 = Some(one(ip, self.ipv6, "ipv6")?),
            None => {}
        }
        instance.port = match (port, self.port) {
            (_, Some(0)) => return Err(Reason::PortZero),
            (Some(address), Some(port)) if address != port => return Err(Reason::TwoPorts { address, port }),
            (address, port) => address.or(port),
        };
        if let Some(weight) = self.weight.filter(|weight| *weight > MAX_WEIGHT) {
            return Err(Reason::Weight(weight));
        }
        instance.weight = self.weight;
        instance.zone = self.zone;
        instance.vpc = self.vpc;
        instance.subnet = self.subnet;
        instance.group = self.group;
        instance.size = self.instance_type.as_deref().and_then(machine_size::of_kind);
        instance.instance_type = self.instance_type;
        instance.state = self.state;
        instance.availability = self.availability.into();
        instance.launched = self.launched;
        instance.tags = self.tags;
        Ok(instance)
    }
}

fn parse(text: &str) -> Result<(Option<IpAddr>, Option<u16>), Reason> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((Some(ip), None));
    }
    match text.parse::<SocketAddr>() {
        // A scope would be lost: it has no meaning beyond this machine.
        Ok(SocketAddr::V6(address)) if address.scope_id() != 0 => Err(Reason::NotAnAddress(text.to_owned())),
        Ok(address) if address.port() == 0 => Err(Reason::PortZero),
        Ok(address) => Ok((Some(address.ip()), Some(address.port()))),
        Err(_) => Err(Reason::NotAnAddress(text.to_owned())),
    }
}

/// The one address that both keys mean.
fn one<A: PartialEq + Into<IpAddr>>(address: A, other: Option<A>, key: &'static str) -> Result<A, Reason> {
    match other {
        Some(other) if other != address => {
            Err(Reason::TwoAddresses { address: address.into(), key, other: other.into() })
        }
        _ => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Instance, String> {
        let written: InstanceSpec = serde_json::from_str(json).map_err(|e| e.to_string())?;
        written.resolve().map_err(|e| e.to_string())
    }

    #[test]
    fn an_address_fills_what_it_says() {
        for (text, v4, v6, port) in [
            ("10.0.0.1", Some("10.0.0.1"), None, None),
            ("10.0.0.1:8080", Some("10.0.0.1"), None, Some(8080)),
            ("2001:db8::1", None, Some("2001:db8::1"), None),
            ("[2001:db8::1]:80", None, Some("2001:db8::1"), Some(80)),
        ] {
            let instance = read(&format!(r#"{{"address": "{text}"}}"#)).unwrap();
            assert_eq!(instance.id, text);
            assert_eq!(instance.private_ipv4, v4.map(|ip| ip.parse().unwrap()));
            assert_eq!(instance.ipv6, v6.map(|ip| ip.parse().unwrap()));
            assert_eq!(instance.port, port);
            assert!(crate::model::selection::valid_id(&instance.id));
        }
    }

    #[test]
    fn every_key_is_taken() {
        let instance = read(
            r#"{"id": "a", "private_ipv4": "10.0.0.1", "public_ipv4": "192.0.2.1", "ipv6": "2001:db8::1", "port": 80,
                "weight": 256, "zone": "z", "vpc": "v", "subnet": "s", "group": "g", "type": "m7g.large",
                "state": "shutting-down", "availability": "leaving", "launched": "2024-05-01T00:00:00Z",
                "tags": {"t": "x", "n": 7, "f": 1.5, "b": true, "m": -1}}"#,
        )
        .unwrap();
        assert_eq!(instance.state, InstanceState::ShuttingDown);
        assert_eq!(instance.weight, Some(256));
        let placed = [&instance.zone, &instance.vpc, &instance.subnet, &instance.group, &instance.instance_type];
        assert_eq!(placed.map(Option::as_deref), ["z", "v", "s", "g", "m7g.large"].map(Some));
        assert_eq!(instance.availability, Availability::Leaving { why: "is reported as leaving".to_owned() });
        assert_eq!(instance.launched, Some("2024-05-01T00:00:00Z".parse().unwrap()));
        let tags: Vec<_> = instance.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(tags, ["b=true", "f=1.5", "m=-1", "n=7", "t=x"]);
    }

    #[test]
    fn each_fault_is_named() {
        for (json, expected) in [
            (r#"{"address": "web-1.internal"}"#, "elasticd does no DNS"),
            (r#"{"address": "web-1:80"}"#, "elasticd does no DNS"),
            (r#"{"address": "10.0.0.1:65536"}"#, "1 to 65535"),
            (r#"{"address": "10.0.0.1:0"}"#, "port 0"),
            (r#"{"address": "[fe80::1%3]:80"}"#, "not an IP address"),
            (r#"{"address": "10.0.0.1", "port": 0}"#, "port 0"),
            (r#"{"address": "10.0.0.1:80", "port": 81}"#, "`port` says 81"),
            (r#"{"address": "10.0.0.1", "private_ipv4": "10.0.0.2"}"#, "`private_ipv4` says 10.0.0.2"),
            (r#"{"address": "2001:db8::1", "ipv6": "2001:db8::2"}"#, "`ipv6` says"),
            (r#"{"address": "10.0.0.1", "weight": 257}"#, "0 to 256"),
            (r#"{"port": 80}"#, "neither an `id`"),
            (r#"{"id": "", "address": "10.0.0.1"}"#, "neither an `id`"),
            (r#"{"id": "a", "adress": "10.0.0.1"}"#, "unknown field `adress`"),
            (r#"{"id": "a", "availability": "gone"}"#, "expected one of `ready`, `leaving`, `out`"),
            (r#"{"id": "a", "tags": {"x": ["y"]}}"#, "a text, a number or a boolean"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
        assert_eq!(read(r#"{"address": "10.0.0.1:80", "port": 80}"#).unwrap().port, Some(80));
    }

    #[test]
    fn all_faults_come_at_once() {
        let entry = |address: &str| InstanceSpec::<Text> { address: Some(address.into()), ..InstanceSpec::default() };
        let entries = ["10.0.0.1", "host", "10.0.0.1"].map(entry);
        let faults = resolve(entries.into_iter().enumerate().map(|(i, e)| (Place::Entry(i), e))).unwrap_err();
        let texts: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2);
        assert!(texts[0].starts_with("entry 1: the address \"host\""));
        assert!(texts[1].starts_with("entry 2: the id \"10.0.0.1\" is that of entry 0 too"));
    }
}
