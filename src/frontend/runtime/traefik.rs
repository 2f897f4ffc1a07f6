//! Traefik's API: the servers of each service, by `GET /api/http/services/NAME@file`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Comparison, Error, Evidence, Runtime, Wanted, difference};
use crate::sys::http::encode;

pub(super) async fn compare(runtime: &Runtime, wanted: &Wanted<'_>) -> Result<Comparison, Error> {
    for output in &wanted.outputs {
        let file: File = runtime.parse(*output)?;
        for (name, service) in file.http.services {
            let Some(wanted) = service.servers() else { continue };
            let path = format!("/api/http/services/{}@file", encode(&name));
            let Some(answer) = runtime.find(&path).await? else {
                return Ok(Comparison::Differs(format!(
                    "Traefik knows of no service {name}@file: does its file provider watch {}?",
                    output.0.display()
                )));
            };
            let running: Service = runtime.understood(&path, &answer)?;
            if let Some(how) = difference(&wanted, &running.servers().unwrap_or_default()) {
                return Ok(Comparison::Differs(format!("service {name}@file: {how}")));
            }
        }
    }
    Ok(Comparison::Runs(Evidence::default()))
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    http: Http,
}

#[derive(Default, Deserialize)]
struct Http {
    #[serde(default)]
    services: BTreeMap<String, Service>,
}

/// The same in the file and in the answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    load_balancer: Option<LoadBalancer>,
}

#[derive(Deserialize)]
struct LoadBalancer {
    #[serde(default)]
    servers: Vec<Server>,
}

#[derive(Deserialize)]
struct Server {
    url: String,
    weight: Option<i64>,
}

impl Service {
    /// Its servers with their weights; `None` for a service of another kind, made of services.
    fn servers(self) -> Option<BTreeSet<String>> {
        let said = |server: Server| match server.weight.unwrap_or(1) {
            1 => server.url,
            weight => format!("{} (weight {weight})", server.url),
        };
        Some(self.load_balancer?.servers.into_iter().map(said).collect())
    }
}
