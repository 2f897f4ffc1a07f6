//! Traefik's API: the servers of each service, by `GET /api/http/services/NAME@file`.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::BoxFuture;
use serde::Deserialize;

use super::api::{Access, Comparison, Error, Evidence, RuntimeApi, Wanted};
use super::difference::difference;
use crate::sys::http::encode;

pub(super) struct Traefik;

impl RuntimeApi for Traefik {
    fn compare<'a>(
        &self,
        access: &'a Access,
        wanted: &'a Wanted<'a>,
        _last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<Comparison, Error>> {
        Box::pin(compare(access, wanted))
    }
}

async fn compare(access: &Access, wanted: &Wanted<'_>) -> Result<Comparison, Error> {
    for output in &wanted.outputs {
        let file: File = access.parse_output(*output)?;
        for (name, service) in file.http.services {
            let Some(wanted) = service.servers() else { continue };
            let path = format!("/api/http/services/{}@file", encode(&name));
            let Some(answer) = access.find(&path).await? else {
                return Ok(Comparison::Differs(format!(
                    "Traefik has no service {name}@file: does its file provider watch {}?",
                    output.0.display()
                )));
            };
            let running: Service = access.parse_answer(&path, &answer)?;
            if let Some(difference) = difference(&wanted, &running.servers().unwrap_or_default()) {
                return Ok(Comparison::Differs(format!("service {name}@file: {difference}")));
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

/// The form is the same in the file and in the answer.
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
    /// Its servers with their weights. `None`: a service of another kind, which is made of other services.
    fn servers(self) -> Option<BTreeSet<String>> {
        let describe = |server: Server| match server.weight.unwrap_or(1) {
            1 => server.url,
            weight => format!("{} (weight {weight})", server.url),
        };
        Some(self.load_balancer?.servers.into_iter().map(describe).collect())
    }
}
