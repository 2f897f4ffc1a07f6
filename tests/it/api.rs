//! The query socket, spoken to in raw HTTP.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use elasticd::api::{Api, Config, Limits, Sources};
use elasticd::cli;
use elasticd::cli::client;
use elasticd::model::{Backend, BackendState, Name, Selector, Service, ServiceSet, Snapshot};
use elasticd::registry::{ProviderReport, Report, ServiceReport};
use elasticd::status;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes, however busy the machine.
pub const BOUND: Duration = Duration::from_secs(20);

pub struct Running {
    _directory: TempDir,
    pub socket: PathBuf,
    pub admin: PathBuf,
    metrics: Option<std::net::SocketAddr>,
    pub snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    pub registry: watch::Sender<Arc<Report>>,
    ready: watch::Sender<bool>,
    pub shutdown: CancellationToken,
    served: JoinHandle<()>,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub fn set(revision: u64, addresses: &[&str]) -> Arc<ServiceSet> {
    let backend = |(n, address): (usize, &&str)| Backend {
        id: format!("i-{n}"),
        address: address.parse().expect("an address"),
        port: 8080,
        zone: Some("eu-west-1a".into()),
        weight: 1,
        state: BackendState::Up,
        tags: [("Role".to_owned(), "web".to_owned())].into(),
    };
    Arc::new(ServiceSet { revision, backends: addresses.iter().enumerate().map(backend).collect() })
}

pub fn snapshot(revision: u64, web: &Arc<ServiceSet>) -> Option<Arc<Snapshot>> {
    Some(Arc::new(Snapshot { revision, services: [(name("web"), Arc::clone(web))].into() }))
}

fn report() -> Report {
    let service = |text: &str| Service {
        select: Selector::of_tags([("Role", [text])]),
        ..Service::new(name(text), name("prod"))
    };
    let source = status::Source {
        provider: name("prod"),
        backends: Some(2),
        age_seconds: Some((SystemTime::now() - Duration::from_secs(42)).into()),
        held: None,
    };
    let report = |name: &str, status| {
        let (status, service) = (Arc::new(status), Arc::new(service(name)));
        Arc::new(ServiceReport { status, service, excluded_members: Arc::default() })
    };
    let web = status::Service { backends: Some(2), revision: 7, ..status::Service::of(vec![source.clone()]) };
    let db = status::Service::of(vec![status::Source { backends: None, age_seconds: None, ..source }]);
    let prod =
        status::Provider { type_name: "ec2".into(), error: Some("expired credential".into()), ..Default::default() };
    let prod = ProviderReport { status: prod, ..Default::default() };
    Report {
        providers: [(name("prod"), prod)].into(),
        services: [(name("web"), report("web", web)), (name("db"), report("db", db))].into(),
        zone: None,
        state_error: None,
    }
}

pub fn start(max_connections: usize, limits: Limits) -> Running {
    let directory = tempfile::tempdir().expect("a directory");
    let (socket, admin) = (directory.path().join("elasticd.sock"), directory.path().join("admin.sock"));
    let (snapshot, snapshots) = watch::channel(snapshot(8, &set(7, &["10.0.0.1", "2001:db8::1"])));
    let (registry, reports) = watch::channel(Arc::new(report()));
    let (ready, readiness) = watch::channel(true);
    let nginx = watch::channel(Arc::new(status::Frontend { type_name: "nginx".into(), ..Default::default() })).1;
    let frontends = watch::channel(Arc::new(BTreeMap::from([(name("nginx"), nginx)]))).1;
    let sources = Sources {
        confinement: Arc::default(),
        snapshot: snapshots,
        registry: reports,
        frontends,
        ready: readiness,
        fleet: watch::channel(Arc::default()).1,
        orphaned_outputs: watch::channel(Arc::default()).1,
        started: SystemTime::now(),
        controls: elasticd::api::Controls::disconnected(),
    };
    let metrics = Some(([127, 0, 0, 1], 0).into());
    let admin_socket = Some(admin.clone());
    let config = Config { socket: socket.clone(), mode: 0o600, gid: None, admin_socket, max_connections, metrics };
    let api = Api::bind(&config, sources).expect("an API").with_limits(limits);
    let metrics = api.metrics_address();
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(api.serve(shutdown.clone()));
    Running { _directory: directory, socket, admin, metrics, snapshot, registry, ready, shutdown, served }
}

pub fn running() -> Running {
    start(64, Limits::default())
}

impl Running {
    pub async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.expect("a connection")
    }

