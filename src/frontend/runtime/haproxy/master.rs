//! Reloads by HAProxy's master process, over its own socket (`-S`).

use std::time::Duration;

use super::super::api::Error;
use super::cli;
use crate::sys::endpoint::Endpoint;
use crate::units::HumanDuration;

/// Asks the master to reload, and waits until a new worker runs.
pub async fn reload_by_master(endpoint: &Endpoint, limit: Duration) -> Result<(), Error> {
    let unusable = |message: String| Error::Unusable { endpoint: endpoint.clone(), message };
    let started = tokio::time::Instant::now();
    let answer = cli::ask_master(endpoint, "show proc", limit).await.map_err(|error| {
        unusable(format!(
            "{error}; does HAProxy run as master and worker with `-S {endpoint}`, and may elasticd use it?"
        ))
    })?;
    let before = Processes::parse(&answer)
        .ok_or_else(|| unusable(format!("the answer to `show proc` is {answer:?}; is this the socket of `-S`?")))?;
    // The master closes the connection, with or without an answer.
    if let Ok(answer) = cli::ask_master(endpoint, "reload", limit).await
        && !answer.trim().is_empty()
    {
        return Err(unusable(format!("the answer to `reload` is {:?}", answer.trim())));
    }
    while started.elapsed() < limit {
        tokio::time::sleep(Duration::from_millis(20)).await;
        // It may not answer while it starts again.
        let Ok(answer) = cli::ask_master(endpoint, "show proc", limit).await else { continue };
        let Some(now) = Processes::parse(&answer).filter(|now| now.reloads > before.reloads) else { continue };
        if now.failed > 0 {
            return Err(Error::Refused(format!(
                "the master could not start a new worker (`show proc`: {} [failed: {}]), and the old worker still runs; \
                 HAProxy's log says why (journalctl -u haproxy), and so may `haproxy -c` with all its files",
                now.reloads, now.failed
            )));
        }
        if now.workers.iter().any(|worker| !before.workers.contains(worker)) {
            return Ok(());
        }
    }
    Err(unusable(format!("no new worker within {} of `reload`; HAProxy's log may say why", HumanDuration(limit))))
}

/// The answer of a master to `show proc`.
#[derive(Debug, PartialEq, Eq)]
struct Processes {
    /// How often it has been reloaded.
    reloads: u64,
    /// How many reloads have failed in a row.
    failed: u64,
    /// The PIDs of the workers that accept connections.
    workers: Vec<i32>,
}

impl Processes {
    /// `None`: the answer has another form.
    fn parse(answer: &str) -> Option<Self> {
        let mut lines = answer.lines();
        let master = lines.find(|line| line.split_whitespace().nth(1) == Some("master"))?;
        let reloads = master.split_whitespace().nth(2)?.parse().ok()?;
        let failed = master.split_once("[failed:").and_then(|(_, rest)| rest.split(']').next()?.trim().parse().ok());
        let workers = lines
            .skip_while(|line| line.trim() != "# workers")
            .skip(1)
            .take_while(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect();
        Some(Self { reloads, failed: failed.unwrap_or_default(), workers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masters_answer_is_parsed() {
        let table = "#<PID> <type> <reloads> <uptime> <version>\n1162  master  5 [failed: 2]  0d00h02m07s  2.6\n# workers\n\
                     1271  worker  1  0d00h00m00s  2.6\n# old workers\n1233  worker  3  0d00h00m43s  2.0\n# programs\n";
        let expected = Processes { reloads: 5, failed: 2, workers: vec![1271] };
        assert_eq!(Processes::parse(table), Some(expected));
        assert_eq!(Processes::parse("Unknown command"), None);
    }
}
