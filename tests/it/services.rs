//! What a service makes of what its providers report: several providers, zones, time, and tags that create services.

use std::fs;

use serde_json::Value;

use crate::harness::elasticd::Elasticd;
use crate::harness::until_or;

fn provider(name: &str) -> String {
    format!("[providers.{name}]\ntype = 'file'\npath = 'DIR/{name}.yaml'\ninterval = '200ms'\n")
}

fn entry(id: &str, more: &str) -> String {
    format!("- {{ id: {id}, address: '10.0.0.1:80', {more} }}\n")
}

fn entries(ids: &[&str]) -> String {
    ids.iter().map(|id| entry(id, "")).collect()
}

/// The backends of a service, as `id=weight`, with a `-` before one that drains.
fn served(elasticd: &Elasticd, service: &str) -> Vec<String> {
    let Some((200, _, body)) = elasticd.try_get(&format!("/v1/services/{service}")) else { return Vec::new() };
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let one = |b: &Value| {
        let sign = if b["state"] == "draining" { "-" } else { "" };
        format!("{sign}{}={}", b["id"].as_str().unwrap_or_default(), b["weight"])
    };
    body["backends"].as_array().expect("backends").iter().map(one).collect()
}

fn await_served(elasticd: &Elasticd, service: &str, wanted: &[&str]) {
    until_or(
        || format!("{wanted:?}, not {:?}: {}", served(elasticd, service), elasticd.log()),
        || (served(elasticd, service) == wanted).then_some(()),
    );
}

