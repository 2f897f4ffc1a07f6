//! HAProxy's configuration, after `parse_line` in its `src/tools.c` and section 2.2 of its configuration manual.
//!
//! A word ends at white space, and every line break ends a line, even within quotes. Quotes open and close anywhere in a
//! word. Outside `'…'` a backslash escapes a space, `#`, a quote, a backslash or `$`, and makes a control character of
//! `n`, `r`, `t` and `xNN`. In `"…"` a `$` begins a variable of the environment. `#` opens a comment anywhere outside
//! quotes.

use std::fmt::Write as _;

use super::pieces::{Piece, pieces};

/// Encodes the marked values of a rendered configuration for their places.
pub(super) fn write(marked: &str) -> String {
    let mut writer = Writer { out: String::with_capacity(marked.len() + marked.len() / 8), ..Writer::default() };
    for piece in pieces(marked) {
        match piece {
            Piece::Text(text) => text.chars().for_each(|c| writer.text(c)),
            Piece::Value(value) | Piece::Literal(value) => writer.value(value),
        }
    }
    writer.out
}

/// The writer's place in the syntax.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// A word could start here.
    #[default]
    Start,
    /// In a word, outside quotes.
    Bare,
    /// In `"…"`.
    Weak,
    /// In `'…'`.
    Strong,
    /// In a comment.
    Comment,
}

/// What the template's last characters have begun.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Begun {
    #[default]
    Nothing,
    /// A backslash, without the character that it escapes.
    Escape,
    /// `\x`, without that many of its digits.
    Code(u8),
    /// A variable, whose `$` is at this byte of the output.
    Variable { dollar: usize, braced: bool },
}

#[derive(Default)]
struct Writer {
    out: String,
    place: Place,
    begun: Begun,
}

impl Writer {
    /// Writes one character of the template's own text.
    fn text(&mut self, c: char) {
        let begun = std::mem::take(&mut self.begun);
        let at = self.out.len();
        self.out.push(c);
        if c == '\n' {
            self.place = Place::Start;
            return;
        }
        match begun {
            Begun::Escape => {
                if c == 'x' {
                    self.begun = Begun::Code(2);
                }
                return;
            }
            Begun::Code(2) if c.is_ascii_hexdigit() => {
                self.begun = Begun::Code(1);
                return;
            }
            Begun::Code(1) if c.is_ascii_hexdigit() => return,
            Begun::Variable { dollar, braced: false } if c == '{' && at == dollar + 1 => {
                self.begun = Begun::Variable { dollar, braced: true };
                return;
            }
            Begun::Variable { braced: false, .. } if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') => {
                self.begun = begun;
                return;
            }
            Begun::Variable { braced: true, .. } if c != '}' => {
                self.begun = begun;
                return;
            }
            Begun::Variable { braced: true, .. } => return,
            Begun::Nothing | Begun::Code(_) | Begun::Variable { .. } => {}
        }
        match (self.place, c) {
            (Place::Comment, _) => {}
            (Place::Strong, '\'') | (Place::Weak, '"') => self.place = Place::Bare,
            (Place::Strong, _) => {}
            (_, '\\') => {
                self.begun = Begun::Escape;
                if self.place == Place::Start {
                    self.place = Place::Bare;
                }
            }
            (Place::Weak, '$') => self.begun = Begun::Variable { dollar: at, braced: false },
            (Place::Weak, _) => {}
            (_, '"') => self.place = Place::Weak,
            (_, '\'') => self.place = Place::Strong,
            (_, '#') => self.place = Place::Comment,
            (_, c) if ends_word(c) => self.place = Place::Start,
            _ => self.place = Place::Bare,
        }
    }

    /// Writes one value.
    fn value(&mut self, value: &str) {
        let mut as_code = 0;
        match std::mem::take(&mut self.begun) {
            Begun::Nothing => {}
            // A backslash of the template must be read literally and not escape a character of the value.
            Begun::Escape => self.out.push('\\'),
            // A value must not supply a digit of the template's code: HAProxy then refuses the line, whatever the value.
            Begun::Code(_) => as_code = 1,
            // A value must not become the name of a variable, or a part of it: the `$` becomes a literal one.
            Begun::Variable { dollar, braced } if braced || self.out.len() == dollar + 1 => {
                self.out.insert(dollar, '\\');
            }
            Begun::Variable { .. } => as_code = 1,
        }
        match self.place {
            // Without quotes an empty value would not be a word.
            Place::Start if value.is_empty() => self.out.push_str("\"\""),
            Place::Start | Place::Bare | Place::Weak | Place::Strong | Place::Comment => {}
        }
        if self.place == Place::Start {
            self.place = Place::Bare;
        }
        for (i, c) in value.chars().enumerate() {
            match c {
                // HAProxy takes a NUL for the end of the text.
                '\0' => self.out.push_str("%00"),
                c if i < as_code && c.is_ascii() => self.code(c),
                c => self.character(c),
            }
        }
    }

    fn character(&mut self, c: char) {
        match (self.place, c) {
            // In a comment only a line break has a meaning.
            (Place::Comment, '\n') => self.out.push_str("\\n"),
            (Place::Comment, c) => self.out.push(c),
            // These quotes know no escapes: they are closed, and opened again after the character.
            (Place::Strong, '\'' | '\n' | '\r') => {
                self.out.push('\'');
                self.place = Place::Bare;
                self.character(c);
                self.place = Place::Strong;
                self.out.push('\'');
            }
            (Place::Strong, c) => self.out.push(c),
            (_, '\n') => self.out.push_str("\\n"),
            (_, '\r') => self.out.push_str("\\r"),
            (_, '\t') => self.out.push_str("\\t"),
            (_, '\\' | '"') | (Place::Weak, '$') | (Place::Bare, ' ' | '#' | '\'') => self.out.extend(['\\', c]),
            (_, c) if c.is_ascii_control() => self.code(c),
            (_, c) => self.out.push(c),
        }
    }

    fn code(&mut self, c: char) {
        // Writing to a string cannot fail.
        let _ = write!(self.out, "\\x{:02x}", u32::from(c));
    }
}

