//! HAProxy's command line (section 9.3 of its management guide): bounded in time and size.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::{Error, Runtime};
use crate::sys::endpoint::{Connection, Endpoint};

/// What HAProxy writes in interactive mode after each answer. No answer holds it.
const PROMPT: &[u8] = b"\n> ";

/// The longest line written, in bytes: HAProxy takes what fits its buffer (`tune.bufsize`, 16,384 unless changed).
const MAX_LINE: usize = 4096;

/// The longest answer taken, in bytes: some 100,000 servers.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// An interactive session, in which it is plain where each answer ends.
pub(super) struct Session<'a> {
    runtime: &'a Runtime,
    stream: Connection,
}

impl<'a> Session<'a> {
    pub(super) async fn open(runtime: &'a Runtime) -> Result<Self, Error> {
        let mut session = Self { runtime, stream: runtime.connect().await? };
        session.exchange("prompt\n".to_owned(), 1).await?;
        Ok(session)
    }

    /// The answers to some commands, in their order.
    pub(super) async fn ask<S: AsRef<str>>(&mut self, commands: &[S]) -> Result<Vec<String>, Error> {
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
            return Err(self.runtime.unusable(
                "permission denied; HAProxy takes changes only at a socket of level admin: write `stats socket PATH \
                 mode 660 level admin` in its global section",
            ));
        }
        Ok(answers)
    }

    pub(super) fn unusable(&self, message: &str) -> Error {
        self.runtime.unusable(message)
    }

    /// Writes one line with `count` commands, and reads as many answers.
    async fn exchange(&mut self, line: String, count: usize) -> Result<Vec<String>, Error> {
        let limit = self.runtime.limit;
        let stream = &mut self.stream;
        let exchange = async {
            stream.write_all(line.as_bytes()).await?;
            let (mut answers, mut buffer, mut seen) = (Vec::with_capacity(count), Vec::new(), 0);
            while answers.len() < count {
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                while let Some(at) = buffer[seen..].windows(PROMPT.len()).position(|part| part == PROMPT) {
                    let answer: Vec<u8> = buffer.drain(..seen + at + PROMPT.len()).collect();
                    answers.push(String::from_utf8_lossy(&answer[..seen + at]).trim().to_owned());
                    seen = 0;
                }
                // What was looked at need not be looked at again.
                seen = buffer.len().saturating_sub(PROMPT.len() - 1);
                if buffer.len() > MAX_ANSWER {
                    return Err(std::io::Error::other(format!("an answer longer than {MAX_ANSWER} bytes")));
                }
            }
            Ok(answers)
        };
        match timeout(limit, exchange).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(error)) => {
                Err(self.runtime.unusable(format!("no answer: {error}; is this HAProxy's `stats socket`?")))
            }
            Err(_) => Err(self.runtime.unusable(format!("no answer within {limit:?}"))),
        }
    }
}

/// The answer of HAProxy's master process to one command. It answers for as long as the other side may have more to
/// say, and so is told that there is no more.
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
