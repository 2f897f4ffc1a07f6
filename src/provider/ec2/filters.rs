//! From the services' selectors to the filters of as few calls as will do.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Attribute, Condition, Selector};

/// How many filter values EC2 takes in one call (EC2 API reference, error `FilterLimitExceeded`: at most 200).
pub const MAX_VALUES: usize = 200;

/// How many filters EC2 takes in one call (EC2 user guide, "Find your Amazon EC2 resources": at most 50).
pub const MAX_FILTERS: usize = 50;

/// Into how many calls one may be split: what that saves are pages, of which there may be none.
pub const MAX_CALLS: usize = 4;

/// The tag in which Auto Scaling names the group of each of its instances.
pub const GROUP_TAG: &str = "aws:autoscaling:groupName";

/// One server-side filter: the instance must match one of the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The filter's name, such as `tag:Role`.
    pub name: String,
    /// The values, any of which will do, in EC2's patterns.
    pub values: Vec<String>,
}

/// What one selector, or several, ask for: EC2's patterns by the filter's name, or any value at all.
type Wanted = BTreeMap<String, Option<BTreeSet<String>>>;

/// The filters of each call, of which there is one or a few. The answers together hold every running instance that one
/// of the selectors admits, and possibly others: each service selects again.
///
/// One call asks for what the selectors have in common, by value, or at least for the tags by which they go. Where it
/// takes more values than EC2 does, it is split in up to [`MAX_CALLS`]; and so it is where the selectors have so little
/// in common that one call would have to ask for everything.
pub fn calls(selectors: &[Selector]) -> Vec<Vec<Filter>> {
    let wanted: Vec<Wanted> = selectors.iter().map(wanted).collect();
    let all: Vec<&Wanted> = wanted.iter().collect();
    together(&all).or_else(|| apart(&all)).unwrap_or_else(|| vec![vec![running()]])
}

fn running() -> Filter {
    Filter { name: "instance-state-name".to_owned(), values: vec!["running".to_owned()] }
}

/// What EC2 can filter of a selector. It cannot filter by the absence of a tag or an attribute.
fn wanted(selector: &Selector) -> Wanted {
    let mut wanted = Wanted::new();
    for (key, condition) in &selector.tags {
        wanted.extend(patterns(condition).map(|patterns| (format!("tag:{key}"), patterns)));
    }
    for (attribute, condition) in &selector.attributes {
        let name = match attribute {
            Attribute::Vpc => "vpc-id".to_owned(),
            Attribute::Subnet => "subnet-id".to_owned(),
            Attribute::Zone => "availability-zone".to_owned(),
            Attribute::Type => "instance-type".to_owned(),
            Attribute::Group => format!("tag:{GROUP_TAG}"),
        };
        let Some(patterns) = patterns(condition) else { continue };
        // Only a tag can be filtered by its presence alone.
        if patterns.is_some() || name.starts_with("tag:") {
            wanted.entry(name).or_insert(patterns);
        }
    }
    wanted
}

/// EC2's patterns; within, none for any value. EC2 does not document what an empty filter value matches, so that it is
/// never asked for, nor is what may match one.
fn patterns(condition: &Condition) -> Option<Option<BTreeSet<String>>> {
    let patterns: BTreeSet<_> = match condition {
        Condition::Absent => return None,
        Condition::Present => return Some(None),
        Condition::OneOf(values) => values.iter().map(|value| literal(value)).collect(),
        Condition::Like(globs) => globs.iter().map(|glob| glob.replace('\\', r"\\")).collect(),
    };
    let may_be_empty = patterns.iter().any(|pattern| pattern.bytes().all(|byte| byte == b'*'));
    Some((!may_be_empty).then_some(patterns))
}

