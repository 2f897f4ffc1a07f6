//! The `http` provider against a server that answers byte for byte what a test says.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use elasticd::model::Instance;
use elasticd::provider::http::{Error, Http, Raw};
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::harness::elasticd::Elasticd;
use crate::harness::http::{Reply, Server};
use crate::harness::{BoundedCommand as _, closed_socket};

const LONG: Duration = Duration::from_secs(30);

fn provider(keys: Value, timeout: Duration) -> Http {
    let raw: Raw = serde_json::from_value(keys).expect("known keys");
    Http::new(&raw.resolve(timeout).expect("a configuration"))
}

/// The URL of a server. Its query is a secret.
fn url(server: &Server) -> String {
    format!("http://{}/v1/targets?token=hush", server.address())
}

fn of(server: &Server) -> Http {
    provider(json!({ "url": url(server), "max_bytes": 100_000 }), LONG)
}

async fn failure(provider: &mut Http) -> Error {
    let error = provider.discover().await.expect_err("no set");
    let text = error.to_string();
    assert!(!text.contains("hush"), "a secret: {text}");
    assert!(text.len() < 2000 && !text.contains(char::is_control), "{text}");
    error
}

fn assert_says(error: &Error, wanted: &[&str]) {
    let said = error.to_string();
    for words in wanted {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
}

fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| instance.id.as_str()).collect()
}

const SET: &str = r#"[{"targets": ["10.0.0.1:80", "10.0.0.2:80"], "labels": {"__meta_role": "web", "zone": "a"}}]"#;

#[tokio::test]
async fn both_formats_are_read_and_the_user_agent_is_sent() {
    let server = Server::start(None);
    server.answer(Reply::json(SET));
    let mut provider =
        provider(json!({ "url": url(&server), "headers": { "X-Scope": "shop", "Accept": "application/x" } }), LONG);
    let instances = provider.discover().await.expect("a set");
    assert_eq!(ids(&instances), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!((instances[0].port, instances[0].zone.as_deref()), (Some(80), Some("a")));
    assert_eq!(instances[0].tags["__meta_role"], "web");
    // However it is called, and cut into pieces.
    let chunks =
        ["[{\"", "id\": \"a\"", ", \"port\": 80}", "]"].map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    server.answer(Reply::Bytes(format!("{head}{}0\r\n\r\n", chunks.concat()).into_bytes()));
    assert_eq!(ids(&provider.discover().await.expect("a set")), ["a"]);
    server.answer(Reply::json("[]"));
    assert_eq!(provider.discover().await.expect("an empty set"), []);
    let request = server.requests()[0].to_ascii_lowercase();
    let host = format!("host: {}\r\n", server.address());
    for line in ["get /v1/targets?token=hush http/1.1\r\n", &host, "x-scope: shop\r\n", "accept: application/x\r\n"] {
        assert!(request.contains(line), "{line} is not in {request}");
    }
    assert!(!request.contains("accept-encoding") && !request.contains("if-none-match"), "{request}");
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    for (validator, condition) in [
        ("ETag: W/\"v1\"\r\n", "if-none-match: W/\"v1\"\r\n"),
        ("Last-Modified: Tue, 15 Nov 1994 12:45:26 GMT\r\n", "if-modified-since: Tue, 15 Nov 1994 12:45:26 GMT\r\n"),
    ] {
        let server = Server::start(None);
        let mut provider = of(&server);
        server.script(move |request| match request.contains(condition) {
            true => Reply::Bytes(format!("HTTP/1.1 304 Not Modified\r\n{validator}\r\n").into_bytes()),
            false => Reply::new("200 OK", validator, SET),
        });
        for _ in 0..3 {
            assert_eq!(ids(&provider.discover().await.expect("a set")), ["10.0.0.1:80", "10.0.0.2:80"]);
        }
        let requests = server.requests();
        let asking: Vec<_> = requests.iter().map(|request| request.contains(condition)).collect();
        assert_eq!(asking, [false, true, true], "{requests:#?}");
        // A failure between changes nothing of that, and what is no set is no version to have.
        server.answer(Reply::new("200 OK", "ETag: \"bad\"\r\n", "<html>"));
        failure(&mut provider).await;
        server.answer(Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()));
        assert_eq!(provider.discover().await.expect("a set").len(), 2);
        assert!(server.requests().last().is_some_and(|request| request.contains(condition)));
        // A server that no longer sends a validator is not asked with an earlier one.
        server.answer(Reply::json("[]"));
        assert_eq!(provider.discover().await.expect("an empty set"), []);
        server.answer(Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()));
        assert_says(&failure(&mut provider).await, &["304 Not Modified", "correct the server"]);
    }
}

