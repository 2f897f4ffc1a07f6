//! `GET /healthz` and `GET /readyz`, in plain text.

use std::fmt::Write;
use std::sync::Arc;

use hyper::{Response, StatusCode};

use super::headers::TEXT;
use super::respond::{Body, respond_as};
use super::services::awaited;
use super::sources::Sources;

/// That elasticd answers is all there is to say.
pub(super) fn alive() -> Response<Body> {
    respond_as(StatusCode::OK, TEXT, "ok\n")
}

/// Whether elasticd is ready, and if not, what is waited for, one a line.
pub(super) fn ready(sources: &Sources) -> Response<Body> {
    if *sources.ready.borrow() {
        return respond_as(StatusCode::OK, TEXT, "ready\n");
    }
    respond_as(StatusCode::SERVICE_UNAVAILABLE, TEXT, reasons(sources))
}

fn reasons(sources: &Sources) -> String {
    let mut text = "not ready\n".to_owned();
    let report = Arc::clone(&sources.registry.borrow());
    // Writing to a String cannot fail.
    for (name, service) in report.services.iter().filter(|(_, service)| service.status.backends.is_none()) {
        let _ = writeln!(text, "service {name}: {}", awaited(service, &report));
    }
    let frontends = Arc::clone(&sources.frontends.borrow());
    for (name, frontend) in frontends.iter() {
        let frontend = Arc::clone(&frontend.borrow());
        if !frontend.attempted {
            let _ = writeln!(text, "frontend {name}: its first update has not ended yet");
        } else if let Some(error) = &frontend.error {
            let _ = writeln!(text, "frontend {name}: its last update failed: {error}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{Feeds, feeds};

    #[test]
    fn lists_what_is_waited_for() {
        let (Feeds { registry, .. }, sources) = feeds();
        assert_eq!(ready(&sources).status(), 503);
        assert_eq!(
            reasons(&sources),
            "not ready\nservice db: waiting for provider prod; its last poll failed: AccessDenied: allow \
             ec2:DescribeInstances\nfrontend nginx: its first update has not ended yet\n"
        );
        registry.send_modify(|report| {
            let report = Arc::make_mut(report);
            let prod = report.providers.get_mut("prod").expect("prod");
            prod.status.error = None;
        });
        assert!(reasons(&sources).contains("service db: waiting for the first complete answer of provider prod\n"));
    }

    #[test]
    fn is_ready_once_the_first_pass_is_over() {
        let (Feeds { ready: latch, .. }, sources) = feeds();
        latch.send_replace(true);
        assert_eq!(ready(&sources).status(), 200);
        assert_eq!(alive().status(), 200);
    }
}
