//! The table of all routes: what requests are matched against, and what the description of the API is made of.

use hyper::Method;
use schemars::{Schema, SchemaGenerator};

use super::admin::Action;
use super::choice::By;
use super::error::Problem;
use super::headers::{EVENT_STREAM, JSON, OPEN_METRICS, TEXT};
use super::query::{FORMAT, KEY, Parameter, Query, REVISION, WAIT, ZONE, decoded};
use super::resource::Resource;
use super::types::{self, Done, Explanation, Registration};
use super::xds::{Discovery, DiscoveryResponse};
use crate::status::Status;

/// Which listeners serve a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// All, the metrics listener among them.
    Everywhere,
    /// Those on sockets.
    Sockets,
    /// The admin listener.
    Admin,
}

/// Makes the schema of a type.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A method on a path.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// With variable segments in braces.
    pub(super) path: &'static str,
    pub(super) access: Access,
    /// The query keys it takes.
    pub(super) query: &'static [Parameter],
    /// Makes the resource of the path's variable segments and the query.
    pub(super) resource: for<'a> fn([&'a str; 2], &Query<'a>) -> Result<Resource<'a>, Problem>,
    pub(super) doc: Operation,
}

/// What the description says of a route.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// Request headers, each with its description.
    pub(super) headers: &'static [(&'static str, &'static str)],
    /// The schema of the request's body.
    pub(super) body: Option<SchemaOf>,
    pub(super) answers: &'static [Documented],
    /// Statuses that are answered with a problem, beside 400 and, for the admin listener, 403.
    pub(super) problems: &'static [u16],
}

/// What the description says of an answer.
#[derive(Debug)]
pub(super) struct Documented {
    pub(super) status: u16,
    pub(super) description: &'static str,
    /// By media type.
    pub(super) content: &'static [(&'static str, SchemaOf)],
    pub(super) headers: &'static [&'static str],
}

const TEXT_SCHEMA: SchemaOf = SchemaGenerator::subschema_for::<String>;

const READ: Operation = Operation { id: "", summary: "", headers: &[], body: None, answers: &[], problems: &[] };

const IF_NONE_MATCH: (&str, &str) = ("If-None-Match", "Entity tags that the client has.");

const NOT_MODIFIED: Documented = Documented {
    status: 304,
    description: "Nothing changed: by `If-None-Match`, or within `wait`.",
    content: &[],
    headers: &["ETag", "X-Elasticd-Revision"],
};

const fn documented(status: u16, description: &'static str, content: &'static [(&str, SchemaOf)]) -> Documented {
    Documented { status, description, content, headers: &[] }
}

