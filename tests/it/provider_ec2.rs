//! The `ec2` provider, against our own endpoint and against moto.

use std::time::Duration;

use aws_sdk_ec2::config::SharedCredentialsProvider;
use elasticd::model::{Instance, Selector};
use elasticd::provider::Provider;
use elasticd::provider::ec2::{Config, Ec2, Error};

use crate::ec2_endpoint::{Ec2Endpoint, Fault};
use crate::moto::{Moto, REGION, credentials};

fn provider(url: &str, page_size: i32, selectors: &[Selector]) -> Ec2 {
    let config = Config {
        regions: vec![REGION.to_owned()],
        endpoint_url: Some(url.to_owned()),
        page_size,
        call_timeout: Duration::from_secs(20),
        ..Config::default()
    };
    Ec2::with_credentials(&config, selectors, credentials())
}

fn role(value: &str) -> Selector {
    Selector([("Role".to_owned(), [value.to_owned()].into())].into())
}

fn pages(count: usize, size: usize) -> Vec<Vec<String>> {
    let page = |p| (0..size).map(|i| format!("i-{p:04}{i:04}")).collect();
    (0..count).map(page).collect()
}

fn ids(instances: &[Instance]) -> Vec<&str> {
    let mut ids: Vec<_> = instances.iter().map(|i| i.id.as_str()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn reads_25_000_instances_over_25_pages() {
    let endpoint = Ec2Endpoint::start(&pages(25, 1000)).await;
    let instances = provider(&endpoint.url(), 1000, &[role("w*b")]).discover().await.unwrap();
    assert_eq!(instances.len(), 25_000);
    let first = &instances[0];
    assert_eq!(first.private_ipv4, Some([10, 1, 0, 0].into()));
    assert_eq!(first.ipv6, Some("2001:db8::".parse().unwrap()));
    assert_eq!(first.zone.as_deref(), Some("eu-west-1a"));
    assert_eq!(first.launched, Some("2024-05-01T00:00:00Z".parse().unwrap()));
    assert_eq!(first.tags.get("Role").map(String::as_str), Some("web"));
    let requests = endpoint.requests();
    assert_eq!(requests.len(), 25);
    for (key, value) in [
        ("Action", "DescribeInstances"),
        ("MaxResults", "1000"),
        ("Filter.1.Name", "instance-state-name"),
        ("Filter.1.Value.1", "running"),
        ("Filter.2.Name", "tag:Role"),
        ("Filter.2.Value.1", r"w\*b"),
    ] {
        assert_eq!(requests[24].get(key).map(String::as_str), Some(value), "{key}");
    }
}

#[tokio::test]
async fn tolerates_empty_pages() {
    let endpoint = Ec2Endpoint::start(&[vec![], vec!["i-1".into()], vec![], vec!["i-2".into()], vec![]]).await;
    let instances = provider(&endpoint.url(), 5, &[]).discover().await.unwrap();
    assert_eq!(ids(&instances), ["i-1", "i-2"]);
}

#[tokio::test]
async fn page_7_of_9_failing_gives_no_part_and_then_heals() {
    let endpoint = Ec2Endpoint::start(&pages(9, 5)).await;
    let mut provider = provider(&endpoint.url(), 5, &[]);
    endpoint.fail(Some(6), Fault::Refuse(503, "RequestLimitExceeded"));
    let error = provider.discover().await.unwrap_err();
    assert!(error.is_throttled(), "{error}");
    assert_eq!(endpoint.requests().len(), 6 + 3, "three attempts at page 7, and none beyond");
    endpoint.heal();
    assert_eq!(provider.discover().await.unwrap().len(), 45);
}

#[tokio::test]
async fn each_fault_has_its_words() {
    let endpoint = Ec2Endpoint::start(&pages(2, 5)).await;
    let url = endpoint.url();
    let mut provider = provider(&url, 5, &[]);
    for (fault, expected) in [
        (Fault::Refuse(503, "RequestLimitExceeded"), &["RequestLimitExceeded", "`interval`"][..]),
        (Fault::Refuse(403, "UnauthorizedOperation"), &["allow the action ec2:DescribeInstances"]),
        (Fault::Refuse(401, "AuthFailure"), &["check the access key", "said the fake"]),
        (Fault::Refuse(400, "RequestExpired"), &["expired", "clock"]),
        (Fault::Refuse(403, "RequestTimeTooSkewed"), &["synchronise it"]),
        (Fault::Refuse(400, "InvalidParameterValue"), &["InvalidParameterValue", "error codes"]),
        (Fault::Html500, &["HTTP 500", &url, "check that it is an EC2 endpoint"]),
        (Fault::RepeatToken, &["repeated a page token"]),
        (Fault::CloseMidBody, &[&url]),
    ] {
        // A connection kept from before knows nothing of the fault below HTTP.
        if fault == Fault::CloseMidBody {
            provider = self::provider(&url, 5, &[]);
        }
        endpoint.fail(None, fault.clone());
        let error = provider.discover().await.unwrap_err().to_string();
        assert!(error.starts_with("eu-west-1: "), "{error}");
        for words in expected {
            assert!(error.contains(words), "{fault:?}: {error}");
        }
    }
    endpoint.heal();
    assert_eq!(provider.discover().await.unwrap().len(), 10);
}

#[tokio::test]
async fn a_silent_endpoint_and_an_absent_one_are_told_apart() {
    let endpoint = Ec2Endpoint::start(&pages(1, 1)).await;
    endpoint.fail(None, Fault::Silent);
    let config = Config {
        regions: vec![REGION.to_owned()],
        endpoint_url: Some(endpoint.url()),
        call_timeout: Duration::from_secs(1),
        ..Config::default()
    };
    let error = Ec2::with_credentials(&config, &[], credentials()).discover().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");

    let url = endpoint.url();
    drop(endpoint);
    let error = provider(&url, 5, &[]).discover().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&url), "{error}");
}

