//! Reads which file of a crate uses which, from the names in its code.
//!
//! A file uses another if its code names an item that is defined there: by `use`, or by a path such as `super::x::f()`.
//! A re-export is followed to the definition, so that its file is used and the file that hands the name on is not.
//! For the same reason `pub use` alone is no use: a parent that declares and re-exports its children depends on none of
//! them, unless its own code names what it re-exports. `mod x;`, and an import of a module by itself, are no use either:
//! what counts is what is then named through it. Comments and documentation do not count.
//!
//! Methods and fields are not seen, since finding them would need the compiler's types.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Which code is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All but what `#[cfg(test)]` stands before.
    Program,
    ProgramAndTests,
}

/// For each file, the files it uses, each with the names by which it does.
pub type Uses = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The modules of a crate, by their paths: `["sys", "http"]`.
#[derive(Debug)]
pub struct Source {
    scope: Scope,
    modules: BTreeMap<Vec<String>, Module>,
}

#[derive(Debug, Default)]
struct Module {
    file: String,
    /// The items defined at its top.
    items: BTreeSet<String>,
    /// A name may be imported more than once: in different functions, or for different features.
    imports: Vec<Import>,
    /// The paths of two or more names that its code holds.
    paths: BTreeSet<Vec<String>>,
    /// The names that stand alone.
    names: BTreeSet<String>,
}

#[derive(Debug)]
struct Import {
    path: Vec<String>,
    /// `*` for all names.
    name: String,
    is_public: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Module(Vec<String>),
    /// An item of this module.
    Item(Vec<String>, String),
}

/// What an attribute says of the item after it.
#[derive(Debug, Default)]
struct Attributes {
    is_test: bool,
    /// `#[path = "…"]`
    path: Option<String>,
}

impl Source {
    /// Reads the crate whose root is `lib.rs` in `directory`.
    pub fn read(directory: &Path, scope: Scope) -> Self {
        Self::of(scope, &|path| std::fs::read_to_string(directory.join(path)).ok())
    }

    /// Reads the crate of the files that `open` knows by their paths.
    pub fn of(scope: Scope, open: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut source = Self { scope, modules: BTreeMap::new() };
        source.read_file("lib.rs", "", Vec::new(), open);
        source
    }

    /// The files that were reached from the root.
    pub fn files(&self) -> BTreeSet<&str> {
        self.modules.values().map(|module| module.file.as_str()).collect()
    }

    /// `children` is the directory in which the module's own modules are.
    fn read_file(&mut self, file: &str, children: &str, path: Vec<String>, open: &dyn Fn(&str) -> Option<String>) {
        let text = open(file).unwrap_or_else(|| panic!("{file} cannot be read"));
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
        self.read_module(tokens, file, children, path, open);
    }

    fn read_module(
        &mut self,
        tokens: TokenStream,
        file: &str,
        children: &str,
        path: Vec<String>,
        open: &dyn Fn(&str) -> Option<String>,
    ) {
        let module = Module { file: file.to_owned(), ..Module::default() };
        let mut reader = Reader { scope: self.scope, module, declared: Vec::new() };
        reader.read(tokens, true);
        let Reader { module, declared, .. } = reader;
        self.modules.insert(path.clone(), module);
        for Declared { name, body, attributes } in declared {
            let inner = [path.as_slice(), std::slice::from_ref(&name)].concat();
            let directory = format!("{children}{name}/");
            if let Some(body) = body {
                self.read_module(body, file, &directory, inner, open);
            } else if let Some(explicit) = attributes.path {
                let beside = file.rsplit_once('/').map_or("", |(parent, _)| &file[..=parent.len()]);
                self.read_file(&format!("{beside}{explicit}"), &directory, inner, open);
            } else {
                let flat = format!("{children}{name}.rs");
                let file = if open(&flat).is_some() { flat } else { format!("{directory}mod.rs") };
                self.read_file(&file, &directory, inner, open);
            }
        }
    }

