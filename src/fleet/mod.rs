//! Publishing what providers observe to a fleet, and which of several publishers leads.
//!
//! # Why one leader's writes never replace its successor's
//!
//! Nothing here depends on clocks of different machines, or on a pause being short.
//!
//! 1. The store gives every write to a key one place in one order, and does a write that names the revision it replaces
//!    only if that is still the key's last ("compare and set"). A leader writes in no other way: the leader key, each
//!    provider's manifest and each heartbeat.
//! 2. A publisher leads from the moment at which its write of the leader key replaced the revision it had read. Of
//!    several that read the same revision one succeeds. Its term is higher than that of the record it replaced, and
//!    than any it ever saw.
//! 3. Before it polls, a new leader replaces every manifest by one with the same content and its own term: the fence.
//!    From then on the revision that an earlier leader knows of as the last is not the last, and never will be again:
//!    every write of the earlier one fails, however late it comes, and also one that was on its way at that time.
//! 4. A publisher that fails to replace a value reads the key again only to learn whose term is there. If that is a
//!    higher one, it no longer leads; it never takes up the new revision and tries again.
//! 5. Chunks are written under the hash of their bytes, so that it does not matter who writes them. Removing one names
//!    the highest revision to remove; a chunk that a successor wrote anew has a higher one and is kept.
//!
//! Time only decides how soon another one leads: a leader that cannot renew its lead gives up after four tenths of
//! `leader_ttl` by its own clock, and others try to take over after six tenths without a renewal by theirs.
//!
//! A reader takes a set only if its position (term, number) is higher than all it has seen. The store may lose
//! everything: the terms go on from what publishers remember, and at least from the clock's milliseconds, so that they
//! grow even when no publisher remembers any.

mod config;
pub mod leader;
mod manifest_writer;
mod publish_loop;
pub mod publisher;

pub use config::{Config, Raw};
pub use publisher::{Publisher, check};

use crate::provider;

/// What `[publish]` is of, and the providers that read what it publishes.
pub const TYPE: Option<&str> = Some(<provider::nats::Config as provider::Configuration>::TYPE);

/// How leading ended, if not by an error.
enum Ended {
    Deposed,
    Stopped,
}
