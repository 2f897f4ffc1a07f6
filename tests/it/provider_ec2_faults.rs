//! Whatever goes wrong with an answer, nothing partial is published, and all is well again once the fault ends.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use elasticd::provider::Provider as _;
use elasticd::provider::ec2::Error;

use crate::ec2_endpoint::{Endpoint, Fault, Machine, When};
use crate::harness::await_end;
use crate::harness::elasticd::Elasticd;
use crate::provider_ec2::{assert_says, config, ec2, machines};

/// The program on an endpoint of 45 machines in nine pages, polling for ever.
fn polling(endpoint: &Endpoint) -> Elasticd {
    let elasticd = Elasticd::new(&format!(
        "[providers.cloud]\ntype = 'ec2'\nregion = 'eu-west-1'\nendpoint_url = '{0}'\nauto_scaling_endpoint_url = '{0}'\n\
         page_size = 5\ninterval = '200ms'\ncall_timeout = '2s'\nauto_scaling = true\nstatus_checks = true\n\
         scheduled_events = true\nspot = true\n[services.web]\nprovider = 'cloud'\nselect = {{ Role = 'web' }}\nport = 80\n",
        endpoint.url()
    ));
    elasticd.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").start()
}

fn await_backends(elasticd: &Elasticd, count: u64) {
    elasticd.await_status(&format!("{count} backends"), |status| status["services"]["web"]["backends"] == count);
}

/// Each fault lasts for two polls at least; a changed fleet must not be seen before it ends.
fn survives(faults: &[(When, Fault)]) {
    let endpoint = Endpoint::start(machines(45));
    let elasticd = polling(&endpoint);
    await_backends(&elasticd, 45);
    let (mut now, mut next) = (45, 50);
    for (when, fault) in faults {
        let failures = |status: &serde_json::Value| status["providers"]["cloud"]["failures"].as_u64();
        let (_, _, before) = elasticd.get("/v1/services/web");
        endpoint.fault(*when, fault.clone());
        endpoint.set_instances(machines(next));
        let failed = failures(&elasticd.status());
        let status = elasticd
            .await_status(&format!("{when:?} {fault:?}"), |status| failures(status) >= failed.map(|failed| failed + 2));
        eprintln!("{when:?} {fault:?}: {}", status["providers"]["cloud"]["error"]);
        // The poll under way when the fault began may have been good to its end.
        let (_, _, after) = elasticd.get("/v1/services/web");
        let shown = status["services"]["web"]["backends"].as_u64();
        assert!(shown == Some(now.into()) || shown == Some(next.into()), "{fault:?}: {status:#}");
        assert!(after == before || shown == Some(next.into()), "{fault:?}");
        endpoint.heal();
        await_backends(&elasticd, next.into());
        (now, next) = (next, now);
        assert!(elasticd.status()["providers"]["cloud"]["error"].is_null());
    }
}

#[test]
fn refusals_publish_nothing_and_pass() {
    survives(&[
        (When::Always, Fault::Throttled),
        (When::Always, Fault::Code(500, "InternalError")),
        (When::Always, Fault::Code(503, "Unavailable")),
        (When::Page(7), Fault::Code(500, "InternalError")),
        (When::Page(7), Fault::Throttled),
        (When::Always, Fault::AuthFailure),
        (When::Always, Fault::Code(400, "RequestExpired")),
        (When::Page(3), Fault::ExpiredToken),
    ]);
}

#[test]
fn broken_answers_publish_nothing_and_pass() {
    survives(&[
        (When::Page(7), Fault::CutOff),
        (When::Page(7), Fault::Truncated),
        (When::Page(7), Fault::Garbled),
        (When::Page(1), Fault::Garbled),
        (When::Page(9), Fault::Html(200)),
        (When::Page(7), Fault::RepeatedToken),
        (When::Page(4), Fault::Trickle(Duration::from_secs(1))),
    ]);
}

#[test]
fn another_calls_failure_publishes_nothing_and_passes() {
    survives(&[
        (When::Call("DescribeInstanceStatus"), Fault::Code(500, "InternalError")),
        (When::Call("DescribeInstanceStatus"), Fault::Truncated),
        (When::Call("DescribeSpotInstanceRequests"), Fault::Unauthorized),
        (When::Call("DescribeSpotInstanceRequests"), Fault::CutOff),
    ]);
}

