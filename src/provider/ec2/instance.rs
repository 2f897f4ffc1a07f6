//! From the SDK's words to ours.

use aws_sdk_ec2::types::{self, InstanceStateName};
use jiff::Timestamp;

use crate::model::{Instance, InstanceState};

/// One instance. `None`: EC2 gave it no id, or a state that nobody knows yet, of which it is not safe to say that it
/// runs.
pub(super) fn from_sdk(listed: types::Instance) -> Option<Instance> {
    let mut instance = Instance::new(listed.instance_id.filter(|id| !id.is_empty())?);
    instance.state = state(listed.state.and_then(|state| state.name)?)?;
    // An address we cannot read is one we do not have: selection then names the instance.
    instance.private_ipv4 = listed.private_ip_address.and_then(|ip| ip.parse().ok());
    instance.public_ipv4 = listed.public_ip_address.and_then(|ip| ip.parse().ok());
    let interfaces = listed.network_interfaces.iter().flatten();
    let mut addresses = interfaces.flat_map(|i| i.ipv6_addresses()).filter_map(|a| a.ipv6_address());
    instance.ipv6 = addresses.find_map(|ip| ip.parse().ok()).or_else(|| listed.ipv6_address?.parse().ok());
    instance.zone = listed.placement.and_then(|placement| placement.availability_zone);
    instance.launched = listed.launch_time.and_then(|at| Timestamp::from_second(at.secs()).ok());
    let tags = listed.tags.into_iter().flatten();
    instance.tags = tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect();
    Some(instance)
}

fn state(name: InstanceStateName) -> Option<InstanceState> {
    Some(match name {
        InstanceStateName::Pending => InstanceState::Pending,
        InstanceStateName::Running => InstanceState::Running,
        InstanceStateName::Stopping => InstanceState::Stopping,
        InstanceStateName::Stopped => InstanceState::Stopped,
        InstanceStateName::ShuttingDown => InstanceState::ShuttingDown,
        InstanceStateName::Terminated => InstanceState::Terminated,
        _ => return None,
    })
}
