//! Prometheus' HTTP API: the targets it has discovered, by `GET /api/v1/targets`.
//!
//! Targets that `relabel_configs` drop are read as well: what a job does with its targets is the operator's choice, and
//! the proof is that it has found them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures_util::future::BoxFuture;
use serde::Deserialize;

use super::api::{Access, Comparison, Error, Evidence, RuntimeApi, Wanted};
use super::difference::difference;

const ADDRESS: &str = "__address__";
/// The label that Prometheus adds for the file that a target comes from.
const FILE: &str = "__meta_filepath";

type Labels = BTreeMap<String, String>;

pub(super) struct Prometheus;

impl RuntimeApi for Prometheus {
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
    let Answer { data } = access.get_json("/api/v1/targets?state=any").await?;
    let discovered: Vec<_> = data.active.into_iter().chain(data.dropped).map(|found| found.labels).collect();
    for (path, text) in &wanted.outputs {
        let groups: Vec<Group> = access.parse_output((path, text))?;
        let named: BTreeSet<_> = groups.iter().flat_map(|group| group.labels.keys().cloned()).collect();
        // Prometheus adds its own labels and the job's, so only labels that the file can set are compared.
        let is_compared = |name: &str| named.contains(name) || (name.starts_with("__meta_") && name != FILE);
        let target = |address: &str, labels: &Labels| {
            let labels = labels.iter().filter(|(name, value)| is_compared(name) && !value.is_empty());
            Target { address: address.to_owned(), labels: labels.map(|(n, v)| (n.clone(), v.clone())).collect() }
        };
        let targets =
            |group: &Group| group.targets.iter().map(|address| target(address, &group.labels)).collect::<Vec<_>>();
        let wanted: BTreeSet<_> = groups.iter().flat_map(targets).collect();
        let path = path.to_string_lossy();
        let from_file = discovered.iter().filter(|labels| labels.get(FILE).is_some_and(|file| *file == path));
        let running = from_file.map(|labels| target(labels.get(ADDRESS).map_or("", String::as_str), labels)).collect();
        if let Some(difference) = difference(&wanted, &running) {
            let hint = if running.is_empty() { "; does a job name that file in `file_sd_configs`?" } else { "" };
            return Ok(Comparison::Differs(format!("of the targets in {path}, {difference}{hint}")));
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

/// One group of targets in a `file_sd` file.
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
