//! The keys of one frontend, as they are written in the configuration and in a preset.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::escape::Escape;
use super::runtime::Protocol;
use crate::model::{CommandLine, Name};
use crate::units::{FileMode, TimeSpan};

/// The keys of `[frontends.NAME]` and of a `preset.toml`, beside `type`.
///
/// The keys of the preset that `type` names lie under those of the section: a key that the section has wins, and of
/// `vars` each variable that it has.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// A note on what the frontend is for. elasticd makes no use of it.
    pub description: Option<String>,
    /// The services that the templates get, in this order. Left out: all services, those that tags create included.
    pub services: Option<Vec<Name>>,
    /// The path of the file that is written, if there is one alone; absolute. `{service}` in it stands for an output for
    /// each service. Several outputs are written as `[[frontends.NAME.outputs]]`.
    pub output: Option<PathBuf>,
    /// The template of the only output: the path of a file, relative to the configuration's directory or absolute, or the
    /// name of a built-in template such as `nginx/upstreams.conf`.
    pub template: Option<String>,
    /// The mode of the only output. Left out: that of the file that is replaced, or else `"0644"`. What is configured is
    /// put right when somebody changes it.
    pub mode: Option<FileMode>,
    /// The owner of the only output, by name or number. Left out: that of the file that is replaced.
    pub owner: Option<String>,
    /// The group of the only output, by name or number. Left out: that of the file that is replaced.
    pub group: Option<String>,
    /// The outputs, where there are several.
    #[serde(default)]
    pub outputs: Vec<RawOutput>,
    /// Whether files are removed that elasticd wrote for this frontend and that are no outputs of it any more: an output was
    /// moved, or its service is gone. They are removed together with the next change, checked and proven like that, and
    /// never if they were edited since. Left out: the key `prune` above all sections.
    pub prune: Option<bool>,
    /// The syntax in which values are escaped in templates. A frontend of type `custom` has to name it.
    pub escape: Option<Escape>,
    /// The frontend's own main configuration: what `{config}` stands for in commands, and what some runtime APIs load.
    pub config: Option<PathBuf>,
    /// What is spoken at `api`.
    pub runtime: Option<Protocol>,
    /// Where the frontend's runtime API listens: an address with a port, or the path of a Unix socket. Empty: the API is
    /// not used.
    pub api: Option<String>,
    /// The file that holds the secret of the runtime API, where it wants one.
    pub secret_file: Option<PathBuf>,
    /// How long one request to the runtime API may take.
    // Varnish compiles for up to 8 s (1,000 backends with gcc, measured) before it answers.
    #[serde(default = "default::api_timeout")]
    pub api_timeout: TimeSpan,
    /// The command that judges a candidate: program and arguments. Exit status 0 is a pass. `{candidate}` stands for the
    /// first output, staged; without it the command is run right after the swap, and checks what is in place. An empty
    /// list: no check.
    pub check: Option<CommandLine>,
    /// How long the check may take.
    #[serde(default = "default::command_timeout")]
    pub check_timeout: TimeSpan,
    /// Whether a check without `{candidate}` is run, where elasticd may (CAP_SYS_ADMIN), in a mount namespace of its own,
    /// where it alone sees the candidate in place. Elsewhere, and with `false`, it follows the swap, which is undone if it
    /// fails. It must be `false` for a check that asks a daemon, such as `docker exec`: a preset's `true` holds only as long
    /// as `check` names the preset's program.
    #[serde(default)]
    pub isolate_check: bool,
    /// The form of the lines in which the check names the files that the frontend's configuration reads, such as
    /// `"# configuration file {output}:"` for `nginx -T`; `{output}` stands for a path. An output that is not among them is
    /// in effect nowhere: the frontend is not reloaded for it, and that is reported. A preset's holds only as long as `check`
    /// names the preset's program. A check that names no file in this form says nothing.
    pub check_files: Option<String>,
    /// How the frontend takes new outputs, if its runtime API does not take the change: `"none"`, `{ signal = "HUP" }`,
    /// `{ command = ["program", …], timeout = "30s" }` or `{ master = "/run/haproxy-master.sock" }`.
    pub reload: Option<RawReload>,
    /// The file that holds the PID of the process to be signalled; absolute. Empty: the process is found by `executable`
    /// alone.
    pub pid_file: Option<PathBuf>,
    /// The program that may be signalled, by name or path, such as `nginx` or `/usr/sbin/nginx`.
    pub executable: Option<String>,
    /// What shows that the frontend runs the new outputs. `"workers"`: the signalled process has new workers, and the old
    /// ones are gone or shutting down. `"generation"`: it has new ones. `"runtime"`: the runtime API shows it.
    /// `{ command = ["program", …] }`: the command succeeds; it is repeated until it does. `"none"`: a reload that did not
    /// fail is enough.
    pub proof: Option<RawProof>,
    /// How long the proof may take to appear.
    // Twice the slowest reload of nginx that field reports tell of (7 to 8 s, ingress-nginx#3314), and some.
    #[serde(default = "default::proof_timeout")]
    pub proof_timeout: TimeSpan,
    /// Variables of the templates. Each preset has its own; see `elasticd frontends NAME`.
    #[serde(default)]
    pub vars: BTreeMap<String, serde_json::Value>,
    /// Variables that hold for one service alone, as `[frontends.NAME.service.SERVICE]`; each replaces the one of `vars`.
    #[serde(default)]
    pub service: BTreeMap<Name, BTreeMap<String, serde_json::Value>>,
    /// The command that prints the version of the frontend's program; the first numbers with dots between them count.
    /// Templates read it as `frontend.version`. If the process that runs is known, its own program is asked rather than the
    /// one that is installed. An empty list: no version is known.
    pub version: Option<CommandLine>,
    /// Changes are gathered until none has come for so long.
    #[serde(default = "default::settle")]
    pub settle: TimeSpan,
    /// How long a change waits at most while others are gathered. Left out: `"1s"`, or `settle` if that is longer.
    pub settle_max: Option<TimeSpan>,
    /// The shortest time between two reloads. None is dropped.
    #[serde(default = "default::min_reload_gap")]
    pub min_reload_gap: TimeSpan,
    /// How often the frontend and its files are compared with what is wanted although nothing has changed.
    #[serde(default = "default::audit_interval")]
    pub audit_interval: TimeSpan,
    /// The pause after a first failed attempt, and between two looks at whether a frontend that does not run has started.
    #[serde(default = "default::retry_min")]
    pub retry_min: TimeSpan,
    /// The longest pause after a failed attempt: each further failure doubles the pause up to this. Left out: `"1m"`, or
    /// `retry_min` if that is longer.
    pub retry_max: Option<TimeSpan>,
    /// How long a frontend that ended when it was asked to reload may take to be restarted by its supervisor, before the
    /// change is rolled back.
    #[serde(default = "default::restart_grace")]
    pub restart_grace: TimeSpan,
}

