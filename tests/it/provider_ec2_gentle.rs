//! What the `ec2` provider costs the APIs it asks, and that it never exceeds its budget.

use std::time::Duration;

use elasticd::model::Selector;
use elasticd::provider::ec2::Config;
use elasticd::provider::{ApiUsage, Provider as _};

use crate::ec2_endpoint::{Endpoint, Fault, GROUP, Machine, When};
use crate::harness::elasticd::Elasticd;
use crate::harness::until;
use crate::provider_ec2::{config, ec2, machines, selector};

/// Asserts that no so many calls and one more arrived within a second.
fn assert_never_more(endpoint: &Endpoint, calls: usize) {
    let arrivals = endpoint.arrivals();
    for (n, span) in arrivals.windows(calls + 1).enumerate() {
        let length = span[calls] - span[0];
        assert!(length >= Duration::from_secs(1), "{} calls within {length:?}, from call {n} on", calls + 1);
    }
}

#[tokio::test]
async fn a_budget_is_never_exceeded() {
    let endpoint = Endpoint::start(machines(45));
    let config = Config { page_size: 5, api_budget: "10/s".parse().ok(), ..config(endpoint.url()) };
    let mut provider = ec2(&config, &[]);
    for _ in 0..3 {
        assert_eq!(provider.discover().await.expect("nine pages").len(), 45);
    }
    // A poll given up half-way leaves its calls in the account.
    endpoint.fault(When::Page(5), Fault::Slow(Duration::from_secs(30)));
    let asked = async {
        while endpoint.requests().len() < 3 * 9 + 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        result = provider.discover() => panic!("the fifth page comes later: {result:?}"),
        () = asked => {}
    }
    endpoint.heal();
    assert_eq!(provider.discover().await.expect("nine pages").len(), 45);
    assert_never_more(&endpoint, 10);
    let calls = endpoint.requests().len() as u64;
    assert_eq!(
        provider.usage(),
        ApiUsage { calls, pages: calls - 1, throttles: 0 },
        "all but the page that did not come"
    );
    assert_eq!(provider.usage(), ApiUsage::default(), "since last asked");
}

#[tokio::test]
async fn with_a_budget_the_sdk_retries_nothing_by_itself() {
    let endpoint = Endpoint::start(machines(3));
    for (budget, calls) in [(Some("100/s"), 1), (None, 3)] {
        let budget = budget.and_then(|budget| budget.parse().ok());
        let mut provider = ec2(&Config { api_budget: budget, ..config(endpoint.url()) }, &[]);
        endpoint.fault(When::Always, Fault::Code(503, "Unavailable"));
        provider.discover().await.expect_err("a fault");
        assert_eq!(provider.usage(), ApiUsage { calls, pages: 0, throttles: 0 });
        endpoint.heal();
    }
}

#[tokio::test]
async fn throttling_is_counted_even_where_it_passes() {
    let fleet = vec![Machine::numbered(1, &[(GROUP, "web")])];
    let endpoint = Endpoint::start(fleet);
    let mut provider = ec2(&Config { auto_scaling: true, ..config(endpoint.url()) }, &[]);
    endpoint.fault(When::Next(1), Fault::Throttled);
    provider.discover().await.expect("repeated");
    assert_eq!(provider.usage(), ApiUsage { calls: 3, pages: 2, throttles: 1 });
    endpoint.fault(When::Next(1), Fault::Html(429));
    provider.discover().await.expect_err("this, the SDK does not repeat");
    assert_eq!(provider.usage(), ApiUsage { calls: 1, pages: 0, throttles: 1 });
    endpoint.fault(When::Call("DescribeAutoScalingGroups"), Fault::Throttled);
    provider.discover().await.expect_err("throttled for good");
    assert_eq!(provider.usage(), ApiUsage { calls: 4, pages: 1, throttles: 3 });
    endpoint.heal();
    endpoint.fault(When::Always, Fault::Code(503, "Unavailable"));
    provider.discover().await.expect_err("something else");
    assert_eq!(provider.usage(), ApiUsage { calls: 3, pages: 0, throttles: 0 });
}

