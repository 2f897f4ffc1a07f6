//! The main job, end to end: instances come and go in an EC2 that others wrote, and a real nginx's traffic follows.

use crate::ec2_endpoint::{Endpoint, Fault, GROUP, Machine, When};
use crate::harness::backend::Backend;
use crate::harness::elasticd::Elasticd;
use crate::harness::load::Load;
use crate::harness::nginx::Nginx;
use crate::moto::{Moto, REGION};

fn config(url: &str, nginx: &Nginx, guard: &str) -> String {
    format!(
        "[providers.cloud]\ntype = 'ec2'\nregion = '{REGION}'\nendpoint_url = '{url}'\npage_size = 5\ninterval = '300ms'\n\
         [services.web]\nprovider = 'cloud'\nselect = {{ Role = 'web' }}\nport = {{ tag = 'Port', default = 8080 }}\n\
         guard = {guard}\n{}",
        nginx.frontend()
    )
}

fn elasticd(config: &str) -> Elasticd {
    Elasticd::new(config).env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test")
}

async fn launch(moto: &Moto, backend: &Backend) -> String {
    let port = backend.address.port().to_string();
    moto.launch(&[("Role", "web"), ("Port", &port)], &backend.ip().to_string(), None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_follows_the_cloud_and_no_request_fails() {
    let moto = Moto::start().await;
    let (a, b, c) = (Backend::start("a"), Backend::start("b"), Backend::start("c"));
    let first = launch(&moto, &a).await;
    let nginx = Nginx::new().start();
    let elasticd = elasticd(&config(&moto.url(), &nginx, "{ max_drop = '100%' }")).ready();
    nginx.await_answers(&["a"]);
    let load = Load::start(nginx.address, 3);

    // Old and new workers serve side by side for a moment: what counts is what holds once the old ones are gone.
    let settled = |ids: &[&str], names: &[&str]| {
        elasticd.await_proven("nginx", "web", ids);
        nginx.await_old_workers_gone();
        nginx.await_answers(names);
    };
    let second = launch(&moto, &b).await;
    settled(&[&first, &second], &["a", "b"]);
    // Stopped, and started again.
    moto.stop(&second).await;
    settled(&[&first], &["a"]);
    moto.start_instance(&second).await;
    settled(&[&first, &second], &["a", "b"]);
    // Tagged out of the service, and back in.
    moto.tag(&second, "Role", "batch").await;
    settled(&[&first], &["a"]);
    moto.tag(&second, "Role", "web").await;
    let third = launch(&moto, &c).await;
    settled(&[&first, &second, &third], &["a", "b", "c"]);
    // Terminated for good.
    moto.terminate(&first).await;
    settled(&[&second, &third], &["b", "c"]);
    let before = a.requests();
    nginx.await_answers(&["b", "c"]);
    assert_eq!(a.requests(), before, "a terminated instance gets none");

    let tally = load.stop();
    tally.assert_none_failed();
    assert!(tally.total() > 100, "the load was one: {tally:?}");
    let status = elasticd.status();
    assert!(status["frontends"]["nginx"]["reloads"].as_u64() >= Some(6), "{status:#}\n{}", elasticd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_answer_removes_no_backend() {
    let mut moto = Moto::start().await;
    let backends = [Backend::start("a"), Backend::start("b")];
    let mut ids = Vec::new();
    for backend in &backends {
        ids.push(launch(&moto, backend).await);
    }
    let nginx = Nginx::new().start();
    let elasticd = elasticd(&config(&moto.url(), &nginx, "{}")).ready();
    nginx.await_answers(&["a", "b"]);
    let (workers, upstreams) = (nginx.workers(), nginx.upstreams());

    // While it is away polls fail; when it is back it knows of no instance at all.
    moto.restart().await;
    let status = elasticd.await_status("held", |status| status["services"]["web"]["held"]["reason"] == "empty");
    assert_eq!(status["services"]["web"]["backends"], 2, "{status:#}");
    assert!(elasticd.logged("provider cloud reports no backends, 2 before") == 1, "{}", elasticd.log());
    assert_eq!((nginx.workers(), nginx.upstreams()), (workers, upstreams), "nginx was left alone");
    nginx.await_answers(&["a", "b"]);

    // What comes up again is taken up by itself.
    ids.clear();
    for backend in &backends {
        ids.push(launch(&moto, backend).await);
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    elasticd.await_proven("nginx", "web", &ids);
    nginx.await_answers(&["a", "b"]);
}

#[test]
fn an_error_on_a_late_page_changes_nothing() {
    let machines = |n: u32| (0..n).map(|n| Machine::numbered(n, &[("Role", "web")])).collect::<Vec<_>>();
    let endpoint = Endpoint::start(machines(45));
    let nginx = Nginx::new().start();
    let elasticd = elasticd(&config(&endpoint.url(), &nginx, "{}")).ready();
    let status = elasticd.status();
    assert_eq!(status["services"]["web"]["backends"], 45, "{status:#}");
    let (workers, upstreams) = (nginx.workers(), nginx.upstreams());

    endpoint.fault(When::Page(7), Fault::Unauthorized);
    endpoint.set_instances(machines(50));
    let status =
        elasticd.await_status("failing", |status| status["providers"]["cloud"]["failures"].as_u64() >= Some(2));
    let error = status["providers"]["cloud"]["error"].as_str().expect("an error");
    assert!(error.contains("ec2:DescribeInstances"), "{error}");
    assert_eq!(status["services"]["web"]["backends"], 45, "{status:#}");
    assert_eq!((nginx.workers(), nginx.upstreams()), (workers, upstreams));
    assert_eq!(elasticd.logged("poll failed; keeping the last known set"), 1, "{}", elasticd.log());

    endpoint.heal();
    elasticd.await_status("recovered", |status| status["services"]["web"]["backends"] == 50);
    assert_eq!(elasticd.logged("polls succeed again"), 1);
}

#[test]
fn missing_credentials_and_an_unreachable_endpoint_are_reported_and_survived() {
    let nginx = Nginx::new().start();
    let closed = format!("http://{}", crate::harness::closed_socket());
    for (keys, expected) in [(false, "no AWS credentials"), (true, "check the region's name")] {
        let mut elasticd = Elasticd::new(&config(&closed, &nginx, "{}")).env("AWS_EC2_METADATA_DISABLED", "true");
        if keys {
            elasticd = elasticd.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        }
        let mut elasticd = elasticd.start();
        elasticd.await_status("failing", |status| {
            status["providers"]["cloud"]["error"].as_str().is_some_and(|error| error.contains(expected))
        });
        let (status, _, body) = elasticd.get("/readyz");
        assert_eq!(status, 503, "{body}");
        assert!(body.contains("cloud"), "{body}");
        assert_eq!(elasticd.get("/v1/services/web").0, 503);
        assert!(elasticd.is_running());
        assert_eq!(nginx.upstreams(), "", "nothing is rendered before the first complete pass");
    }
}

#[test]
fn instances_in_standby_get_no_traffic_until_they_return() {
    let backends = [Backend::start("a"), Backend::start("b"), Backend::start("c")];
    let fleet = |states: [&str; 3]| {
        let of = |((backend, state), n): ((&Backend, &str), u32)| {
            let port = backend.address.port().to_string();
            let mut machine = Machine::numbered(n, &[("Role", "web"), ("Port", &port), (GROUP, "web")]);
            machine.private_ip = Some(backend.ip().to_string());
            machine.lifecycle = Some((state.to_owned(), "Healthy".to_owned()));
            machine
        };
        backends.iter().zip(states).zip(1..).map(of).collect::<Vec<_>>()
    };
    let endpoint = Endpoint::start(fleet(["InService"; 3]));
    let nginx = Nginx::new().start();
    let config = config(&endpoint.url(), &nginx, "{ max_drop = '100%' }");
    let own = format!("auto_scaling = true\nauto_scaling_endpoint_url = '{}'\n[services.web]", endpoint.url());
    let elasticd = elasticd(&config.replace("[services.web]", &own)).ready();
    nginx.await_answers(&["a", "b", "c"]);

    endpoint.set_instances(fleet(["InService", "Standby", "Terminating:Wait"]));
    nginx.await_answers(&["a"]);
    let status = elasticd.status();
    assert_eq!(status["services"]["web"]["backends"], 2, "who terminates drains: {status:#}");
    let (_, _, said) = elasticd.get("/v1/explain/i-00000000000000002");
    assert!(said.contains("the instance is in the lifecycle state Standby"), "{said}");

    // Without an answer from Auto Scaling, no instance comes back or is removed.
    endpoint.fault(When::Call("DescribeAutoScalingGroups"), Fault::Unauthorized);
    endpoint.set_instances(fleet(["Standby", "InService", "InService"]));
    let failures = |status: &serde_json::Value| status["providers"]["cloud"]["failures"].as_u64();
    elasticd.await_status("failing", |status| failures(status) >= Some(2));
    nginx.await_answers(&["a"]);
    endpoint.heal();
    nginx.await_answers(&["b", "c"]);
}
