//! Envoy's admin interface: the endpoints that each of its clusters has, by `GET /clusters`.
//!
//! Envoy reads its EDS files by itself, and refuses one as a whole. The endpoints it then has show whether it took one,
//! and so does the version that each cluster says it has taken.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Comparison, Error, Evidence, Runtime, Wanted, difference};

/// Which version of its file each cluster has taken, and how many it has refused. The pattern is
/// `\.(version_text|update_failure|update_rejected)$`.
const UPDATES: &str = "/stats?format=json&filter=%5C.(version_text%7Cupdate_failure%7Cupdate_rejected)%24";

/// A service's endpoints: `address:port`, and the weight.
type Endpoints = BTreeSet<(String, u32)>;

/// What one file gives a service.
struct Assignment {
    version: String,
    endpoints: Endpoints,
}

pub(super) async fn compare(runtime: &Runtime, wanted: &Wanted<'_>) -> Result<Comparison, Error> {
    let mut assignments = BTreeMap::new();
    for output in &wanted.outputs {
        let file: Discovery = runtime.parse(*output)?;
        for resource in file.resources.into_iter().filter(|resource| resource.kind.ends_with("ClusterLoadAssignment")) {
            let endpoints = resource.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
            let endpoints = endpoints.map(|e| (e.endpoint.address.to_string(), e.load_balancing_weight.unwrap_or(1)));
            let assignment = Assignment { version: file.version_info.clone(), endpoints: endpoints.collect() };
            assignments.insert(resource.cluster_name, assignment);
        }
    }
    let Clusters { cluster_statuses: clusters } = runtime.get_json("/clusters?format=json").await?;
    let Stats { stats } = runtime.get_json(UPDATES).await?;
    let mut differences = Vec::new();
    for (service, assignment) in &assignments {
        let mut takers = clusters.iter().filter(|cluster| cluster.takes(service)).peekable();
        if takers.peek().is_none() {
            differences.push(format!(
                "Envoy has no cluster {service:?}, nor one whose `eds_cluster_config.service_name` that is: define it, or \
                 leave the service out of this frontend's `services`"
            ));
        }
        differences.extend(takers.filter_map(|cluster| {
            let how = compare_endpoints(&assignment.endpoints, &cluster.host_statuses)
                .or_else(|| compare_version(&assignment.version, cluster, &stats))?;
            Some(format!("cluster {:?}: {how}{}", cluster.name, refusals(cluster, &stats)))
        }));
    }
    if differences.is_empty() {
        return Ok(Comparison::Runs(Evidence::default()));
    }
    Ok(Comparison::Differs(differences.join("; ")))
}

/// Two backends at one address are one endpoint to Envoy, with the weight of either.
fn compare_endpoints(wanted: &Endpoints, running: &[Host]) -> Option<String> {
    let addresses = |endpoints: &Endpoints| endpoints.iter().map(|(address, _)| address.clone()).collect();
    // One that is still healthy by Envoy's own checks may stay until they fail: Envoy has been told all the same.
    let stay = running.iter().filter(|host| !host.health_status.pending_dynamic_removal);
    let running: Endpoints = stay.map(|host| (host.address.to_string(), host.weight.unwrap_or(1))).collect();
    difference::<String>(&addresses(wanted), &addresses(&running)).or_else(|| {
        let (address, weight) = running.difference(wanted).next()?;
        Some(format!("the weight of {address} is {weight} still"))
    })
}

/// A file that is refused may name the endpoints that are there already; after a restart there would be none.
fn compare_version(wanted: &str, cluster: &Cluster, stats: &[Stat]) -> Option<String> {
    // A file need not say its version, and Envoy may be told to keep no such statistics.
    let taken = stats.iter().find(|stat| stat.is_of(cluster, "version_text"))?.value.as_str()?;
    (!wanted.is_empty() && taken != wanted).then(|| format!("it has the file's version {taken:?}, not {wanted:?}"))
}

/// That Envoy has refused something, where its counters tell.
fn refusals(cluster: &Cluster, stats: &[Stat]) -> String {
    let is_refusal = |stat: &&Stat| ["update_failure", "update_rejected"].iter().any(|what| stat.is_of(cluster, what));
    let counted = stats.iter().filter(is_refusal).filter(|stat| stat.value.as_u64() > Some(0));
    let counted: Vec<_> = counted.map(|stat| format!("{} is {}", stat.name, stat.value)).collect();
    if counted.is_empty() { String::new() } else { format!(" ({}: Envoy's log says why)", counted.join(", ")) }
}

/// An EDS file. Envoy takes the names of its fields in either case.
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

/// Envoy's answer.
#[derive(Deserialize)]
struct Clusters {
    #[serde(default)]
    cluster_statuses: Vec<Cluster>,
}

#[derive(Deserialize)]
struct Cluster {
    name: String,
    /// What its statistics call it.
    observability_name: Option<String>,
    eds_service_name: Option<String>,
    #[serde(default)]
    host_statuses: Vec<Host>,
}

impl Cluster {
    /// Whether its endpoints are those of this service.
    fn takes(&self, service: &str) -> bool {
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

/// The same in both.
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
                // However it was written.
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
    /// Whether it is this statistic of the cluster.
    fn is_of(&self, cluster: &Cluster, what: &str) -> bool {
        // In the names of statistics a colon is an underscore.
        let name = cluster.observability_name.as_ref().unwrap_or(&cluster.name).replace(':', "_");
        let rest = self.name.strip_prefix("cluster.").and_then(|rest| rest.strip_prefix(name.as_str()));
        rest.and_then(|rest| rest.strip_prefix('.')) == Some(what)
    }
}
