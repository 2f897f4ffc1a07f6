//! Contextual escaping: each value that a template writes is encoded for the place where it is written.
//!
//! The engine writes each value that could have a meaning in the frontend's syntax between two markers. Once the whole
//! text is rendered, a lexer of that syntax goes through it and encodes every marked value for its place: a token of its
//! own, the middle of a token, quotes, a comment. The frontend then reads the literal value back, and no value of a tag
//! can end a token, add a directive or leave a comment, wherever the template has the expression.
//!
//! The meaning of a token is up to the template: a value that is used as the name of a directive, as a regular expression
//! or as a key of nginx's `map` is read as that.
//!
//! A new syntax is a file here with a `write` function, a variant of [`Escape`] and a line in `Escape::apply`.

mod apache;
mod caddyfile;
mod haproxy;
#[cfg(test)]
pub(super) mod hostile;
mod hosts;
mod json;
mod nginx;
mod pieces;
mod shell;
mod vcl;

use std::fmt::Write as _;

use serde::Deserialize;
use upon::fmt::{Formatter, Result as FmtResult};
use upon::{Engine, Value};

pub(super) use self::pieces::find_marker;
use self::pieces::{END, LITERAL, VALUE, without_markers};
use super::functions;

/// The syntax for which values are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Escape {
    /// No encoding: values are written as they are, for plain text that nothing parses.
    None,
    /// nginx's configuration.
    ///
    /// nginx has no escape for a literal `$` where variables are allowed, nor for control characters other than tab,
    /// carriage return and newline: these become `%24` and `%XX`. So does a `{` of a value right after a `$` of the
    /// template. Values in `*_by_lua_block` are not supported: Lua is another language. nginx refuses a token or comment
    /// of 4,096 bytes or more (`NGX_CONF_BUFFER`), however it is written.
    Nginx,
    /// Apache's configuration.
    ///
    /// Apache has no escape for a literal `${`, nor for control characters other than the tab: the brace becomes `%7B`, or
    /// the `$` becomes `%24` if the brace is the template's, and control characters become `%XX`. So does a backslash of a
    /// value at the end of a comment or of unclosed quotes, where it would join the next line.
    Apache,
    /// A Caddyfile.
    ///
    /// Braces of a value become `%7B` and `%7D`. A value with both a backtick and a backslash may have a `\` or `"` written
    /// as `%5C` or `%22`.
    Caddyfile,
    /// HAProxy's configuration.
    ///
    /// NUL, which HAProxy cannot read, becomes `%00`. A `$` of the template right before a value, or around it as `${…}`,
    /// becomes a literal one. Where HAProxy reads a word as a log format, the template must double each `%`:
    /// `{{ value | replace: "%", "%%" }}`. Maps have another syntax, in which values must not contain white space.
    Haproxy,
    /// The lines and words of `/etc/hosts` and similar files: white space, `#` and control characters become `%XX`.
    Hosts,
    /// Lines of `NAME=value` for a POSIX shell and for systemd's `EnvironmentFile=`; also for Docker's `--env-file`, if no
    /// value needs quotes.
    ///
    /// In a name, everything but ASCII letters and digits becomes `_`. In a value, control characters other than tab and
    /// newline, and noncharacters, become `%XX`. Here-documents and command substitutions are not supported.
    Shell,
    /// Varnish's VCL. Outside a string a value becomes a string literal; words of the language, such as names from the
    /// functions `vcl_director` and `vcl_backend`, are written with `raw`.
    ///
    /// A string that contains quotes or newlines becomes a long string, `{"…"}` or `"""…"""`. VCL has no form for NUL, nor
    /// for a text that contains both `"}` and `"""`: these become `%00` and `%22}`. So do control characters in comments,
    /// `*` in `/* … */`, and everything but letters and digits in inline C.
    Vcl,
    /// JSON, and YAML that uses JSON's strings. Outside a string a value becomes a string literal with its quotes, inside
    /// one its escaped content. An absent value is written as nothing; the formatter `json` writes it as `null`.
    Json,
}

impl Escape {
    /// Sets what the engine writes for an expression, and the formatters `raw` and `json`.
    /// `has_backslash`: a text of the templates has one.
    pub(super) fn install(self, engine: &mut Engine<'static>, has_backslash: bool) {
        match self {
            Self::None => engine.set_default_formatter(&write_plain),
            // After a backslash of the template even a letter has a meaning, so every value must be marked.
            Self::Nginx if has_backslash => engine.set_default_formatter(&write_marked),
            Self::Nginx => engine.set_default_formatter(&write_marked_unless_bare),
            // Even a plain text may need quotes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_forge_a_marker() {
        for escape in [Escape::Nginx, Escape::Json] {
            for template in ["{{ v }}", "{{ v | raw }}", "{{ v | json }}"] {
                let mut engine = Engine::new();
                escape.install(&mut engine, template.contains('\\'));
                engine.add_template("t", template).expect("it compiles");
                let hostile = format!("x{END}; y{VALUE}z{LITERAL}");
                let rendered =
                    engine.template("t").render(upon::value! { v: hostile }).to_string().expect("it renders");
                assert_eq!(find_marker(&escape.apply(rendered)), None, "{escape:?} {template}");
            }
        }
    }
}
