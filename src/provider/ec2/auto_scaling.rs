//! `auto_scaling`: where in their lifecycle the instances of Auto Scaling groups are.
//!
//! `DescribeAutoScalingGroups` answers with up to 100 groups a page and all instances of each;
//! `DescribeAutoScalingInstances` with up to 50 instances (Auto Scaling API reference, `MaxRecords` of both). So the
//! former it is, of the groups to which the instances found say they belong: 5,000 instances in 20 groups are one page
//! rather than a hundred, and where there is no group, no call is made.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_autoscaling::operation::describe_auto_scaling_groups::DescribeAutoScalingGroupsOutput;
use aws_sdk_autoscaling::types::{Instance as Member, LifecycleState};

use super::Error;
use super::availability::{AvailabilityOverrides, leaving, out};
use super::call::Call;
use super::clients::Regional;
use super::pages::follow;
use crate::model::{Availability, Instance};

/// How many groups are named in a call, and come back in a page: the API's limit.
const GROUPS: u8 = 100;

/// Takes out of traffic what the groups do, of the instances that belong to one.
pub(super) async fn lifecycles(
    at: &Regional,
    instances: &[Instance],
    overrides: &mut AvailabilityOverrides,
) -> Result<(), Error> {
    let grouped = || instances.iter().filter_map(|instance| Some((&*instance.id, instance.group.as_deref()?)));
    let groups: Vec<&str> = grouped().map(|(_, group)| group).collect::<BTreeSet<_>>().into_iter().collect();
    let mut members = BTreeMap::new();
    for groups in groups.chunks(usize::from(GROUPS)) {
        let names: Vec<_> = groups.iter().map(|&group| group.to_owned()).collect();
        let page = |token| {
            let call = at.auto_scaling.describe_auto_scaling_groups().max_records(GROUPS.into());
            call.set_auto_scaling_group_names(Some(names.clone())).set_next_token(token).send()
        };
        let take = |page: DescribeAutoScalingGroupsOutput| {
            let groups = page.auto_scaling_groups.unwrap_or_default().into_iter();
            let listed = groups.flat_map(|group| group.instances.unwrap_or_default());
            members.extend(listed.filter_map(|member| {
                let availability = availability(&member);
                Some((member.instance_id?, availability))
            }));
            page.next_token
        };
        follow(at, Call::DescribeAutoScalingGroups, page, take).await?;
    }
    for (id, group) in grouped() {
        // Its group has not taken it in yet, or has let go of it.
        let unlisted = || out(format!("is not among the instances of its Auto Scaling group {group:?}"));
        overrides.add(id, members.remove(id).unwrap_or_else(unlisted));
    }
    Ok(())
}

/// Only `InService` takes traffic. What terminates may finish what it has begun; all other states, those included that
/// this version does not know, are on the way in, aside, or gone (EC2 Auto Scaling user guide, "Amazon EC2 Auto Scaling
/// instance lifecycle").
fn availability(member: &Member) -> Availability {
    use LifecycleState as State;
    // The API's own words are `Healthy` and `Unhealthy`.
    if member.health_status().is_some_and(|health| health.eq_ignore_ascii_case("unhealthy")) {
        return out("is Unhealthy to its Auto Scaling group");
    }
    let Some(state) = member.lifecycle_state() else {
        return out("is in no lifecycle state that its Auto Scaling group knows");
    };
    let why = || format!("is in the lifecycle state {state}");
    match state {
        State::InService => Availability::Ready,
        State::Terminating | State::TerminatingWait | State::TerminatingProceed => leaving(why()),
        _ => out(why()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(state: &str, health: &str) -> Member {
        Member::builder().instance_id("i").lifecycle_state(state.into()).health_status(health).build()
    }

    #[test]
    fn only_in_service_takes_traffic() {
        assert_eq!(availability(&member("InService", "Healthy")), Availability::Ready);
        for state in ["Terminating", "Terminating:Wait", "Terminating:Proceed"] {
            assert_eq!(availability(&member(state, "Healthy")), leaving(format!("is in the lifecycle state {state}")));
        }
        for state in [
            "Pending",
            "Pending:Wait",
            "Pending:Proceed",
            "Standby",
            "EnteringStandby",
            "Detaching",
            "Detached",
            "Quarantined",
            "Terminated",
            "Terminating:Retained",
            "Warmed:Pending",
            "Warmed:Running",
            "Warmed:Stopped",
            "Warmed:Terminating",
            "Warmed:Hibernated",
            "ReplacingRootVolume",
            "Meditating",
        ] {
            assert_eq!(availability(&member(state, "Healthy")), out(format!("is in the lifecycle state {state}")));
        }
        for state in ["InService", "Terminating:Wait"] {
            assert_eq!(availability(&member(state, "Unhealthy")), out("is Unhealthy to its Auto Scaling group"));
        }
        assert!(matches!(availability(&Member::builder().build()), Availability::Out { .. }));
    }
}
