//! Contextual escaping: each value written by a template is encoded for the place where it stands.
//!
//! The engine writes a value that could mean something in the frontend's syntax between two markers. Once the whole
//! text is rendered, a lexer of that syntax walks it and encodes every marked value for its place: a token of its own,
//! the middle of a token, a quoted text, a comment. So the frontend reads the literal value back, and no tag value can
//! end a token, add a directive or leave a comment, wherever the template's author put the expression.
//!
//! What a token then *means* stays with the author: a value used as a directive's name, as a regular expression or as
//! the key of nginx's `map` is read as one.
//!
//! A new syntax is one file here with a `write` function, and the lines in this file that the compiler asks for.

mod apache;
mod caddyfile;
mod haproxy;
mod hosts;
mod json;
mod nginx;
mod shell;
mod vcl;

use std::fmt::Write as _;

use percent_encoding::percent_encode_byte;
use serde::Deserialize;
use upon::fmt::{Formatter, Result as FmtResult};
use upon::{Engine, Value};

use super::functions;

/// Opens a value. The markers are noncharacters, which Unicode sets aside for a program's inner use
/// (The Unicode Standard, section 23.7).
const VALUE: char = '\u{FDD0}';
/// Closes either kind.
const END: char = '\u{FDD1}';
/// Opens a complete JSON literal.
const LITERAL: char = '\u{FDD2}';
const MARKERS: [char; 3] = [VALUE, END, LITERAL];

/// The syntax for which values are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Escape {
    /// Values are written as they are: for plain text that nothing parses.
    None,
    /// nginx's configuration.
    ///
    /// nginx has no way to write a literal `$` where variables are allowed, nor one to write a control character other
    /// than tab, carriage return and newline: these become `%24` and `%XX`. So does a value's `{` right after the
    /// template's own `$`. Bodies of `*_by_lua_block` are another language: no value belongs there.
    /// nginx refuses a token or comment of 4,096 bytes or more (`NGX_CONF_BUFFER`), however it is written.
    Nginx,
    /// Apache's configuration.
    ///
    /// It has no way to write a literal `${`, nor a control character other than the tab: the brace becomes `%7B`, or the
    /// `$` `%24` where the brace is the template's own, and control characters become `%XX`. So does a value's backslash at
    /// the end of a comment, or of quotes that nothing closes, where it would join the next line.
    Apache,
    /// A Caddyfile.
    Caddyfile,
    /// HAProxy's configuration.
    ///
    /// NUL, which no HAProxy text can hold, becomes `%00`. A value right after the template's own `$` or within its
    /// `${` makes that `$` a literal one. Where HAProxy reads a word as a log-format, `%` is the template's concern:
    /// `{{ value | replace: "%", "%%" }}`. Maps are another syntax: no value with white space belongs there.
    Haproxy,
    /// The lines and words of `/etc/hosts` and its kin: white space, `#` and control characters become `%XX`.
    Hosts,
    /// Variables for a POSIX shell and systemd's `EnvironmentFile=`, a `NAME=value` a line, and for Docker's `--env-file`
    /// where a value needs no quotes.
    ///
    /// In a name, what is no ASCII letter or digit becomes `_`; in a value, a control character other than tab and
    /// newline, and a noncharacter, become `%XX`. Nothing else of the shell's language is known.
    Shell,
    /// Varnish's VCL. Unconfined a string a value is a string literal: a word of the language, such as a name from the
    /// functions `vcl_director` and `vcl_backend`, is written with `raw`.
    ///
    /// A string that holds quotes or newlines becomes a long one, `{"…"}` or `"""…"""`. VCL has no way to write a NUL, nor a
    /// text in which both `"}` and `"""` occur: these become `%00` and `%22}`. So do control characters in comments, `*` in
    /// `/* … */`, and all that is no letter or digit in inline C.
    Vcl,
    /// JSON, and YAML that uses its strings: outside a string a complete string literal with its quotes, inside one the escaped content. An absent
    /// value (none) is written as nothing; the `json` formatter writes it as `null`.
    Json,
}

impl Escape {
    /// Sets what the engine writes for an expression, and the formatters `raw` and `json`.
    pub(super) fn install(self, engine: &mut Engine<'static>, text: &str) {
        match self {
            Self::None => engine.set_default_formatter(&write_plain),
            // After the template's own backslash even a letter means something: there every value must be looked at.
            Self::Nginx if text.contains('\\') => engine.set_default_formatter(&write_marked),
            Self::Nginx => engine.set_default_formatter(&write_marked_unless_bare),
            // Even the plainest text needs quotes outside a string.
            _ => engine.set_default_formatter(&write_marked),
        }
        engine.add_formatter("raw", write_raw);
        match self {
            Self::None => engine.add_formatter("json", write_json),
            _ => engine.add_formatter("json", write_marked_json),
        };
    }

    /// Encodes the marked values of a rendered text for their places.
    pub(super) fn apply(self, rendered: String) -> String {
        let write = match self {
            Self::None => return rendered,
            Self::Nginx => nginx::write,
            Self::Apache => apache::write,
            Self::Caddyfile => caddyfile::write,
            Self::Haproxy => haproxy::write,
            Self::Hosts => hosts::write,
            Self::Shell => shell::write,
            Self::Vcl => vcl::write,
            Self::Json => json::write,
        };
        if rendered.contains(END) { write(&rendered) } else { rendered }
    }
}

