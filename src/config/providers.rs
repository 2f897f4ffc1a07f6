//! `[providers.NAME]`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::layers::Layers;
use super::section::Section;
use crate::model::Name;
use crate::provider;
use crate::provider::poll::PollSchedule;
use crate::provider::{Configuration, TypeVisitor};
use crate::registry::ProviderSettings;
use crate::units::TimeSpan;

/// The shortest and the longest interval between polls.
const INTERVALS: RangeInclusive<TimeSpan> = TimeSpan::from_millis(100)..=TimeSpan::from_secs(24 * 60 * 60);

/// A provider, and how often it is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// The provider's own configuration.
    pub config: provider::Config,
    /// How often it is asked.
    pub pace: PollSchedule,
}

impl Provider {
    /// The part that the registry needs.
    pub(super) fn settings(&self) -> ProviderSettings {
        ProviderSettings { type_name: self.config.type_name(), interval: self.pace.interval }
    }
}

/// The keys every provider has, beside `type` and its own.
#[derive(Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct RawSchedule {
    /// The time between two polls, ±10 % jitter: 100 ms to 24 h. While the source throttles it is doubled, up to 16 times
    /// and to 15 min at most, and goes back by one `interval` with each poll that succeeds.
    interval: TimeSpan,
    /// How long one poll may take as a whole, not counting the time that it waits for a budget of calls.
    timeout: TimeSpan,
}

impl Default for RawSchedule {
    fn default() -> Self {
        Self { interval: TimeSpan::from_secs(15), timeout: TimeSpan::from_secs(60) }
    }
}

/// Every provider without faults; the faults of the others are noted. `state_dir` is `None` if that key has a fault.
pub fn providers(layers: &mut Layers, state_dir: Option<&Path>) -> BTreeMap<Name, Provider> {
    let mut providers = BTreeMap::new();
    for text in Section::names(layers, "providers") {
        let mut section = Section::at(layers, &["providers", &text]);
        let name = section.name();
        let type_name = section.read_type(provider::TYPES);
        let pace = pace(&mut section);
        let Some(type_name) = type_name else { continue };
        // The other keys are read even where the name has a fault.
        let any_name = || "unnamed".parse().expect("a valid name");
        let context = provider::Context {
            name: &name.clone().unwrap_or_else(any_name),
            timeout: pace.map_or(RawSchedule::default().timeout.0, |pace| pace.timeout),
            state_dir,
        };
        let config = provider::visit_type(&type_name, ReadConfig { section: &mut section, context });
        let Some(config) = config else {
            section.fault("type", format!("{type_name:?} cannot be configured in this build"));
            continue;
        };
        if let (Some(name), Some(config), Some(pace)) = (name, config, pace) {
            providers.insert(name, Provider { config, pace });
        }
    }
    providers
}

/// Reads the keys of a provider's own type.
struct ReadConfig<'s, 'l, 'c> {
    section: &'s mut Section<'l>,
    context: provider::Context<'c>,
}

impl TypeVisitor for ReadConfig<'_, '_, '_> {
    type Output = Option<provider::Config>;

    fn visit<C: Configuration>(self) -> Self::Output {
        let Self { section, context } = self;
        section.resolve(|raw| C::resolve(raw, &context)).map(provider::Config::new)
    }
}

fn pace(section: &mut Section) -> Option<PollSchedule> {
    let raw: RawSchedule = section.read_some(&["interval", "timeout"])?;
    let RawSchedule { interval, timeout } = raw;
    if !INTERVALS.contains(&interval) {
        let message = format!("{interval} is not between {} and {}", INTERVALS.start(), INTERVALS.end());
        section.fault("interval", message);
    }
    if timeout.is_zero() {
        section.fault("timeout", "must be longer than 0s");
    }
    Some(PollSchedule { interval: interval.0, timeout: timeout.0 })
}
