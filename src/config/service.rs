//! `[services.NAME]`.

pub mod raw;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raw::{
    Convention, RawAtLeast, RawCondition, RawEach, RawEachTag, RawGlob, RawKindRule, RawPrefer, RawPresent, RawRule,
    RawSelector, RawService, RawTagRule, RawWeight,
};

use super::layers::Layers;
use super::section::Section;
use crate::model::{
    AtLeast, Attribute, Condition, FieldFault, MAX_WEIGHT, Name, Pattern, PortRule, Prefer, Selector, Service,
    ServiceTags, SourcesMode, WeightRule,
};
use crate::units::TimeSpan;

/// The shortest time after which a provider's set may expire.
const SHORTEST_EXPIRY: TimeSpan = TimeSpan::from_secs(1);

/// The longest time for which a backend may be made to wait, or be kept.
const LONGEST: TimeSpan = TimeSpan::from_secs(24 * 60 * 60);

/// How many backends in our own zone are enough unless configured: if there were only one, its failure would leave none.
const NEAR_ENOUGH: usize = 2;

/// Every service and every pattern of services that can be read; faults are noted.
pub fn services(layers: &mut Layers) -> (Vec<Service>, Vec<Pattern>) {
    let (mut services, mut patterns) = (Vec::new(), Vec::new());
    for text in Section::names(layers, "services") {
        let mut section = Section::at(layers, &["services", &text]);
        let name = section.name();
        let raw: Option<RawService> = section.read_rest();
        let (Some(name), Some(mut raw)) = (name, raw) else { continue };
        let mut faults = Vec::new();
        let each = raw.each.take().map(|each| tags(each, &mut faults));
        let service = raw.resolve(name, &mut faults);
        section.report(faults);
        match each {
            None => services.push(service),
            Some(tags) => patterns.push(Pattern { base: service, tags }),
        }
    }
    (services, patterns)
}

impl RawService {
    /// The service, with what can be said of it even where it has `faults`.
    fn resolve(self, name: Name, faults: &mut Vec<FieldFault>) -> Service {
        let select = selector(self.select, self.attributes, faults);
        let providers: Vec<Name> = self.provider.into();
        check_sources(&providers, self.sources, self.expire, faults);
        if self.guard.confirm == 0 {
            faults.push(FieldFault::new("guard.confirm", "must be at least 1"));
        }
        let slow_start = bounded("slow_start", self.slow_start, faults).0;
        Service {
            name,
            providers,
            sources: self.sources,
            expire: self.expire.map(Into::into),
            select,
            address: self.address,
            port: port(self.port, faults),
            weight: weight(self.weight, faults),
            guard: self.guard,
            min_age: bounded("min_age", self.min_age, faults).0,
            slow_start: Some(slow_start).filter(|ramp| !ramp.is_zero()),
            drain: bounded("drain", self.drain, faults).0,
            prefer: self.prefer.map(|raw| prefer(&raw, faults)),
            health: self.health.and_then(|raw| {
                let report =
                    |wrong: Vec<FieldFault>| faults.extend(wrong.into_iter().map(|fault| fault.below("health")));
                raw.resolve().map_err(report).ok()
            }),
        }
    }
}

impl RawSelector {
    /// The selector.
    pub fn resolve(self, faults: &mut Vec<FieldFault>) -> Selector {
        selector(self.select, self.attributes, faults)
    }
}

fn selector(
    select: BTreeMap<String, RawCondition>,
    attributes: BTreeMap<Attribute, RawCondition>,
    faults: &mut Vec<FieldFault>,
) -> Selector {
    let tags = select.into_iter().map(|(tag, raw)| {
        let condition = condition(raw, &format!("select.{tag}"), faults);
        (tag, condition)
    });
    let tags = tags.collect();
    let attributes = attributes.into_iter().map(|(attribute, raw)| {
        let field = format!("where.{}", attribute.as_str());
        (attribute, condition(raw, &field, faults))
    });
    Selector { tags, attributes: attributes.collect() }
}

fn condition(raw: RawCondition, field: &str, faults: &mut Vec<FieldFault>) -> Condition {
    let condition = match raw {
        RawCondition::OneOf(values) => Condition::OneOf(Arc::new(values.into())),
        RawCondition::Glob(RawGlob { glob }) => Condition::Like(Arc::new(glob.into())),
        RawCondition::Present(RawPresent { present: true }) => Condition::Present,
        RawCondition::Present(RawPresent { present: false }) => Condition::Absent,
    };
    if matches!(&condition, Condition::OneOf(texts) | Condition::Like(texts) if texts.is_empty()) {
        faults.push(FieldFault::new(field, "is an empty list, which no instance could ever match"));
    }
    condition
}

