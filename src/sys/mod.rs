//! Leaves: what the operating system offers, in the form that the other modules need. Nothing here knows of them.
//!
//! A function that may block (on a disk, a lock, another thread) says so, and is called from threads that answer nothing.
//! Handles, such as [`unconfined::Unconfined`], are made in `app` and passed in; there is no hidden global state.

pub mod access;
pub mod atomic_file;
pub mod backoff;
pub mod child;
pub mod confine;
pub mod directory;
pub mod endpoint;
pub mod group;
pub mod http;
pub mod https;
pub mod isolated;
pub mod lock;
pub mod output_file;
pub mod ownership;
pub mod process;
pub mod reaper;
pub mod regular_file;
pub mod signal_state;
pub mod systemd;
pub mod text;
pub mod ticks;
pub mod unconfined;
pub mod unix_socket;
pub mod usage;
pub mod watch;
