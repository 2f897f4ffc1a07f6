//! Outputs at which a frontend ended.

use std::time::Duration;

use tokio::time::Instant;

use super::digest::Digest;

/// Outputs at which the frontend ended when it was asked to load them. They may be to blame, or the kernel, or a person:
/// they are applied again once a new process runs, and ever later.
pub struct Fatal {
    /// Of the outputs.
    pub digest: Digest,
    /// How often.
    deaths: u32,
    /// Not before this moment.
    pub again_at: Instant,
}

impl Fatal {
    /// Once more. `first` is the shortest pause.
    pub fn next(before: Option<Self>, digest: &Digest, first: Duration) -> Self {
        /// The pause after the first death in units of `first`, and the factor for each further one: a frontend that these
        /// outputs kill is out of service for a moment each time.
        const FACTOR: u32 = 8;
        const MAX: Duration = Duration::from_secs(3600);
        let deaths = before.filter(|before| before.digest == *digest).map_or(0, |before| before.deaths) + 1;
        let pause = first.saturating_mul(FACTOR.saturating_pow(deaths)).min(MAX);
        Self { digest: digest.clone(), deaths, again_at: Instant::now() + pause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_death_puts_off_the_next_attempt_and_other_outputs_begin_anew() {
        let (first, one, other) = (Duration::from_secs(1), Digest::of(b"one"), Digest::of(b"other"));
        let pause = |fatal: &Fatal| fatal.again_at.duration_since(Instant::now()).as_secs_f64().round();
        let mut fatal = Fatal::next(None, &one, first);
        for expected in [8.0, 64.0, 512.0, 3600.0, 3600.0] {
            assert_eq!(pause(&fatal), expected);
            fatal = Fatal::next(Some(fatal), &one, first);
        }
        assert_eq!(pause(&Fatal::next(Some(fatal), &other, first)), 8.0);
    }
}
