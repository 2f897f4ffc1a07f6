use proptest::prelude::*;

use super::*;

fn instance(n: u32, tag: &str) -> Instance {
    let mut instance = Instance::new(format!("i-{n:08x}"));
    instance.private_ipv4 = Some(n.into());
    instance.tags.insert("Role".to_owned(), tag.to_owned());
    instance
}

fn fleet(n: u32) -> Vec<Instance> {
    (0..n).map(|n| instance(n, "web")).collect()
}

fn stamp() -> Stamp {
    Stamp { format: FORMAT, fleet: "shop".to_owned() }
}

fn manifest(instances: usize, chunks: &[Chunk]) -> Manifest {
    Manifest {
        stamp: stamp(),
        fence: 7,
        position: Position { term: 7, number: 1 },
        observed: Some(Timestamp::UNIX_EPOCH),
        instances,
        chunks: chunks.iter().map(|chunk| chunk.hash.clone()).collect(),
    }
}

fn joined(manifest: &Manifest, chunks: &[Chunk]) -> Result<Vec<Instance>, Error> {
    let opened: Vec<_> = chunks.iter().map(|c| open(&c.hash, &c.bytes)).collect::<Result<_, _>>()?;
    join(manifest, opened.iter().map(Vec::as_slice))
}

#[test]
fn a_change_of_one_instance_moves_one_chunk() {
    let before = fleet(10_000);
    let mut after = before.clone();
    after[5000].tags.insert("Role".to_owned(), "db".to_owned());
    after.push(instance(77_777, "new"));
    after.remove(123);
    let [before, after] = [before, after].map(|set| split(set.iter().collect(), MAX_CHUNK).unwrap());
    let known: HashSet<_> = before.iter().map(|chunk| &chunk.hash).collect();
    let moved = after.iter().filter(|chunk| !known.contains(&chunk.hash)).count();
    // An instance that ends a chunk may join two when it goes.
    assert!((1..=3).contains(&moved), "{moved} of {}", after.len());
    assert!(after.len() > 100, "{}", after.len());
}

#[test]
fn what_does_not_fit_is_named() {
    let big = instance(1, &"x".repeat(5000));
    let error = split(vec![&big], 4096).unwrap_err().to_string();
    assert!(error.contains("i-00000001") && error.contains("4096") && error.contains("max_payload"), "{error}");
}

#[test]
fn half_a_set_is_none() {
    let set = fleet(1000);
    let chunks = split(set.iter().collect(), MAX_CHUNK).unwrap();
    let whole = manifest(set.len(), &chunks);
    assert_eq!(joined(&whole, &chunks).unwrap(), set);
    assert!(matches!(joined(&whole, &chunks[1..]), Err(Error::NotWhole { .. })));
    let mut double = chunks.clone();
    double[1] = double[0].clone();
    assert!(matches!(joined(&manifest(2, &[]), &double[..2]), Err(Error::NotWhole { .. })));
    let mut altered = chunks;
    altered[0].bytes[20] ^= 1;
    assert!(matches!(joined(&whole, &altered), Err(Error::Altered { .. })));
}

#[test]
fn what_is_not_ours_is_told_apart() {
    let good = manifest(0, &[]);
    let read = |text: &[u8]| decode::<Manifest>("p.prod.set", text, "shop");
    assert_eq!(read(&encode(&good)).unwrap(), good);
    for garbage in [&b""[..], b"null", b"[1]", b"\xff\x00", b"{}", b"{\"format\":1,\"fleet\":\"shop\"}"] {
        assert!(matches!(read(garbage), Err(Error::Garbage { .. })), "{garbage:?}");
    }
    assert!(matches!(read(b"{\"format\":2}"), Err(Error::OtherFormat { found: 2, .. })));
    let other = decode::<Manifest>("p.prod.set", &encode(&good), "else").unwrap_err().to_string();
    assert!(other.contains("\"shop\"") && other.contains("\"else\"") && other.contains("p.prod.set"), "{other}");
}

#[test]
fn a_dotted_name_is_one_level() {
    let [dotted, plain] = ["a.b", "a"].map(|name| name.parse().unwrap());
    assert_eq!(set_key(&dotted), "p.a=b.set");
    assert_eq!(watch_key(&plain), "p.a.*");
}

proptest! {
    #[test]
    fn what_is_split_joins_again_and_equal_sets_split_equally(ids in prop::collection::btree_set(0u32..100_000, 0..300)) {
        let set: Vec<_> = ids.iter().map(|n| instance(*n, "ä\"\\\u{0}")).collect();
        let chunks = split(set.iter().collect(), 4096).unwrap();
        prop_assert_eq!(&split(set.iter().rev().collect(), 4096).unwrap(), &chunks);
        prop_assert!(chunks.iter().all(|chunk| chunk.bytes.len() <= 4096));
        prop_assert_eq!(joined(&manifest(set.len(), &chunks), &chunks).unwrap(), set);
    }
}
