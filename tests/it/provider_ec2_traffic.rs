//! Which instances the `ec2` provider lets take traffic: what Auto Scaling, status checks, scheduled events and spot
//! requests say of them.

use std::collections::BTreeMap;

use elasticd::model::{Attribute, Availability, Condition, Instance, Selector};
use elasticd::provider::ec2::{Config, Error};
use elasticd::provider::{ApiUsage, Provider as _};

use crate::ec2_endpoint::{Endpoint, Fault, GROUP, Machine, When};
use crate::moto::Moto;
use crate::provider_ec2::{assert_says, config, ec2, ids, machines, selector};

/// A machine of the group `web`, in this state.
fn member(number: u32, state: &str, health: &str) -> Machine {
    let lifecycle = Some((state.to_owned(), health.to_owned()));
    Machine { lifecycle, ..Machine::numbered(number, &[(GROUP, "web")]) }
}

fn asking_all(url: String) -> Config {
    Config { auto_scaling: true, status_checks: true, scheduled_events: true, spot: true, ..config(url) }
}

/// What is said of each, in short, by number.
fn said(instances: &[Instance]) -> BTreeMap<u32, String> {
    let short = |availability: &Availability| match availability {
        Availability::Ready => "ready".to_owned(),
        Availability::Leaving { why } => format!("leaving: {why}"),
        Availability::Out { why } => format!("out: {why}"),
    };
    let number = |id: &str| u32::from_str_radix(&id[2..], 16).expect("a number");
    instances.iter().map(|instance| (number(&instance.id), short(&instance.availability))).collect()
}

#[tokio::test]
async fn only_instances_in_service_take_traffic_and_those_in_no_group_are_left_alone() {
    let mut fleet = vec![
        member(0, "InService", "Healthy"),
        member(1, "Terminating:Wait", "Healthy"),
        member(2, "Standby", "Healthy"),
        member(3, "Pending:Wait", "Healthy"),
        member(4, "InService", "Unhealthy"),
        member(5, "Warmed:Running", "Healthy"),
        member(6, "Terminating", "Unhealthy"),
        Machine { lifecycle: None, ..member(7, "", "") },
    ];
    fleet.extend(machines(10).split_off(8));
    let endpoint = Endpoint::start(fleet);
    let mut provider = ec2(&Config { auto_scaling: true, ..config(endpoint.url()) }, &[]);
    let instances = provider.discover().await.expect("instances");
    let expected = [
        "ready",
        "leaving: is in the lifecycle state Terminating:Wait",
        "out: is in the lifecycle state Standby",
        "out: is in the lifecycle state Pending:Wait",
        "out: is Unhealthy to its Auto Scaling group",
        "out: is in the lifecycle state Warmed:Running",
        "out: is Unhealthy to its Auto Scaling group",
        "out: is not among the instances of its Auto Scaling group \"web\"",
        "ready",
        "ready",
    ];
    assert_eq!(said(&instances).into_values().collect::<Vec<_>>(), expected);
    assert_eq!(instances[0].group.as_deref(), Some("web"));
    assert_eq!(provider.usage(), ApiUsage { calls: 2, pages: 2, throttles: 0 });

    // Unless it is asked for, nothing of it is.
    let instances = ec2(&config(endpoint.url()), &[]).discover().await.expect("instances");
    assert!(instances.iter().all(|instance| instance.availability == Availability::Ready));
}

#[tokio::test]
async fn a_hundred_groups_are_asked_for_in_a_call() {
    let group = |n: u32| Machine {
        lifecycle: Some(("InService".to_owned(), "Healthy".to_owned())),
        ..Machine::numbered(n, &[(GROUP, &format!("group {}", n / 20))])
    };
    let endpoint = Endpoint::start((0..5000).map(group).collect());
    let mut provider = ec2(&Config { auto_scaling: true, ..config(endpoint.url()) }, &[]);
    let instances = provider.discover().await.expect("instances");
    assert!(instances.iter().all(|instance| instance.availability == Availability::Ready));
    let asked: Vec<_> =
        endpoint.requests().into_iter().filter(|form| form["Action"] == "DescribeAutoScalingGroups").collect();
    let names =
        |form: &&BTreeMap<String, String>| form.keys().filter(|key| key.starts_with("AutoScalingGroupN")).count();
    assert_eq!(asked.iter().map(|form| names(&form)).collect::<Vec<_>>(), [100, 100, 50]);
    assert!(asked.iter().all(|form| form["MaxRecords"] == "100"));
    // However short its pages are, all of them are read.
    endpoint.set_page_size(Some(30));
    endpoint.fault(When::Call("DescribeAutoScalingGroups"), Fault::EmptyPage);
    let instances = provider.discover().await.expect("instances");
    assert!(instances.iter().all(|instance| matches!(instance.availability, Availability::Out { .. })));
    endpoint.heal();
    let instances = provider.discover().await.expect("instances");
    assert!(instances.iter().all(|instance| instance.availability == Availability::Ready));
}

