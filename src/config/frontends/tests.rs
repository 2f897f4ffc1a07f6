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
        ("vars.keepalife = 7", "vars.keepalife: unknown variable: did you mean `keepalive`?"),
        ("vars.xyzzy = 7", "vars.xyzzy: unknown variable; these are read: fail_timeout, keepalive, lines, max_fails, "),
        (
            "[frontends.front.service.web]\nkeepalvie = 7",
            "service.web.keepalvie: unknown variable: did you mean `keepalive`?",
        ),
        (
            "[frontends.front.services.web]\nkeepalive = 7",
            "services: a list of names is expected, such as [\"web\"]; what",
        ),
        (
            "[frontends.front.service.web]\nkeepalive = 7\noutput = '/x'",
            "service.web.output: this is a key of the frontend, and not a variable: write it above \
             [frontends.front.service.web]",
        ),
        (
            "[frontends.front.vars]\nservices = ['web']",
            "vars.services: this is a key of the frontend, and not a variable: write it above [frontends.front.vars]",
        ),
        (
            "template = '/dev/null'\n[frontends.front.vars]\nservices = ['web']",
            "vars.services: this is a key of the frontend, and not a variable: write it above [frontends.front.vars]",
        ),
    ] {
        let faults = resolve(keys).expect_err(keys);
        assert!(faults.len() == 1 && faults[0].to_string().contains(expected), "{faults:?}");
    }
}

/// A frontend of type `custom` with this template and these keys: its faults, and its warnings.
fn resolve_own(template: &str, keys: &str) -> (Vec<Fault>, Vec<Fault>) {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("t.conf"), template).expect("written");
    let mut layers = Layers::of_text(&format!(
        "[frontends.front]\ntype = 'custom'\nescape = 'none'\noutput = '/x'\ntemplate = 't.conf'\n{keys}"
    ));
    frontends(&mut layers, &["web".parse().expect("a name")], dir.path(), false);
    (layers.faults, layers.warnings)
}

#[test]
fn a_variable_that_no_template_of_ones_own_reads_is_a_warning() {
    let reads = "{{ vars.size }}{{ vars?.colour }}{% for s in services %}{{ s.vars.limit }}{% endfor %}";
    for (template, keys, expected) in [
        (reads, "vars.size = 1\nvars.colour = 'x'\nservice.web.limit = 3", None),
        (
            reads,
            "vars.sise = 1",
            Some("frontends.front.vars.sise: no template of this frontend reads this variable: did you mean `size`?"),
        ),
        (
            "x",
            "vars.size = 1",
            Some("frontends.front.vars.size: no template of this frontend reads this variable; there is none at all"),
        ),
        ("{{ vars | json }}", "vars.any = 1", None),
        // A template may have a variable with the name of a key.
        ("{{ vars.output }}", "vars.output = 1", None),
    ] {
        let (faults, warnings) = resolve_own(template, keys);
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            (faults, warnings.iter().map(String::as_str).collect::<Vec<_>>()),
            (vec![], expected.into_iter().collect())
        );
    }
    let (faults, _) = resolve_own("x", "[frontends.front.vars]\nmode = '0600'");
    assert!(faults[0].message.starts_with("this is a key of the frontend"), "{faults:?}");
}
