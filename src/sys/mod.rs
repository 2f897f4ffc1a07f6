//! Leaves: what the operating system offers, in the form the other rooms need. Nothing here knows of them.

pub mod atomic_file;
pub mod backoff;
pub mod command;
pub mod confine;
pub mod endpoint;
pub mod group;
pub mod http;
pub mod https;
pub mod human;
pub mod isolated;
pub mod lock;
pub mod process;
pub mod program;
pub mod reaper;
pub mod regular_file;
pub mod systemd;
pub mod text;
pub mod ticks;
pub mod unconfined;
pub mod unix_socket;
pub mod watch;
