//! The frontends that elasticd configures: nginx, HAProxy and others, each with a worker of its own.
//!
//! A new frontend is a folder in `templates/` and no code, unless it has a runtime API of its own; that is a file in
//! `runtime/`.

mod applied;
mod apply;
mod checking;
mod config;
mod digest;
pub mod escape;
mod fatal;
pub mod functions;
mod journal;
pub mod orphans;
mod output_index;
mod parse;
mod plan;
mod presence;
pub mod preset;
mod proof;
mod raw;
pub mod rendering;
mod resolve;
mod runtime;
mod staging;
pub mod template;
mod verify;
mod version;
mod worker;

pub use checking::{Checking, Unread};
pub use config::{CANDIDATE, Check, Config, Guards, Output, Pacing, Proof, Reload};
pub use output_index::OutputIndex;
pub use parse::gid;
pub use raw::Raw;
pub use verify::VarsRead;
pub use worker::{BuildError, Links, Worker};
