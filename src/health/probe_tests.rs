use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn http() -> HealthCheck {
    let probe = Probe::Http { path: "/healthz?a=b".to_owned(), host: None, status: vec![200..=399] };
    HealthCheck { timeout: Duration::from_secs(10), ..HealthCheck::new(probe) }
}

fn tcp() -> HealthCheck {
    HealthCheck { probe: Probe::Tcp, ..http() }
}

/// A server that sends these pieces on every connection, with a pause after each, and then closes it if `closes`.
/// Returns its address, and the last request it received.
async fn server(pieces: &[&str], pause: Duration, closes: bool) -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::new(Mutex::new(String::new()));
    let received = Arc::clone(&asked);
    let pieces: Vec<_> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut buffer = [0; 4096];
            let n = stream.read(&mut buffer).await.unwrap_or_default();
            *received.lock().expect("unpoisoned") = String::from_utf8_lossy(&buffer[..n]).into_owned();
            for piece in &pieces {
                if stream.write_all(piece.as_bytes()).await.is_err() {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            if !closes {
                // Until the other side closes the connection.
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
            }
        }
    });
    (address, asked)
}

async fn answered(answer: &str, check: &HealthCheck) -> Outcome {
    probe(server(&[answer], Duration::ZERO, true).await.0, check).await
}

fn failed(outcome: Outcome) -> String {
    match outcome {
        Outcome::Fail(cause) => cause,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_request_has_the_path_and_the_host() {
    let (address, asked) = server(&["HTTP/1.1 204 No Content\r\n\r\n"], Duration::ZERO, true).await;
    assert_eq!(probe(address, &http()).await, Outcome::Pass);
    let expected =
        format!("GET /healthz?a=b HTTP/1.1\r\nhost: {address}\r\nuser-agent: elasticd\r\nconnection: close\r\n\r\n");
    assert_eq!(*asked.lock().expect("unpoisoned"), expected);
    let named = Probe::Http { path: "/".to_owned(), host: Some("www.example.com".to_owned()), status: vec![204..=204] };
    assert_eq!(probe(address, &HealthCheck { probe: named, ..http() }).await, Outcome::Pass);
    assert!(asked.lock().expect("unpoisoned").contains("\r\nhost: www.example.com\r\n"));
}

#[tokio::test]
async fn the_status_decides() {
    for (answer, passes) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", true),
        ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut off", true),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        assert_eq!(answered(answer, &http()).await == Outcome::Pass, passes, "{answer}");
    }
    let status = vec![200..=299, 302..=302];
    let strict = Probe::Http { path: "/".to_owned(), host: None, status };
    let outcome = answered("HTTP/1.1 301 Moved\r\n\r\n", &HealthCheck { probe: strict, ..http() }).await;
    assert_eq!(failed(outcome), "status 301, expected 200-299, 302");
}

#[tokio::test]
async fn a_response_that_is_not_http_fails_with_the_cause() {
    for answer in ["", "HTTP/1.1", "SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 2xx OK\r\n\r\n", "\0\0\0"] {
        let cause = failed(answered(answer, &http()).await);
        assert!(cause.starts_with("no HTTP response: "), "{answer:?}: {cause}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20));
    let cause = failed(answered(&endless, &http()).await);
    assert!(cause.starts_with("no HTTP response: "), "{cause}");
}

#[tokio::test]
async fn a_body_without_end_does_not_delay_the_result() {
    let head = "HTTP/1.1 200 OK\r\n\r\n";
    let silent = server(&[head], Duration::ZERO, false).await.0;
    assert_eq!(probe(silent, &http()).await, Outcome::Pass);
    let mib = "x".repeat(1 << 20);
    let much = server(&[head, &mib, &mib, &mib], Duration::ZERO, true).await.0;
    assert_eq!(probe(much, &http()).await, Outcome::Pass);
}

#[tokio::test]
async fn a_backend_may_finish_its_response() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").await.expect("written");
        // If the connection were closed already, the first write would be answered with a reset and the second would fail.
        for piece in ["o", "k"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
            stream.write_all(piece.as_bytes()).await.expect("the probe reads");
        }
        let mut request = Vec::new();
        stream.read_to_end(&mut request).await.expect("an end, not a reset");
    };
    let check = http();
    let (outcome, ()) = tokio::join!(probe(address, &check), serve);
    assert_eq!(outcome, Outcome::Pass);
}

#[tokio::test]
async fn a_slow_response_fails() {
    let check = HealthCheck { timeout: Duration::from_millis(200), ..http() };
    let (silent, _) = server(&[], Duration::ZERO, false).await;
    assert_eq!(failed(probe(silent, &check).await), "no response within 200ms");
    let pieces = ["H", "T", "T", "P", "/", "1", ".", "1", " ", "2", "0", "0"];
    let (trickling, _) = server(&pieces, Duration::from_millis(100), false).await;
    assert_eq!(failed(probe(trickling, &check).await), "no response within 200ms");
}

#[tokio::test]
async fn for_tcp_a_connection_is_enough_and_it_is_closed_without_a_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    assert_eq!(probe(address, &tcp()).await, Outcome::Pass);
    let (mut stream, _) = listener.accept().await.expect("a connection");
    assert_eq!(stream.read(&mut [0; 16]).await.expect("an end, not a reset"), 0);
    drop((stream, listener));
    assert_eq!(failed(probe(address, &tcp()).await), "connection refused");
    assert_eq!(failed(probe(address, &http()).await), "connection refused");
}

#[tokio::test]
async fn another_port_may_be_probed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let backend = ([127, 0, 0, 1], 1).into();
    assert_eq!(failed(probe(backend, &tcp()).await), "connection refused");
    assert_eq!(probe(backend, &HealthCheck { port: Some(port), ..tcp() }).await, Outcome::Pass);
}

#[test]
fn a_lack_of_local_resources_is_not_the_backends_fault() {
    for (errno, ours) in [
        (Errno::EMFILE, true),
        (Errno::ENFILE, true),
        (Errno::EADDRNOTAVAIL, true),
        (Errno::ENOBUFS, true),
        (Errno::ECONNREFUSED, false),
        (Errno::EHOSTUNREACH, false),
        (Errno::ETIMEDOUT, false),
    ] {
        assert_eq!(is_local_fault(&io::Error::from(errno)), ours, "{errno}");
    }
    assert_eq!(describe(&io::Error::from(Errno::EHOSTUNREACH)), "no route to host");
}