/// What holds where neither the configuration nor a preset says anything.
pub(super) mod default {
    use crate::units::TimeSpan;

    pub const SETTLE_MAX: TimeSpan = TimeSpan::from_secs(1);
    pub const RETRY_MAX: TimeSpan = TimeSpan::from_secs(60);

    pub const fn api_timeout() -> TimeSpan {
        TimeSpan::from_secs(60)
    }

    pub const fn command_timeout() -> TimeSpan {
        TimeSpan::from_secs(30)
    }

    pub const fn proof_timeout() -> TimeSpan {
        TimeSpan::from_secs(20)
    }

    pub const fn settle() -> TimeSpan {
        TimeSpan::from_millis(100)
    }

    pub const fn min_reload_gap() -> TimeSpan {
        TimeSpan::from_secs(1)
    }

    pub const fn audit_interval() -> TimeSpan {
        TimeSpan::from_secs(10)
    }

    pub const fn retry_min() -> TimeSpan {
        TimeSpan::from_secs(1)
    }

    pub const fn restart_grace() -> TimeSpan {
        TimeSpan::from_secs(5)
    }
}

/// One of several outputs, which are swapped together.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[schemars(rename = "Output")]
#[serde(deny_unknown_fields)]
pub struct RawOutput {
    /// The path of the file that is written; absolute. `{service}` in it stands for an output for each service, whose
    /// template sees that service alone. The file of a service that is gone stays, unless `prune` is set.
    pub path: Option<PathBuf>,
    /// The path of the template, relative to the configuration's directory or absolute, or the name of a built-in one.
    pub template: Option<String>,
    /// The file's mode. Left out: that of the file that is replaced, or else `"0644"`.
    pub mode: Option<FileMode>,
    /// The file's owner, by name or number. Left out: that of the file that is replaced.
    pub owner: Option<String>,
    /// The file's group, by name or number. Left out: that of the file that is replaced.
    pub group: Option<String>,
}

