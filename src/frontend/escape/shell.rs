//! Variables, `NAME=value` on a line, in what a POSIX shell and systemd's `EnvironmentFile=` have in common; and Docker's
//! `--env-file` too, as long as a value needs no quotes, since Docker knows none.
//!
//! After section 2.2 of the POSIX shell language, and `parse_env_file_internal` in systemd's `src/basic/env-file.c`:
//! double quotes mean the same to both, with `\"`, `\\`, `\$` and `` \` `` within them, and so do single quotes. systemd
//! takes quotes for quotes only right after `=` or another closing quote: a value that begins bare stays bare to the
//! end. It drops a variable whose value is no valid UTF-8, or holds a control character other than tab and newline, or
//! a noncharacter; these become `%XX`.
//!
//! This is not the whole language of the shell: a value in a here-document or a command substitution is not safe.

use super::{Piece, percent, pieces};

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

/// Where in the syntax the writer stands.
#[derive(Clone, Copy)]
enum Place {
    /// A word could start here: the first of its line or command, or another.
    Start { first: bool },
    /// In a word, outside quotes.
    Bare,
    /// In a word which the template wrote without quotes, and which a value in it has made need them.
    Requoted,
    /// In the template's double quotes.
    Double,
    /// In the template's single quotes.
    Single,
    /// In a comment.
    Comment,
}

/// The word the writer stands in.
#[derive(Clone, Copy, Default)]
struct Word {
    /// It is the first of its line or command.
    first: bool,
    /// It has had its `=`.
    assigned: bool,
    /// Where in the output its last stretch without quotes begins.
    bare: usize,
}

struct Writer {
    out: String,
    place: Place,
    word: Word,
    /// The character before was a backslash of the template's that still lacks its partner.
    escaped: bool,
}

