//! What HAProxy says of itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::{Error, Wanted};
use super::cli::Session;
use crate::sys::process::parent_of_same_program;
use crate::sys::ticks::{now_ticks, ticks, ticks_per_second};

/// A running worker.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: i32,
    /// When the program started that read the configuration, in seconds since 1970, as HAProxy has it.
    started: u64,
    /// The earliest moment of that, in ticks since boot.
    not_before: u64,
    /// Its backends' servers, by name.
    pub(super) pools: BTreeMap<String, BTreeMap<String, State>>,
}

/// A server as `show servers state` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// `None`: not an IP address.
    pub(super) address: Option<(IpAddr, u16)>,
    pub(super) weight: u16,
    pub(super) initial_weight: u16,
    admin: u16,
    check: u16,
}

/// `SRV_ADMF_FMAINT`: forced into maintenance.
const FORCED_MAINTENANCE: u16 = 0x01;
/// `SRV_ADMF_FDRAIN`: forced to drain.
const FORCED_DRAIN: u16 = 0x08;
/// `CHK_ST_ENABLED`: health checks are switched on.
const CHECK_ENABLED: u16 = 0x04;

impl State {
    pub(super) const fn is_in_maintenance(&self) -> bool {
        self.admin & FORCED_MAINTENANCE != 0
    }

    pub(super) const fn is_ready(&self) -> bool {
        self.admin & (FORCED_MAINTENANCE | FORCED_DRAIN) == 0
    }

    pub(super) const fn is_checked(&self) -> bool {
        self.check & CHECK_ENABLED != 0
    }
}

impl Running {
    pub(super) async fn ask(session: &mut Session<'_>) -> Result<Self, Error> {
        let asked_at = now_ticks();
        let answers = session.ask(&["show info", "show backend", "show servers state"]).await?;
        let [info, backends, servers] = answers.as_slice() else { unreachable!("as many answers as commands") };
        let running = Self::parse(info, backends, servers, asked_at);
        running.ok_or_else(|| session.unusable("`show info` and `show servers state` are not HAProxy's"))
    }

    pub(super) fn parse(info: &str, backends: &str, servers: &str, asked_at: u64) -> Option<Self> {
        let number = |key: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))?;
            value.trim().parse::<u64>().ok()
        };
        let uptime = number("Uptime_sec")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = number("Start_time_sec");
        // The start's second is known, and the uptime differs by up to one from what it says: more, if somebody has
        // set the clock since.
        let age = started.and_then(|started| now.checked_sub(Duration::from_secs(started)));
        let age = age.filter(|age| age.as_secs().abs_diff(uptime) <= 1).unwrap_or(Duration::from_secs(uptime + 1));
        Some(Self {
            pid: i32::try_from(number("Pid")?).ok()?,
            started: started.unwrap_or_default(),
            not_before: asked_at.saturating_sub(ticks(age)),
            pools: pools(backends, servers)?,
        })
    }

    /// What tells this worker from any other.
    pub(super) fn identity(&self) -> String {
        format!("{}@{}", self.pid, self.started)
    }

    /// Whether it certainly read the configuration after that moment, in ticks since boot.
    ///
    /// A worker is forked once the configuration has been read, so that its own start tells nothing. What counts is
    /// when the program was executed that read it (`Start_time_sec`), or that its master has not been there before.
    pub(super) fn has_started_after(&self, moment: u64) -> bool {
        // A process of that PID which is older than HAProxy says belongs to another PID namespace.
        let hertz = ticks_per_second();
        let master = || parent_of_same_program(self.pid).filter(|(worker, _)| worker + hertz >= self.not_before);
        self.not_before > moment || master().is_some_and(|(_, master)| master > moment)
    }
}

/// The servers by backend. `None`: not in a form that we know.
fn pools(backends: &str, servers: &str) -> Option<BTreeMap<String, BTreeMap<String, State>>> {
    let names = backends.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut pools: BTreeMap<_, _> = names.map(|name| (name.to_owned(), BTreeMap::new())).collect();
    let mut lines = servers.lines();
    lines.next().filter(|version| version.trim() == "1")?;
    for line in lines.filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let fields: Vec<_> = line.split(' ').collect();
        let field = |index: usize| fields.get(index).copied();
        let number = |index: usize| field(index)?.parse::<u16>().ok();
        let address = field(4)?.parse::<IpAddr>().ok();
        let state = State {
            address: address.zip(number(18)),
            admin: number(6)?,
            weight: number(7)?,
            initial_weight: number(8)?,
            check: number(13)?,
        };
        pools.entry(field(1)?.to_owned()).or_default().insert(field(3)?.to_owned(), state);
    }
    Some(pools)
}

/// When the outputs were last changed, by us or by somebody else, in ticks since boot; 0 if before that.
pub(super) fn outputs_changed_at(wanted: &Wanted<'_>) -> u64 {
    wanted.outputs.iter().filter_map(|(path, _)| changed_at(path)).max().unwrap_or_default().max(wanted.swapped_at)
}

/// When a file took its place, or its content, in ticks since boot.
pub(super) fn changed_at(path: &Path) -> Option<u64> {
    let file = std::fs::metadata(path).ok()?;
    ticks_at(Duration::new(file.ctime().try_into().ok()?, file.ctime_nsec().try_into().ok()?))
}

/// When a file took its content, in ticks since boot.
pub(super) fn written_at(path: &Path) -> Option<u64> {
    ticks_at(std::fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?)
}

/// A time since 1970 in ticks since boot; 0 if before that. `None`: it is to come.
fn ticks_at(time: Duration) -> Option<u64> {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.checked_sub(time)?;
    Some(now_ticks().saturating_sub(ticks(age)))
}

/// HAProxy says when it started by the second: waits until one that starts now cannot be taken for one that started
/// before that moment, in ticks since boot.
pub(super) async fn await_other_second(moment: u64) {
    /// Ticks are hundredths of a second, and so are not exact.
    const MARGIN: Duration = Duration::from_millis(30);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = Duration::from_millis(now_ticks().saturating_sub(moment) * 1000 / ticks_per_second());
    let next = Duration::from_secs(now.saturating_sub(since).saturating_add(MARGIN).as_secs() + 1);
    tokio::time::sleep(next.saturating_sub(now).saturating_add(MARGIN).min(Duration::from_secs(1) + 2 * MARGIN)).await;
}
