use std::sync::Mutex;

use tokio::net::TcpListener;

use super::*;
use crate::model::{Percent, Probe};

const INTERVAL: Duration = Duration::from_secs(5);

fn http() -> HealthCheck {
    HealthCheck::new(Probe::Http { path: "/".to_owned(), host: None, status: vec![200..=399] })
}

fn pool(service: &str, check: &HealthCheck, ids: impl IntoIterator<Item = u16>) -> Pool {
    let target = |id: u16| Target { id: id.to_string(), address: ([10, 0, 0, 1], id).into() };
    let targets = ids.into_iter().map(target).collect();
    Pool { service: service.parse().expect("a name"), check: check.clone(), targets, failed: BTreeSet::new() }
}

/// Simulated backends, told apart by their ports, and a record of when each was probed.
#[derive(Default)]
struct World {
    failing: Mutex<BTreeSet<u16>>,
    hanging: Mutex<bool>,
    asked: Mutex<Vec<(Duration, u16)>>,
    most_at_once: Mutex<(usize, usize)>,
}

impl World {
    async fn answer(&self, address: SocketAddr, at: Duration) -> Outcome {
        self.asked.lock().unwrap().push((at, address.port()));
        {
            let (now, most) = &mut *self.most_at_once.lock().unwrap();
            *now += 1;
            *most = (*most).max(*now);
        }
        let hangs = *self.hanging.lock().unwrap();
        tokio::time::sleep(Duration::from_millis(if hangs { 2000 } else { 1 })).await;
        self.most_at_once.lock().unwrap().0 -= 1;
        match self.failing.lock().unwrap().contains(&address.port()) {
            _ if hangs => Outcome::Fail("no response within 2s".to_owned()),
            true => Outcome::Fail("connection refused".to_owned()),
            false => Outcome::Pass,
        }
    }

    fn fail(&self, ports: impl IntoIterator<Item = u16>) {
        *self.failing.lock().unwrap() = ports.into_iter().collect();
    }

    fn asked(&self) -> Vec<(Duration, u16)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// The loop under test, on a paused clock.
struct Bench {
    world: Arc<World>,
    pools: watch::Sender<Arc<Vec<Pool>>>,
    reports: mpsc::Receiver<HealthReport>,
    _task: JoinSet<()>,
}

impl Bench {
    fn new(pools: Vec<Pool>) -> Self {
        let world = Arc::new(World::default());
        let pools = watch::Sender::new(Arc::new(pools));
        let (sender, reports) = mpsc::channel(1);
        let (asked, started) = (Arc::clone(&world), Instant::now());
        let ask = move |address, _| {
            let world = Arc::clone(&asked);
            async move { world.answer(address, started.elapsed()).await }
        };
        let mut task = JoinSet::new();
        task.spawn(check(pools.subscribe(), sender, ask));
        Self { world, pools, reports, _task: task }
    }

    fn set(&self, pools: Vec<Pool>) {
        self.pools.send_replace(Arc::new(pools));
    }

    async fn report(&mut self) -> HealthReport {
        self.reports.recv().await.expect("a report")
    }

    /// The ids of the next report that are out.
    async fn out(&mut self) -> Vec<String> {
        self.report().await.out.into_keys().collect()
    }

