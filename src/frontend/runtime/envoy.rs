//! Envoy's admin interface: the endpoints that each of its clusters has, by `GET /clusters`.
//!
//! Envoy reads its EDS files by itself, and accepts or refuses each as a whole. Whether it accepted one shows in the
//! endpoints of its clusters, and in the version of the file that each cluster reports.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::BoxFuture;
use serde::Deserialize;

use super::api::{Access, Comparison, Error, Evidence, RuntimeApi, Wanted};
use super::difference::difference;

/// The version of its file that each cluster has accepted, and the number of refused ones. The filter is the pattern
/// `\.(version_text|update_failure|update_rejected)$`.
const UPDATES: &str = "/stats?format=json&filter=%5C.(version_text%7Cupdate_failure%7Cupdate_rejected)%24";

/// `address:port` and weight of a service's endpoints.
type Endpoints = BTreeSet<(String, u32)>;

pub(super) struct Envoy;

impl RuntimeApi for Envoy {
    fn compare<'a>(
        &self,
        access: &'a Access,
        wanted: &'a Wanted<'a>,
        _last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<Comparison, Error>> {
        Box::pin(compare(access, wanted))
    }
}

/// What one file assigns to a service.
struct Assignment {
    version: String,
    endpoints: Endpoints,
}

async fn compare(access: &Access, wanted: &Wanted<'_>) -> Result<Comparison, Error> {
    let mut assignments = BTreeMap::new();
    for output in &wanted.outputs {
        let file: Discovery = access.parse_output(*output)?;
        for resource in file.resources.into_iter().filter(|resource| resource.kind.ends_with("ClusterLoadAssignment")) {
            let endpoints = resource.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
            let endpoints = endpoints.map(|e| (e.endpoint.address.to_string(), e.load_balancing_weight.unwrap_or(1)));
            let assignment = Assignment { version: file.version_info.clone(), endpoints: endpoints.collect() };
            assignments.insert(resource.cluster_name, assignment);
        }
    }
    let Clusters { cluster_statuses: clusters } = access.get_json("/clusters?format=json").await?;
    let Stats { stats } = access.get_json(UPDATES).await?;
    let mut differences = Vec::new();
    for (service, assignment) in &assignments {
        let mut users = clusters.iter().filter(|cluster| cluster.uses(service)).peekable();
        if users.peek().is_none() {
            differences.push(format!(
                "Envoy has no cluster {service:?}, nor one with that `eds_cluster_config.service_name`: define it, or \
                 leave the service out of this frontend's `services`"
            ));
        }
        differences.extend(users.filter_map(|cluster| {
            let difference = compare_endpoints(&assignment.endpoints, &cluster.host_statuses)
                .or_else(|| compare_version(&assignment.version, cluster, &stats))?;
            Some(format!("cluster {:?}: {difference}{}", cluster.name, refusals(cluster, &stats)))
        }));
    }
    if differences.is_empty() {
        return Ok(Comparison::Runs(Evidence::default()));
    }
    Ok(Comparison::Differs(differences.join("; ")))
}

/// To Envoy two backends at one address are one endpoint, with the weight of either.
fn compare_endpoints(wanted: &Endpoints, running: &[Host]) -> Option<String> {
    let addresses = |endpoints: &Endpoints| endpoints.iter().map(|(address, _)| address.clone()).collect();
    // Envoy may keep an endpoint that was removed from the file until Envoy's own health checks of it fail.
    let kept = running.iter().filter(|host| !host.health_status.pending_dynamic_removal);
    let running: Endpoints = kept.map(|host| (host.address.to_string(), host.weight.unwrap_or(1))).collect();
    difference::<String>(&addresses(wanted), &addresses(&running)).or_else(|| {
        let (address, weight) = running.difference(wanted).next()?;
        Some(format!("the weight of {address} is still {weight}"))
    })
}

