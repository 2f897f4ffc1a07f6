//! Rules about the source, checked from the source: which module may import which, and that no files use each other in
//! a circle.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use source::{Scope, Source, circles, describe};

/// Each module, and the modules it may import. Any module may import its own parts.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("sys", &["units"]),
    ("model", &["units"]),
    ("status", &["model", "sys"]),
    ("provider", &["model", "status", "sys", "units"]),
    ("fleet", &["model", "provider", "status", "sys", "units"]),
    ("health", &["model", "sys", "units"]),
    ("registry", &["health", "model", "provider", "status", "sys", "units"]),
    ("frontend", &["model", "status", "sys", "units"]),
    ("api", &["model", "registry", "status", "sys", "units"]),
    ("config", &["api", "fleet", "frontend", "model", "provider", "registry", "sys", "units"]),
    ("readiness", &["model", "registry", "status", "sys", "units"]),
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

/// Whatever holds up the thread that calls it.
const BLOCKING: &[&str] = &["std::fs", "procfs::", "std::process::Command", "thread::sleep", "run_blocking"];

/// The modules and files that may block, and why no request waits for it.
const MAY_BLOCK: &[(&str, &str)] = &[
    ("app/bootstrap.rs", "there is no runtime yet"),
    ("cli", "a command answers no requests"),
    ("config", "read before the runtime starts, and later on a blocking thread"),
    ("frontend", "each frontend's worker has a thread of its own"),
    ("provider/file.rs", "on a blocking thread"),
    ("registry", "the registry has a thread of its own"),
    ("sys", "functions that block say so"),
];

/// Statics of `sys` whose content changes, and why each is no handle that is passed in.
const STATICS: &[(&str, &str)] = &[("sys/systemd.rs", "the process has one service manager, named by its environment")];

/// The source, read once for all tests.
static PROGRAM: LazyLock<Source> = LazyLock::new(|| Source::read(&directory(), Scope::Program));
static PROGRAM_AND_TESTS: LazyLock<Source> = LazyLock::new(|| Source::read(&directory(), Scope::ProgramAndTests));

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
    for (file, named) in PROGRAM_AND_TESTS.top_modules_named() {
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
    let uses = PROGRAM.uses();
    assert!(uses.values().flatten().count() > 300, "the source was not read");
    let found: Vec<_> = circles(&uses).iter().map(|circle| describe(circle, &uses)).collect();
    assert!(found.is_empty(), "{}\nMove what both sides need into a file that uses neither of them.", found.join("\n"));
}

