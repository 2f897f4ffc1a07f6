//! The query socket's resources that wait, stream, choose and explain.

use std::sync::Arc;
use std::time::Duration;

use elasticd::api::Limits;
use elasticd::model::{Exclusion, Instance, Reason};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::api::{BOUND, Running, name, running, set, snapshot, start};

/// Reads until a text has come; what came before it is lost, what came after it is kept.
pub struct Stream {
    pub socket: UnixStream,
    read: String,
}

impl Stream {
    pub async fn open(api: &Running, path: &str, headers: &str) -> Self {
        let mut socket = api.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.expect("written");
        Self { socket, read: String::new() }
    }

    /// All up to and including `end`. `None`: the stream ends before.
    async fn up_to(&mut self, end: &str) -> Option<String> {
        let reading = async {
            loop {
                if let Some(at) = self.read.find(end) {
                    let rest = self.read.split_off(at + end.len());
                    return Some(std::mem::replace(&mut self.read, rest));
                }
                let mut buffer = [0; 4096];
                match self.socket.read(&mut buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(count) => self.read.push_str(&String::from_utf8_lossy(&buffer[..count])),
                }
            }
        };
        timeout(BOUND, reading).await.expect("in time")
    }

    /// The next event: its name, id and data.
    pub async fn event(&mut self) -> (String, String, serde_json::Value) {
        loop {
            let text = self.up_to("\n\n").await.expect("an event");
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let (Some(event), Some(id), Some(data)) = (field("event: "), field("id: "), field("data: ")) {
                return (event, id, serde_json::from_str(&data).expect("JSON"));
            }
        }
    }
}

#[tokio::test]
async fn a_long_poll_answers_as_soon_as_its_service_changes() {
    let api = running();
    // Another revision than the client's: at once, also if the client's is the greater.
    for revision in [6, 8] {
        let now = api.get(&format!("/v1/services/web?wait=60s&revision={revision}")).await;
        assert_eq!((now.status, now.header("x-elasticd-revision")), (200, Some("7")));
    }
    let changes = async {
        // Let it wait; should it not yet, it is answered all the same.
        tokio::time::sleep(Duration::from_millis(100)).await;
        // The service is as it was: the snapshot alone has moved on.
        api.snapshot.send_replace(snapshot(9, &set(7, &["10.0.0.1", "2001:db8::1"])));
        tokio::time::sleep(Duration::from_millis(50)).await;
        api.snapshot.send_replace(snapshot(10, &set(10, &["10.0.0.9"])));
    };
    let (one, all, ()) = tokio::join!(
        api.get("/v1/services/web?wait=60s&revision=7"),
        api.get("/v1/services?wait=60s&revision=8"),
        changes
    );
    assert_eq!((one.status, one.header("x-elasticd-revision")), (200, Some("10")));
    assert_eq!(one.json()["backends"][0]["address"], "10.0.0.9");
    assert_eq!((all.status, all.header("x-elasticd-revision")), (200, Some("9")), "all follow the snapshot");
}

#[tokio::test]
async fn a_long_poll_ends_with_304_when_nothing_changes() {
    let api = running();
    let etag = api.get("/v1/services/web").await.header("etag").map(str::to_owned);
    let same = api.get("/v1/services/web?wait=100ms&revision=7").await;
    assert_eq!((same.status, same.body.as_str(), same.header("content-type")), (304, "", None));
    assert_eq!((same.header("x-elasticd-revision"), same.header("etag").map(str::to_owned)), (Some("7"), etag));
    // The bound on answering does not cut it off.
    let api = start(64, Limits { request: Duration::from_millis(50), ..Limits::default() });
    assert_eq!(api.get("/v1/services/web?wait=500ms&revision=7").await.status, 304);
}

