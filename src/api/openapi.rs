//! `GET /v1/openapi.json`: the description of the API, made of the table of routes and of the types themselves.

use std::sync::OnceLock;

use hyper::Method;
use hyper::body::Bytes;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::error::Problem;
use super::headers::PROBLEM_JSON;
use super::routes::{Access, Documented, ROUTES, Route};
use super::types;
use crate::model::Name;

/// Where schemas are in the document.
const SCHEMAS: &str = "/components/schemas";

/// The document. It is made when it is first asked for.
pub(super) fn document() -> Result<Bytes, Problem> {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    if let Some(made) = DOCUMENT.get() {
        return Ok(made.clone());
    }
    let text = serde_json::to_vec_pretty(&describe())?;
    Ok(DOCUMENT.get_or_init(|| text.into()).clone())
}

fn describe() -> Value {
    let settings = || SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = SCHEMAS.into());
    let mut answers = settings().for_serialize().into_generator();
    let mut requests = settings().for_deserialize().into_generator();
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route, &mut answers, &mut requests);
    }
    let problem = answers.subschema_for::<types::Problem>();
    let mut schemas = requests.take_definitions(true);
    schemas.extend(answers.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "elasticd",
            "version": "1",
            "description": "The backends of services, learnt from the cloud's tags. Served on a Unix socket; HEAD is \
                answered wherever GET is.",
        },
        "servers": [{ "url": "http://localhost", "description": "on the Unix socket /run/elasticd/elasticd.sock" }],
        "paths": paths,
        "components": {
            "headers": headers(),
            "responses": { "Problem": {
                "description": "Why there is no other answer (RFC 9457).",
                "content": { PROBLEM_JSON: { "schema": problem } },
            } },
            "schemas": schemas,
        },
    })
}

fn headers() -> Value {
    let header = |description, schema: Schema| json!({ "description": description, "schema": schema });
    let mut generator = SchemaGenerator::default();
    let (text, number) = (String::json_schema(&mut generator), u64::json_schema(&mut generator));
    json!({
        "ETag": header("The content's tag.", text.clone()),
        "Age": header("Seconds since the provider last answered in full.", number.clone()),
        "X-Elasticd-Revision": header("The revision at which the content last changed.", number),
        "X-Elasticd-Backend": header("`ip:port`.", text),
    })
}

fn operation(route: &Route, answers: &mut SchemaGenerator, requests: &mut SchemaGenerator) -> Value {
    let doc = &route.doc;
    let in_path = route.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<_> = in_path.map(|name| path_parameter(name, requests)).collect();
    parameters.extend(route.query.iter().map(|query| {
        let schema = (query.schema)();
        json!({ "name": query.name, "in": "query", "description": query.description, "schema": schema })
    }));
    parameters.extend(doc.headers.iter().map(|(name, description)| {
        json!({ "name": name, "in": "header", "description": description, "schema": { "type": "string" } })
    }));
    let mut responses: Map<_, _> =
        doc.answers.iter().map(|documented| (documented.status.to_string(), answer(documented, answers))).collect();
    let forbidden = (route.access == Access::Admin).then_some(403);
    for status in [400].into_iter().chain(forbidden).chain(doc.problems.iter().copied()) {
        responses.insert(status.to_string(), json!({ "$ref": "#/components/responses/Problem" }));
    }
    let summary = match route.access {
        Access::Admin => format!("{} (admin listener)", doc.summary),
        Access::Everywhere | Access::Sockets => doc.summary.to_owned(),
    };
    let mut operation =
        json!({ "operationId": doc.id, "summary": summary, "parameters": parameters, "responses": responses });
    if let Some(body) = doc.body {
        let schema = body(requests);
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    debug_assert!(route.method != Method::GET || doc.body.is_none(), "a GET has no body");
    operation
}

fn path_parameter(name: &str, requests: &mut SchemaGenerator) -> Value {
    let (description, schema) = match name {
        "name" => ("The service's name.", json!(Name::json_schema(requests))),
        "id" => ("The backend's id.", json!({ "type": "string", "pattern": "^[A-Za-z0-9._:@\\[\\]-]{1,128}$" })),
        _ => ("The instance's id.", json!({ "type": "string", "minLength": 1 })),
    };
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
}

fn answer(documented: &Documented, answers: &mut SchemaGenerator) -> Value {
    let mut answer = json!({ "description": documented.description });
    for (media_type, schema) in documented.content {
        // What is after the media type says how it is encoded.
        let media_type = media_type.split(';').next().unwrap_or(media_type);
        answer["content"][media_type] = json!({ "schema": schema(answers) });
    }
    for name in documented.headers {
        answer["headers"][name] = json!({ "$ref": format!("#/components/headers/{name}") });
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::route::{ListenerKind, Resource, find};
    use super::*;
    use crate::status::{Frontend, Measured, Provider, Published, Publisher, Reader, Service};

    #[test]
    fn describes_every_route_and_nothing_else() {
        let document = describe();
        let paths = document["paths"].as_object().expect("paths");
        let described = paths.iter().flat_map(|(path, methods)| {
            methods.as_object().expect("methods").keys().map(move |method| (path.clone(), method.to_uppercase()))
        });
        let routed = ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_string()));
        assert_eq!(described.collect::<BTreeSet<_>>(), routed.collect::<BTreeSet<_>>());
        let ids: BTreeSet<_> = ROUTES.iter().map(|route| route.doc.id).collect();
        assert_eq!(ids.len(), ROUTES.len(), "ids of operations are unique");
    }

    #[test]
    fn every_route_is_found_by_its_path() {
        let mut resources = Vec::new();
        for route in ROUTES {
            let uri = Box::leak(Box::new(route.path.replace(['{', '}'], "").parse().expect("a URI")));
            let resource = find(ListenerKind::Admin, &route.method, uri).expect(route.path);
            assert!(!resources.contains(&resource), "{} is another route's", route.path);
            resources.push(resource);
        }
        assert!(resources.contains(&Resource::Status));
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        let document = describe();
        let text = document.to_string();
        let references = text.split("\"$ref\":\"#").skip(1).map(|rest| &rest[..rest.find('"').expect("an end")]);
        let mut count = 0;
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
            count += 1;
        }
        assert!(count > 30, "{text}");
    }

    /// The metrics of a report are fields of its schema, described by the same words.
    #[test]
    fn metrics_are_described_as_the_fields_that_they_are() {
        fn check<R: Measured + JsonSchema + Default>() {
            let schema = SchemaGenerator::default().into_root_schema_for::<R>();
            R::default().measure(&mut |metric, _| {
                let field = &schema.as_value()["properties"][metric.name];
                let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
                let described =
                    field["description"].as_str().unwrap_or_else(|| panic!("{} in {schema:?}", metric.name));
                assert_eq!(words(described), words(metric.help), "{}", metric.name);
            });
        }
        check::<Provider>();
        check::<Service>();
        check::<Frontend>();
        check::<Publisher>();
        check::<Published>();
        check::<Reader>();
    }
}
