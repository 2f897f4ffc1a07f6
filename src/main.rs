//! The `elasticd` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    elasticd::cli::main()
}