    async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.expect("written");
        to_end(&mut stream).await
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: elasticd\r\nConnection: close\r\n{headers}\r\n");
        answer(&self.raw(&request).await)
    }

    /// A request with a body.
    pub async fn send(&self, socket: &Path, request: &str, body: &serde_json::Value) -> Answer {
        let (mut stream, body) = (UnixStream::connect(socket).await.expect("a connection"), body.to_string());
        let head = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.expect("written");
        answer(&to_end(&mut stream).await)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }
}

pub async fn to_end(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut read = Vec::new();
    // A reset after the last byte is as good an end as any.
    let _ = timeout(BOUND, stream.read_to_end(&mut read)).await.expect("an end in time");
    String::from_utf8(read).expect("UTF-8")
}

pub fn answer(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("an answer rather than {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Reads one keep-alive answer with an empty or `Content-Length` body.
async fn one_answer(stream: &mut UnixStream) -> Answer {
    let mut read = Vec::new();
    let read_one = async {
        loop {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).await.expect("read");
            assert!(count > 0, "the connection ended after {:?}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&read).into_owned();
            if text.contains("\r\n\r\n") {
                let answer = answer(&text);
                let length: usize = answer.header("content-length").map_or(0, |l| l.parse().expect("a length"));
                if answer.body.len() >= length {
                    return answer;
                }
            }
        }
    };
    timeout(BOUND, read_one).await.expect("an answer in time")
}

const PING: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn answers_each_resource() {
    let api = running();
    let all = api.get("/v1/services").await;
    assert_eq!((all.status, all.header("content-type")), (200, Some("application/json")));
    assert_eq!(all.header("x-elasticd-revision"), Some("8"));
    assert_eq!(all.json()["services"][0]["backends"][1]["address"], "2001:db8::1");

    let web = api.get("/v1/services/web").await;
    assert_eq!((web.status, web.header("cache-control")), (200, Some("no-cache")));
    assert_eq!(web.header("x-elasticd-revision"), Some("7"));
    let age: u64 = web.header("age").expect("an age").parse().expect("seconds");
    assert!((42..62).contains(&age), "{age}");
    let expected = serde_json::json!({"id": "i-0", "address": "10.0.0.1", "port": 8080, "zone": "eu-west-1a",
        "weight": 1, "state": "up", "tags": {"Role": "web"}});
    assert_eq!(web.json()["backends"][0], expected);
    assert_eq!(web.json(), all.json()["services"][0]);

    let text = api.get("/v1/services/w%65b?format=text").await;
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(text.body, "10.0.0.1:8080\n[2001:db8::1]:8080\n");
    assert_ne!(text.header("etag"), web.header("etag"));

    let status = api.get("/v1/status").await.json();
    assert_eq!((&status["revision"], &status["ready"]), (&8.into(), &true.into()));
    assert_eq!(status["providers"]["prod"]["error"], "expired credential");
    assert_eq!(status["frontends"]["nginx"]["phase"], "waiting");

    assert_eq!(api.get("/healthz").await.body, "ok\n");
    assert_eq!(api.get("/readyz").await.status, 200);
    let metrics = api.get("/metrics").await;
    assert!(metrics.header("content-type").expect("a type").starts_with("application/openmetrics-text"));
    assert!(metrics.body.contains("\nelasticd_service_backends{service=\"web\"} 2\n"), "{}", metrics.body);
}

#[tokio::test]
async fn not_modified_until_something_changes() {
    let api = running();
    let etag = api.get("/v1/services/web").await.header("etag").expect("a tag").to_owned();
    for condition in [format!("If-None-Match: W/{etag}\r\n"), format!("If-None-Match: \"x\", {etag}\r\n")] {
        let same = api.ask("GET", "/v1/services/web", &condition).await;
        assert_eq!((same.status, same.body.as_str(), same.header("etag")), (304, "", Some(etag.as_str())));
        assert_eq!(same.header("x-elasticd-revision"), Some("7"));
        assert!(same.header("age").is_some());
    }
    assert_eq!(api.ask("GET", "/v1/services", "If-None-Match: *\r\n").await.status, 304);
    let condition = format!("If-None-Match: {etag}\r\n");
    // Other content at the same revision, as after a lost state directory.
    api.snapshot.send_replace(snapshot(8, &set(7, &["10.0.0.3"])));
    let changed = api.ask("GET", "/v1/services/web", &condition).await;
    assert_eq!((changed.status, &changed.json()["backends"][0]["address"]), (200, &"10.0.0.3".into()));
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let api = running();
    for path in ["/v1/services", "/v1/services/web?format=text", "/readyz", "/v1/services/nobody"] {
        let (get, head) = (api.get(path).await, api.ask("HEAD", path, "").await);
        assert_eq!((head.status, head.body.as_str()), (get.status, ""));
        assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()), "{path}");
        assert_eq!(head.header("etag"), get.header("etag"));
    }
}

