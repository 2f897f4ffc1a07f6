//! What the source says, by file: log events, error templates and other sentences.

use std::fmt::Write as _;

use crate::source::{self, Texts};

fn all(of: impl Fn(&Texts) -> Vec<String>) -> String {
    let mut catalogue = String::new();
    for (name, path) in source::files() {
        let texts = of(&source::texts(&path));
        if !texts.is_empty() {
            writeln!(catalogue, "{name}").expect("a text grows");
            for text in texts {
                writeln!(catalogue, "    {}", text.replace('\n', "\n    ")).expect("a text grows");
            }
        }
    }
    catalogue
}

#[test]
fn log_events() {
    insta::assert_snapshot!(all(|texts| {
        let shown = |event: &source::Event| {
            let sentence = event.sentence.as_deref().unwrap_or("(no fixed sentence)");
            format!("{:<5} {sentence}  [{}]", event.level.to_uppercase(), event.fields.join(" "))
        };
        texts.events.iter().map(shown).collect()
    }));
}

#[test]
fn error_templates() {
    insta::assert_snapshot!(all(|texts| texts.errors.clone()));
}

#[test]
fn other_sentences() {
    insta::assert_snapshot!(all(|texts| texts.sentences.clone()));
}

/// A value belongs into a field: a sentence that is always the same can be searched for and counted.
#[test]
fn a_log_event_is_a_fixed_sentence_with_fields() {
    let mut wrong = Vec::new();
    for (name, path) in source::files() {
        for event in source::texts(&path).events {
            if event.sentence.as_deref().is_none_or(|sentence| sentence.contains('{')) {
                wrong.push(format!("{name}: {event:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reader_of_the_source_reads_it_right() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("x.rs");
    let code = r##"
        //! Not this comment of four words.
        #[derive(thiserror::Error)]
        #[error("cannot read {path}: {source}", path = path.display())]
        struct A;
        fn f() {
            tracing::warn!(%service, error = "not said of old", more = ?x, "it \
                broke");
            tracing::info!(frontend = %self.config.name, "done");
            x.expect("this is for developers");
            let fault = format!("{x} is not a number");
        }
        #[cfg(test)]
        mod tests {
            const X: &str = "no text for people here";
        }
    "##;
    std::fs::write(&file, code).expect("written");
    let Texts { events, errors, sentences } = source::texts(&file);
    let events: Vec<_> = events.iter().map(|e| (e.sentence.as_deref().unwrap_or(""), e.fields.join(" "))).collect();
    assert_eq!(events, [("it broke", "service error more".to_owned()), ("done", "frontend".to_owned())]);
    assert_eq!(errors, ["cannot read {path}: {source}"]);
    assert_eq!(sentences, ["not said of old", "{x} is not a number"]);
}
