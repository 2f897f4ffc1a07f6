//! From the keys of a frontend as they are written to a valid configuration, or all faults at once.

use std::path::Path;
use std::sync::Arc;

use super::config::{Check, Config, FileLine, Guards, Output, Pacing, Proof, Reload, SERVICE};
use super::escape::Escape;
use super::parse::{gid, signal, uid};
use super::raw::{ProofWord, Raw, RawCommand, RawOutput, RawProof, RawReload, default};
use super::runtime::{Access, Protocol, Runtime};
use super::template::Source;
use rustix::process::Signal;

use crate::model::{FieldFault, Name};
use crate::sys::ownership::Ownership;
use crate::sys::process::{Executable, Find};
use crate::units::TimeSpan;

/// In a command's arguments: the path of the frontend's own main configuration, the key `config`.
const MAIN_CONFIG: &str = "{config}";

/// In the form of a line that names a file: its path.
const OUTPUT: &str = "{output}";

impl Raw {
    /// The valid configuration. `base` is the directory in which relative paths of templates start; `all_services` are the
    /// services of a frontend without `services`.
    ///
    /// # Errors
    ///
    /// Every fault.
    pub fn resolve(
        self,
        name: Name,
        type_name: &str,
        all_services: &[Name],
        base: &Path,
    ) -> Result<Config, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let services = self.services.clone().unwrap_or_else(|| all_services.to_vec());
        let (outputs, per_service) = self.resolve_outputs(&services, base, &mut faults);
        // There is no safe guess: what is harmless text in one syntax is a directive in another.
        let escape = self.escape.unwrap_or_else(|| {
            let message = "missing: say in which syntax the outputs are read: one of nginx, haproxy, vcl, apache, \
                           caddyfile, json, shell, hosts or none";
            faults.push(FieldFault::new("escape", message.to_owned()));
            Escape::None
        });
        let check = self.resolve_check(&mut faults);
        let runtime = self.resolve_runtime(&mut faults);
        let reload = self.resolve_reload(&mut faults);
        let proof = self.resolve_proof(&reload, runtime.is_some(), &mut faults);
        let pacing = self.resolve_pacing(&mut faults);
        // An empty list is how a preset's command is switched off.
        let version = self.version.as_deref().filter(|argv| !argv.is_empty()).map(|argv| argv.to_vec());
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Config {
            name,
            type_name: type_name.to_owned(),
            services,
            follows_all_services: self.services.is_none(),
            outputs,
            per_service,
            prune: self.prune.unwrap_or_default(),
            escape,
            check,
            runtime,
            reload,
            proof,
            vars: self.vars,
            service_vars: self.service,
            version,
            // These are known once all of the configuration is.
            depends_on_own_zone: false,
            own_zone: None,
            guards: Guards::default(),
            pacing,
        })
    }

    /// `output` and its companions are the short way to write, or to override, the only output.
    /// Returns them with those that stand for an output for each service, as they are written.
    fn resolve_outputs(
        &self,
        services: &[Name],
        base: &Path,
        faults: &mut Vec<FieldFault>,
    ) -> (Vec<Output>, Vec<Output>) {
        let mut raws = self.outputs.clone();
        let short = RawOutput {
            path: self.output.clone(),
            template: self.template.clone(),
            mode: self.mode,
            owner: self.owner.clone(),
            group: self.group.clone(),
        };
        if short != RawOutput::default() {
            match raws.as_mut_slice() {
                [] => raws.push(short),
                [only] => {
                    *only = RawOutput {
                        path: short.path.or(only.path.take()),
                        template: short.template.or(only.template.take()),
                        mode: short.mode.or(only.mode),
                        owner: short.owner.or(only.owner.take()),
                        group: short.group.or(only.group.take()),
                    };
                }
                several => faults.push(FieldFault::new(
                    "output",
                    format!("this frontend has {} outputs: write them as `outputs`", several.len()),
                )),
            }
        }
        if raws.is_empty() {
            faults.push(FieldFault::new("outputs", "missing: nothing would be written; set `output` and `template`"));
        }
        let resolve = |(index, raw): (usize, RawOutput)| resolve_output(raw, index, base, faults);
        let outputs: Vec<_> = raws.into_iter().enumerate().filter_map(resolve).collect();
        let each: Vec<_> = outputs.iter().flat_map(|output| output.for_each(services)).collect();
        // Tags may create some, unless the services are listed.
        if each.is_empty() && !outputs.is_empty() && self.services.is_some() {
            faults.push(FieldFault::new(
                "services",
                format!("there are none to stand for {SERVICE} in an output's path"),
            ));
        }
        (each, outputs.into_iter().filter(Output::is_per_service).collect())
    }

    fn resolve_check(&self, faults: &mut Vec<FieldFault>) -> Option<Check> {
        // An empty list is how a preset's check is switched off.
        let argv = self.check.as_deref().filter(|argv| !argv.is_empty())?;
        let argv = self.with_main_config("check", argv, faults);
        let limit = positive("check_timeout", self.check_timeout, faults).0;
        let files = self.check_files.as_deref().filter(|form| !form.is_empty()).and_then(|form| {
            let parts = form.split_once(OUTPUT).filter(|(before, _)| !before.trim().is_empty());
            if parts.is_none() {
                let message =
                    format!("{form:?} is no form of a line: write {OUTPUT} for the path, and what stands before it");
                faults.push(FieldFault::new("check_files", message));
            }
            parts.map(|(before, after)| FileLine { before: before.to_owned(), after: after.to_owned() })
        });
        Some(Check { argv, limit, isolate: self.isolate_check, files })
    }

    /// Puts the path of the frontend's main configuration where a command's arguments ask for it.
    fn with_main_config(&self, key: &str, argv: &[String], faults: &mut Vec<FieldFault>) -> Vec<String> {
        let Some(path) = &self.config else {
            if argv.iter().any(|argument| argument.contains(MAIN_CONFIG)) {
                let message = format!("missing: {key} mentions {MAIN_CONFIG}, the frontend's own main configuration");
                faults.push(FieldFault::new("config", message));
            }
            return argv.to_vec();
        };
        argv.iter().map(|argument| argument.replace(MAIN_CONFIG, &path.to_string_lossy())).collect()
    }

    fn resolve_runtime(&self, faults: &mut Vec<FieldFault>) -> Option<Runtime> {
        let timeout = positive("api_timeout", self.api_timeout, faults).0;
        // An empty address is how a preset's runtime API is switched off.
        let address = self.api.as_deref().filter(|address| !address.is_empty())?;
        let Some(protocol) = self.runtime else {
            faults.push(FieldFault::new("runtime", "missing: say what is spoken at `api`, such as \"haproxy\""));
            return None;
        };
        let endpoint = address.parse().map_err(|message| faults.push(FieldFault::new("api", message))).ok()?;
        let (secret_file, config) = (self.secret_file.clone(), self.config.clone());
        Some(Runtime { protocol, access: Access { endpoint, secret_file, config, timeout } })
    }

    fn resolve_reload(&self, faults: &mut Vec<FieldFault>) -> Reload {
        match &self.reload {
            None | Some(RawReload::Nothing(_)) => Reload::None,
            Some(RawReload::Command(raw)) => {
                let timeout = raw.timeout.unwrap_or(default::command_timeout());
                let limit = positive("reload.timeout", timeout, faults).0;
                let find =
                    self.executable.clone().map(Executable::new).and_then(|executable| self.find(executable, faults));
                Reload::Command { argv: self.command("reload.command", raw, faults), limit, find }
            }
            Some(RawReload::Master(raw)) => {
                let limit = positive("reload.timeout", raw.timeout, faults).0;
                match raw.master.parse() {
                    Ok(endpoint) => Reload::Master { endpoint, limit },
                    Err(message) => {
                        faults.push(FieldFault::new("reload.master", message));
                        Reload::None
                    }
                }
            }
            Some(RawReload::Signal(raw)) => {
                let Some(executable) = self.executable.clone().map(Executable::new) else {
                    let expected =
                        "missing: name the program that may be signalled, such as \"nginx\" or \"/usr/sbin/nginx\"";
                    faults.push(FieldFault::new("executable", expected.to_owned()));
                    return Reload::None;
                };
                let Some(find) = self.find(executable, faults) else { return Reload::None };
                // Apache sets its handlers for faults up anew each time it has read its configuration.
                let caught_when_ready = (self.runtime == Some(Protocol::Apache)).then_some(Signal::SEGV);
                match signal(&raw.signal) {
                    Ok(signal) => Reload::Signal { signal, find, caught_when_ready },
                    Err(message) => {
                        faults.push(FieldFault::new("reload.signal", message));
                        Reload::None
                    }
                }
            }
        }
    }

    /// How the frontend's process is found.
    fn find(&self, executable: Executable, faults: &mut Vec<FieldFault>) -> Option<Find> {
        match self.pid_file.clone() {
            Some(path) if path.is_absolute() => Some(Find::PidFile { path, executable }),
            // An empty path is how a preset's pid file is switched off.
            Some(path) if !path.as_os_str().is_empty() => {
                faults.push(FieldFault::new("pid_file", format!("{path:?} is not an absolute path")));
                None
            }
            _ => Some(Find::Match { executable }),
        }
    }

    fn resolve_proof(&self, reload: &Reload, has_runtime: bool, faults: &mut Vec<FieldFault>) -> Proof {
        let limit = positive("proof_timeout", self.proof_timeout, faults).0;
        // A frontend whose preset's reload was replaced by a command has no process of which we know the children.
        let is_signalled = matches!(reload, Reload::Signal { .. });
        match &self.proof {
            Some(RawProof::Command(raw)) => Proof::Command {
                argv: self.command("proof.command", raw, faults),
                limit: raw.timeout.map_or(limit, |timeout| timeout.0),
            },
            Some(RawProof::Word(ProofWord::Runtime)) if has_runtime => Proof::Runtime { limit },
            Some(RawProof::Word(ProofWord::Workers)) if is_signalled => Proof::Workers { limit },
            Some(RawProof::Word(ProofWord::Generation | ProofWord::Runtime)) if is_signalled => {
                Proof::Generation { limit }
            }
            None | Some(RawProof::Word(_)) => Proof::None,
        }
    }

    fn command(&self, key: &str, raw: &RawCommand, faults: &mut Vec<FieldFault>) -> Vec<String> {
        if raw.command.first().is_none_or(String::is_empty) {
            faults.push(FieldFault::new(key, "is empty: write the program and its arguments as a list"));
        }
        self.with_main_config(key, &raw.command, faults)
    }

    fn resolve_pacing(&self, faults: &mut Vec<FieldFault>) -> Pacing {
        let (settle, retry_min) = (self.settle, positive("retry_min", self.retry_min, faults));
        let settle_max = self.settle_max.unwrap_or(default::SETTLE_MAX.max(settle));
        let retry_max = self.retry_max.unwrap_or(default::RETRY_MAX.max(retry_min));
        for (key, longest, shortest_key, shortest) in
            [("settle_max", settle_max, "settle", settle), ("retry_max", retry_max, "retry_min", retry_min)]
        {
            if longest < shortest {
                faults.push(FieldFault::new(key, format!("{longest} is shorter than {shortest_key}, {shortest}")));
            }
        }
        Pacing {
            settle: settle.0,
            settle_max: settle_max.0,
            min_reload_gap: self.min_reload_gap.0,
            audit_interval: positive("audit_interval", self.audit_interval, faults).0,
            retry_min: retry_min.0,
            retry_max: retry_max.0,
            restart_grace: self.restart_grace.0,
        }
    }
}

