//! What elasticd writes for Traefik and asks of it. Traefik itself is in none of the package registries: its documented
//! file format and API stand for it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::json;

use crate::harness::backend::{Backend, FILE, entries};
use crate::harness::elasticd::Elasticd;
use crate::harness::pools::rendered_output;

/// The parts of the file provider's format that the template uses, after `Service03` and the rest of
/// `docs/content/reference/dynamic-configuration/file.yaml` in Traefik's repository (v3.7). Traefik refuses a key it
/// does not know, and a map without entries ("cannot be a standalone element").
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    http: Http,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    services: BTreeMap<String, Service>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Service {
    load_balancer: LoadBalancer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadBalancer {
    servers: Vec<Server>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    url: String,
    weight: Option<u32>,
}

fn read(text: &str) -> BTreeMap<String, Vec<Server>> {
    let file: File = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    assert!(!file.http.services.is_empty(), "Traefik refuses it");
    file.http.services.into_iter().map(|(name, service)| (name, service.load_balancer.servers)).collect()
}

#[test]
fn the_template_matches_its_golden_file() {
    for (vars, golden) in [
        ("", include_str!("golden/traefik_services.yaml")),
        ("vars.scheme = 'h2c'\n", include_str!("golden/traefik_services_h2c.yaml")),
    ] {
        let text = rendered_output("traefik", &format!("output = '/nonexistent/elasticd.yaml'\n{vars}"));
        assert_eq!(text, golden);
        let services = read(&text);
        let scheme = if vars.is_empty() { "http" } else { "h2c" };
        let server = |address: &str, weight| Server { url: format!("{scheme}://{address}:8080"), weight };
        assert_eq!(services["web"], [server("10.0.0.1", None), server("10.0.0.2", Some(256))]);
        assert_eq!(services["six"], [server("[2001:db8::6]", None)]);
        assert_eq!((&services["drained"], &services["empty"]), (&vec![], &vec![]));
    }
}

/// Traefik runs the file through Go's templates before it reads it as YAML.
#[test]
fn no_tag_opens_an_action_of_gos_templates() {
    let template = "t.yaml";
    let elasticd = Elasticd::new(&format!(
        "{}[frontends.traefik]\ntype = 'traefik'\noutput = 'DIR/out.yaml'\ntemplate = '{template}'\n",
        FILE.replace("backends.yaml", "backends.json")
    ));
    let text = "x:\n{% for s in services %}{% for b in s.backends %}  - \"{{ b.tags.V }}\"\n  - {{ b.tags.V }}\n  - {{ b.tags | json }}\n{% endfor %}{% endfor %}";
    elasticd.write(template, text);
    let values = ["{{ env \"SECRET\" }}", "a\u{85}b\u{2028}c\u{7f}\u{feff}", "\"\\\n#: '", "{ {{"];
    let instance = |(i, v): (usize, &&str)| json!({ "id": format!("i-{i}"), "address": "10.0.0.1:80", "tags": { "Role": "web", "V": v } });
    let instances: Vec<_> = values.iter().enumerate().map(instance).collect();
    elasticd.write("backends.json", &json!(instances).to_string());
    let elasticd = elasticd.ready();
    let text = elasticd.read("out.yaml");
    assert!(!text.contains("{{"), "{text}");
    let read: BTreeMap<String, Vec<serde_json::Value>> = serde_saphyr::from_str(&text).expect("YAML");
    for (three, value) in read["x"].chunks(3).zip(values) {
        assert_eq!((three[0].as_str(), three[1].as_str()), (Some(value), Some(value)));
        assert_eq!(three[2]["V"].as_str(), Some(value));
    }
}

/// What Traefik answers to `GET /api/http/services/NAME@file`: status and body, by path. Its form is that of
/// `pkg/api/testdata/service-bar.json` in Traefik's repository.
struct Api {
    port: u16,
    answers: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
}

impl Api {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let answers = Arc::new(Mutex::new(BTreeMap::<String, (u16, String)>::new()));
        let current = Arc::clone(&answers);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines().map_while(Result::ok);
                let first = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let path = first.split(' ').nth(1).unwrap_or_default().replace("%40", "@");
                let missing = || (404, json!({ "message": "service not found" }).to_string());
                let (status, body) = current.lock().expect("unpoisoned").get(&path).cloned().unwrap_or_else(missing);
                let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n");
                let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        Self { port, answers }
    }

    fn runs(&self, service: &str, servers: &serde_json::Value) {
        let name = format!("{service}@file");
        let answer = json!({
            "loadBalancer": { "passHostHeader": true, "servers": servers },
            "name": name, "provider": "file", "status": "enabled", "type": "loadbalancer", "usedBy": ["r@file"],
        });
        let path = format!("/api/http/services/{name}");
        self.answers.lock().expect("unpoisoned").insert(path, (200, answer.to_string()));
    }
}

#[test]
fn its_api_is_the_proof_where_it_is_configured() {
    let backends = ["a", "b"].map(Backend::start);
    let api = Api::start();
    let frontend = format!(
        "[frontends.traefik]\ntype = 'traefik'\noutput = 'DIR/out.yaml'\napi = '127.0.0.1:{}'\nproof_timeout = '1s'\n\
         settle = '20ms'\n",
        api.port
    );
    let file = FILE.replace("max_drop = '100%'", "max_drop = '100%', on_empty = 'accept'");
    let elasticd = Elasticd::knowing(&format!("{file}{frontend}"), &backends[..1]).start();
    let failed = |part: &'static str| {
        elasticd.await_status(part, |status| {
            status["frontends"]["traefik"]["error"].as_str().is_some_and(|error| error.contains(part))
        });
    };
    failed("Traefik has no service web@file: does its file provider watch ");
    api.runs("web", &json!([{ "url": "http://127.0.0.9:1" }]));
    failed("service web@file: it lacks http://");
    api.runs("web", &json!([{ "url": format!("http://{}", backends[0].address) }]));
    elasticd.await_proven("traefik", "web", &["a"]);
    assert_eq!(read(&elasticd.read("out.yaml"))["web"].len(), 1);
    // A weight is part of it; one of 1 is not said.
    let heavy = backends[1].entry().replace("tags:", "weight: 7, tags:");
    elasticd.write("backends.yaml", &(backends[0].entry() + &heavy));
    failed("(weight 7)");
    let (a, b) = (format!("http://{}", backends[0].address), format!("http://{}", backends[1].address));
    api.runs("web", &json!([{ "url": b, "weight": 7 }, { "url": a }]));
    elasticd.await_proven("traefik", "web", &["a", "b"]);
    elasticd.write("backends.yaml", "[]\n");
    api.runs("web", &json!([]));
    elasticd.await_proven("traefik", "web", &[]);
    assert_eq!(read(&elasticd.read("out.yaml"))["web"], []);
}

#[test]
fn without_its_api_the_file_in_place_is_all() {
    let elasticd = Elasticd::new(&format!("{FILE}[frontends.traefik]\ntype = 'traefik'\noutput = 'DIR/out.yaml'\n"));
    let backends = ["a"].map(Backend::start);
    elasticd.write("backends.yaml", &entries(&backends));
    let elasticd = elasticd.ready();
    elasticd.await_applied("traefik", "web", &["a"]);
    assert_eq!(read(&elasticd.read("out.yaml"))["web"][0].url, format!("http://{}", backends[0].address));
}
