//! Services that tags create.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::condition::bare;
use super::{Condition, Instance, InstanceState, Name, PortRule, Selector, Service};

/// The largest number of services that one pattern creates. Tags may be written by people who must not exhaust elasticd.
pub const MAX_CREATED: usize = 1000;

/// One service for each value of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// What all of the services have in common. Its name is the pattern's own; its selector applies to each of them, too.
    pub base: Service,
    /// The tags that create services.
    pub tags: ServiceTags,
}

/// The tags that create services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTags {
    /// Its value names the service.
    pub name: String,
    /// Its value is the service's port, and a part of its name. `None`: `base` says the port.
    pub port: Option<String>,
    /// Its value is an instance's port, if it differs from the service's.
    pub instance_port: Option<String>,
}

impl ServiceTags {
    /// The convention of HAProxy's Data Plane API (its documentation, "AWS EC2 service discovery"): a service
    /// is identified by name and port together.
    pub fn haproxy() -> Self {
        Self {
            name: "HAProxy:Service:Name".to_owned(),
            port: Some("HAProxy:Service:Port".to_owned()),
            instance_port: Some("HAProxy:Instance:Port".to_owned()),
        }
    }
}

/// The tag values that a service was created from. With them its pattern can create it again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The pattern.
    pub pattern: Name,
    /// The value of the tag that names it.
    pub value: String,
    /// The value of the tag that is its port.
    pub port: Option<String>,
}

/// The services that a pattern creates from a provider's instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Created {
    /// The services, by name.
    pub services: BTreeMap<Name, (Service, Origin)>,
    /// Why the tags of some instances create no service, each in a sentence that names the instance.
    pub faults: Vec<String>,
}

impl Pattern {
    /// What every instance of any of its services has in common.
    pub fn selector(&self) -> Selector {
        let mut selector = self.base.select.clone();
        selector.tags.entry(self.tags.name.clone()).or_insert(Condition::Present);
        selector
    }

    /// The services that the tags of running instances create.
    pub fn expand(&self, instances: &[Instance]) -> Created {
        let mut created = Created::default();
        let mut wanted: BTreeMap<(&str, Option<&str>), &str> = BTreeMap::new();
        for instance in instances {
            if instance.state != InstanceState::Running || self.base.select.admits(instance).is_err() {
                continue;
            }
            let tag = |key: &String| instance.tags.get(key).map(String::as_str);
            let Some(name) = tag(&self.tags.name) else { continue };
            let port = match &self.tags.port {
                None => None,
                Some(key) => match tag(key) {
                    Some(port) => Some(port),
                    None => {
                        let (id, has) = (&instance.id, &self.tags.name);
                        created.faults.push(format!(
                            "instance {id:?}: tag {} is present, but tag {} is missing",
                            bare(has),
                            bare(key)
                        ));
                        continue;
                    }
                },
            };
            wanted.entry((name, port)).or_insert(&instance.id);
        }
        for ((name, port), id) in wanted {
            let (value, port) = (name.to_owned(), port.map(str::to_owned));
            let origin = Origin { pattern: self.base.name.clone(), value, port };
            match self.service(&origin) {
                Err(fault) => created.faults.push(format!("instance {id:?}: {fault}")),
                Ok(_) if created.services.len() >= MAX_CREATED => {
                    created.faults.push(format!(
                        "instance {id:?}: the pattern has created {MAX_CREATED} services already, the most allowed"
                    ));
                    break;
                }
                Ok(service) => drop(created.services.insert(service.name.clone(), (service, origin))),
            }
        }
        created
    }

    /// The service of this origin.
    ///
    /// # Errors
    ///
    /// The tags hold no name or no port.
    pub fn service(&self, origin: &Origin) -> Result<Service, String> {
        let Origin { value, port, .. } = origin;
        let mut service = self.base.clone();
        let mut name = value.clone();
        let is = |value: &str| Condition::OneOf(Arc::new(BTreeSet::from([value.to_owned()])));
        service.select.tags.insert(self.tags.name.clone(), is(value));
        if let (Some(text), Some(key)) = (port, &self.tags.port) {
            let number: u16 =
                text.parse()
                    .ok()
                    .filter(|port| *port != 0 && text.bytes().all(|b| b.is_ascii_digit()))
                    .ok_or_else(|| format!("tag {} is {text:?}; a port from 1 to 65535 is expected", bare(key)))?;
            service.select.tags.insert(key.clone(), is(text));
            name = format!("{value}-{number}");
            service.port = match &self.tags.instance_port {
                Some(key) => PortRule::Tag { key: key.clone(), default: Some(number) },
                None => PortRule::Fixed(number),
            };
        }
        service.name = name.parse().map_err(|error| format!("tag {}: {error}", bare(&self.tags.name)))?;
        Ok(service)
    }
}

#[cfg(test)]
mod tests {
    use super::super::select;
    use super::*;

    fn instance(id: &str, tags: &[(&str, &str)]) -> Instance {
        let mut instance = Instance::new(id);
        instance.private_ipv4 = Some("10.0.0.1".parse().expect("an address"));
        instance.tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        instance
    }

    fn pattern(tags: ServiceTags) -> Pattern {
        let name = |text: &str| text.parse().expect("a name");
        Pattern { base: Service::new(name("all"), name("prod")), tags }
    }

    #[test]
    fn the_tags_of_the_data_plane_api_create_services_by_name_and_port() {
        let (name, port, own) = ("HAProxy:Service:Name", "HAProxy:Service:Port", "HAProxy:Instance:Port");
        let instances = [
            instance("i-1", &[(name, "web"), (port, "80")]),
            instance("i-2", &[(name, "web"), (port, "80"), (own, "8080")]),
            instance("i-3", &[(name, "web"), (port, "443")]),
            instance("i-4", &[(name, "web")]),
            instance("i-5", &[(name, "no good"), (port, "80")]),
            instance("i-6", &[(name, "web"), (port, "+80")]),
            instance("i-7", &[]),
        ];
        let created = pattern(ServiceTags::haproxy()).expand(&instances);
        let names: Vec<_> = created.services.keys().map(Name::as_str).collect();
        assert_eq!(names, ["web-443", "web-80"]);
        let web = select(&created.services["web-80"].0, &instances).members;
        let found: Vec<_> = web.iter().map(|m| (m.backend.id.as_str(), m.backend.port)).collect();
        assert_eq!(found, [("i-1", 80), ("i-2", 8080)]);
        assert_eq!(created.faults.len(), 3, "{:?}", created.faults);
        for (fault, id) in created.faults.iter().zip(["i-4", "i-5", "i-6"]) {
            assert!(fault.contains(id), "{fault}");
        }
    }

    #[test]
    fn a_tag_alone_creates_services_with_the_patterns_own_port() {
        let tags = ServiceTags { name: "Role".to_owned(), port: None, instance_port: None };
        let mut pattern = pattern(tags);
        pattern.base.port = PortRule::Fixed(8080);
        let mut stopped = instance("i-3", &[("Role", "gone")]);
        stopped.state = InstanceState::Stopped;
        let created =
            pattern.expand(&[instance("i-1", &[("Role", "web")]), instance("i-2", &[("Role", "db")]), stopped]);
        assert_eq!(created.services.keys().map(Name::as_str).collect::<Vec<_>>(), ["db", "web"]);
        let many: Vec<_> = (0..1100).map(|n| instance(&format!("i-{n}"), &[("Role", &format!("r{n}"))])).collect();
        let created = pattern.expand(&many);
        assert_eq!((created.services.len(), created.faults.len()), (MAX_CREATED, 1));
    }
}
