//! Sample snapshots, for trying a template.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::model::{
    AddressKind, Backend, BackendState, Condition, PortRule, Service, ServiceSet, Snapshot, Tags, WeightRule,
};

/// Two backends for each service, with every tag that the service selects by or the template mentions.
pub(super) fn snapshot(services: &[&Service], text: &str) -> Snapshot {
    let mentioned = tag_keys(text);
    fill(services, |service| [1, 2].map(|n| member(service, n, &mentioned)).into())
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
    tags.extend(mentioned.iter().map(|key| (key.clone(), "sample".to_owned())));
    if let PortRule::Tag { key, .. } = &service.port {
        tags.insert(key.clone(), backend.port.to_string());
    }
    if let WeightRule::Tag { key, .. } = &service.weight {
        tags.insert(key.clone(), backend.weight.to_string());
    }
    let selected = service.select.tags.iter().filter_map(|(key, condition)| match condition {
        Condition::OneOf(values) => Some((key.clone(), values.first()?.clone())),
        Condition::Like(_) | Condition::Present => Some((key.clone(), "sample".to_owned())),
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

/// The keys that a template's text mentions as `tags.KEY`. Those with `?.` may be absent, and so are left out.
fn tag_keys(text: &str) -> BTreeSet<String> {
    let key = |after: &str| {
        let after = after.strip_prefix('.')?;
        let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
        (end > 0).then(|| after[..end].to_owned())
    };
    text.split("tags").skip(1).filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mentioned_tags_are_found() {
        let keys = tag_keys(
            "{{ b.tags.Role }} {{b.tags.größe | lower}} {{ t.tags?.Maybe }} {{ b.tags | get: \"x\", 1 }} tags. tags.Role",
        );
        assert_eq!(keys, BTreeSet::from(["Role".to_owned(), "größe".to_owned()]));
    }
}
