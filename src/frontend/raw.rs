//! One frontend as it is written: every key optional, and laid over its preset.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact;
use serde::Deserialize;

use super::escape::Escape;
use super::runtime::Protocol;
use crate::model::Name;

/// The keys of `[frontends.NAME]` and of a `preset.toml`, beside `type`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are those of the configuration reference in the README")]
pub struct Raw {
    /// What the preset is for; only presets have it.
    pub description: Option<String>,
    pub services: Option<Vec<Name>>,
    pub output: Option<PathBuf>,
    pub template: Option<String>,
    pub mode: Option<String>,
    pub owner: Option<String>,
    pub group: Option<String>,
    pub outputs: Option<Vec<RawOutput>>,
    pub escape: Option<Escape>,
    pub config: Option<PathBuf>,
    pub runtime: Option<Protocol>,
    pub api: Option<String>,
    pub secret_file: Option<PathBuf>,
    #[serde(default, with = "compact::optional")]
    pub api_timeout: Option<Duration>,
    pub check: Option<Vec<String>>,
    #[serde(default, with = "compact::optional")]
    pub check_timeout: Option<Duration>,
    pub isolate_check: Option<bool>,
    pub reload: Option<RawReload>,
    pub pid_file: Option<PathBuf>,
    pub executable: Option<String>,
    pub proof: Option<RawProof>,
    #[serde(default, with = "compact::optional")]
    pub proof_timeout: Option<Duration>,
    #[serde(default)]
    pub vars: BTreeMap<String, serde_json::Value>,
    #[serde(default, with = "compact::optional")]
    pub settle: Option<Duration>,
    #[serde(default, with = "compact::optional")]
    pub settle_max: Option<Duration>,
    #[serde(default, with = "compact::optional")]
    pub min_reload_gap: Option<Duration>,
    #[serde(default, with = "compact::optional")]
    pub audit_interval: Option<Duration>,
    #[serde(default, with = "compact::optional")]
    pub retry_min: Option<Duration>,
    #[serde(default, with = "compact::optional")]
    pub retry_max: Option<Duration>,
    #[serde(default, with = "compact::optional")]
    pub restart_grace: Option<Duration>,
}

/// One of `outputs`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawOutput {
    pub path: Option<PathBuf>,
    pub template: Option<String>,
    pub mode: Option<String>,
    pub owner: Option<String>,
    pub group: Option<String>,
}

/// `reload`: `"none"`, `{ signal = "HUP" }`, `{ command = [...] }` or `{ master = "/run/haproxy-master.sock" }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"none\", { signal = \"HUP\" }, { command = [\"program\", …], timeout = \"30s\" } or \
                 { master = \"/run/haproxy-master.sock\" }"
)]
pub enum RawReload {
    Nothing(Nothing),
    Signal(RawSignal),
    Command(RawCommand),
    Master(RawMaster),
}

/// `proof`: `"none"`, `"workers"`, `"generation"`, `"runtime"` or `{ command = [...] }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"none\", \"workers\", \"generation\", \"runtime\" or { command = [\"program\", …] }"
)]
pub enum RawProof {
    Word(ProofWord),
    Command(RawCommand),
}

/// The word `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nothing {
    None,
}

/// A proof that one word names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProofWord {
    None,
    Workers,
    Generation,
    Runtime,
}

/// A reload by signal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSignal {
    pub signal: String,
}

/// A reload by HAProxy's master process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMaster {
    pub master: String,
    #[serde(default, with = "compact::optional")]
    pub timeout: Option<Duration>,
}

/// A reload or a proof by command.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCommand {
    pub command: Vec<String>,
    #[serde(default, with = "compact::optional")]
    pub timeout: Option<Duration>,
}

impl Raw {
    /// Lays these keys over a preset's: what is written here wins, and `vars` are merged key by key.
    pub fn over(self, preset: Self) -> Self {
        let mut vars = preset.vars;
        vars.extend(self.vars);
        // Another program than the preset's may well ask a daemon, which sees nothing of a private namespace.
        let program = |check: &Option<Vec<String>>| check.as_ref().and_then(|argv| argv.first().cloned());
        let same_program = self.check.is_none() || program(&self.check) == program(&preset.check);
        let isolate_check = self.isolate_check.or(preset.isolate_check.filter(|_| same_program));
        Self {
            description: preset.description,
            services: self.services.or(preset.services),
            output: self.output.or(preset.output),
            template: self.template.or(preset.template),
            mode: self.mode.or(preset.mode),
            owner: self.owner.or(preset.owner),
            group: self.group.or(preset.group),
            outputs: self.outputs.or(preset.outputs),
            escape: self.escape.or(preset.escape),
            config: self.config.or(preset.config),
            runtime: self.runtime.or(preset.runtime),
            api: self.api.or(preset.api),
            secret_file: self.secret_file.or(preset.secret_file),
            api_timeout: self.api_timeout.or(preset.api_timeout),
            isolate_check,
            check: self.check.or(preset.check),
            check_timeout: self.check_timeout.or(preset.check_timeout),
            reload: self.reload.or(preset.reload),
            pid_file: self.pid_file.or(preset.pid_file),
            executable: self.executable.or(preset.executable),
            proof: self.proof.or(preset.proof),
            proof_timeout: self.proof_timeout.or(preset.proof_timeout),
            vars,
            settle: self.settle.or(preset.settle),
            settle_max: self.settle_max.or(preset.settle_max),
            min_reload_gap: self.min_reload_gap.or(preset.min_reload_gap),
            audit_interval: self.audit_interval.or(preset.audit_interval),
            retry_min: self.retry_min.or(preset.retry_min),
            retry_max: self.retry_max.or(preset.retry_max),
            restart_grace: self.restart_grace.or(preset.restart_grace),
        }
    }

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
