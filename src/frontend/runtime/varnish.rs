//! Varnish's management interface (`varnishd -T`), by its CLI protocol (varnish-cli(7) of Varnish 7.1).
//!
//! A line each way: a command, and `status length\n` in 13 bytes before that many bytes of an answer. Every change is a
//! VCL of its own, named after the outputs' digest: loaded (which compiles it), looked at, and switched to. So what
//! `vcl.list` calls the active one shows what Varnish runs, to whoever asks and however often either was restarted.
//! A VCL's name is never used again, as the main VCL that includes the outputs may have changed since.
//!
//! Replaced VCLs are discarded late. Varnish frees the backends of a discarded VCL in the thread that also takes
//! commands, and waits 20 ms for each that no other VCL has and that has an idle connection (`VCP_Rel` in its
//! `cache_conn_pool.c`; measured: 2.3 s for 100 backends, 21 s for 1,000). No change is taken meanwhile, and after
//! `cli_timeout`, 60 s, the manager kills the child, cache and all. Connections that idle are closed after
//! `backend_idle_timeout`: by then it costs nothing.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::digest::Digest;
use super::{Comparison, Error, Evidence, LiveUpdate, Runtime, Wanted, excerpt};
use crate::sys::endpoint::Connection;
use crate::sys::http::MAX_ANSWER;
use crate::sys::text;
use crate::sys::ticks::{now_ticks, ticks};

/// What begins the names of our VCLs.
const PREFIX: &str = "elasticd_";
/// How many digits of the outputs' digest a name holds.
const DIGITS: usize = 16;
/// How long after its backends' idle connections are closed a replaced VCL is discarded: Varnish closes them a bit late.
const MARGIN: Duration = Duration::from_secs(5);
/// How many replaced VCLs may wait for that. Each holds some kB for every backend, in memory and on disk.
const MOST: usize = 64;

/// The protocol's status codes (`include/vcli.h`).
const TRUNCATED: u16 = 201;
const OK: u16 = 200;
const UNKNOWN: u16 = 101;
const AUTHENTICATE: u16 = 107;

pub(super) async fn compare(runtime: &Runtime, wanted: &Wanted<'_>) -> Result<Comparison, Error> {
    let mut cli = Cli::connect(runtime).await?;
    let vcls = cli.vcls().await?;
    match vcls.iter().find(|vcl| vcl.is_active()) {
        Some(active) if active.is_of(wanted) => {
            cli.discard_replaced(&vcls).await;
            Ok(Comparison::Runs(Evidence { instance: Some(active.name.clone()), fixed: None }))
        }
        Some(active) => Ok(Comparison::Differs(format!("its active VCL is {}", active.name))),
        None => Ok(Comparison::Differs("it has no active VCL".to_owned())),
    }
}

pub(super) async fn apply(runtime: &Runtime, wanted: &Wanted<'_>) -> Result<LiveUpdate, Error> {
    let Some(main) = &runtime.config else {
        return Err(runtime.unusable("set `config` to the file that varnishd is started with (`varnishd -f`)"));
    };
    let mut cli = Cli::connect(runtime).await?;
    let vcls = cli.vcls().await?;
    if vcls.iter().any(|vcl| vcl.is_active() && vcl.is_of(wanted)) {
        return Ok(LiveUpdate::Applied);
    }
    // Attempts that come to nothing leave VCLs too.
    cli.discard_replaced(&vcls).await;
    let name = Own { digest: digits(wanted.digest), loaded_at: now_ticks() }.to_string();
    cli.order(&["vcl.load", &name, &main.to_string_lossy()]).await?;
    let shown = cli.answer(&["vcl.show", "-v", &name]).await?;
    if let Some(path) = missing(&shown, wanted) {
        // Never used, it has no connections.
        cli.order(&["vcl.discard", &name]).await?;
        let (main, path) = (main.display(), path.display());
        return Err(runtime.unusable(format!(
            "{main} does not include {path} as it is in place: write `include \"{path}\";` after its line `vcl 4.1;`"
        )));
    }
    cli.order(&["vcl.use", &name]).await?;
    Ok(LiveUpdate::Applied)
}

/// A VCL, as `vcl.list -j` tells of it.
#[derive(Debug, Deserialize)]
struct Vcl {
    /// `active`, `available`, `discarded`.
    status: String,
    /// `auto`, `warm` or `cold` as an operator has set it, `label`.
    state: String,
    /// The tasks that use it; there is no such number while no child process runs.
    busy: Option<u64>,
    name: String,
    /// How many labels point to it.
    #[serde(default)]
    labels: u64,
}

