//! What the command line and the log say, with the real program and fixed data.

use std::process::Command;

use crate::harness::elasticd::Elasticd;
use crate::harness::until_or;

/// A service with a held drop, one with a held empty set, one whose provider fails; frontends that work and that fail.
const CONFIG: &str = "\
[providers.local]
type = 'file'
path = 'DIR/backends.yaml'
interval = '1h'
[providers.missing]
type = 'file'
path = 'DIR/missing.yaml'
interval = '1h'
[services.web]
provider = 'local'
select = { Role = 'web' }
port = { tag = 'Port', default = 80 }
[services.db]
provider = 'local'
select = { Role = 'db' }
port = 5432
[services.lost]
provider = 'missing'
[frontends.list]
type = 'json'
services = ['web']
output = 'DIR/list.json'
[frontends.refused]
type = 'json'
services = ['web']
output = 'DIR/refused.json'
check = ['sh', '-c', 'echo \"[emerg] unknown directive \\\"upstreem\\\" in refused.json:3\" >&2; exit 1']
[frontends.nginx]
type = 'nginx'
services = ['web']
output = 'DIR/nginx.conf'
pid_file = 'DIR/nginx.pid'
check = ['true']
";

fn web(ids: impl IntoIterator<Item = u8>) -> String {
    let entry = |n| format!("- {{ id: web-{n}, address: 10.0.0.{n}, zone: eu-1a, tags: {{ Role: web }} }}\n");
    ids.into_iter().map(entry).collect()
}

const OTHERS: &str = "- { id: cache-1, address: 10.0.1.1, tags: { Role: cache } }\n\
                      - { id: bad-port, address: 10.0.1.2, tags: { Role: web, Port: 80x } }\n";

/// An elasticd in that state.
fn elasticd() -> Elasticd {
    let elasticd = Elasticd::new(CONFIG);
    elasticd.write("nginx.pid", "12x\n");
    elasticd.write("backends.yaml", &(web(1..=10) + OTHERS));
    let elasticd = elasticd.start();
    elasticd.await_status("served", |status| status["services"]["web"]["backends"] == 10);
    elasticd.await_status("applied", |status| {
        let phase = |name: &str| status["frontends"][name]["phase"].as_str().unwrap_or_default().to_owned();
        phase("list") == "written" && phase("refused") == "failed" && phase("nginx") != "applying"
    });
    elasticd.write("backends.yaml", &(web(1..=4) + OTHERS));
    elasticd.await_status("held", |status| status["services"]["web"]["held"]["reason"] == "drop");
    elasticd
}

/// A command with all that it prints, and its exit code unless that is 0.
fn shown(elasticd: &Elasticd, arguments: &[&str]) -> String {
    let (code, out, errors) = elasticd.run(arguments);
    let code = if code == 0 { String::new() } else { format!("(exit code {code})\n") };
    masked(elasticd, &format!("$ elasticd {}\n{out}{errors}{code}\n", arguments.join(" ")))
}

/// The text with everything replaced that is not the same in every run: directories, ages, process ids, ports.
fn masked(elasticd: &Elasticd, text: &str) -> String {
    let directory = elasticd.path("").display().to_string();
    let directory = directory.trim_end_matches('/');
    let text = text.replace(directory, "DIR").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    text.lines().map(|line| mask_line(line) + "\n").collect()
}

fn mask_line(line: &str) -> String {
    if let Some(at) = line.find("confined") {
        return format!("{}confined …", &line[..at]);
    }
    if line.contains(", looked at as ") {
        return "(the configuration file, and the user)".to_owned();
    }
    let words: Vec<&str> = line.split(' ').collect();
    // How often a provider was polled or a frontend attempted depends on how long the test takes.
    let is_counted = ["local", "missing", "list", "nginx", "refused"].contains(&words[0]);
    let mut masked: Vec<String> = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let bare = word.trim_matches(['(', ')', ',', ':', ';']);
        let next = words.get(at + 1).copied().unwrap_or_default();
        let is_number = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit());
        let is_age = bare.starts_with(|c: char| c.is_ascii_digit()) && bare.ends_with(['s', 'm', 'h']);
        let last = masked.iter().rev().find(|word| !word.is_empty()).map(String::as_str).unwrap_or_default();
        if is_age && (next.starts_with("ago") || last == "up" || last == "up:") {
            masked.push(word.replace(bare, "AGE"));
        } else if is_counted && is_number {
            masked.push("N".to_owned());
        } else if is_age && last == "in" && bare.contains('.') {
            masked.push("TIME".to_owned());
        } else if is_number && last == "PID" {
            masked.push(word.replace(bare, "N"));
        } else if word.ends_with('Z') && word.len() == 27 {
            // The time of a log line.
        } else {
            masked.push(without_port(word));
        }
    }
    // The width of a column depends on what was masked.
    let mut line = masked.join(" ");
    while line.contains("   ") {
        line = line.replace("   ", "  ");
    }
    line
}

