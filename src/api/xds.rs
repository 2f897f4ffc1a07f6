//! `POST /v3/discovery:endpoints`: Envoy's own protocol (xDS v3, REST-JSON), so that it needs neither a file nor a
//! control plane.
//!
//! Envoy asks again and again (`refresh_delay`) with the version it has. It is answered with 304 if there is none
//! newer, at once; or, if its node's metadata holds `elasticd_wait`, as soon as there is one or that time is over.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Body as HttpBody;
use hyper::{Response, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::documents::{ServiceDocuments, SnapshotDocuments};
use super::endpoints::ENDPOINTS;
use super::error::{Problem, echo};
use super::headers::JSON;
use super::query::{brief_wait, duration};
use super::respond::{Body, respond, respond_as};

/// The longest request taken, in bytes: Envoy names itself and everything it can do.
const MAX_REQUEST: usize = 1024 * 1024;

/// What is read of Envoy's request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "DiscoveryRequest")]
pub(super) struct Discovery {
    /// The version that Envoy has.
    version_info: String,
    node: Node,
    /// Names of services; all, if there is none.
    resource_names: Vec<String>,
    #[schemars(extend("enum" = ["", ENDPOINTS]))]
    type_url: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Node {
    #[schemars(schema_with = "metadata_schema")]
    metadata: BTreeMap<String, Value>,
}

fn metadata_schema(_: &mut SchemaGenerator) -> Schema {
    let wait = brief_wait("How long to wait for a newer version, up to 5m.");
    json_schema!({ "type": "object", "properties": { "elasticd_wait": wait } })
}

/// The answer to Envoy's request.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is written by hand, of documents that are serialised already")]
pub(super) struct DiscoveryResponse {
    version_info: String,
    type_url: String,
    resources: Vec<BTreeMap<String, Value>>,
}

impl Discovery {
    /// Reads a request.
    pub(super) async fn read<B>(body: B) -> Result<Self, Problem>
    where
        B: HttpBody,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let bad = |why: String| Problem::Body { why };
        let body = Limited::new(body, MAX_REQUEST).collect().await;
        let body = body.map_err(|_| bad(format!("it is longer than {MAX_REQUEST} bytes, or was cut off")))?;
        let asked: Self = serde_json::from_slice(&body.to_bytes())
            .map_err(|error| bad(format!("{error}; it should be a DiscoveryRequest in JSON")))?;
        if !asked.type_url.is_empty() && asked.type_url != ENDPOINTS {
            return Err(bad(format!(
                "there are no resources of type {:?} here, only {ENDPOINTS}",
                echo(&asked.type_url)
            )));
        }
        if let Some(wait) = asked.node.metadata.get("elasticd_wait")
            && wait.as_str().and_then(duration).is_none()
        {
            return Err(bad(format!("node.metadata.elasticd_wait is {wait}: use a time of up to 5m, such as \"55s\"")));
        }
        Ok(asked)
    }

    /// How long to wait for a newer version.
    pub(super) fn wait(&self) -> Duration {
        self.node.metadata.get("elasticd_wait").and_then(Value::as_str).and_then(duration).unwrap_or_default()
    }

    /// The answer, once there is a newer version. Ends early at `shutdown`.
    pub(super) async fn answer(self, context: &Context, shutdown: &CancellationToken) -> Response<Body> {
        let mut snapshots = context.sources.snapshot.clone();
        let deadline = tokio::time::Instant::now() + self.wait();
        loop {
            snapshots.mark_unchanged();
            if let Some(documents) = context.newest() {
                let services = self.asked(&documents);
                let version = version(&services);
                if version != self.version_info {
                    return respond_as(StatusCode::OK, JSON, response(&version, &services));
                }
            }
            tokio::select! {
                biased;
                Ok(()) = snapshots.changed() => {}
                () = shutdown.cancelled() => return self.nothing_new(context),
                () = tokio::time::sleep_until(deadline) => return self.nothing_new(context),
            }
        }
    }

    fn nothing_new(&self, context: &Context) -> Response<Body> {
        if context.newest().is_none() {
            return Problem::NotYet { why: "no snapshot exists yet".to_owned() }.response();
        }
        respond(StatusCode::NOT_MODIFIED, "")
    }

    /// The services asked for; all, if none is named.
    fn asked<'a>(&self, documents: &'a SnapshotDocuments) -> Vec<&'a ServiceDocuments> {
        let is_asked = |name: &str| self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == name);
        let services = documents.services().iter().filter(|(name, _)| is_asked(name.as_str()));
        services.map(|(_, service)| &**service).collect()
    }
}

/// The version of what some services have.
fn version(services: &[&ServiceDocuments]) -> String {
    let mut hasher = DefaultHasher::new();
    for service in services {
        hasher.write(service.assignment().etag.as_bytes());
    }
    let revision = services.iter().map(|service| service.revision()).max().unwrap_or_default();
    format!("{revision}-{:016x}", hasher.finish())
}

/// The `DiscoveryResponse`, made of the services' own documents.
fn response(version: &str, services: &[&ServiceDocuments]) -> Vec<u8> {
    let resources: Vec<_> = services.iter().map(|service| &service.assignment().bytes[..]).collect();
    let rest = format!("],\"type_url\":\"{ENDPOINTS}\",\"version_info\":\"{version}\"}}");
    [&b"{\"resources\":["[..], &resources.join(&b","[..]), rest.as_bytes()].concat()
}
