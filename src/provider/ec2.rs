//! Instances as AWS EC2 lists them.
//!
//! One call, paged, for each region, with the server-side filters that all services have in common. A region that
//! fails, or a page, fails the whole: what comes back is every instance or an error.

mod clients;
mod config;
mod credentials;
mod error;
pub mod events;
mod filters;

use std::collections::{BTreeMap, HashSet};

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::types;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use self::clients::Regional;
pub use self::config::{Config, Raw};
pub use self::error::Error;
use self::events::{Events, Queue};
use super::Provider;
use crate::model::{Instance, InstanceState, Selector};

/// How many regions are asked at a time.
const CONCURRENT_REGIONS: usize = 4;

/// Learns instances from EC2.
#[derive(Debug)]
pub struct Ec2 {
    config: Config,
    filters: Vec<types::Filter>,
    credentials: Option<SharedCredentialsProvider>,
    /// Built when first asked, and again whenever identity, region or connection were in doubt.
    clients: Option<Vec<Regional>>,
    /// Where changes are told, if anywhere.
    events: Option<Events>,
}

impl Ec2 {
    /// A provider that takes its credentials, and the region unless one is configured, from AWS's own chain:
    /// environment, profile, web identity, container, instance metadata.
    ///
    /// Nothing is looked up yet: what is missing is an error of each [`discover`](Provider::discover), until it is
    /// there. Filters are derived from `selectors`; without any, every running instance is listed.
    pub fn new(config: &Config, selectors: &[Selector]) -> Self {
        Self::build(config, selectors, None)
    }

    /// A provider that takes its credentials from `credentials` alone: for embedding, where the environment is not
    /// to be asked. They still only serve to assume the role, if one is configured; `profile` has no meaning then.
    pub fn with_credentials(config: &Config, selectors: &[Selector], credentials: SharedCredentialsProvider) -> Self {
        Self::build(config, selectors, Some(credentials))
    }

    fn build(config: &Config, selectors: &[Selector], credentials: Option<SharedCredentialsProvider>) -> Self {
        let filter = |filter: filters::Filter| {
            types::Filter::builder().name(filter.name).set_values(Some(filter.values)).build()
        };
        let filters = filters::merged(selectors).into_iter().map(filter).collect();
        let events = queue(config, credentials.as_ref()).map(Events::new);
        Self { config: config.clone(), filters, credentials, clients: None, events }
    }

    /// Whether the queue of `events`, if one is configured, can be read and emptied. No message is taken out of it.
    pub async fn examine_events(&self) -> Option<Result<(), events::Error>> {
        Some(queue(&self.config, self.credentials.as_ref())?.examine().await)
    }
}

impl Provider for Ec2 {
    type Error = Error;

    async fn discover(&mut self) -> Result<Vec<Instance>, Error> {
        if let Some(events) = &mut self.events {
            events.poll_begins();
        }
        // Taken out, so that a poll that is given up on half-way starts with new clients, too.
        let clients = match self.clients.take() {
            Some(clients) => clients,
            None => clients::build(&self.config, self.credentials.as_ref()).await?,
        };
        let result = all(&clients, &self.filters, self.config.page_size).await;
        if result.as_ref().err().is_none_or(Error::keeps_clients) {
            self.clients = Some(clients);
        }
        if let (Some(events), Ok(_)) = (&mut self.events, &result) {
            events.poll_succeeded();
        }
        result
    }

    async fn changed(&mut self) {
        match &mut self.events {
            Some(events) => events.changed().await,
            None => std::future::pending().await,
        }
    }
}

/// The queue that changes are told in, if one is configured.
fn queue(config: &Config, credentials: Option<&SharedCredentialsProvider>) -> Option<Queue> {
    config.events.as_ref().map(|events| Queue::new(events, config, credentials))
}

/// Every region's instances.
async fn all(clients: &[Regional], filters: &[types::Filter], page_size: i32) -> Result<Vec<Instance>, Error> {
    let regions: Vec<_> = clients.iter().map(|client| region(client, filters, page_size)).collect();
    stream::iter(regions).buffered(CONCURRENT_REGIONS).try_concat().await
}

/// One region's instances, page by page.
async fn region(client: &Regional, filters: &[types::Filter], page_size: i32) -> Result<Vec<Instance>, Error> {
    let mut instances = Vec::new();
    let mut seen = HashSet::new();
    let mut token = None;
    loop {
        let call = client.ec2.describe_instances().max_results(page_size).set_filters(Some(filters.to_vec()));
        let answer = call.set_next_token(token).send().await.map_err(|error| client.context.explain(&error))?;
        let next = answer.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
        instances.extend(of_page(answer));
        let Some(next) = next else { return Ok(instances) };
        if !seen.insert(next.clone()) {
            return Err(Error::RepeatedToken { region: client.context.region.clone(), page: seen.len() + 1 });
        }
        token = Some(next);
    }
}

fn of_page(page: DescribeInstancesOutput) -> impl Iterator<Item = Instance> {
    let reservations = page.reservations.unwrap_or_default().into_iter();
    reservations.flat_map(|reservation| reservation.instances.unwrap_or_default()).filter_map(instance)
}

/// In elasticd's words. An instance without an id, which EC2 never lists, could not be told from another.
fn instance(listed: types::Instance) -> Option<Instance> {
    let mut instance = Instance::new(listed.instance_id.as_deref()?);
    instance.private_ipv4 = parsed(listed.private_ip_address());
    instance.public_ipv4 = parsed(listed.public_ip_address());
    instance.ipv6 = parsed(listed.ipv6_address()).or_else(|| interface_ipv6(&listed));
    instance.zone = listed.placement().and_then(|placement| placement.availability_zone()).map(str::to_owned);
    instance.state = state(listed.state().and_then(|state| state.name()));
    instance.launched = listed.launch_time().and_then(|at| Timestamp::from_second(at.secs()).ok());
    instance.tags = tags(listed.tags.unwrap_or_default());
    Some(instance)
}

fn parsed<T: std::str::FromStr>(address: Option<&str>) -> Option<T> {
    address.and_then(|address| address.parse().ok())
}

fn interface_ipv6(listed: &types::Instance) -> Option<std::net::Ipv6Addr> {
    let addresses = listed.network_interfaces().iter().flat_map(|interface| interface.ipv6_addresses());
    addresses.filter_map(|address| parsed(address.ipv6_address())).next()
}

/// A state that this version does not know takes no traffic: it is something other than `running`.
fn state(name: Option<&types::InstanceStateName>) -> InstanceState {
    use types::InstanceStateName as Name;
    match name {
        Some(Name::Running) => InstanceState::Running,
        Some(Name::Pending) => InstanceState::Pending,
        Some(Name::ShuttingDown) => InstanceState::ShuttingDown,
        Some(Name::Stopping) => InstanceState::Stopping,
        Some(Name::Terminated) => InstanceState::Terminated,
        _ => InstanceState::Stopped,
    }
}

fn tags(listed: Vec<types::Tag>) -> BTreeMap<String, String> {
    listed.into_iter().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect()
}
