//! `fixed`: instances written in the configuration itself.

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::instance_spec::{self, InstanceSpec, Place};
use super::{BuildContext, Configuration, Context, Error, Provider};
use crate::model::{FieldFault, Instance};

/// The instances, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// As written, in that order; ids are unique.
    pub instances: Vec<Instance>,
}

/// Instances written in the configuration itself.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// The instances, such as `[{ address = "10.0.0.1:8080" }]`.
    pub instances: Vec<InstanceSpec>,
}

impl Raw {
    /// The valid configuration.
    ///
    /// # Errors
    ///
    /// All faults at once, each with the entry's index, counted from 0.
    pub fn resolve(self) -> Result<Config, Vec<FieldFault>> {
        let entries = self.instances.into_iter().enumerate().map(|(i, entry)| (Place::Listed(i), entry));
        match instance_spec::resolve(entries) {
            Ok(instances) => Ok(Config { instances }),
            Err(faults) => Err(faults
                .iter()
                .map(|fault| FieldFault::new(fault.at.to_string(), fault.reason.to_string()))
                .collect()),
        }
    }
}

impl Configuration for Config {
    const TYPE: &'static str = "fixed";

    type Raw = Raw;

    fn resolve(raw: Raw, _context: &Context<'_>) -> Result<Self, Vec<FieldFault>> {
        raw.resolve()
    }

    fn build(&self, _context: &BuildContext<'_>) -> Box<dyn Provider> {
        Box::new(Fixed::new(self))
    }
}

/// Answers with what the configuration says.
#[derive(Debug)]
pub struct Fixed {
    instances: Vec<Instance>,
}

impl Fixed {
    /// A provider of these instances.
    pub fn new(config: &Config) -> Self {
        Self { instances: config.instances.clone() }
    }
}

impl Provider for Fixed {
    fn discover(&mut self) -> BoxFuture<'_, Result<Vec<Instance>, Error>> {
        Box::pin(std::future::ready(Ok(self.instances.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Raw {
        serde_json::from_str(json).unwrap()
    }

    #[tokio::test]
    async fn answers_with_what_is_written() {
        let config = raw(r#"{"instances": [{"address": "10.0.0.2:80"}, {"id": "a", "address": "10.0.0.1"}]}"#);
        let instances = Fixed::new(&config.resolve().unwrap()).discover().await.unwrap();
        let ids: Vec<_> = instances.iter().map(|i| i.id.as_str()).collect();
        assert_eq!(ids, ["10.0.0.2:80", "a"]);
    }

    #[test]
    fn names_every_fault_with_its_entry() {
        let faults = raw(r#"{"instances": [{"address": "x"}, {"id": "a"}, {"id": "a"}]}"#).resolve().unwrap_err();
        assert_eq!(faults.len(), 2);
        assert!(faults[0].to_string().starts_with("instances[0]: "));
        assert!(faults[1].to_string().starts_with("instances[2]: the id \"a\" is that of instances[1]"));
        assert!(serde_json::from_str::<Raw>(r#"{"instances": [], "instance": 1}"#).is_err());
    }
}
