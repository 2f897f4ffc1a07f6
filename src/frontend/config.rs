//! The configuration of one frontend, resolved: everything that the worker needs is there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::escape::Escape;
use super::runtime::Runtime;
use super::template::{self, Source, Template};
use crate::model::{Guard, Name, Snapshot};
use crate::status::Phase;
use crate::sys::endpoint::Endpoint;
use crate::sys::ownership::Ownership;
use crate::sys::process::Find;

/// A process that is configured, such as an nginx.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Its name in the configuration.
    pub name: Name,
    /// The preset it took, or `custom`.
    pub type_name: String,
    /// The services that its templates get, in this order.
    pub services: Vec<Name>,
    /// Whether its templates get the services as well that tags create.
    pub follows_all_services: bool,
    /// The files that are written; at least one, unless each is of a service that tags create.
    pub outputs: Vec<Output>,
    /// Those with a file for each service (`{service}` in their paths), as they are configured.
    pub per_service: Vec<Output>,
    /// Whether files are removed that elasticd wrote and that are no outputs any more.
    pub prune: bool,
    /// The syntax in which values are escaped.
    pub escape: Escape,
    /// The command that judges a candidate.
    pub check: Option<Check>,
    /// Its runtime API. Where it can take a change, it is used before a reload is.
    pub runtime: Option<Runtime>,
    /// How the frontend takes new outputs if its runtime API does not.
    pub reload: Reload,
    /// What shows that it runs them.
    pub proof: Proof,
    /// Values for templates, beside the services.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// Values that hold for one service alone.
    pub service_vars: BTreeMap<Name, BTreeMap<String, serde_json::Value>>,
    /// The command that prints the version of the frontend's program: program and arguments.
    pub version: Option<Vec<String>>,
    /// Whether what the templates render depends on our own zone.
    pub depends_on_own_zone: bool,
    /// Our own zone, if that is so and it is configured.
    pub own_zone: Option<String>,
    /// How many backends of each service may be left out because they cannot be rendered.
    pub guards: Guards,
    /// How changes and reloads are spaced.
    pub pacing: Pacing,
}

/// The guards of services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guards {
    /// Of those that are configured.
    pub services: BTreeMap<Name, Guard>,
    /// Of those that tags create: the strictest of their patterns'.
    pub created: Guard,
}

impl Guards {
    /// The guard of a service.
    pub fn of(&self, service: &Name) -> &Guard {
        self.services.get(service).unwrap_or(&self.created)
    }
}

/// One template rendered to one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Which of the configuration's `outputs` it comes from, counted from 0.
    pub index: usize,
    /// The path of the file; absolute.
    pub path: PathBuf,
    /// The only service that its template gets, where each service has an output of its own (`{service}` in its path).
    /// `None`: the template gets all services of the frontend.
    pub service: Option<Name>,
    /// The text of the template, and what it includes.
    pub template: Arc<Source>,
    /// The file's mode and owner.
    pub ownership: Ownership,
}

/// A command that judges a candidate: exit status 0 is a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Program and arguments; not empty. [`CANDIDATE`] stands for the path of the first staged output.
    pub argv: Vec<String>,
    /// How long it may take.
    pub limit: Duration,
    /// Whether it may run in a mount namespace in which the candidate is in place; otherwise it checks the files that are
    /// really in place.
    pub isolate: bool,
    /// The lines in which it names the files that the frontend's configuration reads. `None`: it names none.
    pub files: Option<FileLine>,
}

/// A line that names a file: the path and what stands around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLine {
    /// What comes before the path; not empty.
    pub before: String,
    /// What comes after it, up to the end of the line.
    pub after: String,
}

impl FileLine {
    /// The path in a line of this form.
    pub fn path_in<'a>(&self, line: &'a str) -> Option<&'a str> {
        line.split_once(&self.before)?.1.strip_suffix(&self.after)
    }
}

/// In a check's arguments: the path of the first output, staged but not yet swapped in. A check that does not mention
/// it can only judge the configuration in place, and is run right after the swap.
pub const CANDIDATE: &str = "{candidate}";

/// In the path of one of the configuration's `outputs`: the name of a service. It stands for an output for each.
pub const SERVICE: &str = "{service}";

impl Config {
    /// The phase in which all is as wanted: what can be known of the frontend.
    pub fn applied_phase(&self) -> Phase {
        match (&self.proof, &self.reload) {
            (Proof::None, Reload::None) => Phase::Written,
            (Proof::None, _) => Phase::Reloaded,
            _ => Phase::Proven,
        }
    }

    /// The outputs' templates, compiled, in their order.
    ///
    /// # Errors
    ///
    /// One does not compile.
    pub fn templates(&self) -> Result<Vec<Template>, template::Error> {
        let compile = |output: &Output| Template::of(Arc::clone(&output.template), self.escape);
        self.outputs.iter().map(compile).collect()
    }

    /// The outputs at a snapshot, if there may be others than those that are configured: one for each service that tags
    /// created, where services have outputs of their own.
    pub fn outputs_at(&self, snapshot: &Snapshot) -> Option<Vec<Output>> {
        if self.per_service.is_empty() || !self.follows_all_services {
            return None;
        }
        let created: Vec<_> = snapshot.services.keys().filter(|name| !self.services.contains(name)).cloned().collect();
        let mut outputs = self.outputs.clone();
        for output in self.per_service.iter().flat_map(|pattern| pattern.for_each(&created)) {
            if outputs.iter().all(|other| other.path != output.path) {
                outputs.push(output);
            }
        }
        Some(outputs)
    }

