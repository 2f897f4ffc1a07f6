//! Permissions in a fleet's bucket and what is reported where one is missing; TLS; and foreign data in a bucket.

use std::fs;
use std::process::Command;

use async_nats::jetstream::kv::Store;

use crate::harness::BoundedCommand as _;
use crate::harness::elasticd::Elasticd;
use crate::harness::fleet::{
    await_backends, await_error, await_fleet, await_lead, backends, observe, publisher, publisher_with, publishing,
    reader, reader_with, reading,
};
use crate::harness::nats::Nats;

/// An nkey of this test alone: its seed, and what the server knows of it.
const PUBLISHER: (&str, &str) = (
    "SUAIVZEXRW7JVXTWF2M7SNU46EDNBA5SX3BWJASXZ4Z7M3WN52YSZM4RY4",
    "UDPDUYZ3F5JLAPM6GZQYNO5FXAODK7GUX3WAKHE4EET3KGKEZWXARUDS",
);

/// An nkey of this test alone: its seed, and what the server knows of it.
const READER: (&str, &str) = (
    "SUACC57JRB3JYFQK5KWZIQB6TZMIZ7HJYWYBQ4NACZASCYKNC22IXKJFQU",
    "UAJH2UT2IY4L7VX4EB5GL6KONGHGCBC2Q3BQRF65IJQ2MZYLKMD65N3T",
);

/// An nkey of this test alone: its seed, and what the server knows of it.
const STRANGER: (&str, &str) = (
    "SUAD5ZCN7O75LN5WQUSTPDGTPP7GZ6YC5G5A4BWA2HFBGWRJMUFLJPPTNE",
    "UDGQ3RBBIZIAT5V6TO7BB6TD7DEHWG2NCD5FALEDYSD2XKTTPWYHBAU7",
);

/// The permissions that the README lists.
fn authorization() -> String {
    let readme = include_str!("../../README.md");
    let block = readme.split("```").find(|block| block.trim_start().starts_with("authorization {")).expect("a block");
    block.replace("PUBLISHER", PUBLISHER.1).replace("SIDECAR", READER.1)
}

fn with_key(elasticd: Elasticd, key: (&str, &str)) -> Elasticd {
    elasticd.write("nk", key.0);
    elasticd
}

const KEY: &str = "nkey_file = 'DIR/nk'";

fn publisher_as(nats: &Nats, key: (&str, &str)) -> Elasticd {
    let publisher = with_key(Elasticd::new(&publishing(&nats.url(), KEY)), key);
    observe(&publisher, &["a", "bb"]);
    publisher.ready()
}

fn reader_as(nats: &Nats, key: (&str, &str)) -> Elasticd {
    let reader = with_key(Elasticd::new(&reading(&nats.url(), KEY)), key).start();
    reader.await_answer();
    reader
}

/// Does something with the bucket, as a client without credentials.
fn with_bucket<T>(nats: &Nats, work: impl AsyncFnOnce(Store) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = async_nats::connect(nats.url()).await.expect("connected");
        work(async_nats::jetstream::new(client).get_key_value("elasticd").await.expect("a bucket")).await
    })
}

fn put(nats: &Nats, key: &str, value: &str) {
    let value = value.to_owned();
    with_bucket(nats, async |store| store.put(key, value.into()).await.expect("written"));
}

#[test]
fn least_privilege_is_enough_and_is_enforced() {
    let nats = Nats::with(&authorization());
    let first = publisher_as(&nats, PUBLISHER);
    await_lead(&first);
    let reader = reader_as(&nats, READER);
    await_backends(&reader, &["a", "bb"]);
    await_fleet(&reader, "the readers are counted", |fleet| fleet["readers"]["prod"]["readers"] == 1);
    // A publisher with a sidecar's key may not write, and says which subject it would need.
    let wrong = publisher_as(&nats, READER);
    await_error(&wrong, "publisher", &["does not permit", "$JS.API.DIRECT.GET.KV_elasticd.$KV.elasticd.leader"]);
    let stranger = reader_as(&nats, STRANGER);
    await_error(&stranger, "reader", &["refuses our credentials", "nkey_file"]);
    observe(&first, &["a", "bb", "ccc"]);
    await_backends(&reader, &["a", "bb", "ccc"]);
}

#[test]
fn a_missing_permission_is_named_by_its_subject() {
    let config = authorization();
    for (missing, named) in [
        ("\"$JS.API.CONSUMER.CREATE.KV_elasticd.*.$KV.elasticd.p.prod.>\",", "$JS.API.CONSUMER.CREATE.KV_elasticd."),
        (
            "\"$JS.API.DIRECT.GET.KV_elasticd.$KV.elasticd.p.prod.>\",",
            "$JS.API.DIRECT.GET.KV_elasticd.$KV.elasticd.p.prod.d.",
        ),
    ] {
        let nats = Nats::with(&config.replace(missing, ""));
        let first = publisher_as(&nats, PUBLISHER);
        await_lead(&first);
        let reader = reader_as(&nats, READER);
        await_error(&reader, "reader", &["does not permit", named]);
        assert_eq!(backends(&reader), None, "nothing of it is applied");
    }
}

fn openssl(dir: &Nats, arguments: &str) {
    let status = Command::new("openssl").args(arguments.split(' ')).current_dir(dir.path("")).bounded_output();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
}

