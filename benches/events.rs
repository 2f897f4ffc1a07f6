//! From an event to the swapped file: `cargo bench --bench events`.
//!
//! The real program, with an EC2 and an SQS of our own on the loopback: what AWS adds is the time EventBridge, SQS and
//! EC2 take, and a round trip to each of the latter two.

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/ec2_endpoint.rs"]
mod ec2_endpoint;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/harness/mod.rs"]
mod harness;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/sqs_endpoint.rs"]
mod sqs_endpoint;

use std::time::{Duration, Instant};

use ec2_endpoint::{Endpoint, Machine};
use harness::elasticd::Elasticd;
use sqs_endpoint::SqsEndpoint;

const ROUNDS: usize = 21;

/// Between events: more than the shortest gap between polls, and less than what it takes to a second look.
const PAUSE: Duration = Duration::from_millis(1500);

/// So many machines, of which every tenth is in the service, and one more or not.
fn machines(count: u32, is_one_more: bool) -> Vec<Machine> {
    let role = |n: u32| if n.is_multiple_of(10) { "web" } else { "batch" };
    let machines = (0..count).map(|n| Machine::numbered(n, &[("Role", role(n))]));
    machines.chain(is_one_more.then(|| Machine::numbered(9_999_999, &[("Role", "web")]))).collect()
}

/// The times from `SendMessage` to the swapped file, ascending.
fn measure(count: u32, settle: &str) -> Vec<Duration> {
    let (sqs, ec2) = (SqsEndpoint::start(), Endpoint::start(machines(count, false)));
    let elasticd = Elasticd::new(&format!(
        "[providers.cloud]\ntype = 'ec2'\nregion = 'us-east-1'\nendpoint_url = '{}'\ninterval = '1h'\n\
         events = {{ queue_url = 'https://sqs.us-east-1.amazonaws.com/123456789012/q', endpoint_url = '{}' }}\n\
         [services.web]\nprovider = 'cloud'\nselect = {{ Role = 'web' }}\nport = 80\n\
         [frontends.json]\ntype = 'json'\noutput = 'DIR/services.json'\nmin_reload_gap = '0s'\n{settle}",
        ec2.url(),
        sqs.url()
    ))
    .env("AWS_ACCESS_KEY_ID", "test")
    .env("AWS_SECRET_ACCESS_KEY", "test")
    .ready();
    let late = Machine::numbered(9_999_999, &[]).id;
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let is_there = round % 2 == 0;
            ec2.set_instances(machines(count, is_there));
            std::thread::sleep(PAUSE);
            let started = Instant::now();
            sqs.send(r#"{"source": "aws.ec2"}"#);
            while elasticd.read("services.json").contains(&late) != is_there {
                assert!(started.elapsed() < harness::PATIENCE, "{}", elasticd.log());
                std::thread::sleep(Duration::from_micros(200));
            }
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

fn main() {
    println!("From SendMessage to the swapped file, in ms; {ROUNDS} events each.\n");
    println!("| instances | settle | fastest | median | slowest |\n|---|---|---|---|---|");
    for (settle, line) in [("default", ""), ("1ms", "settle = '1ms'\n")] {
        for count in [10, 1_000, 10_000] {
            let times = measure(count, line);
            let ms = |time: Duration| time.as_secs_f64() * 1000.0;
            let [fastest, median, slowest] = [times[0], times[ROUNDS / 2], times[ROUNDS - 1]].map(ms);
            println!("| {count} | {settle} | {fastest:.0} | {median:.0} | {slowest:.0} |");
        }
    }
}
