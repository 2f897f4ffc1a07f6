//! The running worker and its servers, as HAProxy reports them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::api::Error;
use super::cli::Session;
use crate::sys::process::parent_of_same_program;
use crate::sys::ticks::{now_ticks, ticks, ticks_per_second};
use crate::sys::unconfined::Unconfined;

/// The servers of each backend section, by name.
type Pools = BTreeMap<String, BTreeMap<String, ServerState>>;

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) pid: i32,
    /// When the program that read the configuration started, in seconds since 1970, as HAProxy reports it.
    started: u64,
    /// The earliest possible moment of that start, in ticks since boot.
    not_before: u64,
    /// When its master started, in ticks since boot. `None`: it has none, or none that can be seen.
    master_started: Option<u64>,
    pub(super) pools: Pools,
}

/// A server as `show servers state` reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerState {
    /// `None`: not an IP address.
    pub(super) address: Option<(IpAddr, u16)>,
    pub(super) weight: u16,
    pub(super) initial_weight: u16,
    /// Its number in its section.
    pub(super) id: u32,
    admin: u16,
    check: u16,
    agent: u16,
    /// Whether it is connected to with TLS, and the ports and addresses of its checks: what else is shown of its options.
    other: Vec<String>,
}

/// `SRV_ADMF_FMAINT`: forced into maintenance.
const FORCED_MAINTENANCE: u16 = 0x01;
/// `SRV_ADMF_FDRAIN`: forced to drain.
const FORCED_DRAIN: u16 = 0x08;
/// `CHK_ST_ENABLED`: health checks are switched on.
const CHECK_ENABLED: u16 = 0x04;
/// `CHK_ST_CONFIGURED`: its line has the option `check`, or `agent-check`.
const CHECK_CONFIGURED: u16 = 0x02;

impl ServerState {
    pub(super) const fn is_in_maintenance(&self) -> bool {
        self.admin & FORCED_MAINTENANCE != 0
    }

    pub(super) const fn is_ready(&self) -> bool {
        self.admin & (FORCED_MAINTENANCE | FORCED_DRAIN) == 0
    }

    pub(super) const fn is_agent_asked(&self) -> bool {
        self.agent & CHECK_ENABLED != 0
    }

    /// Whether it has other options than another server, as far as HAProxy shows them.
    pub(super) fn has_other_options_than(&self, other: &Self) -> bool {
        let of = |state: &Self| (state.check & CHECK_CONFIGURED, state.agent & CHECK_CONFIGURED, state.other.clone());
        of(self) != of(other)
    }

    pub(super) const fn is_checked(&self) -> bool {
        self.check & CHECK_ENABLED != 0
    }
}

impl Worker {
    pub(super) async fn get(session: &mut Session<'_>, unconfined: &Unconfined) -> Result<Self, Error> {
        let asked_at = now_ticks();
        let answers = session.send(&["show info", "show backend", "show servers state"]).await?;
        let [info, backends, servers] = answers.as_slice() else { unreachable!("as many answers as commands") };
        let worker = Self::parse(info, backends, servers, asked_at);
        let mut worker = worker.ok_or_else(|| {
            session.unusable(
                "the answers to `show info` and `show servers state` are not of the form that HAProxy 2.5 and later \
                 use; is this HAProxy's `stats socket`?",
            )
        })?;
        // If the process with that PID is older than HAProxy reports, the PID is of another PID namespace.
        worker.master_started = parent_of_same_program(unconfined, worker.pid)
            .await
            .filter(|(started, _)| started + ticks_per_second() >= worker.not_before)
            .map(|(_, master)| master);
        Ok(worker)
    }

    /// Parses the answers to commands sent at `asked_at`, in ticks since boot. `None`: they have another form.
    pub(super) fn parse(info: &str, backends: &str, servers: &str, asked_at: u64) -> Option<Self> {
        let number = |key: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))?;
            value.trim().parse::<u64>().ok()
        };
        let uptime = number("Uptime_sec")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = number("Start_time_sec");
        // The start is known to the second, and must agree with the uptime within one second. If it does not, the clock
        // has been set since, and only the uptime counts.
        let age = started.and_then(|started| now.checked_sub(Duration::from_secs(started)));
        let age = age.filter(|age| age.as_secs().abs_diff(uptime) <= 1).unwrap_or(Duration::from_secs(uptime + 1));
        Some(Self {
            pid: i32::try_from(number("Pid")?).ok()?,
            started: started.unwrap_or_default(),
            not_before: asked_at.saturating_sub(ticks(age)),
            master_started: None,
            pools: pools(backends, servers)?,
        })
    }

    /// A text that no other worker has.
    pub(super) fn identity(&self) -> String {
        format!("{}@{}", self.pid, self.started)
    }

    /// Whether it certainly read the configuration after `moment`, in ticks since boot.
    ///
    /// A worker is forked once the configuration has been read, so its own start shows nothing. What counts is when the
    /// program that read it was executed (`Start_time_sec`), or when its master was started.
    pub(super) fn has_started_after(&self, moment: u64) -> bool {
        self.not_before > moment || self.master_started.is_some_and(|master| master > moment)
    }
}

/// `None`: the answers have an unknown form.
fn pools(backends: &str, servers: &str) -> Option<Pools> {
    let names = backends.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut pools: BTreeMap<_, _> = names.map(|name| (name.to_owned(), BTreeMap::new())).collect();
    let mut lines = servers.lines();
    lines.next().filter(|version| version.trim() == "1")?;
    for line in lines.filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let fields: Vec<_> = line.split(' ').collect();
        let field = |index: usize| fields.get(index).copied();
        let number = |index: usize| field(index)?.parse::<u16>().ok();
        let address = field(4)?.parse::<IpAddr>().ok();
        let state = ServerState {
            address: address.zip(number(18)),
            admin: number(6)?,
            weight: number(7)?,
            initial_weight: number(8)?,
            id: field(2)?.parse().ok()?,
            check: number(13)?,
            agent: number(14)?,
            other: fields.get(20..).unwrap_or_default().iter().map(|&field| field.to_owned()).collect(),
        };
        pools.entry(field(1)?.to_owned()).or_default().insert(field(3)?.to_owned(), state);
    }
    Some(pools)
}

/// Waits until the second in which `moment` lies (in ticks since boot) is over. HAProxy reports its start in whole
/// seconds, so a worker that starts in the same second could not be distinguished from one that started before that moment.
pub(super) async fn wait_for_next_second(moment: u64) {
    /// Ticks are hundredths of a second, so a time in ticks may be off by that much.
    const MARGIN: Duration = Duration::from_millis(30);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = Duration::from_millis(now_ticks().saturating_sub(moment) * 1000 / ticks_per_second());
    let next = Duration::from_secs(now.saturating_sub(since).saturating_add(MARGIN).as_secs() + 1);
    tokio::time::sleep(next.saturating_sub(now).saturating_add(MARGIN).min(Duration::from_secs(1) + 2 * MARGIN)).await;
}