    /// Which file uses which.
    pub fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (path, module) in &self.modules {
            let used = uses.entry(module.file.clone()).or_default();
            for named in module.named() {
                let target = self.resolve(path, named, 0);
                let is_own = matches!(named[0].as_str(), "crate" | "self" | "super");
                assert!(target.is_some() || !is_own, "{} names {}, which is not found", module.file, named.join("::"));
                if let Some(Target::Item(definer, item)) = target {
                    let file = &self.modules[&definer].file;
                    if *file != module.file {
                        used.entry(file.clone()).or_default().insert(item);
                    }
                }
            }
        }
        uses
    }

    /// For each file, the modules at the top of the crate that it names, by whatever path.
    pub fn top_modules_named(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut all = BTreeMap::<_, BTreeSet<_>>::new();
        for (path, module) in &self.modules {
            let named = all.entry(module.file.clone()).or_default();
            for written in module.imports.iter().map(|import| &import.path).chain(&module.paths) {
                named.extend(absolute(path, written).and_then(|absolute| absolute.first().cloned()));
                let resolved = self.resolve(path, written, 0);
                let (Some(Target::Module(definer)) | Some(Target::Item(definer, _))) = resolved else { continue };
                named.extend(definer.first().cloned());
            }
        }
        all
    }

    /// What a path means in a module. `None`: something outside of the crate, or a local name.
    fn resolve(&self, module: &[String], path: &[String], depth: usize) -> Option<Target> {
        let (mut target, rest) = match absolute(module, path) {
            Some(absolute) => {
                // `crate` alone, or modules and then names in them.
                let known = (0..=absolute.len()).rev().find(|len| self.modules.contains_key(&absolute[..*len]))?;
                (Target::Module(absolute[..known].to_vec()), absolute[known..].to_vec())
            }
            None => (self.look_up(module, path.first()?, depth)?, path[1..].to_vec()),
        };
        for name in &rest {
            match &target {
                Target::Module(module) => target = self.look_up(module, name, depth)?,
                // A variant, or a function of a type.
                Target::Item(..) => break,
            }
        }
        Some(target)
    }

    /// What a name means in a module.
    fn look_up(&self, module: &[String], name: &str, depth: usize) -> Option<Target> {
        // An import may name itself (`use serde;`), and globs each other.
        const DEEPEST: usize = 16;
        let here = self.modules.get(module).filter(|_| depth < DEEPEST)?;
        let child = [module, &[name.to_owned()]].concat();
        if self.modules.contains_key(&child) {
            return Some(Target::Module(child));
        }
        if here.items.contains(name) {
            return Some(Target::Item(module.to_vec(), name.to_owned()));
        }
        let named = here.imports.iter().filter(|import| import.name == name);
        let found = named.into_iter().find_map(|import| self.resolve(module, &import.path, depth + 1));
        let globs = here.imports.iter().filter(|import| import.name == "*");
        found.or_else(|| {
            globs.into_iter().find_map(|glob| match self.resolve(module, &glob.path, depth + 1)? {
                Target::Module(inner) => self.look_up(&inner, name, depth + 1),
                Target::Item(..) => None,
            })
        })
    }
}

