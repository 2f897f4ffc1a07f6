//! The version of a frontend's program, as the program itself prints it.

use std::path::Path;
use std::time::Duration;

use super::config::{Config, Reload};
use super::template::scan;
use crate::sys::child;
use crate::sys::process::{Find, Identity};
use crate::sys::unconfined::Unconfined;

/// How long a program has to print its version.
const LIMIT: Duration = Duration::from_secs(5);

impl Config {
    /// The command that prints the version, if a template reads it.
    pub(super) fn version_command(&self) -> Option<&[String]> {
        let reads = |(_, text): (&str, &str)| {
            let members = scan::uses(text, "frontend").into_iter().map(|found| found.member);
            members.into_iter().any(|member| member.is_none_or(|member| member == "version"))
        };
        let is_read = self.outputs.iter().any(|output| output.template.texts().any(reads));
        self.version.as_deref().filter(|_| is_read)
    }

    /// The process that runs, where the frontend is known by one.
    pub async fn process(&self, unconfined: &Unconfined) -> Option<Identity> {
        let found = self.find_process(unconfined).await?;
        found.ok().map(|process| process.identity)
    }

    /// The version of the frontend's program. Of a `process` that runs, its own program is asked: the one on disk may have
    /// been upgraded since. `None`: it is not known.
    pub async fn look_up_version(&self, process: Option<Identity>, unconfined: &Unconfined) -> Option<String> {
        let argv = self.version_command()?;
        if let Some(running) = process.and_then(|process| self.of_process(argv, process))
            && let Ok(said) = child::run_and_read(unconfined, &running, LIMIT).await
            && let Some(version) = version_in(&said)
        {
            return Some(version);
        }
        match child::run_and_read(unconfined, argv, LIMIT).await {
            Ok(said) => version_in(&said),
            Err(error) => {
                let frontend = &self.name;
                tracing::info!(%frontend, %error, "version of the frontend unknown; what every version understands is written");
                None
            }
        }
    }

    /// The same command with the program of a process, if it is the command's own: `docker exec …` is not.
    fn of_process(&self, argv: &[String], process: Identity) -> Option<Vec<String>> {
        let Reload::Signal { find: Find::PidFile { executable, .. } | Find::Match { executable }, .. } = &self.reload
        else {
            return None;
        };
        let name = |path: &str| Path::new(path).file_name().map(|name| name.to_owned());
        let (program, arguments) = argv.split_first()?;
        let is_same = name(program) == name(&executable.to_string());
        is_same
            .then(|| std::iter::once(format!("/proc/{}/exe", process.pid)).chain(arguments.iter().cloned()).collect())
    }
}

/// The first numbers with dots between them.
fn version_in(text: &str) -> Option<String> {
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.').map(|part| part.trim_matches('.'));
    let mut versions = numbers.filter(|part| part.contains('.') && part.len() <= 32);
    versions.find(|part| part.split('.').all(|number| !number.is_empty())).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_first_numbers_with_dots() {
        for (said, version) in [
            ("nginx version: nginx/1.29.6", Some("1.29.6")),
            ("nginx version: openresty/1.25.3.2 (built 1)\n", Some("1.25.3.2")),
            ("HAProxy version 2.6.12-1+deb12u1 2023/12/16", Some("2.6.12")),
            ("v3.", None),
            ("no 1..2", None),
            ("", None),
        ] {
            assert_eq!(version_in(said).as_deref(), version, "{said}");
        }
    }
}