/// What the name of one of our VCLs says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Own<'a> {
    digest: &'a str,
    /// In ticks since boot.
    loaded_at: u64,
}

impl fmt::Display for Own<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_{}", self.digest, self.loaded_at)
    }
}

impl Vcl {
    fn is_active(&self) -> bool {
        self.status == "active"
    }

    fn own(&self) -> Option<Own<'_>> {
        let (digest, loaded_at) = self.name.strip_prefix(PREFIX)?.split_once('_')?;
        Some(Own { digest, loaded_at: loaded_at.parse().ok()? })
    }

    fn is_of(&self, wanted: &Wanted<'_>) -> bool {
        self.own().is_some_and(|own| own.digest == digits(wanted.digest))
    }

    /// Whether it is ours, and nobody has a use for it.
    fn is_idle(&self) -> bool {
        self.own().is_some()
            && self.status == "available"
            && self.state == "auto"
            && self.busy == Some(0)
            && self.labels == 0
    }
}

fn digits(digest: &Digest) -> &str {
    &digest.as_str()[..DIGITS]
}

/// The names of the VCLs that can be discarded at `now` without harm, where Varnish closes connections that idle for
/// `idle_timeout`: what replaced them was loaded that long ago. Of too many, the oldest go earlier.
///
/// `vcls` come as `vcl.list` has them, in the order in which they were loaded.
fn expendable(vcls: &[Vcl], now: u64, idle_timeout: Duration) -> Vec<&str> {
    let own: Vec<_> = vcls.iter().filter_map(|vcl| Some((vcl, vcl.own()?))).collect();
    let patience = ticks(idle_timeout + MARGIN);
    let idle: Vec<_> =
        own.windows(2).filter(|pair| pair[0].0.is_idle()).map(|pair| (pair[0].0, pair[1].1.loaded_at)).collect();
    let excess = idle.len().saturating_sub(MOST);
    let is_due = |(index, (_, replaced_at)): &(usize, (&Vcl, u64))| *index < excess || replaced_at + patience <= now;
    idle.into_iter().enumerate().filter(is_due).map(|(_, (vcl, _))| vcl.name.as_str()).collect()
}

/// The first output that is to be included and is not, by the answer to `vcl.show -v`: each file's size, name and text.
///
/// Outputs that are no VCL are not included but read. An answer longer than Varnish's `cli_limit` comes cut off: what it
/// does not show is taken to be there.
fn missing<'a>(shown: &Answer, wanted: &Wanted<'a>) -> Option<&'a Path> {
    let sources = sources(&shown.body);
    let is_cut = shown.status == TRUNCATED;
    let includes = |(path, content): &(&Path, &str)| {
        let holds = |source: &Source<'_>| {
            let whole = source.text.len() == source.size;
            source.size == content.len() && content.as_bytes().starts_with(source.text) && (whole || is_cut)
        };
        let is_seen = sources.iter().any(|source| source.name == path.as_os_str().as_encoded_bytes());
        sources.iter().any(holds) || (is_cut && !is_seen)
    };
    let vcls = wanted.outputs.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "vcl"));
    vcls.copied().find(|output| !includes(output)).map(|(path, _)| path)
}

/// One file of a VCL.
#[derive(Debug, PartialEq, Eq)]
struct Source<'a> {
    name: &'a [u8],
    size: usize,
    /// All of it, or the beginning, where the answer was cut off.
    text: &'a [u8],
}

fn sources(mut shown: &[u8]) -> Vec<Source<'_>> {
    /// Varnish's word that it cut an answer off.
    const CUT: &[u8] = b"\n[response was truncated]\n";
    shown = shown.strip_suffix(CUT).unwrap_or(shown);
    let mut sources = Vec::new();
    while let Some(rest) = shown.strip_prefix(b"// VCL.SHOW ") {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let mut words = rest[..end].splitn(3, |byte| *byte == b' ').skip(1);
        let size = words.next().and_then(|size| std::str::from_utf8(size).ok()?.parse().ok());
        let (Some(size), Some(name)) = (size, words.next()) else { break };
        let text = rest.get(end + 1..).unwrap_or_default();
        sources.push(Source { name, size, text: &text[..text.len().min(size)] });
        shown = text.get(size..).unwrap_or_default().trim_ascii_start();
    }
    sources
}

/// What Varnish answers to a command.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// A connection that varnishd has admitted.
struct Cli<'a> {
    runtime: &'a Runtime,
    stream: Connection,
}