/// A path that begins with `crate`, `self` or `super`, from the crate's root.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let (mut base, mut rest) = match path.first()?.as_str() {
        "crate" => (Vec::new(), &path[1..]),
        "self" => (module.to_vec(), &path[1..]),
        "super" => (module.to_vec(), path),
        _ => return None,
    };
    while let Some(("super", after)) = rest.split_first().map(|(first, after)| (first.as_str(), after)) {
        base.pop();
        rest = after;
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// `mod name;` or `mod name { … }`.
#[derive(Debug)]
struct Declared {
    name: String,
    body: Option<TokenStream>,
    attributes: Attributes,
}

impl Module {
    /// The paths that its code uses, as they are written.
    fn named(&self) -> impl Iterator<Item = &[String]> {
        let uses = |name: &str| self.names.contains(name) || self.paths.iter().any(|path| path[0] == name);
        let imports = self.imports.iter().filter(move |import| !import.is_public || uses(&import.name));
        imports.map(|import| import.path.as_slice()).chain(self.paths.iter().map(Vec::as_slice))
    }
}

/// Reads the code of one module.
struct Reader {
    scope: Scope,
    module: Module,
    declared: Vec<Declared>,
}

impl Reader {
    /// Takes what the code names. `is_top`: it is the module's own, not a function's body or the like.
    fn read(&mut self, tokens: TokenStream, is_top: bool) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut attributes = Attributes::default();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            if let Some((group, len)) = attribute(&tokens[at..]) {
                self.read_attribute(group, &mut attributes);
                at += len;
                continue;
            }
            if attributes.is_test && self.scope == Scope::Program {
                at += length_of_item(&tokens[at..]);
                attributes = Attributes::default();
                continue;
            }
            at += match token {
                // The attributes before it belong to what comes after it.
                TokenTree::Ident(word) if word == "pub" => {
                    let is_restricted = matches!(tokens.get(at + 1), Some(TokenTree::Group(_)));
                    1 + usize::from(is_restricted)
                }
                TokenTree::Ident(_) => self.read_word(&tokens, at, is_top, std::mem::take(&mut attributes)),
                TokenTree::Group(group) => {
                    // A macro such as `thread_local! { … }` defines items, too.
                    let is_called = at.checked_sub(1).is_some_and(|before| is_mark(&tokens[before], '!'));
                    self.read(group.stream(), is_top && is_called && group.delimiter() == Delimiter::Brace);
                    1
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => 1,
            };
        }
    }

    /// Takes an identifier and what belongs to it; returns of how many tokens that consists.
    fn read_word(&mut self, tokens: &[TokenTree], at: usize, is_top: bool, attributes: Attributes) -> usize {
        match (tokens[at].to_string().as_str(), tokens.get(at + 1), tokens.get(at + 2)) {
            ("mod", Some(TokenTree::Ident(name)), Some(TokenTree::Punct(_))) => {
                self.declared.push(Declared { name: name.to_string(), body: None, attributes });
                3
            }
            ("mod", Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) => {
                self.declared.push(Declared { name: name.to_string(), body: Some(body.stream()), attributes });
                3
            }
            ("use", Some(_), _) => {
                let before = |n: usize| at.checked_sub(n).map(|at| &tokens[at]);
                let is_restricted = matches!(before(1), Some(TokenTree::Group(_)));
                let is_public = before(if is_restricted { 2 } else { 1 }).is_some_and(|token| is_word(token, "pub"));
                let len = tokens[at..].iter().position(|token| is_mark(token, ';')).unwrap_or(tokens.len() - at);
                read_use(&tokens[at + 1..at + len], &[], is_public, &mut self.module.imports);
                len
            }
            _ => self.read_path(tokens, at, is_top),
        }
    }

    /// Takes a name, defined or used, or a path; returns of how many tokens it consists.
    fn read_path(&mut self, tokens: &[TokenTree], at: usize, is_top: bool) -> usize {
        const DEFINES: [&str; 8] = ["const", "enum", "fn", "static", "struct", "trait", "type", "union"];
        let before = |n: usize| at.checked_sub(n).map(|at| &tokens[at]);
        let mut path = vec![tokens[at].to_string()];
        let is_macro =
            before(1).is_some_and(|t| is_mark(t, '!')) && before(2).is_some_and(|t| is_word(t, "macro_rules"));
        let is_defined = before(1).is_some_and(|token| DEFINES.iter().any(|keyword| is_word(token, keyword)));
        if is_top && (is_defined || is_macro) {
            self.module.items.extend(path);
            return 1;
        }
        while let [colon, other, TokenTree::Ident(name), ..] = &tokens[at + path.len() * 3 - 2..]
            && is_mark(colon, ':')
            && is_mark(other, ':')
        {
            path.push(name.to_string());
        }
        let len = path.len() * 3 - 2;
        let is = |n: usize, mark: char| before(n).is_some_and(|token| is_mark(token, mark));
        // Behind `::` goes on what generics have interrupted, behind a single `.` stands a field or a method.
        let (goes_on, is_member) = (is(1, ':') && is(2, ':'), is(1, '.') && !is(2, '.'));
        if path.len() > 1 && !goes_on {
            self.module.paths.insert(path);
        } else if !goes_on && !is_member {
            self.module.names.extend(path);
        }
        len
    }

    /// Takes the paths that an attribute names, some of them in texts: `#[serde(with = "super::x")]`.
    fn read_attribute(&mut self, group: &Group, attributes: &mut Attributes) {
        let tokens: Vec<_> = group.stream().into_iter().collect();
        let words: Vec<_> = words(group.stream());
        let has = |word: &str| words.iter().any(|found| found == word);
        match words.first().map(String::as_str) {
            Some("doc") => return,
            Some("cfg") => attributes.is_test |= has("test") && !has("not"),
            Some("path") => attributes.path = tokens.last().map(|text| text.to_string().trim_matches('"').to_owned()),
            _ => {}
        }
        self.read(group.stream(), false);
        for text in literals(group.stream()).into_iter().filter(|text| text.starts_with('"') && text.contains("::")) {
            if let Ok(tokens) = text.trim_matches('"').parse() {
                self.read(tokens, false);
            }
        }
    }
}

