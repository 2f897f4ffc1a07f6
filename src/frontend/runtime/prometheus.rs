//! Prometheus' HTTP API: the targets it has discovered, by `GET /api/v1/targets`.
//!
//! Those dropped by `relabel_configs` are asked for as well: what a job makes of its targets is the operator's choice,
//! and that it has found them is the proof.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use super::{Comparison, Error, Evidence, Runtime, Wanted, difference};

const ADDRESS: &str = "__address__";
/// Prometheus' own label of the file a target comes from.
const FILE: &str = "__meta_filepath";

type Labels = BTreeMap<String, String>;

pub(super) async fn compare(runtime: &Runtime, wanted: &Wanted<'_>) -> Result<Comparison, Error> {
    let Answer { data } = runtime.get_json("/api/v1/targets?state=any").await?;
    let discovered: Vec<_> = data.active.into_iter().chain(data.dropped).map(|found| found.labels).collect();
    for (path, text) in &wanted.outputs {
        let groups: Vec<Group> = runtime.parse((path, text))?;
        let named: BTreeSet<_> = groups.iter().flat_map(|group| group.labels.keys().cloned()).collect();
        // Prometheus adds labels of its own and the job's, so only those that a target brings along are compared.
        let counts = |name: &str| named.contains(name) || (name.starts_with("__meta_") && name != FILE);
        let target = |address: &str, labels: &Labels| {
            let labels = labels.iter().filter(|(name, value)| counts(name) && !value.is_empty());
            Target { address: address.to_owned(), labels: labels.map(|(n, v)| (n.clone(), v.clone())).collect() }
        };
        let each =
            |group: &Group| group.targets.iter().map(|address| target(address, &group.labels)).collect::<Vec<_>>();
        let wanted: BTreeSet<_> = groups.iter().flat_map(each).collect();
        let path = path.to_string_lossy();
        let ours = discovered.iter().filter(|labels| labels.get(FILE).is_some_and(|file| *file == path));
        let running = ours.map(|labels| target(labels.get(ADDRESS).map_or("", String::as_str), labels)).collect();
        if let Some(how) = difference(&wanted, &running) {
            let hint = if running.is_empty() { "; do `file_sd_configs` of some job name that file?" } else { "" };
            return Ok(Comparison::Differs(format!("of the targets in {path}, {how}{hint}")));
        }
    }
    Ok(Comparison::Runs(Evidence::default()))
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    address: String,
    labels: Labels,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// One group of a `file_sd` file.
#[derive(Deserialize)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: Labels,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "activeTargets")]
    active: Vec<Found>,
    #[serde(rename = "droppedTargets", default)]
    dropped: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "discoveredLabels")]
    labels: Labels,
}
