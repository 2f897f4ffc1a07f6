//! The one polling loop: jittered, bounded in time, backed off, cancelled at once, never ending.

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Error, Observation, Provider};
use crate::model::Name;

/// How far an interval strays to either side, so that sidecars started together do not poll together.
const JITTER: f64 = 0.1;

/// How much a throttled source widens the interval at most.
const MAX_WIDENING: u32 = 16;

/// The first pause after a failed poll; it doubles up to the interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How long a burst of changes is let pass before it is read.
const SETTLE: Duration = Duration::from_millis(20);

/// How often a provider is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between the end of one poll and the start of the next.
    pub interval: Duration,
    /// How long one poll may take.
    pub timeout: Duration,
}

/// The length of the pause before the next poll.
#[derive(Debug, Clone)]
pub struct Backoff {
    pace: Pace,
    widening: u32,
    failures: u32,
}

impl Backoff {
    /// At the configured pace.
    pub const fn new(pace: Pace) -> Self {
        Self { pace, widening: 1, failures: 0 }
    }

    /// The pause after a poll with this result, before jitter.
    ///
    /// Throttling doubles the interval, up to sixteen times; each success halves what it was widened by. Any other
    /// failure is retried sooner than the interval: after 1 s, 2 s, 4 s and so on.
    pub fn after<T>(&mut self, result: &Result<T, Error>) -> Duration {
        match result {
            Ok(_) => {
                self.failures = 0;
                self.widening = (self.widening / 2).max(1);
            }
            Err(error) if error.is_throttled() => self.widening = (self.widening * 2).min(MAX_WIDENING),
            Err(_) => {
                let retry = FIRST_RETRY.saturating_mul(1 << self.failures.min(20));
                self.failures += 1;
                return retry.min(self.pace.interval * self.widening);
            }
        }
        self.pace.interval * self.widening
    }
}

/// A pause strayed by up to a tenth to either side.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(fastrand::f64().mul_add(2.0 * JITTER, 1.0 - JITTER))
}

/// Polls `provider` until cancelled, and sends what each poll brought. `refresh` changing asks for a poll at once.
///
/// A poll under way is dropped when cancelled. Returns when cancelled, or when nobody listens any more.
pub async fn run<P: Provider<Error = Error>>(
    name: Name,
    mut provider: P,
    pace: Pace,
    mut refresh: watch::Receiver<u64>,
    observations: mpsc::Sender<Observation>,
    cancelled: CancellationToken,
) {
    let work = async {
        let mut backoff = Backoff::new(pace);
        loop {
            refresh.mark_unchanged();
            let started = Instant::now();
            let result = match tokio::time::timeout(pace.timeout, provider.discover()).await {
                Ok(result) => result,
                Err(_) => Err(Error::Timeout(pace.timeout)),
            };
            let pause = jittered(backoff.after(&result));
            let observation =
                Observation { provider: name.clone(), at: SystemTime::now(), took: started.elapsed(), result };
            if observations.send(observation).await.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = provider.changed() => tokio::time::sleep(SETTLE).await,
                Ok(()) = refresh.changed() => {}
            }
        }
    };
    cancelled.run_until_cancelled(work).await;
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::model::Instance;

    const PACE: Pace = Pace { interval: Duration::from_secs(15), timeout: Duration::from_secs(60) };

    struct Script(VecDeque<Step>);

    enum Step {
        Answer(usize),
        Hang,
    }

    impl Provider for Script {
        type Error = Error;

        async fn discover(&mut self) -> Result<Vec<Instance>, Error> {
            match self.0.pop_front().unwrap_or(Step::Answer(0)) {
                Step::Answer(n) => Ok((0..n).map(|i| Instance::new(format!("i-{i}"))).collect()),
                Step::Hang => std::future::pending().await,
            }
        }
    }

    fn failure() -> Result<(), Error> {
        Err(Error::Timeout(PACE.timeout))
    }

    #[test]
    fn a_failure_is_retried_sooner_and_then_at_the_interval() {
        let mut backoff = Backoff::new(PACE);
        let pauses: Vec<_> = (0..6).map(|_| backoff.after(&failure()).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15]);
        assert_eq!(backoff.after(&Ok(())), PACE.interval);
        assert_eq!(backoff.after(&failure()).as_secs(), 1);
    }

    #[cfg(feature = "ec2")]
    #[test]
    fn throttling_widens_the_interval_and_success_returns_it_slowly() {
        use crate::provider::ec2;
        let throttled = || Err::<(), _>(Error::Ec2(ec2::Error::throttled_for_tests()));
        let mut backoff = Backoff::new(PACE);
        let pauses: Vec<_> = (0..6).map(|_| backoff.after(&throttled()).as_secs() / 15).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 16, 16]);
        let pauses: Vec<_> = (0..5).map(|_| backoff.after(&Ok(())).as_secs() / 15).collect();
        assert_eq!(pauses, [8, 4, 2, 1, 1]);
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        for _ in 0..1000 {
            let pause = jittered(Duration::from_secs(10));
            assert!((9.0..=11.0).contains(&pause.as_secs_f64()), "{pause:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn polls_at_once_then_at_the_interval_and_on_refresh() {
        let (sender, mut observations) = mpsc::channel(1);
        let refresh = watch::Sender::new(0);
        let cancelled = CancellationToken::new();
        let script = Script([Step::Answer(1), Step::Hang, Step::Answer(2), Step::Answer(3)].into());
        let name = "script".parse().expect("a name");
        let task = tokio::spawn(run(name, script, PACE, refresh.subscribe(), sender, cancelled.clone()));
        let started = tokio::time::Instant::now();

        assert_eq!(observations.recv().await.and_then(|o| o.result.ok()).map(|i| i.len()), Some(1));
        assert!(started.elapsed() < Duration::from_millis(1));
        let hung = observations.recv().await.expect("an observation").result;
        assert!(matches!(hung, Err(Error::Timeout(_))));
        assert!((73.0..=77.0).contains(&started.elapsed().as_secs_f64()), "{:?}", started.elapsed());
        assert_eq!(observations.recv().await.and_then(|o| o.result.ok()).map(|i| i.len()), Some(2));

        let asked = tokio::time::Instant::now();
        refresh.send_modify(|n| *n += 1);
        assert_eq!(observations.recv().await.and_then(|o| o.result.ok()).map(|i| i.len()), Some(3));
        assert!(asked.elapsed() < Duration::from_millis(1), "a refresh does not wait");

        cancelled.cancel();
        task.await.expect("ends at once, well");
    }
}