fn explained(elasticd: &Elasticd, id: &str) -> String {
    let body: Value = serde_json::from_str(&elasticd.get(&format!("/v1/explain/{id}")).2).expect("JSON");
    body["services"][0]["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn one_provider_that_fails_takes_nothing_from_the_others() {
    let service = "[services.web]\nprovider = ['near', 'far']\n";
    let mut elasticd = Elasticd::new(&format!("{}{}{service}", provider("near"), provider("far")));
    elasticd.write("near.yaml", &entries(&["a", "b"]));
    elasticd.write("far.yaml", &entries(&["c"]));
    elasticd = elasticd.ready();
    await_served(&elasticd, "web", &["a=1", "b=1", "c=1"]);
    fs::remove_file(elasticd.path("far.yaml")).expect("removed");
    elasticd.await_status("a failing provider", |status| status["providers"]["far"]["error"].is_string());
    elasticd.write("near.yaml", &entries(&["a", "b", "d"]));
    await_served(&elasticd, "web", &["a=1", "b=1", "c=1", "d=1"]);
    // Nor does a restart in this state, though no provider that knows `c` can be asked.
    assert!(elasticd.stop().success());
    elasticd.restart();
    elasticd.await_ready();
    await_served(&elasticd, "web", &["a=1", "b=1", "c=1", "d=1"]);
    let status = elasticd.status();
    let sources = status["services"]["web"]["sources"].as_array().expect("sources");
    assert_eq!(sources[1]["provider"], "far");
    assert_eq!((&sources[0]["backends"], &sources[1]["backends"]), (&3.into(), &1.into()));
    assert_eq!(status["services"]["web"]["restored"], true);
}

#[test]
fn failover_waits_for_expire_and_goes_back() {
    let service = "[services.web]\nprovider = ['near', 'far']\nsources = 'failover'\nexpire = '2s'\n";
    let elasticd = Elasticd::new(&format!("{}{}{service}", provider("near"), provider("far")));
    elasticd.write("near.yaml", &entries(&["a"]));
    elasticd.write("far.yaml", &entries(&["b"]));
    let elasticd = elasticd.ready();
    await_served(&elasticd, "web", &["a=1"]);
    assert_eq!(explained(&elasticd, "b"), "provider far is on standby (`sources = \"failover\"`)");
    fs::remove_file(elasticd.path("near.yaml")).expect("removed");
    await_served(&elasticd, "web", &["b=1"]);
    assert_eq!(explained(&elasticd, "a"), "provider near has not answered for longer than the service's `expire`");
    elasticd.write("near.yaml", &entries(&["a"]));
    await_served(&elasticd, "web", &["a=1"]);
}

#[test]
fn our_own_zone_comes_first_while_it_has_enough() {
    let service = "zone = 'z1'\n[services.web]\nprovider = 'near'\nprefer = 'same-zone'\n";
    let top = |text: &str| {
        let (zone, service) = text.split_once('\n').expect("two lines");
        format!("{zone}\n{}{service}", provider("near"))
    };
    let elasticd = Elasticd::new(&top(service));
    let zones =
        |zones: &[(&str, &str)]| zones.iter().map(|(id, zone)| entry(id, &format!("zone: {zone}"))).collect::<String>();
    elasticd.write("near.yaml", &zones(&[("a", "z1"), ("b", "z1"), ("c", "z2")]));
    let elasticd = elasticd.ready();
    await_served(&elasticd, "web", &["a=1", "b=1"]);
    assert_eq!(explained(&elasticd, "c"), "zone is \"z2\"; our own zone \"z1\" is preferred and has enough backends");
    elasticd.write("near.yaml", &zones(&[("a", "z1"), ("b", "z2"), ("c", "z2")]));
    await_served(&elasticd, "web", &["a=1", "b=1", "c=1"]);
}

#[test]
fn slow_start_and_drain_continue_across_a_restart() {
    let service = "[services.web]\nprovider = 'near'\nslow_start = '3s'\ndrain = '4s'\n";
    let mut elasticd = Elasticd::new(&format!("{}{service}", provider("near")));
    elasticd.write("near.yaml", &entries(&["a", "b"]));
    elasticd = elasticd.ready();
    await_served(&elasticd, "web", &["a=10", "b=10"]);
    elasticd.write("near.yaml", &entries(&["a", "c"]));
    let weight = |elasticd: &Elasticd| {
        let all = served(elasticd, "web");
        all.iter().find_map(|b| b.strip_prefix("c=")?.parse::<u16>().ok())
    };
    let first = until_or(|| "c joins".to_owned(), || weight(&elasticd));
    assert!(first < 10, "{first}");
    assert_eq!(served(&elasticd, "web")[1], "-b=0");
    assert_eq!(explained(&elasticd, "b"), "draining, gets no new traffic");
    elasticd.kill();
    elasticd.restart();
    elasticd.await_ready();
    assert_eq!(served(&elasticd, "web")[1], "-b=0", "{}", elasticd.log());
    await_served(&elasticd, "web", &["a=10", "c=10"]);
}

#[test]
fn an_instance_joins_once_it_is_old_enough_without_another_poll() {
    let service = "[services.web]\nprovider = 'near'\nmin_age = '3s'\n";
    let provider = provider("near").replace("200ms", "1h");
    let elasticd = Elasticd::new(&format!("{provider}{service}"));
    let now = jiff::Timestamp::now();
    elasticd.write("near.yaml", &(entries(&["a"]) + &entry("b", &format!("launched: '{now}'"))));
    let elasticd = elasticd.ready();
    assert_eq!(served(&elasticd, "web"), ["a=1"]);
    assert!(explained(&elasticd, "b").contains("launched less than 3s ago"), "{}", explained(&elasticd, "b"));
    await_served(&elasticd, "web", &["a=1", "b=1"]);
    assert_eq!(elasticd.status()["providers"]["near"]["polls"], 1);
}

#[test]
fn tags_create_services_and_frontends_follow_them() {
    let pattern = "[services.aws]\nprovider = 'near'\neach = 'haproxy'\nguard = { on_empty = 'accept', confirm = 1 }\n";
    let frontend = "[frontends.list]\ntype = 'custom'\nescape = 'none'\noutput = 'DIR/list'\ntemplate = 'list.tpl'\n";
    let mut elasticd = Elasticd::new(&format!("{}{pattern}{frontend}", provider("near")));
    elasticd.write(
        "list.tpl",
        "{% for s in services %}{{ s.name }}:{% for b in s.backends %} {{ b.id }}{% endfor %}\n{% endfor %}",
    );
    let tagged = |id: &str, name: &str| {
        entry(id, &format!("tags: {{ 'HAProxy:Service:Name': {name}, 'HAProxy:Service:Port': '80' }}"))
    };
    elasticd.write("near.yaml", &(tagged("a", "web") + &tagged("b", "db")));
    elasticd = elasticd.ready();
    let await_list = |elasticd: &Elasticd, wanted: &str| {
        let list = || fs::read_to_string(elasticd.path("list")).unwrap_or_default();
        until_or(|| format!("{wanted:?}, not {:?}: {}", list(), elasticd.log()), || (list() == wanted).then_some(()));
    };
    await_list(&elasticd, "db-80: b\nweb-80: a\n");
    elasticd.write("near.yaml", &(tagged("a", "web") + &tagged("c", "'no good'") + &tagged("d", "api")));
    await_list(&elasticd, "api-80: d\nweb-80: a\n");
    elasticd.await_log("tags create no service pattern=aws reason=instance \"c\": tag");
    // Restored, they are served before anybody has answered, and go on from there.
    elasticd.kill();
    let near = elasticd.path("near.yaml");
    fs::rename(&near, elasticd.path("away.yaml")).expect("renamed");
    let revision = |elasticd: &Elasticd| elasticd.status()["revision"].as_u64();
    elasticd.restart();
    elasticd.await_ready();
    await_served(&elasticd, "web-80", &["a=1"]);
    let before = revision(&elasticd);
    fs::rename(elasticd.path("away.yaml"), near).expect("renamed");
    elasticd.await_status("confirmed", |status| status["services"]["web-80"]["restored"] == false);
    assert_eq!(revision(&elasticd), before);
    assert_eq!(elasticd.get("/v1/services/db-80").0, 404);
}
