//! A rate limit for the calls of a provider that is never exceeded, wherever in its time they arrive.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The most calls a rate may allow: each one made is remembered for the rate's time.
const MOST: u32 = 100_000;

/// So many calls in any span of so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// 1 to 100,000.
    pub calls: u32,
    /// A second, a minute or an hour.
    pub per: Duration,
}

impl FromStr for Rate {
    type Err = String;

    /// From what an operator writes: `60/min`, `2/s`, `1000/h`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a rate such as \"60/min\": from 1 to {MOST} calls per s, min or h");
        let (calls, per) = text.split_once('/').ok_or_else(wrong)?;
        let calls = calls.trim().parse().ok().filter(|calls| (1..=MOST).contains(calls)).ok_or_else(wrong)?;
        let seconds = match per.trim() {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        Ok(Self { calls, per: Duration::from_secs(seconds) })
    }
}

/// Lets so many calls pass in any span of its rate's time. Clones share the limit.
#[derive(Debug, Clone, Default)]
pub struct RateLimiter(Option<Arc<Limited>>);

#[derive(Debug)]
struct Limited {
    rate: Rate,
    account: Mutex<Account>,
    /// Calls wait one after the other.
    queue: tokio::sync::Mutex<()>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Account {
    under_way: usize,
    /// When calls ended, for as long as they count.
    ended: VecDeque<Instant>,
    waited: Duration,
}

/// A call under way. It counts until the rate's time has passed after it was dropped, whatever became of the call.
#[derive(Debug)]
#[must_use = "the call counts as ended when this is dropped"]
pub struct Permit(Option<Arc<Limited>>);

impl RateLimiter {
    /// A limiter of this rate; `None`: without a limit.
    pub fn new(rate: Option<Rate>) -> Self {
        let limited =
            |rate| Limited { rate, account: Mutex::default(), queue: Default::default(), ended: Notify::new() };
        Self(rate.map(|rate| Arc::new(limited(rate))))
    }

    /// Waits until one more call is within the rate, whenever within its time it arrives where it is going.
    pub async fn acquire(&self) -> Permit {
        let Some(limited) = &self.0 else { return Permit(None) };
        let _turn = limited.queue.lock().await;
        while let Some(wait) = limited.take() {
            match wait {
                Wait::Until(at) => sleep_until(at).await,
                Wait::ForAnEnd => limited.ended.notified().await,
            }
        }
        Permit(Some(Arc::clone(limited)))
    }

    /// How long calls have waited in all, the wait under way included to its end.
    pub fn waited(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |limited| limited.account().waited)
    }
}

enum Wait {
    Until(Instant),
    ForAnEnd,
}

impl Limited {
    /// Admits one call, or returns what to wait for.
    fn take(&self) -> Option<Wait> {
        let now = Instant::now();
        let mut account = self.account();
        while account.ended.front().is_some_and(|at| *at + self.rate.per <= now) {
            account.ended.pop_front();
        }
        if account.under_way + account.ended.len() < self.rate.calls as usize {
            account.under_way += 1;
            return None;
        }
        let Some(free) = account.ended.front().map(|at| *at + self.rate.per) else { return Some(Wait::ForAnEnd) };
        account.waited += free - now;
        Some(Wait::Until(free))
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        // Every change is complete before anything could panic.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(limited) = &self.0 else { return };
        let mut account = limited.account();
        account.under_way -= 1;
        account.ended.push_back(Instant::now());
        drop(account);
        limited.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use proptest::prelude::*;
    use tokio::time::sleep;

    use super::*;

    #[test]
    fn a_rate_is_calls_per_time() {
        for (text, calls, seconds) in [("60/min", 60, 60), ("1/s", 1, 1), (" 1000 / h", 1000, 3600)] {
            assert_eq!(text.parse(), Ok(Rate { calls, per: Duration::from_secs(seconds) }));
        }
        for wrong in ["", "60", "0/min", "-1/min", "60/minute", "1.5/s", "100001/h", "/min"] {
            assert!(wrong.parse::<Rate>().is_err_and(|said| said.contains("60/min")), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits() {
        let limiter = RateLimiter::default();
        let permits = join_all((0..1000).map(|_| limiter.acquire())).await;
        assert_eq!((permits.len(), limiter.waited()), (1000, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_given_up_counts_all_the_same() {
        let limiter = RateLimiter::new("2/min".parse().ok());
        let started = Instant::now();
        for _ in 0..2 {
            let call = async {
                let _permit = limiter.acquire().await;
                sleep(Duration::from_secs(100)).await;
            };
            assert!(tokio::time::timeout(Duration::from_secs(1), call).await.is_err());
        }
        // A wait that is given up admits nothing.
        assert!(tokio::time::timeout(Duration::from_secs(1), limiter.acquire()).await.is_err());
        let _third = limiter.acquire().await;
        assert_eq!(started.elapsed().as_secs(), 61, "a minute after the first one's end");
    }

    proptest! {
        /// However calls come and however long they take, no minute sees more of them than the rate allows.
        #[test]
        fn no_span_ever_sees_more(
            calls in 1_u32..6,
            workers in proptest::collection::vec(proptest::collection::vec((0_u64..40_000, 0_u64..20_000), 1..12), 1..5),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let limiter = RateLimiter::new(Some(Rate { calls, per: Duration::from_secs(60) }));
            let arrivals = Mutex::new(Vec::new());
            runtime.expect("a runtime").block_on(join_all(workers.into_iter().map(async |steps| {
                for (pause, length) in steps {
                    sleep(Duration::from_millis(pause)).await;
                    let _permit = limiter.acquire().await;
                    // It arrives at some time before it ends.
                    sleep(Duration::from_millis(length / 2)).await;
                    arrivals.lock().expect("no panic").push(Instant::now());
                    sleep(Duration::from_millis(length / 2)).await;
                }
            })));
            let mut arrivals = arrivals.into_inner().expect("no panic");
            arrivals.sort_unstable();
            for span in arrivals.windows(calls as usize + 1) {
                let length = span[calls as usize] - span[0];
                prop_assert!(length >= Duration::from_secs(60), "{} calls within {length:?}", calls + 1);
            }
        }
    }
}
