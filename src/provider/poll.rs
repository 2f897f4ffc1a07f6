//! The one polling loop: jittered, bounded in time, backed off, cancelled at once, never ending.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::rate_limiter::RateLimiter;
use super::{ApiUsage, Error, Observation, Provider};
use crate::model::Name;
use crate::sys::backoff::Jitter;

/// How far an interval strays to either side, so that sidecars started together do not poll together.
const JITTER: Jitter = Jitter::PlusMinus { percent: 10 };

/// How much a throttled source widens the interval at most, in intervals.
const MAX_WIDENING: u32 = 16;

/// How long a throttled source makes the pause at most, unless the interval is longer.
const MAX_PAUSE: Duration = Duration::from_secs(900);

/// The longest first pause after a failed poll; it doubles up to the interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The shortest pause after a failed poll, unless the interval is shorter: chance must not make a hot loop.
const LEAST_RETRY: Duration = Duration::from_millis(200);

/// How long a burst of changes may last before the poll that reads it.
const SETTLE: Duration = Duration::from_millis(20);

/// How often a provider is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollSchedule {
    /// Between the end of one poll and the start of the next.
    pub interval: Duration,
    /// How long one poll may take, not counting how long it waits for its rate limiter.
    pub timeout: Duration,
}

/// How long a provider may take that reports a timeout itself, and so can say what it was waiting for.
pub(super) fn inner_timeout(timeout: Duration) -> Duration {
    timeout - timeout / 20
}

/// The length of the pause before the next poll.
#[derive(Debug, Clone)]
pub struct Backoff {
    pace: PollSchedule,
    widening: u32,
    failures: u32,
}

/// A pause, before chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// About so long.
    Interval(Duration),
    /// Up to so long.
    Retry(Duration),
}

impl Backoff {
    /// At the configured pace.
    pub const fn new(pace: PollSchedule) -> Self {
        Self { pace, widening: 1, failures: 0 }
    }

    /// The pause after a poll with this result.
    ///
    /// Throttling doubles the interval, up to sixteen times and a quarter of an hour, and so it does in a poll that
    /// succeeded in the end; each other success takes one interval off again (additive increase, multiplicative
    /// decrease, as TCP finds its share of a line). Any other failure is retried sooner than the interval: within 1 s,
    /// 2 s, 4 s and so on.
    pub fn after<T>(&mut self, result: &Result<T, Error>, cost: ApiUsage) -> Pause {
        let throttled = cost.throttles > 0 || result.as_ref().is_err_and(Error::is_throttled);
        match result {
            Ok(_) => self.failures = 0,
            Err(_) if throttled => {}
            Err(_) => {
                let retry = FIRST_RETRY.saturating_mul(1 << self.failures.min(20));
                self.failures += 1;
                return Pause::Retry(retry.min(self.widened()));
            }
        }
        self.widening = if throttled { (self.widening * 2).min(MAX_WIDENING) } else { (self.widening - 1).max(1) };
        Pause::Interval(self.widened())
    }

    fn widened(&self) -> Duration {
        (self.pace.interval * self.widening).min(MAX_PAUSE.max(self.pace.interval))
    }
}

impl Pause {
    /// Left to chance: an interval by up to a tenth to either side; a retry in full, from next to nothing to all of it,
    /// which spreads those that failed together the widest (Brooker, "Exponential Backoff And Jitter", AWS
    /// Architecture Blog, 2015).
    fn jittered(self) -> Duration {
        match self {
            Self::Interval(pause) => JITTER.apply(pause),
            Self::Retry(most) => Jitter::Full { least: LEAST_RETRY }.apply(most),
        }
    }
}

/// The poll's result, unless it takes longer than the limit, not counting how long it waits for its rate limiter.
async fn within<T>(
    limit: Duration,
    limiter: &RateLimiter,
    poll: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut poll = pin!(poll);
    let (started, before) = (tokio::time::Instant::now(), limiter.waited());
    let deadline = || started + limit + limiter.waited().saturating_sub(before);
    loop {
        let at = deadline();
        match tokio::time::timeout_at(at, &mut poll).await {
            Ok(result) => return result,
            Err(_) if deadline() > at => {}
            Err(_) => return Err(Error::timed_out(limit)),
        }
    }
}

