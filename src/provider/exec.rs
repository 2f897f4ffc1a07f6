//! `exec`: instances as a program of the operator's prints them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::instance_spec::Text;
use super::{BuildContext, Configuration, Context, ErrorKind, Provider, format};
use crate::model::{CommandLine, FieldFault, Instance};
use crate::sys::child::{self, Program};
use crate::sys::unconfined::Unconfined;
use crate::units::ByteSize;
use crate::units::HumanDuration;

/// How many lines of what a program said last an error repeats.
const LAST_LINES: usize = 3;

/// `ENOEXEC`: neither a binary nor a script with a first line that names its interpreter.
const NOT_EXECUTABLE: i32 = 8;

/// What is run, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// An absolute path, and its arguments. There is no shell.
    pub command: Vec<String>,
    /// What is added to its environment.
    pub env: BTreeMap<String, String>,
    /// What of elasticd's own environment it sees, beside PATH, HOME, LANG and TZ.
    pub pass_env: Vec<String>,
    /// How much it may print, in bytes.
    pub max_bytes: usize,
    /// The provider's `timeout`, of which it uses all but a twentieth.
    pub timeout: Duration,
}

impl fmt::Debug for Config {
    /// Arguments and environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("program", &self.command.first()).finish_non_exhaustive()
    }
}

/// Instances that a program prints, as JSON or YAML.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// The program, by its absolute path, and its arguments. There is no shell. Arguments are in no message.
    pub command: CommandLine,
    /// Variables that are added to its environment.
    #[serde(default)]
    pub env: BTreeMap<String, Text>,
    /// Names of elasticd's own variables that it gets, beside PATH, HOME, LANG and TZ.
    #[serde(default)]
    pub pass_env: Vec<String>,
    /// How much it may print, up to 1GiB. A program that prints more is ended.
    #[serde(default = "format::default_max_bytes")]
    pub max_bytes: ByteSize,
}

impl Raw {
    /// The valid configuration. The program itself may appear later.
    ///
    /// # Errors
    ///
    /// Every fault.
    pub fn resolve(self, timeout: Duration) -> Result<Config, Vec<FieldFault>> {
        let mut faults = Vec::new();
        match self.command.first() {
            None => faults
                .push(FieldFault::new("command", "is empty: write [\"/path/of/the/program\", \"its\", \"arguments\"]")),
            Some(program) if !Path::new(program).is_absolute() => faults.push(FieldFault::new(
                "command",
                format!("{program:?} is not an absolute path: start it with `/`, as no shell looks for it"),
            )),
            Some(_) => {}
        }
        if self.command.iter().any(|argument| argument.contains('\0')) {
            faults.push(FieldFault::new("command", "no argument may hold a NUL"));
        }
        let env: BTreeMap<_, String> = self.env.into_iter().map(|(name, value)| (name, value.into())).collect();
        for (key, name) in
            env.keys().map(|name| ("env", name)).chain(self.pass_env.iter().map(|name| ("pass_env", name)))
        {
            if name.is_empty() || name.contains(['=', '\0']) {
                faults.push(FieldFault::new(key, format!("{name:?} is not the name of a variable")));
            }
        }
        for (name, _) in env.iter().filter(|(_, value)| value.contains('\0')) {
            faults.push(FieldFault::new("env", format!("the value of {name} holds a NUL")));
        }
        let max_bytes = format::max_bytes(self.max_bytes).map_err(|fault| faults.push(fault)).unwrap_or_default();
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Config { command: self.command.into(), env, pass_env: self.pass_env, max_bytes, timeout })
    }
}

impl Configuration for Config {
    const TYPE: &'static str = "exec";

    type Raw = Raw;

    fn resolve(raw: Raw, context: &Context<'_>) -> Result<Self, Vec<FieldFault>> {
        raw.resolve(context.timeout)
    }

    fn build(&self, context: &BuildContext<'_>) -> Box<dyn Provider> {
        Box::new(Exec::new(self, context.unconfined))
    }
}

/// Why a program yielded no set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be run, or failed.
    #[error("`{program}` {source}{}", rest(source, *timeout))]
    Program {
        /// Its path. Arguments may hold secrets.
        program: String,
        /// The provider's `timeout`.
        timeout: Duration,
        /// What happened.
        source: child::Error,
    },
    /// What it printed is no set.
    #[error(transparent)]
    Content(#[from] format::Error),
}

