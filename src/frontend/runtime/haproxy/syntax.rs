//! The syntax of HAProxy's configuration, after `parse_line` in its `src/tools.c` and section 2.2 of its configuration
//! manual.

use serde::{Deserialize, Serialize};

/// The first words of lines that open a section.
pub(super) const SECTIONS: &[&str] = &[
    "backend",
    "cache",
    "defaults",
    "fcgi-app",
    "frontend",
    "global",
    "http-errors",
    "listen",
    "log-forward",
    "mailers",
    "namespace_list",
    "peers",
    "program",
    "resolvers",
    "ring",
    "userlist",
];

/// Whether a text is configuration; otherwise it is a map.
pub(super) fn is_configuration(text: &str) -> bool {
    text.lines().any(|line| words(line).first().is_some_and(|word| SECTIONS.contains(&word.text.as_str())))
}

/// Whether a word is read literally in a command, where `;`, a backslash, white space and `<<` have a meaning.
pub(super) fn is_plain(word: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b';' | b'\\' | b'"' | b'\'' | b'#' | b'$' | b'<');
    !word.is_empty() && word.bytes().all(plain)
}

/// A word of a line, without its quotes and escapes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::frontend) struct Word {
    pub(in crate::frontend) text: String,
    /// Whether it refers to a variable of HAProxy's environment. The reference is kept as it is written.
    pub(super) expands: bool,
}

impl Word {
    /// One that only HAProxy knows.
    pub(super) fn unknown() -> Self {
        Self { text: String::new(), expands: true }
    }
}

/// Splits a line into its words.
pub(in crate::frontend) fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let (mut weak, mut strong) = (false, false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if !strong => {
                weak = !weak;
                word.get_or_insert_default();
            }
            '\'' if !weak => {
                strong = !strong;
                word.get_or_insert_default();
            }
            '\\' if !strong => {
                let escaped = match chars.peek() {
                    Some('n') => Some('\n'),
                    Some('r') => Some('\r'),
                    Some('t') => Some('\t'),
                    Some('x') => {
                        let digits: String = chars.clone().skip(1).take(2).collect();
                        let code = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2);
                        // A byte of a multi-byte character is kept as it is written.
                        let code = code.filter(u8::is_ascii);
                        if code.is_some() {
                            chars.nth(1);
                        }
                        code.map(char::from)
                    }
                    Some(&c @ (' ' | '\\' | '#' | '"' | '\'' | '$')) => Some(c),
                    _ => None,
                };
                if escaped.is_some() {
                    chars.next();
                }
                word.get_or_insert_default().text.push(escaped.unwrap_or('\\'));
            }
            '#' if !weak && !strong => break,
            ' ' | '\t' | '\r' | '\u{b}' | '\u{c}' if !weak && !strong => words.extend(word.take()),
            c => {
                let word = word.get_or_insert_default();
                word.expands |= c == '$' && weak;
                word.text.push(c);
            }
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        words(line).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn a_line_is_split_as_haproxy_splits_it() {
        for (line, expected) in [
            ("", &[][..]),
            ("  # a comment", &[]),
            ("a  b\tc # d", &["a", "b", "c"]),
            (r#"a\ b "c d" 'e f'"g"h"#, &["a b", "c d", "e fgh"]),
            (r##"\# "#" \" '"' \' "'" \\"##, &["#", "#", "\"", "\"", "'", "'", "\\"]),
            (r"\n\r\t\x41 \q '\n'", &["\n\r\tA", "\\q", "\\n"]),
            (r#""" ''"#, &["", ""]),
            ("größe", &["größe"]),
        ] {
            assert_eq!(texts(line), expected, "{line}");
        }
        assert!(words(r#""$HOME""#)[0].expands && words(r#""${HOME}""#)[0].expands);
        for literal in [r#""\$HOME""#, "'$HOME'", "$HOME"] {
            assert!(!words(literal)[0].expands, "{literal}");
        }
    }

    #[test]
    fn configuration_and_maps_are_distinguished() {
        assert!(is_configuration("# c\nbackend web\n"));
        assert!(!is_configuration("# c\n") && !is_configuration("web/a 10.0.0.1:80\n"));
    }
}
