use proptest::prelude::*;

use super::super::hostile;
use super::super::pieces::{END, MARKERS, VALUE};
use super::*;

fn render(template: &str, value: &str) -> String {
    write(&template.replace('@', &format!("{VALUE}{value}{END}")))
}

/// The variables that systemd reads, after `parse_env_file_internal`, state by state.
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
    assert!(state == State::PreKey, "{text:?} ends within a variable");
    read
}

/// What both must read: the value, with what systemd drops encoded.
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
fn quotes_are_added_where_they_are_needed() {
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
    fn a_value_reads_back_in_the_middle_of_a_word_too(v in hostile::value(), bare in "[a-z:/]{0,3}") {
        let v = v.replace(MARKERS, "");
        let text = render(&format!("A={bare}@{bare}@{bare}\nZ=1\n"), &v);
        let r = readable(&v);
        let read = systemd(&text);
        prop_assert_eq!(&read[0].1, &format!("{bare}{r}{bare}{r}{bare}"), "{}", text);
        prop_assert_eq!(read.len(), 2);
    }
}
