//! A Caddyfile, after `lexer.next` in Caddy's `caddyconfig/caddyfile/lexer.go` (2.6.2).
//!
//! A token ends at Unicode white space. `"` and `` ` `` quote only at the start of a token. Within `"` a backslash escapes
//! a quote, and is literal before everything else, another backslash included: so an odd number of backslashes cannot be
//! written before a quote or at the end. Within `` ` `` everything is literal. Without quotes a backslash joins lines, and
//! is literal inside a line. `#` opens a comment only where a token could start, and a backslash anywhere in a comment
//! joins the next line to the one before.
//!
//! Two things are read even within quotes: `{$NAME}`, which is replaced before the text is split into tokens, in comments
//! too (`replaceEnvVars` in `parse.go`), and placeholders, which are replaced while Caddy runs, and in which a backslash
//! escapes a brace (`Replacer.replace`). Besides, the parser takes a quoted brace for one that opens a block. So braces of
//! a value become `%7B` and `%7D`, its `$` after a `{` of the template becomes `%24`, and its backslash before a brace of
//! the template becomes `%5C`.

use super::pieces::{Piece, percent, pieces};

/// Encodes the marked values of a rendered configuration for their places.
pub(super) fn write(marked: &str) -> String {
    let mut writer = Writer { out: String::with_capacity(marked.len()), ..Writer::default() };
    for piece in pieces(marked) {
        match piece {
            Piece::Text(text) => text.chars().for_each(|c| writer.text(c)),
            Piece::Value(value) | Piece::Literal(value) => writer.value(value),
        }
    }
    writer.finish()
}

/// The writer's place in the syntax.
#[derive(Default)]
enum Place {
    /// A token could start here.
    #[default]
    Start,
    /// In a token, which is written when it ends.
    Token(Token),
    /// In a comment.
    Comment,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Bare,
    Double,
    Back,
}

/// A character of a token as Caddy should read it.
#[derive(Clone, Copy)]
struct Unit {
    c: char,
    /// Whether it belongs to a value; otherwise it belongs to the template.
    is_value: bool,
}

struct Token {
    form: Form,
    /// As the template wrote it, with the values unencoded.
    raw: String,
    /// As Caddy should read it.
    content: Vec<Unit>,
    /// Whether it contains a value, even an empty one.
    has_value: bool,
    /// Whether it begins with a value.
    starts_with_value: bool,
    /// Whether an empty value follows a backslash, which would then escape what comes after the value.
    needs_quotes: bool,
    /// The length of the content before the last empty value; 0 if there is none.
    seam: usize,
}

#[derive(Default)]
struct Writer {
    out: String,
    place: Place,
    /// A backslash of the template has been read that may begin an escape.
    escaped: bool,
    /// Whether this line continues the one before. Caddy miscounts lines if a token then contains a line break.
    continued: bool,
}

impl Writer {
    /// Writes one character of the template's own text.
    fn text(&mut self, c: char) {
        match &mut self.place {
            Place::Start => self.start(c),
            Place::Token(token) if token.form == Form::Bare && c.is_whitespace() && c != '\r' => {
                // Before white space other than the end of a line the lexer ignores the backslash.
                let joins = std::mem::take(&mut self.escaped) && c == '\n';
                let is_as_written = self.end_token();
                if joins && !is_as_written {
                    self.out.push('\\');
                }
                self.escaped = joins;
                self.white(c);
            }
            Place::Token(token) => {
                token.raw.push(c);
                if !self.escaped && c == '\\' && token.form != Form::Back {
                    self.escaped = true;
                    return;
                }
                let closes = match token.form {
                    Form::Bare => false,
                    Form::Double => c == '"' && !self.escaped,
                    Form::Back => c == '`',
                };
                if closes {
                    self.end_token();
                    return;
                }
                if token.form == Form::Bare && c == '\r' {
                    return;
                }
                if std::mem::take(&mut self.escaped) && !(token.form == Form::Double && c == '"') {
                    token.push_text('\\');
                }
                token.push_text(c);
            }
            Place::Comment => {
                if c == '\n' {
                    self.place = Place::Start;
                    self.white(c);
                } else {
                    self.escaped |= c == '\\';
                    self.out.push(c);
                }
            }
        }
    }

    /// Between tokens. A backslash is written only once it is clear that it has a meaning.
    fn start(&mut self, c: char) {
        match c {
            '\\' if !self.escaped => self.escaped = true,
            '\n' if self.escaped => {
                self.out.push('\\');
                self.white(c);
            }
            c if c.is_whitespace() => self.white(c),
            '#' => {
                if self.escaped {
                    self.out.push('\\');
                }
                self.out.push('#');
                self.place = Place::Comment;
            }
            '"' => {
                let raw = if self.escaped { "\\\"" } else { "\"" };
                self.place = Place::Token(Token::new(Form::Double, raw));
            }
            '`' => {
                self.escaped = false;
                self.place = Place::Token(Token::new(Form::Back, "`"));
            }
            c => {
                let mut token = Token::new(Form::Bare, "");
                if std::mem::take(&mut self.escaped) {
                    token.raw.push('\\');
                    token.push_text('\\');
                }
                token.raw.push(c);
                token.push_text(c);
                self.place = Place::Token(token);
            }
        }
    }

    /// White space between tokens.
    fn white(&mut self, c: char) {
        if c == '\n' {
            self.continued = std::mem::take(&mut self.escaped);
        }
        self.out.push(c);
    }

