use super::Age;
use super::measure::{counters_of, report};

counters_of! {
    /// The calls made to a provider's source.
    pub struct ApiUsage {
        /// Calls to the source, repeated ones included.
        calls,
        /// Pages the source answered with.
        pages,
        /// Calls that the source refused because there were too many, even if they succeeded when repeated.
        throttles,
    }
}

report! {
    /// The status of a provider. Counters are of the time since elasticd started.
    #[schemars(rename = "ProviderStatus")]
    pub struct Provider {
        /// The provider's type.
        #[serde(rename = "type")]
        type_name: String,
        /// How long ago the provider last answered in full; absent before the first complete answer.
        age_seconds: Option<Age> => gauge,
        /// Instances in the last complete answer.
        instances: usize => gauge,
        /// How long the last poll took.
        poll_duration_seconds: f64 => gauge,
        /// Polls, failed ones included.
        polls: u64 => counter,
        /// Failed polls.
        failures: u64 => counter,
        /// What the polls cost.
        #[serde(flatten)]
        usage: ApiUsage => all,
        /// Why the last poll failed; null if it did not.
        error: Option<String>,
    }
}