#[tokio::test]
async fn what_is_not_known_yet_is_waited_for_and_what_never_will_be_is_not() {
    let api = running();
    assert_eq!(api.get("/v1/services/nobody?wait=60s&revision=0").await.status, 404);
    assert_eq!(api.get("/v1/services/db?wait=10ms&revision=0").await.status, 503);
    let both = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (web, db) = (set(7, &["10.0.0.1"]), set(9, &["10.0.0.2"]));
        let services = [(name("web"), web), (name("db"), db)].into();
        api.snapshot.send_replace(Some(Arc::new(elasticd::model::Snapshot { revision: 9, services })));
    };
    let (db, ()) = tokio::join!(api.get("/v1/services/db?wait=60s&revision=0"), both);
    assert_eq!((db.status, &db.json()["backends"][0]["address"]), (200, &"10.0.0.2".into()));
}

#[tokio::test]
async fn a_shutdown_ends_what_waits_and_what_streams() {
    let api = running();
    let mut events = Stream::open(&api, "/v1/watch", "").await;
    events.event().await;
    let end = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        api.shutdown.cancel();
    };
    let (waiting, ()) = tokio::join!(api.get("/v1/services/web?wait=5m&revision=7"), end);
    assert_eq!(waiting.status, 304);
    assert_eq!(events.up_to("0\r\n\r\n").await.as_deref().map(|end| end.ends_with("0\r\n\r\n")), Some(true));
}

#[tokio::test]
async fn a_watch_sends_a_snapshot_and_then_what_changes() {
    let api = running();
    let mut events = Stream::open(&api, "/v1/watch", "").await;
    let head = events.up_to("\r\n\r\n").await.expect("a head");
    assert!(head.contains("content-type: text/event-stream") && head.contains("cache-control: no-store"), "{head}");
    let (kind, first, data) = events.event().await;
    assert_eq!((kind.as_str(), &data["revision"]), ("snapshot", &8.into()));
    assert_eq!(data, api.get("/v1/services").await.json());
    // Nothing that a service tells has changed.
    api.snapshot.send_replace(snapshot(9, &set(7, &["10.0.0.1", "2001:db8::1"])));
    api.snapshot.send_replace(snapshot(10, &set(10, &["10.0.0.9"])));
    let (kind, second, data) = events.event().await;
    assert_eq!((kind.as_str(), &data["revision"]), ("change", &10.into()));
    assert_eq!(
        (&data["services"][0]["backends"][0]["address"], &data["gone"]),
        (&"10.0.0.9".into(), &[(); 0][..].into())
    );
    api.snapshot.send_replace(Some(Arc::default()));
    let (_, _, data) = events.event().await;
    assert_eq!((data["services"].as_array().map(Vec::len), &data["gone"][0]), (Some(0), &"web".into()));

    // Cut off and back: no snapshot again, only what was missed.
    api.snapshot.send_replace(snapshot(12, &set(12, &["10.0.0.12"])));
    let mut back = Stream::open(&api, "/v1/watch", &format!("Last-Event-ID: {second}\r\n")).await;
    let (kind, third, data) = back.event().await;
    assert_eq!((kind.as_str(), &data["services"][0]["revision"]), ("change", &12.into()));
    // Up to date: nothing until something changes.
    let mut back = Stream::open(&api, "/v1/watch", &format!("Last-Event-ID: {third}\r\n")).await;
    back.up_to("retry: 1000\n\n").await.expect("the head");
    api.snapshot.send_replace(snapshot(13, &set(13, &["10.0.0.13"])));
    assert_eq!(back.event().await.2["revision"], 13);
    // Of a history that is not ours, the whole.
    for id in ["99-0123456789abcdef", "garbage", &first.replace(|c: char| c.is_ascii_digit(), "0")] {
        let mut back = Stream::open(&api, "/v1/watch", &format!("Last-Event-ID: {id}\r\n")).await;
        assert_eq!(back.event().await.0, "snapshot", "{id}");
    }
    assert_eq!(api.ask("HEAD", "/v1/watch", "").await.status, 200);
}