/// Polls `provider` until cancelled, and sends the result of each poll. A change of `refresh` causes a poll at once.
///
/// A poll under way is dropped when cancelled. Returns when cancelled, or when the receiver is gone.
pub async fn run(
    name: Name,
    mut provider: Box<dyn Provider>,
    pace: PollSchedule,
    mut refresh: watch::Receiver<u64>,
    observations: mpsc::Sender<Observation>,
    cancelled: CancellationToken,
) {
    let work = async {
        let mut backoff = Backoff::new(pace);
        loop {
            refresh.mark_unchanged();
            let started = Instant::now();
            let result = within(pace.timeout, &provider.rate_limiter(), provider.discover()).await;
            let (at, took, cost) = (provider.observed_at(), started.elapsed(), provider.usage());
            let pause = backoff.after(&result, cost).jittered();
            let observation = Observation { provider: name.clone(), at, took, cost, result };
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

    use futures_util::future::BoxFuture;

    use super::super::ErrorKind;
    use super::*;
    use crate::model::Instance;

    const PACE: PollSchedule = PollSchedule { interval: Duration::from_secs(15), timeout: Duration::from_secs(60) };

    #[derive(Debug)]
    struct Script(VecDeque<Step>);

    #[derive(Debug)]
    enum Step {
        Answer(usize),
        Hang,
    }

    impl Provider for Script {
        fn discover(&mut self) -> BoxFuture<'_, Result<Vec<Instance>, Error>> {
            match self.0.pop_front().unwrap_or(Step::Answer(0)) {
                Step::Answer(n) => {
                    Box::pin(std::future::ready(Ok((0..n).map(|i| Instance::new(format!("i-{i}"))).collect())))
                }
                Step::Hang => Box::pin(std::future::pending()),
            }
        }
    }

    fn failure() -> Result<(), Error> {
        Err(Error::timed_out(PACE.timeout))
    }

    #[test]
    fn a_failure_is_retried_sooner_and_then_at_the_interval() {
        let mut backoff = Backoff::new(PACE);
        for seconds in [1, 2, 4, 8, 15, 15] {
            assert_eq!(backoff.after(&failure(), ApiUsage::default()), Pause::Retry(Duration::from_secs(seconds)));
        }
        assert_eq!(backoff.after(&Ok(()), ApiUsage::default()), Pause::Interval(PACE.interval));
        assert_eq!(backoff.after(&failure(), ApiUsage::default()), Pause::Retry(FIRST_RETRY));
    }

    #[test]
    fn throttling_doubles_the_interval_and_each_success_takes_one_off() {
        let throttled = || Err::<(), _>(Error::new(ErrorKind::Throttled, "fewer calls, please"));
        let intervals = |pause| match pause {
            Pause::Interval(pause) => pause.as_secs() / 15,
            Pause::Retry(_) => panic!("throttled polls are not retried sooner"),
        };
        let mut backoff = Backoff::new(PACE);
        let pauses: Vec<_> = (0..6).map(|_| intervals(backoff.after(&throttled(), ApiUsage::default()))).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 16, 16]);
        let pauses: Vec<_> = (0..16).map(|_| intervals(backoff.after(&Ok(()), ApiUsage::default()))).collect();
        assert_eq!(pauses, [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1]);
        assert_eq!(intervals(backoff.after(&throttled(), ApiUsage::default())), 2);
        let repeated = ApiUsage { throttles: 1, ..ApiUsage::default() };
        assert_eq!(intervals(backoff.after(&Ok(()), repeated)), 4, "it went well in the end, and yet");

        // Widened it stays below a quarter of an hour; a longer interval is not widened.
        for (minutes, widened) in [(5, 10), (10, 15), (20, 20)] {
            let interval = Duration::from_secs(60 * minutes);
            let pause = Backoff::new(PollSchedule { interval, ..PACE }).after(&throttled(), ApiUsage::default());
            assert_eq!(pause, Pause::Interval(Duration::from_secs(60 * widened)));
        }
    }

    #[test]
    fn intervals_are_jittered_by_a_tenth_and_retries_over_all_their_length() {
        let all = |pause: Pause| (0..1000).map(|_| pause.jittered().as_secs_f64()).collect::<Vec<_>>();
        let intervals = all(Pause::Interval(Duration::from_secs(10)));
        assert!(intervals.iter().all(|pause| (9.0..=11.0).contains(pause)), "{intervals:?}");
        let retries = all(Pause::Retry(Duration::from_secs(10)));
        assert!(retries.iter().all(|pause| (0.2..=10.0).contains(pause)), "{retries:?}");
        let below = |bound| retries.iter().filter(|pause| **pause < bound).count();
        assert!(below(1.0) > 20 && below(9.0) < 980, "from one end to the other: {retries:?}");
        assert!(all(Pause::Retry(Duration::from_millis(50))).iter().all(|pause| *pause == 0.05));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_rate_limiter_is_not_counted() {
        let limiter = RateLimiter::new("2/min".parse().ok());
        let calls = async |pause: u64| {
            for _ in 0..5 {
                let _permit = limiter.acquire().await;
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
            Ok(())
        };
        let started = tokio::time::Instant::now();
        within(Duration::from_secs(8), &limiter, calls(1)).await.expect("five seconds of work");
        assert!(started.elapsed() > Duration::from_secs(120), "and minutes of waiting");
        let result = within(Duration::from_secs(8), &limiter, calls(3)).await;
        let error = result.expect_err("too long");
        assert!(error.kind() == ErrorKind::Timeout && error.to_string().contains("8s"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn polls_at_once_then_at_the_interval_and_on_refresh() {
        let (sender, mut observations) = mpsc::channel(1);
        let refresh = watch::Sender::new(0);
        let cancelled = CancellationToken::new();
        let script = Box::new(Script([Step::Answer(1), Step::Hang, Step::Answer(2), Step::Answer(3)].into()));
        let name = "script".parse().expect("a name");
        let task = tokio::spawn(run(name, script, PACE, refresh.subscribe(), sender, cancelled.clone()));
        let started = tokio::time::Instant::now();

        assert_eq!(observations.recv().await.and_then(|o| o.result.ok()).map(|i| i.len()), Some(1));
        assert!(started.elapsed() < Duration::from_millis(1));
        let hung = observations.recv().await.expect("an observation").result;
        assert!(hung.is_err_and(|error| error.kind() == ErrorKind::Timeout));
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
