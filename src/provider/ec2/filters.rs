//! From the services' selectors to the filters of one call.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Condition, Selector};

/// How many filter values EC2 takes in one call (EC2 API reference, `DescribeInstances`, `Filter.N`: at most 200).
pub const MAX_VALUES: usize = 200;

/// One server-side filter: the instance must match one of the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The filter's name, such as `tag:Role`.
    pub name: String,
    /// The values, any of which will do, with EC2's wildcards escaped.
    pub values: Vec<String>,
}

impl Filter {
    /// Escapes the values: a tag value that holds a wildcard means itself.
    fn literal<'a>(name: String, values: impl IntoIterator<Item = &'a str>) -> Self {
        Self { name, values: values.into_iter().map(escaped).collect() }
    }
}

/// The filters of the one call that serves all services: running instances, narrowed by what the selectors have in
/// common.
///
/// They never exclude a running instance that one of the selectors admits, and may well let others through: each
/// service selects again from what comes back.
pub fn merged(selectors: &[Selector]) -> Vec<Filter> {
    let mut filters = vec![Filter::literal("instance-state-name".to_owned(), ["running"])];
    let mut room = MAX_VALUES - 1;
    for filter in by_value(selectors) {
        if filter.values.len() <= room {
            room -= filter.values.len();
            filters.push(filter);
        }
    }
    if filters.len() == 1
        && let Some(filter) = by_key(selectors).filter(|filter| filter.values.len() <= room)
    {
        filters.push(filter);
    }
    filters
}

/// A filter for each tag that every selector names, the one of the fewest values first.
fn by_value(selectors: &[Selector]) -> Vec<Filter> {
    let Some((first, rest)) = selectors.split_first() else { return Vec::new() };
    let mut common: BTreeMap<&str, BTreeSet<&str>> =
        first.tags.iter().filter_map(|(key, condition)| Some((key.as_str(), texts(condition)?))).collect();
    for selector in rest {
        common.retain(|key, union| match selector.tags.get(*key).and_then(texts) {
            Some(values) => {
                union.extend(values);
                true
            }
            None => false,
        });
    }
    // EC2 does not document what an empty filter value matches, and refuses a filter without any.
    common.retain(|_, union| !union.is_empty() && !union.contains(""));
    let mut filters: Vec<_> =
        common.into_iter().map(|(key, union)| Filter::literal(format!("tag:{key}"), union)).collect();
    filters.sort_by_key(|filter| filter.values.len());
    filters
}