impl From<Error> for super::Error {
    fn from(error: Error) -> Self {
        use child::Error::{Failed, HeldOpen, Read, Start, TimedOut, TooMuch};
        let kind = match &error {
            Error::Program { source: Start(source), .. } => source.into(),
            Error::Program { source: TimedOut { .. }, .. } => ErrorKind::Timeout,
            Error::Program { source: TooMuch { .. }, .. } | Error::Content(_) => ErrorKind::Invalid,
            Error::Program { source: Failed { .. } | HeldOpen | Read(_), .. } => ErrorKind::Failed,
        };
        Self::new(kind, error)
    }
}

/// The program's last words, and what to do.
fn rest(error: &child::Error, timeout: Duration) -> String {
    use child::Error::{Failed, HeldOpen, Read, Start, TimedOut, TooMuch};
    let mut rest = match error {
        Failed { said, .. } | TimedOut { said, .. } => last_words(said),
        Start(_) | Read(_) | TooMuch { .. } | HeldOpen => String::new(),
    };
    let written = match error {
        Start(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write!(rest, "; correct the provider's `command`, or the interpreter in the program's first line")
        }
        Start(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            write!(rest, "; make it executable for elasticd's user (`chmod +x`), and its directories accessible")
        }
        Start(error) if error.raw_os_error() == Some(NOT_EXECUTABLE) => {
            write!(rest, "; a script's first line names its interpreter, such as `#!/bin/sh`")
        }
        Start(_) | Read(_) => write!(rest, "; see whether the system is out of processes, memory or file descriptors"),
        Failed { .. } => write!(rest, "; run it by hand as elasticd's user, with the provider's `env` and no more"),
        TimedOut { .. } => write!(
            rest,
            "; it was ended with all that it started: make it faster, or raise the provider's `timeout` ({})",
            HumanDuration(timeout)
        ),
        TooMuch { .. } => write!(rest, "; it was ended: make it print less, or raise the provider's `max_bytes`"),
        HeldOpen => write!(rest, "; let it wait for what it starts, or redirect the output of that"),
    };
    written.expect("a text takes what is written to it");
    rest
}

fn last_words(said: &str) -> String {
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last: Vec<_> =
        lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).map(|l| format::shortened(l)).collect();
    if last.is_empty() { " and said nothing".to_owned() } else { format!(", saying: {}", last.join(" | ")) }
}

/// Answers with what the program prints.
#[derive(Debug)]
pub struct Exec {
    name: String,
    program: Program,
    max_bytes: usize,
    timeout: Duration,
}

impl Exec {
    /// A provider that runs the program at each poll.
    pub fn new(config: &Config, unconfined: &Unconfined) -> Self {
        let env = config.env.clone().into_iter().collect();
        Self {
            name: config.command.first().cloned().unwrap_or_default(),
            program: Program::new(config.command.clone(), env, config.pass_env.clone(), unconfined),
            max_bytes: config.max_bytes,
            timeout: config.timeout,
        }
    }
}

impl Exec {
    /// Runs the program, and reads what it prints.
    ///
    /// # Errors
    ///
    /// [`Error`]: what [`Provider::discover`] fails with, as this module's own type.
    pub async fn discover(&mut self) -> Result<Vec<Instance>, Error> {
        let output = self.program.output(self.max_bytes, super::poll::inner_timeout(self.timeout)).await;
        let output = output.map_err(|source| self.failed(source))?;
        let origin = format!("the output of `{}`", self.name);
        // Parsing may take long enough to hold up everything else.
        match tokio::task::spawn_blocking(move || format::json(&origin, &output)).await {
            Ok(parsed) => Ok(parsed?),
            Err(error) => Err(self.failed(child::Error::Read(std::io::Error::other(error)))),
        }
    }
}

impl Provider for Exec {
    fn discover(&mut self) -> BoxFuture<'_, Result<Vec<Instance>, super::Error>> {
        Box::pin(async { Ok(Exec::discover(self).await?) })
    }
}

