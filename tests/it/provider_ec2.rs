//! The `ec2` provider against an endpoint of our own and against moto.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use elasticd::model::{Instance, InstanceState, Selector};
use elasticd::provider::ec2::{Config, Ec2, Error};
use futures_util::{StreamExt as _, stream};

use crate::ec2_endpoint::{Endpoint, Fault, Machine, When};
use crate::moto::{self, Moto};

pub fn config(url: String) -> Config {
    Config {
        regions: vec![moto::REGION.to_owned()],
        auto_scaling_endpoint_url: Some(url.clone()),
        endpoint_url: Some(url),
        call_timeout: Duration::from_secs(20),
        ..Config::default()
    }
}

pub fn ec2(config: &Config, selectors: &[Selector]) -> Ec2 {
    let credentials = Credentials::new("test", "test", None, None, "test");
    Ec2::with_credentials(config, selectors, SharedCredentialsProvider::new(credentials))
}

pub fn selector(tags: &[(&str, &[&str])]) -> Selector {
    Selector::of_tags(tags.iter().map(|(key, of)| (*key, of.iter().copied())))
}

pub fn machines(count: u32) -> Vec<Machine> {
    (0..count).map(|n| Machine::numbered(n, &[("Role", "web"), ("Name", &format!("web-{n}"))])).collect()
}

pub fn ids(instances: &[Instance]) -> Vec<&str> {
    let mut ids: Vec<_> = instances.iter().map(|instance| instance.id.as_str()).collect();
    ids.sort_unstable();
    ids
}

/// What a poll says while every answer has this fault.
async fn failure(fault: Fault, config: impl FnOnce(Config) -> Config) -> Error {
    let endpoint = Endpoint::start(machines(3));
    endpoint.fault(When::Always, fault);
    let mut provider = ec2(&config(self::config(endpoint.url())), &[]);
    provider.discover().await.expect_err("a fault is an error")
}

