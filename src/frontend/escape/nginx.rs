//! nginx's configuration, after `ngx_conf_read_token` in its `src/core/ngx_conf_file.c`.
//!
//! A token ends at a space, tab, CR, LF, `;` or `{` (but `${` begins a variable in braces). `"` and `'` quote only at the
//! start of a token, and one of these characters or `)` must follow the closing quote. A backslash prevents the next
//! character from ending anything; only `\"`, `\'`, `\\`, `\t`, `\r` and `\n` are read as one character. `#` opens a comment
//! only where a token could start.

use super::pieces::{Piece, percent, pieces};

/// Whether a value is read literally in every place, so that it needs no quotes and no marker.
pub(super) fn is_bare(value: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"_.:/@%+=,-[]".contains(&b);
    !value.is_empty() && value.bytes().all(safe)
}

/// Encodes the marked values of a rendered configuration for their places.
pub(super) fn write(marked: &str) -> String {
    let mut writer = Writer::new(marked.len());
    for piece in pieces(marked) {
        match piece {
            Piece::Text(text) => text.chars().for_each(|c| writer.text(c)),
            Piece::Value(value) | Piece::Literal(value) => writer.value(value),
        }
    }
    writer.finish()
}

/// The writer's place in the syntax.
#[derive(Clone, Copy)]
enum Place {
    /// A token could start here.
    Start,
    /// In a token without quotes that starts at this byte of the output.
    Bare(usize),
    /// In a token that the template wrote without quotes, and that got quotes because a value in it needs them.
    Requoted,
    /// In a text quoted by this character.
    Quoted(char),
    /// Right after the closing quote.
    Closed,
    /// In a comment.
    Comment,
}

struct Writer {
    out: String,
    place: Place,
    /// Whether the previous character is a backslash of the template that escapes the next one.
    escaped: bool,
    /// Whether the previous character is a `$` of the template.
    dollar: bool,
}

impl Writer {
    fn new(len: usize) -> Self {
        Self { out: String::with_capacity(len + len / 8), place: Place::Start, escaped: false, dollar: false }
    }

    /// Writes one character of the template's own text.
    fn text(&mut self, c: char) {
        if std::mem::take(&mut self.escaped) {
            self.out.push(c);
            return;
        }
        // nginx still expects a brace after `${`, so that `${{` is part of the variable too.
        let braced = self.dollar && c == '{';
        self.dollar = c == '$' || braced;
        match self.place {
            Place::Start => self.start(c),
            Place::Bare(_) | Place::Requoted if !braced && ends_token(c) => self.end_token(c),
            Place::Requoted if c == '"' => self.out.push_str("\\\""),
            Place::Bare(_) | Place::Requoted => self.inside(c),
            Place::Quoted(quote) if c == quote => {
                self.out.push(c);
                self.place = Place::Closed;
            }
            Place::Quoted(_) => self.inside(c),
            Place::Closed => self.closed(c),
            Place::Comment => {
                self.out.push(c);
                if c == '\n' {
                    self.place = Place::Start;
                }
            }
        }
    }

    fn start(&mut self, c: char) {
        let at = self.out.len();
        self.out.push(c);
        self.place = match c {
            '}' => Place::Start,
            c if ends_token(c) => Place::Start,
            '#' => Place::Comment,
            '"' | '\'' => Place::Quoted(c),
            _ => Place::Bare(at),
        };
        self.escaped = c == '\\';
    }

    fn inside(&mut self, c: char) {
        self.out.push(c);
        self.escaped = c == '\\';
    }

    fn end_token(&mut self, c: char) {
        self.close_requoted();
        self.out.push(c);
        self.place = Place::Start;
    }

    fn closed(&mut self, c: char) {
        if c == ')' {
            self.place = Place::Bare(self.out.len());
        } else if ends_token(c) {
            self.place = Place::Start;
        }
        self.out.push(c);
    }

    /// Writes one value.
    fn value(&mut self, value: &str) {
        if std::mem::take(&mut self.escaped) {
            // A backslash of the template must be read literally and not escape a character of the value.
            self.out.push('\\');
        }
        let dollar = std::mem::take(&mut self.dollar);
        match self.place {
            Place::Start if is_bare(value) => {
                self.place = Place::Bare(self.out.len());
                self.out.push_str(value);
            }
            Place::Start => {
                self.out.push('"');
                self.place = Place::Requoted;
                self.encode(value, false);
            }
            // An empty value between `$` and `{` of the template must keep them apart.
            Place::Bare(_) if is_bare(value) || (value.is_empty() && !dollar) => self.out.push_str(value),
            Place::Bare(start) => {
                self.requote(start);
                self.encode(value, dollar);
            }
            Place::Requoted | Place::Quoted(_) | Place::Comment => self.encode(value, dollar),
            // nginx refuses a token right after a closing quote, whatever the value.
            Place::Closed if value.is_empty() => {}
            Place::Closed => {
                self.out.push('"');
                self.encode(value, false);
                self.out.push('"');
            }
        }
    }

    /// Puts quotes around the token that starts at this byte, without changing how it is read.
    fn requote(&mut self, start: usize) {
        let bare = self.out.split_off(start);
        self.place = Place::Requoted;
        if self.out.ends_with(['"', '\'']) {
            // Without a space only `)` may follow a closing quote, and the token now begins with a quote.
            self.out.push(' ');
        }
        self.out.push('"');
        let mut escaped = false;
        for c in bare.chars() {
            if c == '"' && !escaped {
                self.out.push('\\');
            }
            self.out.push(c);
            escaped = c == '\\' && !escaped;
        }
    }

    /// Writes a value so that it is read literally within either kind of quotes, on one line.
    fn encode(&mut self, value: &str, after_dollar: bool) {
        for (i, c) in value.chars().enumerate() {
            match c {
                '"' | '\'' | '\\' => self.out.extend(['\\', c]),
                '\t' => self.out.push_str("\\t"),
                '\r' => self.out.push_str("\\r"),
                '\n' => self.out.push_str("\\n"),
                '{' if i == 0 && after_dollar => percent(&mut self.out, c),
                '$' => percent(&mut self.out, c),
                c if c.is_control() => percent(&mut self.out, c),
                c => self.out.push(c),
            }
        }
    }

    fn close_requoted(&mut self) {
        if let Place::Requoted = self.place {
            self.out.push('"');
        }
    }

    fn finish(mut self) -> String {
        self.close_requoted();
        self.out
    }
}

fn ends_token(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | ';' | '{')
}

#[cfg(test)]
mod tests;