/// `127.0.0.1:PORT` for a port of the test's own.
fn without_port(word: &str) -> String {
    let Some((before, after)) = word.split_once("127.0.0.1:") else { return word.to_owned() };
    format!("{before}127.0.0.1:PORT{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// The warnings and errors of the log, each once, in the order of their text.
fn complaints(elasticd: &Elasticd) -> String {
    let log = masked(elasticd, &elasticd.log());
    let mut lines: Vec<_> = log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR ")).collect();
    lines.sort_unstable();
    lines.dedup();
    lines.join("\n")
}

#[test]
fn status_and_explanations() {
    let elasticd = elasticd();
    let mut all = shown(&elasticd, &["status"]);
    for instance in ["web-1", "web-5", "cache-1", "bad-port", "nope"] {
        all += &shown(&elasticd, &["explain", instance]);
    }
    for service in ["web", "db", "lost", "nope"] {
        all += &shown(&elasticd, &["get", service]);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn warnings_and_errors_in_the_log() {
    let elasticd = elasticd();
    insta::assert_snapshot!(complaints(&elasticd));
}

#[test]
fn changes_and_refusals() {
    let elasticd = elasticd();
    let mut all = String::new();
    for arguments in [
        &["accept", "nope"][..],
        &["accept", "lost"],
        &["register", "web", "r-1", "10.0.2.1:80", "--ttl", "30"],
        &["register", "web", "r;1", "10.0.2.1:80", "--ttl", "30s"],
        &["register", "web", "r-1", "10.0.2.1:80", "--ttl", "30s"],
        &["deregister", "web", "web-1"],
        &["deregister", "web", "r-1"],
        &["accept", "web"],
        &["accept", "db"],
        &["refresh"],
        &["reload"],
        &["fleet"],
        &["pick", "db"],
    ] {
        all += &shown(&elasticd, arguments);
    }
    elasticd.configure(&CONFIG.replace("[services.web]", "[service.web]").replace("'1h'", "'15'"));
    all += &shown(&elasticd, &["check"]);
    let admin = elasticd.path("admin.sock").display().to_string();
    all += &shown(&elasticd, &["--socket", &admin, "reload"]);
    insta::assert_snapshot!(all);
}

#[test]
fn render_check_and_frontends() {
    let elasticd = Elasticd::new(&CONFIG.replace("provider = 'missing'", "provider = 'local'"));
    elasticd.write("backends.yaml", &(web(1..=3) + OTHERS));
    elasticd.write("list.json", "{}\n");
    let mut all = String::new();
    for arguments in [
        &["check"][..],
        &["render", "list"],
        &["render", "--diff", "list"],
        &["frontends"],
        &["frontends", "hosts"],
        &["status"],
    ] {
        all += &shown(&elasticd, arguments);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn doctor() {
    let elasticd = Elasticd::new(&CONFIG.replace("type = 'nginx'", "type = 'hosts'").replace("pid_file", "#pid_file"));
    elasticd.write("backends.yaml", &(web(1..=3) + OTHERS));
    let text = shown(&elasticd, &["doctor"]);
    // What this machine's kernel offers is not the same everywhere.
    let lines = text.lines().filter(|line| !line.contains("confine") && !line.contains("namespace"));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}

/// A pid file that names a process of another program.
#[test]
fn a_wrong_pid_file() {
    let mut sleeper = Command::new("sleep").arg("600").spawn().expect("sleep runs");
    let elasticd = Elasticd::new(CONFIG);
    elasticd.write("nginx.pid", &format!("{}\n", sleeper.id()));
    elasticd.write("backends.yaml", &web(1..=3));
    let elasticd = elasticd.start();
    let error = until_or(
        || elasticd.log(),
        || {
            elasticd.try_get("/v1/status").and_then(|(_, _, body)| {
                let status: serde_json::Value = serde_json::from_str(&body).ok()?;
                status["frontends"]["nginx"]["error"].as_str().map(str::to_owned)
            })
        },
    );
    sleeper.kill().expect("it runs");
    sleeper.wait().expect("it ends");
    insta::assert_snapshot!(masked(&elasticd, &error));
}

/// EC2 that refuses every call because there were too many.
#[cfg(feature = "ec2")]
#[test]
fn throttled_ec2() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 16_384]);
            let body = "<?xml version=\"1.0\"?><Response><Errors><Error><Code>RequestLimitExceeded</Code>\
                        <Message>Request limit exceeded.</Message></Error></Errors><RequestID>id</RequestID></Response>";
            let length = body.len();
            let head = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/xml";
            let _ = write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    });
    let elasticd = Elasticd::new(&format!(
        "[providers.prod]\ntype = 'ec2'\nregions = ['eu-west-1']\nendpoint_url = 'http://{address}'\n[services.web]\nprovider = \
         'prod'\nport = 80\n"
    ))
    .env("AWS_ACCESS_KEY_ID", "x")
    .env("AWS_SECRET_ACCESS_KEY", "y")
    .start();
    elasticd.await_status("throttled", |status| status["providers"]["prod"]["error"].is_string());
    insta::assert_snapshot!(complaints(&elasticd));
}
