//! From the services' selectors to the filters of one call. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Selector;

/// The largest number of filter values in one call
/// (Amazon EC2 API reference, `DescribeInstances`, "You can specify up to 200 filter values").
const MAX_VALUES: usize = 200;

/// One server-side filter: an instance passes if the name's value is any of the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The filter's name, such as `tag:Role`.
    pub name: String,
    /// The values, with EC2's wildcards escaped.
    pub values: Vec<String>,
}

/// Filters that let pass every running instance that any of the selectors admits, and as few others as one call can
/// tell apart. Selection judges again; what passes needlessly costs only time.
///
/// A filter that would exceed EC2's bound on values is left out, which lets more pass.
pub fn merge(selectors: &[Selector]) -> Vec<Filter> {
    let mut filters = vec![Filter { name: "instance-state-name".to_owned(), values: vec!["running".to_owned()] }];
    // A selector that admits no value at all admits no instance.
    let selectors: Vec<_> = selectors.iter().filter(|s| s.0.values().all(|values| !values.is_empty())).collect();
    let mut room = MAX_VALUES - 1;
    let mut by_tag = common(&selectors);
    if by_tag.is_empty() {
        by_tag.extend(any_key(&selectors));
    }
    // The shortest first: the more filters fit.
    by_tag.sort_by_key(|filter| filter.values.len());
    for filter in by_tag {
        if filter.values.len() <= room {
            room -= filter.values.len();
            filters.push(filter);
        }
    }
    filters
}

/// For each tag that every selector names, the values any of them wants.
fn common(selectors: &[&Selector]) -> Vec<Filter> {
    let mut wanted: BTreeMap<&str, (usize, BTreeSet<&str>)> = BTreeMap::new();
    for (key, values) in selectors.iter().flat_map(|selector| &selector.0) {
        let (named, union) = wanted.entry(key).or_default();
        *named += 1;
        union.extend(values.iter().map(String::as_str));
    }
    let common = wanted.into_iter().filter(|(_, (named, _))| *named == selectors.len());
    common
        .map(|(key, (_, values))| Filter {
            name: format!("tag:{key}"),
            values: values.into_iter().map(escape).collect(),
        })
        .collect()
}

/// One tag of each selector, unless one of them names none.
fn any_key(selectors: &[&Selector]) -> Option<Filter> {
    let keys: Option<BTreeSet<&str>> = selectors.iter().map(|s| s.0.keys().next().map(String::as_str)).collect();
    let values: Vec<_> = keys?.into_iter().map(escape).collect();
    (!values.is_empty()).then(|| Filter { name: "tag-key".to_owned(), values })
}

/// `*` and `?` are wildcards, and a backslash takes their meaning away
/// (Amazon EC2 user guide, "List and filter using the CLI and API").
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selector(tags: &[(&str, &[&str])]) -> Selector {
        let values = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect();
        Selector(tags.iter().map(|(key, wanted)| ((*key).to_owned(), values(wanted))).collect())
    }

    fn merged(selectors: &[Selector]) -> Vec<String> {
        merge(selectors).iter().skip(1).map(|f| format!("{}={}", f.name, f.values.join(","))).collect()
    }

    #[test]
    fn tags_in_common_are_pushed_with_all_their_values() {
        let web = selector(&[("Role", &["web"]), ("Env", &["prod", "canary"])]);
        let api = selector(&[("Role", &["api"]), ("Env", &["prod"]), ("Tier", &["1"])]);
        assert_eq!(merged(std::slice::from_ref(&web)), ["tag:Role=web", "tag:Env=canary,prod"]);
        assert_eq!(merged(&[web, api]), ["tag:Env=canary,prod", "tag:Role=api,web"]);
    }

    #[test]
    fn without_a_tag_in_common_one_of_each_will_do() {
        let selectors = [selector(&[("Role", &["web"])]), selector(&[("Env", &["prod"]), ("Tier", &["1"])])];
        assert_eq!(merged(&selectors), ["tag-key=Env,Role"]);
    }

    #[test]
    fn a_selector_that_takes_everything_pushes_nothing() {
        assert_eq!(merged(&[selector(&[("Role", &["web"])]), Selector::default()]), [""; 0]);
        assert_eq!(merged(&[]), [""; 0]);
        let running = Filter { name: "instance-state-name".into(), values: vec!["running".into()] };
        assert_eq!(merge(&[]), [running]);
    }

    #[test]
    fn wildcards_mean_themselves() {
        assert_eq!(merged(&[selector(&[("a*", &[r"w?b*\"])])]), [r"tag:a*=w\?b\*\\"]);
    }

    #[test]
    fn what_exceeds_the_bound_is_not_sent() {
        let many: Vec<String> = (0..MAX_VALUES).map(|i| i.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(merged(&[selector(&[("Id", &many), ("Role", &["web"])])]), ["tag:Role=web"]);
        assert_eq!(merge(&[selector(&[("Id", &many[1..])])])[1].values.len(), MAX_VALUES - 1);
    }

    /// EC2's own reading of a filter's value.
    fn matches(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['\\', c, rest @ ..] => text.first() == Some(c) && matches(rest, &text[1..]),
            ['*', rest @ ..] => (0..=text.len()).any(|i| matches(rest, &text[i..])),
            ['?', rest @ ..] => !text.is_empty() && matches(rest, &text[1..]),
            [c, rest @ ..] => text.first() == Some(c) && matches(rest, &text[1..]),
        }
    }

    fn passes(filter: &Filter, tags: &BTreeMap<String, String>) -> bool {
        let any = |text: &str| {
            let text: Vec<char> = text.chars().collect();
            filter.values.iter().any(|value| matches(&value.chars().collect::<Vec<_>>(), &text))
        };
        match filter.name.strip_prefix("tag:") {
            Some(key) => tags.get(key).is_some_and(|value| any(value)),
            None if filter.name == "tag-key" => tags.keys().any(|key| any(key)),
            None => true,
        }
    }

    fn tag() -> impl Strategy<Value = String> {
        r"[ab*?\\]{1,2}"
    }

    proptest! {
        #[test]
        fn whatever_a_selector_admits_passes(
            selectors in proptest::collection::vec(
                proptest::collection::btree_map(tag(), proptest::collection::btree_set(tag(), 0..4), 0..4), 0..4),
            tags in proptest::collection::btree_map(tag(), tag(), 0..8),
            at in any::<proptest::sample::Index>(),
            chosen in any::<proptest::sample::Index>(),
        ) {
            let selectors: Vec<_> = selectors.into_iter().map(Selector).collect();
            let mut tags = tags;
            // Random tags are seldom admitted: make one selector admit them where it can.
            if !selectors.is_empty() {
                for (key, values) in &at.get(&selectors).0 {
                    if !values.is_empty() {
                        let values: Vec<_> = values.iter().collect();
                        tags.insert(key.clone(), (*chosen.get(&values)).clone());
                    }
                }
            }
            let filters = merge(&selectors);
            let admitted = selectors.iter().any(|selector| selector.admits(&tags).is_ok());
            prop_assert!(!admitted || filters.iter().all(|filter| passes(filter, &tags)));
            prop_assert!(filters.iter().map(|filter| filter.values.len()).sum::<usize>() <= MAX_VALUES);
        }
    }
}
