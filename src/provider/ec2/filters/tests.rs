use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use std::sync::Arc;

use super::*;
use crate::model::Instance;

fn selector(tags: &[(&str, &[&str])]) -> Selector {
    Selector::of_tags(tags.iter().map(|(key, of)| (*key, of.iter().copied())))
}

fn texts(texts: &[&str]) -> Arc<BTreeSet<String>> {
    Arc::new(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn tag(key: &str, condition: Condition) -> Selector {
    Selector { tags: [(key.to_owned(), condition)].into(), ..Selector::default() }
}

fn attribute(attribute: Attribute, condition: Condition) -> Selector {
    Selector { attributes: [(attribute, condition)].into(), ..Selector::default() }
}

fn both(a: Selector, b: Selector) -> Selector {
    Selector {
        tags: a.tags.into_iter().chain(b.tags).collect(),
        attributes: a.attributes.into_iter().chain(b.attributes).collect(),
    }
}

/// The filters of each call beyond the state's, as `name=value,value`.
fn narrowed(selectors: &[Selector]) -> Vec<Vec<String>> {
    let written = |mut filters: Vec<Filter>| {
        assert_eq!(filters.remove(0), running());
        filters.iter().map(|f| format!("{}={}", f.name, f.values.join(","))).collect()
    };
    calls(selectors).into_iter().map(written).collect()
}

/// The same, of the only call there is.
fn one(selectors: &[Selector]) -> Vec<String> {
    let mut calls = narrowed(selectors);
    assert_eq!(calls.len(), 1, "{calls:?}");
    calls.remove(0)
}

fn many(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("v{n}")).collect()
}

#[test]
fn a_tag_common_to_all_asks_for_the_union_of_values() {
    let web = selector(&[("Role", &["web"]), ("Env", &["prod", "canary"])]);
    let db = selector(&[("Role", &["db", "web"]), ("Zone", &["a"])]);
    assert_eq!(one(std::slice::from_ref(&web)), ["tag:Role=web", "tag:Env=canary,prod"]);
    assert_eq!(one(&[web, db]), ["tag:Role=db,web"]);
}

#[test]
fn attributes_are_filters_too() {
    use Attribute::{Group, Subnet, Type, Vpc, Zone};
    for (of, name) in [
        (Vpc, "vpc-id"),
        (Subnet, "subnet-id"),
        (Zone, "availability-zone"),
        (Type, "instance-type"),
        (Group, "tag:aws:autoscaling:groupName"),
    ] {
        let like = |glob: &str| attribute(of, Condition::Like(texts(&[glob])));
        assert_eq!(one(&[attribute(of, Condition::OneOf(texts(&["b", "a"])))]), [format!("{name}=a,b")]);
        assert_eq!(
            one(&[like("m7g.*"), attribute(of, Condition::OneOf(texts(&["*"])))]),
            [format!(r"{name}=\*,m7g.*")]
        );
    }
    assert_eq!(one(&[attribute(Group, Condition::Present)]), ["tag-key=aws:autoscaling:groupName"]);
    // EC2 cannot be asked for a VPC whatever it is, nor for what must not be there.
    for (of, condition) in [(Vpc, Condition::Present), (Group, Condition::Absent)] {
        assert_eq!(one(&[attribute(of, condition)]), [""; 0]);
    }
}

#[test]
fn globs_are_ec2s_own_and_literals_are_escaped() {
    let glob = tag("Role", Condition::Like(texts(&[r"web-?\*"])));
    assert_eq!(one(std::slice::from_ref(&glob)), [r"tag:Role=web-?\\*"]);
    assert_eq!(one(&[glob, selector(&[("Role", &[r"a*b?c\d"])])]), [r"tag:Role=a\*b\?c\\d,web-?\\*"]);
    let keys = [selector(&[("a*", &["x"])]), selector(&[("b", &["x"])])];
    assert_eq!(one(&keys), [r"tag-key=a\*,b"]);
}

#[test]
fn a_tag_that_must_be_there_is_asked_for_by_key() {
    let present = tag("Role", Condition::Present);
    assert_eq!(one(std::slice::from_ref(&present)), ["tag-key=Role"]);
    assert_eq!(one(&[present.clone(), selector(&[("Role", &["web"])])]), ["tag-key=Role"]);
    assert_eq!(one(&[both(present, selector(&[("Env", &["prod"])]))]), ["tag-key=Role", "tag:Env=prod"]);
    // What an empty value matches is not documented.
    assert_eq!(one(&[selector(&[("Role", &["", "web"])])]), ["tag-key=Role"]);
    assert_eq!(one(&[tag("Role", Condition::Like(texts(&["**", "web"])))]), ["tag-key=Role"]);
}

#[test]
fn without_a_common_tag_the_most_used_key_of_each_is_asked_for() {
    let selectors = [selector(&[("Role", &["web"])]), selector(&[("Pool", &["a"]), ("Team", &["b"])])];
    assert_eq!(one(&selectors), ["tag-key=Role,Team"]);
    let three = [selectors.to_vec(), vec![selector(&[("Pool", &["c"])])]].concat();
    assert_eq!(one(&three), ["tag-key=Pool,Role"]);
}

#[test]
fn what_has_nothing_in_common_is_asked_for_apart() {
    let vpc = |id: &str| attribute(Attribute::Vpc, Condition::OneOf(texts(&[id])));
    let web = selector(&[("Role", &["web"])]);
    assert_eq!(narrowed(&[vpc("v-1"), web.clone(), vpc("v-2")]), [["vpc-id=v-1,v-2"], ["tag:Role=web"]]);
    let zone = attribute(Attribute::Zone, Condition::OneOf(texts(&["a"])));
    let kind = attribute(Attribute::Type, Condition::OneOf(texts(&["t"])));
    let subnet = attribute(Attribute::Subnet, Condition::OneOf(texts(&["s"])));
    let four = [vpc("v"), zone, kind, web];
    assert_eq!(calls(&four).len(), 4);
    let five = [four.to_vec(), vec![subnet]].concat();
    assert_eq!(one(&five), [""; 0], "five calls would be too many");
}

#[test]
fn a_selector_that_asks_for_nothing_or_none_asks_for_everything_that_runs() {
    let none = [""; 0];
    let web = selector(&[("Role", &["web"])]);
    assert_eq!(one(&[]), none);
    assert_eq!(one(&[web.clone(), Selector::default()]), none);
    assert_eq!(one(&[web, tag("Role", Condition::Absent)]), none);
}

#[test]
fn what_exceeds_the_limit_is_split() {
    let many = many(MAX_VALUES * MAX_CALLS);
    let of = |count: usize, rest: &[(&str, &[&str])]| {
        let values: Vec<&str> = many[..count].iter().map(String::as_str).collect();
        calls(&[both(selector(&[("A", &values)]), selector(rest))])
    };
    let sizes = |calls: &[Vec<Filter>]| calls.iter().map(|f| f[f.len() - 1].values.len()).collect::<Vec<_>>();
    assert_eq!(sizes(&of(199, &[])), [199]);
    assert_eq!(sizes(&of(200, &[])), [199, 1]);
    let calls = of(400, &[("B", &["x", "y"])]);
    assert_eq!(sizes(&calls), [197, 197, 6]);
    assert!(calls.iter().all(|filters| filters[1].name == "tag:B" && filters[2].name == "tag:A"));
    assert_eq!(sizes(&of(199 * 4, &[])), [199; 4]);
    // Beyond, it is left to each service's own selection.
    let calls = of(199 * 4 + 1, &[]);
    assert_eq!(calls, [[running(), Filter { name: "tag-key".into(), values: vec!["A".into()] }]]);
    assert_eq!(sizes(&of(199 * 4, &[("B", &["x"])])), [1], "only what is small is asked for");
}

/// EC2's reading of a filter value.
fn matches(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        (['\\', c, pattern @ ..], text) => text.split_first().is_some_and(|(t, rest)| t == c && matches(pattern, rest)),
        (['*', rest @ ..], text) => (0..=text.len()).any(|n| matches(rest, &text[n..])),
        (['?', pattern @ ..], [_, text @ ..]) => matches(pattern, text),
        ([c, pattern @ ..], [t, text @ ..]) => c == t && matches(pattern, text),
        (_, []) => false,
    }
}