#[tokio::test]
async fn refuses_with_a_problem() {
    let api = running();
    let unknown = api.get("/v1/services/wbe").await;
    assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("application/problem+json")));
    assert_eq!(unknown.json()["detail"], "no service \"wbe\"; configured: db, web");
    assert_eq!(api.get("/v1/services/a%2fb").await.status, 404);
    assert_eq!(api.get("/v1/nothing").await.status, 404);
    for method in ["POST", "OPTIONS", "DELETE"] {
        let refused = api.ask(method, "/v1/services", "").await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    }
    let bad = api.get("/v1/services/web?format=xml").await;
    assert_eq!((bad.status, &bad.json()["status"]), (400, &400.into()));
    assert_eq!(api.get("/v1/services/web?formt=text").await.status, 400);
    assert_eq!(api.get("/healthz?x").await.status, 400);
}

#[tokio::test]
async fn says_what_is_not_known_yet() {
    let api = running();
    let db = api.get("/v1/services/db").await;
    assert_eq!((db.status, db.header("retry-after")), (503, Some("1")));
    let why = "service db: waiting for provider prod; its last poll failed: expired credential";
    assert_eq!(db.json()["detail"], why);
    api.snapshot.send_replace(None);
    assert_eq!(api.get("/v1/services").await.status, 503);
    assert_eq!(api.get("/v1/services/web").await.status, 503);
    assert_eq!(api.get("/v1/services/nobody").await.status, 404);
    api.registry.send_replace(Arc::default());
    assert_eq!(api.get("/v1/services/nobody").await.status, 503, "nobody knows yet what is configured");
    api.registry.send_replace(Arc::new(report()));
    api.ready.send_replace(false);
    let ready = api.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.body.contains(why) && ready.body.contains("frontend nginx: its first update has not ended yet"),
        "{}",
        ready.body
    );
}

#[tokio::test]
async fn keeps_connections_open_and_ignores_bodies() {
    let api = running();
    let mut stream = api.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").await.expect("written");
        assert_eq!(one_answer(&mut stream).await.body, "ok\n");
    }
    // One that would never end is answered and then cut off.
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\nhi").await.expect("written");
    assert!(to_end(&mut stream).await.ends_with("ok\n"));
}

