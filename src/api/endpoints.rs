//! Services in Envoy's terms: endpoint discovery, xDS v3.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::model::Backend;

/// The type of resource that a service's endpoints are.
pub(super) const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// The `ClusterLoadAssignment` of a service, in JSON.
pub(super) fn assignment(name: &str, backends: &[Backend]) -> String {
    let mut zones = BTreeMap::<Option<&str>, Vec<Value>>::new();
    for backend in backends.iter().filter(|backend| backend.weight > 0) {
        zones.entry(backend.zone.as_deref()).or_default().push(endpoint(backend));
    }
    let locality = |(zone, endpoints): (Option<&str>, Vec<Value>)| {
        let locality = zone.map_or_else(|| json!({}), |zone| json!({"zone": zone}));
        json!({"locality": locality, "lb_endpoints": endpoints})
    };
    let endpoints: Vec<_> = zones.into_iter().map(locality).collect();
    json!({"@type": ENDPOINTS, "cluster_name": name, "endpoints": endpoints}).to_string()
}

/// A weight is at least 1 for Envoy; those of 0 are left out, as Envoy sends traffic to draining endpoints where there are
/// no others.
fn endpoint(backend: &Backend) -> Value {
    let address = json!({"socket_address": {"address": backend.address, "port_value": backend.port}});
    json!({"endpoint": {"address": address}, "load_balancing_weight": backend.weight})
}