#[tokio::test]
async fn missing_credentials_say_what_was_tried() {
    let endpoint = Ec2Endpoint::start(&pages(1, 1)).await;
    let config = Config { regions: vec![REGION.to_owned()], endpoint_url: Some(endpoint.url()), ..Config::default() };
    // Holds where the tests' own environment has no AWS keys, as it must not.
    let absent = aws_config::environment::EnvironmentVariableCredentialsProvider::new();
    let mut provider = Ec2::with_credentials(&config, &[], SharedCredentialsProvider::new(absent));
    let error = provider.discover().await.unwrap_err();
    assert!(matches!(error, Error::NoCredentials { .. }), "{error}");
    assert!(error.to_string().contains("hop-limit 2"), "{error}");
    assert_eq!(endpoint.requests().len(), 0);
}

#[tokio::test]
async fn one_failing_region_fails_the_whole_set_and_is_named() {
    let endpoint = Ec2Endpoint::start(&pages(1, 3)).await;
    let config = Config {
        regions: (1..=12).map(|n| format!("eu-west-{n}")).collect(),
        endpoint_url: Some(endpoint.url()),
        ..Config::default()
    };
    let mut provider = Ec2::with_credentials(&config, &[], credentials());
    assert_eq!(provider.discover().await.unwrap().len(), 36);
    endpoint.fail(None, Fault::Refuse(403, "UnauthorizedOperation"));
    let error = provider.discover().await.unwrap_err().to_string();
    assert!(error.starts_with("eu-west-"), "{error}");
}

#[tokio::test]
async fn moto_lists_what_runs_over_several_pages() {
    let moto = Moto::start().await;
    let mut web = Vec::new();
    for i in 1..=12 {
        web.push(moto.run(&format!("127.0.1.{i}"), &[("Role", "web"), ("Port", "80;}")]).await);
    }
    let db = moto.run("127.0.2.1", &[("Role", "db")]).await;
    web.sort_unstable();
    let mut provider = provider(moto.url(), 5, &[role("web")]);
    let instances = provider.discover().await.unwrap();
    assert_eq!(ids(&instances), web);
    let first = instances.iter().find(|i| i.private_ipv4 == Some([127, 0, 1, 1].into())).expect("the first one");
    assert!(first.public_ipv4.is_some() && first.zone.is_some() && first.launched.is_some(), "{first:?}");
    assert_eq!(first.tags.get("Port").map(String::as_str), Some("80;}"));

    let last = web.pop().expect("twelve");
    moto.stop(&last).await;
    assert_eq!(ids(&provider.discover().await.unwrap()), web, "one is stopped");
    moto.start_instance(&last).await;
    assert_eq!(provider.discover().await.unwrap().len(), 12, "it is started again");
    moto.terminate(&last).await;
    assert_eq!(ids(&provider.discover().await.unwrap()), web, "it is terminated");
    moto.retag(&db, "Role", "web").await;
    web.push(db);
    web.sort_unstable();
    assert_eq!(ids(&provider.discover().await.unwrap()), web, "another is retagged");
}