#[tokio::test]
async fn a_quiet_watch_shows_that_it_lives_and_one_that_does_not_read_is_cut_off() {
    let limits = Limits { request: Duration::from_millis(300), ..Limits::default() };
    let api = start(64, limits);
    let mut quiet = Stream::open(&api, "/v1/watch", "").await;
    quiet.event().await;
    for _ in 0..5 {
        quiet.up_to(":\n\n").await.expect("a comment");
    }
    let many: Vec<String> = (0..20_000_u32).map(|n| std::net::Ipv4Addr::from(n).to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut lazy = Stream::open(&api, "/v1/watch", "").await;
    lazy.event().await;
    let cut = async {
        for revision in 20.. {
            api.snapshot.send_replace(snapshot(revision, &set(revision, &many)));
            if lazy.socket.write_all(b"x").await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, cut).await.expect("cut off in time");
    assert_eq!(api.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn pick_names_one_backend_in_the_body_and_in_a_header() {
    let api = running();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let picked = api.get("/v1/services/web/pick").await;
        assert_eq!((picked.status, picked.header("x-elasticd-revision")), (200, Some("7")));
        let backend = picked.header("x-elasticd-backend").expect("a backend").to_owned();
        let address = picked.json()["address"].as_str().expect("an address").to_owned();
        assert!(backend == format!("{address}:8080") || backend == format!("[{address}]:8080"), "{backend} {address}");
        seen.insert(backend);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["10.0.0.1:8080", "[2001:db8::1]:8080"]);
    let by_key = api.get("/v1/services/web/pick?key=alice&zone=eu-west-1a").await;
    for _ in 0..10 {
        let again = api.get("/v1/services/web/pick?key=alice").await;
        assert_eq!(again.header("x-elasticd-backend"), by_key.header("x-elasticd-backend"));
    }
    let head = api.ask("HEAD", "/v1/services/web/pick?key=alice", "").await;
    assert_eq!((head.header("x-elasticd-backend"), head.body.as_str()), (by_key.header("x-elasticd-backend"), ""));
    assert_eq!(api.get("/v1/services/nobody/pick").await.status, 404);
    assert_eq!(api.get("/v1/services/db/pick").await.status, 503);
    api.snapshot.send_replace(snapshot(9, &set(9, &[])));
    let none = api.get("/v1/services/web/pick").await;
    assert_eq!(
        (none.status, none.json()["detail"].as_str()),
        (503, Some("service web has no backend with a weight above 0"))
    );
}

#[tokio::test]
async fn discovery_answers_the_services_asked_for_unless_envoy_has_just_these() {
    let api = running();
    let asked = |services: &[&str], version: &serde_json::Value, wait: &str| {
        let node = json!({"metadata": {"elasticd_wait": wait}});
        json!({"resource_names": services, "version_info": version, "node": node})
    };
    let ask = async |body| api.send(&api.socket, "POST /v3/discovery:endpoints", &body).await;
    let endpoint = |address: &str| {
        let address = json!({"socket_address": {"address": address, "port_value": 8080}});
        json!({"endpoint": {"address": address}, "load_balancing_weight": 1})
    };
    let kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    let first = ask(asked(&["web"], &"".into(), "0s")).await.json();
    let both = [endpoint("10.0.0.1"), endpoint("2001:db8::1")];
    let zones = json!([{"locality": {"zone": "eu-west-1a"}, "lb_endpoints": both}]);
    let resources = json!([{"@type": kind, "cluster_name": "web", "endpoints": zones}]);
    let version = &first["version_info"];
    assert_eq!(first, json!({"resources": resources, "type_url": kind, "version_info": version}));
    assert_eq!(ask(asked(&[], &"".into(), "0s")).await.json(), first, "it is all there is");
    // What it has is not sent again, and of what there is not, nothing.
    assert_eq!(ask(asked(&["web"], version, "0s")).await.status, 304);
    let none = ask(asked(&["nobody"], version, "0s")).await.json();
    assert_eq!(none["resources"], json!([]));
    assert_ne!(&none["version_info"], version);
    // The snapshot alone moves on; then there is other content, at the same revision as after a lost state directory.
    let changes = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        api.snapshot.send_replace(snapshot(9, &set(7, &["10.0.0.1", "2001:db8::1"])));
        tokio::time::sleep(Duration::from_millis(50)).await;
        api.snapshot.send_replace(snapshot(9, &set(7, &["10.0.0.9"])));
    };
    let (second, ()) = tokio::join!(ask(asked(&["web"], version, "60s")), changes);
    let second = second.json();
    assert_ne!(&second["version_info"], version);
    assert_eq!(second["resources"][0]["endpoints"][0]["lb_endpoints"], json!([endpoint("10.0.0.9")]));
    // Several at once are separate resources, in the order of their names.
    let services = [(name("web"), set(7, &["10.0.0.1"])), (name("db"), set(9, &[]))].into();
    api.snapshot.send_replace(Some(Arc::new(elasticd::model::Snapshot { revision: 9, services })));
    let two = ask(asked(&["web", "db"], version, "0s")).await.json();
    let names: Vec<_> = (0..2).map(|n| two["resources"][n]["cluster_name"].as_str()).collect();
    assert_eq!(names, [Some("db"), Some("web")]);
    assert_eq!((&two["resources"][0]["endpoints"], &two["resources"][2]), (&json!([]), &json!(null)));
}

#[tokio::test]
async fn explain_says_in_or_out_and_why() {
    let api = running();
    api.registry.send_modify(|report| {
        let report = Arc::make_mut(report);
        let mut listed = Instance::new("i-9");
        listed.tags.insert("Role".into(), "cache".into());
        report.providers.get_mut("prod").expect("prod").instances = [listed].into();
        let web = Arc::make_mut(report.services.get_mut("web").expect("web"));
        let reason = Reason::OtherZone { zone: Some("b".into()), own: "a".into() };
        web.excluded_members = [Exclusion { id: "i-8".into(), reason }].into();
    });
    let backend = api.get("/v1/explain/i-0").await.json();
    assert_eq!(backend["services"][0]["included"], true);
    assert_eq!(backend["services"][0]["backend"]["address"], "10.0.0.1");
    let out = api.get("/v1/explain/i-9").await.json();
    let verdict = |service: &str| {
        serde_json::json!({"service": service, "included": false, "message": format!("tag Role is \"cache\"; the service selects Role = {service:?}"),
            "reason": "tag_differs", "key": "Role", "value": "cache", "wanted": format!("{service:?}")})
    };
    let expected = serde_json::json!({"instance": "i-9", "services": [verdict("db"), verdict("web")]});
    assert_eq!(out, expected);
    let out = api.get("/v1/explain/i-8").await.json();
    assert_eq!(out["services"].as_array().map(Vec::len), Some(1));
    assert_eq!(out["services"][0]["reason"], "other_zone");
    let unknown = api.get("/v1/explain/i-404").await;
    assert_eq!((unknown.status, &unknown.json()["title"]), (404, &"Unknown instance".into()));
}

#[tokio::test]
async fn in_a_full_house_idle_connections_make_room() {
    let api = start(8, Limits { crowded: Duration::from_millis(100), ..Limits::default() });
    let mut idle = Vec::new();
    for _ in 0..30 {
        idle.push(api.connect().await);
    }
    // All before it have to be let in and go first.
    assert_eq!(timeout(BOUND, api.get("/healthz")).await.expect("in time").status, 200);
    // One that waits for a change is not idle.
    let change = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        api.snapshot.send_replace(snapshot(9, &set(9, &["10.0.0.9"])));
    };
    let mut crowd = Vec::new();
    for _ in 0..8 {
        crowd.push(api.connect().await);
    }
    let (answer, ()) = tokio::join!(api.get("/v1/services/web?wait=20s&revision=7"), change);
    assert_eq!(answer.status, 200);
}