#[tokio::test]
async fn a_slow_client_is_cut_off_while_others_are_served() {
    let limits = Limits { header: Duration::from_millis(200), ..Limits::default() };
    let api = start(64, limits);
    let mut slow = api.connect().await;
    slow.write_all(PING).await.expect("written");
    assert_eq!(one_answer(&mut slow).await.status, 200);
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHo").await.expect("written");
    assert_eq!(api.get("/healthz").await.status, 200);
    assert_eq!(to_end(&mut slow).await, "");
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let api = start(64, Limits { idle: Duration::from_millis(100), ..Limits::default() });
    let mut idle = api.connect().await;
    idle.write_all(PING).await.expect("written");
    assert!(to_end(&mut idle).await.ends_with("ok\n"));
    assert_eq!(to_end(&mut api.connect().await).await, "");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    // Only the bound on the request can end it within the test's own bound.
    let (request, header, idle) = (Duration::from_millis(200), 3 * BOUND, 3 * BOUND);
    let api = start(64, Limits { request, header, idle, ..Limits::default() });
    let many: Vec<String> = (0..60_000_u32).map(|n| std::net::Ipv4Addr::from(n).to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    api.snapshot.send_replace(snapshot(9, &set(9, &many)));
    let mut lazy = api.connect().await;
    lazy.write_all(b"GET /v1/services/web HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    // Bytes stop coming: the server gave up, and all that is left is what the kernel had taken.
    let cut = async {
        while lazy.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, cut).await.expect("cut off in time");
    assert_eq!(api.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn refuses_what_is_too_large_or_no_http() {
    let api = running();
    let large = format!("X-Large: {}\r\n", "x".repeat(20_000));
    assert_eq!(api.ask("GET", "/healthz", &large).await.status, 431);
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(api.ask("GET", "/healthz", &many).await.status, 431);
    assert_eq!(answer(&api.raw("this is no HTTP\r\n\r\n").await).status, 400);
    assert_eq!(api.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_and_are_then_served() {
    let api = start(2, Limits::default());
    let (mut one, mut two) = (api.connect().await, api.connect().await);
    one.write_all(b"GET /healthz").await.expect("written");
    two.write_all(b"GET /healthz").await.expect("written");
    let mut three = api.connect().await;
    three.write_all(PING).await.expect("written");
    let waits = timeout(Duration::from_millis(100), three.read_u8()).await;
    assert!(waits.is_err(), "no answer while the others are open");
    one.write_all(b" HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    // With others waiting, an answer ends its connection.
    assert!(to_end(&mut one).await.contains("connection: close"));
    assert_eq!(one_answer(&mut three).await.status, 200);
}

#[tokio::test]
async fn drains_on_shutdown() {
    let api = running();
    let (mut idle, mut busy) = (api.connect().await, api.connect().await);
    for stream in [&mut idle, &mut busy] {
        stream.write_all(PING).await.expect("written");
        assert_eq!(one_answer(stream).await.status, 200);
    }
    api.shutdown.cancel();
    assert_eq!(to_end(&mut idle).await, "");
    timeout(BOUND, api.served).await.expect("in time").expect("no panic");
    assert!(!api.socket.exists());
}

#[tokio::test]
async fn the_drain_is_bounded() {
    let api = start(64, Limits { drain: Duration::from_millis(100), ..Limits::default() });
    let mut slow = api.connect().await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("written");
    // Served on another connection, the slow one has been accepted too.
    assert_eq!(api.get("/healthz").await.status, 200);
    api.shutdown.cancel();
    timeout(BOUND, api.served).await.expect("in time").expect("no panic");
    assert_eq!(to_end(&mut slow).await, "");
}

#[tokio::test]
async fn a_second_api_on_the_same_socket_is_refused() {
    let api = running();
    let config = Config {
        socket: api.socket.clone(),
        mode: 0o600,
        gid: None,
        admin_socket: None,
        max_connections: 1,
        metrics: api.metrics,
    };
    let sources = Sources {
        confinement: Arc::default(),
        snapshot: watch::channel(None).1,
        registry: watch::channel(Arc::default()).1,
        frontends: watch::channel(Arc::default()).1,
        ready: watch::channel(false).1,
        fleet: watch::channel(Arc::default()).1,
        orphaned_outputs: watch::channel(Arc::default()).1,
        started: SystemTime::now(),
        controls: elasticd::api::Controls::disconnected(),
    };
    let error = Api::bind(&config, sources.clone()).expect_err("the port is taken").to_string();
    assert!(error.contains("cannot serve metrics on 127.0.0.1:"), "{error}");
    let error = Api::bind(&Config { metrics: None, ..config }, sources).expect_err("the socket is taken").to_string();
    assert!(error.contains("stop it or set api.socket"), "{error}");
    assert_eq!(api.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn the_metrics_listener_gives_health_and_metrics_only() {
    let api = running();
    let address = api.metrics.expect("an address");
    for (path, status) in [("/metrics", 200), ("/healthz", 200), ("/readyz", 200), ("/v1/services", 404)] {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        assert_eq!(answer(&to_end(&mut stream).await).status, status, "{path}");
    }
}

#[tokio::test]
async fn the_client_gets_answers_and_elasticds_own_words() {
    let api = running();
    let text = client::get(&api.socket, "/v1/services/web?format=text").await.expect("an answer");
    assert_eq!(text, "10.0.0.1:8080\n[2001:db8::1]:8080\n");
    let error = client::get(&api.socket, "/v1/services/wbe").await.expect_err("unknown");
    assert_eq!(error.to_string(), "no service \"wbe\"; configured: db, web");
    let json = cli::status::Args { json: true };
    assert_eq!(cli::status::run(&json, &api.socket).await.expect("a status"), cli::status::Health::Ready);
    api.ready.send_replace(false);
    let human = cli::status::Args { json: false };
    assert_eq!(cli::status::run(&human, &api.socket).await.expect("a status"), cli::status::Health::NotReady);
    let args = cli::get::Args { service: name("web"), json: true, text: false };
    cli::get::run(&args, &api.socket).await.expect("printed");
}