impl<'a> Cli<'a> {
    async fn connect(runtime: &'a Runtime) -> Result<Self, Error> {
        let stream = runtime.connect().await?;
        let mut cli = Self { runtime, stream };
        let greeting = cli.bounded("its greeting", None).await?;
        if greeting.status == AUTHENTICATE {
            cli.authenticate(&greeting.body).await?;
        }
        Ok(cli)
    }

    /// The answer to a challenge: the SHA-256 of its first line, the secret, and that line again.
    async fn authenticate(&mut self, greeting: &[u8]) -> Result<(), Error> {
        let Some(path) = &self.runtime.secret_file else {
            return Err(self
                .runtime
                .unusable("it wants a secret: set `secret_file` to the file given to `varnishd -S`"));
        };
        let secret = std::fs::read(path).map_err(|error| {
            let path = path.display();
            self.runtime.unusable(format!("cannot read the secret in {path}: {error}; elasticd's user must be able to"))
        })?;
        let end = greeting.iter().position(|byte| *byte == b'\n').map_or(greeting.len(), |end| end + 1);
        let challenge = &greeting[..end];
        let proof = Sha256::new().chain_update(challenge).chain_update(secret).chain_update(challenge).finalize();
        if self.answer(&["auth", &text::hex(proof)]).await?.status != OK {
            let path = path.display();
            return Err(self.runtime.unusable(format!(
                "it does not accept the secret in {path}; name in `secret_file` the file given to `varnishd -S`"
            )));
        }
        Ok(())
    }

    async fn vcls(&mut self) -> Result<Vec<Vcl>, Error> {
        let answer = self.order(&["vcl.list", "-j"]).await?;
        if answer.status == TRUNCATED {
            return Err(self.runtime.unusable(
                "it has more VCLs than its `cli_limit` lets it tell of; discard some (`varnishadm vcl.discard`)",
            ));
        }
        // The format's version, the command and the time come first.
        let parsed: Result<Vec<serde_json::Value>, _> = serde_json::from_slice(&answer.body);
        let vcls = parsed.and_then(|list| list.into_iter().skip(3).map(serde_json::from_value).collect());
        let vcls: Vec<Vcl> = vcls.map_err(|error| {
            self.runtime
                .unusable(format!("vcl.list -j: {error}: {}; is it Varnish 6.4 or later?", excerpt(&answer.body)))
        })?;
        if vcls.iter().any(|vcl| vcl.is_active() && vcl.busy.is_none()) {
            return Err(Error::NotServing(
                self.runtime.endpoint.clone(),
                "varnishd runs, and its child process does not",
            ));
        }
        Ok(vcls)
    }

    /// Discards what can be, as far as it can: the rest stays for another time.
    async fn discard_replaced(&mut self, vcls: &[Vcl]) {
        if !vcls.iter().any(Vcl::is_idle) {
            return;
        }
        let Some(idle_timeout) = self.idle_timeout().await else { return };
        for name in expendable(vcls, now_ticks(), idle_timeout) {
            if let Err(error) = self.order(&["vcl.discard", name]).await {
                tracing::debug!(%error, name, "not discarded");
                return;
            }
        }
    }

    /// After how long Varnish closes the connections that it keeps to backends.
    async fn idle_timeout(&mut self) -> Option<Duration> {
        let answer = self.order(&["param.show", "-j", "backend_idle_timeout"]).await.ok()?;
        let parsed: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        Duration::try_from_secs_f64(parsed.get(3)?.get("value")?.as_f64()?).ok()
    }

    /// A command that must succeed.
    async fn order(&mut self, command: &[&str]) -> Result<Answer, Error> {
        let answer = self.answer(command).await?;
        match answer.status {
            OK | TRUNCATED => Ok(answer),
            UNKNOWN => Err(self.runtime.unusable(format!("{}: {}", command[0], excerpt(&answer.body)))),
            _ => Err(Error::Refused(excerpt(&answer.body))),
        }
    }

    async fn answer(&mut self, command: &[&str]) -> Result<Answer, Error> {
        let line = command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ") + "\n";
        self.bounded(command[0], Some(&line)).await
    }