/// Where a template's text uses one of the markers, as a byte offset: such a text would be taken for a value.
pub(super) fn find_marker(text: &str) -> Option<usize> {
    text.find(MARKERS)
}

/// One stretch of a rendered text.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// The template's own text, and values that mean themselves anywhere.
    Text(&'a str),
    /// A value to be encoded.
    Value(&'a str),
    /// A complete JSON literal: in any syntax but JSON, a value like any other.
    Literal(&'a str),
}

/// Splits a rendered text at its markers.
fn pieces(mut rest: &str) -> impl Iterator<Item = Piece<'_>> {
    std::iter::from_fn(move || {
        let open = rest.chars().next()?;
        let is_value = matches!(open, VALUE | LITERAL);
        let body = if is_value { &rest[open.len_utf8()..] } else { rest };
        let end = if is_value { body.find(END) } else { body.find([VALUE, LITERAL]) }.unwrap_or(body.len());
        let (piece, after) = body.split_at(end);
        rest = if is_value { after.strip_prefix(END).unwrap_or(after) } else { after };
        Some(match open {
            VALUE => Piece::Value(piece),
            LITERAL => Piece::Literal(piece),
            _ => Piece::Text(piece),
        })
    })
}

/// Writes what a syntax cannot say as `%XX`, byte for byte.
fn percent(out: &mut String, c: char) {
    out.extend(c.encode_utf8(&mut [0; 4]).bytes().map(percent_encode_byte));
}

fn write_plain(f: &mut Formatter<'_>, value: &Value) -> FmtResult {
    match value {
        Value::List(_) => Err("a list cannot be written: use a loop, `join` or `json`".into()),
        Value::Map(_) => Err("a map cannot be written: name one of its fields, or use `json`".into()),
        plain => upon::fmt::default(f, plain),
    }
}

fn write_marked(f: &mut Formatter<'_>, value: &Value) -> FmtResult {
    match value {
        Value::String(text) => mark(f, VALUE, text),
        other => write_plain(f, other),
    }
}

fn write_marked_unless_bare(f: &mut Formatter<'_>, value: &Value) -> FmtResult {
    match value {
        Value::String(text) if nginx::is_bare(text) => Ok(f.write_str(text)?),
        other => write_marked(f, other),
    }
}

fn write_raw(f: &mut Formatter<'_>, value: &Value) -> FmtResult {
    match value {
        Value::String(text) => Ok(f.write_str(&without_markers(text))?),
        other => write_plain(f, other),
    }
}

fn write_json(f: &mut Formatter<'_>, value: &Value) -> FmtResult {
    Ok(write!(f, "{}", functions::to_json(value))?)
}

fn write_marked_json(f: &mut Formatter<'_>, value: &Value) -> FmtResult {
    mark(f, LITERAL, &functions::to_json(value).to_string())
}

fn mark(f: &mut Formatter<'_>, open: char, text: &str) -> FmtResult {
    f.write_char(open)?;
    f.write_str(&without_markers(text))?;
    Ok(f.write_char(END)?)
}

/// A value may hold any character, the markers included: they become the replacement character.
fn without_markers(text: &str) -> std::borrow::Cow<'_, str> {
    match text.find(MARKERS) {
        None => text.into(),
        Some(_) => text.replace(MARKERS, "\u{FFFD}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_split_at_its_markers() {
        let text = format!("a {VALUE}b{END}{VALUE}{END} c{LITERAL}[1]{END}");
        let expected =
            [Piece::Text("a "), Piece::Value("b"), Piece::Value(""), Piece::Text(" c"), Piece::Literal("[1]")];
        assert_eq!(pieces(&text).collect::<Vec<_>>(), expected);
        assert_eq!(pieces("").next(), None);
    }

    #[test]
    fn a_value_cannot_forge_a_marker() {
        for escape in [Escape::Nginx, Escape::Json] {
            for template in ["{{ v }}", "{{ v | raw }}", "{{ v | json }}"] {
                let mut engine = Engine::new();
                escape.install(&mut engine, template);
                engine.add_template("t", template).expect("it compiles");
                let hostile = format!("x{END}; y{VALUE}z{LITERAL}");
                let rendered =
                    engine.template("t").render(upon::value! { v: hostile }).to_string().expect("it renders");
                assert_eq!(find_marker(&escape.apply(rendered)), None, "{escape:?} {template}");
            }
        }
    }
}

/// Values that have broken somebody's configuration, and the strategy that makes more of their kind.
#[cfg(test)]
pub(super) mod hostile {
    use proptest::prelude::*;

    /// One of each kind.
    pub const SEEDS: &[&str] = &[
        "",
        "1; } server { listen 1;",
        "\"",
        "'",
        "\" ; x \"",
        "a\nb",
        "\n}\nserver { }",
        "\r\n\t",
        "# no comment",
        "\\",
        "trailing\\",
        "\\n",
        "\\\"",
        "${x}",
        "$x",
        "{x}",
        "{",
        "}",
        "%{",
        "%{d}T",
        "  leading",
        "trailing ",
        "größe ☃ 日本",
        "\u{0}\u{7}\u{7f}\u{85}",
        "\u{FEFF}\u{2028}",
        "*/ //",
        "</script>",
        "null",
        "plain",
    ];

    /// A seed, a mixture of the characters that mean something somewhere, or any text at all.
    pub fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::sample::select(SEEDS).prop_map(str::to_owned),
            "[ \\t\\r\\n;{}\"'#\\\\$%()ntr0aé]{0,12}",
            any::<String>(),
        ]
    }
}
