//! What the API takes and answers with, beside [`Status`](crate::status::Status): the command line reads these types, and
//! the description of the API is made of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::{Backend, MAX_WEIGHT, Name, Tags};
use crate::units::TimeSpan;

/// A service's backends.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Service<'a> {
    /// The service's name.
    pub name: Cow<'a, Name>,
    /// The revision at which its backends last changed.
    pub revision: u64,
    /// The backends, ordered by id.
    pub backends: Cow<'a, [Backend]>,
}

/// All services at a revision.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot<'a> {
    /// The snapshot's revision.
    pub revision: u64,
    /// The services, ordered by name.
    pub services: Vec<Service<'a>>,
}

/// The data of an event: the services that changed, in full, and the names of those that are gone.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Change<'a> {
    /// The snapshot's revision.
    pub revision: u64,
    /// The services that changed.
    pub services: Vec<Service<'a>>,
    /// The services that are gone.
    #[serde(default)]
    pub gone: Vec<Name>,
}

/// Why an instance is a backend of some services and not of others.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The instance's id.
    pub instance: String,
    /// By service.
    pub services: Vec<ServiceExplanation>,
    /// The frontends that leave it out though it is a backend, because their templates cannot render it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frontends: Vec<FrontendExplanation>,
}

/// Why a frontend's outputs lack a backend.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FrontendExplanation {
    /// The frontend.
    pub frontend: Name,
    /// The service of which the instance is a backend.
    pub service: Name,
    /// Why, with the template's file, line and column.
    pub message: String,
}

/// Why an instance is a backend of a service, or why it is not.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ServiceExplanation {
    /// The service.
    pub service: Name,
    /// Whether the instance is a backend in the snapshot.
    pub included: bool,
    /// Why, in a sentence.
    pub message: String,
    /// The rule that excludes it, in the words of `/v1/status`; absent if none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The backend, as frontends see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// What the rule is about, such as a tag's `key` and `value`.
    #[serde(flatten)]
    pub details: BTreeMap<String, serde_json::Value>,
}

/// The answer to a change.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// What was done.
    pub done: String,
    /// The service's revision afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// Why a request was not answered otherwise (RFC 9457).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Problem<'a> {
    /// The kind of problem, for programs.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// The kind of problem, for people.
    pub title: Cow<'a, str>,
    /// The HTTP status.
    pub status: u16,
    /// What happened, and what to do.
    pub detail: Cow<'a, str>,
}

/// A backend to be registered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    /// An IPv4 or IPv6 address.
    #[schemars(schema_with = "address_schema")]
    pub(super) address: IpAddr,
    #[serde(deserialize_with = "whole_number")]
    #[schemars(range(min = 1))]
    pub(super) port: u16,
    #[serde(default = "one", deserialize_with = "whole_number")]
    #[schemars(range(max = MAX_WEIGHT))]
    pub(super) weight: u16,
    #[serde(default)]
    pub(super) zone: Option<String>,
    #[serde(default)]
    pub(super) tags: Tags,
    /// For how long it is registered, 1s to 24h.
    #[schemars(schema_with = "ttl_schema")]
    pub(super) ttl: TimeSpan,
}

const fn one() -> u16 {
    1
}

/// A whole number, which JSON may as well write as `80.0`.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let number = f64::deserialize(deserializer)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and in range")]
    let whole = (number.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(&number)).then_some(number as u16);
    let why = || serde::de::Error::custom(format!("{number} is not a whole number from 0 to {}", u16::MAX));
    whole.ok_or_else(why)
}

fn address_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "example": "10.0.0.1", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] })
}

fn ttl_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[1-9][0-9]{0,2}s$", "example": "30s" })
}