#[test]
fn every_file_belongs_to_the_crate() {
    let known = PROGRAM_AND_TESTS.files();
    for file in files(&directory()).iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let path = file.strip_prefix(directory()).expect("below src").to_str().expect("a plain name");
        assert!(path == "main.rs" || known.contains(path), "no module declares src/{path}");
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

/// The types of providers, as the table in `src/provider/mod.rs` lists them.
fn provider_types() -> Vec<String> {
    let text = fs::read_to_string(directory().join("provider/mod.rs")).expect("readable");
    let (_, table) = text.split_once("\ntypes! {").expect("the table");
    let (table, _) = table.split_once("\n}").expect("its end");
    let lines = table.lines().map(str::trim).filter(|line| !line.starts_with("#["));
    lines.filter_map(|line| line.strip_suffix(',').map(str::to_owned)).collect()
}

/// Types whose name is an ordinary word or a protocol's as well: of those, only the word as a whole string counts.
const ORDINARY: &[&str] = &["fixed", "file", "exec", "http"];

/// Files outside of a provider's own that may name it, and why.
const MAY_NAME_A_PROVIDER: &[(&str, &str, &str)] = &[
    ("nats", "fleet/", "publishes what this provider reads, over the same connection"),
    ("ec2", "config/schema.rs", "the reference page is compared where all types are built"),
    ("nats", "config/schema.rs", "the reference page is compared where all types are built"),
    ("nats", "lib.rs", "builds that, or leaves it out"),
    ("nats", "cli/fleet.rs", "says what to configure for a fleet"),
    ("file", "cli/demo.rs", "writes a configuration, with a file of backends"),
    ("fixed", "frontend/runtime/api.rs", "the name of a field in apply records on disk"),
    ("http", "config/health.rs", "the protocol of a health check"),
    ("http", "provider/ec2/", "the scheme of a URL"),
    ("http", "sys/https/url.rs", "the scheme of a URL"),
];

/// Whether `file` is the provider's own, holds the table, or has a reason to name it.
fn may_name(file: &str, kind: &str) -> bool {
    let own = [format!("provider/{kind}.rs"), format!("provider/{kind}/")];
    file == "provider/mod.rs"
        || own.iter().any(|own| file.starts_with(own.as_str()))
        || MAY_NAME_A_PROVIDER.iter().any(|(named, place, _)| *named == kind && file.starts_with(place))
}

/// The code of a file without its tests and comments.
fn program(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Whether a word stands in a text by itself.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

#[test]
fn a_provider_is_named_by_its_own_files_and_the_table_alone() {
    let types = provider_types();
    assert!(types.len() >= 6 && types.contains(&"ec2".to_owned()), "the table was not read: {types:?}");
    let mut wrong = Vec::new();
    for (file, used) in Source::read(&directory(), Scope::Program).uses() {
        for kind in types.iter().filter(|kind| !may_name(&file, kind)) {
            let own = |used: &&String| {
                used.starts_with(&format!("provider/{kind}.")) || used.starts_with(&format!("provider/{kind}/"))
            };
            wrong.extend(used.keys().filter(own).map(|used| format!("{file} uses {used}")));
        }
    }
    // Without the files of tests.
    for file in Source::read(&directory(), Scope::Program).files() {
        let code = program(&fs::read_to_string(directory().join(file)).expect("readable"));
        for kind in types.iter().filter(|kind| !may_name(file, kind)) {
            let is_named = code.contains(&format!("\"{kind}\""))
                || code.contains(&format!("provider::{kind}::"))
                || (!ORDINARY.contains(&kind.as_str()) && has_word(&code.to_lowercase(), kind));
            if is_named {
                wrong.push(format!("{file} names {kind}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_exception_is_still_needed() {
    for (kind, place, _) in MAY_NAME_A_PROVIDER {
        let within =
            |path: &PathBuf| path.strip_prefix(directory()).is_ok_and(|file| file.to_string_lossy().starts_with(place));
        let named = files(&directory()).iter().filter(|path| within(path)).any(|path| {
            let code = program(&fs::read_to_string(path).expect("readable"));
            code.contains(&format!("\"{kind}\"")) || (!ORDINARY.contains(kind) && has_word(&code.to_lowercase(), kind))
        });
        assert!(named, "{place} does not name {kind} any more");
    }
}

/// The program's code in each file below `src`.
fn program_files() -> Vec<(String, String)> {
    let is_program = |path: &PathBuf| !path.to_string_lossy().ends_with("tests.rs");
    let code = |path: PathBuf| {
        let code = program(&fs::read_to_string(&path).expect("readable"));
        (path.strip_prefix(directory()).expect("below src").to_str().expect("a plain name").to_owned(), code)
    };
    files(&directory()).into_iter().filter(is_program).map(code).collect()
}

#[test]
fn nothing_blocks_on_a_thread_that_answers() {
    let program = program_files();
    let mut wrong = Vec::new();
    for (file, code) in &program {
        // It keeps the other tasks of its thread running, but not those that wait together with it in one task.
        let mut words = vec!["block_in_place"];
        if !MAY_BLOCK.iter().any(|(allowed, _)| file == allowed || file.starts_with(&format!("{allowed}/"))) {
            words.extend(BLOCKING);
        }
        wrong.extend(words.iter().filter(|word| code.contains(*word)).map(|word| format!("{file} uses {word}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (allowed, reason) in MAY_BLOCK {
        let mut of_it = program.iter().filter(|(file, _)| file.starts_with(allowed));
        assert!(of_it.any(|(_, code)| BLOCKING.iter().any(|word| code.contains(word))), "{allowed} ({reason})");
    }
    let app = program.iter().filter(|(file, _)| file.starts_with("app/"));
    let threads = app.map(|(_, code)| code.matches(".spawn_on_thread(").count()).sum::<usize>();
    assert_eq!(threads, 2, "the registry and the workers have threads of their own");
}

#[test]
fn no_handle_is_hidden_in_a_static() {
    for (file, code) in program_files().iter().filter(|(file, _)| file.starts_with("sys/")) {
        let is_expected = STATICS.iter().any(|(expected, _)| expected == file);
        let changes = code.lines().filter(|line| line.trim_start().trim_start_matches("pub ").starts_with("static "));
        let changes = changes.filter(|line| ["Mutex", "Lock", "Atomic", "Cell"].iter().any(|kind| line.contains(kind)));
        assert_eq!(changes.count() > 0, is_expected, "{file}: pass a handle in instead, or give the reason in STATICS");
    }
}

/// Where `cfg(feature = …)` may stand: before a module, its re-export, or a line of a table.
#[test]
fn features_are_chosen_at_the_boundaries_of_modules_alone() {
    let mut found = Vec::new();
    for path in files(&directory()) {
        let text = fs::read_to_string(&path).expect("readable");
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for (line, next) in lines.iter().zip(lines.iter().skip(1)) {
            let gate = (line.contains("cfg") && line.contains("feature =")) && !line.starts_with("//");
            let is_boundary = line.starts_with("#[cfg(") && line.ends_with(")]") && {
                let declared = next.strip_prefix("pub ").unwrap_or(next);
                (declared.starts_with("mod ") || declared.starts_with("use ")) && declared.ends_with(';')
                    || (path.ends_with("provider/mod.rs") && next.ends_with(',') && !next.contains(' '))
            };
            if gate && !is_boundary {
                found.push(format!("{}: {line} {next}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
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
