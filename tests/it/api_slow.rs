//! Clients that are slow, or stop half-way, at the resources that wait, stream, choose and change: each is cut off in
//! time, and others are answered meanwhile.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use elasticd::api::Limits;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::api::{Answer, BOUND, Running, set, snapshot, start, to_end};
use crate::api_live::Stream;

/// What a client that behaves takes far less than, and the tests' own bound is far more than.
const SHORT: Duration = Duration::from_secs(1);

const DISCOVERY: &str = "POST /v3/discovery:endpoints";
const REGISTER: &str = "PUT /v1/services/web/backends/x";
const REQUESTS: [&str; 5] =
    ["GET /v1/services/web?wait=60s&revision=7", "GET /v1/watch", "GET /v1/services/web/pick", DISCOVERY, REGISTER];

/// Nothing but what is set can end a connection within the test's own bound.
fn patient() -> Limits {
    let long = 3 * BOUND;
    Limits { header: long, idle: long, crowded: long, request: long, ..Limits::default() }
}

fn socket_of<'a>(api: &'a Running, request: &str) -> &'a PathBuf {
    if request == REGISTER { &api.admin } else { &api.socket }
}

/// Sends the beginning of a request.
async fn begin(api: &Running, request: &str, rest: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket_of(api, request)).await.expect("a connection");
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n{rest}").as_bytes()).await.expect("written");
    stream
}

/// Goes on byte by byte, without an end, until it is cut off.
async fn trickle(stream: &mut UnixStream) {
    while stream.write_all(b"x").await.is_ok() {
        sleep(Duration::from_millis(20)).await;
    }
}

/// A whole request with a body.
async fn post(api: &Running, request: &str, body: &Value) -> Answer {
    api.send(socket_of(api, request), request, body).await
}

/// Asks every resource again and again, of both listeners, until all that is `slow` has been cut off.
async fn others_are_answered_until(api: &Running, slow: impl Future<Output = ()>) {
    let asking = async {
        loop {
            assert_eq!(api.get("/v1/services/web?wait=1ms&revision=8").await.status, 200);
            assert_eq!(api.get("/v1/services/web/pick").await.status, 200);
            assert_eq!(post(api, DISCOVERY, &json!({"resource_names": ["web"]})).await.status, 200);
            // It is understood to the end: what is wrong with it is its content.
            assert_eq!(post(api, REGISTER, &json!({"address": "nowhere"})).await.status, 400);
            let mut events = Stream::open(api, "/v1/watch", "").await;
            assert_eq!(events.event().await.0, "snapshot");
        }
    };
    tokio::select! {
        () = asking => unreachable!("it has no end"),
        cut = timeout(BOUND, slow) => cut.expect("cut off in time"),
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_cut_off() {
    let api = start(64, Limits { header: SHORT, ..patient() });
    let slow = async {
        for request in REQUESTS {
            let mut stream = begin(&api, request, "X-Slow: ").await;
            trickle(&mut stream).await;
            assert_eq!(to_end(&mut stream).await, "", "{request}");
        }
    };
    others_are_answered_until(&api, slow).await;
}

#[tokio::test]
async fn half_a_head_and_then_nothing_is_cut_off() {
    let api = start(64, Limits { header: SHORT, ..patient() });
    let slow = async {
        let mut open = Vec::new();
        for request in REQUESTS {
            open.push((request, begin(&api, request, "X-Half").await));
        }
        for (request, stream) in &mut open {
            assert_eq!(to_end(stream).await, "", "{request}");
        }
    };
    others_are_answered_until(&api, slow).await;
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_or_half_is_cut_off() {
    let api = start(64, Limits { request: SHORT, ..patient() });
    let slow = async {
        for request in [DISCOVERY, REGISTER] {
            let mut half = begin(&api, request, "Content-Length: 60000\r\n\r\n{").await;
            let mut stream = begin(&api, request, "Content-Length: 60000\r\n\r\n{").await;
            trickle(&mut stream).await;
            for stream in [&mut half, &mut stream] {
                assert_eq!(to_end(stream).await, "", "{request}");
            }
        }
    };
    others_are_answered_until(&api, slow).await;
}

#[tokio::test]
async fn who_does_not_take_what_it_asked_for_is_cut_off_and_who_does_goes_on() {
    let api = start(64, Limits { request: Duration::from_secs(3), ..patient() });
    let mut attentive = Stream::open(&api, "/v1/watch", "").await;
    assert_eq!(attentive.event().await.0, "snapshot");
    let asked = json!({"resource_names": ["web"]});
    let version = post(&api, DISCOVERY, &asked).await.json()["version_info"].clone();
    let node = json!({"metadata": {"elasticd_wait": "60s"}});
    let waiting = json!({"resource_names": ["web"], "version_info": version, "node": node}).to_string();
    // All wait for a change, and then take nothing of it.
    let rest = format!("Content-Length: {}\r\n\r\n{waiting}", waiting.len());
    let mut lazy = vec![begin(&api, DISCOVERY, &rest).await];
    for request in ["GET /v1/services/web?wait=60s&revision=7", "GET /v1/services?wait=60s&revision=8", "GET /v1/watch"]
    {
        lazy.push(begin(&api, request, "\r\n").await);
    }
    let many: Vec<String> = (0..5_000_u32).map(|n| std::net::Ipv4Addr::from(n).to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    api.snapshot.send_replace(snapshot(9, &set(9, &many)));
    assert_eq!(attentive.event().await.2["revision"], 9);
    let slow = async {
        for stream in &mut lazy {
            trickle(stream).await;
        }
    };
    others_are_answered_until(&api, slow).await;
    api.snapshot.send_replace(snapshot(10, &set(10, &["10.0.0.9"])));
    assert_eq!(attentive.event().await.2["revision"], 10, "it is not cut off with them");
}