#[test]
fn tls_accepts_only_servers_signed_by_the_ca_file() {
    let mut nats = Nats::new("tls { cert_file: \"NATS_DIR/cert.pem\", key_file: \"NATS_DIR/key.pem\" }\n");
    openssl(
        &nats,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca -addext basicConstraints=critical,CA:TRUE",
    );
    openssl(
        &nats,
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out req.pem -subj /CN=nats",
    );
    let ip = nats.address().ip();
    fs::write(nats.path("ext"), format!("subjectAltName=IP:{ip}\nbasicConstraints=CA:FALSE\n")).expect("written");
    openssl(&nats, "x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile ext");
    openssl(
        &nats,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out other.pem -days 2 -subj /CN=other",
    );
    nats.spawn();
    let ca = format!("ca_file = '{}'", nats.path("ca.pem").display());
    let url = nats.url().replace("nats://", "tls://");
    let first = publisher_with(&url, &ca, &["a"]);
    await_lead(&first);
    await_backends(&reader_with(&url, &ca), &["a"]);
    await_backends(&reader_with(&nats.url(), &format!("{ca}\ntls = true")), &["a"]);
    let other = reader_with(&url, &format!("ca_file = '{}'", nats.path("other.pem").display()));
    await_error(&other, "reader", &["no TLS", "ca_file"]);
    let absent = reader_with(&url, "ca_file = '/nonexistent/ca.pem'");
    await_error(&absent, "reader", &["/nonexistent/ca.pem"]);
}

#[test]
fn a_missing_server_or_bucket_is_reported_and_awaited() {
    let mut nats = Nats::new("");
    let reader = reader(&nats.url());
    await_error(&reader, "reader", &["no NATS server answers", &nats.address().to_string(), "`url`"]);
    nats.spawn();
    await_error(&reader, "reader", &["no bucket \"elasticd\"", "start a publisher"]);
    let first = publisher(&nats.url(), &["a"]);
    await_lead(&first);
    await_backends(&reader, &["a"]);
}

#[test]
fn two_fleets_do_not_share_a_bucket() {
    let nats = Nats::start();
    let first = publisher(&nats.url(), &["a"]);
    await_lead(&first);
    let ours = reader(&nats.url());
    await_backends(&ours, &["a"]);
    let other = Elasticd::new(&publishing(&nats.url(), "").replace("'shop'", "'mall'"));
    observe(&other, &["zzzz"]);
    let other = other.ready();
    await_error(&other, "publisher", &["\"shop\"", "\"mall\"", "bucket of its own"]);
    let theirs = Elasticd::new(&reading(&nats.url(), "").replace("'shop'", "'mall'")).start();
    theirs.await_answer();
    await_error(&theirs, "reader", &["\"shop\"", "\"mall\"", "bucket of its own"]);
    assert_eq!(backends(&theirs), None);
    observe(&first, &["a", "bb"]);
    await_backends(&ours, &["a", "bb"]);
}

#[test]
fn malformed_sets_and_other_formats_are_reported_and_not_applied() {
    let nats = Nats::start();
    let mut first = publisher(&nats.url(), &["a"]);
    await_lead(&first);
    let reader = reader(&nats.url());
    await_backends(&reader, &["a"]);
    first.stop();
    for (value, words) in [
        ("\u{1}garbage", ["p.prod.set", "no elasticd wrote"]),
        ("{\"format\": 0, \"fleet\": \"shop\"}", ["p.prod.set", "has format 0"]),
        ("{\"format\": 2, \"fleet\": \"shop\"}", ["has format 2", "same version"]),
    ] {
        put(&nats, "p.prod.set", value);
        await_error(&reader, "reader", &words);
        assert_eq!(backends(&reader).expect("a file"), ["a"]);
    }
    // A publisher does not write over what it does not know, either.
    first.restart();
    await_error(&first, "publisher", &["has format 2"]);
    with_bucket(&nats, async |store| store.delete("p.prod.set").await.expect("deleted"));
    await_lead(&first);
    observe(&first, &["a", "bb"]);
    await_backends(&reader, &["a", "bb"]);
}

#[test]
fn a_set_larger_than_a_message_arrives_whole_and_a_larger_instance_is_refused() {
    let nats = Nats::with("max_payload: 32768\n");
    let first = publisher(&nats.url(), &["a"]);
    await_lead(&first);
    let reader = reader(&nats.url());
    await_backends(&reader, &["a"]);
    let tag = "x".repeat(300);
    let entry = |n: usize| format!("- {{id: i-{n:05}, address: 10.0.0.1, tags: {{Role: {tag}}}}}\n");
    first.write("backends.yaml", &(0..1000).map(entry).collect::<String>());
    let all: Vec<_> = (0..1000).map(|n| format!("i-{n:05}")).collect();
    await_backends(&reader, &all.iter().map(String::as_str).collect::<Vec<_>>());
    first
        .write("backends.yaml", &format!("- {{id: big, address: 10.0.0.1, tags: {{Role: {}}}}}\n", "x".repeat(40_000)));
    await_error(&first, "published", &["\"big\"", "max_payload"]);
    await_error(&reader, "reader", &["fails to poll", "\"big\"", "max_payload"]);
    assert_eq!(backends(&reader).expect("a file").len(), 1000, "what it had stays");
}