    /// Writes one value.
    fn value(&mut self, value: &str) {
        if let Place::Start = self.place {
            let mut token = Token::new(Form::Bare, "");
            token.starts_with_value = !self.escaped;
            if self.escaped {
                token.raw.push('\\');
            }
            self.place = Place::Token(token);
        }
        match &mut self.place {
            Place::Token(token) => {
                // A backslash of the template must be read literally and not escape a character of the value.
                if std::mem::take(&mut self.escaped) {
                    token.push_text('\\');
                    token.needs_quotes |= value.is_empty();
                }
                if value.is_empty() {
                    token.seam = token.content.len();
                }
                token.has_value = true;
                token.raw.push_str(value);
                token.content.extend(value.chars().map(|c| Unit { c, is_value: true }));
            }
            Place::Start | Place::Comment => {
                if value.is_empty() && self.out.ends_with('{') {
                    self.out.push(' ');
                }
                for c in value.chars() {
                    if "\\{}$\r\n".contains(c) {
                        percent(&mut self.out, c);
                    } else {
                        self.out.push(c);
                    }
                }
            }
        }
    }

    /// Writes the token that has ended. Returns whether it is written as in the template, including a last backslash.
    fn end_token(&mut self) -> bool {
        let Place::Token(token) = std::mem::take(&mut self.place) else { unreachable!("only called in a token") };
        let is_as_written = token.reads_as_written();
        if is_as_written {
            self.out.push_str(&token.raw);
        } else {
            let content = token.encoded(self.continued);
            self.out.push_str(&quoted(&content, token.form));
        }
        is_as_written
    }

    fn finish(mut self) -> String {
        match self.place {
            Place::Token(_) => {
                self.end_token();
            }
            Place::Start if self.escaped => self.out.push('\\'),
            Place::Start | Place::Comment => {}
        }
        self.out
    }
}

impl Token {
    fn new(form: Form, raw: &str) -> Self {
        Self {
            form,
            raw: raw.to_owned(),
            content: Vec::new(),
            has_value: false,
            starts_with_value: false,
            needs_quotes: false,
            seam: 0,
        }
    }

    fn push_text(&mut self, c: char) {
        // A `{` and a `$` of the template must not join where an empty value is between them.
        let is_seam = self.seam == self.content.len();
        if let Some(before) = self.content.last_mut().filter(|before| before.c == '{' && c == '$' && is_seam) {
            before.is_value = true;
        }
        self.content.push(Unit { c, is_value: false });
    }

    /// Whether its values need neither quotes nor encoding.
    fn reads_as_written(&self) -> bool {
        let safe = |c: char| c.is_ascii_alphanumeric() || "_.:/@%+=,-[]".contains(c);
        let starts_well = !self.starts_with_value || self.content.first().is_some_and(|unit| unit.is_value);
        !self.has_value
            || (self.form == Form::Bare
                && !self.needs_quotes
                && starts_well
                && self.content.iter().all(|unit| !unit.is_value || safe(unit.c)))
    }

    /// Its content, in which everything is encoded that has a meaning within quotes too.
    fn encoded(&self, continued: bool) -> Vec<Unit> {
        let mut encoded = Vec::with_capacity(self.content.len() + 2);
        for (i, unit) in self.content.iter().enumerate() {
            let is_template = |at: Option<&Unit>, chars: &str| at.is_some_and(|u| !u.is_value && chars.contains(u.c));
            let has_meaning = unit.is_value
                && match unit.c {
                    '{' | '}' => true,
                    '$' => is_template(i.checked_sub(1).map(|before| &self.content[before]), "{"),
                    '\\' => is_template(self.content.get(i + 1), "{}"),
                    '\n' => continued,
                    _ => false,
                };
            if has_meaning {
                push_percent(&mut encoded, unit.c);
            } else {
                encoded.push(*unit);
            }
        }
        encoded
    }
}

/// A token's content within the template's own kind of quotes, or within the other kind if only that can hold it.
fn quoted(content: &[Unit], form: Form) -> String {
    let fits_back = !content.iter().any(|unit| unit.c == '`');
    let (double, fits_double) = double_quoted(content);
    if fits_back && (form == Form::Back || !fits_double) {
        return format!("`{}`", content.iter().map(|unit| unit.c).collect::<String>());
    }
    double
}

/// A token's content within `"`, and whether it is literal: what such quotes cannot hold is encoded.
fn double_quoted(content: &[Unit]) -> (String, bool) {
    let (mut out, mut fits, mut is_odd) = (String::from("\""), true, false);
    for unit in content {
        match unit.c {
            '"' if is_odd && unit.is_value => {
                percent(&mut out, '"');
                fits = false;
            }
            '"' => {
                if is_odd {
                    out.pop();
                    percent(&mut out, '\\');
                    fits = false;
                }
                out.push_str("\\\"");
            }
            c => out.push(c),
        }
        is_odd = unit.c == '\\' && !is_odd;
    }
    if is_odd {
        out.pop();
        percent(&mut out, '\\');
        fits = false;
    }
    out.push('"');
    (out, fits)
}

fn push_percent(units: &mut Vec<Unit>, c: char) {
    let mut text = String::new();
    percent(&mut text, c);
    units.extend(text.chars().map(|c| Unit { c, is_value: true }));
}

#[cfg(test)]
mod tests;
