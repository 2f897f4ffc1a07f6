//! HAProxy's commands (section 9.3 of its management guide), with bounds on time and size.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::api::{Access, Error};
use crate::sys::endpoint::{Connection, Endpoint};
use crate::units::HumanDuration;

/// What HAProxy writes after each answer in interactive mode. No answer contains it.
const PROMPT: &[u8] = b"\n> ";

/// The longest line sent, in bytes. HAProxy's buffer is larger (`tune.bufsize`, by default 16,384).
const MAX_LINE: usize = 4096;

/// The longest answer accepted, in bytes: that of some 100,000 servers.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// An interactive session, in which a prompt shows where each answer ends.
pub(super) struct Session<'a> {
    access: &'a Access,
    stream: Connection,
}

impl<'a> Session<'a> {
    pub(super) async fn open(access: &'a Access) -> Result<Self, Error> {
        let mut session = Self { access, stream: access.connect().await? };
        session.exchange("prompt\n".to_owned(), 1).await?;
        Ok(session)
    }

    /// Sends commands, and returns their answers in the same order.
    pub(super) async fn send<S: AsRef<str>>(&mut self, commands: &[S]) -> Result<Vec<String>, Error> {
        let mut answers = Vec::with_capacity(commands.len());
        let (mut line, mut count) = (String::new(), 0);
        for command in commands.iter().map(AsRef::as_ref) {
            if count > 0 && line.len() + command.len() + 2 > MAX_LINE {
                line.push('\n');
                answers.extend(self.exchange(std::mem::take(&mut line), count).await?);
                count = 0;
            }
            if count > 0 {
                line.push(';');
            }
            line.push_str(command);
            count += 1;
        }
        if count > 0 {
            line.push('\n');
            answers.extend(self.exchange(line, count).await?);
        }
        if answers.iter().any(|answer| answer.starts_with("Permission denied")) {
            return Err(self.unusable(
                "permission denied; HAProxy accepts changes only at a socket of level admin: write `stats socket PATH \
                 mode 660 level admin` in its global section",
            ));
        }
        Ok(answers)
    }

    /// Sends a command that HAProxy may deny at a socket of a lower level than admin, and returns its answer.
    pub(super) async fn ask(&mut self, command: &str) -> Result<String, Error> {
        Ok(self.exchange(format!("{command}\n"), 1).await?.concat())
    }

    pub(super) fn unusable(&self, message: &str) -> Error {
        self.access.unusable(message)
    }

    /// Sends one line with `count` commands, and reads as many answers.
    async fn exchange(&mut self, line: String, count: usize) -> Result<Vec<String>, Error> {
        let limit = self.access.timeout;
        let stream = &mut self.stream;
        let exchange = async {
            stream.write_all(line.as_bytes()).await?;
            let (mut answers, mut buffer, mut searched) = (Vec::with_capacity(count), Vec::new(), 0);
            while answers.len() < count {
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                while let Some(at) = buffer[searched..].windows(PROMPT.len()).position(|part| part == PROMPT) {
                    let answer: Vec<u8> = buffer.drain(..searched + at + PROMPT.len()).collect();
                    answers.push(String::from_utf8_lossy(&answer[..searched + at]).trim().to_owned());
                    searched = 0;
                }
                // The prompt may have arrived in part.
                searched = buffer.len().saturating_sub(PROMPT.len() - 1);
                if buffer.len() > MAX_ANSWER {
                    return Err(std::io::Error::other(format!("an answer longer than {MAX_ANSWER} bytes")));
                }
            }
            Ok(answers)
        };
        match timeout(limit, exchange).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(error)) => {
                Err(self.access.unusable(format!("no answer: {error}; is this HAProxy's `stats socket`?")))
            }
            Err(_) => Err(self.access.unusable(format!("no answer within {}", HumanDuration(limit)))),
        }
    }
}

/// Sends one command to HAProxy's master process, and returns the answer. The master ends its answer only once the other
/// side has closed its half of the connection.
pub(super) async fn ask_master(endpoint: &Endpoint, command: &str, limit: Duration) -> std::io::Result<String> {
    let exchange = async {
        let mut stream = endpoint.connect(limit).await?;
        stream.write_all(command.as_bytes()).await?;
        stream.write_all(b"\n").await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER as u64).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(limit, exchange).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
