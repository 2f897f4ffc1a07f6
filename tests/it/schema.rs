//! The JSON Schema of the configuration: it accepts every configuration that is written anywhere here, and refuses unknown
//! keys as elasticd itself does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::BoundedCommand as _;
use crate::harness::elasticd::Elasticd;
use crate::harness::schema::refusal;

/// The blocks of TOML in a Markdown file that are configurations of elasticd.
fn examples(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let block = |rest: &str| rest.lines().take_while(|line| line.trim() != "```").collect::<Vec<_>>().join("\n");
    let blocks = text.split("```toml\n").skip(1).map(block);
    let sections = ["[providers.", "[services.", "[frontends.", "[api]", "[publish]"];
    blocks.filter(|block| sections.iter().any(|section| block.contains(section))).collect()
}

fn markdown(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            markdown(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Examples are parts of a configuration: a key that another part would have may be missing.
fn is_accepted(toml: &str) -> Result<(), String> {
    match refusal(toml) {
        Some(why)
            if !why.lines().all(|line| line.contains("missing propert") || !line.trim_start().starts_with('-')) =>
        {
            Err(why)
        }
        _ => Ok(()),
    }
}

#[test]
fn every_documented_configuration_is_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    markdown(root, &mut files);
    let mut examined = 0;
    let mut refused = Vec::new();
    for file in files {
        for example in examples(&file) {
            examined += 1;
            if let Err(why) = is_accepted(&example) {
                refused.push(format!("{}: {why}\n{example}", file.display()));
            }
        }
    }
    assert!(examined > 10, "{examined}");
    assert!(refused.is_empty(), "{}", refused.join("\n\n"));
}

#[test]
fn starters_and_presets_are_accepted() {
    let program = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_elasticd")).args(arguments).bounded_output();
        String::from_utf8(output.stdout).expect("text")
    };
    let listed = program(&["frontends"]);
    let presets: Vec<_> = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(presets.contains(&"nginx"), "{listed}");
    for preset in presets {
        let starter = program(&["init", preset]);
        assert_eq!(refusal(&starter), None, "{starter}");
        // The defaults, which the starter has as comments, are keys as well.
        let (head, defaults) = starter.split_once("# The defaults:\n").expect("defaults");
        let defaults = defaults.lines().map(|line| line.strip_prefix("# ").unwrap_or_default());
        let whole = format!("{head}{}", defaults.collect::<Vec<_>>().join("\n"));
        assert_eq!(refusal(&whole), None, "{whole}");
    }
}

#[test]
fn an_unknown_key_is_refused_by_both() {
    let good = "[providers.p]\ntype = 'fixed'\ninstances = [{ address = '10.0.0.1:80' }]\n\
                [services.web]\nprovider = 'p'\n[frontends.f]\ntype = 'json'\noutput = 'DIR/out'\n";
    let check = |config: &str| Elasticd::new(config).run(&["check"]).0;
    assert_eq!((check(good), refusal(good)), (0, None));
    for unknown in [
        "providers.p.intervall = '1s'\n",
        "providers.p.path = '/x'\n",
        "services.web.prot = 80\n",
        "services.web.guard = { confrim = 3 }\n",
        "services.web.health = { type = 'tcp', retries = 3 }\n",
        "services.web.prefer = { zone = 'same', at_least = 2, x = 1 }\n",
        "frontends.f.outputs = [{ path = '/x', owned = 'me' }]\n",
        "frontends.f.reload = { signal = 'HUP', when = 'now' }\n",
        "api.sokcet = '/x'\n",
        "stat_dir = '/x'\n",
        "service.web.provider = 'p'\n",
    ] {
        let config = merged(&format!("{unknown}{good}"));
        assert!(refusal(&config).is_some(), "the schema accepts {unknown}");
        assert_eq!(check(&config), 78, "elasticd accepts {unknown}");
    }
    for wrong in [
        "providers.p.interval = 15\n",
        "services.web.guard = { max_drop = 50 }\n",
        "frontends.f.mode = 644\n",
        "frontends.f.check = 'nginx -t'\n",
        "providers.q.type = 'ec3'\n",
        "frontends.g.type = 'ngnix'\n",
    ] {
        let config = merged(&format!("{wrong}{good}"));
        assert!(refusal(&config).is_some(), "the schema accepts {wrong}");
        assert_eq!(check(&config), 78, "elasticd accepts {wrong}");
    }
}

/// The same configuration, of which a first line may name a key of a table that is written below.
fn merged(toml: &str) -> String {
    let (first, rest) = toml.split_once('\n').expect("lines");
    let (key, value) = first.split_once(" = ").expect("a key");
    match key.rsplit_once('.') {
        Some((table, key)) if rest.contains(&format!("[{table}]\n")) => {
            rest.replace(&format!("[{table}]\n"), &format!("[{table}]\n{key} = {value}\n"))
        }
        _ => toml.to_owned(),
    }
}
