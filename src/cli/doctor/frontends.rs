//! `elasticd doctor`: a frontend.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;

use super::{Findings, Level, is_member};
use crate::frontend::{Check, Checking, Config, Output, Proof, Reload, Unread};
use crate::model::Snapshot;
use crate::sys::process::Process;
use crate::sys::unconfined::Unconfined;
use crate::sys::{child, output_file};

/// Checks what an update of the frontend needs: its outputs, its check, its process or its runtime API.
pub async fn check(frontend: &Config, findings: &mut Findings) {
    let subject = format!("frontends.{}", frontend.name);
    outputs(&subject, frontend, findings);
    if let Some(check) = &frontend.check {
        if program(&format!("{subject}.check"), &check.argv, findings) {
            check_in_place(&format!("{subject}.check"), frontend, findings).await;
        }
        isolation(&format!("{subject}.isolate_check"), check, findings).await;
    }
    if let Some(runtime) = &frontend.runtime {
        let probed = runtime.probe().await;
        findings.add_result(format!("{subject}.api"), probed.map(|()| format!("{} answers", runtime.access.endpoint)));
        if let Some(file) = &runtime.access.secret_file {
            let opened = std::fs::File::open(file);
            let why = |error| format!("cannot read {}: {error}; make it readable for elasticd's user", file.display());
            findings.add_result(
                format!("{subject}.secret_file"),
                opened.map(|_| format!("{} can be read", file.display())).map_err(why),
            );
        }
    }
    reload(&format!("{subject}.reload"), &frontend.reload, findings).await;
    if let Proof::Command { argv, .. } = &frontend.proof {
        program(&format!("{subject}.proof"), argv, findings);
    }
}

/// Which backends the templates cannot render, if there are any.
pub async fn render(frontend: &Config, snapshot: &Snapshot, findings: &mut Findings) {
    /// The rest are counted.
    const SHOWN: usize = 3;
    let subject = format!("frontends.{}.outputs", frontend.name);
    let facts = super::super::render::facts(frontend).await;
    // That they compile was seen when the configuration was read.
    let Ok(templates) = frontend.templates() else { return };
    match frontend.render(&templates, snapshot, &facts) {
        Ok(rendering) => {
            for left_out in rendering.left_out.iter().take(SHOWN) {
                findings.add(Level::Warn, &subject, format!("left out, as it cannot be rendered: {left_out}"));
            }
            if let Some(more) = rendering.left_out.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                findings.add(
                    Level::Warn,
                    &subject,
                    format!("left out, as they cannot be rendered: {more} more backends"),
                );
            }
        }
        Err(error) => findings.add(Level::Fail, &subject, error),
    }
}

/// A line for each directory, as thousands of outputs may lie in one.
fn outputs(subject: &str, frontend: &Config, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for output in &frontend.outputs {
        let parent = output.path.parent().unwrap_or(Path::new("/"));
        if seen.insert(parent) {
            let examined = output_file::examine(&output.path);
            let good = format!("{} can be replaced in its directory", output.path.display());
            findings.add_result(format!("{subject}.outputs.{}", output.index), examined.map(|()| good));
        }
        if let Some(why) = owner_cannot_be_set(output) {
            findings.add(Level::Warn, format!("{subject}.outputs.{}", output.index), why);
        }
    }
}

/// Why the output's owner cannot be set, unless elasticd has CAP_CHOWN.
fn owner_cannot_be_set(output: &Output) -> Option<String> {
    let user = geteuid();
    let (uid, gid) = (output.ownership.uid, output.ownership.gid);
    let what = match (uid, gid) {
        _ if user.is_root() => return None,
        (Some(uid), _) if uid != user.as_raw() => format!("user {uid}"),
        (_, Some(gid)) if !is_member(gid) => format!("group {gid}"),
        _ => return None,
    };
    let path = output.path.display();
    Some(format!("{path} cannot be given to {what} without CAP_CHOWN: grant it, or leave out `owner` and `group`"))
}

/// Runs the check on what is in place, without any candidate: what it refuses is broken already.
async fn check_in_place(subject: &str, frontend: &Config, findings: &mut Findings) {
    if let Some(missing) = frontend.outputs.iter().find(|output| !output.path.exists()) {
        let what = format!("not run: {} is not there yet", missing.path.display());
        return findings.add(Level::Ok, subject, what);
    }
    let unconfined = Unconfined::default();
    let checked = Checking { config: frontend, unconfined: &unconfined }.in_place().await;
    match checked {
        Ok(passed) => match passed.unread.first() {
            None => findings.add(Level::Ok, subject, "passes with what is in place"),
            Some(path) => findings.add(Level::Fail, subject, Unread(path.clone()).to_string()),
        },
        Err(error) => findings.add(Level::Fail, subject, format!("refuses what is in place: {error}")),
    }
}

/// Whether the program is found.
fn program(subject: &str, argv: &[String], findings: &mut Findings) -> bool {
    let Some(program) = argv.first() else { return false };
    let located = child::locate(program);
    let is_found = located.is_ok();
    let why = |error| {
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{error}; install it, or write its full path (PATH is {path})")
    };
    findings.add_result(subject, located.map(|path| format!("{} exists", path.display())).map_err(why));
    is_found
}

/// Whether a candidate can be checked before it is in place, if the check is configured so.
async fn isolation(subject: &str, check: &Check, findings: &mut Findings) {
    const LIMIT: Duration = Duration::from_secs(5);
    if !check.isolate || check.is_staged() {
        return;
    }
    match child::run_isolated(&Unconfined::default(), &[], &["true".to_owned()], LIMIT, None).await {
        Some(_) => findings.add(Level::Ok, subject, "candidates are checked before they are in place"),
        None => findings.add(
            Level::Warn,
            subject,
            "no mount namespace can be created: candidates are checked right after the swap, and swapped back if they are \
             refused; to have them checked before, give elasticd CAP_SYS_ADMIN",
        ),
    }
}

async fn reload(subject: &str, reload: &Reload, findings: &mut Findings) {
    match reload {
        Reload::None => {}
        Reload::Command { argv, .. } => drop(program(subject, argv, findings)),
        Reload::Master { endpoint, limit } => {
            let connected = endpoint.connect(*limit).await;
            let why = |error| {
                format!(
                    "cannot connect to HAProxy's master at {endpoint}: {error}; is HAProxy run with -S {endpoint}, and \
                     elasticd's user admitted to that socket?"
                )
            };
            findings.add_result(subject, connected.map(|_| format!("the master at {endpoint} answers")).map_err(why));
        }
        Reload::Signal { find, .. } => {
            let found = Process::find(&Unconfined::default(), find).await;
            let found = found.and_then(|process| process.may_signal().map(|()| process.identity.pid));
            let good = |pid| format!("PID {pid} runs {} and can be signalled", find.executable());
            findings.add_result(subject, found.map(good));
        }
    }
}
