//! Sample snapshots, for trying a template.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::model::{
    AddressKind, Backend, BackendState, Condition, PortRule, Service, ServiceSet, Snapshot, Tags, WeightRule,
};

/// The value of each tag that a service does not select by: both a text and a number.
const VALUE: &str = "1";

/// Two backends for each service, with every tag that the service selects by or the template mentions.
pub(super) fn snapshot(services: &[&Service], mentioned: &BTreeSet<String>) -> Snapshot {
    fill(services, |service| [1, 2].map(|n| member(service, n, mentioned)).into())
}

/// The same snapshot, in which no backend of the services `lacking` has the tag.
pub(super) fn without_tag(mut snapshot: Snapshot, lacking: &[&Service], key: &str) -> Snapshot {
    for service in lacking {
        if let Some(set) = snapshot.services.get_mut(&service.name) {
            Arc::make_mut(set).backends.iter_mut().for_each(|backend| drop(backend.tags.remove(key)));
        }
    }
    snapshot
}

/// The same snapshot, in which every backend has the same weight.
pub(super) fn taking_traffic(mut snapshot: Snapshot) -> Snapshot {
    for set in snapshot.services.values_mut() {
        Arc::make_mut(set).backends.iter_mut().for_each(|backend| backend.weight = 1);
    }
    snapshot
}

/// Whether every backend of the service has the tag: it is selected by it, or has its port from it.
pub(super) fn guarantees(service: &Service, key: &str) -> bool {
    let is_selected = |condition: &Condition| !matches!(condition, Condition::Absent);
    service.select.tags.get(key).is_some_and(is_selected)
        || matches!(&service.port, PortRule::Tag { key: port, default: None } if port == key)
}

/// The same services without backends.
pub(super) fn empty(services: &[&Service]) -> Snapshot {
    fill(services, |_| Vec::new())
}

/// The `n`th sample backend, without tags. All but the first have no zone and a weight of 0.
pub(super) fn backend(n: u8, address: IpAddr) -> Backend {
    Backend {
        id: format!("i-sample{n}"),
        address,
        port: 8080,
        zone: (n == 1).then(|| "zone-a".to_owned()),
        weight: u16::from(n == 1),
        state: BackendState::Up,
        tags: Tags::default(),
    }
}

fn fill(services: &[&Service], backends: impl Fn(&Service) -> Vec<Backend>) -> Snapshot {
    let set = |service: &Service| Arc::new(ServiceSet { revision: 1, backends: backends(service) });
    Snapshot { revision: 1, services: services.iter().map(|service| (service.name.clone(), set(service))).collect() }
}

fn member(service: &Service, n: u8, mentioned: &BTreeSet<String>) -> Backend {
    let mut backend = backend(n, address(service.address, n));
    let tags = &mut backend.tags;
    tags.extend(mentioned.iter().map(|key| (key.clone(), VALUE.to_owned())));
    if let PortRule::Tag { key, .. } = &service.port {
        tags.insert(key.clone(), backend.port.to_string());
    }
    if let WeightRule::Tag { key, .. } = &service.weight {
        tags.insert(key.clone(), backend.weight.to_string());
    }
    let selected = service.select.tags.iter().filter_map(|(key, condition)| match condition {
        Condition::OneOf(values) => Some((key.clone(), values.first()?.clone())),
        Condition::Like(_) | Condition::Present => Some((key.clone(), VALUE.to_owned())),
        Condition::Absent => None,
    });
    tags.extend(selected);
    backend
}

/// An address of the ranges reserved for documentation (RFC 5737, RFC 3849).
fn address(kind: AddressKind, n: u8) -> IpAddr {
    match kind {
        AddressKind::PrivateIpv4 | AddressKind::PublicIpv4 => Ipv4Addr::new(192, 0, 2, n).into(),
        AddressKind::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into(),
    }
}