#[tokio::test]
async fn regions_and_other_calls_share_the_budget() {
    let endpoint = Endpoint::start(machines(3));
    let regions = ["eu-west-1", "eu-west-2", "us-east-1"].map(str::to_owned).into();
    let budget = "7/s".parse().ok();
    let mut provider =
        ec2(&Config { regions, status_checks: true, spot: true, api_budget: budget, ..config(endpoint.url()) }, &[]);
    for _ in 0..2 {
        assert_eq!(provider.discover().await.expect("three regions").len(), 9);
    }
    assert_eq!(provider.usage(), ApiUsage { calls: 24, pages: 24, throttles: 0 }, "four in each region");
    assert_never_more(&endpoint, 7);
}

#[tokio::test]
async fn one_call_serves_fifty_services() {
    let endpoint = Endpoint::start(machines(30));
    for count in [1, 10, 50] {
        let service = |n: usize| selector(&[("Role", &[&*format!("web-{n}"), "web"]), ("Env", &["prod"])]);
        let services: Vec<Selector> = (0..count).map(service).collect();
        let mut provider = ec2(&config(endpoint.url()), &services);
        provider.discover().await.expect("instances");
        assert_eq!(provider.usage(), ApiUsage { calls: 1, pages: 1, throttles: 0 }, "{count} services");
    }
}

#[tokio::test]
async fn selectors_too_many_for_one_call_are_split_and_no_instance_is_listed_twice() {
    let endpoint = Endpoint::start(machines(30));
    let names: Vec<String> = (0..400).map(|n| format!("name-{n}")).chain(["web".to_owned()]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // Two values in different calls, and a tag that one instance has both of.
    let mut both = machines(1);
    both[0].tags.push(("Role".to_owned(), "name-0".to_owned()));
    endpoint.set_instances([both, machines(30).split_off(1)].concat());
    let mut provider = ec2(&config(endpoint.url()), &[selector(&[("Role", &names)])]);
    assert_eq!(provider.discover().await.expect("instances").len(), 30);
    assert_eq!(provider.usage(), ApiUsage { calls: 3, pages: 3, throttles: 0 });
    for form in endpoint.requests() {
        assert!(form.keys().filter(|key| key.contains(".Value.")).count() <= 200);
    }
    // Whichever of the calls fails, all of it does.
    endpoint.fault(When::Next(3), Fault::Unauthorized);
    provider.discover().await.expect_err("the first");
    assert_eq!(provider.usage(), ApiUsage { calls: 1, pages: 0, throttles: 0 });
}

#[test]
fn calls_pages_and_throttles_are_counted_and_throttling_widens_the_interval() {
    let endpoint = Endpoint::start(machines(12));
    let elasticd = Elasticd::new(&format!(
        "[providers.cloud]\ntype = 'ec2'\nregion = 'eu-west-1'\nendpoint_url = '{}'\npage_size = 5\ninterval = '100ms'\n\
         api_budget = '600/min'\n[services.web]\nprovider = 'cloud'\nport = 80\n",
        endpoint.url()
    ));
    let elasticd = elasticd.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").start();
    let cloud = |status: &serde_json::Value, key: &str| status["providers"]["cloud"][key].as_u64().unwrap_or_default();
    let status = elasticd.await_status("polled", |status| cloud(status, "polls") >= 3);
    assert_eq!(
        (cloud(&status, "calls"), cloud(&status, "pages")),
        (3 * cloud(&status, "polls"), cloud(&status, "calls"))
    );
    // Throttled for as long as it takes to widen the interval to sixteen times what it was.
    endpoint.fault(When::Always, Fault::Throttled);
    elasticd.await_status("throttled", |status| cloud(status, "throttles") >= 5);
    let widened = until("a pause of ten intervals", || {
        let arrivals = endpoint.arrivals();
        arrivals.windows(2).rev().map(|pair| pair[1] - pair[0]).find(|pause| *pause >= Duration::from_secs(1))
    });
    eprintln!("{widened:?}");
    endpoint.heal();
    let before = cloud(&elasticd.status(), "polls");
    let status = elasticd.await_status("recovered", |status| cloud(status, "polls") >= before + 3);
    assert!(status["providers"]["cloud"]["error"].is_null(), "{status:#}");
    assert_eq!(status["services"]["web"]["backends"], 12, "{status:#}");
    let (_, _, metrics) = elasticd.get("/metrics");
    for name in ["calls_total", "pages_total", "throttles_total", "age_seconds"] {
        let sample = format!("elasticd_provider_{name}{{provider=\"cloud\"}} ");
        assert!(metrics.contains(&sample), "{sample} is not in {metrics}");
    }
}
