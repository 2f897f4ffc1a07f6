//! The help of every subcommand.

use std::process::{Command, Stdio};

fn help(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elasticd"));
    let output =
        command.args(arguments).arg("--help").env_clear().stdin(Stdio::null()).output().expect("elasticd runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The subcommands, as the help of the program lists them.
fn subcommands(help: &str) -> Vec<&str> {
    let list = help.split_once("Commands:\n").expect("a list").1.split_once("\n\n").expect("an end").0;
    let named = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    named.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

#[test]
fn help_of_every_subcommand() {
    let general = help(&[]);
    let mut all = format!("$ elasticd --help\n{general}");
    for name in subcommands(&general) {
        all += &format!("\n$ elasticd {name} --help\n{}", help(&[name]));
    }
    insta::assert_snapshot!(all);
}
