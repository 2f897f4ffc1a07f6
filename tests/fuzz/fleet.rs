//! Mutated values of a fleet's bucket: a whole set of the fleet's own, or an error; and whatever set that is can be
//! selected from, served and rendered.

use elasticd::provider::nats::format::{self, Heartbeat, Leader, Manifest, Position};
use elasticd::provider::nats::set_assembler::{Offer, SetAssembler};
use sha2::{Digest, Sha256};

use crate::payloads::Chain;
use crate::{for_a_while, mutated};

const VALUES: &[&str] = &[
    r#"{"format":1,"fleet":"shop","fence":7,"position":{"term":7,"number":1},"observed":"2024-05-01T12:00:00Z","instances":1,"chunks":["HASH"]}"#,
    r#"{"format":1,"fleet":"shop","fence":8,"position":{"term":8,"number":2},"observed":"2024-05-01T12:00:00Z","instances":0,"chunks":[]}"#,
    r#"{"format":1,"fleet":"shop","fence":7,"position":{"term":7,"number":1},"observed":"2024-05-01T12:00:01Z","host":"h","since":"2024-05-01T11:00:00Z","readers":3,"every_ms":5000,"count":9,"error":null}"#,
    r#"{"format":1,"fleet":"shop","term":7,"id":"x","host":"h","since":"2024-05-01T11:00:00Z","renewals":4,"released":false}"#,
    r#"{"format":2,"fleet":"shop"}"#,
    r#"{"format":1,"fleet":"other"}"#,
];

const CHUNKS: &[&str] = &[
    r#"[{"id":"i-1","private_ipv4":"10.0.0.1","port":80,"weight":3,"zone":"a","launched":"2024-05-01T12:00:00Z","tags":{"Role":"web","Port":"8080"}}]"#,
    r#"[{"id":"i-2","ipv6":"2001:db8::1","state":"stopped","availability":"ready","instance_type":"m7g.large","tags":{}}]"#,
    "[]",
];

const TOKENS: &[&str] = &[
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "1e30",
    "null",
    "\"\"",
    "{}",
    "[[[[[[[[",
    "\"-009999-01-01T00:00:00Z\"",
    "\"9999-12-31T23:59:59Z\"",
    "\\u0000",
    "\\ud800",
    "\0",
    "\"format\":1,",
    "HASH",
    "65536",
    "é",
];

#[test]
fn whatever_lies_in_a_fleets_bucket() {
    let mut chain = Chain::new("[providers.p]\ntype = 'fixed'\ninstances = []\n");
    let mut assembler = SetAssembler::new(Position::default());
    for_a_while("fleets", |random| {
        let chunk = match random.bool() {
            true => random.choice(CHUNKS).expect("some").as_bytes().to_vec(),
            false => mutated(random, CHUNKS, TOKENS),
        };
        let hash: String = Sha256::digest(&chunk).iter().map(|byte| format!("{byte:02x}")).collect();
        let value = mutated(random, VALUES, TOKENS);
        let value = String::from_utf8_lossy(&value).replace("HASH", &hash).into_bytes();
        for error in [
            format::decode::<Leader>("leader", &value, "shop").err(),
            format::decode::<Heartbeat>("heartbeat", &value, "shop").map(|heartbeat| assembler.hear(heartbeat)).err(),
        ] {
            assert!(error.is_none_or(|error| !error.to_string().is_empty()));
        }
        let taken = format::decode::<Manifest>("set", &value, "shop").and_then(|manifest| {
            let (floor, offer) = (assembler.floor(), assembler.offer(&manifest));
            let Offer::Missing(missing) = offer else { return Ok(false) };
            assert!(manifest.position >= floor, "it never goes back");
            let fetched: Vec<_> = missing.into_iter().map(|hash| (hash, chunk.clone())).collect();
            assembler.take(&manifest, &fetched)?;
            assert_eq!(assembler.set().map(|set| set.len()), Some(manifest.instances));
            Ok(true)
        });
        if random.u8(0..4) == 0 || assembler.floor() > (Position { term: 8, number: 2 }) {
            assembler = SetAssembler::new(Position::default());
        }
        chain.takes(taken.map(|new| if new { assembler.set().map(|set| set.to_vec()) } else { None }));
    });
    chain.conclude("fleets");
}
