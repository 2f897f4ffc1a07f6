//! From instances to backends: which instances belong to a service, and why the others do not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::exclusion::{Exclusion, MAX_ID_LEN, Reason};
use super::{
    AddressKind, Availability, Backend, BackendState, Instance, InstanceState, MAX_WEIGHT, PortRule, Service,
    WeightRule,
};

/// A provider's instances, divided by whether they belong to one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The members, ordered by id.
    pub members: Vec<Member>,
    /// The others, ordered by id.
    pub exclusions: Vec<Exclusion>,
}

/// An instance that belongs to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The backend it becomes.
    pub backend: Backend,
    /// When the machine was last started, where the provider knows it.
    pub launched: Option<Timestamp>,
}

/// Selects the members of the service among the instances. Of an instance that is listed twice, the last entry counts.
pub fn select(service: &Service, instances: &[Instance]) -> Selection {
    let by_id: BTreeMap<&str, &Instance> = instances.iter().map(|i| (i.id.as_str(), i)).collect();
    let mut selection = Selection::default();
    for (id, instance) in by_id {
        match select_one(service, instance) {
            Ok(member) => selection.members.push(member),
            Err(reason) => selection.exclusions.push(Exclusion { id: id.to_owned(), reason }),
        }
    }
    selection
}

/// Whether an id has no special characters in any frontend's syntax: 1 to 128 ASCII letters, digits and any of `._:-[]@`.
pub fn valid_id(id: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-' | b'[' | b']' | b'@');
    !id.is_empty() && id.len() <= MAX_ID_LEN && id.bytes().all(safe)
}

/// The member of the service that an instance becomes.
///
/// # Errors
///
/// The first rule that excludes it.
pub fn select_one(service: &Service, instance: &Instance) -> Result<Member, Reason> {
    service.select.admits(instance)?;
    if instance.state != InstanceState::Running {
        return Err(Reason::NotRunning { state: instance.state });
    }
    if !valid_id(&instance.id) {
        return Err(Reason::BadId);
    }
    let state = match &instance.availability {
        Availability::Ready => BackendState::Up,
        Availability::Leaving { .. } => BackendState::Draining,
        Availability::Out { why } => return Err(Reason::Out { why: why.clone() }),
    };
    let backend = Backend {
        id: instance.id.clone(),
        address: address(service.address, instance)?,
        port: port(&service.port, instance)?,
        zone: instance.zone.clone(),
        weight: match state {
            BackendState::Up => weight(&service.weight, instance)?,
            BackendState::Draining => 0,
        },
        state,
        tags: instance.tags.clone(),
    };
    Ok(Member { backend, launched: instance.launched })
}

fn address(kind: AddressKind, instance: &Instance) -> Result<IpAddr, Reason> {
    match kind {
        AddressKind::PrivateIpv4 => instance.private_ipv4.map(IpAddr::V4),
        AddressKind::PublicIpv4 => instance.public_ipv4.map(IpAddr::V4),
        AddressKind::Ipv6 => instance.ipv6.map(IpAddr::V6),
    }
    .ok_or(Reason::NoAddress { kind })
}

fn port(rule: &PortRule, instance: &Instance) -> Result<u16, Reason> {
    match rule {
        PortRule::Fixed(port) => Ok(*port),
        PortRule::Instance => instance.port.filter(|port| *port != 0).ok_or(Reason::NoPort),
        PortRule::Tag { key, default } => match instance.tags.get(key) {
            Some(value) => parse_decimal(value)
                .filter(|port| *port != 0)
                .ok_or_else(|| Reason::BadPort { key: key.clone(), value: value.clone() }),
            None => default.ok_or(Reason::NoPort),
        },
    }
}

fn weight(rule: &WeightRule, instance: &Instance) -> Result<u16, Reason> {
    let own = || instance.weight.unwrap_or(1);
    let (weight, text) = match rule {
        WeightRule::Fixed(weight) => return Ok(*weight),
        WeightRule::Instance => (Some(own()), own().to_string()),
        WeightRule::Tag { key, default } => match instance.tags.get(key) {
            Some(value) => (parse_decimal(value), value.clone()),
            None => return Ok(*default),
        },
        WeightRule::Type { weights, default } => {
            return Ok(instance.instance_type.as_ref().and_then(|kind| weights.get(kind)).copied().unwrap_or(*default));
        }
        WeightRule::Size { default } => {
            return Ok(instance.size.map_or(*default, |size| size.min(MAX_WEIGHT)));
        }
    };
    weight.filter(|w| *w <= MAX_WEIGHT).ok_or(Reason::BadWeight { value: text })
}

