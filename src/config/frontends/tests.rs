use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::fault::Fault;
use crate::frontend::{Config, Proof, Reload};
use crate::sys::process::Find;

/// A frontend of type `nginx` with these keys.
fn resolve(keys: &str) -> Result<Config, Vec<Fault>> {
    let mut layers = Layers::of_text(&format!("[frontends.front]\ntype = 'nginx'\n{keys}"));
    let services = ["web".parse().expect("a name")];
    let mut frontends = frontends(&mut layers, &services, Path::new("/nonexistent"), false);
    if layers.faults.is_empty() { Ok(frontends.remove(0)) } else { Err(layers.faults) }
}

#[test]
fn every_key_of_a_preset_can_be_overridden() {
    let config = resolve("output = '/tmp/x.conf'\nmode = '0600'\nvars.keepalive = 7\nsettle = '2s'").expect("valid");
    assert_eq!(config.outputs.len(), 1);
    assert_eq!(config.outputs[0].path, Path::new("/tmp/x.conf"));
    assert_eq!(config.outputs[0].ownership.mode, Some(0o600));
    assert_eq!(config.vars["keepalive"], 7);
    assert!(config.vars.contains_key("zone_size"), "the other variables stay");
    assert_eq!(config.pacing.settle_max, Duration::from_secs(2), "never shorter than settle");
    let pacing = resolve("audit_interval = '1s'\nretry_min = '2m'\nrestart_grace = '0s'").expect("valid").pacing;
    assert_eq!(pacing.audit_interval, Duration::from_secs(1));
    assert_eq!((pacing.retry_min, pacing.retry_max), (Duration::from_mins(2), Duration::from_mins(2)));
    assert_eq!(pacing.restart_grace, Duration::ZERO);
    assert!(matches!(config.reload, Reload::Signal { find: Find::PidFile { .. }, .. }));
    assert!(matches!(config.proof, Proof::Workers { .. }));
    assert_eq!(config.services.len(), 1, "all services, if left out");

    let config = resolve("check = []\npid_file = ''\nreload = { command = ['true'] }").expect("valid");
    assert_eq!(config.check, None);
    assert!(matches!(config.reload, Reload::Command { .. }));
    assert_eq!(config.proof, Proof::None);
    let config = resolve("pid_file = ''").expect("valid");
    assert!(matches!(config.reload, Reload::Signal { find: Find::Match { .. }, .. }));
}

#[test]
fn all_faults_come_at_once_each_with_its_key() {
    let faults = resolve(
        "output = 'relative'\ntemplate = 'none.conf'\nmode = '999'\nowner = 'no-such-user'\ngroup = 'no-such-group'\n\
         reload = { signal = 'KILL' }\nsettle = '5s'\nsettle_max = '1s'\ncheck_timeout = '0s'\n\
         audit_interval = '0s'\nretry_min = '0s'\nretry_max = '0s'",
    )
    .expect_err("all wrong");
    let mut keys: Vec<_> = faults.iter().map(|fault| fault.key.trim_start_matches("frontends.front.")).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "audit_interval",
            "check_timeout",
            "mode",
            "outputs.0.group",
            "outputs.0.owner",
            "outputs.0.path",
            "outputs.0.template",
            "reload.signal",
            "retry_min",
            "settle_max"
        ]
    );
    let faults = resolve("retry_min = '5s'\nretry_max = '2s'").expect_err("the longest pause is the shorter one");
    assert_eq!(faults[0].to_string(), "frontends.front.retry_max: 2s is shorter than retry_min, 5s");
}

#[test]
fn a_key_wins_as_a_whole_and_variables_one_by_one() {
    let config = resolve("reload = { command = ['true'] }\nvars.max_fails = 3").expect("the preset's signal is gone");
    assert!(matches!(config.reload, Reload::Command { .. }));
    assert_eq!((&config.vars["max_fails"], &config.vars["fail_timeout"]), (&3.into(), &"10s".into()));
    let config = resolve("check = ['docker', 'exec', 'nginx', 'nginx', '-t']").expect("valid");
    assert!(!config.check.expect("a check").isolate);
    assert!(resolve("").expect("valid").check.expect("the preset's check").isolate);
}

#[test]
fn a_variable_that_no_template_knows_is_refused() {
    for (keys, expected) in [
        (
            "vars.keepalife = 7",
            "vars.keepalife: unknown variable; the preset's are fail_timeout, keepalive, max_fails, ",
        ),
        (
            "[frontends.front.vars]\nservices = ['web']",
            "vars.services: unknown variable; if the frontend's key is meant, write it above [frontends.front.vars]",
        ),
    ] {
        let faults = resolve(keys).expect_err(keys);
        assert!(faults.len() == 1 && faults[0].to_string().contains(expected), "{faults:?}");
    }
    let own = resolve("template = '/dev/null'\nvars.own = 1");
    assert!(own.is_ok(), "{own:?}");
}