    /// Asserts that nothing is reported for so long.
    async fn no_report(&mut self, time: Duration) {
        let report = tokio::time::timeout(time, self.reports.recv()).await;
        assert!(report.is_err(), "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_pool_is_reported_at_once_and_afterwards_only_changes() {
    let mut bench = Bench::new(vec![pool("web", &http(), 1..=3), pool("empty", &http(), [])]);
    let report = [bench.report().await, bench.report().await];
    assert_eq!(report.each_ref().map(|report| report.service.as_str()), ["empty", "web"]);
    assert!(report.iter().all(|report| report.out.is_empty() && !report.panicking));
    assert_eq!(report[1].targets.len(), 3);
    bench.no_report(INTERVAL * 10).await;
    bench.set(vec![pool("web", &http(), 1..=3), pool("empty", &http(), [])]);
    bench.no_report(INTERVAL).await;
    bench.set(vec![pool("web", &http(), 1..=2)]);
    assert_eq!(bench.report().await.targets.len(), 2);
    bench.set(vec![]);
    bench.world.fail([1]);
    bench.no_report(INTERVAL * 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_backend_goes_out_with_its_cause_and_comes_back() {
    let mut bench = Bench::new(vec![pool("web", &http(), 1..=3)]);
    bench.report().await;
    bench.world.fail([2]);
    let report = bench.report().await;
    assert_eq!(report.out, [("2".to_owned(), "health check failed: connection refused".to_owned())].into());
    bench.world.fail([]);
    assert_eq!(bench.out().await, [""; 0]);
    bench.no_report(INTERVAL * 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_backend_is_probed_at_once_and_in_after_one_success() {
    let mut bench = Bench::new(vec![pool("web", &http(), 1..=3)]);
    bench.report().await;
    bench.no_report(INTERVAL * 2).await;
    bench.world.fail([5]);
    let joined = Instant::now();
    bench.set(vec![pool("web", &http(), 1..=5)]);
    let report = bench.report().await;
    assert_eq!(report.out.len(), 2);
    assert_eq!(report.out["4"], NOT_CHECKED_YET);
    assert_eq!(
        bench.report().await.out,
        [("5".to_owned(), "health check failed: connection refused".to_owned())].into()
    );
    assert!(joined.elapsed() < Duration::from_millis(10), "{:?}", joined.elapsed());
    bench.world.fail([]);
    assert_eq!(bench.out().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn everything_failing_at_once_changes_nothing_nor_does_its_end() {
    for fall in [1, 3] {
        let mut bench = Bench::new(vec![pool("web", &HealthCheck { fall, ..http() }, 1..=20)]);
        bench.report().await;
        bench.no_report(INTERVAL * 4).await;
        bench.world.fail(1..=20);
        let report = bench.report().await;
        assert!(report.panicking && report.out.is_empty(), "{report:?}");
        bench.no_report(INTERVAL * 20).await;
        bench.world.fail([]);
        let report = bench.report().await;
        assert!(!report.panicking && report.out.is_empty(), "{report:?}");
        bench.no_report(INTERVAL * 20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn probes_are_spread_over_the_interval_and_stay_spread() {
    const N: usize = 400;
    let mut bench = Bench::new(vec![pool("web", &http(), 1..=400)]);
    bench.report().await;
    bench.no_report(INTERVAL * 20).await;
    let asked = bench.world.asked();
    let rounds = asked.len() as f64 / N as f64;
    assert!((19.0..=21.0).contains(&rounds), "{rounds} rounds in 20 intervals");
    let mut tenths = [0_usize; 200];
    asked.iter().for_each(|(at, _)| tenths[((at.as_secs_f64() * 2.0) as usize).min(199)] += 1);
    assert!(tenths.iter().all(|n| (8..=100).contains(n)), "about 40 each tenth: {tenths:?}");
    assert!(
        asked[..N].iter().map(|(_, id)| id).collect::<Vec<_>>().windows(2).any(|pair| pair[0] > pair[1]),
        "in no order"
    );
    let mut last = HashMap::new();
    for (at, id) in asked {
        if let Some(before) = last.insert(id, at) {
            let pause = (at - before).as_secs_f64();
            assert!((4.49..=5.51).contains(&pause), "{pause}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn probes_under_way_are_bounded_and_all_get_their_turn() {
    let mut bench = Bench::new(vec![pool("web", &http(), 1..=1000)]);
    bench.report().await;
    *bench.world.hanging.lock().unwrap() = true;
    let report = bench.report().await;
    assert!(report.panicking && report.out.is_empty(), "{report:?}");
    bench.no_report(INTERVAL * 20).await;
    assert_eq!(bench.world.most_at_once.lock().unwrap().1, MAX_PROBES);
    let mut times = HashMap::<u16, usize>::new();
    bench.world.asked().iter().for_each(|(_, id)| *times.entry(*id).or_default() += 1);
    let (least, most) = (times.values().min().unwrap(), times.values().max().unwrap());
    assert!(times.len() == 1000 && most - least <= 2, "{least} to {most}");
}

#[tokio::test(start_paused = true)]
async fn another_check_applies_at_once_and_keeps_backends_out() {
    let mut bench = Bench::new(vec![pool("web", &http(), 1..=3)]);
    bench.report().await;
    bench.world.fail([3]);
    assert_eq!(bench.out().await, ["3"]);
    bench.world.asked();
    let faster = HealthCheck { interval: Duration::from_secs(1), timeout: Duration::from_secs(1), ..http() };
    bench.set(vec![pool("web", &faster, 1..=3)]);
    assert_eq!(bench.out().await, ["3"]);
    bench.no_report(Duration::from_secs(10)).await;
    let asked = bench.world.asked().len();
    assert!((27..=34).contains(&asked), "{asked} in 10 s");
}

/// A backend that left is not probed any more, and one that moved is probed at its new address.
#[tokio::test(start_paused = true)]
async fn only_current_backends_are_probed() {
    let mut bench = Bench::new(vec![pool("web", &http(), 1..=3)]);
    bench.report().await;
    bench.no_report(INTERVAL * 2).await;
    let mut moved = pool("web", &http(), 1..=2);
    moved.targets[1].address.set_port(9);
    bench.set(vec![moved]);
    assert_eq!(bench.out().await, ["2"]);
    assert_eq!(bench.out().await, [""; 0]);
    bench.world.asked();
    bench.no_report(INTERVAL * 10).await;
    let asked: BTreeSet<_> = bench.world.asked().into_iter().map(|(_, port)| port).collect();
    assert_eq!(asked, [1, 9].into());
}

/// With real sockets and the real clock.
#[tokio::test]
async fn real_backends_are_probed() {
    let [stays, goes] =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let interval = Duration::from_millis(200);
    let check = HealthCheck { interval, timeout: interval, panic: Percent(0), ..HealthCheck::new(Probe::Tcp) };
    let target = |l: &TcpListener| Target { id: l.local_addr().unwrap().to_string(), address: l.local_addr().unwrap() };
    let targets = vec![target(&stays), target(&goes)];
    let refused = targets[1].id.clone();
    let pools = watch::Sender::new(Arc::new(vec![Pool {
        service: "web".parse().unwrap(),
        check,
        targets,
        failed: BTreeSet::new(),
    }]));
    let (sender, mut reports) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(pools.subscribe(), sender, stop.clone()));
    let mut until = async |good: &dyn Fn(&HealthReport) -> bool| {
        let report = async { while !good(&reports.recv().await.expect("it runs")) {} };
        tokio::time::timeout(Duration::from_secs(30), report).await.expect("in time");
    };
    until(&|report| report.out.is_empty() && report.targets.len() == 2).await;
    drop(goes);
    let why = "health check failed: connection refused";
    until(&|report| report.out.get(&refused).is_some_and(|cause| cause == why)).await;
    drop(stays);
    until(&|report| report.panicking && report.out.len() == 1).await;
    stop.cancel();
    task.await.expect("ends when report to");
}
