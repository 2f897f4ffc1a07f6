//! The protocol of Varnish's management interface (varnish-cli(7) of Varnish 7.1).
//!
//! A command is a line. An answer is `status length\n` in 13 bytes, and then as many bytes as that length.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::api::{Access, Error};
use super::super::difference::excerpt;
use super::vcl::Vcl;
use crate::sys::endpoint::Connection;
use crate::sys::http::MAX_ANSWER;
use crate::sys::text;
use crate::units::HumanDuration;

/// The protocol's status codes (`include/vcli.h`).
pub(super) const OK: u16 = 200;
pub(super) const TRUNCATED: u16 = 201;
const UNKNOWN: u16 = 101;
const AUTHENTICATE: u16 = 107;

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// A connection to varnishd, authenticated if it asks for that.
pub(super) struct Cli<'a> {
    access: &'a Access,
    stream: Connection,
}

impl<'a> Cli<'a> {
    pub(super) async fn connect(access: &'a Access) -> Result<Self, Error> {
        let mut cli = Self { access, stream: access.connect().await? };
        let greeting = cli.exchange("the connection", None).await?;
        if greeting.status == AUTHENTICATE {
            cli.authenticate(&greeting.body).await?;
        }
        Ok(cli)
    }

    /// Answers a challenge with the SHA-256 of its first line, the secret, and that line again.
    async fn authenticate(&mut self, greeting: &[u8]) -> Result<(), Error> {
        let Some(path) = &self.access.secret_file else {
            return Err(self
                .access
                .unusable("it asks for a secret: set `secret_file` to the file given to `varnishd -S`"));
        };
        let secret = tokio::fs::read(path).await.map_err(|error| {
            let path = path.display();
            self.access
                .unusable(format!("cannot read the secret in {path}: {error}; let elasticd's user read this file"))
        })?;
        let end = greeting.iter().position(|byte| *byte == b'\n').map_or(greeting.len(), |end| end + 1);
        let challenge = &greeting[..end];
        let proof = Sha256::new().chain_update(challenge).chain_update(secret).chain_update(challenge).finalize();
        if self.send(&["auth", &text::hex(proof)]).await?.status != OK {
            let path = path.display();
            return Err(self.access.unusable(format!(
                "it does not accept the secret in {path}; set `secret_file` to the file given to `varnishd -S`"
            )));
        }
        Ok(())
    }

    pub(super) async fn vcls(&mut self) -> Result<Vec<Vcl>, Error> {
        let answer = self.execute(&["vcl.list", "-j"]).await?;
        if answer.status == TRUNCATED {
            return Err(self.access.unusable(
                "the list of its VCLs is longer than its `cli_limit`; discard some (`varnishadm vcl.discard`)",
            ));
        }
        // The first three elements are the version of the format, the command and the time.
        let parsed: Result<Vec<serde_json::Value>, _> = serde_json::from_slice(&answer.body);
        let vcls = parsed.and_then(|list| list.into_iter().skip(3).map(serde_json::from_value).collect());
        let vcls: Vec<Vcl> = vcls.map_err(|error| {
            self.access.unusable(format!(
                "cannot parse the answer to vcl.list -j: {error}: {}; is it Varnish 6.4 or later?",
                excerpt(&answer.body)
            ))
        })?;
        if vcls.iter().any(Vcl::is_not_serving) {
            return Err(Error::NotServing(
                self.access.endpoint.clone(),
                "varnishd runs, but its child process does not",
            ));
        }
        Ok(vcls)
    }

    /// How long Varnish keeps idle connections to backends.
    pub(super) async fn backend_idle_timeout(&mut self) -> Option<Duration> {
        let answer = self.execute(&["param.show", "-j", "backend_idle_timeout"]).await.ok()?;
        let parsed: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        Duration::try_from_secs_f64(parsed.get(3)?.get("value")?.as_f64()?).ok()
    }

    /// Sends a command, which must succeed.
    pub(super) async fn execute(&mut self, command: &[&str]) -> Result<Answer, Error> {
        let answer = self.send(command).await?;
        match answer.status {
            OK | TRUNCATED => Ok(answer),
            UNKNOWN => Err(self.access.unusable(format!("{}: {}", command[0], excerpt(&answer.body)))),
            _ => Err(Error::Refused(excerpt(&answer.body))),
        }
    }

    /// Sends a command, and returns its answer, whatever its status.
    pub(super) async fn send(&mut self, command: &[&str]) -> Result<Answer, Error> {
        let line = command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ") + "\n";
        self.exchange(command[0], Some(&line)).await
    }

    async fn exchange(&mut self, request: &str, line: Option<&str>) -> Result<Answer, Error> {
        let limit = self.access.timeout;
        match timeout(limit, exchange(&mut self.stream, line)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.access.unusable(format!("no answer to {request}: {error}"))),
            Err(_) => Err(self.access.unusable(format!(
                "no answer to {request} within {}; raise `api_timeout`, or let varnishd use a faster compiler: \
                 -p cc_command='exec tcc -w -shared -o %o %s'",
                HumanDuration(limit)
            ))),
        }
    }
}

async fn exchange(stream: &mut Connection, line: Option<&str>) -> std::io::Result<Answer> {
    let invalid = |message: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, message.to_owned());
    if let Some(line) = line {
        stream.write_all(line.as_bytes()).await?;
    }
    let mut head = [0; 13];
    stream.read_exact(&mut head).await?;
    let mut words = std::str::from_utf8(&head).unwrap_or_default().split_ascii_whitespace();
    let status = words.next().and_then(|word| word.parse().ok());
    let length: Option<usize> = words.next().and_then(|word| word.parse().ok());
    let (Some(status), Some(length)) = (status, length) else {
        return Err(invalid("this is not Varnish's management interface"));
    };
    if length > MAX_ANSWER {
        return Err(invalid("the answer is too long"));
    }
    // The length does not include the newline at the end.
    let mut body = vec![0; length + 1];
    stream.read_exact(&mut body).await?;
    body.truncate(length);
    Ok(Answer { status, body })
}

/// A word of a command, in quotes if it needs them.
fn quoted(word: &str) -> String {
    let is_bare = |b: u8| b.is_ascii_alphanumeric() || b"_-./".contains(&b);
    if !word.is_empty() && word.bytes().all(is_bare) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_the_protocol_demands() {
        assert_eq!(quoted("/etc/varnish/default.vcl"), "/etc/varnish/default.vcl");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a b\"\\\n"), r#""a b\"\\\n""#);
    }
}
