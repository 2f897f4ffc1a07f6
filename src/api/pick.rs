//! `GET /v1/services/{name}/pick`: one backend.

use hyper::{Response, StatusCode};

use super::choice::By;
use super::context::Context;
use super::error::Problem;
use super::headers::BACKEND;
use super::respond::{Body, with_headers};
use super::services::found;

/// One backend of a service.
pub(super) fn one(context: &Context, name: &str, by: &By<'_>) -> Result<Response<Body>, Problem> {
    let documents = context.newest();
    let choice = found(documents.as_deref(), &context.sources, name)?.choice();
    let picked = choice.pick(by).ok_or_else(|| Problem::NoBackend { name: name.to_owned() })?;
    let mut headers = choice.headers.clone();
    headers.insert(BACKEND, picked.address.clone());
    Ok(with_headers(StatusCode::OK, headers, picked.json.clone()))
}