/// Where no tag is common to all: a filter that asks for one tag of each selector, whatever its value.
fn by_key(selectors: &[Selector]) -> Option<Filter> {
    let wanted = |(key, condition): (&'_ String, &Condition)| (*condition != Condition::Absent).then(|| key.clone());
    let keys = selectors.iter().map(|selector| selector.tags.iter().find_map(wanted));
    let keys = keys.collect::<Option<BTreeSet<_>>>()?;
    (!keys.is_empty()).then(|| Filter::literal("tag-key".to_owned(), keys.iter().map(String::as_str)))
}

fn texts(condition: &Condition) -> Option<BTreeSet<&str>> {
    match condition {
        Condition::OneOf(values) => Some(values.iter().map(String::as_str).collect()),
        Condition::Like(_) | Condition::Present | Condition::Absent => None,
    }
}

/// EC2 reads `*` and `?` as wildcards unless a backslash precedes them.
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '*' | '?' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    type Tags = BTreeMap<String, String>;

    fn selector(tags: &[(&str, &[&str])]) -> Selector {
        Selector::of_tags(tags.iter().map(|(key, of)| (*key, of.iter().copied())))
    }

    /// The filters beyond the state's, as `name=value,value`.
    fn narrowed(selectors: &[Selector]) -> Vec<String> {
        let mut filters = merged(selectors);
        assert_eq!(filters.remove(0), Filter { name: "instance-state-name".into(), values: vec!["running".into()] });
        filters.iter().map(|f| format!("{}={}", f.name, f.values.join(","))).collect()
    }

    #[test]
    fn a_tag_common_to_all_asks_for_the_union_of_values() {
        let web = selector(&[("Role", &["web"]), ("Env", &["prod", "canary"])]);
        let db = selector(&[("Role", &["db", "web"]), ("Zone", &["a"])]);
        assert_eq!(narrowed(std::slice::from_ref(&web)), ["tag:Role=web", "tag:Env=canary,prod"]);
        assert_eq!(narrowed(&[web, db]), ["tag:Role=db,web"]);
    }

    #[test]
    fn without_a_common_tag_one_key_of_each_is_asked_for() {
        let selectors = [selector(&[("Role", &["web"])]), selector(&[("Pool", &["a"]), ("Team", &["b"])])];
        assert_eq!(narrowed(&selectors), ["tag-key=Pool,Role"]);
    }

    #[test]
    fn an_empty_selector_or_none_asks_for_everything_that_runs() {
        let none: [String; 0] = [];
        assert_eq!(narrowed(&[]), none);
        assert_eq!(narrowed(&[selector(&[("Role", &["web"])]), Selector::default()]), none);
    }

    #[test]
    fn wildcards_mean_themselves() {
        assert_eq!(narrowed(&[selector(&[("Role", &[r"a*b?c\d"])])]), [r"tag:Role=a\*b\?c\\d"]);
        let keys = [selector(&[("a*", &["x"])]), selector(&[("b", &["x"])])];
        assert_eq!(narrowed(&keys), [r"tag-key=a\*,b"]);
    }

    #[test]
    fn an_empty_value_is_asked_for_by_key() {
        assert_eq!(narrowed(&[selector(&[("Role", &["", "web"])])]), ["tag-key=Role"]);
    }

    #[test]
    fn what_exceeds_the_limit_is_left_to_the_local_selection() {
        let many: Vec<String> = (0..199).map(|n| format!("v{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(merged(&[selector(&[("A", &many)])])[1].values.len(), 199);
        assert_eq!(narrowed(&[selector(&[("A", &many), ("B", &["x"])])]), ["tag:B=x"]);
        let mut more = many;
        more.push("one more");
        assert_eq!(narrowed(&[selector(&[("A", &more)])]), ["tag-key=A"]);
    }

    /// EC2's reading of a filter value.
    fn matches(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            (['\\', c, pattern @ ..], text) => {
                text.split_first().is_some_and(|(t, rest)| t == c && matches(pattern, rest))
            }
            (['*', rest @ ..], text) => (0..=text.len()).any(|n| matches(rest, &text[n..])),
            (['?', pattern @ ..], [_, text @ ..]) => matches(pattern, text),
            ([c, pattern @ ..], [t, text @ ..]) => c == t && matches(pattern, text),
            (_, []) => false,
        }
    }

    fn lets_through(filter: &Filter, tags: &Tags) -> bool {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let any = |text: &str| filter.values.iter().any(|value| matches(&chars(value), &chars(text)));
        match filter.name.strip_prefix("tag:") {
            Some(key) => tags.get(key).is_some_and(|value| any(value)),
            None if filter.name == "tag-key" => tags.keys().any(|key| any(key)),
            None => any("running"),
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_selector_admits_is_filtered_out(
            selectors in vec(btree_map("[ab*]{1,2}", btree_set(r"[ab*?\\]{0,2}", 0..4), 0..3), 0..4),
            instances in vec(btree_map("[ab*]{1,2}", r"[ab*?\\]{0,2}", 0..4), 1..20),
        ) {
            let selectors: Vec<_> = selectors.into_iter().map(Selector::of_tags).collect();
            let filters = merged(&selectors);
            prop_assert!(filters.iter().map(|f| f.values.len()).sum::<usize>() <= MAX_VALUES);
            prop_assert!(filters.iter().all(|f| !f.values.is_empty()));
            for tags in &instances {
                let mut instance = crate::model::Instance::new("i");
                instance.tags.clone_from(tags);
                if selectors.iter().any(|s| s.admits(&instance).is_ok()) {
                    prop_assert!(filters.iter().all(|f| lets_through(f, tags)), "{tags:?} {filters:?}");
                }
            }
        }

        #[test]
        fn an_admitted_instance_is_found_among_many_values(
            counts in vec(1usize..150, 1..4),
            pick in any::<prop::sample::Index>(),
        ) {
            let of = |n: usize| (0..n).map(|i| format!("v{i}")).collect::<BTreeSet<_>>();
            let tags: BTreeMap<_, _> = counts.iter().enumerate().map(|(k, n)| (format!("k{k}"), of(*n))).collect();
            let carried = tags.iter().map(|(k, v)| (k.clone(), v.iter().nth(pick.index(v.len())).cloned().unwrap())).collect();
            let filters = merged(&[Selector::of_tags(tags)]);
            prop_assert!(filters.iter().map(|f| f.values.len()).sum::<usize>() <= MAX_VALUES);
            prop_assert!(filters.iter().all(|f| lets_through(f, &carried)));
        }
    }
}