pub fn assert_says(error: &Error, wanted: &[&str]) {
    let said = error.to_string();
    for words in wanted {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
}

#[tokio::test]
async fn all_fields_of_an_instance_are_read() {
    let mut machine = Machine::numbered(258, &[("Role", "web"), ("Note", "a <b> & \"c\";\n}")]);
    machine.public_ip = Some("203.0.113.7".to_owned());
    machine.ipv6 = Some("2001:db8::1".to_owned());
    machine.interface_ipv6 = Some("2001:db8::2".to_owned());
    machine.vpc = Some("vpc-1".to_owned());
    machine.subnet = Some("subnet-1".to_owned());
    machine.kind = Some("m7g.large".to_owned());
    let interface_only = Machine { id: "i-2".to_owned(), ipv6: None, private_ip: None, ..machine.clone() };
    let unknown = Machine { id: "i-3".to_owned(), state: "hibernating".to_owned(), ..machine.clone() };
    let endpoint = Endpoint::start(vec![machine, interface_only, unknown]);
    let instances = ec2(&config(endpoint.url()), &[]).discover().await.expect("three instances");

    let mut expected = Instance::new("i-00000000000000102");
    expected.private_ipv4 = Some("10.0.1.2".parse().unwrap());
    expected.public_ipv4 = Some("203.0.113.7".parse().unwrap());
    expected.ipv6 = Some("2001:db8::1".parse().unwrap());
    expected.zone = Some("eu-west-1a".to_owned());
    expected.vpc = Some("vpc-1".to_owned());
    expected.subnet = Some("subnet-1".to_owned());
    expected.instance_type = Some("m7g.large".to_owned());
    expected.size = Some(4);
    expected.launched = Some("2026-01-02T03:04:05Z".parse().unwrap());
    expected.tags = [("Role", "web"), ("Note", "a <b> & \"c\";\n}")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(instances[0], expected);
    assert_eq!(instances[1].ipv6, Some("2001:db8::2".parse().unwrap()));
    assert_eq!(instances[1].private_ipv4, None);
    assert_ne!(instances[2].state, InstanceState::Running, "an unknown state takes no traffic");
}

#[tokio::test]
async fn a_page_that_fails_fails_the_whole() {
    for fault in [Fault::Code(500, "InternalError"), Fault::Html(502), Fault::CutOff, Fault::Unauthorized] {
        let endpoint = Endpoint::start(machines(9_000));
        endpoint.fault(When::Page(7), fault.clone());
        let mut provider = ec2(&config(endpoint.url()), &[]);
        let error = provider.discover().await.expect_err("never a part");
        eprintln!("{fault:?}: {error}");
        endpoint.heal();
        assert_eq!(provider.discover().await.expect("healed").len(), 9_000);
    }
}

#[tokio::test]
async fn a_passing_fault_is_retried_within_the_call() {
    for fault in [Fault::Code(503, "Unavailable"), Fault::Throttled, Fault::CutOff, Fault::Html(500)] {
        let endpoint = Endpoint::start(machines(7));
        endpoint.fault(When::Next(2), fault.clone());
        let mut provider = ec2(&config(endpoint.url()), &[]);
        assert_eq!(provider.discover().await.map(|i| i.len()).map_err(|e| e.to_string()), Ok(7), "{fault:?}");
        assert_eq!(endpoint.requests().len(), 3, "three attempts in all");
    }
}

#[tokio::test]
async fn empty_pages_are_followed_and_none_at_all_is_an_empty_set() {
    let endpoint = Endpoint::start(Vec::new());
    let mut provider = ec2(&config(endpoint.url()), &[]);
    assert_eq!(provider.discover().await.expect("an empty set"), []);
    endpoint.set_instances(machines(4));
    endpoint.set_page_size(Some(1));
    endpoint.fault(When::Page(2), Fault::EmptyPage);
    endpoint.fault(When::Page(3), Fault::EmptyPage);
    let instances = provider.discover().await.expect("the first and the last");
    assert_eq!(ids(&instances), ["i-00000000000000000", "i-00000000000000003"]);
}

#[tokio::test]
async fn pages_without_end_are_an_error() {
    let endpoint = Endpoint::start(machines(50));
    endpoint.set_page_size(Some(10));
    endpoint.fault(When::Page(3), Fault::RepeatedToken);
    let error = ec2(&config(endpoint.url()), &[]).discover().await.expect_err("no end");
    assert!(matches!(error, Error::RepeatedToken { page: 3, .. }), "{error}");
    assert_says(&error, &["us-east-1", "`endpoint_url`"]);
}

#[tokio::test]
async fn throttling_is_distinguished_from_other_failures() {
    let error = failure(Fault::Throttled, |config| config).await;
    assert!(error.is_throttled());
    assert_says(&error, &["RequestLimitExceeded", "us-east-1", "`interval`"]);
    assert!(failure(Fault::Html(429), |config| config).await.is_throttled());
    assert!(!failure(Fault::Html(500), |config| config).await.is_throttled());
}

#[tokio::test]
async fn each_fault_names_its_remedy() {
    let cases: [(Fault, &[&str]); 9] = [
        (Fault::Unauthorized, &["us-east-1", "ec2:DescribeInstances", "UnauthorizedOperation"]),
        (Fault::AuthFailure, &["access key is active", "clock", "AuthFailure"]),
        (Fault::ExpiredToken, &["expired", "renew", "next poll"]),
        (Fault::Code(400, "RequestExpired"), &["expired", "clock"]),
        (Fault::Code(403, "RequestTimeTooSkewed"), &["clock", "synchronise"]),
        (Fault::Html(500), &["http://127.0.0.1", "500", "proxy", "`endpoint_url`"]),
        (Fault::Html(200), &["http://127.0.0.1", "200", "proxy", "`endpoint_url`"]),
        (Fault::CutOff, &["http://127.0.0.1", "us-east-1"]),
        (Fault::Code(400, "InvalidFilter"), &["us-east-1", "InvalidFilter"]),
    ];
    let check = async |(fault, wanted)| {
        let error = failure(fault, |config| config).await;
        eprintln!("{error}\n");
        assert_says(&error, wanted);
    };
    stream::iter(cases).for_each_concurrent(None, check).await;
}

#[tokio::test]
async fn a_slow_answer_is_bounded() {
    let started = Instant::now();
    let slow = Fault::Slow(Duration::from_secs(30));
    let error = failure(slow, |config| Config { call_timeout: Duration::from_millis(300), ..config }).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_says(&error, &["300ms", "`call_timeout`", "`page_size`"]);
}

#[tokio::test]
async fn an_unreachable_endpoint_is_reported() {
    let url = Endpoint::start(Vec::new()).url();
    let error = ec2(&config(url.clone()), &[]).discover().await.expect_err("no server there");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_says(&error, &[&url, "us-east-1", "refused", "`endpoint_url`"]);
}

#[tokio::test]
async fn one_region_failing_fails_all_and_is_named() {
    let endpoint = Endpoint::start(machines(3));
    let regions = ["eu-west-1", "eu-west-2", "eu-west-3", "us-east-1", "us-west-2", "sa-east-1"];
    let regions = Config { regions: regions.map(str::to_owned).into(), ..config(endpoint.url()) };
    let mut provider = ec2(&regions, &[]);
    assert_eq!(provider.discover().await.expect("six regions").len(), 18);
    endpoint.fault(When::Region("us-west-2"), Fault::Unauthorized);
    assert_says(&provider.discover().await.expect_err("one fails"), &["us-west-2"]);
}

#[tokio::test]
async fn selectors_become_the_filters_of_one_call() {
    let endpoint = Endpoint::start(machines(3));
    let web = selector(&[("Role", &["web"]), ("Env", &["prod"])]);
    let db = selector(&[("Role", &["db*"])]);
    ec2(&config(endpoint.url()), &[web, db]).discover().await.expect("instances");
    let requests = endpoint.requests();
    assert_eq!(requests.len(), 1, "one call serves both");
    assert_eq!(requests[0]["MaxResults"], "1000");
    let filters: Vec<_> = requests[0].iter().filter(|(key, _)| key.starts_with("Filter.")).collect();
    let filters: Vec<_> = filters.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        filters,
        [
            "Filter.1.Name=instance-state-name",
            "Filter.1.Value.1=running",
            "Filter.2.Name=tag:Role",
            r"Filter.2.Value.1=db\*",
            "Filter.2.Value.2=web",
        ]
    );
}

/// Fails first, and then gives other credentials each time it is asked.
#[derive(Debug, Clone, Default)]
struct Renewed(Arc<AtomicUsize>);

impl ProvideCredentials for Renewed {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        future::ProvideCredentials::ready(match count {
            0 => Err(CredentialsError::not_loaded("the metadata service is out")),
            _ => Ok(Credentials::new(format!("key{count}"), "test", None, None, "test")),
        })
    }
}