/// C's `isspace` in the C locale, without the newline.
const fn ends_word(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hostile;
    use super::super::pieces::{END, MARKERS, VALUE};
    use super::*;
    use crate::frontend::runtime::haproxy::syntax;

    fn words(line: &str) -> Vec<String> {
        syntax::words(line).into_iter().map(|word| word.text).collect()
    }

    /// The words of each line of a template in which `@` stands for the value.
    fn read(template: &str, value: &str) -> Vec<Vec<String>> {
        write(&template.replace('@', &format!("{VALUE}{value}{END}"))).lines().map(words).collect()
    }

    #[test]
    fn a_plain_value_is_written_as_it_is() {
        let template = format!("backend {VALUE}web{END}\n  server {VALUE}i-1{END} {VALUE}[::1]:80{END} weight 1\n");
        assert_eq!(write(&template), "backend web\n  server i-1 [::1]:80 weight 1\n");
    }

    #[test]
    fn a_value_never_names_a_variable() {
        for (template, expected) in [
            ("\"$@\"", "\"\\$HOME\""),
            ("\"${@}\"", "\"\\${HOME}\""),
            ("\"$A@\"", "\"$A\\x48OME\""),
            ("\"${A}@\"", "\"${A}HOME\""),
            ("\"\\$@\"", "\"\\$HOME\""),
            ("$@ '$@'", "$HOME '$HOME'"),
        ] {
            assert_eq!(write(&template.replace('@', &format!("{VALUE}HOME{END}"))), expected, "{template}");
        }
    }

    #[test]
    fn a_value_supplies_no_digits_to_an_unfinished_code() {
        assert_eq!(write(&format!("\\x4{VALUE}1{END}")), "\\x4\\x31", "which HAProxy refuses");
    }

    proptest! {
        #[test]
        fn every_value_reads_back_wherever_it_stands(v in hostile::value()) {
            let v = v.replace(MARKERS, "");
            let r = v.replace('\0', "%00");
            let text = |parts: &[&str]| vec![parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>()];
            prop_assert_eq!(read("a @ b", &v), text(&["a", &r, "b"]));
            prop_assert_eq!(read("a x@y b", &v), text(&["a", &format!("x{r}y"), "b"]));
            prop_assert_eq!(read("a \"x@y\" b", &v), text(&["a", &format!("x{r}y"), "b"]));
            prop_assert_eq!(read("a 'x@y' b", &v), text(&["a", &format!("x{r}y"), "b"]));
            prop_assert_eq!(read("a '@'\"@\"@ b", &v), text(&["a", &format!("{r}{r}{r}"), "b"]));
            prop_assert_eq!(read("a \\@ b", &v), text(&["a", &format!("\\{r}"), "b"]));
            prop_assert_eq!(read("a \"\\@\" b", &v), text(&["a", &format!("\\{r}"), "b"]));
            prop_assert_eq!(read("a # @ b\nc", &v), vec![vec!["a".to_owned()], vec!["c".to_owned()]]);
            prop_assert_eq!(read("@", &v), text(&[&r]));
        }
    }
}