#[tokio::test]
async fn checks_events_and_spot_requests_are_heeded_at_a_constant_cost() {
    let mut fleet = machines(3000);
    fleet[1].impaired = Some("system".to_owned());
    fleet[2].impaired = Some("instance".to_owned());
    let event = |at: &str, what: &str| Some(("instance-retirement".to_owned(), at.to_owned(), what.to_owned()));
    fleet[3].event = event("2026-01-02T03:00:00Z", "The hardware is degraded");
    fleet[4].event = event("2126-01-02T03:00:00Z", "The hardware is degraded");
    fleet[5].event = event("2026-01-02T03:00:00Z", "[Completed] The hardware is degraded");
    fleet[6].spot = Some("marked-for-termination".to_owned());
    fleet[7].spot = Some("fulfilled".to_owned());
    // The strictest holds.
    (fleet[8].spot, fleet[8].impaired) = (Some("marked-for-stop".to_owned()), Some("system".to_owned()));
    let endpoint = Endpoint::start(fleet);
    let mut provider = ec2(&asking_all(endpoint.url()), &[]);
    let mut said = said(&provider.discover().await.expect("instances"));
    said.retain(|_, said| said != "ready");
    let expected = [
        (1, "out: fails EC2's system status check"),
        (2, "out: fails EC2's instance status check"),
        (3, "leaving: is scheduled for instance-retirement at 2026-01-02T03:00:00Z"),
        (6, "leaving: is a spot instance marked-for-termination"),
        (8, "out: fails EC2's system status check"),
    ];
    assert_eq!(said.iter().map(|(n, said)| (*n, said.as_str())).collect::<Vec<_>>(), expected);
    // Three pages of instances, one for each check, one for events, one for spot requests, none for groups.
    assert_eq!(provider.usage(), ApiUsage { calls: 7, pages: 7, throttles: 0 });
}

#[tokio::test]
async fn any_call_that_fails_fails_the_whole_and_names_its_action() {
    let fleet = || vec![member(0, "InService", "Healthy"), member(1, "InService", "Healthy")];
    for (call, action) in [
        ("DescribeInstances", "ec2:DescribeInstances"),
        ("DescribeAutoScalingGroups", "autoscaling:DescribeAutoScalingGroups"),
        ("DescribeInstanceStatus", "ec2:DescribeInstanceStatus"),
        ("DescribeSpotInstanceRequests", "ec2:DescribeSpotInstanceRequests"),
    ] {
        let endpoint = Endpoint::start(fleet());
        let mut provider = ec2(&asking_all(endpoint.url()), &[]);
        endpoint.fault(When::Call(call), Fault::Unauthorized);
        let error = provider.discover().await.expect_err("never a part");
        assert!(matches!(error, Error::AccessDenied { .. }), "{error}");
        assert_says(&error, &[&format!("refused {call}"), &format!("`{action}`"), "us-east-1"]);
        endpoint.heal();
        endpoint.fault(When::Call(call), Fault::Throttled);
        let error = provider.discover().await.expect_err("never a part");
        assert!(error.is_throttled(), "{error}");
        assert_says(&error, &[&format!("throttled {call}")]);
        endpoint.heal();
        endpoint.fault(When::Call(call), Fault::Html(502));
        let key = if call.contains("Auto") { "`auto_scaling_endpoint_url`" } else { "`endpoint_url`" };
        assert_says(&provider.discover().await.expect_err("never a part"), &["502", key]);
        endpoint.heal();
        assert_eq!(provider.discover().await.expect("healed").len(), 2);
    }
}