#[tokio::test]
async fn lost_and_expired_credentials_are_renewed_at_the_next_poll() {
    let endpoint = Endpoint::start(machines(3));
    let renewed = Renewed::default();
    let credentials = SharedCredentialsProvider::new(renewed.clone());
    let mut provider = Ec2::with_credentials(&config(endpoint.url()), &[], credentials);
    let error = provider.discover().await.expect_err("no credentials");
    assert!(matches!(error, Error::NoCredentials { .. }), "{error}");
    assert_says(&error, &["hop-limit 2", "instance profile", "the metadata service is out"]);
    assert_eq!(provider.discover().await.expect("it is back").len(), 3);
    assert_eq!(provider.discover().await.expect("cached").len(), 3);
    assert_eq!(renewed.0.load(Ordering::Relaxed), 2);
    endpoint.fault(When::Next(1), Fault::ExpiredToken);
    let error = provider.discover().await.expect_err("expired");
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    assert_eq!(provider.discover().await.expect("renewed").len(), 3);
    assert_eq!(renewed.0.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn moto_pages_of_five_hold_all_twelve() {
    let moto = Moto::start().await;
    let mut launched = Vec::new();
    for n in 1..=12 {
        launched.push(moto.launch(&[("Role", "web")], &format!("127.1.0.{n}"), Some("us-east-1b")).await);
    }
    moto.launch(&[("Role", "db")], "127.1.1.1", None).await;
    let config = Config { page_size: 5, ..config(moto.url()) };
    let instances = ec2(&config, &[selector(&[("Role", &["web"])])]).discover().await.expect("instances");
    launched.sort_unstable();
    assert_eq!(ids(&instances), launched);
    let mut addresses: Vec<_> = instances.iter().filter_map(|i| i.private_ipv4).collect();
    addresses.sort_unstable();
    assert_eq!(addresses[11], std::net::Ipv4Addr::new(127, 1, 0, 12));
    assert!(instances.iter().all(|i| i.zone.as_deref() == Some("us-east-1b") && i.launched.is_some()));
    assert!(instances.iter().all(|i| i.public_ipv4.is_some() && i.public_ipv4 != i.private_ipv4));
}

#[tokio::test]
async fn moto_instances_come_and_go() {
    let mut moto = Moto::start().await;
    let a = moto.launch(&[("Role", "web"), ("Port", "80")], "127.1.0.1", None).await;
    let b = moto.launch(&[("Role", "web")], "127.1.0.2", None).await;
    let mut sorted = [a.as_str(), b.as_str()];
    sorted.sort_unstable();
    let mut provider = ec2(&config(moto.url()), &[selector(&[("Role", &["web"])])]);
    assert_eq!(ids(&provider.discover().await.expect("both")), sorted);
    moto.stop(&a).await;
    assert_eq!(ids(&provider.discover().await.expect("one stopped")), [b.as_str()]);
    moto.start_instance(&a).await;
    assert_eq!(ids(&provider.discover().await.expect("started again")), sorted);
    moto.tag(&b, "Role", "db").await;
    moto.tag(&a, "Port", "81").await;
    let instances = provider.discover().await.expect("one retagged");
    assert_eq!(ids(&instances), [a.as_str()]);
    assert_eq!(instances[0].tags["Port"], "81");
    moto.terminate(&a).await;
    assert_eq!(provider.discover().await.expect("an empty set"), []);
    moto.restart().await;
    moto.launch(&[("Role", "web")], "127.1.0.3", None).await;
    assert_eq!(provider.discover().await.expect("after a restart").len(), 1);
}