    /// The services that its templates get at a snapshot, in their order.
    pub(super) fn shown_services(&self, snapshot: &Snapshot) -> Cow<'_, [Name]> {
        let created =
            snapshot.services.keys().filter(|name| self.follows_all_services && !self.services.contains(name));
        let mut created = created.cloned().peekable();
        if created.peek().is_none() {
            return Cow::Borrowed(&self.services);
        }
        self.services.iter().cloned().chain(created).collect()
    }
}

impl Output {
    /// Whether it stands for an output for each service.
    pub fn is_per_service(&self) -> bool {
        self.path.to_str().is_some_and(|path| path.contains(SERVICE))
    }

    /// An output for each service if its path asks for that, or the one it is.
    pub fn for_each(&self, services: &[Name]) -> Vec<Self> {
        let Some(pattern) = self.path.to_str().filter(|_| self.is_per_service()) else { return vec![self.clone()] };
        let of = |service: &Name| Self {
            path: pattern.replace(SERVICE, service.as_str()).into(),
            service: Some(service.clone()),
            ..self.clone()
        };
        services.iter().map(of).collect()
    }
}

impl Check {
    /// Program and arguments, with the path of the file to be judged in the place of [`CANDIDATE`].
    pub fn argv_for(&self, candidate: &Path) -> Vec<String> {
        self.argv.iter().map(|argument| argument.replace(CANDIDATE, &candidate.to_string_lossy())).collect()
    }

    /// Whether it judges the staged file, before anything is in place.
    pub fn is_staged(&self) -> bool {
        self.argv.iter().any(|argument| argument.contains(CANDIDATE))
    }
}

/// How a frontend takes new outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// By itself, or not at all.
    None,
    /// Its process gets a signal.
    Signal {
        /// Which signal.
        signal: Signal,
        /// Which process.
        find: Find,
        /// A signal that the process catches at all times but while it reads its configuration.
        caught_when_ready: Option<Signal>,
    },
    /// A command that exits with 0 once the frontend has taken them.
    Command {
        /// Program and arguments; not empty.
        argv: Vec<String>,
        /// How long it may take.
        limit: Duration,
        /// The process that the command reloads, if that can be seen from here.
        find: Option<Find>,
    },
    /// HAProxy's master process gets the command `reload` over its own socket.
    Master {
        /// Where the master listens (`haproxy -S`).
        endpoint: Endpoint,
        /// How long it may take.
        limit: Duration,
    },
}

/// What shows that the frontend runs the new outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing beyond a reload that did not fail.
    None,
    /// The signalled process has new children, and the old ones are gone or, by their title, shutting down.
    Workers {
        /// How long it may take.
        limit: Duration,
    },
    /// The signalled process has new children, and has written its pid file anew if it is found by one; the old ones may
    /// finish what they have begun.
    Generation {
        /// How long it may take.
        limit: Duration,
    },
    /// The runtime API shows it.
    Runtime {
        /// How long it may take.
        limit: Duration,
    },
    /// A command exits with 0; it is repeated until it does.
    Command {
        /// Program and arguments; not empty.
        argv: Vec<String>,
        /// How long it may take, all attempts together.
        limit: Duration,
    },
}

impl Proof {
    /// How long it may take to appear. `None`: there is none to wait for.
    pub const fn limit(&self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Workers { limit }
            | Self::Generation { limit }
            | Self::Runtime { limit }
            | Self::Command { limit, .. } => Some(*limit),
        }
    }
}

/// How changes are coalesced, reloads are spaced, and how often the frontend is checked and failed attempts are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// How long no further change must come before the last one is applied.
    pub settle: Duration,
    /// How long a change waits for that at most.
    pub settle_max: Duration,
    /// The shortest time between two reloads.
    pub min_reload_gap: Duration,
    /// How often the frontend and its files are compared with what is wanted though nothing has changed: the frontend may
    /// have been restarted, a file edited.
    pub audit_interval: Duration,
    /// The pause after a first failed attempt, and between two checks whether a frontend that does not run has started.
    pub retry_min: Duration,
    /// The longest pause after a failed attempt; each further failure doubles the pause up to this.
    pub retry_max: Duration,
    /// How long a frontend that ended when it was asked to reload may take to be restarted by its supervisor, before the
    /// change is rolled back.
    pub restart_grace: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_from_a_line_of_its_form_alone() {
        let nginx = FileLine { before: "# configuration file ".to_owned(), after: ":".to_owned() };
        assert_eq!(nginx.path_in("# configuration file /etc/nginx/a b.conf:"), Some("/etc/nginx/a b.conf"));
        assert_eq!(nginx.path_in("# configuration file /etc/nginx/a.conf"), None);
        let apache = FileLine { before: ") ".to_owned(), after: String::new() };
        assert_eq!(
            apache.path_in("    (146) /etc/apache2/mods-enabled/alias.conf"),
            Some("/etc/apache2/mods-enabled/alias.conf")
        );
        assert_eq!(apache.path_in("Included configuration files:"), None);
    }
}