/// How a frontend takes new outputs.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[schemars(rename = "Reload")]
#[serde(
    untagged,
    expecting = "expected \"none\", { signal = \"HUP\" }, { command = [\"program\", …], timeout = \"30s\" } or \
                 { master = \"/run/haproxy-master.sock\" }"
)]
pub enum RawReload {
    /// By itself, or not at all.
    Nothing(Nothing),
    /// By a signal.
    Signal(RawSignal),
    /// By a command.
    Command(RawCommand),
    /// By HAProxy's master process.
    Master(RawMaster),
}

/// What shows that a frontend runs the new outputs.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[schemars(rename = "Proof")]
#[serde(
    untagged,
    expecting = "expected \"none\", \"workers\", \"generation\", \"runtime\" or { command = [\"program\", …] }"
)]
pub enum RawProof {
    /// One of the proofs that elasticd knows.
    Word(ProofWord),
    /// A command that exits with 0 once the frontend runs them; it is repeated until it does.
    Command(RawCommand),
}

/// Nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Nothing {
    /// Nothing is done.
    None,
}

/// A proof that one word names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProofWord {
    /// Nothing beyond a reload that did not fail.
    None,
    /// The signalled process has new children, and the old ones are gone or shutting down.
    Workers,
    /// The signalled process has new children, and has written its pid file anew.
    Generation,
    /// The runtime API shows it.
    Runtime,
}

/// A reload by signal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "Signal")]
#[serde(deny_unknown_fields)]
pub struct RawSignal {
    /// The signal: HUP, USR1, USR2, WINCH, INT, TERM, QUIT or CONT, with `SIG` before it or without.
    pub signal: String,
}

/// A reload by HAProxy's master process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "Master")]
#[serde(deny_unknown_fields)]
pub struct RawMaster {
    /// The socket of the master process (`haproxy -S`).
    pub master: String,
    /// How long it may take.
    #[serde(default = "default::command_timeout")]
    pub timeout: TimeSpan,
}

/// A reload or a proof by command.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "Command")]
#[serde(deny_unknown_fields)]
pub struct RawCommand {
    /// Program and arguments. There is no shell.
    pub command: CommandLine,
    /// How long it may take. Left out: `"30s"` for a reload, `proof_timeout` for a proof.
    pub timeout: Option<TimeSpan>,
}

impl Raw {
    /// How a preset's frontend takes a change, for people.
    pub fn takes_a_change_by(&self) -> String {
        let api = self.runtime.filter(|runtime| runtime.takes_changes()).map(|_| "its API".to_owned());
        let reload = match &self.reload {
            None | Some(RawReload::Nothing(_)) => None,
            Some(RawReload::Signal(raw)) => Some(format!("SIG{}", raw.signal)),
            Some(RawReload::Command(raw)) => Some(raw.command.join(" ")),
            Some(RawReload::Master(_)) => Some("its master".to_owned()),
        };
        let ways: Vec<_> = [api, reload].into_iter().flatten().collect();
        if ways.is_empty() { "itself".to_owned() } else { ways.join(", else ") }
    }

    /// What shows that a preset's frontend took a change, for people.
    pub fn proof_in_words(&self) -> String {
        match &self.proof {
            None | Some(RawProof::Word(ProofWord::None)) => "none".to_owned(),
            Some(RawProof::Word(ProofWord::Workers | ProofWord::Generation)) => "new workers".to_owned(),
            Some(RawProof::Word(ProofWord::Runtime)) => "its API".to_owned(),
            Some(RawProof::Command(raw)) => raw.command.join(" "),
        }
    }
}