/// EC2 reads `*` and `?` as wildcards unless a backslash precedes them (EC2 API reference, `Filter`).
fn literal(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '*' | '?' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// What all of them ask for, each with the values of all.
fn common(all: &[&Wanted]) -> Wanted {
    let Some((first, rest)) = all.split_first() else { return Wanted::new() };
    let mut common = Wanted::clone(first);
    for other in rest {
        common.retain(|name, union| match (other.get(name), union) {
            (None, _) => false,
            (Some(Some(values)), Some(union)) => {
                union.extend(values.iter().cloned());
                true
            }
            (Some(_), union) => {
                *union = None;
                name.starts_with("tag:")
            }
        });
    }
    // EC2 refuses a filter without values.
    common.retain(|_, union| union.as_ref().is_none_or(|union| !union.is_empty()));
    common
}

/// One call, or one split, with the filters that all selectors have in common. None if there are none.
fn together(all: &[&Wanted]) -> Option<Vec<Vec<Filter>>> {
    let common = common(all);
    let mut filters = vec![running()];
    let mut free = MAX_VALUES - 1;
    let any_value = common.iter().find(|(_, values)| values.is_none());
    if let Some(key) = any_value.and_then(|(name, _)| name.strip_prefix("tag:")) {
        filters.push(Filter { name: "tag-key".to_owned(), values: vec![literal(key)] });
        free -= 1;
    }
    let mut by_value: Vec<_> = common.into_iter().filter_map(|(name, values)| Some((name, values?))).collect();
    by_value.sort_by_key(|(_, values)| values.len());
    for (name, values) in by_value {
        let values: Vec<_> = values.into_iter().collect();
        if filters.len() < MAX_FILTERS && values.len() <= free {
            free -= values.len();
            filters.push(Filter { name, values });
        } else if filters.len() < MAX_FILTERS && values.len() <= free * MAX_CALLS {
            return Some(split(&filters, &name, &values, free));
        }
    }
    if filters.len() == 1 {
        filters.push(by_key(all, free)?);
    }
    Some(vec![filters])
}

/// A call for every so many of the values.
fn split(filters: &[Filter], name: &str, values: &[String], free: usize) -> Vec<Vec<Filter>> {
    let with = |values: &[String]| {
        let filter = Filter { name: name.to_owned(), values: values.to_vec() };
        filters.iter().cloned().chain([filter]).collect()
    };
    values.chunks(free).map(with).collect()
}

/// A filter that asks for one tag of each selector, whatever its value: the one that most of them have.
fn by_key(all: &[&Wanted], free: usize) -> Option<Filter> {
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for key in all.iter().copied().flat_map(keys) {
        *uses.entry(key).or_default() += 1;
    }
    let most_used = all.iter().copied().map(|wanted| keys(wanted).max_by_key(|key| uses[key]));
    let keys = most_used.collect::<Option<BTreeSet<_>>>()?;
    let filter = Filter { name: "tag-key".to_owned(), values: keys.iter().map(|key| literal(key)).collect() };
    (1..=free).contains(&filter.values.len()).then_some(filter)
}

fn keys(wanted: &Wanted) -> impl Iterator<Item = &str> {
    wanted.keys().filter_map(|name| name.strip_prefix("tag:"))
}

/// A call, or a few, for each lot of selectors that have something in common.
fn apart(all: &[&Wanted]) -> Option<Vec<Vec<Filter>>> {
    let mut lots: Vec<Vec<&Wanted>> = Vec::new();
    for &wanted in all {
        let joins = |lot: &&mut Vec<&Wanted>| {
            let joined: Vec<_> = lot.iter().copied().chain([wanted]).collect();
            together(&joined).is_some()
        };
        match lots.iter_mut().find(joins) {
            Some(lot) => lot.push(wanted),
            None => lots.push(vec![wanted]),
        }
    }
    let mut calls = Vec::new();
    for lot in lots {
        calls.extend(together(&lot)?);
    }
    (1..=MAX_CALLS).contains(&calls.len()).then_some(calls)
}

#[cfg(test)]
mod tests;
