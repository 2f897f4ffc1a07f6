//! Events from a queue, with the real program: its interval is far too long for anything here to be seen without them.

use crate::ec2_endpoint::{Endpoint, Fault, Machine, When};
use crate::harness::elasticd::Elasticd;
use crate::harness::until_or;
use crate::moto::{Moto, REGION};
use crate::sqs::{Queue, events, state_change};
use crate::sqs_endpoint::SqsEndpoint;

fn elasticd(ec2: &str, sqs: &str) -> Elasticd {
    with_interval("10m", ec2, sqs)
}

fn with_interval(interval: &str, ec2: &str, sqs: &str) -> Elasticd {
    let config = format!(
        "[providers.cloud]\ntype = 'ec2'\nregion = '{REGION}'\nendpoint_url = '{ec2}'\ninterval = '{interval}'\n{}\
         [services.web]\nprovider = 'cloud'\nselect = {{ Role = 'web' }}\nport = 80\n\
         guard = {{ max_drop = '100%' }}\n\
         [frontends.json]\ntype = 'json'\noutput = 'DIR/services.json'\nsettle = '1ms'\n",
        events(sqs)
    );
    Elasticd::new(&config).env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test")
}

fn machines(count: u32) -> Vec<Machine> {
    (0..count).map(|n| Machine::numbered(n, &[("Role", "web")])).collect()
}

fn polls(elasticd: &Elasticd) -> u64 {
    elasticd.status()["providers"]["cloud"]["polls"].as_u64().expect("a number")
}

fn await_polls(elasticd: &Elasticd, wanted: u64) {
    elasticd.await_status("polled", |status| status["providers"]["cloud"]["polls"].as_u64() >= Some(wanted));
}

