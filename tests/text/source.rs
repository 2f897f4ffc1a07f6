//! The texts in a source file: log events, error templates and other sentences, without comments, tests, and what only
//! a developer sees (`panic!`, `expect`).

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The texts of one file.
#[derive(Debug, Default)]
pub struct Texts {
    pub events: Vec<Event>,
    /// The arguments of `#[error("…")]`.
    pub errors: Vec<String>,
    /// Other literals of at least three words.
    pub sentences: Vec<String>,
}

/// One log event.
#[derive(Debug)]
pub struct Event {
    pub level: String,
    /// `None`: the sentence is not a literal.
    pub sentence: Option<String>,
    pub fields: Vec<String>,
}

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// Macros and methods whose texts only developers see.
const FOR_DEVELOPERS: &[&str] =
    &["assert", "assert_eq", "assert_ne", "debug_assert", "expect", "expect_err", "panic", "unreachable", "todo"];

/// All source files but tests, with their paths relative to `src`, in order.
pub fn files() -> Vec<(String, PathBuf)> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&source, &mut found);
    let relative = |path: PathBuf| {
        let name = path.strip_prefix(&source).expect("inside").display().to_string();
        (name, path)
    };
    let mut files: Vec<_> = found.into_iter().map(relative).collect();
    files.retain(|(name, _)| !name.ends_with("tests.rs") && !name.contains("/tests/"));
    files.sort();
    files
}

/// The texts of one file.
pub fn texts(path: &Path) -> Texts {
    let source = fs::read_to_string(path).expect("readable");
    let tokens: TokenStream = source.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut texts = Texts::default();
    walk(tokens, &mut texts);
    texts
}

fn walk(tokens: TokenStream, texts: &mut Texts) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                let inner = usize::from(is_punct(tokens.get(at + 1), '!'));
                if let Some(TokenTree::Group(attribute)) = tokens.get(at + 1 + inner) {
                    at += 1 + inner;
                    if is_test(attribute) {
                        at = end_of_item(&tokens, at);
                    } else {
                        read_attribute(attribute, texts);
                    }
                }
            }
            TokenTree::Ident(ident) => {
                let word = ident.to_string();
                if LEVELS.contains(&word.as_str()) && is_tracing(&tokens[..at]) && is_punct(tokens.get(at + 1), '!') {
                    if let Some(TokenTree::Group(arguments)) = tokens.get(at + 2) {
                        read_event(word, arguments, texts);
                        at += 2;
                    }
                } else if FOR_DEVELOPERS.contains(&word.as_str()) {
                    let bang = usize::from(is_punct(tokens.get(at + 1), '!'));
                    if matches!(tokens.get(at + 1 + bang), Some(TokenTree::Group(_))) {
                        at += 1 + bang;
                    }
                }
            }
            TokenTree::Group(group) => walk(group.stream(), texts),
            TokenTree::Literal(_) => {
                let text = literal(&tokens[at]).filter(|text| is_sentence(text));
                texts.sentences.extend(text);
            }
            TokenTree::Punct(_) => {}
        }
        at += 1;
    }
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

/// Whether these tokens end with `tracing::`.
fn is_tracing(before: &[TokenTree]) -> bool {
    matches!(before, [.., TokenTree::Ident(name), _, _] if name == "tracing")
}

fn is_test(attribute: &Group) -> bool {
    attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}

/// Where the item ends whose attribute ends at `at`.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(Some(token), ';'),
    };
    tokens[at..].iter().position(ends).map_or(tokens.len(), |length| at + length)
}

fn read_attribute(attribute: &Group, texts: &mut Texts) {
    let tokens: Vec<_> = attribute.stream().into_iter().collect();
    let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(arguments))) = (tokens.first(), tokens.get(1)) else {
        return;
    };
    let mut literals = arguments.stream().into_iter().filter_map(|token| literal(&token));
    if name == "error" {
        texts.errors.extend(literals.next());
        // Literals among the arguments, such as one for a value that is not known.
        for token in arguments.stream().into_iter().skip(1) {
            walk(token.into(), texts);
        }
    } else if name == "serde" {
        texts.sentences.extend(literals.filter(|text| is_sentence(text)));
    }
}

fn read_event(level: String, arguments: &Group, texts: &mut Texts) {
    let mut event = Event { level, sentence: None, fields: Vec::new() };
    let tokens: Vec<_> = arguments.stream().into_iter().collect();
    for argument in tokens.split(|token| is_punct(Some(token), ',')) {
        match argument {
            [] => {}
            [only] if literal(only).is_some() => event.sentence = literal(only),
            [name @ .., _] if argument.iter().any(|token| is_punct(Some(token), '=')) || name.is_empty() => {
                let named = argument.iter().take_while(|token| !is_punct(Some(token), '='));
                event.fields.push(named.map(TokenTree::to_string).collect::<String>());
            }
            // `%name`, `?name`, or a path of which the last word names the field.
            path => {
                event.fields.extend(path.iter().rfind(|t| matches!(t, TokenTree::Ident(_))).map(ToString::to_string))
            }
        }
        for token in argument.iter().skip_while(|token| !is_punct(Some(token), '=')) {
            walk(token.clone().into(), texts);
        }
    }
    texts.events.push(event);
}

fn literal(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else { return None };
    syn::parse_str::<syn::LitStr>(&literal.to_string()).ok().map(|text| text.value())
}

/// Whether a text is meant to be read: three words at least, and not code.
fn is_sentence(text: &str) -> bool {
    let is_word = |word: &&str| word.chars().filter(|c| c.is_alphabetic()).count() >= 2;
    text.split_whitespace().filter(is_word).count() >= 3
}
