//! `[services.NAME]`, from what is written to what holds.

use std::collections::{BTreeMap, BTreeSet};

use std::sync::Arc;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact;
use serde::Deserialize;

use super::health;
use super::layers::Layers;
use super::section::Section;
use crate::model::{
    AddressKind, AtLeast, Attribute, Condition, FieldFault, Guard, HealthCheck, MAX_WEIGHT, Name, OnEmpty, Pattern,
    Percent, PortRule, Prefer, Selector, Service, ServiceTags, SourcesMode, WeightRule,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    provider: OneOrMore,
    #[serde(default)]
    sources: SourcesMode,
    #[serde(default, with = "compact::optional")]
    expire: Option<Duration>,
    #[serde(default)]
    select: BTreeMap<String, RawCondition>,
    #[serde(default, rename = "where")]
    attributes: BTreeMap<Attribute, RawCondition>,
    #[serde(default)]
    address: AddressKind,
    port: Option<RawRule>,
    weight: Option<RawWeight>,
    #[serde(default)]
    guard: RawGuard,
    #[serde(default, with = "compact::optional")]
    min_age: Option<Duration>,
    #[serde(default, with = "compact::optional")]
    slow_start: Option<Duration>,
    #[serde(default, with = "compact::optional")]
    drain: Option<Duration>,
    prefer: Option<RawPrefer>,
    health: Option<health::Raw>,
    each: Option<RawEach>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the name of a provider, or a list of names")]
enum OneOrMore {
    One(Name),
    More(Vec<Name>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected \"same-zone\", or { zone = \"same\", at_least = 2 } or \"50%\"")]
enum RawPrefer {
    Word(SameZone),
    Table(RawPreferTable),
}

#[derive(Deserialize)]
enum SameZone {
    #[serde(rename = "same-zone")]
    SameZone,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPreferTable {
    #[serde(rename = "zone")]
    _zone: Same,
    at_least: RawAtLeast,
}

#[derive(Deserialize)]
enum Same {
    #[serde(rename = "same")]
    Same,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, or a percentage such as \"50%\"")]
enum RawAtLeast {
    Count(usize),
    Part(Percent),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected \"haproxy\", or { tag = \"KEY\" }")]