fn await_output(elasticd: &Elasticd, id: &str, is_there: bool) {
    until_or(
        || format!("{id} {is_there}: {}\n{}", elasticd.read("services.json"), elasticd.log()),
        || (elasticd.read("services.json").contains(id) == is_there).then_some(()),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_follows_at_once_and_no_message_stays() {
    let moto = Moto::start().await;
    let queue = Queue::at(&moto.url());
    queue.create().await;
    let first = moto.launch(&[("Role", "web")], "10.0.0.1", None).await;
    let mut elasticd = elasticd(&moto.url(), &moto.url()).ready();
    await_output(&elasticd, &first, true);
    assert_eq!(polls(&elasticd), 1);

    let second = moto.launch(&[("Role", "web")], "10.0.0.2", None).await;
    queue.send(&state_change(&second, "running")).await;
    await_output(&elasticd, &second, true);
    moto.terminate(&first).await;
    queue.send(&state_change(&first, "shutting-down")).await;
    await_output(&elasticd, &first, false);
    queue.await_empty().await;

    // What is no event of EC2 or Auto Scaling is deleted all the same, and asks for no poll.
    await_polls(&elasticd, 4);
    let before = polls(&elasticd);
    let bucket = state_change(&second, "running").replace("aws.ec2", "aws.s3");
    for garbage in ["garbage", "{}", "[1, 2", &bucket] {
        queue.send(garbage).await;
    }
    queue.await_empty().await;
    elasticd.await_log("unknown messages in the queue of events deleted");
    assert_eq!(polls(&elasticd), before, "{}", elasticd.log());

    // It waits for messages now, as almost always, which delays nothing else.
    assert!(elasticd.stop().success());
    assert_eq!(elasticd.logged("did not end within"), 0, "{}", elasticd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn ec2_is_polled_once_more_after_an_event() {
    let moto = Moto::start().await;
    let queue = Queue::at(&moto.url());
    queue.create().await;
    let endpoint = Endpoint::start(machines(1));
    let elasticd = elasticd(&endpoint.url(), &moto.url()).ready();
    let late = machines(2).remove(1).id;
    queue.send(&state_change(&late, "running")).await;
    await_polls(&elasticd, 2);
    await_output(&elasticd, &late, false);
    endpoint.set_instances(machines(2));
    await_output(&elasticd, &late, true);
    assert_eq!(polls(&elasticd), 3);
}

#[test]
fn many_events_cause_few_polls_and_every_message_is_deleted() {
    let (sqs, endpoint) = (SqsEndpoint::start(), Endpoint::start(machines(1)));
    // All are there at once, as after a night in which no elasticd ran.
    flood(&sqs, 500);
    let elasticd = elasticd(&endpoint.url(), &sqs.url()).ready();
    sqs.await_empty();
    endpoint.set_instances(machines(2));
    sqs.send(&state_change("i-1", "running"));
    await_output(&elasticd, &machines(2)[1].id, true);
    sqs.await_empty();
    let (polls, deletes) = (polls(&elasticd), sqs.calls("DeleteMessageBatch"));
    assert!(polls <= 10, "each batch of ten would be 51: {polls}");
    assert_eq!(deletes, 51, "ten at a time");
}

#[test]
fn polls_for_other_reasons_neither_end_a_read_nor_forget_what_was_read() {
    let (sqs, endpoint) = (SqsEndpoint::start(), Endpoint::start(machines(1)));
    let elasticd = with_interval("100ms", &endpoint.url(), &sqs.url()).ready();
    await_polls(&elasticd, 10);
    assert_eq!(sqs.calls("ReceiveMessage"), 1, "the same one waits through all of them");
    for _ in 0..5 {
        sqs.send("garbage");
        sqs.await_empty();
    }
    assert!(sqs.calls("ReceiveMessage") <= 6, "{}", sqs.calls("ReceiveMessage"));
}

fn flood(sqs: &SqsEndpoint, count: usize) {
    (0..count).for_each(|n| sqs.send(&state_change(&format!("i-{n:017x}"), "running")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_missing_or_deleted_costs_latency_and_comes_back() {
    let moto = Moto::start().await;
    let queue = Queue::at(&moto.url());
    moto.launch(&[("Role", "web")], "10.0.0.9", None).await;
    let elasticd = elasticd(&moto.url(), &moto.url()).ready();
    elasticd.await_log(&format!("there is no queue {}", Queue::url()));
    let recovered = "queue of events reachable again";
    let tell = async |ip: &str| {
        let id = moto.launch(&[("Role", "web")], ip, None).await;
        queue.send(&state_change(&id, "running")).await;
        await_output(&elasticd, &id, true);
    };
    // A queue is noticed to be back when it has a message, or has had none for as long as is waited.
    queue.create().await;
    tell("10.0.0.1").await;
    assert_eq!(elasticd.logged(recovered), 1, "{}", elasticd.log());

    queue.delete().await;
    until_or(|| elasticd.log(), || (elasticd.logged("queue of events failed") == 2).then_some(()));
    queue.create().await;
    tell("10.0.0.2").await;
    let counts = [recovered, "queue of events failed", "WARN"].map(|text| elasticd.logged(text));
    assert_eq!(counts, [2, 2, 2], "each said once: {}", elasticd.log());
}

#[test]
fn events_do_not_hurry_an_ec2_that_throttles() {
    let (sqs, endpoint) = (SqsEndpoint::start(), Endpoint::start(machines(1)));
    let elasticd = elasticd(&endpoint.url(), &sqs.url()).ready();
    endpoint.fault(When::Always, Fault::Throttled);
    sqs.send(&state_change("i-1", "running"));
    await_polls(&elasticd, 2);
    let asked = endpoint.requests().len();
    // Longer than the gap between polls that events ask for otherwise.
    let started = std::time::Instant::now();
    while started.elapsed() < std::time::Duration::from_secs(3) {
        flood(&sqs, 20);
        sqs.await_empty();
    }
    assert_eq!((polls(&elasticd), endpoint.requests().len()), (2, asked), "{}", elasticd.log());
}

#[test]
fn a_refusal_of_sqs_is_reported_once_with_the_actions_to_allow() {
    let (sqs, endpoint) = (SqsEndpoint::start(), Endpoint::start(machines(1)));
    for operation in ["ReceiveMessage", "DeleteMessageBatch"] {
        sqs.refuse(operation, "AccessDeniedException");
        let elasticd = elasticd(&endpoint.url(), &sqs.url()).ready();
        sqs.send(&state_change("i-1", "running"));
        elasticd.await_log(&format!("SQS refused {operation} on the queue {}", Queue::url()));
        elasticd.await_log("allow the actions `sqs:ReceiveMessage` and `sqs:DeleteMessage`");
        let before = sqs.calls(operation);
        until_or(
            || elasticd.log(),
            || (sqs.calls(operation) >= before + 2 || operation != "ReceiveMessage").then_some(()),
        );
        assert_eq!(elasticd.logged("queue of events failed"), 1, "{}", elasticd.log());
        assert_eq!(elasticd.status()["providers"]["cloud"]["failures"], 0);
        sqs.heal();
        sqs.send(&state_change("i-1", "running"));
        elasticd.await_log("queue of events reachable again");
    }
}

#[test]
fn an_unreachable_sqs_is_reported() {
    let endpoint = Endpoint::start(machines(1));
    let closed = format!("http://{}", crate::harness::closed_socket());
    let elasticd = elasticd(&endpoint.url(), &closed).ready();
    elasticd.await_log(&format!("the connection to SQS ({closed})"));
    elasticd.await_log("one for EC2 does not serve SQS");
    assert_eq!(elasticd.status()["providers"]["cloud"]["failures"], 0);
}
