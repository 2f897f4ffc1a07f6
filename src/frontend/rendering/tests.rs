use super::*;
use crate::frontend::Raw;
use crate::frontend::config::Guards;
use crate::model::{BackendState, Percent};

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// A backend that has the tag `Owner` unless its id begins with `bad`.
fn backend(id: &str) -> Backend {
    let owner = (!id.starts_with("bad")).then(|| ("Owner".to_owned(), format!("owner of {id}")));
    Backend {
        id: id.to_owned(),
        address: [10, 0, 0, 1].into(),
        port: 80,
        zone: None,
        weight: 1,
        state: BackendState::Up,
        tags: owner.into_iter().collect(),
    }
}

fn snapshot(services: &[(&str, &[&str])]) -> Snapshot {
    let set = |ids: &[&str]| ServiceSet { revision: 1, backends: ids.iter().map(|id| backend(id)).collect() };
    Snapshot { revision: 1, services: services.iter().map(|(service, ids)| (name(service), set(ids).into())).collect() }
}

/// A frontend of these services with one output for each of the templates.
fn frontend(services: &[&str], outputs: &[(&str, &str)]) -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().expect("a directory");
    let outputs: Vec<_> = outputs
        .iter()
        .enumerate()
        .map(|(n, (path, text))| {
            std::fs::write(dir.path().join(format!("t{n}")), text).expect("written");
            serde_json::json!({ "path": path, "template": format!("t{n}") })
        })
        .collect();
    let raw = serde_json::json!({ "escape": "none", "services": services, "outputs": outputs });
    let raw: Raw = serde_json::from_value(raw).expect("keys");
    let config = raw.resolve(name("front"), "custom", &[], dir.path()).expect("valid");
    (dir, config)
}

const OWNERS: &str =
    "{% for s in services %}{{ s.name }}:{% for b in s.backends %} {{ b.tags.Owner }}{% endfor %};{% endfor %}";
const IDS: &str = "{% for s in services %}{% for b in s.backends %}{{ b.id }} {% endfor %}{% endfor %}";

fn render(config: &Config, snapshot: &Snapshot) -> Result<Rendering, Error> {
    config.render(&config.templates().expect("they compile"), snapshot, &Facts::default())
}

#[test]
fn a_backend_that_cannot_be_rendered_is_left_out_and_nothing_else() {
    let (_dir, config) = frontend(&["web", "api"], &[("/a", OWNERS), ("/b", IDS)]);
    let snapshot = snapshot(&[("api", &["q"]), ("web", &["a", "bad1", "c", "d"]), ("other", &["bad2"])]);
    let rendering = render(&config, &snapshot).expect("rendered");
    assert_eq!(rendering.contents, ["web: owner of a owner of c owner of d;api: owner of q;", "a c d q "]);
    let [out] = rendering.left_out.as_slice() else { panic!("{:?}", rendering.left_out) };
    assert_eq!((out.service.as_str(), out.id.as_str()), ("web", "bad1"));
    assert!(out.reason.starts_with("t0 line 1 column 72: there is no `b.tags.Owner`"), "{}", out.reason);
}

#[test]
fn an_output_for_each_service_loses_its_own_backend_alone() {
    let (_dir, config) = frontend(&["api", "web"], &[("/{service}", OWNERS)]);
    let rendering = render(&config, &snapshot(&[("api", &["q"]), ("web", &["a", "bad1"])])).expect("rendered");
    assert_eq!(rendering.contents, ["api: owner of q;", "web: owner of a;"]);
    assert_eq!(rendering.left_out.len(), 1);
}

#[test]
fn many_are_found_among_many() {
    let ids: Vec<_> = (0..500).map(|n| format!("{}{n:03}", if n % 7 == 3 { "bad" } else { "good" })).collect();
    let mut ids: Vec<_> = ids.iter().map(String::as_str).collect();
    ids.sort_unstable();
    let (_dir, config) = frontend(&["web"], &[("/a", OWNERS)]);
    let rendering = render(&config, &snapshot(&[("web", &ids)])).expect("rendered");
    let found: Vec<_> = rendering.left_out.iter().map(|out| out.id.as_str()).collect();
    let expected: Vec<_> = ids.iter().copied().filter(|id| id.starts_with("bad")).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_guard_lets_no_more_go_than_it_would_of_an_observation() {
    let (_dir, mut config) = frontend(&["web"], &[("/a", OWNERS)]);
    let with = |config: &mut Config, max_drop, on_empty| {
        let guard = Guard { max_drop: Percent(max_drop), on_empty, confirm: 1 };
        config.guards = Guards { services: [(name("web"), guard)].into(), created: Guard::default() };
    };
    let half = snapshot(&[("web", &["a", "bad1", "bad2", "d"])]);
    let all = snapshot(&[("web", &["bad1", "bad2"])]);
    with(&mut config, 50, OnEmpty::Hold);
    assert_eq!(render(&config, &half).expect("half may go").left_out.len(), 2);
    with(&mut config, 49, OnEmpty::Hold);
    let error = render(&config, &half).expect_err("half is too many").to_string();
    assert!(
        error.starts_with(
            "at least 2 of the 4 backends of service web cannot be rendered, and its guard lets no more than 49% go, and \
             never all; correct their tags or the template. The first is bad1 of web: t0 line 1 column 72: "
        ),
        "{error}"
    );
    with(&mut config, 100, OnEmpty::Hold);
    assert!(matches!(render(&config, &all), Err(Error::TooMany { count: 2, of: 2, .. })));
    with(&mut config, 100, OnEmpty::Accept);
    assert_eq!(render(&config, &all).expect("all may go").contents, ["web:;"]);
}

#[test]
fn a_template_that_fails_for_another_reason_leaves_nobody_out() {
    let general = format!("{IDS}{{{{ services.7.name }}}}");
    let together = format!(
        "{IDS}{{% for s in services %}}{{% if s.backends | length | eq: 2 %}}{{{{ x }}}}{{% endif %}}{{% endfor %}}"
    );
    for text in [general, together] {
        let (_dir, config) = frontend(&["web"], &[("/a", &text)]);
        let error = render(&config, &snapshot(&[("web", &["a", "b"])])).expect_err("it fails");
        assert!(matches!(error, Error::Template(_)), "{error}");
        assert!(error.to_string().starts_with("t0 line 1 column "), "{error}");
    }
}
