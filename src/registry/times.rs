//! Points in time on disk: whole seconds since the epoch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The end of the year 9999. A time computed from a later one might not fit into a `SystemTime`.
const LAST: u64 = 253_402_300_799;

pub(super) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let seconds = u64::deserialize(deserializer)?;
    Some(seconds)
        .filter(|seconds| *seconds <= LAST)
        .map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))
        .ok_or_else(|| serde::de::Error::custom(format!("{seconds} seconds since the epoch are after the year 9999")))
}
