//! Rules about the source, checked from the source: which module may import which, and that no files use each other in
//! a circle.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::{Scope, Source, circles, describe};

/// Each module, and the modules it may import. Any module may import its own parts.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("model", &[]),
    ("provider", &["model", "sys"]),
    ("fleet", &["model", "provider", "sys"]),
    ("no_fleet", &["model", "provider"]),
    ("health", &["model", "sys"]),
    ("registry", &["health", "model", "provider", "sys"]),
    ("frontend", &["model", "sys"]),
    ("api", &["frontend", "model", "registry", "sys"]),
    ("config", &["api", "fleet", "frontend", "model", "provider", "registry", "sys"]),
    ("readiness", &["frontend", "model", "registry", "sys"]),
];

/// The modules that put the others together, and so may import any of them.
const COMPOSED: &[&str] = &["app", "cli", "lib"];

/// Modules and files whose functions are pure: they neither wait, nor read a clock, a file or the environment.
const PURE: &[&str] = &[
    "model",
    "registry/guard.rs",
    "registry/pool.rs",
    "registry/traffic_policy.rs",
    "frontend/plan.rs",
    "provider/ec2/filters.rs",
    "provider/nats/format.rs",
    "provider/nats/set_assembler.rs",
];

/// Modules in which circles are still to be removed.
const NOT_YET_FREE_OF_CIRCLES: &[&str] = &["api", "app", "cli", "config", "health", "model", "provider"];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let files: Vec<_> = entries.flat_map(|entry| files(&entry.expect("an entry").path())).collect();
    assert!(!files.is_empty(), "{} is empty", path.display());
    files
}

/// The module at the top of the crate that a file belongs to.
fn module_of(file: &str) -> &str {
    let top = file.split('/').next().unwrap_or(file);
    top.strip_suffix(".rs").unwrap_or(top)
}

