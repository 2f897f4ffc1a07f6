//! Apache's configuration, after `ap_cfg_getline` and `ap_getword_conf` in its `server/util.c`.
//!
//! First come lines: a backslash right before a line's end joins the next line to it, in comments and quotes too. A line
//! that starts with `#` is a comment. Then come words, which white space ends. `"` and `'` quote only from a word's start,
//! up to the next of their kind or the line's end; what follows the closing one is the next word. Inside, a backslash
//! makes one character with another backslash or that quote; outside, only with another backslash. Last, `${NAME}` is
//! replaced where the variable is defined.

use super::{Piece, percent, pieces};

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

/// Where in the syntax the writer stands.
#[derive(Clone, Copy, Default)]
enum Place {
    /// Nothing but white space has come on this line.
    #[default]
    LineStart,
    /// A word could start here.
    Start,
    /// In a word without quotes, which starts at this byte of the output.
    Bare(usize),
    /// In a word which the template wrote without quotes, and which a value in it has made need them.
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
    /// The character before was a backslash of the template's that still lacks its partner.
    escaped: bool,
    /// The character before was a `$`.
    dollar: Dollar,
    /// The last bytes written, as many as these, stand for a value's backslash.
    backslash: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Dollar {
    #[default]
    No,
    /// The template's.
    Written,
    /// A value's.
    Encoded,
}

impl Writer {
    /// Takes the template's own text.
    fn text(&mut self, mut text: &str) {
        while let Some(c) = text.chars().next() {
            let joined = ["\\\n", "\\\r\n"].into_iter().find(|joined| text.starts_with(joined));
            let len = joined.map_or(c.len_utf8(), str::len);
            match joined {
                // What stands on either side of it stands together.
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
            // The second of a pair was written with the first.
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
            // A value's backslash must not join the next line to this one.
            self.out.truncate(self.out.len() - self.backslash);
            self.percent('\\');
        }
    }

    /// Takes one value.
    fn value(&mut self, value: &str) {
        if std::mem::take(&mut self.escaped) {
            match self.place {
                // The template's backslash stands for itself; it must not pair with the value.
                Place::Bare(_) | Place::Quoted(_) => self.out.push('\\'),
                // There it was written as a pair.
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
            // A pair stands for one backslash, which `quoted` writes as a pair again.
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

    /// Writes a character that stands for itself inside these quotes.
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

/// Whether a value means itself as a word, or in one without quotes.
fn is_bare(value: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"_.:/@%+=,-[]$".contains(&b);
    !value.is_empty() && value.bytes().all(safe)
}

/// As C's `isspace`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

#[cfg(test)]
mod tests;
