//! Instances as AWS EC2 lists them.
//!
//! One call, paged, for each region, with the server-side filters that all services have in common; and, where the
//! configuration says so, one or a few more for what EC2 and Auto Scaling know beyond an instance's being started. A
//! region that fails, or a call, or a page, fails the whole: what comes back is every instance or an error.

mod auto_scaling;
mod availability;
mod call;
mod call_counter;
mod clients;
mod config;
mod credentials;
mod error;
pub mod events;
mod filters;
mod instances;
mod pages;
mod spot;
mod status;
mod xml;
mod zone;

use aws_credential_types::provider::SharedCredentialsProvider;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use self::availability::AvailabilityOverrides;
pub use self::call::Call;
use self::call_counter::ApiCallCounter;
use self::clients::Regional;
pub use self::config::{Config, Raw};
pub use self::error::Error;
use self::events::{Events, Queue};
use self::filters::Filter;
pub use self::zone::ZoneError;
use super::rate_limiter::RateLimiter;
use super::{ApiUsage, BuildContext, Configuration, Context, Provider, ZoneLookup};
use crate::model::{FieldFault, Instance, Selector};
use crate::sys::unconfined::Unconfined;

/// How many regions are listed at a time.
const CONCURRENT_REGIONS: usize = 4;

/// Learns instances from EC2.
#[derive(Debug)]
pub struct Ec2 {
    config: Config,
    /// The filters of each of a poll's calls for instances.
    calls: Vec<Vec<Filter>>,
    rate_limiter: RateLimiter,
    counter: ApiCallCounter,
    credentials: credentials::Source,
    /// Built at the first poll, and again whenever credentials, region or connection were in doubt.
    clients: Option<Vec<Regional>>,
    /// The queue of change events, if one is configured.
    events: Option<Events>,
}

impl Ec2 {
    /// A provider that takes its credentials, and the region unless one is configured, from AWS's own chain:
    /// environment, profile, web identity, container, instance metadata.
    ///
    /// Nothing is looked up yet: what is missing is an error of each [`discover`](Provider::discover), until it is
    /// there. Filters are derived from the selectors; without any, every running instance is listed.
    pub fn new(config: &Config, context: &BuildContext<'_>) -> Self {
        let source = credentials::Source { given: None, unconfined: context.unconfined.clone() };
        Self::build(config, context.selectors, source)
    }

    /// A provider that takes its credentials from `credentials` alone: for embedding, where the environment is not
    /// to be used. They still only serve to assume the role, if one is configured; `profile` has no meaning then.
    pub fn with_credentials(config: &Config, selectors: &[Selector], credentials: SharedCredentialsProvider) -> Self {
        let source = credentials::Source { given: Some(credentials), unconfined: Unconfined::default() };
        Self::build(config, selectors, source)
    }

    fn build(config: &Config, selectors: &[Selector], credentials: credentials::Source) -> Self {
        let events = queue(config, &credentials).map(Events::new);
        Self {
            config: config.clone(),
            calls: filters::calls(selectors),
            rate_limiter: RateLimiter::new(config.api_budget),
            counter: ApiCallCounter::default(),
            credentials,
            clients: None,
            events,
        }
    }
}

impl Ec2 {
    /// Lists the instances of all regions.
    ///
    /// # Errors
    ///
    /// [`Error`]: what [`Provider::discover`] fails with, as this module's own type.
    pub async fn discover(&mut self) -> Result<Vec<Instance>, Error> {
        if let Some(events) = &mut self.events {
            events.poll_begins();
        }
        // Taken out, so that a poll that is given up on half-way starts with new clients, too.
        let clients = match self.clients.take() {
            Some(clients) => clients,
            None => clients::build(&self.config, &self.credentials, &self.rate_limiter, &self.counter).await?,
        };
        let result = all(&self.config, &clients, &self.calls).await;
        if result.as_ref().err().is_none_or(Error::keeps_clients) {
            self.clients = Some(clients);
        }
        if let (Some(events), Ok(_)) = (&mut self.events, &result) {
            events.poll_succeeded();
        }
        result
    }
}

impl Configuration for Config {
    const TYPE: &'static str = "ec2";
    const EXAMPLE: Option<&'static str> = Some("type    = \"ec2\"\nregions = [\"eu-west-1\"]\n");
    const OWN_ZONE: Option<ZoneLookup> = Some(|| Box::pin(async { Ok(zone::own_zone().await?) }));

    type Raw = Raw;

    fn resolve(raw: Raw, _context: &Context<'_>) -> Result<Self, Vec<FieldFault>> {
        raw.resolve()
    }

    fn build(&self, context: &BuildContext<'_>) -> Box<dyn Provider> {
        Box::new(Ec2::new(self, context))
    }
}

impl Provider for Ec2 {
    fn discover(&mut self) -> BoxFuture<'_, Result<Vec<Instance>, super::Error>> {
        Box::pin(async { Ok(Ec2::discover(self).await?) })
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        match &mut self.events {
            Some(events) => Box::pin(events.changed()),
            None => Box::pin(std::future::pending()),
        }
    }

    fn usage(&mut self) -> ApiUsage {
        self.counter.take()
    }

    fn rate_limiter(&self) -> RateLimiter {
        self.rate_limiter.clone()
    }

    fn check_events(&self) -> Option<BoxFuture<'_, Result<&'static str, super::Error>>> {
        let queue = queue(&self.config, &self.credentials)?;
        Some(Box::pin(async {
            queue.check().await?;
            Ok("the queue can be read and emptied")
        }))
    }
}

/// The queue of change events, if one is configured.
fn queue(config: &Config, credentials: &credentials::Source) -> Option<Queue> {
    config.events.as_ref().map(|events| Queue::new(events, config, credentials))
}

/// Every region's instances.
async fn all(config: &Config, clients: &[Regional], calls: &[Vec<Filter>]) -> Result<Vec<Instance>, Error> {
    let regions: Vec<_> = clients.iter().map(|at| region(config, at, calls)).collect();
    stream::iter(regions).buffered(CONCURRENT_REGIONS).try_concat().await
}

/// One region's instances, and what else is said of them.
async fn region(config: &Config, at: &Regional, calls: &[Vec<Filter>]) -> Result<Vec<Instance>, Error> {
    let mut instances = instances::list(at, calls).await?;
    if instances.is_empty() {
        return Ok(instances);
    }
    let mut overrides = AvailabilityOverrides::default();
    if config.auto_scaling {
        auto_scaling::lifecycles(at, &instances, &mut overrides).await?;
    }
    if config.status_checks {
        status::checks(at, &mut overrides).await?;
    }
    if config.scheduled_events {
        status::events(at, Timestamp::now(), &mut overrides).await?;
    }
    if config.spot {
        spot::interruptions(at, &mut overrides).await?;
    }
    overrides.apply(&mut instances);
    Ok(instances)
}