#[tokio::test]
async fn truncated_and_garbled_xml_is_an_error_and_never_a_part() {
    let endpoint = Endpoint::start(machines(45));
    let mut provider = ec2(&config(endpoint.url()), &[]);
    for fault in [Fault::Truncated, Fault::Garbled] {
        endpoint.fault(When::Always, fault.clone());
        let error = provider.discover().await.expect_err("no XML");
        assert!(matches!(error, Error::Unreadable { status: 200, .. }), "{fault:?}: {error}");
        assert_says(&error, &["200", "`endpoint_url`"]);
        endpoint.heal();
        assert_eq!(provider.discover().await.expect("healed").len(), 45);
    }
}

#[tokio::test]
async fn short_pages_duplicates_and_odd_instances_are_taken_as_they_are() {
    let mut fleet = machines(23);
    // Listed again on a later page, changed meanwhile: the later holds.
    let mut again = fleet[2].clone();
    again.tags = vec![("Role".to_owned(), "batch".to_owned())];
    fleet.push(again);
    fleet[3].private_ip = None;
    fleet[4].tags.clear();
    fleet[5].valueless = vec!["Empty".to_owned()];
    fleet.push(Machine { id: String::new(), ..Machine::numbered(99, &[]) });
    let endpoint = Endpoint::start(fleet);
    endpoint.set_page_size(Some(3));
    let instances = ec2(&config(endpoint.url()), &[]).discover().await.expect("all");
    assert_eq!(endpoint.requests().len(), 9, "pages of three, of which a thousand were asked for");
    let real: Vec<_> = instances.iter().filter(|instance| !instance.id.is_empty()).collect();
    assert_eq!(real.len(), 23);
    assert_eq!(real[2].tags["Role"], "batch");
    assert_eq!((real[3].private_ipv4, real[3].public_ipv4, real[3].ipv6), (None, None, None));
    assert!(real[4].tags.is_empty());
    assert_eq!(real[5].tags["Empty"], "");
}

#[tokio::test]
async fn a_hundred_thousand_instances_are_read() {
    let endpoint = Endpoint::start(machines(100_000));
    let mut provider = ec2(&config(endpoint.url()), &[]);
    endpoint.fault(When::Page(100), Fault::Unauthorized);
    provider.discover().await.expect_err("never a part, however large");
    endpoint.heal();
    assert_eq!(provider.usage().pages, 99);
    let instances = provider.discover().await.expect("all");
    assert_eq!(instances.len(), 100_000);
    assert_eq!(instances[99_999].tags["Name"], "web-99999");
    assert_eq!(provider.usage().pages, 100);
}

/// A TLS server with a certificate that no authority signed. It prints its port, and ends with its input.
const UNTRUSTED: &str = r#"
import datetime, socket, ssl, sys, tempfile, threading
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from ipaddress import ip_address
key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
now = datetime.datetime.now(datetime.timezone.utc)
cert = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    .serial_number(1).not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False).sign(key, hashes.SHA256()))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
with tempfile.NamedTemporaryFile() as file:
    file.write(cert.public_bytes(serialization.Encoding.PEM))
    file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    file.flush()
    context.load_cert_chain(file.name)
listener = socket.create_server(("127.0.0.1", 0))
def serve():
    while True:
        connection, _ = listener.accept()
        try:
            context.wrap_socket(connection, server_side=True).close()
        except OSError:
            pass
threading.Thread(target=serve, daemon=True).start()
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"#;

#[tokio::test]
async fn tls_failures_are_distinguished_from_an_unreachable_endpoint() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/python3");
    let mut command = Command::new(&python);
    command.args(["-c", UNTRUSTED]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = command.spawn().unwrap_or_else(|error| panic!("{}: {error}: run `tests/run`", python.display()));
    let mut port = String::new();
    let output = server.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut port).expect("the port");
    let untrusted = format!("https://127.0.0.1:{}", port.trim());
    // And one that does not speak TLS at all.
    let plain = Endpoint::start(Vec::new());
    let no_tls = plain.url().replace("http:", "https:");
    for url in [untrusted, no_tls] {
        let error = ec2(&config(url.clone()), &[]).discover().await.expect_err("no TLS");
        eprintln!("{error}");
        assert!(matches!(error, Error::Tls { .. }), "{error}");
        assert_says(&error, &[&url, "us-east-1", "ca-certificates", "`endpoint_url`"]);
    }
    drop(server.stdin.take());
    await_end(&mut server);
}
