//! Lines of `NAME=value`, in the syntax that a POSIX shell and systemd's `EnvironmentFile=` have in common. Docker's
//! `--env-file` knows no quotes, and so reads the same only as long as no value needs them.
//!
//! After section 2.2 of the POSIX shell language, and `parse_env_file_internal` in systemd's `src/basic/env-file.c`:
//! double quotes mean the same to both, with `\"`, `\\`, `\$` and `` \` `` within them, and so do single quotes. systemd
//! recognises quotes only right after `=` or another closing quote: in a value that begins without quotes they are
//! literal. It drops a variable whose value is not valid UTF-8, or contains a control character other than tab and
//! newline, or a noncharacter; these become `%XX`.
//!
//! Other parts of the shell's language are not supported: a value in a here-document or a command substitution is not
//! safe.

use super::pieces::{Piece, percent, pieces};

/// Encodes the marked values of a rendered file for their places.
pub(super) fn write(marked: &str) -> String {
    let mut writer = Writer {
        out: String::with_capacity(marked.len()),
        place: Place::Start { first: true },
        word: Word::default(),
        escaped: false,
    };
    for piece in pieces(marked) {
        match piece {
            Piece::Text(text) => text.chars().for_each(|c| writer.text(c)),
            Piece::Value(value) | Piece::Literal(value) => writer.value(value),
        }
    }
    writer.close_requoted();
    writer.out
}

/// The writer's place in the syntax.
#[derive(Clone, Copy)]
enum Place {
    /// A word could start here: the first of a line or command, or a later one.
    Start { first: bool },
    /// In a word, outside quotes.
    Bare,
    /// In a word that the template wrote without quotes, and that got quotes because a value in it needs them.
    Requoted,
    /// In the template's double quotes.
    Double,
    /// In the template's single quotes.
    Single,
    /// In a comment.
    Comment,
}

/// The word in which the writer is.
#[derive(Clone, Copy, Default)]
struct Word {
    /// Whether it is the first of its line or command.
    first: bool,
    /// Whether its `=` has been written.
    assigned: bool,
    /// The byte of the output at which its last part without quotes begins.
    bare: usize,
}

struct Writer {
    out: String,
    place: Place,
    word: Word,
    /// Whether the previous character is a backslash of the template that escapes the next one.
    escaped: bool,
}

impl Writer {
    /// Writes one character of the template's own text.
    fn text(&mut self, c: char) {
        if std::mem::take(&mut self.escaped) {
            // In double quotes a backslash is kept before a character that it does not escape.
            if matches!(self.place, Place::Requoted) && !matches!(c, '"' | '\\' | '$' | '`' | '\n') {
                self.out.pop();
            }
            self.out.push(c);
            return;
        }
        match self.place {
            Place::Comment => {
                self.out.push(c);
                if c == '\n' {
                    self.place = Place::Start { first: true };
                }
            }
            Place::Start { .. } if c == '#' => {
                self.out.push(c);
                self.place = Place::Comment;
            }
            Place::Start { first } if !ends_word(c) => {
                self.begin(first);
                self.inside(c);
            }
            Place::Start { first } => {
                self.out.push(c);
                self.place = Place::Start { first: first || ends_command(c) };
            }
            Place::Bare | Place::Requoted if ends_word(c) => {
                self.close_requoted();
                self.out.push(c);
                self.place = Place::Start { first: ends_command(c) };
            }
            Place::Bare | Place::Requoted => self.inside(c),
            Place::Double | Place::Single => {
                self.out.push(c);
                match (self.place, c) {
                    (Place::Double, '"') | (Place::Single, '\'') => {
                        self.place = Place::Bare;
                        self.word.bare = self.out.len();
                    }
                    (Place::Double, '\\') => self.escaped = true,
                    _ => {}
                }
            }
        }
    }

    fn begin(&mut self, first: bool) {
        self.place = Place::Bare;
        self.word = Word { first, assigned: false, bare: self.out.len() };
    }

    /// Writes a character of the template within a word, outside its quotes.
    fn inside(&mut self, c: char) {
        if let '"' | '\'' = c {
            self.close_requoted();
        }
        self.out.push(c);
        match c {
            '"' => self.place = Place::Double,
            '\'' => self.place = Place::Single,
            '\\' => self.escaped = true,
            '=' if !self.word.assigned && matches!(self.place, Place::Bare) => {
                self.word.assigned = true;
                self.word.bare = self.out.len();
            }
            _ => {}
        }
    }

    /// Writes one value.
    fn value(&mut self, value: &str) {
        if std::mem::take(&mut self.escaped) {
            // A backslash of the template must be read literally and not escape a character of the value.
            self.out.push('\\');
        }
        if let Place::Start { first } = self.place {
            self.begin(first);
        }
        match self.place {
            Place::Bare if self.word.first && !self.word.assigned => self.name(value),
            Place::Bare if self.is_bare(value) => self.out.push_str(value),
            Place::Bare => {
                self.requote();
                self.encode(value);
            }
            Place::Single => {
                // Single quotes cannot contain a single quote: it is written in double quotes between them.
                for c in value.chars() {
                    match c {
                        '\'' => self.out.push_str("'\"'\"'"),
                        c => self.plain(c),
                    }
                }
            }
            Place::Comment => {
                for c in value.chars() {
                    // With a backslash at its end some versions of systemd continue the comment on the next line.
                    if c.is_control() || c == '\\' { percent(&mut self.out, c) } else { self.out.push(c) }
                }
            }
            Place::Requoted | Place::Double | Place::Start { .. } => self.encode(value),
        }
    }

    /// Writes a value where the name of a variable or a command is expected.
    fn name(&mut self, value: &str) {
        self.out.extend(value.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
    }

    /// Whether a value is read literally here without quotes. Brackets are not, where words are expanded to file names.
    fn is_bare(&self, value: &str) -> bool {
        let assigned = self.word.first && self.word.assigned;
        let safe =
            |b: u8| b.is_ascii_alphanumeric() || b"_./:@%+,=-".contains(&b) || (assigned && (b == b'[' || b == b']'));
        // An empty value needs quotes only where it is a word of its own.
        value.bytes().all(safe) && (assigned || !value.is_empty() || self.out.len() > self.word.bare)
    }

    /// Puts double quotes around the last part of the word, without changing how it is read.
    fn requote(&mut self) {
        let bare = self.out.split_off(self.word.bare);
        self.place = Place::Requoted;
        self.out.push('"');
        for c in bare.chars() {
            self.text(c);
        }
    }

    fn close_requoted(&mut self) {
        if let Place::Requoted = self.place {
            self.out.push('"');
        }
    }

    /// Writes a value for double quotes.
    fn encode(&mut self, value: &str) {
        for c in value.chars() {
            if let '"' | '\\' | '$' | '`' = c {
                self.out.push('\\');
            }
            self.plain(c);
        }
    }

    fn plain(&mut self, c: char) {
        let is_noncharacter = matches!(c, '\u{FDD0}'..='\u{FDEF}') || u32::from(c) & 0xFFFE == 0xFFFE;
        // systemd drops ASCII control characters only.
        let is_control = c.is_ascii_control() && c != '\t' && c != '\n';
        if is_control || is_noncharacter { percent(&mut self.out, c) } else { self.out.push(c) }
    }
}

fn ends_word(c: char) -> bool {
    ends_command(c) || matches!(c, ' ' | '\t' | '<' | '>')
}

fn ends_command(c: char) -> bool {
    matches!(c, '\n' | ';' | '&' | '|' | '(' | ')')
}

#[cfg(test)]
mod tests;
