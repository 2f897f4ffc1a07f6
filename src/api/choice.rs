//! Choosing one of a service's backends: by weight, by key, by zone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::headers::{BACKEND, JSON, NO_CACHE, REVISION};
use crate::model::{Backend, ServiceSet};

/// How a backend is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct By<'a> {
    /// The same key goes to the same backend, as long as it is there, at every sidecar.
    pub(super) key: Option<Cow<'a, str>>,
    /// This zone's backends come first.
    pub(super) zone: Option<Cow<'a, str>>,
}

/// A service's backends that take traffic, prepared for choosing.
#[derive(Debug)]
pub(super) struct Choice {
    /// The response's headers, with room for the backend.
    pub(super) headers: HeaderMap,
    candidates: Vec<Candidate>,
    all: Group,
    /// The backends in a zone, and those outside it.
    zones: BTreeMap<String, (Group, Group)>,
}

/// A backend that may be chosen.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) json: Bytes,
    pub(super) address: HeaderValue,
    weight: u16,
    /// Of its id, which every sidecar knows it by; mixed once more.
    hash: u64,
}

/// Some of the candidates.
#[derive(Debug, Default)]
struct Group {
    members: Vec<usize>,
    /// The sum of weights up to and including each member.
    sums: Vec<u64>,
    /// The members of each weight, with their hashes.
    by_weight: BTreeMap<u16, Vec<(u64, usize)>>,
}

impl Group {
    fn new(candidates: &[Candidate], members: Vec<usize>) -> Self {
        let mut sum = 0;
        let mut group = Self::default();
        for member in &members {
            let Candidate { weight, hash, .. } = candidates[*member];
            sum += u64::from(weight);
            group.sums.push(sum);
            group.by_weight.entry(weight).or_default().push((hash, *member));
        }
        Self { members, ..group }
    }

    fn weight(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }
}

impl Choice {
    /// Backends of weight 0 are left out.
    pub(super) fn new(set: &ServiceSet) -> Self {
        let backends: Vec<_> = set.backends.iter().filter(|backend| backend.weight > 0).collect();
        let candidates: Vec<_> = backends.iter().map(|backend| Candidate::new(backend)).collect();
        let group = |keep: &dyn Fn(&Backend) -> bool| {
            Group::new(&candidates, (0..backends.len()).filter(|index| keep(backends[*index])).collect())
        };
        let mut zones = BTreeMap::new();
        for zone in backends.iter().filter_map(|backend| backend.zone.as_deref()) {
            zones.entry(zone.to_owned()).or_insert_with(|| {
                let is_near = |backend: &Backend| backend.zone.as_deref() == Some(zone);
                (group(&is_near), group(&|backend| !is_near(backend)))
            });
        }
        let all = group(&|_| true);
        let headers = HeaderMap::from_iter([
            (CACHE_CONTROL, NO_CACHE),
            (CONTENT_TYPE, HeaderValue::from_static(JSON)),
            (REVISION, HeaderValue::from(set.revision)),
            (BACKEND, HeaderValue::from_static("")),
        ]);
        Self { headers, candidates, all, zones }
    }

    /// One of them; `None` if there is none.
    pub(super) fn pick(&self, by: &By<'_>) -> Option<&Candidate> {
        let key = by.key.as_deref().map(|key| hash(key.as_bytes()));
        let group = by.zone.as_deref().map_or(&self.all, |zone| self.of_zone(zone, key));
        self.candidates.get(match key {
            None => by_weight(group, fastrand::u64(0..group.weight().max(1)))?,
            Some(key) => by_key(group, key)?,
        })
    }

    /// A zone keeps its clients as long as it has its share of the weight: of Z zones that each have as many clients,
    /// one Zth. If it has less, it keeps what it can carry, and the rest overflows into the other zones.
    fn of_zone(&self, zone: &str, key: Option<u64>) -> &Group {
        let Some((near, far)) = self.zones.get(zone) else { return &self.all };
        let carried = near.weight() * u64::try_from(self.zones.len()).unwrap_or(u64::MAX);
        let total = self.all.weight();
        // A key overflows always or never: by another part of its hash than that by which it is then placed.
        let drawn = key.map_or_else(|| fastrand::u64(0..total.max(1)), |key| mix(key) % total.max(1));
        if far.members.is_empty() || drawn < carried { near } else { far }
    }
}

/// Weighted rendezvous hashing (C. Schindelhauer and G. Schomaker, "Weighted Distributed Hash Tables", 2005: the
/// logarithmic method): each backend draws a number u between 0 and 1 from the key and its id, and the smallest
/// -ln(u)/weight wins. A backend that comes or goes moves only the keys that it gets or had.
///
/// Among equal weights that is the largest u, so that there is one logarithm for each weight, not for each backend.
fn by_key(group: &Group, key: u64) -> Option<usize> {
    let best = group.by_weight.iter().filter_map(|(weight, members)| {
        let drawn = members.iter().map(|(hash, member)| (mix(key ^ hash), *member));
        let (most, member) = drawn.reduce(|a, b| if b.0 > a.0 { b } else { a })?;
        // 53 bits are what a float holds; never 0, whose logarithm is infinite.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let uniform = ((most >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        Some((-uniform.ln() / f64::from(*weight), member))
    });
    best.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, member)| member)
}

