//! `[providers.NAME]`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact;
use serde::Deserialize;

use super::layers::Layers;
use super::section::Section;
use crate::model::Name;
use crate::provider;
use crate::provider::poll::PollSchedule;

/// The shortest and the longest interval between polls.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_hours(24));

/// How long one poll may take, where nothing else is configured.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A provider, and how often it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The provider's own configuration.
    pub config: provider::Config,
    /// How often it is asked.
    pub pace: PollSchedule,
}

/// The keys every provider has, beside `type` and its own.
#[derive(Deserialize)]
struct RawSchedule {
    #[serde(default, with = "compact::optional")]
    interval: Option<Duration>,
    #[serde(default, with = "compact::optional")]
    timeout: Option<Duration>,
}

/// Every provider without faults; the faults of the others are noted.
pub fn providers(layers: &mut Layers) -> BTreeMap<Name, Provider> {
    let mut providers = BTreeMap::new();
    for text in layers.tables("providers") {
        let mut section = layers.section(&["providers", &text]);
        let name = section.name();
        let type_name = section.read_type(provider::Config::TYPES);
        let pace = pace(&mut section);
        let config = type_name.and_then(|type_name| {
            let timeout = pace.map_or(TIMEOUT, |pace| pace.timeout);
            provider_config(&mut section, name.as_ref(), &type_name, timeout)
        });
        if let (Some(name), Some(config), Some(pace)) = (name, config, pace) {
            providers.insert(name, Provider { config, pace });
        }
    }
    providers
}

fn provider_config(
    section: &mut Section,
    name: Option<&Name>,
    type_name: &str,
    timeout: Duration,
) -> Option<provider::Config> {
    #[cfg(not(feature = "nats"))]
    let _ = name;
    use provider::{exec, file, fixed, http};
    match type_name {
        "fixed" => section.resolve(fixed::Raw::resolve).map(provider::Config::Fixed),
        "file" => section.resolve(file::Raw::resolve).map(provider::Config::File),
        "exec" => section.resolve(|raw: exec::Raw| raw.resolve(timeout)).map(provider::Config::Exec),
        "http" => section.resolve(|raw: http::Raw| raw.resolve(timeout)).map(Box::new).map(provider::Config::Http),
        #[cfg(feature = "ec2")]
        "ec2" => section.resolve(provider::ec2::Raw::resolve).map(provider::Config::Ec2),
        #[cfg(feature = "nats")]
        "nats" => super::fleet::provider(section, name?).map(provider::Config::Nats),
        _ => None,
    }
}

fn pace(section: &mut Section) -> Option<PollSchedule> {
    let raw: RawSchedule = section.read_some(&["interval", "timeout"])?;
    let interval = raw.interval.unwrap_or(Duration::from_secs(15));
    let timeout = raw.timeout.unwrap_or(TIMEOUT);
    if !(INTERVALS.0..=INTERVALS.1).contains(&interval) {
        section.fault("interval", format!("{interval:?} is not between 100ms and 24h"));
    }
    if timeout.is_zero() {
        section.fault("timeout", "must be longer than 0s");
    }
    Some(PollSchedule { interval, timeout })
}