enum RawEach {
    Convention(Convention),
    Tag(RawEachTag),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Convention {
    HAProxy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEachTag {
    tag: String,
    port: Option<String>,
    instance_port: Option<String>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a text, a list of texts, { glob = \"web-*\" }, { present = true } or { present = false }"
)]
enum RawCondition {
    OneOf(OneOrMany),
    Glob(RawGlob),
    Present(RawPresent),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGlob {
    glob: OneOrMany,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPresent {
    present: bool,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text, or a list of texts")]
enum OneOrMany {
    One(String),
    Many(BTreeSet<String>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, or { tag = \"KEY\", default = NUMBER }")]
enum RawRule {
    Fixed(u16),
    Tag(RawTagRule),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, { tag = \"KEY\", default = NUMBER }, { by = \"size\", default = NUMBER } or \
                 { by = \"type\", weights = { \"m5.large\" = NUMBER }, default = NUMBER }"
)]
enum RawWeight {
    Rule(RawRule),
    Kind(RawKindRule),
}

#[derive(Deserialize)]
#[serde(tag = "by", rename_all = "lowercase", deny_unknown_fields)]
enum RawKindRule {
    Size { default: Option<u16> },
    Type { weights: BTreeMap<String, u16>, default: Option<u16> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTagRule {
    tag: String,
    default: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGuard {
    on_empty: Option<OnEmpty>,
    max_drop: Option<Percent>,
    confirm: Option<u32>,
}

/// The shortest time after which a provider may be given up.
const SHORTEST_EXPIRY: Duration = Duration::from_secs(1);

/// The longest time for which a backend may be made to wait or kept.
const LONGEST: Duration = Duration::from_hours(24);

/// How many backends in our own zone are enough unless configured: with one alone, its failure would be everybody's.
const NEAR_ENOUGH: usize = 2;

/// Every service and every pattern of services that can be read; what cannot is noted.
pub fn services(layers: &mut Layers) -> (Vec<Service>, Vec<Pattern>) {
    let (mut services, mut patterns) = (Vec::new(), Vec::new());
    for text in layers.tables("services") {
        let mut section = layers.section(&["services", &text]);
        let name = section.name();
        let raw: Option<RawService> = section.read_rest();
        if let (Some(name), Some(mut raw)) = (name, raw) {
            let each = raw.each.take();
            let service = service(&mut section, name, raw);
            match each {
                None => services.push(service),
                Some(each) => patterns.push(Pattern { base: service, tags: tags(&mut section, each) }),
            }
        }
    }
    (services, patterns)
}

/// A selector that stands by itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSelector {
    #[serde(default)]
    select: BTreeMap<String, RawCondition>,
    #[serde(default, rename = "where")]
    attributes: BTreeMap<Attribute, RawCondition>,
}

impl RawSelector {
    pub const KEYS: &[&str] = &["select", "where"];

    pub fn resolve(self, section: &mut Section) -> Selector {
        selector(section, self.select, self.attributes)
    }
}

fn selector(
    section: &mut Section,
    select: BTreeMap<String, RawCondition>,
    attributes: BTreeMap<Attribute, RawCondition>,
) -> Selector {
    let of = |(tag, raw): (String, _)| {
        let condition = condition(section, &format!("select.{tag}"), raw);
        (tag, condition)
    };
    let tags = select.into_iter().map(of).collect();
    let of = |(attribute, raw): (Attribute, _)| {
        (attribute, condition(section, &format!("where.{}", attribute.as_str()), raw))
    };
    let attributes = attributes.into_iter().map(of).collect();
    Selector { tags, attributes }
}

fn service(section: &mut Section, name: Name, raw: RawService) -> Service {
    let select = selector(section, raw.select, raw.attributes);
    let providers = match raw.provider {
        OneOrMore::One(provider) => vec![provider],
        OneOrMore::More(providers) => providers,
    };
    check_sources(section, &providers, raw.sources, raw.expire);
    Service {
        name,
        providers,
        sources: raw.sources,
        expire: raw.expire,
        select,
        address: raw.address,
        port: port(section, raw.port),
        weight: weight(section, raw.weight),
        guard: guard(section, raw.guard),
        min_age: bounded(section, "min_age", raw.min_age).unwrap_or_default(),
        slow_start: bounded(section, "slow_start", raw.slow_start).filter(|ramp| !ramp.is_zero()),
        drain: bounded(section, "drain", raw.drain).unwrap_or_default(),
        prefer: raw.prefer.map(|raw| prefer(section, &raw)),
        health: raw.health.and_then(|raw| check(section, raw)),
    }
}

fn check_sources(section: &mut Section, providers: &[Name], sources: SourcesMode, expire: Option<Duration>) {
    if providers.is_empty() {
        section.fault("provider", "is an empty list: name at least one provider");
    }
    let distinct: BTreeSet<_> = providers.iter().collect();
    if distinct.len() < providers.len() {
        section.fault("provider", "names a provider twice");
    }
    if expire.is_some_and(|expire| expire < SHORTEST_EXPIRY) {
        section.fault("expire", format!("must be at least {SHORTEST_EXPIRY:?}, longer than a few polls take"));
    }
    if providers.len() < 2 {
        if sources == SourcesMode::Failover {
            section.fault("sources", "there is nothing to fail over to: name another provider");
        }
        if expire.is_some() {
            section.fault("expire", "a single provider's last set never expires: leave it out");
        }
    } else if sources == SourcesMode::Failover && expire.is_none() {
        let message = "missing: say after how long a provider that has fallen silent is given up, such as \"5m\"";
        section.fault("expire", message);
    }
}

/// A time that somebody will live to see the end of.
fn bounded(section: &mut Section, field: &str, time: Option<Duration>) -> Option<Duration> {
    if let Some(time) = time.filter(|time| *time > LONGEST) {
        section.fault(field, format!("{time:?} is more than {LONGEST:?}"));
    }
    time
}

fn check(section: &mut Section, raw: health::Raw) -> Option<HealthCheck> {
    let report = |faults: Vec<FieldFault>| section.report(faults.into_iter().map(|fault| fault.below("health")));
    raw.resolve().map_err(report).ok()
}

fn prefer(section: &mut Section, raw: &RawPrefer) -> Prefer {
    let at_least = match raw {
        RawPrefer::Word(SameZone::SameZone) => AtLeast::Count(NEAR_ENOUGH),
        RawPrefer::Table(RawPreferTable { at_least: RawAtLeast::Count(count), .. }) => AtLeast::Count(*count),
        RawPrefer::Table(RawPreferTable { at_least: RawAtLeast::Part(part), .. }) => AtLeast::Part(*part),
    };
    if at_least == AtLeast::Count(0) {
        section.fault("prefer.at_least", "must be at least 1");
    }
    Prefer { at_least }
}

fn tags(section: &mut Section, raw: RawEach) -> ServiceTags {
    match raw {
        RawEach::Convention(Convention::HAProxy) => ServiceTags::haproxy(),
        RawEach::Tag(RawEachTag { tag, port, instance_port }) => {
            if port.is_none() && instance_port.is_some() {
                let message = "is for instances whose port is not the service's: set `port`, too";
                section.fault("each.instance_port", message);
            }
            ServiceTags { name: tag, port, instance_port }
        }
    }
}

impl From<OneOrMany> for BTreeSet<String> {
    fn from(raw: OneOrMany) -> Self {
        match raw {
            OneOrMany::One(text) => [text].into(),
            OneOrMany::Many(texts) => texts,
        }
    }
}

fn condition(section: &mut Section, field: &str, raw: RawCondition) -> Condition {
    let condition = match raw {
        RawCondition::OneOf(values) => Condition::OneOf(Arc::new(values.into())),
        RawCondition::Glob(RawGlob { glob }) => Condition::Like(Arc::new(glob.into())),
        RawCondition::Present(RawPresent { present: true }) => Condition::Present,
        RawCondition::Present(RawPresent { present: false }) => Condition::Absent,
    };
    if matches!(&condition, Condition::OneOf(texts) | Condition::Like(texts) if texts.is_empty()) {
        section.fault(field, "is an empty list, which no instance could ever match");
    }
    condition
}

fn port(section: &mut Section, raw: Option<RawRule>) -> PortRule {
    match raw {
        None => PortRule::Instance,
        Some(RawRule::Fixed(0) | RawRule::Tag(RawTagRule { default: Some(0), .. })) => {
            section.fault("port", "0 is not a port: use 1 to 65535");
            PortRule::Instance
        }
        Some(RawRule::Fixed(port)) => PortRule::Fixed(port),
        Some(RawRule::Tag(RawTagRule { tag, default })) => PortRule::Tag { key: tag, default },
    }
}

fn weight(section: &mut Section, raw: Option<RawWeight>) -> WeightRule {
    let rule = match raw {
        None => WeightRule::Instance,
        Some(RawWeight::Rule(RawRule::Fixed(weight))) => WeightRule::Fixed(weight),
        Some(RawWeight::Rule(RawRule::Tag(RawTagRule { tag, default }))) => {
            WeightRule::Tag { key: tag, default: default.unwrap_or(1) }
        }
        Some(RawWeight::Kind(RawKindRule::Size { default })) => WeightRule::Size { default: default.unwrap_or(1) },
        Some(RawWeight::Kind(RawKindRule::Type { weights, default })) => {
            WeightRule::Type { weights, default: default.unwrap_or(1) }
        }
    };
    let numbers: Vec<u16> = match &rule {
        WeightRule::Instance => Vec::new(),
        WeightRule::Fixed(weight) => vec![*weight],
        WeightRule::Tag { default, .. } | WeightRule::Size { default } => vec![*default],
        WeightRule::Type { weights, default } => weights.values().copied().chain([*default]).collect(),
    };
    for weight in numbers.into_iter().filter(|weight| *weight > MAX_WEIGHT) {
        section.fault("weight", format!("{weight} is not a weight: use 0 to {MAX_WEIGHT}"));
    }
    rule
}

fn guard(section: &mut Section, raw: RawGuard) -> Guard {
    let defaults = Guard::default();
    if raw.confirm == Some(0) {
        section.fault("guard.confirm", "must be at least 1");
    }
    Guard {
        on_empty: raw.on_empty.unwrap_or(defaults.on_empty),
        max_drop: raw.max_drop.unwrap_or(defaults.max_drop),
        confirm: raw.confirm.unwrap_or(defaults.confirm),
    }
}