/// Parses digits only. `str::parse` would also accept a sign, and frontends differ in what they make of other characters
/// (HAProxy reads `9x00` as 9).
fn parse_decimal(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Selector;

    fn service() -> Service {
        Service {
            select: Selector::of_tags([("Role", ["web"])]),
            port: PortRule::Tag { key: "Port".to_owned(), default: Some(8080) },
            weight: WeightRule::Tag { key: "Weight".to_owned(), default: 1 },
            ..Service::new("web".parse().expect("a valid name"), "prod".parse().expect("a valid name"))
        }
    }

    fn instance(id: &str, tags: &[(&str, &str)]) -> Instance {
        let mut instance = Instance::new(id);
        instance.private_ipv4 = Some("10.0.0.1".parse().expect("an address"));
        instance.tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        instance
    }

    fn reason(service: &Service, instance: Instance) -> Reason {
        let mut selection = select(service, &[instance]);
        assert_eq!(selection.members, []);
        selection.exclusions.remove(0).reason
    }

    #[test]
    fn orders_by_id_and_counts_an_instance_once() {
        let web = |id| instance(id, &[("Role", "web")]);
        let selection = select(&service(), &[web("i-2"), web("i-1"), web("i-2")]);
        let ids: Vec<_> = selection.members.iter().map(|m| m.backend.id.as_str()).collect();
        assert_eq!(ids, ["i-1", "i-2"]);
        assert_eq!(selection.members[0].backend.port, 8080);
        assert_eq!(selection.members[0].backend.weight, 1);
    }

    #[test]
    fn each_rule_says_what_was_wanted_and_what_was_found() {
        let s = service();
        assert_eq!(
            reason(&s, instance("i", &[])).to_string(),
            "tag Role is missing; the service selects Role = \"web\""
        );
        assert_eq!(
            reason(&s, instance("i", &[("Role", "db")])).to_string(),
            "tag Role is \"db\"; the service selects Role = \"web\""
        );
        let mut stopped = instance("i", &[("Role", "web")]);
        stopped.state = InstanceState::Stopped;
        assert_eq!(reason(&s, stopped), Reason::NotRunning { state: InstanceState::Stopped });
        let mut standby = instance("i", &[("Role", "web")]);
        standby.availability = Availability::Out { why: "is in Standby".into() };
        assert_eq!(reason(&s, standby).to_string(), "the instance is in Standby");
        let mut bare = instance("i", &[("Role", "web")]);
        bare.private_ipv4 = None;
        assert_eq!(reason(&s, bare), Reason::NoAddress { kind: AddressKind::PrivateIpv4 });
        assert_eq!(reason(&s, instance("i;", &[("Role", "web")])), Reason::BadId);
        let asks = Service { port: PortRule::Instance, ..s };
        assert_eq!(reason(&asks, instance("i", &[("Role", "web")])), Reason::NoPort);
    }

    #[test]
    fn an_instance_that_is_leaving_drains() {
        let mut leaving = instance("i", &[("Role", "web"), ("Weight", "7")]);
        leaving.availability = Availability::Leaving { why: "is in Terminating:Wait".into() };
        let backend = select(&service(), &[leaving]).members.remove(0).backend;
        assert_eq!((backend.state, backend.weight), (BackendState::Draining, 0));
    }

    #[test]
    fn a_port_is_digits_from_1_to_65535() {
        let port = |value: &str| select(&service(), &[instance("i", &[("Role", "web"), ("Port", value)])]);
        assert_eq!(port("1").members[0].backend.port, 1);
        assert_eq!(port("65535").members[0].backend.port, 65535);
        for bad in ["", "0", "65536", "+80", "-1", "9x00", " 80", "1; } server { listen 1;", "٣"] {
            let reason = port(bad).exclusions.remove(0).reason;
            assert_eq!(reason, Reason::BadPort { key: "Port".into(), value: bad.into() });
            assert!(reason.is_fault());
        }
    }

    #[test]
    fn a_weight_may_come_from_the_instance_type() {
        let weight = |rule: &WeightRule, kind: &str| {
            let mut instance = instance("i", &[("Role", "web")]);
            instance.instance_type = Some(kind.to_owned());
            select(&Service { weight: rule.clone(), ..service() }, &[instance]).members[0].backend.weight
        };
        let kinds = WeightRule::Type { weights: [("m5.large".to_owned(), 3)].into(), default: 1 };
        assert_eq!(["m5.large", "m5.xlarge"].map(|kind| weight(&kinds, kind)), [3, 1]);
        let sized = |size| Instance { size, ..instance("i", &[("Role", "web")]) };
        let service = Service { weight: WeightRule::Size { default: 5 }, ..service() };
        for (size, expected) in [(Some(4), 4), (Some(MAX_WEIGHT + 1), MAX_WEIGHT), (None, 5)] {
            assert_eq!(select(&service, &[sized(size)]).members[0].backend.weight, expected);
        }
    }

    #[test]
    fn a_weight_is_digits_from_0_to_256() {
        let weight = |value: &str| select(&service(), &[instance("i", &[("Role", "web"), ("Weight", value)])]);
        assert_eq!(weight("0").members[0].backend.weight, 0);
        assert_eq!(weight("256").members[0].backend.weight, 256);
        for bad in ["257", "1.5", "heavy", ""] {
            assert_eq!(weight(bad).exclusions.remove(0).reason, Reason::BadWeight { value: bad.into() });
        }
    }
}
