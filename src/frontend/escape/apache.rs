//! Apache's configuration, after `ap_cfg_getline` and `ap_getword_conf` in its `server/util.c`.
//!
//! First the text is split into lines: a backslash right before the end of a line joins the next line to it, in comments
//! and quotes too. A line that starts with `#` is a comment. Then each line is split into words at white space. `"` and
//! `'` quote only at the start of a word, up to the next quote of the same kind or the end of the line; what follows the
//! closing quote is the next word. Inside quotes a backslash escapes another backslash or that quote; outside quotes only
//! another backslash. Last, `${NAME}` is replaced if the variable is defined.

use super::pieces::{Piece, percent, pieces};

/// Encodes the marked values of a rendered configuration for their places.
pub(super) fn write(marked: &str) -> String {
    let mut writer = Writer { out: String::with_capacity(marked.len() + marked.len() / 8), ..Writer::default() };
    for piece in pieces(marked) {
        match piece {
            Piece::Text(text) => writer.text(text),
            Piece::Value(value) | Piece::Literal(value) => writer.value(value),
        }
    }
    writer.close_requoted();
    writer.out
}

/// The writer's place in the syntax.
#[derive(Clone, Copy, Default)]
enum Place {
    /// Nothing but white space has come on this line.
    #[default]
    LineStart,
    /// A word could start here.
    Start,
    /// In a word without quotes that starts at this byte of the output.
    Bare(usize),
    /// In a word that the template wrote without quotes, and that got quotes because a value in it needs them.
    Requoted,
    /// In a text quoted by this character.
    Quoted(char),
    /// In a comment.
    Comment,
}

#[derive(Default)]
struct Writer {
    out: String,
    place: Place,
    /// The previous character is a backslash of the template that begins an escape.
    escaped: bool,
    /// Whether the previous character is a `$`.
    dollar: Dollar,
    /// The number of bytes at the end of the output that encode a backslash of a value.
    backslash: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Dollar {
    #[default]
    No,
    /// Of the template.
    Written,
    /// Of a value.
    Encoded,
}

impl Writer {
    /// Writes the template's own text.
    fn text(&mut self, mut text: &str) {
        while let Some(c) = text.chars().next() {
            let joined = ["\\\n", "\\\r\n"].into_iter().find(|joined| text.starts_with(joined));
            let len = joined.map_or(c.len_utf8(), str::len);
            match joined {
                // Apache reads what is on both sides of it as one line.
                Some(joined) => self.out.push_str(joined),
                None => self.char(c, &text[len..]),
            }
            text = &text[len..];
        }
    }

    fn char(&mut self, c: char, rest: &str) {
        let ends_line = c == '\n' || (c == '\r' && rest.starts_with('\n'));
        if ends_line {
            self.end_line();
        }
        self.backslash = 0;
        let dollar = std::mem::take(&mut self.dollar);
        if c == '{' && dollar == Dollar::Encoded {
            self.out.pop();
            self.percent('$');
        } else if c == '$' {
            self.dollar = Dollar::Written;
        }
        let escaped = std::mem::take(&mut self.escaped);
        match self.place {
            _ if c == '\n' => {
                self.out.push(c);
                self.place = Place::LineStart;
            }
            Place::Comment => self.out.push(c),
            Place::LineStart if c == '#' => {
                self.out.push(c);
                self.place = Place::Comment;
            }
            Place::LineStart | Place::Start => {
                self.place = match c {
                    '"' | '\'' => Place::Quoted(c),
                    c if is_space(c) => self.place,
                    _ => Place::Bare(self.out.len()),
                };
                self.out.push(c);
                self.escaped = c == '\\';
            }
            Place::Bare(_) | Place::Requoted if is_space(c) => {
                self.close_requoted();
                self.out.push(c);
                self.place = Place::Start;
            }
            Place::Bare(_) => {
                self.out.push(c);
                self.escaped = c == '\\' && !escaped;
            }
            // An escaped backslash was written in full with its first character.
            Place::Requoted if c == '\\' && escaped => {}
            Place::Requoted => {
                self.quoted(c, '"');
                self.escaped = c == '\\';
            }
            Place::Quoted(quote) => {
                if c == quote && !escaped {
                    self.place = Place::Start;
                }
                self.out.push(c);
                self.escaped = c == '\\' && !escaped;
            }
        }
    }