fn check_sources(providers: &[Name], sources: SourcesMode, expire: Option<TimeSpan>, faults: &mut Vec<FieldFault>) {
    let mut fault = |field: &str, message: String| faults.push(FieldFault::new(field, message));
    if providers.is_empty() {
        fault("provider", "is an empty list: name at least one provider".to_owned());
    }
    let distinct: BTreeSet<_> = providers.iter().collect();
    if distinct.len() < providers.len() {
        fault("provider", "names a provider twice".to_owned());
    }
    if expire.is_some_and(|expire| expire < SHORTEST_EXPIRY) {
        fault("expire", format!("must be at least {SHORTEST_EXPIRY}, and longer than a few polls take"));
    }
    if providers.len() < 2 {
        if sources == SourcesMode::Failover {
            fault("sources", "there is no other provider to fail over to: name one in `provider`".to_owned());
        }
        if expire.is_some() {
            fault("expire", "a single provider's last set never expires: leave it out".to_owned());
        }
    } else if sources == SourcesMode::Failover && expire.is_none() {
        let message = "missing: say after how long without an answer a provider is given up, such as \"5m\"";
        fault("expire", message.to_owned());
    }
}

fn bounded(field: &str, time: TimeSpan, faults: &mut Vec<FieldFault>) -> TimeSpan {
    if time > LONGEST {
        faults.push(FieldFault::new(field, format!("{time} is more than {LONGEST}")));
    }
    time
}

fn prefer(raw: &RawPrefer, faults: &mut Vec<FieldFault>) -> Prefer {
    let at_least = match raw {
        RawPrefer::Word(_) => AtLeast::Count(NEAR_ENOUGH),
        RawPrefer::Table(table) => match table.at_least {
            RawAtLeast::Count(count) => AtLeast::Count(count),
            RawAtLeast::Part(part) => AtLeast::Part(part),
        },
    };
    if at_least == AtLeast::Count(0) {
        faults.push(FieldFault::new("prefer.at_least", "must be at least 1"));
    }
    Prefer { at_least }
}

fn tags(raw: RawEach, faults: &mut Vec<FieldFault>) -> ServiceTags {
    match raw {
        RawEach::Convention(Convention::HAProxy) => ServiceTags::haproxy(),
        RawEach::Tag(RawEachTag { tag, port, instance_port }) => {
            if port.is_none() && instance_port.is_some() {
                let message = "is for instances whose port is not the service's: set `port`, too";
                faults.push(FieldFault::new("each.instance_port", message));
            }
            ServiceTags { name: tag, port, instance_port }
        }
    }
}

fn port(raw: Option<RawRule>, faults: &mut Vec<FieldFault>) -> PortRule {
    match raw {
        None => PortRule::Instance,
        Some(RawRule::Fixed(0) | RawRule::Tag(RawTagRule { default: Some(0), .. })) => {
            faults.push(FieldFault::new("port", "0 is not a port: use 1 to 65535"));
            PortRule::Instance
        }
        Some(RawRule::Fixed(port)) => PortRule::Fixed(port),
        Some(RawRule::Tag(RawTagRule { tag, default })) => PortRule::Tag { key: tag, default },
    }
}

fn weight(raw: Option<RawWeight>, faults: &mut Vec<FieldFault>) -> WeightRule {
    let rule = match raw {
        None => WeightRule::Instance,
        Some(RawWeight::Rule(RawRule::Fixed(weight))) => WeightRule::Fixed(weight),
        Some(RawWeight::Rule(RawRule::Tag(RawTagRule { tag, default }))) => {
            WeightRule::Tag { key: tag, default: default.unwrap_or(1) }
        }
        Some(RawWeight::Kind(RawKindRule::Size { default })) => WeightRule::Size { default },
        Some(RawWeight::Kind(RawKindRule::Type { weights, default })) => WeightRule::Type { weights, default },
    };
    let numbers: Vec<u16> = match &rule {
        WeightRule::Instance => Vec::new(),
        WeightRule::Fixed(weight) => vec![*weight],
        WeightRule::Tag { default, .. } | WeightRule::Size { default } => vec![*default],
        WeightRule::Type { weights, default } => weights.values().copied().chain([*default]).collect(),
    };
    for weight in numbers.into_iter().filter(|weight| *weight > MAX_WEIGHT) {
        faults.push(FieldFault::new("weight", format!("{weight} is not a weight: use 0 to {MAX_WEIGHT}")));
    }
    rule
}
