//! The options that servers inherit from `default-server` lines of `defaults` sections (sections 4.1 and 4.2 of HAProxy's
//! configuration manual), in the files that HAProxy reads before the outputs. A server that is added at run time does not
//! have them unless the command names them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::syntax::{SECTIONS, Word, words};

/// What the `defaults` sections read so far give to servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Inherited {
    by_name: BTreeMap<String, Vec<Word>>,
    /// Of the last section, which holds for every section that names none.
    last: Vec<Word>,
    /// The `defaults` section that is being read, and its name, if it has one.
    open: Option<Option<String>>,
}

impl Inherited {
    /// Takes in a line. `conditional`: HAProxy decides at its start whether the line counts.
    pub(super) fn read(&mut self, words: &[Word], conditional: bool) {
        let first = words[0].text.as_str();
        if SECTIONS.contains(&first) {
            self.open = None;
            if first == "defaults" {
                let name = words.get(1).filter(|word| word.text != "from").map(|word| word.text.clone());
                self.last =
                    named_after_from(words).and_then(|from| self.by_name.get(from)).cloned().unwrap_or_default();
                self.open = Some(name);
            }
        } else if first == "default-server" && self.open.is_some() {
            let unknown = conditional.then(Word::unknown);
            self.last.extend(words[1..].iter().filter(|_| !conditional).cloned().chain(unknown));
        } else {
            return;
        }
        if let Some(Some(name)) = &self.open {
            self.by_name.insert(name.clone(), self.last.clone());
        }
    }

    /// Takes in a file.
    pub(super) fn read_text(&mut self, text: &str) {
        let mut conditions = 0_u32;
        for words in text.lines().map(words).filter(|words| !words.is_empty()) {
            match words[0].text.as_str() {
                ".if" => conditions += 1,
                ".endif" => conditions = conditions.saturating_sub(1),
                _ => {}
            }
            self.read(&words, conditions > 0);
        }
        self.open = None;
    }

    /// The options for servers of the section that a line opens.
    pub(super) fn of_section(&self, line: &[Word]) -> &[Word] {
        match named_after_from(line) {
            Some(name) => self.by_name.get(name).map_or(&[], Vec::as_slice),
            None => &self.last,
        }
    }

    /// As a text for the apply record.
    pub(super) fn to_record(&self) -> String {
        serde_json::json!({ "last": self.last, "named": self.by_name }).to_string()
    }

    /// The inverse of [`to_record`](Self::to_record).
    pub(super) fn from_record(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Record {
            last: Vec<Word>,
            named: BTreeMap<String, Vec<Word>>,
        }
        let Record { last, named } = serde_json::from_str(text).ok()?;
        Some(Self { by_name: named, last, open: None })
    }
}

/// The name in `from NAME`.
fn named_after_from(line: &[Word]) -> Option<&str> {
    let from = line.iter().skip(1).position(|word| word.text == "from")?;
    line.get(from + 2).map(|word| word.text.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(inherited: &Inherited, line: &str) -> String {
        let options = inherited.of_section(&words(line)).iter();
        options.map(|word| if word.expands { "?" } else { &word.text }).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn servers_inherit_from_the_last_section_or_from_the_one_that_is_named() {
        let mut inherited = Inherited::default();
        inherited.read_text(
            "defaults tls\n default-server ssl verify none\n default-server check\ndefaults more from tls\n \
             default-server inter 1s\nbackend x\n default-server backup\ndefaults\n default-server fall 2\n",
        );
        for (line, expected) in [
            ("backend web", "fall 2"),
            ("backend web from tls", "ssl verify none check"),
            ("listen web from more", "ssl verify none check inter 1s"),
            ("backend web from nothing", ""),
        ] {
            assert_eq!(of(&inherited, line), expected, "{line}");
        }
        let recorded = Inherited::from_record(&inherited.to_record()).expect("as written");
        assert_eq!(of(&recorded, "backend web from more"), "ssl verify none check inter 1s");
        assert_eq!(of(&recorded, "backend web"), "fall 2");
    }

    #[test]
    fn a_line_that_may_not_count_makes_the_options_unknown() {
        let mut inherited = Inherited::default();
        inherited.read_text("defaults\n .if defined(TLS)\n default-server ssl\n .endif\n default-server check\n");
        assert_eq!(of(&inherited, "backend web"), "? check");
    }
}