/// The member in whose share of the weights `drawn` falls.
fn by_weight(group: &Group, drawn: u64) -> Option<usize> {
    group.members.get(group.sums.partition_point(|sum| *sum <= drawn)).copied()
}

impl Candidate {
    fn new(backend: &Backend) -> Self {
        let address = SocketAddr::new(backend.address, backend.port).to_string();
        Self {
            // Plain data always serialises.
            json: serde_json::to_vec(backend).unwrap_or_default().into(),
            // Digits, dots, colons and brackets are always a header value.
            address: HeaderValue::try_from(address).unwrap_or(HeaderValue::from_static("")),
            weight: backend.weight,
            hash: mix(hash(backend.id.as_bytes())),
        }
    }
}

/// FNV-1a, 64 bits (RFC 9923), mixed. Not the standard library's, which may change: every sidecar of a fleet, whatever
/// its version, must send a key to the same backend.
fn hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014): every
/// bit of the result depends on every bit of what is given.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::backend;

    /// `(id, zone, weight)`.
    fn choice(backends: &[(&str, &str, u16)]) -> Choice {
        let made = |(id, zone, weight): &(&str, &str, u16)| {
            let zone = Some((*zone).to_owned()).filter(|zone| !zone.is_empty());
            Backend { zone, weight: *weight, ..backend(id, "10.0.0.1", 80) }
        };
        Choice::new(&ServiceSet { revision: 1, backends: backends.iter().map(made).collect() })
    }

    fn id(picked: Option<&Candidate>) -> String {
        let json: serde_json::Value = serde_json::from_slice(&picked.expect("one").json).expect("JSON");
        json["id"].as_str().expect("an id").to_owned()
    }

    fn counts(choice: &Choice, by: impl Fn(usize) -> By<'static>) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for n in 0..10_000 {
            *counts.entry(id(choice.pick(&by(n)))).or_default() += 1;
        }
        counts
    }

    fn key(n: usize) -> By<'static> {
        By { key: Some(format!("client-{n}").into()), zone: None }
    }

    fn assert_near(count: usize, expected: usize) {
        // Six standard deviations of 10,000 draws are at most 300.
        assert!(count.abs_diff(expected) < 300, "{count} of 10,000 instead of {expected}");
    }

    #[test]
    fn picks_by_weight_and_never_one_of_weight_0() {
        let three = choice(&[("a", "", 1), ("b", "", 3), ("c", "", 0)]);
        for counts in [counts(&three, |_| By::default()), counts(&three, key)] {
            assert_eq!(counts.len(), 2, "{counts:?}");
            assert_near(counts["a"], 2_500);
        }
        assert!(choice(&[]).pick(&By::default()).is_none());
        assert!(choice(&[]).pick(&key(1)).is_none());
    }

    #[test]
    fn a_key_stays_where_it_is_when_another_backend_comes_or_goes() {
        let (two, three) = ([("a", "", 2), ("b", "", 1)], [("a", "", 2), ("b", "", 1), ("c", "", 1)]);
        let (two, three) = (choice(&two), choice(&three));
        let mut moved = 0;
        for n in 0..10_000 {
            let (before, after) = (id(two.pick(&key(n))), id(three.pick(&key(n))));
            assert!(before == after || after == "c", "client-{n} moved from {before} to {after}");
            moved += usize::from(before != after);
        }
        assert_near(moved, 2_500);
    }

    #[test]
    fn a_key_goes_where_every_version_of_elasticd_sends_it() {
        let choice = choice(&[("i-0a", "", 1), ("i-0b", "", 1), ("i-0c", "", 2), ("i-0d", "", 1)]);
        let picked: Vec<_> = (0..8).map(|n| id(choice.pick(&key(n)))).collect();
        // As another implementation of the same description has it.
        assert_eq!(picked, ["i-0a", "i-0d", "i-0d", "i-0b", "i-0a", "i-0d", "i-0c", "i-0c"]);
    }

    #[test]
    fn a_zone_comes_first_and_overflows_when_it_has_less_than_its_share() {
        let zone = |zone: &str| By { key: None, zone: Some(zone.to_owned().into()) };
        let even = choice(&[("a", "x", 2), ("b", "y", 1), ("c", "y", 1)]);
        assert_eq!(counts(&even, |_| zone("x")).keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(counts(&even, |_| zone("y")).len(), 2);
        assert_eq!(counts(&even, |_| zone("elsewhere")).len(), 3, "a zone without backends is served by all");
        // x has a tenth of the weight and should have half: it keeps a fifth of its clients.
        let poor = choice(&[("a", "x", 1), ("b", "y", 9)]);
        assert_near(counts(&poor, |_| zone("x"))["a"], 2_000);
        assert_near(counts(&poor, |n| By { zone: Some("x".into()), ..key(n) })["a"], 2_000);
        assert_eq!(counts(&poor, |_| zone("y")).len(), 1);
        assert_eq!(counts(&choice(&[("a", "x", 1)]), |_| zone("x")).len(), 1);
    }
}
