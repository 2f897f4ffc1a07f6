//! `elasticd run`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::log;
use crate::app::{App, Bootstrap, Error};
use crate::config::{self, Config};

/// Threads of the runtime. Work that waits for a disk has threads of its own.
const THREADS: usize = 2;

/// Runs elasticd on a configuration file until it is told to stop.
pub fn run(file: PathBuf, log: &log::Args) -> ExitCode {
    log::start(log);
    for (variable, instead) in config::former_variables() {
        tracing::warn!(
            variable,
            instead,
            "environment variable ignored: keys of the configuration begin with ELASTICD__"
        );
    }
    let ended = Config::load(&file).map_err(Error::from).and_then(|config| run_on(Bootstrap::take(file, config)?));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "elasticd stopped with an error");
            ExitCode::from(&error)
        }
    }
}

fn run_on(ground: Bootstrap) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .expect("a runtime needs a few threads and file descriptors, and nothing else");
    runtime.block_on(async { App::build(ground)?.run().await })
}