/// An attribute's content, and of how many tokens it consists.
fn attribute(tokens: &[TokenTree]) -> Option<(&Group, usize)> {
    match tokens {
        [hash, TokenTree::Group(group), ..] if is_mark(hash, '#') => Some((group, 2)),
        [hash, not, TokenTree::Group(group), ..] if is_mark(hash, '#') && is_mark(not, '!') => Some((group, 3)),
        _ => None,
    }
    .filter(|(group, _)| group.delimiter() == Delimiter::Bracket)
}

/// Of how many tokens an item, a statement or a field consists.
fn length_of_item(tokens: &[TokenTree]) -> usize {
    let ends = |token: &TokenTree| {
        is_mark(token, ';') || matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
    };
    let end = tokens.iter().position(ends).map_or(tokens.len(), |end| end + 1);
    end + usize::from(tokens.get(end).is_some_and(|token| is_mark(token, ';')))
}

/// Takes the imports of a tree: `a::{b, c as d, e::*}`.
fn read_use(tokens: &[TokenTree], base: &[String], is_public: bool, imports: &mut Vec<Import>) {
    let (mut path, mut alias) = (base.to_vec(), None);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                for branch in inner.split(|token| is_mark(token, ',')).filter(|branch| !branch.is_empty()) {
                    read_use(branch, &path, is_public, imports);
                }
                return;
            }
            TokenTree::Punct(mark) if mark.as_char() == '*' => {
                imports.push(Import { path, name: "*".to_owned(), is_public });
                return;
            }
            TokenTree::Ident(word) if word == "as" => alias = tokens.get(at + 1).map(ToString::to_string),
            TokenTree::Ident(word) if alias.is_none() && !(word == "self" && at == 0 && !base.is_empty()) => {
                path.push(word.to_string());
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    let Some(name) = alias.or_else(|| path.last().cloned()) else { return };
    imports.push(Import { path, name, is_public });
}

fn is_mark(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

/// All identifiers, those in groups included.
fn words(tokens: TokenStream) -> Vec<String> {
    let words = tokens.into_iter().flat_map(|token| match token {
        TokenTree::Ident(word) => vec![word.to_string()],
        TokenTree::Group(group) => words(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => Vec::new(),
    });
    words.collect()
}

fn literals(tokens: TokenStream) -> Vec<String> {
    let literals = tokens.into_iter().flat_map(|token| match token {
        TokenTree::Literal(literal) => vec![literal.to_string()],
        TokenTree::Group(group) => literals(group.stream()),
        TokenTree::Punct(_) | TokenTree::Ident(_) => Vec::new(),
    });
    literals.collect()
}

/// The circles: each a set of files of which every one uses, directly or not, every other.
pub fn circles(uses: &Uses) -> Vec<BTreeSet<&str>> {
    let reached = |from: &str| {
        let (mut reached, mut waiting) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(file) = waiting.pop() {
            for used in uses.get(&file).into_iter().flat_map(BTreeMap::keys) {
                if reached.insert(used.clone()) {
                    waiting.push(used.clone());
                }
            }
        }
        reached
    };
    let reached: BTreeMap<_, _> = uses.keys().map(|file| (file.as_str(), reached(file))).collect();
    let with = |file: &str| {
        let mutual = |other: &&str| reached[file].contains(*other) && reached[other].contains(file);
        reached.keys().copied().filter(mutual).collect::<BTreeSet<_>>()
    };
    let circles: BTreeSet<_> = reached.keys().map(|file| with(file)).filter(|circle| circle.len() > 1).collect();
    circles.into_iter().collect()
}

/// A circle for people: which of its files uses which other, and by what names.
pub fn describe(circle: &BTreeSet<&str>, uses: &Uses) -> String {
    let mut lines = vec![format!("{} files use each other in a circle:", circle.len())];
    for file in circle {
        for (used, names) in uses[*file].iter().filter(|(used, _)| circle.contains(used.as_str())) {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            lines.push(format!("    {file} uses {used}: {}", names.join(", ")));
        }
    }
    lines.join("\n")
}