/// What EC2 makes of it.
fn lets_through(filter: &Filter, instance: &Instance) -> bool {
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    let any = |text: &str| filter.values.iter().any(|value| matches(&chars(value), &chars(text)));
    let attribute = |attribute: Attribute| attribute.of(instance).is_some_and(any);
    match (&*filter.name, filter.name.strip_prefix("tag:")) {
        (_, Some(key)) => instance.tags.get(key).is_some_and(|value| any(value)),
        ("tag-key", _) => instance.tags.keys().any(|key| any(key)),
        ("instance-state-name", _) => any("running"),
        ("vpc-id", _) => attribute(Attribute::Vpc),
        ("subnet-id", _) => attribute(Attribute::Subnet),
        ("availability-zone", _) => attribute(Attribute::Zone),
        ("instance-type", _) => attribute(Attribute::Type),
        (name, _) => panic!("EC2 knows no filter {name}"),
    }
}

fn keeps_the_limits(calls: &[Vec<Filter>]) -> Result<(), TestCaseError> {
    prop_assert!((1..=MAX_CALLS).contains(&calls.len()));
    for filters in calls {
        prop_assert!(filters.iter().map(|f| f.values.len()).sum::<usize>() <= MAX_VALUES, "{filters:?}");
        prop_assert!(filters.len() <= MAX_FILTERS);
        prop_assert!(filters.iter().all(|f| !f.values.is_empty() && !f.values.iter().any(String::is_empty)));
        let names: BTreeSet<_> = filters.iter().map(|filter| &filter.name).collect();
        prop_assert_eq!(names.len(), filters.len(), "each name once");
        prop_assert_eq!(&filters[0], &running());
    }
    Ok(())
}