    fn end_line(&mut self) {
        if let Place::Requoted = self.place {
            self.close_requoted();
            self.place = Place::Start;
        } else if self.backslash > 0 {
            // A backslash of a value must not join the next line to this one.
            self.out.truncate(self.out.len() - self.backslash);
            self.percent('\\');
        }
    }

    /// Writes one value.
    fn value(&mut self, value: &str) {
        if std::mem::take(&mut self.escaped) {
            match self.place {
                // A backslash of the template must be read literally and not escape a character of the value.
                Place::Bare(_) | Place::Quoted(_) => self.out.push('\\'),
                // Elsewhere it was written as an escaped one.
                _ => {}
            }
        }
        match self.place {
            Place::LineStart | Place::Start if is_bare(value) => {
                self.place = Place::Bare(self.out.len());
                self.encode(value, None);
            }
            Place::LineStart | Place::Start => {
                self.out.push('"');
                self.place = Place::Requoted;
                self.encode(value, Some('"'));
            }
            Place::Bare(_) if value.is_empty() || is_bare(value) => self.encode(value, None),
            Place::Bare(start) => {
                self.requote(start);
                self.encode(value, Some('"'));
            }
            Place::Requoted => self.encode(value, Some('"')),
            Place::Quoted(quote) => self.encode(value, Some(quote)),
            Place::Comment => self.encode(value, None),
        }
    }

    /// Puts quotes around the word that starts at this byte, without changing how it reads.
    fn requote(&mut self, start: usize) {
        let bare = self.out.split_off(start);
        self.place = Place::Requoted;
        self.out.push('"');
        let mut rest = bare.as_str();
        while let Some(c) = rest.chars().next() {
            let kept = ["\\\n", "\\\r\n"].into_iter().find(|joined| rest.starts_with(joined));
            match kept {
                Some(joined) => self.out.push_str(joined),
                None => self.quoted(c, '"'),
            }
            // An escaped backslash is one backslash, which `quoted` escapes again.
            let pair = kept.is_none() && rest.starts_with("\\\\");
            rest = &rest[kept.map_or(c.len_utf8() + usize::from(pair), str::len)..];
        }
    }

    fn encode(&mut self, value: &str, quote: Option<char>) {
        for c in value.chars() {
            self.backslash = 0;
            let dollar = std::mem::take(&mut self.dollar);
            match c {
                '{' if dollar != Dollar::No => self.percent(c),
                '\t' => self.out.push(c),
                c if c.is_control() => self.percent(c),
                c => {
                    let before = self.out.len();
                    match quote {
                        Some(quote) => self.quoted(c, quote),
                        None => self.out.push(c),
                    }
                    self.backslash = if c == '\\' { self.out.len() - before } else { 0 };
                    self.dollar = if c == '$' { Dollar::Encoded } else { Dollar::No };
                }
            }
        }
    }

    /// Writes a character so that it is read literally inside these quotes.
    fn quoted(&mut self, c: char, quote: char) {
        if c == quote || c == '\\' {
            self.out.push('\\');
        }
        self.out.push(c);
    }

    fn percent(&mut self, c: char) {
        percent(&mut self.out, c);
    }

    fn close_requoted(&mut self) {
        if let Place::Requoted = self.place {
            self.out.push('"');
        }
    }
}

/// Whether a value is read literally without quotes.
fn is_bare(value: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"_.:/@%+=,-[]$".contains(&b);
    !value.is_empty() && value.bytes().all(safe)
}

/// C's `isspace`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

#[cfg(test)]
mod tests;