/// A refused file may name the very endpoints that Envoy has already, and after a restart Envoy would have none.
fn compare_version(wanted: &str, cluster: &Cluster, stats: &[Stat]) -> Option<String> {
    // A file need not have a version, and Envoy may be configured without these statistics.
    let running = stats.iter().find(|stat| stat.is_of(cluster, "version_text"))?.value.as_str()?;
    (!wanted.is_empty() && running != wanted).then(|| format!("it has the file's version {running:?}, not {wanted:?}"))
}

/// The cluster's counters of refused files, if any is above zero.
fn refusals(cluster: &Cluster, stats: &[Stat]) -> String {
    let is_refusal = |stat: &&Stat| ["update_failure", "update_rejected"].iter().any(|name| stat.is_of(cluster, name));
    let counted = stats.iter().filter(is_refusal).filter(|stat| stat.value.as_u64() > Some(0));
    let counted: Vec<_> = counted.map(|stat| format!("{} is {}", stat.name, stat.value)).collect();
    if counted.is_empty() { String::new() } else { format!(" ({}: Envoy's log says why)", counted.join(", ")) }
}

/// An EDS file. Envoy accepts the names of its fields in snake case and in camel case.
#[derive(Deserialize)]
struct Discovery {
    #[serde(alias = "versionInfo", default)]
    version_info: String,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(rename = "@type", default)]
    kind: String,
    #[serde(alias = "clusterName", default)]
    cluster_name: String,
    #[serde(default)]
    endpoints: Vec<Locality>,
}

#[derive(Deserialize)]
struct Locality {
    #[serde(alias = "lbEndpoints", default)]
    lb_endpoints: Vec<LbEndpoint>,
}

#[derive(Deserialize)]
struct LbEndpoint {
    endpoint: Endpoint,
    #[serde(alias = "loadBalancingWeight")]
    load_balancing_weight: Option<u32>,
}

#[derive(Deserialize)]
struct Endpoint {
    address: Address,
}

#[derive(Deserialize)]
struct Clusters {
    #[serde(default)]
    cluster_statuses: Vec<Cluster>,
}

#[derive(Deserialize)]
struct Cluster {
    name: String,
    /// Its name in the statistics.
    observability_name: Option<String>,
    eds_service_name: Option<String>,
    #[serde(default)]
    host_statuses: Vec<Host>,
}

impl Cluster {
    fn uses(&self, service: &str) -> bool {
        self.eds_service_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&self.name) == service
    }
}

#[derive(Deserialize)]
struct Host {
    address: Address,
    weight: Option<u32>,
    #[serde(default)]
    health_status: Health,
}

#[derive(Default, Deserialize)]
struct Health {
    #[serde(default)]
    pending_dynamic_removal: bool,
}

/// The form is the same in the file and in the answer.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Address {
    #[serde(rename = "socket_address", alias = "socketAddress")]
    Socket {
        address: String,
        #[serde(alias = "portValue", default)]
        port_value: u16,
    },
    Pipe {
        path: String,
    },
    #[serde(untagged)]
    Other(serde_json::Value),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket { address, port_value } => match address.parse::<std::net::IpAddr>() {
                // In one form, however the file writes it.
                Ok(ip) => write!(f, "{}", std::net::SocketAddr::new(ip, *port_value)),
                Err(_) => write!(f, "{address}:{port_value}"),
            },
            Self::Pipe { path } => f.write_str(path),
            Self::Other(other) => write!(f, "{other}"),
        }
    }
}

#[derive(Deserialize)]
struct Stats {
    stats: Vec<Stat>,
}

#[derive(Deserialize)]
struct Stat {
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: serde_json::Value,
}

impl Stat {
    fn is_of(&self, cluster: &Cluster, name: &str) -> bool {
        // Envoy writes a colon as an underscore in the names of statistics.
        let cluster = cluster.observability_name.as_ref().unwrap_or(&cluster.name).replace(':', "_");
        let rest = self.name.strip_prefix("cluster.").and_then(|rest| rest.strip_prefix(cluster.as_str()));
        rest.and_then(|rest| rest.strip_prefix('.')) == Some(name)
    }
}
