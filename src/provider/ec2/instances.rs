//! `DescribeInstances`: which instances there are.

use aws_sdk_ec2::types;
use jiff::Timestamp;

use super::Error;
use super::call::Call;
use super::clients::Regional;
use super::filters::{Filter, GROUP_TAG};
use super::pages::follow;
use crate::model::{Instance, InstanceState, Tags};
use crate::provider::machine_size;

/// One region's instances, ordered by id. Each of `calls` is followed to its end; an instance in several answers
/// counts once, as it was listed last.
pub(super) async fn list(at: &Regional, calls: &[Vec<Filter>]) -> Result<Vec<Instance>, Error> {
    let mut instances = Vec::new();
    for filters in calls {
        let filters: Vec<_> = filters.iter().map(filter).collect();
        let page = |token| {
            let call = at.ec2.describe_instances().max_results(at.page_size);
            call.set_filters(Some(filters.clone())).set_next_token(token).send()
        };
        let take = |page: aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput| {
            let reservations = page.reservations.unwrap_or_default().into_iter();
            let listed = reservations.flat_map(|reservation| reservation.instances.unwrap_or_default());
            instances.extend(listed.filter_map(instance));
            page.next_token
        };
        follow(at, Call::DescribeInstances, page, take).await?;
    }
    Ok(each_once(instances))
}

pub(super) fn filter(filter: &Filter) -> types::Filter {
    types::Filter::builder().name(&filter.name).set_values(Some(filter.values.clone())).build()
}

fn each_once(mut instances: Vec<Instance>) -> Vec<Instance> {
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    instances.dedup_by(|later, earlier| {
        let again = later.id == earlier.id;
        if again {
            std::mem::swap(later, earlier);
        }
        again
    });
    instances
}

/// In elasticd's words. An instance without an id, which EC2 never lists, could not be distinguished from another.
fn instance(listed: types::Instance) -> Option<Instance> {
    let mut instance = Instance::new(listed.instance_id.as_deref()?);
    instance.private_ipv4 = parsed(listed.private_ip_address());
    instance.public_ipv4 = parsed(listed.public_ip_address());
    instance.ipv6 = parsed(listed.ipv6_address()).or_else(|| interface_ipv6(&listed));
    instance.zone = listed.placement().and_then(|placement| placement.availability_zone()).map(str::to_owned);
    instance.instance_type = listed.instance_type().map(|kind| kind.as_str().to_owned());
    instance.size = instance.instance_type.as_deref().and_then(machine_size::of_kind);
    instance.state = state(listed.state().and_then(|state| state.name()));
    instance.launched = listed.launch_time().and_then(|at| Timestamp::from_second(at.secs()).ok());
    instance.tags = tags(listed.tags.unwrap_or_default());
    instance.group = instance.tags.get(GROUP_TAG).cloned();
    (instance.vpc, instance.subnet) = (listed.vpc_id, listed.subnet_id);
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

fn tags(listed: Vec<types::Tag>) -> Tags {
    listed.into_iter().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect()
}
