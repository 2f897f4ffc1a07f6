//! Requests to runtime APIs that speak HTTP.

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::api::{Access, Error};
use super::difference::excerpt;
use crate::sys::http;

impl Access {
    /// Sends a request, with a body of the given content type if there is one. Returns the answer, whatever its status.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, String)>,
    ) -> Result<(StatusCode, Bytes), Error> {
        let sent = http::send(&self.endpoint, method, path, body, self.timeout).await;
        sent.map_err(|error| {
            if error.is_absent() { Error::Absent(self.endpoint.clone()) } else { self.unusable(error.to_string()) }
        })
    }

    /// The body at a path. `None`: the answer has status 404.
    pub(super) async fn find(&self, path: &str) -> Result<Option<Bytes>, Error> {
        match self.send(Method::GET, path, None).await? {
            (StatusCode::OK, body) => Ok(Some(body)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => Err(self.unusable(format!("GET {path}: {status}: {}", excerpt(&body)))),
        }
    }

    /// The body at a path, of an answer that must have status 200.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, Error> {
        match self.send(Method::GET, path, None).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, body) => Err(self.unusable(format!("GET {path}: {status}: {}", excerpt(&body)))),
        }
    }

    pub(super) async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.parse_answer(path, &self.get(path).await?)
    }

    /// Parses the JSON that was answered at a path.
    pub(super) fn parse_answer<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| {
            self.unusable(format!("the answer to {path} is not of the expected form: {error}: {}", excerpt(body)))
        })
    }
}
