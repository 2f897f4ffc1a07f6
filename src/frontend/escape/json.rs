//! JSON (RFC 8259): outside a string a value is a literal of its own, inside one its escaped content.

use super::{Piece, pieces};

/// Encodes the marked values of a rendered JSON text for their places.
pub(super) fn write(marked: &str) -> String {
    let mut writer = Writer { out: String::with_capacity(marked.len()), ..Writer::default() };
    for piece in pieces(marked) {
        match piece {
            Piece::Text(text) => writer.text(text),
            Piece::Value(value) => writer.literal(&literal(value)),
            Piece::Literal(json) if writer.in_string => writer.literal(&literal(json)),
            Piece::Literal(json) => writer.out.push_str(json),
        }
    }
    writer.out
}

fn literal(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

#[derive(Default)]
struct Writer {
    out: String,
    in_string: bool,
    /// The template's text ended in a backslash whose partner is still to come.
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
            // The template's backslash stands for itself; it must not pair with the value.
            self.out.push('\\');
        }
        self.out.push_str(if self.in_string { &literal[1..literal.len() - 1] } else { literal });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::{END, LITERAL, VALUE, hostile};
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

    proptest! {
        #[test]
        fn every_value_reads_back_wherever_it_stands(v in hostile::value()) {
            let v: String = v.replace(super::super::MARKERS, "");
            prop_assert_eq!(render(r#"{"a": @, "z": 1}"#, &v), json!({"a": v, "z": 1}));
            prop_assert_eq!(render(r#"{"a": "@", "z": 1}"#, &v), json!({"a": v, "z": 1}));
            prop_assert_eq!(render(r#"{"a": "<\"@\n>", "z": 1}"#, &v), json!({"a": format!("<\"{v}\n>"), "z": 1}));
            prop_assert_eq!(render(r#"["\@", "@@"]"#, &v), json!([format!("\\{v}"), format!("{v}{v}")]));
            prop_assert_eq!(render(r#"["\\@", @]"#, &v), json!([format!("\\{v}"), v]));
            prop_assert_eq!(render(r#"{@: 0}"#, &v), json!({v: 0}));
        }
    }
}
