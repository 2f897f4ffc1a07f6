//! What the `ec2` provider asks of EC2, and what an answer costs: `cargo bench --bench ec2`.
//!
//! The first table is of calls and pages, the second of processor time and memory. Each poll of the second is a process
//! of its own, which asks an endpoint in this one, so that only the poll is measured; it runs `TURNS` times, and the
//! medians are shown.

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/ec2_endpoint.rs"]
mod ec2_endpoint;
#[path = "fleet/machine.rs"]
mod machine;

use std::process::Command;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use elasticd::model::Selector;
use elasticd::provider::ec2::{Config, Ec2};
use elasticd::provider::{ApiUsage, Provider as _};
use procfs::process::Process;

use ec2_endpoint::{Endpoint, GROUP, Machine};
use machine::machine;

const TURNS: usize = 3;
/// Polls an hour at the default interval of 15 s.
const POLLS: u64 = 240;
/// Machines that the service wants, of however many there are.
const WANTED: u32 = 100;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match &arguments[..] {
        [_, poll, url, narrowed] if poll == "poll" => runtime.block_on(one_poll(url, narrowed == "true")),
        _ => {
            runtime.block_on(calls());
            polls();
        }
    }
}

fn provider(config: Config, url: &str, selectors: &[Selector]) -> Ec2 {
    let config = Config {
        regions: vec!["eu-west-1".to_owned()],
        endpoint_url: Some(url.to_owned()),
        auto_scaling_endpoint_url: Some(url.to_owned()),
        ..config
    };
    let credentials = Credentials::new("bench", "bench", None, None, "bench");
    Ec2::with_credentials(&config, selectors, SharedCredentialsProvider::new(credentials))
}

/// A fleet of ten machines for each of a hundred services, in a group each, and what its services select.
async fn calls() {
    let machine = |n: u32| {
        let service = format!("service-{}", n % 100);
        Machine {
            lifecycle: Some(("InService".to_owned(), "Healthy".to_owned())),
            ..Machine::numbered(n, &[("Role", &service), (&service, "yes"), ("Env", "prod"), (GROUP, &service)])
        }
    };
    let endpoint = Endpoint::start((0..1000).map(machine).collect());
    let by_role = |n: usize| Selector::of_tags([("Role", [format!("service-{n}")]), ("Env", ["prod".to_owned()])]);
    let many_values =
        |n: usize| Selector::of_tags([("Role", (0..8).map(|v| format!("service-{n}{v}")).collect::<Vec<_>>())]);
    let own_tag = |n: usize| Selector::of_tags([(format!("service-{n}"), ["yes"])]);
    let all =
        Config { auto_scaling: true, status_checks: true, scheduled_events: true, spot: true, ..Config::default() };
    println!(
        "| services | selected by | calls a poll | calls an hour | pages an hour |\n| ---: | --- | ---: | ---: | ---: |"
    );
    for count in [1, 10, 50] {
        for (what, config, selector) in [
            ("one tag and its value", Config::default(), &by_role as &dyn Fn(usize) -> Selector),
            ("one tag and eight values", Config::default(), &many_values),
            ("a tag of its own", Config::default(), &own_tag),
            ("one tag, with all that can be asked beside", all.clone(), &by_role),
        ] {
            let selectors: Vec<_> = (0..count).map(selector).collect();
            let mut provider = provider(config, &endpoint.url(), &selectors);
            provider.discover().await.expect("instances");
            let ApiUsage { calls, pages, .. } = provider.usage();
            println!("| {count} | {what} | {calls} | {} | {} |", calls * POLLS, pages * POLLS);
        }
    }
}

fn polls() {
    println!("\n| instances | filtered by EC2 | pages | time | processor time | peak memory beyond an idle process |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: |");
    for count in [1_000, 10_000, 100_000] {
        let role = |n: u32| if n < WANTED { "web" } else { "batch" };
        let endpoint = Endpoint::start((0..count).map(|n| machine(n, role(n))).collect());
        for narrowed in [true, false] {
            let url = endpoint.url();
            // The first has the pages rendered.
            child(&url, narrowed);
            let mut turns: Vec<_> = (0..TURNS).map(|_| child(&url, narrowed)).collect();
            turns.sort_unstable_by_key(|turn| turn.processor);
            let Turn { found, pages, elapsed, processor, memory } = turns[TURNS / 2];
            assert_eq!(found, if narrowed { WANTED } else { count });
            let filtered = if narrowed { "yes" } else { "no" };
            println!(
                "| {count} | {filtered} | {pages} | {elapsed:.0?} | {processor:.0?} | {:.1} MB |",
                memory as f64 / 1024.0
            );
        }
    }
}

struct Turn {
    found: u32,
    pages: u64,
    elapsed: Duration,
    processor: Duration,
    /// In kB.
    memory: u64,
}

fn child(url: &str, narrowed: bool) -> Turn {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let output = command.args(["poll", url, &narrowed.to_string()]).output().expect("a child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    let numbers: Vec<u64> = said.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    let [found, pages, elapsed, processor, memory] = numbers[..] else { panic!("{said}") };
    let found = u32::try_from(found).expect("few enough");
    Turn { found, pages, elapsed: Duration::from_millis(elapsed), processor: Duration::from_millis(processor), memory }
}

async fn one_poll(url: &str, narrowed: bool) {
    let web = [Selector::of_tags([("Role", ["web"])])];
    let mut provider = provider(Config::default(), url, if narrowed { &web } else { &[] });
    let myself = Process::myself().expect("/proc");
    let peak = || myself.status().expect("a status").vmhwm.expect("a peak");
    let processor = || {
        let stat = myself.stat().expect("times");
        Duration::from_millis((stat.utime + stat.stime) * 1000 / procfs::ticks_per_second())
    };
    let (memory, before, started) = (peak(), processor(), Instant::now());
    let instances = provider.discover().await.expect("instances");
    let (elapsed, processor) = (started.elapsed().as_millis(), (processor() - before).as_millis());
    println!("{} {} {elapsed} {processor} {}", instances.len(), provider.usage().pages, peak() - memory);
}
