//! The command line: one file per subcommand.

mod admin;
mod check;
pub mod client;
mod demo;
pub mod diff;
mod doctor;
mod exit;
mod explain;
pub mod fleet;
mod generate;
pub mod get;
mod log;
mod outputs;
mod pick;
mod presets;
mod render;
mod run;
pub mod status;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::admin::Change;
use self::exit::{Exit, complain, print};
use crate::config::{Config, DEFAULT_PATH};
use crate::sys::isolated;

/// Shown below the help and in the man page.
const EXIT_CODES: &str = "\
Exit codes:
   0  success
   1  failure; `render --diff`: there are differences; `status`: not ready;
      `doctor`: a check failed
   2  the command line is wrong
  69  no elasticd answers on the socket, or a provider does not answer (`render`)
  70  a part of elasticd ended unexpectedly
  78  the configuration is wrong

Environment:
  Any key of the configuration can be set as ELASTICD__KEY, with __ between the parts of the key:
  ELASTICD__API__SOCKET=/tmp/elasticd.sock sets api.socket. Of other variables that begin with
  ELASTICD_ only those that are named above are read.";

/// Gives frontends the addresses of their backends, learnt from the cloud's own tags.
#[derive(Debug, Parser)]
#[command(name = "elasticd", version, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    /// The configuration file; `conf.d/*.toml` beside it is read too
    #[arg(short, long, global = true, env = "ELASTICD_CONFIG", default_value = DEFAULT_PATH, value_name = "FILE")]
    config: PathBuf,
    /// The running elasticd's socket; by default the one in the configuration
    #[arg(long, global = true, env = "ELASTICD_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    log: log::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar
    Run,
    /// Check the configuration
    Check,
    /// Check everything elasticd needs, and say what to do
    Doctor(doctor::Args),
    /// Poll the providers once, and print what would be written
    Render(render::Args),
    /// Show the backends of a service
    Get(get::Args),
    /// Show changes as they happen
    Watch(watch::Args),
    /// Pick one backend of a service
    Pick(pick::Args),
    /// Say why an instance is a backend of a service, or why not
    Explain(explain::Args),
    /// Poll every provider now
    Refresh,
    /// Reload the configuration
    Reload,
    /// Accept a held set
    Accept(admin::AcceptArgs),
    /// Register a backend for a limited time
    Register(admin::RegisterArgs),
    /// Remove a registered backend
    Deregister(admin::DeregisterArgs),
    /// Show status
    Status(status::Args),
    /// Show the fleet's leader, and what is published and read
    Fleet(fleet::Args),
    /// List the files that elasticd has written, and remove those that are no outputs any more
    Outputs(outputs::Args),
    /// List the types of frontends, or show the defaults of one
    Frontends(presets::FrontendsArgs),
    /// Print a configuration to start from
    Init(presets::InitArgs),
    /// Try elasticd with a small configuration in ./elasticd-demo
    Demo,
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print completions for a shell
    Completions(generate::CompletionsArgs),
    /// Print the manual page of elasticd or of a subcommand
    Man(generate::ManArgs),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Not a subcommand: only elasticd itself asks for it.
    if arguments.next().is_some_and(|word| word == isolated::WORD) {
        let Err(error) = isolated::enter(arguments);
        eprintln!("{}{error}", isolated::SAYS);
        return ExitCode::from(isolated::NOT_STARTED);
    }
    let Cli { config, socket, log, command } = Cli::parse();
    match command {
        Command::Run => run::run(config, &log),
        Command::Demo => demo::run(&log),
        Command::Check => check::run(&config).into(),
        Command::Doctor(args) => block_on(doctor::run(&args, &config)).into(),
        Command::Render(args) => block_on(render::run(&args, &config)).into(),
        Command::Get(args) => asked(block_on(get::run(&args, &socket_path(socket, &config)))).into(),
        Command::Watch(args) => asked(block_on(watch::run(&args, &socket_path(socket, &config)))).into(),
        Command::Pick(args) => asked(block_on(pick::run(&args, &socket_path(socket, &config)))).into(),
        Command::Explain(args) => asked(block_on(explain::run(&args, &socket_path(socket, &config)))).into(),
        Command::Refresh => change(Change::Refresh, socket, &config),
        Command::Reload => change(Change::Reload, socket, &config),
        Command::Accept(args) => change(Change::Accept(&args), socket, &config),
        Command::Register(args) => change(Change::Register(&args), socket, &config),
        Command::Deregister(args) => change(Change::Deregister(&args), socket, &config),
        Command::Status(args) => {
            let health = block_on(status::run(&args, &socket_path(socket, &config)));
            asked(health.map(|health| match health {
                status::Health::Ready => Exit::SUCCESS,
                status::Health::NotReady => Exit::FAILURE,
            }))
            .into()
        }
        Command::Fleet(args) => asked(block_on(fleet::run(&args, &socket_path(socket, &config)))).into(),
        Command::Outputs(args) => block_on(outputs::run(&args, &config, &socket_path(socket, &config))).into(),
        Command::Frontends(args) => presets::frontends(&args).into(),
        Command::Init(args) => presets::init(&args).into(),
        Command::Schema => generate::schema().into(),
        Command::Completions(args) => generate::completions(&args, Cli::command()).into(),
        Command::Man(args) => generate::man(&args, Cli::command()).into(),
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

impl From<()> for Exit {
    fn from((): ()) -> Self {
        Self::SUCCESS
    }
}

/// Asks for a change on the admin socket: the one given, or the configuration's.
fn change(change: Change<'_>, given: Option<PathBuf>, config: &Path) -> ExitCode {
    let configured = || Config::load(config).ok().map(|config| config.api.admin_socket);
    match given.map(Some).or_else(configured).unwrap_or_else(|| Some(crate::config::DEFAULT_ADMIN_SOCKET.into())) {
        Some(socket) => asked(block_on(change.run(&socket))).into(),
        None => {
            complain(&"nothing can be changed over the API, because the configuration switches api.admin_socket off");
            Exit::CONFIG.into()
        }
    }
}

/// Where elasticd listens: the path given, or the configured one, or the default one if the configuration cannot be read.
fn socket_path(given: Option<PathBuf>, config: &Path) -> PathBuf {
    given
        .or_else(|| Config::load(config).ok().map(|config| config.api.socket))
        .unwrap_or_else(|| PathBuf::from(crate::config::DEFAULT_SOCKET))
}

fn asked(result: Result<impl Into<Exit>, client::Error>) -> Exit {
    match result {
        Ok(done) => done.into(),
        Err(error) => {
            complain(&error);
            if error.is_unavailable() { Exit::UNAVAILABLE } else { Exit::FAILURE }
        }
    }
}

/// Runs a command that needs a runtime only for a moment.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs a few file descriptors and nothing else")
        .block_on(work)
}
