//! A cloud, the NATS server, and two publishers between them.

use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::kv::Store;
use elasticd::model::Name;
use elasticd::provider::nats::connection::{self, Session};
use elasticd::provider::nats::format::{self, Heartbeat};
use nix::sys::signal::Signal;
use procfs::process::Process;
use tokio::runtime::Runtime;

use crate::ec2_endpoint::{Endpoint, Machine};
use crate::harness::elasticd::Elasticd;
use crate::harness::fleet::{await_fleet, await_lead};
use crate::harness::nats::Nats;
use crate::harness::until;
use crate::machine::machine;

/// The provider's name, at publishers and sidecars.
const PROVIDER: &str = "prod";

/// One machine of so many is in the service.
const EVERY: u32 = 10;

/// One publisher that leads and one that stands by, on a cloud of so many machines.
pub struct Publishers {
    pub endpoint: Endpoint,
    pub nats: Nats,
    pub machines: u32,
    leader: Elasticd,
    _standby: Elasticd,
    server: i32,
    runtime: Runtime,
    session: Session,
    store: Store,
    changes: u32,
}

/// One change of the cloud: a machine of the service comes or goes.
pub struct Change {
    number: u32,
    pub id: String,
    pub is_there: bool,
}

/// An instant by both clocks.
#[derive(Clone, Copy)]
pub struct Moment {
    monotonic: Instant,
    pub clock: SystemTime,
}

impl Publishers {
    /// Polling at this interval.
    pub fn start(machines: u32, interval: &str) -> Self {
        let endpoint = Endpoint::start(cloud(machines, None));
        let nats = Nats::start();
        let elasticd = || {
            let config = format!(
                "[providers.{PROVIDER}]\ntype = 'ec2'\nregion = 'us-east-1'\nendpoint_url = '{}'\n\
                 interval = '{interval}'\n[publish]\ntype = 'nats'\nurl = '{}'\nfleet = 'bench'\n",
                endpoint.url(),
                nats.url()
            );
            Elasticd::new(&config).env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").ready()
        };
        let leader = elasticd();
        await_lead(&leader);
        let standby = elasticd();
        await_fleet(&standby, "it stands by", |fleet| fleet["publisher"]["leader"].is_string());
        let config = nats.path("nats.conf").display().to_string();
        let is_ours = |process: &Process| process.cmdline().is_ok_and(|words| words.contains(&config));
        let all = procfs::process::all_processes().expect("/proc");
        let server = all.filter_map(Result::ok).find(is_ours).expect("the server's process").pid;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (session, store) = runtime.block_on(async {
            let session = Session::open(&connection(&nats.url()), "bench").await.expect("a connection");
            let store = session.bucket().await.expect("a bucket");
            (session, store)
        });
        Self { endpoint, nats, machines, leader, _standby: standby, server, runtime, session, store, changes: 0 }
    }

    /// What changes next.
    pub fn plan(&mut self) -> Change {
        // Somewhere else each time.
        let number = (self.changes / 2 * 37 + 5) % (self.machines / EVERY) * EVERY;
        let is_there = self.changes % 2 == 1;
        self.changes += 1;
        Change { number, id: Machine::numbered(number, &[]).id, is_there }
    }

    /// Alters the cloud, and asks the leader to poll at once.
    pub fn make(&self, change: &Change) -> Moment {
        let machines = cloud(self.machines, (!change.is_there).then_some(change.number));
        let at = Moment { monotonic: Instant::now(), clock: SystemTime::now() };
        self.endpoint.set_instances(machines);
        self.leader.signal(Signal::SIGUSR1);
        at
    }

    /// How long after the change EC2 was asked, and the set was in the store. Only once sidecars have it.
    pub fn stages(&self, at: Moment) -> [Duration; 2] {
        let asked = self.endpoint.arrivals().into_iter().find(|asked| *asked > at.monotonic).expect("a poll");
        let entry = self.runtime.block_on(self.store.entry(format::set_key(&provider())));
        let created = entry.expect("an answer").expect("a set").created.unix_timestamp_nanos();
        let stored = SystemTime::UNIX_EPOCH + Duration::from_nanos(created.try_into().expect("of today"));
        [asked - at.monotonic, stored.duration_since(at.clock).unwrap_or_default()]
    }

    /// How many signs of life the leader has given.
    pub fn heartbeats(&self) -> u64 {
        let key = format::heartbeat_key(&provider());
        let entry = self.runtime.block_on(self.store.get(key.clone())).expect("an answer").expect("a heartbeat");
        format::decode::<Heartbeat>(&key, &entry, "bench").expect("a heartbeat").count
    }

    /// Waits until the server counts this many sidecars.
    pub fn await_readers(&self, count: usize) {
        let readers = || self.runtime.block_on(self.session.readers(&self.store)).ok();
        until("all watch", || (readers()? == count).then_some(()));
    }

    /// The server's memory, in bytes.
    pub fn memory(&self) -> u64 {
        let server = Process::new(self.server).and_then(|server| server.statm()).expect("it runs");
        server.resident * procfs::page_size()
    }

    /// The processor time that the server has had.
    pub fn processor(&self) -> Duration {
        processor(self.server)
    }
}

/// The processor time that a process has had.
pub fn processor(pid: i32) -> Duration {
    let stat = Process::new(pid).and_then(|process| process.stat()).expect("it runs");
    Duration::from_millis((stat.utime + stat.stime) * 1000 / procfs::ticks_per_second())
}

/// The provider's name.
pub fn provider() -> Name {
    PROVIDER.parse().expect("a name")
}

/// The bucket at this server.
pub fn connection(url: &str) -> connection::Config {
    connection::Config {
        urls: vec![url.to_owned()],
        tls: false,
        ca_file: None,
        credentials_file: None,
        nkey_file: None,
        bucket: "elasticd".to_owned(),
        fleet: "bench".to_owned(),
    }
}

/// So many machines but this one.
fn cloud(count: u32, gone: Option<u32>) -> Vec<Machine> {
    let role = |n: u32| if n.is_multiple_of(EVERY) { "web" } else { "batch" };
    (0..count).filter(|n| Some(*n) != gone).map(|n| machine(n, role(n))).collect()
}
