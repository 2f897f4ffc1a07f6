//! The log's level and format.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

/// Options of the log.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Log level
    #[arg(long = "log", global = true, env = "ELASTICD_LOG", default_value = "info", value_name = "LEVEL")]
    level: Level,
    /// Log format
    #[arg(long, global = true, env = "ELASTICD_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Logs to standard error from here on.
pub fn start(args: &Args) {
    let level = match args.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    // What libraries log is rarely about anything that an operator could fix.
    let filter = Targets::new().with_default(LevelFilter::WARN.min(level)).with_target("elasticd", level);
    // It logs each attempt as an error; elasticd logs what is wrong once, with the remedy.
    let filter = filter.with_target("async_nats", LevelFilter::OFF);
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = match args.log_format {
        Format::Json => layer.json().flatten_event(true).boxed(),
        // The journal has its own clock.
        Format::Text if std::env::var_os("JOURNAL_STREAM").is_some() => layer.without_time().with_ansi(false).boxed(),
        Format::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    // Only a second call could fail.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}
