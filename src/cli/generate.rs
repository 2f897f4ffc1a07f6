//! `elasticd completions`, `elasticd man` and `elasticd schema`, generated from the command line and the configuration.

use clap::Command;
use clap_complete::Shell;

use super::{Exit, complain};

/// Options of `completions`.
#[derive(Debug, Clone, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Clone, clap::Args)]
pub struct ManArgs {
    /// The subcommand; without it, elasticd's own page
    subcommand: Option<String>,
}

/// Prints a shell's completions.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "elasticd", &mut script);
    super::print(&script)
}

/// Prints the JSON Schema of the configuration.
pub fn schema() -> Exit {
    super::print(format!("{:#}\n", crate::config::schema()).as_bytes())
}

/// Prints a manual page.
pub fn man(args: &ManArgs, mut command: Command) -> Exit {
    command.build();
    let (page, title) = match &args.subcommand {
        None => (command, "elasticd".to_owned()),
        Some(name) => match command.find_subcommand(name) {
            Some(subcommand) => (subcommand.clone(), format!("elasticd-{name}")),
            None => {
                complain(&format!("no subcommand {name:?}; see elasticd --help"));
                return Exit::FAILURE;
            }
        },
    };
    let mut text = Vec::new();
    match clap_mangen::Man::new(page).title(title).render(&mut text) {
        Ok(()) => super::print(&text),
        Err(error) => {
            complain(&error);
            Exit::FAILURE
        }
    }
}
