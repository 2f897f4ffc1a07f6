//! JSON (RFC 8259): outside a string a value becomes a literal of its own, inside one its escaped content.
//!
//! Within strings some characters that JSON allows become `\uXXXX`, because other programs read the file by other rules:
//! YAML forbids most control characters and takes U+0085, U+2028 and U+2029 for line breaks (YAML 1.2, sections 5.1 and
//! 5.4; 1.1 for the latter two), and Traefik runs a file through Go's templates, in which `{{` opens an action, before it
//! reads it as YAML.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::pieces::{Piece, pieces};

/// Encodes the marked values of a rendered JSON text for their places.
pub(super) fn write(marked: &str) -> String {
    let mut writer = Writer { out: String::with_capacity(marked.len()), ..Writer::default() };
    for piece in pieces(marked) {
        match piece {
            Piece::Text(text) => writer.text(text),
            Piece::Value(value) => writer.literal(&literal(value)),
            Piece::Literal(json) if writer.in_string => writer.literal(&literal(json)),
            Piece::Literal(json) => writer.out.push_str(&escape_risky(json)),
        }
    }
    writer.out
}

fn literal(value: &str) -> String {
    escape_risky(&serde_json::Value::from(value).to_string()).into_owned()
}

/// Escapes the characters in the strings of a JSON text that YAML or Go's templates would read in another way.
fn escape_risky(json: &str) -> Cow<'_, str> {
    let is_risky = |c: char| c == '{' || c.is_control() || "\u{2028}\u{2029}\u{FEFF}\u{FFFE}\u{FFFF}".contains(c);
    if !json.contains(is_risky) {
        return json.into();
    }
    let mut out = String::with_capacity(json.len() + 8);
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if in_string && is_risky(c) {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
        in_string ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
    }
    out.into()
}

#[derive(Default)]
struct Writer {
    out: String,
    in_string: bool,
    /// Whether the template's text ended in a backslash that escapes the next character.
    escaped: bool,
}

impl Writer {
    fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ => {}
            }
        }
        self.out.push_str(text);
    }

    fn literal(&mut self, literal: &str) {
        if std::mem::take(&mut self.escaped) {
            // A backslash of the template must be read literally and not escape a character of the value.
            self.out.push('\\');
        }
        self.out.push_str(if self.in_string { &literal[1..literal.len() - 1] } else { literal });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::hostile;
    use super::super::pieces::{END, LITERAL, MARKERS, VALUE};
    use super::*;

    fn render(template: &str, value: &str) -> Value {
        let text = template.replace('@', &format!("{VALUE}{value}{END}"));
        serde_json::from_str(&write(&text)).unwrap_or_else(|error| panic!("{error}: {}", write(&text)))
    }

    #[test]
    fn a_literal_stands_for_itself_outside_a_string_and_is_text_inside() {
        let list = format!("{LITERAL}[\"a\"]{END}");
        assert_eq!(write(&format!("{{\"x\": {list}}}")), r#"{"x": ["a"]}"#);
        assert_eq!(write(&format!("{{\"x\": \"{list}\"}}")), r#"{"x": "[\"a\"]"}"#);
    }

    #[test]
    fn a_value_is_literal_in_yaml_and_in_gos_templates_too() {
        let v = format!("{VALUE}{{{{ env \"X\" }}}}\u{85}\u{2028}\u{7f}{END}");
        let expected = r#""\u007b\u007b env \"X\" }}\u0085\u2028\u007f""#;
        assert_eq!(write(&format!("[{v}]")), format!("[{expected}]"));
        assert_eq!(write(&format!("{{ \"x\": \"{v}\" }}")), format!("{{ \"x\": {expected} }}"));
        let map = format!("{LITERAL}{{\"a\\\"{{{{\":{{\"b\":\"{{{{\"}}}}{END}");
        assert_eq!(write(&map), r#"{"a\"\u007b\u007b":{"b":"\u007b\u007b"}}"#);
    }

    proptest! {
        #[test]
        fn every_value_reads_back_wherever_it_stands(v in hostile::value()) {
            let v: String = v.replace(MARKERS, "");
            prop_assert_eq!(render(r#"{"a": @, "z": 1}"#, &v), json!({"a": v, "z": 1}));
            prop_assert_eq!(render(r#"{"a": "@", "z": 1}"#, &v), json!({"a": v, "z": 1}));
            prop_assert_eq!(render(r#"{"a": "<\"@\n>", "z": 1}"#, &v), json!({"a": format!("<\"{v}\n>"), "z": 1}));
            prop_assert_eq!(render(r#"["\@", "@@"]"#, &v), json!([format!("\\{v}"), format!("{v}{v}")]));
            prop_assert_eq!(render(r#"["\\@", @]"#, &v), json!([format!("\\{v}"), v]));
            prop_assert_eq!(render(r#"{@: 0}"#, &v), json!({v: 0}));
        }
    }
}