fn conditions(value: &'static str) -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Present),
        Just(Condition::Absent),
        btree_set(value, 0..4).prop_map(|values| Condition::OneOf(values.into())),
        btree_set(value, 0..4).prop_map(|globs| Condition::Like(globs.into())),
    ]
}

fn attributes() -> impl Strategy<Value = Attribute> {
    use Attribute::{Group, Subnet, Type, Vpc, Zone};
    prop_oneof![Just(Vpc), Just(Subnet), Just(Zone), Just(Group), Just(Type)]
}

fn selectors() -> impl Strategy<Value = Selector> {
    let tags = btree_map("[ab*]{1,2}", conditions(r"[ab*?\\]{0,2}"), 0..3);
    (tags, btree_map(attributes(), conditions(r"[ab*?\\]{0,2}"), 0..2))
        .prop_map(|(tags, attributes)| Selector { tags, attributes })
}

fn instances() -> impl Strategy<Value = Instance> {
    let tags = btree_map("[ab*]{1,2}", r"[ab*?\\]{0,2}", 0..4);
    (tags, btree_map(attributes(), r"[ab*?\\]{1,2}", 0..6)).prop_map(|(tags, attributes)| {
        let of = |attribute: Attribute| attributes.get(&attribute).cloned();
        let mut instance = Instance::new("i");
        (instance.vpc, instance.subnet, instance.zone) =
            (of(Attribute::Vpc), of(Attribute::Subnet), of(Attribute::Zone));
        (instance.group, instance.instance_type) = (of(Attribute::Group), of(Attribute::Type));
        instance.tags = tags.into();
        // As Auto Scaling does.
        instance.tags.extend(instance.group.clone().map(|group| (GROUP_TAG.to_owned(), group)));
        instance
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_a_selector_admits_is_filtered_out(
        selectors in vec(selectors(), 0..5),
        instances in vec(instances(), 1..20),
    ) {
        let calls = calls(&selectors);
        keeps_the_limits(&calls)?;
        for instance in &instances {
            if selectors.iter().any(|s| s.admits(instance).is_ok()) {
                let brought = calls.iter().any(|filters| filters.iter().all(|f| lets_through(f, instance)));
                prop_assert!(brought, "{instance:?} {calls:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn an_admitted_instance_is_found_among_many_values(
        counts in vec(1usize..900, 1..4),
        services in 1usize..60,
        pick in any::<prop::sample::Index>(),
    ) {
        let of = |k: usize, n: usize| (0..n).map(|i| format!("v{k}.{i}")).collect::<BTreeSet<_>>();
        let tags: BTreeMap<_, _> = counts.iter().enumerate().map(|(k, n)| (format!("k{k}"), of(k, *n))).collect();
        let mut instance = Instance::new("i");
        instance.tags =
            tags.iter().map(|(k, v)| (k.clone(), v.iter().nth(pick.index(v.len())).cloned().unwrap())).collect();
        let others = (0..services).map(|n| selector(&[("k0", &[&format!("other{n}")])]));
        let selectors: Vec<_> = others.chain([Selector::of_tags(tags)]).collect();
        let calls = calls(&selectors);
        keeps_the_limits(&calls)?;
        prop_assert!(calls.iter().any(|filters| filters.iter().all(|f| lets_through(f, &instance))));
    }

    #[test]
    fn any_number_of_common_tags_keeps_the_limits(tags in 1usize..300) {
        let keys: Vec<_> = (0..tags).map(|n| format!("k{n}")).collect();
        keeps_the_limits(&calls(&[Selector::of_tags(keys.into_iter().map(|key| (key, ["x"])))]))?;
    }
}