impl Writer {
    /// Takes one character of the template's own text.
    fn text(&mut self, c: char) {
        if std::mem::take(&mut self.escaped) {
            // In double quotes a backslash stays before what it does not escape.
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

    /// A character of the template's within a word, outside its quotes.
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

    /// Takes one value.
    fn value(&mut self, value: &str) {
        if std::mem::take(&mut self.escaped) {
            // The template's backslash stands for itself; it must not pair with the value.
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
                // Single quotes cannot hold their own kind: it stands between them in double quotes.
                for c in value.chars() {
                    match c {
                        '\'' => self.out.push_str("'\"'\"'"),
                        c => self.plain(c),
                    }
                }
            }
            Place::Comment => {
                for c in value.chars() {
                    // A backslash at its end would have some versions of systemd take the next line for its second.
                    if c.is_control() || c == '\\' { percent(&mut self.out, c) } else { self.out.push(c) }
                }
            }
            Place::Requoted | Place::Double | Place::Start { .. } => self.encode(value),
        }
    }

    /// Where a variable's name, or a command's, is expected.
    fn name(&mut self, value: &str) {
        self.out.extend(value.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
    }

    /// Whether a value means itself here without quotes. Brackets are a pattern where words are expanded to file names.
    fn is_bare(&self, value: &str) -> bool {
        let assigned = self.word.first && self.word.assigned;
        let safe =
            |b: u8| b.is_ascii_alphanumeric() || b"_./:@%+,=-".contains(&b) || (assigned && (b == b'[' || b == b']'));
        // An empty value is nothing in the middle of a word, and needs quotes to be a word of its own.
        value.bytes().all(safe) && (assigned || !value.is_empty() || self.out.len() > self.word.bare)
    }

    /// Puts double quotes around the last stretch of the word, without changing how it reads.
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
        // systemd means ASCII's control characters only.
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
mod tests {
    use proptest::prelude::*;

    use super::super::{END, MARKERS, VALUE, hostile};
    use super::*;

    fn render(template: &str, value: &str) -> String {
        write(&template.replace('@', &format!("{VALUE}{value}{END}")))
    }

    /// The variables that systemd reads, written from `parse_env_file_internal`, state by state.
    fn systemd(text: &str) -> Vec<(String, String)> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            PreKey,
            Key,
            PreValue,
            Value,
            ValueEscape,
            Single,
            Double,
            DoubleEscape,
            Comment,
            CommentEscape,
        }
        let (mut state, mut key, mut value, mut read) = (State::PreKey, String::new(), String::new(), Vec::new());
        for c in text.chars().chain(['\n']) {
            let newline = matches!(c, '\n' | '\r');
            let ends = newline && matches!(state, State::PreValue | State::Value);
            state = match state {
                _ if ends => {
                    if state == State::Value {
                        value.truncate(value.trim_end_matches([' ', '\t']).len());
                    }
                    read.push((std::mem::take(&mut key), std::mem::take(&mut value)));
                    State::PreKey
                }
                State::PreKey if matches!(c, '#' | ';') => State::Comment,
                State::PreKey if c.is_ascii_whitespace() => State::PreKey,
                State::PreKey | State::Key if !newline && c != '=' => {
                    key.push(c);
                    State::Key
                }
                State::PreKey | State::Key if c == '=' => State::PreValue,
                State::PreKey | State::Key => {
                    key.clear();
                    State::PreKey
                }
                State::PreValue if c == '\'' => State::Single,
                State::PreValue if c == '"' => State::Double,
                State::PreValue | State::Value if c == '\\' => State::ValueEscape,
                State::PreValue if matches!(c, ' ' | '\t') => State::PreValue,
                State::PreValue | State::Value => {
                    value.push(c);
                    State::Value
                }
                State::ValueEscape => {
                    if !newline {
                        value.push(c);
                    }
                    State::Value
                }
                State::Single if c == '\'' => State::PreValue,
                State::Double if c == '"' => State::PreValue,
                State::Double if c == '\\' => State::DoubleEscape,
                State::Single | State::Double => {
                    value.push(c);
                    state
                }
                State::DoubleEscape => {
                    if matches!(c, '"' | '\\' | '`' | '$') {
                        value.push(c);
                    } else if c != '\n' {
                        value.extend(['\\', c]);
                    }
                    State::Double
                }
                State::Comment if c == '\\' => State::CommentEscape,
                State::Comment if newline => State::PreKey,
                State::Comment | State::CommentEscape => State::Comment,
            };
        }
        assert!(state == State::PreKey, "{text:?} ends in the middle");
        read
    }

    /// What both must read: the value, but for what systemd drops.
    fn readable(value: &str) -> String {
        let mut out = String::new();
        for c in value.chars() {
            let kept = !c.is_ascii_control() || c == '\t' || c == '\n';
            if kept && u32::from(c) & 0xFFFE != 0xFFFE && !('\u{FDD0}'..='\u{FDEF}').contains(&c) {
                out.push(c);
            } else {
                c.to_string().bytes().for_each(|b| out += &format!("%{b:02X}"));
            }
        }
        out
    }

    #[test]
    fn quotes_are_put_where_they_are_needed() {
        for (template, value, expected) in [
            ("A=@\n", "10.0.0.1:80", "A=10.0.0.1:80\n"),
            ("A=@,@\n", "[::1]:80", "A=[::1]:80,[::1]:80\n"),
            ("A=x@y\n", "a b", "A=\"xa by\"\n"),
            ("A=@\n", "", "A=\n"),
            ("A=@", "$x\"`\\'", "A=\"\\$x\\\"\\`\\\\'\""),
            ("A='@'\n", "it's", "A='it'\"'\"'s'\n"),
            ("A='x'y@\n", "a b", "A='x'\"ya b\"\n"),
            ("A=\\a\\$@\n", " ", "A=\"a\\$ \"\n"),
            ("A=x@'y'\n", " ", "A=\"x \"'y'\n"),
            ("@=1\n", "a-b; rm", "a_b__rm=1\n"),
            ("export A=@ @\n", "[x]", "export A=\"[x]\" \"[x]\"\n"),
            ("# @\nA=1\n", "a\nB=2\\", "# a%0AB=2%5C\nA=1\n"),
        ] {
            assert_eq!(render(template, value), expected, "{template:?} {value:?}");
        }
    }

    proptest! {
        #[test]
        fn systemd_reads_every_value_back(v in hostile::value()) {
            let v = v.replace(MARKERS, "");
            let r = readable(&v);
            for (template, expected) in [
                ("A=@\nZ=1\n", r.clone()),
                ("A=\"@\"\nZ=1\n", r.clone()),
                ("A='@'\nZ=1\n", r.clone()),
                ("A=\"x @ $y\\\"\"\nZ=1\n", format!("x {r} $y\"")),
            ] {
                let read = systemd(&render(template, &v));
                prop_assert_eq!(read, [("A".to_owned(), expected), ("Z".to_owned(), "1".to_owned())], "{}", template);
            }
            let read = systemd(&render("# @\n; @\nZ=1\n", &v));
            prop_assert_eq!(read, [("Z".to_owned(), "1".to_owned())]);
        }

        #[test]
        fn a_value_in_a_word_needs_no_care_of_the_template(v in hostile::value(), bare in "[a-z:/]{0,3}") {
            let v = v.replace(MARKERS, "");
            let text = render(&format!("A={bare}@{bare}@{bare}\nZ=1\n"), &v);
            let r = readable(&v);
            let read = systemd(&text);
            prop_assert_eq!(&read[0].1, &format!("{bare}{r}{bare}{r}{bare}"), "{}", text);
            prop_assert_eq!(read.len(), 2);
        }
    }
}