fn resolve_output(raw: RawOutput, index: usize, base: &Path, faults: &mut Vec<FieldFault>) -> Option<Output> {
    let before = faults.len();
    let mut fault =
        |field: &str, message: String| faults.push(FieldFault::new(format!("outputs.{index}.{field}"), message));
    let path = raw.path.unwrap_or_default();
    if !path.is_absolute() || path.file_name().is_none() {
        fault("path", format!("{path:?} is not an absolute path of a file"));
    }
    let template = match raw.template.as_deref() {
        None => Err("missing: name a template file, or a built-in one such as \"nginx/upstreams.conf\"".to_owned()),
        Some(name) => Source::read(name, base),
    };
    let template = template.map_err(|message| fault("template", message));
    let uid = raw.owner.as_deref().map(uid).transpose().map_err(|message| fault("owner", message));
    let gid = raw.group.as_deref().map(gid).transpose().map_err(|message| fault("group", message));
    let (Ok(template), Ok(uid), Ok(gid)) = (template, uid, gid) else { return None };
    let output = Output {
        index,
        path,
        service: None,
        template: Arc::new(template),
        ownership: Ownership { mode: raw.mode.map(|mode| mode.0), uid, gid },
    };
    (faults.len() == before).then_some(output)
}

fn positive(key: &str, duration: TimeSpan, faults: &mut Vec<FieldFault>) -> TimeSpan {
    if duration.is_zero() {
        faults.push(FieldFault::new(key, "must be longer than 0s"));
    }
    duration
}
