//! Reloads by HAProxy's master process, over its own socket (`-S`).

use std::time::Duration;

use tokio::time::Instant;

use super::super::api::Error;
use super::cli;
use crate::sys::endpoint::Endpoint;
use crate::units::HumanDuration;

/// Asks the master to reload, and waits until a worker runs that has read the files after this was called.
///
/// A master that answers `show proc` is not reading files: it does one thing at a time. So whatever was begun before, by
/// others too, is over at the first answer, and each reload that is counted after it has read the files as they were then,
/// whoever asked for it. A command that reaches a master just before it starts again for another reason is lost.
pub async fn reload_by_master(endpoint: &Endpoint, limit: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + limit;
    let master = Master { endpoint, limit, deadline };
    let before = master.processes().await?;
    master.ask_to_reload().await?;
    let mut asked_at = Instant::now();
    loop {
        tokio::time::sleep(PAUSE).await;
        let now = master.processes().await?;
        if now.reloads == before.reloads {
            if asked_at.elapsed() > LOST_AFTER {
                master.ask_to_reload().await?;
                asked_at = Instant::now();
            }
        } else if now.failed > 0 {
            return Err(Error::Refused(format!(
                "the master could not start a new worker (`show proc`: {} [failed: {}]), and the old worker still runs; \
                 HAProxy's log says why (journalctl -u haproxy), and so may `haproxy -c` with all its files",
                now.reloads, now.failed
            )));
        } else if now.workers.iter().any(|worker| !before.workers.contains(worker)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let limit = HumanDuration(limit);
            return Err(master.unusable(format!("no new worker within {limit} of `reload`; HAProxy's log may say why")));
        }
    }
}

/// How often the master is asked.
const PAUSE: Duration = Duration::from_millis(20);

/// A master that answers and has not counted a reload for so long did not receive the command.
const LOST_AFTER: Duration = Duration::from_millis(500);

struct Master<'a> {
    endpoint: &'a Endpoint,
    limit: Duration,
    deadline: Instant,
}

impl Master<'_> {
    fn unusable(&self, message: String) -> Error {
        Error::Unusable { endpoint: self.endpoint.clone(), message }
    }

    /// The answer to a command, as far as there is one. A master that reads its files answers nothing, and closes the
    /// connections that it had when it started again.
    async fn ask(&self, command: &str) -> std::io::Result<String> {
        cli::ask_master(self.endpoint, command, self.deadline.saturating_duration_since(Instant::now())).await
    }

    /// Its processes, as soon as it is not busy.
    async fn processes(&self) -> Result<Processes, Error> {
        use std::io::ErrorKind::{NotFound, PermissionDenied};
        loop {
            let failure = match self.ask("show proc").await {
                Ok(answer) => match Processes::parse(&answer) {
                    Some(processes) => return Ok(processes),
                    None if answer.trim().is_empty() => "it closed the connection".to_owned(),
                    None => {
                        let message = format!("the answer to `show proc` is {answer:?}; is this the socket of `-S`?");
                        return Err(self.unusable(message));
                    }
                },
                Err(error) if matches!(error.kind(), NotFound | PermissionDenied) => {
                    return Err(self.unusable(self.is_it_there(&error.to_string())));
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() + PAUSE >= self.deadline {
                let limit = HumanDuration(self.limit);
                return Err(self.unusable(format!(
                    "the master answered nothing within {limit} ({failure}): it may be busy with its configuration, also at \
                     another's wish; raise `reload.timeout`; {}",
                    self.is_it_there("otherwise")
                )));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn is_it_there(&self, failure: &str) -> String {
        let endpoint = self.endpoint;
        format!("{failure}: does HAProxy run as master and worker with `-S {endpoint}`, and may elasticd use it?")
    }

    /// The master closes the connection, and from HAProxy 2.7 on says before that how it went.
    async fn ask_to_reload(&self) -> Result<(), Error> {
        match self.ask("reload").await {
            Ok(answer) => match answer.trim() {
                "" => Ok(()),
                said if said.starts_with("Success=1") => Ok(()),
                said if said.starts_with("Success=0") => Err(Error::Refused(said.to_owned())),
                said => Err(self.unusable(format!("the answer to `reload` is {said:?}"))),
            },
            Err(_) => Ok(()),
        }
    }
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
