//! `status_checks` and `scheduled_events`: what EC2 itself has found wrong with instances, or has in store for them.
//!
//! Both ask `DescribeInstanceStatus` only for the instances that are affected, so that the cost does not grow with the
//! fleet: a call for each of the two checks, which no filter joins by "or", and one for events.

use std::time::Duration;

use aws_sdk_ec2::operation::describe_instance_status::DescribeInstanceStatusOutput;
use aws_sdk_ec2::types::{EventCode, InstanceStatus, InstanceStatusEvent};
use jiff::Timestamp;

use super::Error;
use super::availability::{AvailabilityOverrides, leaving, out};
use super::call::Call;
use super::clients::Regional;
use super::filters::Filter;
use super::instances::filter;
use super::pages::follow;
use crate::model::Availability;

/// How long before its time a scheduled event makes an instance leave.
const LEAD: Duration = Duration::from_secs(15 * 60);

/// The events that interrupt an instance: all there are.
const EVENTS: [EventCode; 5] = [
    EventCode::InstanceReboot,
    EventCode::InstanceRetirement,
    EventCode::InstanceStop,
    EventCode::SystemMaintenance,
    EventCode::SystemReboot,
];

/// What a check says of an instance that fails it. `initializing` and `insufficient-data` are no failures: with the
/// latter, EC2 merely does not know.
const IMPAIRED: &str = "impaired";

/// An instance that fails a check is out.
pub(super) async fn checks(at: &Regional, overrides: &mut AvailabilityOverrides) -> Result<(), Error> {
    for (name, check) in [("system-status.status", "system"), ("instance-status.status", "instance")] {
        let each = |listed: InstanceStatus| {
            let Some(id) = listed.instance_id() else { return };
            let status = if check == "system" { listed.system_status() } else { listed.instance_status() };
            // Whatever the filter let through.
            if status.and_then(|status| status.status()).is_some_and(|status| status.as_str() == IMPAIRED) {
                overrides.add(id, out(format!("fails EC2's {check} status check")));
            }
        };
        affected(at, name, vec![IMPAIRED.to_owned()], each).await?;
    }
    Ok(())
}

/// An instance that EC2 is going to interrupt leaves some time before.
pub(super) async fn events(at: &Regional, now: Timestamp, overrides: &mut AvailabilityOverrides) -> Result<(), Error> {
    let codes = EVENTS.iter().map(|code| code.as_str().to_owned()).collect();
    let each = |listed: InstanceStatus| {
        let Some(id) = listed.instance_id() else { return };
        for availability in listed.events().iter().filter_map(|event| of_event(event, now)) {
            overrides.add(id, availability);
        }
    };
    affected(at, "event.code", codes, each).await
}

async fn affected(
    at: &Regional,
    name: &str,
    values: Vec<String>,
    mut each: impl FnMut(InstanceStatus),
) -> Result<(), Error> {
    let filter = filter(&Filter { name: name.to_owned(), values });
    let page = |token| {
        let call = at.ec2.describe_instance_status().max_results(at.page_size);
        call.filters(filter.clone()).set_next_token(token).send()
    };
    let take = |page: DescribeInstanceStatusOutput| {
        page.instance_statuses.unwrap_or_default().into_iter().for_each(&mut each);
        page.next_token
    };
    follow(at, Call::DescribeInstanceStatus, page, take).await
}

fn of_event(event: &InstanceStatusEvent, now: Timestamp) -> Option<Availability> {
    let code = event.code().filter(|code| EVENTS.contains(code))?;
    // For a week, EC2 goes on listing what is over (EC2 user guide, "Scheduled events for your instances").
    let is_over = |words: &str| words.starts_with("[Completed]") || words.starts_with("[Canceled]");
    if event.description().is_some_and(is_over) {
        return None;
    }
    let at = Timestamp::from_second(event.not_before()?.secs()).ok()?;
    (now >= at - LEAD).then(|| leaving(format!("is scheduled for {code} at {at}")))
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::primitives::DateTime;

    use super::*;

    fn event(code: &str, at: &str, description: &str) -> InstanceStatusEvent {
        let at: Timestamp = at.parse().expect("a time");
        let event = InstanceStatusEvent::builder().code(code.into()).description(description);
        event.not_before(DateTime::from_secs(at.as_second())).build()
    }

    #[test]
    fn an_event_makes_leave_a_quarter_of_an_hour_before() {
        let at = "2026-01-02T03:00:00Z";
        let verdict = |event: &InstanceStatusEvent, now: &str| of_event(event, now.parse().expect("a time"));
        for code in ["instance-stop", "instance-retirement", "system-maintenance", "instance-reboot", "system-reboot"] {
            let event = event(code, at, "The instance is running on degraded hardware");
            assert_eq!(verdict(&event, "2026-01-02T02:44:59Z"), None);
            let expected = Some(leaving(format!("is scheduled for {code} at {at}")));
            assert_eq!(verdict(&event, "2026-01-02T02:45:00Z"), expected);
            assert_eq!(verdict(&event, "2026-01-03T00:00:00Z"), expected, "until it is over");
        }
        let later = "2026-01-03T00:00:00Z";
        assert_eq!(verdict(&event("instance-stop", at, "[Completed] Done"), later), None);
        assert_eq!(verdict(&event("instance-stop", at, "[Canceled] Not done"), later), None);
        assert_eq!(verdict(&event("instance-inspection", at, ""), later), None);
        assert_eq!(verdict(&InstanceStatusEvent::builder().code(EventCode::InstanceStop).build(), later), None);
    }
}