/// Every route. Those that are asked for most come first.
pub(super) static ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "/v1/services/{name}/pick",
        access: Access::Sockets,
        query: &[KEY, ZONE],
        resource: |[service, _], query| {
            // An empty value is what a frontend sends that has none.
            let given = |key| query.get(key).filter(|value| !value.is_empty()).cloned();
            let by = By { key: given("key"), zone: given("zone") };
            Ok(Resource::Pick { service: decoded(service), by })
        },
        doc: Operation {
            id: "pick",
            summary: "One backend of a service, chosen by weight",
            answers: &[Documented {
                status: 200,
                description: "The backend.",
                content: &[(JSON, SchemaGenerator::subschema_for::<crate::model::Backend>)],
                headers: &["X-Elasticd-Backend", "X-Elasticd-Revision"],
            }],
            problems: &[404, 503],
            ..READ
        },
    },
    Route {
        method: Method::GET,
        path: "/v1/services/{name}",
        access: Access::Sockets,
        query: &[FORMAT, WAIT, REVISION],
        resource: |[name, _], query| {
            Ok(Resource::Service { name: decoded(name), format: query.format()?, wait: query.wait()? })
        },
        doc: Operation {
            id: "service",
            summary: "The backends of a service",
            headers: &[IF_NONE_MATCH],
            answers: &[
                Documented {
                    status: 200,
                    description: "The backends; as text one `ip:port` a line.",
                    content: &[(JSON, SchemaGenerator::subschema_for::<types::Service>), (TEXT, TEXT_SCHEMA)],
                    headers: &["ETag", "X-Elasticd-Revision", "Age"],
                },
                NOT_MODIFIED,
            ],
            problems: &[404, 503],
            ..READ
        },
    },
    Route {
        method: Method::GET,
        path: "/v1/services",
        access: Access::Sockets,
        query: &[FORMAT, WAIT, REVISION],
        resource: |_, query| Ok(Resource::Services { format: query.format()?, wait: query.wait()? }),
        doc: Operation {
            id: "services",
            summary: "The backends of all services",
            headers: &[IF_NONE_MATCH],
            answers: &[
                Documented {
                    status: 200,
                    description: "The services; as text one `service ip:port weight` a line.",
                    content: &[(JSON, SchemaGenerator::subschema_for::<types::Snapshot>), (TEXT, TEXT_SCHEMA)],
                    headers: &["ETag", "X-Elasticd-Revision", "Age"],
                },
                NOT_MODIFIED,
            ],
            problems: &[503],
            ..READ
        },
    },
    Route {
        method: Method::GET,
        path: "/healthz",
        access: Access::Everywhere,
        query: &[],
        resource: |_, _| Ok(Resource::Health),
        doc: Operation {
            id: "health",
            summary: "Whether elasticd answers",
            answers: &[documented(200, "It does.", &[(TEXT, TEXT_SCHEMA)])],
            ..READ
        },
    },
    Route {
        method: Method::GET,
        path: "/readyz",
        access: Access::Everywhere,
        query: &[],
        resource: |_, _| Ok(Resource::Ready),
        doc: Operation {
            id: "ready",
            summary: "Whether elasticd is ready",
            answers: &[
                documented(200, "It is.", &[(TEXT, TEXT_SCHEMA)]),
                documented(503, "Not yet. What it waits for, one a line.", &[(TEXT, TEXT_SCHEMA)]),
            ],
            ..READ
        },
    },
    Route {
        method: Method::GET,
        path: "/metrics",
        access: Access::Everywhere,
        query: &[],
        resource: |_, _| Ok(Resource::Metrics),
        doc: Operation {
            id: "metrics",
            summary: "Metrics in OpenMetrics text",
            answers: &[documented(200, "The metrics.", &[(OPEN_METRICS, TEXT_SCHEMA)])],
            ..READ
        },
    },
    Route {
        method: Method::GET,
        path: "/v1/watch",
        access: Access::Sockets,
        query: &[],
        resource: |_, _| Ok(Resource::Watch),
        doc: Operation {
            id: "watch",
            summary: "Server-sent events: a `snapshot`, then a `change` each time",
            headers: &[("Last-Event-ID", "The id of the last event seen: only what changed since then is sent.")],
            answers: &[documented(
                200,
                "The events. Their data is a Snapshot or a Change.",
                &[(EVENT_STREAM, |generator| {
                    generator.subschema_for::<types::Change>();
                    TEXT_SCHEMA(generator)
                })],
            )],
            ..READ
        },
    },
    Route {
        method: Method::POST,
        path: "/v3/discovery:endpoints",
        access: Access::Sockets,
        query: &[],
        resource: |_, _| Ok(Resource::Discovery),
        doc: Operation {
            id: "discovery",
            summary: "Envoy's xDS v3, REST-JSON: the endpoints of clusters that are named as services",
            body: Some(SchemaGenerator::subschema_for::<Discovery>),
            answers: &[
                documented(200, "A newer version.", &[(JSON, SchemaGenerator::subschema_for::<DiscoveryResponse>)]),
                documented(304, "There is none newer than `version_info`.", &[]),
            ],
            problems: &[503],
            ..READ
        },
    },
    Route {
        method: Method::GET,
        path: "/v1/status",
        access: Access::Sockets,
        query: &[],
        resource: |_, _| Ok(Resource::Status),
        doc: Operation {
            id: "status",
            summary: "The status of providers, services and frontends",
            answers: &[documented(200, "The status.", &[(JSON, SchemaGenerator::subschema_for::<Status>)])],
            ..READ
        },
    },
    Route {
        method: Method::GET,
        path: "/v1/explain/{instance}",
        access: Access::Sockets,
        query: &[],
        resource: |[instance, _], _| Ok(Resource::Explain { instance: decoded(instance) }),
        doc: Operation {
            id: "explain",
            summary: "Of which services an instance is a backend, and which rule excludes it from the others",
            answers: &[documented(
                200,
                "What there is to say, by service.",
                &[(JSON, SchemaGenerator::subschema_for::<Explanation>)],
            )],
            problems: &[404],
            ..READ
        },
    },
    Route {
        method: Method::GET,
        path: "/v1/openapi.json",
        access: Access::Sockets,
        query: &[],
        resource: |_, _| Ok(Resource::Description),
        doc: Operation {
            id: "description",
            summary: "This document",
            answers: &[documented(
                200,
                "This document.",
                &[(JSON, SchemaGenerator::subschema_for::<serde_json::Map<String, serde_json::Value>>)],
            )],
            ..READ
        },
    },
    Route {
        method: Method::POST,
        path: "/v1/refresh",
        access: Access::Admin,
        query: &[],
        resource: |_, _| Ok(Resource::Change(Action::Refresh)),
        doc: Operation {
            id: "refresh",
            summary: "Poll every provider now",
            answers: &[documented(202, "All providers are being polled.", DONE)],
            ..READ
        },
    },
    Route {
        method: Method::POST,
        path: "/v1/outputs/prune",
        access: Access::Admin,
        query: &[],
        resource: |_, _| Ok(Resource::Change(Action::Prune)),
        doc: Operation {
            id: "prune",
            summary: "Remove files that elasticd wrote and that are no outputs any more",
            answers: &[documented(
                202,
                "They are being removed, each with a check and a reload of its frontend.",
                DONE,
            )],
            ..READ
        },
    },
    Route {
        method: Method::POST,
        path: "/v1/reload",
        access: Access::Admin,
        query: &[],
        resource: |_, _| Ok(Resource::Change(Action::Reload)),
        doc: Operation {
            id: "reload",
            summary: "Reload the configuration",
            answers: &[documented(200, "It was reloaded.", DONE)],
            problems: &[409],
            ..READ
        },
    },
    Route {
        method: Method::POST,
        path: "/v1/services/{name}/accept",
        access: Access::Admin,
        query: &[],
        resource: |[service, _], _| Ok(Resource::Change(Action::Accept { service: decoded(service).into_owned() })),
        doc: Operation {
            id: "accept",
            summary: "Accept a service's held set",
            answers: &[documented(200, "It is served now.", DONE)],
            problems: &[404, 409],
            ..READ
        },
    },
    Route {
        method: Method::PUT,
        path: "/v1/services/{name}/backends/{id}",
        access: Access::Admin,
        query: &[],
        resource: |[service, id], _| {
            let (service, id) = (decoded(service).into_owned(), decoded(id).into_owned());
            Ok(Resource::Change(Action::Register { service, id }))
        },
        doc: Operation {
            id: "register",
            summary: "Register a backend for a limited time",
            body: Some(SchemaGenerator::subschema_for::<Registration>),
            answers: &[documented(200, "It is registered.", DONE)],
            problems: &[404, 409],
            ..READ
        },
    },
    Route {
        method: Method::DELETE,
        path: "/v1/services/{name}/backends/{id}",
        access: Access::Admin,
        query: &[],
        resource: |[service, id], _| {
            let (service, id) = (decoded(service).into_owned(), decoded(id).into_owned());
            Ok(Resource::Change(Action::Deregister { service, id }))
        },
        doc: Operation {
            id: "deregister",
            summary: "Remove a registered backend",
            answers: &[documented(200, "It is not registered any more.", DONE)],
            problems: &[404, 409],
            ..READ
        },
    },
];

const DONE: &[(&str, SchemaOf)] = &[(JSON, SchemaGenerator::subschema_for::<Done>)];