#[tokio::test]
async fn motos_groups_set_instances_to_standby_and_terminate_them() {
    let moto = Moto::start().await;
    moto.create_group("web", 3, &[("Role", "web")]).await;
    let lone = moto.launch(&[("Role", "web")], "127.1.0.1", None).await;
    let scaling = moto.auto_scaling();
    let config = Config { auto_scaling: true, ..config(moto.url()) };
    let mut provider = ec2(&config, &[selector(&[("Role", &["web"])])]);
    let instances = provider.discover().await.expect("instances");
    assert_eq!(instances.len(), 4);
    let members: Vec<_> = instances.iter().filter(|i| i.id != lone).map(|i| i.id.clone()).collect();
    assert!(instances.iter().all(|instance| instance.availability == Availability::Ready), "{instances:#?}");
    assert!(instances.iter().all(|instance| instance.vpc.is_some() && instance.subnet.is_some()), "{instances:#?}");
    assert!(instances.iter().all(|instance| (instance.group.as_deref() == Some("web")) != (instance.id == lone)));
    assert!(instances.iter().filter(|i| i.id != lone).all(|i| i.instance_type.as_deref() == Some("t3.micro")));

    let call = scaling.enter_standby().auto_scaling_group_name("web").instance_ids(&members[0]);
    call.should_decrement_desired_capacity(true).send().await.expect("in standby");
    let call = scaling.set_instance_health().instance_id(&members[1]).health_status("Unhealthy");
    call.send().await.expect("unhealthy");
    let instances = provider.discover().await.expect("instances");
    let of = |id: &str| &instances.iter().find(|instance| instance.id == id).expect("listed").availability;
    assert_eq!(*of(&members[0]), Availability::Out { why: "is in the lifecycle state Standby".to_owned() });
    assert!(matches!(of(&members[1]), Availability::Out { .. }), "{:?}", of(&members[1]));
    assert_eq!(*of(&members[2]), Availability::Ready);

    let call = scaling.exit_standby().auto_scaling_group_name("web").instance_ids(&members[0]);
    call.send().await.expect("back in service");
    let call = scaling.detach_instances().auto_scaling_group_name("web").instance_ids(&members[2]);
    call.should_decrement_desired_capacity(true).send().await.expect("detached");
    let instances = provider.discover().await.expect("instances");
    let of = |id: &str| instances.iter().find(|instance| instance.id == id).expect("listed");
    assert_eq!(of(&members[0]).availability, Availability::Ready);
    assert_eq!((of(&members[2]).group.as_deref(), &of(&members[2]).availability), (None, &Availability::Ready));
}

#[tokio::test]
async fn moto_filters_by_what_selectors_ask_for() {
    let moto = Moto::start().await;
    moto.create_group("web", 2, &[("Role", "web")]).await;
    let a = moto.launch(&[("Role", "db-1"), ("Note", "a")], "127.1.0.1", Some("us-east-1b")).await;
    let b = moto.launch(&[("Role", "db-2"), ("Note", "b")], "127.1.0.2", Some("us-east-1c")).await;
    let found = async |tags: &[(&str, Condition)], attributes: &[(Attribute, Condition)]| {
        let tags = tags.iter().map(|(key, condition)| ((*key).to_owned(), condition.clone())).collect();
        let selector = Selector { tags, attributes: attributes.iter().cloned().collect() };
        ec2(&config(moto.url()), &[selector]).discover().await.expect("instances")
    };
    let like = |glob: &str| Condition::Like(std::sync::Arc::new([glob.to_owned()].into()));
    let one_of = |value: &str| Condition::OneOf(std::sync::Arc::new([value.to_owned()].into()));
    let mut both = [a.as_str(), b.as_str()];
    both.sort_unstable();
    assert_eq!(ids(&found(&[("Role", like("db-?"))], &[]).await), both);
    assert_eq!(ids(&found(&[("Note", one_of("a"))], &[]).await), [a.as_str()]);
    assert_eq!(ids(&found(&[("Note", Condition::Present)], &[]).await), both);
    assert_eq!(ids(&found(&[], &[(Attribute::Zone, one_of("us-east-1c"))]).await), [b.as_str()]);
    assert_eq!(found(&[], &[(Attribute::Group, one_of("web"))]).await.len(), 2);
    assert_eq!(found(&[], &[(Attribute::Type, one_of("t3.micro"))]).await.len(), 2);
    let all = found(&[], &[]).await;
    let vpc = all[0].vpc.clone().expect("a VPC");
    assert_eq!(found(&[], &[(Attribute::Vpc, one_of(&vpc))]).await.len(), 4);
    assert_eq!(found(&[], &[(Attribute::Vpc, one_of("vpc-0"))]).await.len(), 0);
}
