//! What is taken before there is a runtime, and so more than one thread.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::Error;
use crate::config::{Config, Confine};
use crate::sys::confine;
use crate::sys::lock::{self, DirectoryLock};
use crate::sys::unconfined::Unconfined;

/// What elasticd stands on before it has a runtime, and so more than one thread: a state directory of its own, and no
/// more rights than it needs.
#[derive(Debug)]
pub struct Bootstrap {
    pub(super) file: PathBuf,
    pub(super) config: Config,
    pub(super) lock: DirectoryLock,
    pub(super) confinement: Arc<confine::Report>,
    pub(super) unconfined: Unconfined,
}

impl Bootstrap {
    /// Takes the state directory that `config`, read from `file`, names, and confines this thread and all that it starts
    /// from now on.
    ///
    /// # Errors
    ///
    /// The state directory cannot be had.
    pub fn take(file: PathBuf, config: Config) -> Result<Self, Error> {
        let mut directory = std::fs::DirBuilder::new();
        // Tags are nobody else's business.
        directory
            .recursive(true)
            .mode(0o700)
            .create(&config.state_dir)
            .map_err(|source| Error::StateDir { path: config.state_dir.clone(), source })?;
        let lock = lock::lock(&config.state_dir)?;
        for output in config.frontends.iter().flat_map(|frontend| &frontend.outputs) {
            // Let go at once: the worker takes it when it starts, and keeps it.
            drop(lock::target(&Unconfined::default(), &output.path)?);
        }
        // Without systemd nobody makes /run/elasticd. Only the last directory: more would hide a misspelt path. Where it
        // cannot be made, binding says so.
        if let Some(directory) = config.api.socket.parent() {
            let _ = std::fs::create_dir(directory);
        }
        let (confinement, unconfined) = match config.confine {
            Confine::Auto => confine(&config).map_err(Error::Thread)?,
            Confine::Off => {
                let missing = vec!["confined: `confine` is off".to_owned()];
                (confine::Report { missing, ..Default::default() }, Unconfined::default())
            }
        };
        Ok(Self { file, config, lock, confinement: Arc::new(confinement), unconfined })
    }
}

/// Leaves what programs need to a thread of their own, and gives up the rest.
fn confine(config: &Config) -> io::Result<(confine::Report, Unconfined)> {
    let mut report = confine::process();
    let unconfined = Unconfined::start()?;
    unconfined.allow_directories(config.output_directories());
    let sockets = [Some(&config.api.socket), config.api.admin_socket.as_ref()];
    let directories = sockets.into_iter().flatten().filter_map(|socket| socket.parent()).chain([&*config.state_dir]);
    // What is not there cannot be written to either; whoever needs it says so.
    let opened: Vec<_> = directories.filter_map(|directory| confine::directory(directory).ok()).collect();
    confine::thread(&opened, confine::SERVING, &mut report);
    Ok((report, unconfined))
}
