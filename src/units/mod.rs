//! Durations, sizes and file modes, as people write and read them.
//!
//! The types here are what the configuration is read into; [`duration`] and [`size`] print any duration and any number of
//! bytes for people.

mod byte_size;
mod file_mode;
mod human;
mod time_span;

pub use byte_size::{ByteSize, size};
pub use file_mode::FileMode;
pub use human::HumanDuration;
pub use time_span::{TimeSpan, duration};