#[test]
fn modules_import_only_what_they_may() {
    let mut wrong = Vec::new();
    for (file, named) in Source::read(&directory(), Scope::ProgramAndTests).top_modules_named() {
        let module = module_of(&file);
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(ruled, _)| *ruled == module) else {
            assert!(COMPOSED.contains(&module), "src/{file} belongs to a module without a rule in MAY_IMPORT");
            continue;
        };
        let forbidden = named.iter().filter(|name| *name != module && !allowed.contains(&name.as_str()));
        wrong.extend(forbidden.map(|name| format!("{file} imports from {name}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let uses = Source::read(&directory(), Scope::Program).uses();
    assert!(uses.values().flatten().count() > 300, "the source was not read");
    let is_known =
        |circle: &BTreeSet<&str>| circle.iter().all(|file| NOT_YET_FREE_OF_CIRCLES.contains(&module_of(file)));
    let found: Vec<_> = circles(&uses).iter().filter(|c| !is_known(c)).map(|c| describe(c, &uses)).collect();
    assert!(found.is_empty(), "{}\nMove what both sides need into a file that uses neither of them.", found.join("\n"));
}

#[test]
fn every_file_belongs_to_the_crate() {
    let source = Source::read(&directory(), Scope::ProgramAndTests);
    for file in files(&directory()).iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let path = file.strip_prefix(directory()).expect("below src").to_str().expect("a plain name");
        assert!(path == "main.rs" || source.files().contains(path), "no module declares src/{path}");
    }
}

#[test]
fn pure_code_uses_no_clock_no_files_and_no_environment() {
    for pure in PURE {
        for file in files(&directory().join(pure)) {
            let text = fs::read_to_string(&file).expect("readable");
            let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let code = code.join("\n");
            for word in ["tokio", "std::fs", "std::io", "std::process", "std::env", "SystemTime::now", "Instant::now"] {
                assert!(!code.contains(word), "{} uses {word}", file.display());
            }
        }
    }
}

#[test]
fn main_only_starts() {
    let lines = fs::read_to_string(directory().join("main.rs")).expect("readable").lines().count();
    assert!(lines < 60, "main.rs has {lines} lines");
}

/// What each of some files uses, as `from: to (names); …`.
fn uses(files: &[(&str, &str)], scope: Scope) -> Vec<String> {
    let open = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
    let line = |(file, used): (&String, &BTreeMap<String, BTreeSet<String>>)| {
        let used = used.iter().map(|(used, names)| {
            format!("{used} ({})", names.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
        });
        format!("{file}: {}", used.collect::<Vec<_>>().join("; "))
    };
    Source::of(scope, &open).uses().iter().filter(|(_, used)| !used.is_empty()).map(line).collect()
}

/// Modules in both layouts, with an item each.
const LEAVES: &[(&str, &str)] = &[
    ("a.rs", "mod inner; pub use inner::Inner; pub struct A;"),
    ("a/inner.rs", "pub struct Inner; pub fn make() -> Inner { Inner }"),
    ("b/mod.rs", "pub enum B { One } pub const LIMIT: u8 = 1; pub mod within { pub fn f() {} }"),
];

fn uses_of(text: &str, scope: Scope) -> Vec<String> {
    let root = ("lib.rs", "mod a; mod b; mod c;");
    uses(&[&[root, ("c.rs", text)], LEAVES].concat(), scope)
}

#[test]
fn each_way_to_name_an_item_is_a_use() {
    for (text, expected) in [
        ("use crate::a::A;", "a.rs (A)"),
        ("use super::{a::{self, A as Other}, b::*};", "a.rs (A)"),
        ("use crate::a::Inner;", "a/inner.rs (Inner)"),
        ("use crate::a; fn f(_: a::Inner) {}", "a/inner.rs (Inner)"),
        ("use super::b::B; fn f() -> B { B::One }", "b/mod.rs (B)"),
        ("use super::b as other; const X: u8 = other::LIMIT;", "b/mod.rs (LIMIT)"),
        ("fn f() { crate::b::within::f() }", "b/mod.rs (f)"),
        ("fn f() { println!(\"{}\", super::b::LIMIT) }", "b/mod.rs (LIMIT)"),
        ("fn f() { use crate::a::A; let _ = A; }", "a.rs (A)"),
        ("#[serde(with = \"crate::b::within::f\")] struct S;", "b/mod.rs (f)"),
        ("use crate::b::*; fn f() -> Vec<B> { vec![B::One] }", "b/mod.rs (B)"),
        ("mod inline { fn f() { super::super::b::within::f() } }", "b/mod.rs (f)"),
        ("pub use crate::a::A; fn f(_: A) {}", "a.rs (A)"),
    ] {
        assert_eq!(uses_of(text, Scope::Program), [format!("c.rs: {expected}")], "{text}");
    }
}

#[test]
fn what_names_no_item_is_no_use() {
    for text in [
        "// crate::a::A",
        "//! See [`crate::a::A`].\n/// Like crate::b::B\nfn f() {}",
        "fn f() { \"crate::a::A\"; }",
        "use crate::a;",
        "pub use crate::a::A;",
        "pub(crate) use crate::b::{B, LIMIT};",
        "use std::fmt::Write as _; use serde::Deserialize; fn f() { serde::x() }",
        "fn f(a: u8) { a.b.c::<u8>() }",
        "struct A; fn f(_: A) {}",
        "mod a { pub fn g() {} } fn f() { a::g() }",
        "pub(in crate::a) fn f() {}",
    ] {
        assert_eq!(uses_of(text, Scope::Program), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn tests_count_only_where_they_are_asked_for() {
    for text in [
        "#[cfg(test)] mod tests { use crate::a::A; }",
        "#[cfg(test)] use crate::a::A;",
        "#[cfg(test)] pub fn f() -> crate::a::A { todo!() } fn g() {}",
    ] {
        assert_eq!(uses_of(text, Scope::Program), Vec::<String>::new(), "{text}");
        assert_eq!(uses_of(text, Scope::ProgramAndTests), ["c.rs: a.rs (A)"], "{text}");
    }
    for text in ["#[cfg(not(test))] use crate::a::A;", "#[cfg(feature = \"x\")] use crate::a::A;"] {
        assert_eq!(uses_of(text, Scope::Program), ["c.rs: a.rs (A)"], "{text}");
    }
    let apart = [("lib.rs", "mod a; #[cfg(test)] #[path = \"a_tests.rs\"] mod tests;"), ("a.rs", "pub struct A;")];
    let apart = [&apart[..], &[("a_tests.rs", "use super::a::A;")]].concat();
    assert_eq!(uses(&apart, Scope::Program), Vec::<String>::new());
    assert_eq!(uses(&apart, Scope::ProgramAndTests), ["a_tests.rs: a.rs (A)"]);
}

#[test]
#[should_panic(expected = "c.rs names crate::a::Missing, which is not found")]
fn a_path_of_the_crate_that_is_not_found_is_a_failure() {
    uses_of("use crate::a::Missing;", Scope::Program);
}

#[test]
fn circles_are_found_and_described() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "pub struct A; use crate::b::B;"),
        ("b.rs", "pub struct B; use crate::c::{C, D};"),
        ("c.rs", "pub struct C; pub struct D; use crate::a::A;"),
        ("d.rs", "pub struct D; use crate::a::A;"),
    ];
    let open = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
    let uses = Source::of(Scope::Program, &open).uses();
    let found = circles(&uses);
    let described: Vec<_> = found.iter().map(|circle| describe(circle, &uses)).collect();
    let expected = "3 files use each other in a circle:\n    a.rs uses b.rs: B\n    b.rs uses c.rs: C, D\n    \
                    c.rs uses a.rs: A";
    assert_eq!(described, [expected]);
}

#[test]
fn the_modules_named_are_those_written_and_those_meant() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "pub use crate::b::B;"),
        ("b.rs", "pub struct B;"),
        ("c.rs", "use crate::a::B;"),
    ];
    let open = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
    let named = Source::of(Scope::Program, &open).top_modules_named();
    assert_eq!(named["c.rs"], ["a", "b"].map(str::to_owned).into());
}
