//! Numbers for servers: `backends | haproxy_ids` gives a map from each backend's id to a number for HAProxy's `id`.
//!
//! With `hash-type consistent` HAProxy places a server on its ring by that number, and in stick tables it is what is stored
//! and exchanged with peers. A number that comes from the backend's id alone is the same in every HAProxy of a fleet, after
//! every reload, and for servers that are added at run time; without one HAProxy numbers the servers in their order.
//!
//! HAProxy hashes the number times 4,096 in 32 bits (`chash_init_server_tree` in its `lb_chash.c`), so that only the lower 20
//! bits count. Among a thousand backends it is likelier than not that two of them hash to the same of that many numbers;
//! then the one that comes first by its id has it, and the other takes the next in a series of its own. So a backend that
//! comes or goes changes the number of another one only in such a case.

use std::collections::HashSet;

use sha2::{Digest, Sha256};
use upon::{Engine, Value};

use super::values::{Map, dotted};

/// The numbers that HAProxy's ring tells apart: 1 to this one.
const MOST: u32 = (1 << 20) - 1;

/// Adds the function to the engine.
pub(super) fn install(engine: &mut Engine<'static>) {
    engine.add_function("haproxy_ids", haproxy_ids);
}

fn haproxy_ids(backends: &[Value]) -> Result<Map, String> {
    let ids = backends.iter().map(|backend| match dotted(backend, "id") {
        Value::String(id) => Ok(id.as_str()),
        _ => Err("`haproxy_ids` needs backends: write `{{ s.backends | haproxy_ids }}`".to_owned()),
    });
    let mut ids = ids.collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    if ids.len() > MOST as usize / 2 {
        return Err(format!("`haproxy_ids` has numbers for {} backends at most", MOST / 2));
    }
    let mut taken = HashSet::with_capacity(ids.len());
    let numbers = ids.into_iter().map(|id| {
        let number = (0..).map(|attempt| number(id, attempt)).find(|number| taken.insert(*number));
        (id.to_owned(), Value::Integer(number.expect("there are more numbers than backends").into()))
    });
    Ok(numbers.collect())
}

/// A number from 1 to [`MOST`]; each attempt gives another one.
fn number(id: &str, attempt: u32) -> u32 {
    let mut hash = Sha256::new();
    hash.update(attempt.to_be_bytes());
    hash.update(id);
    let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
    u32::from_be_bytes([a, b, c, d]) % MOST + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers<'a>(ids: impl IntoIterator<Item = &'a str>) -> Map {
        let backends: Vec<_> = ids.into_iter().map(|id| upon::value! { id: id }).collect();
        haproxy_ids(&backends).expect("backends")
    }

    #[test]
    fn a_number_comes_from_the_id_alone() {
        // Written down, since another version of elasticd must come to the same.
        let expected = [("a", 578323), ("i-0123456789abcdef0", 356037), ("web:80", 374125)];
        let all = numbers(["web:80", "a", "i-0123456789abcdef0"]);
        assert_eq!(all, expected.map(|(id, number)| (id.to_owned(), Value::Integer(number))).into());
        for (id, number) in &all {
            assert_eq!(numbers([id.as_str()]).get(id), Some(number));
        }
    }

    #[test]
    fn ten_thousand_backends_have_different_numbers_whatever_their_order() {
        let ids: Vec<_> = (0..10_000).map(|n| format!("i-{n:017x}")).collect();
        let all = numbers(ids.iter().map(String::as_str));
        let different: HashSet<_> = all.values().map(|value| format!("{value:?}")).collect();
        assert_eq!((all.len(), different.len()), (10_000, 10_000));
        let in_range = |value: &Value| matches!(value, Value::Integer(number) if (1..=MOST.into()).contains(number));
        assert!(all.values().all(in_range));
        assert_eq!(numbers(ids.iter().rev().map(String::as_str)), all);
        // Without half of them the others keep theirs, except where two had the same.
        let half = numbers(ids.iter().step_by(2).map(String::as_str));
        let changed = half.iter().filter(|(id, number)| all[*id] != **number).count();
        assert!((1..100).contains(&changed), "{changed}");
    }

    #[test]
    fn other_values_are_refused() {
        assert!(haproxy_ids(&[Value::Integer(1)]).expect_err("not a backend").contains("needs backends"));
    }
}