    async fn bounded(&mut self, what: &str, line: Option<&str>) -> Result<Answer, Error> {
        let limit = self.runtime.limit;
        match timeout(limit, exchange(&mut self.stream, line)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.runtime.unusable(format!("no answer to {what}: {error}"))),
            Err(_) => Err(self.runtime.unusable(format!(
                "no answer to {what} within {limit:?}; raise `api_timeout`, or have varnishd use a faster compiler: \
                 -p cc_command='exec tcc -w -shared -o %o %s'"
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
    // A newline follows that is not counted.
    let mut body = vec![0; length + 1];
    stream.read_exact(&mut body).await?;
    body.truncate(length);
    Ok(Answer { status, body })
}

/// A word of a command.
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

    fn own(loaded_at: u64) -> String {
        Own { digest: "0123456789abcdef", loaded_at }.to_string()
    }

    fn vcl(name: &str, more: &str) -> Vcl {
        let usual = serde_json::json!({ "status": "available", "state": "auto", "busy": 0, "name": name });
        let mut vcl = usual.as_object().expect("a map").clone();
        vcl.extend(serde_json::from_str::<serde_json::Map<_, _>>(more).expect("JSON"));
        serde_json::from_value(vcl.into()).expect("a VCL")
    }

    #[test]
    fn only_what_is_ours_and_of_no_use_and_was_replaced_long_ago_is_expendable() {
        let at = |seconds| ticks(Duration::from_secs(seconds));
        let names: Vec<_> = (0..9).map(|i| own(at(i))).collect();
        let vcls = [
            vcl("boot", "{}"),
            vcl(&names[0], "{}"),
            vcl("reload_20261122_1", "{}"),
            vcl(&names[1], r#"{"busy": 1}"#),
            vcl(&names[2], r#"{"labels": 1}"#),
            vcl(&names[3], r#"{"state": "warm"}"#),
            vcl(&names[4], r#"{"status": "discarded"}"#),
            vcl(&names[5], "{}"),
            vcl(&names[6], "{}"),
            vcl("elasticd_by_hand", "{}"),
            vcl(&names[7], r#"{"status": "active", "busy": 3}"#),
            vcl(&names[8], "{}"),
        ];
        let idle_timeout = Duration::from_secs(60);
        let expendable = |now| expendable(&vcls, at(now), idle_timeout);
        assert_eq!(expendable(65), Vec::<&str>::new());
        assert_eq!(expendable(66), [&names[0]], "it was replaced at 1 s");
        assert_eq!(expendable(71), [&names[0], &names[5]]);
        assert_eq!(expendable(1000), [&names[0], &names[5], &names[6]], "what nothing has replaced stays");
    }

    #[test]
    fn of_too_many_the_oldest_go_early() {
        let names: Vec<_> = (0..MOST as u64 + 4).map(own).collect();
        let vcls: Vec<_> = names.iter().map(|name| vcl(name, "{}")).collect();
        assert_eq!(expendable(&vcls, 0, Duration::from_secs(60)), names[..3]);
    }

    #[test]
    fn what_an_answer_shows_is_compared_byte_by_byte() {
        let main = "include;\n// VCL.SHOW 9 9 /x.vcl\n";
        let ours = "backend a none;\n";
        let shown =
            format!("// VCL.SHOW 0 {} /m ain.vcl\n{main}\n// VCL.SHOW 1 {} /x.vcl\n{ours}\n", main.len(), ours.len());
        let whole = |text: &str| Answer { status: OK, body: text.as_bytes().to_vec() };
        let cut = |len: usize| Answer {
            status: TRUNCATED,
            body: format!("{}\n[response was truncated]\n", &shown[..len]).into_bytes(),
        };
        let digest = Digest::of(b"");
        let missing = |answer: &Answer, content: &str, path: &'static str| {
            let outputs = vec![(Path::new(path), content)];
            missing(answer, &Wanted { outputs, digest: &digest, swapped_at: 0 }).is_some()
        };
        assert_eq!(
            sources(shown.as_bytes()).iter().map(|source| source.name).collect::<Vec<_>>(),
            [&b"/m ain.vcl"[..], b"/x.vcl"]
        );
        assert!(!missing(&whole(&shown), ours, "/x.vcl"));
        assert!(!missing(&whole(&shown), ours, "/a/link/to/x.vcl"), "Varnish may know it by another path");
        assert!(missing(&whole(&shown), "backend b none;\n", "/x.vcl"), "another content of the same length");
        assert!(missing(&whole(&shown), "backend", "/x.vcl"));
        assert!(missing(&whole(""), ours, "/x.vcl"));
        assert!(!missing(&whole(""), ours, "/x.json"), "no VCL");
        for len in 0..shown.len() - 2 {
            assert!(!missing(&cut(len), ours, "/x.vcl"), "as far as can be seen: {len}");
        }
        assert!(missing(&cut(shown.len() - 2), "other..........\n", "/x.vcl"), "seen not to be it");
    }

    #[test]
    fn a_word_is_quoted_as_the_protocol_wants_it() {
        assert_eq!(quoted("/etc/varnish/default.vcl"), "/etc/varnish/default.vcl");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a b\"\\\n"), r#""a b\"\\\n""#);
    }
}
