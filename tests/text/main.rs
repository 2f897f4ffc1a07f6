//! Every text for people, as snapshots to be reviewed in one place: what is logged, every error and other sentence of
//! the source, the help of every subcommand, and what the command line prints.
//!
//! A text that changes needs its snapshot: `INSTA_UPDATE=always cargo test --test text`, and a look at the difference.

#[expect(dead_code, reason = "the harness has more than is needed here")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod catalogue;
mod help;
mod output;
mod source;