impl Exec {
    fn failed(&self, source: child::Error) -> Error {
        Error::Program { program: self.name.clone(), timeout: self.timeout, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Config {
        Config {
            command: ["/bin/sh", "-c", script, "secret"].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            pass_env: Vec::new(),
            max_bytes: 10_000,
            timeout: Duration::from_secs(30),
        }
    }

    async fn failure(config: &Config) -> String {
        let error = Exec::new(config, &Unconfined::default()).discover().await.expect_err("no set").to_string();
        assert!(error.contains(&config.command[0]) && !error.contains("secret"), "{error}");
        let shown = format!("{config:?} {:?}", Exec::new(config, &Unconfined::default()));
        assert!(shown.contains(&config.command[0]) && !shown.contains("secret"), "{shown}");
        error
    }

    #[tokio::test]
    async fn answers_with_what_is_printed_in_each_form() {
        for (printed, ids) in [
            ("[]", &[][..]),
            (r#"[{"id": "a", "address": "10.0.0.1"}, {"address": "10.0.0.2:80"}]"#, &["a", "10.0.0.2:80"]),
            (r#"{"instances": [{"id": "a"}]}"#, &["a"]),
            (r#"[{"targets": ["10.0.0.1:80"], "labels": {"__meta_x": "y"}}]"#, &["10.0.0.1:80"]),
        ] {
            let instances =
                Exec::new(&sh(&format!("echo '{printed}'")), &Unconfined::default()).discover().await.expect("a set");
            assert_eq!(instances.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ids, "{printed}");
        }
    }

    #[tokio::test]
    async fn each_failure_names_the_program_and_the_remedy() {
        for (script, expected) in [
            ("true", "is empty, which is not the same as an empty set: write `[]`"),
            ("echo '[{\"id\": \"a\"}'", "invalid JSON"),
            ("echo '[{\"id\": \"a\"}]'; echo warning", "invalid JSON: trailing characters at line 2"),
            ("printf '\\377'", "not UTF-8"),
            ("echo '[{\"address\": \"web-1\"}]'", "entry 0: the address \"web-1\""),
            ("echo '[{\"id\": \"a\"}, {\"id\": \"a\"}]'", "entry 1: the id \"a\" is that of entry 0"),
            ("echo []; echo no >&2; echo quota >&2; exit 4", "failed (exit status: 4), saying: no | quota; run it by"),
            ("exit 1", "failed (exit status: 1) and said nothing; run it by hand"),
            ("kill -9 $$", "failed (signal: 9 (SIGKILL)) and said nothing"),
            ("printf %10001s", "printed more than 10000 bytes; it was ended: make it print less, or raise"),
        ] {
            let error = failure(&sh(script)).await;
            assert!(error.contains(expected), "{script}: {error}");
        }
        let late = Config { timeout: Duration::from_millis(200), ..sh("echo so far >&2; while :; do :; done") };
        let error = failure(&late).await;
        assert!(error.contains("after 0 bytes of output, saying: so far; it was ended"), "{error}");
        assert!(error.contains("raise the provider's `timeout` (200ms)"), "{error}");
    }

    #[tokio::test]
    async fn what_cannot_be_started_says_why() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        let config = Config { command: vec![path.display().to_string()], ..sh("") };
        assert!(failure(&config).await.contains("correct the provider's `command`"));
        // Written by another process: what this one has open for writing, as in a child that it is just starting, cannot be
        // executed.
        let mut write = std::process::Command::new("sh");
        write.args(["-c", "echo 'echo []' > \"$0\""]).arg(&path);
        assert!(write.status().unwrap().success());
        assert!(failure(&config).await.contains("chmod +x"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(failure(&config).await.contains("#!/bin/sh"));
    }

    #[test]
    fn the_configuration_is_judged() {
        let raw = |json: &str| {
            serde_json::from_str::<Raw>(json)
                .unwrap()
                .resolve(Duration::from_secs(1))
                .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let faults = raw(
            r#"{"command": ["list", "\u0000"], "env": {"": 1, "A": "\u0000"}, "pass_env": ["A=B"], "max_bytes": 0}"#,
        );
        let faults = faults.unwrap_err();
        for (fault, expected) in faults.iter().zip([
            "command: \"list\" is not an absolute path",
            "command: no argument may hold a NUL",
            "env: \"\" is not the name of a variable",
            "pass_env: \"A=B\" is not the name of a variable",
            "env: the value of A holds a NUL",
            "max_bytes: 0B is not between 1B and 1GiB",
        ]) {
            assert!(fault.starts_with(expected), "{fault}");
        }
        assert_eq!(faults.len(), 6);
        assert!(raw(r#"{"command": []}"#).unwrap_err()[0].starts_with("command: is empty"));
        let config = raw(r#"{"command": ["/x"], "env": {"N": 7}}"#).unwrap();
        assert_eq!((config.max_bytes, config.env["N"].as_str()), (64 << 20, "7"));
    }
}
