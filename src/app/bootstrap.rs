//! What happens before the runtime starts, while there is only one thread.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::Error;
use crate::config::{Config, Confine};
use crate::sys::confine;
use crate::sys::lock::{self, DirectoryLock};
use crate::sys::output_file::Store;
use crate::sys::unconfined::Unconfined;

/// The result of the first step of a start, made before the runtime starts its threads: a locked state directory, and a
/// process without rights it does not need.
#[derive(Debug)]
pub struct Bootstrap {
    pub(super) file: PathBuf,
    pub(super) config: Config,
    pub(super) lock: DirectoryLock,
    pub(super) confinement: Arc<confine::Report>,
    pub(super) unconfined: Unconfined,
}

impl Bootstrap {
    /// Locks the state directory of `config`, which was read from `file`, and confines this thread and every thread that
    /// it starts from now on.
    ///
    /// # Errors
    ///
    /// The state directory cannot be created or is in use, or a thread cannot be started.
    pub fn take(file: PathBuf, config: Config) -> Result<Self, Error> {
        let mut directory = std::fs::DirBuilder::new();
        // The state holds tags, which other users need not read.
        directory
            .recursive(true)
            .mode(0o700)
            .create(&config.state_dir)
            .map_err(|source| Error::StateDir { path: config.state_dir.clone(), source })?;
        let lock = lock::lock(&config.state_dir)?;
        for output in config.frontends.iter().flat_map(|frontend| &frontend.outputs) {
            // Only tried here: the worker takes the lock when it starts, and reports what else is wrong.
            if let Err(held @ lock::Error::Target(_)) = lock::target(&Unconfined::default(), &output.path) {
                return Err(held.into());
            }
        }
        // Without systemd nothing creates /run/elasticd. Only the last directory is created, since more would hide a
        // misspelt path. If that fails, binding the socket reports it.
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

/// Starts the unconfined thread that runs programs, and confines this one.
fn confine(config: &Config) -> io::Result<(confine::Report, Unconfined)> {
    let mut report = confine::process();
    let unconfined = Unconfined::start()?;
    unconfined.allow_directories(config.output_directories());
    let staging = Store::parent(&config.state_dir);
    // Without it new versions are made in the outputs' directories; a worker that needs it says why it is not there.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&staging);
    if let Ok(directory) = made.and_then(|()| confine::directory(&staging)) {
        unconfined.set_staging(directory);
    }
    let sockets = [Some(&config.api.socket), config.api.admin_socket.as_ref()];
    let directories = sockets.into_iter().flatten().filter_map(|socket| socket.parent()).chain([&*config.state_dir]);
    // A directory that cannot be opened is reported by the part that needs it.
    let opened: Vec<_> = directories.filter_map(|directory| confine::directory(directory).ok()).collect();
    confine::thread(&opened, confine::SERVING, &mut report);
    Ok((report, unconfined))
}