#[tokio::test]
async fn each_failure_names_the_url_the_answer_and_the_remedy() {
    let json = |length: usize, body: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        Reply::Bytes((head + body).into_bytes())
    };
    let bytes = |text: &str| Reply::Bytes(text.as_bytes().to_vec());
    let server = Server::start(None);
    let asked = format!("http://{}/v1/targets", server.address());
    for (reply, expected) in [
        (
            Reply::new("200 OK", "Content-Type: text/html\r\n", "<html>\n<h1>Sign in</h1>"),
            &["invalid JSON", "200 OK, text/html, 23 bytes", "beginning with \"<html> <h1>Sign in</h1>\""][..],
        ),
        (Reply::json(" \n"), &["is empty, which is not the same as an empty set"]),
        (json(100, "[]"), &["incomplete response", "200 OK, application/json, 2 of 100 bytes", "any proxy between"]),
        (json(40, SET), &["invalid JSON: EOF", "40 bytes"]),
        (
            bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n"),
            &["incomplete response", "2 bytes"],
        ),
        (bytes("HTTP/1.1 200 OK\r\n\r\n[{\"id\": \"a\"}"), &["invalid JSON: EOF", "12 bytes"]),
        (bytes("SSH-2.0-OpenSSH_9.2p1\r\n"), &["incomplete response", "nothing came"]),
        (bytes(""), &["incomplete response", "nothing came"]),
        (bytes("HTTP/1.1 200 OK\r\nContent-Le"), &["incomplete response", "nothing came"]),
        (Reply::new("204 No Content", "", ""), &["204 No Content", "correct the server"]),
        (Reply::new("206 Partial Content", "", "[]"), &["206 Partial Content", "correct the server"]),
        (
            Reply::new("302 Found", "Location: https://sso.example/login\r\n", "moved"),
            &["302 Found", "redirects to \"https://sso.example/login\"", "set the provider's `url`"],
        ),
        (Reply::new("401 Unauthorized", "", "bad token"), &["refuses us", "`bearer_file`", "it said \"bad token\""]),
        (Reply::new("404 Not Found", "", ""), &["404 Not Found", "correct the provider's `url`"]),
        (Reply::new("500 Internal Server Error", "", "oops\u{7}"), &["see the server's log; it said \"oops\""]),
        (
            Reply::new("200 OK", "Content-Encoding: gzip\r\n", "x"),
            &["the encoding \"gzip\"", "not asked for", "send it plainly"],
        ),
        (json(100_001, ""), &["more than 100000 bytes", "raise the provider's `max_bytes`"]),
        (
            Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; 10_000]),
            &["more than 100000 bytes", "raise the provider's `max_bytes`"],
        ),
        (
            Reply::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".to_vec()),
            &["incomplete response", "nothing came"],
        ),
        (Reply::Endless(b"HTTP/1.1 500 Oops\r\n\r\n".to_vec(), vec![b'x'; 10_000]), &["500", "it said \"xxx", "x…\""]),
        (Reply::json(r#"[{"targets": ["web-1:80"]}]"#), &["entry 0, target 0: the address \"web-1:80\"", "no DNS"]),
        (Reply::json(r#"[{"id": "a"}, {"id": "a"}]"#), &["entry 1: the id \"a\" is that of entry 0 too"]),
        (Reply::json(r#"{"error": "quota"}"#), &["invalid JSON: unknown field `error`"]),
    ] {
        let what = format!("{reply:?}");
        server.answer(reply);
        let error = failure(&mut of(&server)).await;
        assert_says(&error, expected);
        assert_says(&error, &[&asked]);
        assert!(!error.is_throttled(), "{}", &what[..what.len().min(100)]);
    }
}

#[tokio::test]
async fn a_server_that_asks_for_fewer_calls_is_understood() {
    let server = Server::start(None);
    for (status, headers, throttled, expected) in [
        ("429 Too Many Requests", "", true, "asks for fewer calls: elasticd slows down"),
        ("429 Too Many Requests", "Retry-After: 120\r\n", true, "asks for fewer calls for 120 s"),
        ("503 Service Unavailable", "Retry-After: 7\r\n", true, "asks not to be called for 7 s"),
        ("503 Service Unavailable", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n", true, "asks not to be called"),
        ("503 Service Unavailable", "", false, "see the server's log"),
        ("500 Internal Server Error", "Retry-After: 7\r\n", false, "see the server's log"),
    ] {
        server.answer(Reply::new(status, headers, "later"));
        let error = failure(&mut of(&server)).await;
        assert_eq!(error.is_throttled(), throttled, "{error}");
        assert_says(&error, &[status, expected]);
    }
}

#[tokio::test]
async fn a_timeout_says_how_much_was_received() {
    let server = Server::start(None);
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n[".to_vec();
    for (reply, came) in [
        (Reply::Trickle(head, vec![b' '; 4999], Duration::from_millis(20)), "200 OK, application/json, "),
        (Reply::Trickle(Vec::new(), b"HTTP/1.1 200".to_vec(), Duration::from_secs(1)), "nothing came"),
        (Reply::Silence, "nothing came"),
    ] {
        server.answer(reply);
        let mut provider = provider(json!({ "url": url(&server) }), Duration::from_millis(500));
        let error = failure(&mut provider).await;
        assert_says(&error, &["in time", came, "raise the provider's `timeout` (500ms)"]);
        if came != "nothing came" {
            assert_says(&error, &[" of 5000 bytes"]);
        }
    }
    let absent = format!("http://{}/", closed_socket());
    let error = failure(&mut provider(json!({ "url": absent.as_str() }), LONG)).await;
    assert_says(&error, &[&format!("cannot connect to {absent}"), "refused", "see whether the server runs"]);
}

#[tokio::test]
async fn a_secret_is_read_at_each_poll_and_never_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    let server = Server::start(None);
    let sent = || {
        let last = server.requests().pop().expect("a request");
        last.lines().find_map(|line| line.strip_prefix("authorization: ").map(str::to_owned))
    };
    for (key, before) in [("bearer_file", "Bearer "), ("authorization_file", "")] {
        let mut provider = provider(json!({ "url": url(&server), key: file }), LONG);
        for token in ["hush-1", "hush-2"] {
            fs::write(&file, format!("{token}\n")).expect("written");
            server.answer(Reply::json("[]"));
            provider.discover().await.expect("a set");
            assert_eq!(sent(), Some(format!("{before}{token}")));
            server.answer(Reply::new("403 Forbidden", "", "no"));
            failure(&mut provider).await;
        }
        for (content, expected) in [(" \n", "it is empty"), ("hush\nhush", "such as a second line")] {
            fs::write(&file, content).expect("written");
            assert_says(&failure(&mut provider).await, &[&format!("`{key}` {}", file.display()), expected]);
        }
        fs::remove_file(&file).expect("removed");
        assert_says(&failure(&mut provider).await, &["No such file", "correct the file"]);
    }
    let mut directory = provider(json!({ "url": url(&server), "bearer_file": dir.path() }), LONG);
    assert_says(&failure(&mut directory).await, &["it is not a regular file"]);
}

#[tokio::test]
async fn a_unix_socket_is_asked_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("sock");
    let url = format!("http://unix:{}:/v1/t?x=y", path.display());
    let absent = failure(&mut provider(json!({ "url": url }), LONG)).await;
    assert_says(&absent, &["cannot connect to http://unix:", "No such file"]);
    let server = Server::once_at(&path, Reply::json(SET));
    assert_eq!(provider(json!({ "url": url }), LONG).discover().await.expect("a set").len(), 2);
    let request = server.join().expect("a client");
    assert!(request.starts_with("GET /v1/t?x=y HTTP/1.1\r\nhost: localhost\r\n"), "{request}");
}

/// One service of what the server answers, and a file of it.
fn elasticd(url: &str, more: &str) -> Elasticd {
    Elasticd::new(&format!(
        "[providers.inventory]\ntype = 'http'\nurl = '{url}'\ninterval = '100ms'\n{more}\n\
         [services.web]\nprovider = 'inventory'\nselect = {{ __meta_role = 'web' }}\nguard = {{ max_drop = '100%' }}\n\
         [frontends.json]\ntype = 'json'\noutput = 'DIR/out.json'\n"
    ))
}

fn error(status: &Value) -> &str {
    status["providers"]["inventory"]["error"].as_str().unwrap_or_default()
}

#[test]
fn a_set_is_served_and_stays_while_its_server_fails() {
    let server = Server::start(None);
    server.script(|request| match request.contains("if-none-match: \"1\"\r\n") {
        true => Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()),
        false => Reply::new("200 OK", "ETag: \"1\"\r\n", SET),
    });
    let elasticd = elasticd(&url(&server), "timeout = '3s'").ready();
    elasticd.await_applied("json", "web", &["10.0.0.1:80", "10.0.0.2:80"]);
    let (served, revision) = (elasticd.read("out.json"), elasticd.status()["revision"].clone());
    elasticd.await_status("several polls", |status| status["providers"]["inventory"]["polls"].as_u64() > Some(5));
    assert_eq!(server.requests().iter().filter(|request| !request.contains("if-none-match")).count(), 1);
    for (reply, expected) in [
        (Reply::new("200 OK", "Content-Type: text/html\r\n", "<html>"), "200 OK, text/html, 6 bytes"),
        (Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[]".to_vec()), "2 of 99 bytes"),
        (Reply::new("301 Moved", "Location: /there\r\n", ""), "redirects to \"/there\""),
        (Reply::Silence, "nothing came; see why the server is slow, or raise the provider's `timeout` (3s)"),
    ] {
        server.answer(reply);
        elasticd.await_status(expected, |status| error(status).contains(expected));
        assert_eq!(elasticd.read("out.json"), served, "{expected}");
        assert_eq!(elasticd.status()["revision"], revision, "{expected}");
    }
    let throttles = |status: &Value| status["providers"]["inventory"]["throttles"].as_u64();
    assert_eq!(throttles(&elasticd.status()), Some(0));
    server.answer(Reply::new("429 Too Many Requests", "", ""));
    elasticd.await_status("throttled", |status| throttles(status) > Some(0));
    server.answer(Reply::json(r#"[{"targets": ["10.0.0.3:81"], "labels": {"__meta_role": "web"}}]"#));
    elasticd.await_applied("json", "web", &["10.0.0.3:81"]);
    elasticd.await_status("no error", |status| error(status).is_empty());
    assert!(!elasticd.log().contains("hush"), "{}", elasticd.log());
}

#[test]
fn a_wrong_configuration_names_its_keys() {
    let (code, _, said) = elasticd("ftp://a/", "ca_file = 'x'\nkey_file = '/k'\nx = 1").run(&["check"]);
    assert_eq!(code, 78, "{said}");
    for expected in ["url: is neither", "ca_file: \"x\" is not an absolute path", "cert_file: is missing", "x: unknown"]
    {
        assert!(said.contains(&format!("providers.inventory.{expected}")), "{expected}: {said}");
    }
}

/// Certificates made for a test: an authority's, and what it signed.
struct Authority(tempfile::TempDir);

impl Authority {
    fn new() -> Self {
        let new = Self(tempfile::tempdir().expect("a directory"));
        new.openssl(&format!("req -x509 -days 2 -keyout ca.key -out ca.pem -subj /CN=test {KEY}"));
        new
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(self.0.path()).bounded_output();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A certificate for a name, `NAME.pem`, and its key, `NAME.key`.
    fn sign(&self, name: &str, subject: &str, days: i32) {
        fs::write(self.0.path().join("ext"), format!("subjectAltName={subject}\n")).expect("written");
        self.openssl(&format!("req -new -keyout {name}.key -out {name}.csr -subj /CN={name} {KEY}"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -out {name}.pem -days {days} -extfile ext"
        ));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn certificates(&self, name: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(self.path(name)).expect("readable").map(|der| der.expect("PEM")).collect()
    }

    /// A server that has the certificate of this name, and asks for one of ours where the test wants that.
    fn serve(&self, name: &str, asks: bool) -> Server {
        let ring = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.certificates("ca.pem"));
        let clients = match asks {
            false => WebPkiClientVerifier::no_client_auth(),
            true => WebPkiClientVerifier::builder_with_provider(Arc::new(roots), ring.clone()).build().expect("roots"),
        };
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).expect("a key");
        let config = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(clients)
            .with_single_cert(self.certificates(&format!("{name}.pem")), key)
            .expect("a certificate");
        let server = Server::start(Some(config));
        server.answer(Reply::json(SET));
        server
    }
}

/// How keys are made: quickly.
const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

#[tokio::test]
async fn server_certificates_are_verified() {
    let authority = Authority::new();
    authority.sign("good", "IP:127.0.0.1,DNS:localhost", 2);
    authority.sign("other", "DNS:other.example", 2);
    authority.sign("old", "IP:127.0.0.1", -1);
    let other = Authority::new();
    let ca = authority.path("ca.pem");
    let good = authority.serve("good", false);
    let https = |server: &Server| url(server).replace("http:", "https:");
    for host in ["127.0.0.1", "localhost"] {
        let url = https(&good).replace("127.0.0.1", host);
        let mut provider = provider(json!({ "url": url, "ca_file": ca }), LONG);
        for _ in 0..2 {
            assert_eq!(provider.discover().await.expect("a set").len(), 2);
        }
    }
    let unknown =
        "neither the system nor `ca_file` knows who signed its certificate: name that authority's in `ca_file`";
    for (server, keys, expected) in [
        (&good, json!({}), &["no TLS with https://127.0.0.1", unknown][..]),
        (&good, json!({ "ca_file": other.path("ca.pem") }), &["BadSignature", unknown]),
        (&authority.serve("other", false), json!({ "ca_file": ca }), &["its certificate is not for \"127.0.0.1\""]),
        (
            &authority.serve("old", false),
            json!({ "ca_file": ca }),
            &["Expired", "renew its certificate, or correct this"],
        ),
        (&Server::start(None), json!({ "ca_file": ca }), &["it seems to speak no TLS there: correct the port"]),
        (&good, json!({ "ca_file": authority.path("good.key") }), &["`ca_file` ", "it holds no certificate (PEM)"]),
        (&good, json!({ "ca_file": authority.path("none") }), &["`ca_file` ", "No such file", "correct the file"]),
    ] {
        let mut keys = keys;
        keys["url"] = https(server).into();
        assert_says(&failure(&mut provider(keys, LONG)).await, expected);
    }
    // The mistake is put right while elasticd runs.
    let file = authority.path("replaced.pem");
    fs::copy(other.path("ca.pem"), &file).expect("copied");
    let mut provider = provider(json!({ "url": https(&good), "ca_file": file }), LONG);
    assert_says(&failure(&mut provider).await, &[unknown]);
    fs::copy(ca, &file).expect("copied");
    assert_eq!(provider.discover().await.expect("a set").len(), 2);
    // An answer that is cut off, and a server whose port is asked plainly.
    good.answer(Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[]".to_vec()));
    assert_says(&failure(&mut provider).await, &["incomplete response", "2 of 99 bytes"]);
    assert_says(&failure(&mut of(&good)).await, &["incomplete response", "nothing came"]);
}

#[tokio::test]
async fn a_client_certificate_is_presented() {
    let authority = Authority::new();
    authority.sign("server", "IP:127.0.0.1", 2);
    authority.sign("us", "DNS:elasticd", 2);
    let server = authority.serve("server", true);
    let url = url(&server).replace("http:", "https:");
    let with = |cert: &str, key: &str| {
        let (ca, cert, key) = (authority.path("ca.pem"), authority.path(cert), authority.path(key));
        provider(json!({ "url": url, "ca_file": ca, "cert_file": cert, "key_file": key }), LONG)
    };
    assert_eq!(with("us.pem", "us.key").discover().await.expect("a set").len(), 2);
    let mut without = provider(json!({ "url": url, "ca_file": authority.path("ca.pem") }), LONG);
    assert_says(&failure(&mut without).await, &["set `cert_file` and `key_file`"]);
    for (cert, key, expected) in [
        ("us.pem", "server.key", "`key_file` "),
        ("us.pem", "us.pem", "`key_file` "),
        ("us.key", "us.key", "`cert_file` "),
    ] {
        assert_says(&failure(&mut with(cert, key)).await, &[expected, "correct the file"]);
    }
}
