//! `[services.NAME]`, from what is written to what holds.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::layers::Layers;
use crate::model::{
    AddressKind, Attribute, Condition, Guard, MAX_WEIGHT, Name, OnEmpty, Percent, PortRule, Selector, Service,
    WeightRule,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    provider: Name,
    #[serde(default)]
    select: BTreeMap<String, RawCondition>,
    #[serde(default, rename = "where")]
    attributes: BTreeMap<Attribute, RawCondition>,
    #[serde(default)]
    address: AddressKind,
    port: Option<RawRule>,
    weight: Option<RawRule>,
    #[serde(default)]
    guard: RawGuard,
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

/// Every service that can be read; what cannot is noted.
pub fn services(layers: &mut Layers) -> Vec<Service> {
    let mut services = Vec::new();
    for (text, mut entry) in layers.tables("services") {
        let key = format!("services.{text}");
        let name = super::name(layers, "services", &text);
        let raw: Option<RawService> = layers.extract(&key, &mut entry);
        if let (Some(name), Some(raw)) = (name, raw) {
            services.push(service(layers, &key, name, raw));
        }
    }
    services
}

fn service(layers: &mut Layers, key: &str, name: Name, raw: RawService) -> Service {
    let of = |(tag, raw): (String, _)| {
        let condition = condition(layers, &format!("{key}.select.{tag}"), raw);
        (tag, condition)
    };
    let tags = raw.select.into_iter().map(of).collect();
    let of = |(attribute, raw): (Attribute, _)| {
        (attribute, condition(layers, &format!("{key}.where.{}", attribute.as_str()), raw))
    };
    let attributes = raw.attributes.into_iter().map(of).collect();
    Service {
        name,
        provider: raw.provider,
        select: Selector { tags, attributes },
        address: raw.address,
        port: port(layers, key, raw.port),
        weight: weight(layers, key, raw.weight),
        guard: guard(layers, key, raw.guard),
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

fn condition(layers: &mut Layers, key: &str, raw: RawCondition) -> Condition {
    let condition = match raw {
        RawCondition::OneOf(values) => Condition::OneOf(values.into()),
        RawCondition::Glob(RawGlob { glob }) => Condition::Like(glob.into()),
        RawCondition::Present(RawPresent { present: true }) => Condition::Present,
        RawCondition::Present(RawPresent { present: false }) => Condition::Absent,
    };
    if matches!(&condition, Condition::OneOf(texts) | Condition::Like(texts) if texts.is_empty()) {
        layers.fault(key, "is an empty list, which no instance could ever match");
    }
    condition
}

fn port(layers: &mut Layers, key: &str, raw: Option<RawRule>) -> PortRule {
    let key = format!("{key}.port");
    match raw {
        None => PortRule::Instance,
        Some(RawRule::Fixed(0) | RawRule::Tag(RawTagRule { default: Some(0), .. })) => {
            layers.fault(&key, "0 is not a port: use 1 to 65535");
            PortRule::Instance
        }
        Some(RawRule::Fixed(port)) => PortRule::Fixed(port),
        Some(RawRule::Tag(RawTagRule { tag, default })) => PortRule::Tag { key: tag, default },
    }
}

fn weight(layers: &mut Layers, key: &str, raw: Option<RawRule>) -> WeightRule {
    let number = match &raw {
        None => None,
        Some(RawRule::Fixed(weight)) => Some(*weight),
        Some(RawRule::Tag(rule)) => rule.default,
    };
    if let Some(weight) = number.filter(|weight| *weight > MAX_WEIGHT) {
        layers.fault(&format!("{key}.weight"), format!("{weight} is not a weight: use 0 to {MAX_WEIGHT}"));
    }
    match raw {
        None => WeightRule::Instance,
        Some(RawRule::Fixed(weight)) => WeightRule::Fixed(weight),
        Some(RawRule::Tag(RawTagRule { tag, default })) => WeightRule::Tag { key: tag, default: default.unwrap_or(1) },
    }
}

fn guard(layers: &mut Layers, key: &str, raw: RawGuard) -> Guard {
    let defaults = Guard::default();
    if raw.confirm == Some(0) {
        layers.fault(&format!("{key}.guard.confirm"), "must be at least 1");
    }
    Guard {
        on_empty: raw.on_empty.unwrap_or(defaults.on_empty),
        max_drop: raw.max_drop.unwrap_or(defaults.max_drop),
        confirm: raw.confirm.unwrap_or(defaults.confirm),
    }
}
