//! The written text, read by a translation of Caddy's lexer.

use proptest::prelude::*;

use super::super::hostile;
use super::super::pieces::{END, MARKERS, VALUE};
use super::*;

/// `@` in the template stands for the value.
fn render(template: &str, value: &str) -> String {
    write(&template.replace('@', &format!("{VALUE}{value}{END}")))
}

/// A token, and its line as Caddy counts lines.
type Read = (String, usize);

/// Caddy's lexer (`lexer.next`, 2.6.2), translated statement by statement.
fn lex(text: &str) -> Vec<Read> {
    let mut chars = text.chars();
    let (mut tokens, mut line, mut skipped) = (Vec::new(), 1, 0);
    'token: loop {
        let (mut val, mut at) = (String::new(), 0);
        let (mut comment, mut quoted, mut back, mut escaped) = (false, false, false, false);
        loop {
            let Some(ch) = chars.next() else {
                if !val.is_empty() {
                    tokens.push((val, at));
                }
                return tokens;
            };
            if !escaped && !back && ch == '\\' {
                escaped = true;
                continue;
            }
            if quoted || back {
                if quoted && escaped {
                    if ch != '"' {
                        val.push('\\');
                    }
                    escaped = false;
                } else if (quoted && ch == '"') || (back && ch == '`') {
                    tokens.push((val, at));
                    continue 'token;
                }
                if ch == '\n' {
                    line += 1 + skipped;
                    skipped = 0;
                }
                val.push(ch);
                continue;
            }
            if ch.is_whitespace() {
                if ch == '\r' {
                    continue;
                }
                if ch == '\n' {
                    if escaped {
                        skipped += 1;
                        escaped = false;
                    } else {
                        line += 1 + skipped;
                        skipped = 0;
                    }
                    comment = false;
                }
                if !val.is_empty() {
                    tokens.push((val, at));
                    continue 'token;
                }
                continue;
            }
            comment |= ch == '#' && val.is_empty();
            if comment {
                continue;
            }
            if val.is_empty() {
                at = line;
                if ch == '"' {
                    quoted = true;
                    continue;
                }
                if ch == '`' {
                    back = true;
                    continue;
                }
            }
            if escaped {
                val.push('\\');
                escaped = false;
            }
            val.push(ch);
        }
    }
}

/// The texts of the tokens, with `/` before each that begins a line (`Dispenser.isNewLine`).
fn read(text: &str) -> Vec<String> {
    let tokens = lex(text);
    let begins_line = |i: usize| {
        i == 0 || {
            let (before, line) = &tokens[i - 1];
            line + before.matches('\n').count() < tokens[i].1
        }
    };
    tokens
        .iter()
        .enumerate()
        .map(|(i, (text, _))| if begins_line(i) { format!("/{text}") } else { text.clone() })
        .collect()
}

/// What Caddy must read: the value, with its braces encoded.
fn readable(value: &str) -> String {
    value.replace('{', "%7B").replace('}', "%7D")
}

#[test]
fn plain_values_and_templates_stay_as_they_are() {
    assert_eq!(render("to @:80 # @\n", "10.0.0.1"), "to 10.0.0.1:80 # 10.0.0.1\n");
    let odd = "a \\\n b\\c \"d\\\"e\\f\" `g\\` # h\\\ni\\ j {$K} \\\\ \"{\" x\"y\n";
    assert_eq!(write(odd), odd);
}

#[test]
fn each_value_gets_the_quotes_it_needs() {
    for (template, value, expected) in [
        ("x @ y", "", "x \"\" y"),
        ("x @ y", "a b", "x \"a b\" y"),
        ("x p@s y", "a\"b", "x \"pa\\\"bs\" y"),
        ("x @ y", "end\\", "x `end\\` y"),
        ("x \"@\" y", "end\\", "x `end\\` y"),
        ("x \"@\" y", "`end\\", "x \"`end%5C\" y"),
        ("x `@` y", "a`b", "x \"a`b\" y"),
        ("x `@` y", "a`\\\"b", "x \"a`\\%22b\" y"),
        ("x \"@\" y", "}", "x \"%7D\" y"),
        ("x {@} y", "$HOME", "x \"{%24HOME}\" y"),
        ("x \"{@}\" y", "$HOME", "x \"{%24HOME}\" y"),
        ("x @{p} y", "a\\", "x \"a%5C{p}\" y"),
        ("x # @\ny", "a\\\nb {$C}", "x # a%5C%0Ab %7B%24C%7D\ny"),
        ("x \\\n @ y", "a\nb", "x \\\n \"a%0Ab\" y"),
        ("x @\"q\" y", "", "x \"\\\"q\\\"\" y"),
        ("x \\@ y", "\"", "x `\\\"` y"),
        ("x \"\\@\" y", "", "x `\\` y"),
    ] {
        assert_eq!(render(template, value), expected, "{template} with {value:?}");
    }
}

proptest! {
    #[test]
    fn every_value_reads_back_wherever_it_stands(v in hostile::value()) {
        let v: String = v.replace(MARKERS, "");
        let own = |s: &str| vec!["/x".to_owned(), s.to_owned(), "y".to_owned(), "/z".to_owned()];
        // A value with both fits into neither kind of quotes.
        for v in [v.replace('`', ""), v.replace('\\', "")] {
            let s = readable(&v);
            prop_assert_eq!(read(&render("x @ y\nz", &v)), own(&s));
            prop_assert_eq!(read(&render("x p@s y\nz", &v)), own(&format!("p{s}s")));
            prop_assert_eq!(read(&render("x @@ y\nz", &v)), own(&format!("{s}{s}")));
            prop_assert_eq!(read(&render("x @#\" y\nz", &v)), own(&format!("{s}#\"")));
            prop_assert_eq!(read(&render("x `@` y\nz", &v)), own(&s));
            prop_assert_eq!(read(&render("x \"<@>\" y\nz", &v)), own(&format!("<{s}>")));
            prop_assert_eq!(read(&render("x \"a\\\"@\" y\nz", &v)), own(&format!("a\"{s}")));
            prop_assert_eq!(read(&render("x \\\n @ y\nz", &v)), own(&s.replace('\n', "%0A")));
        }
        let s = readable(&v.replace('`', ""));
        prop_assert_eq!(read(&render("x \\@ y\nz", &v.replace('`', ""))), own(&format!("\\{s}")));
        prop_assert_eq!(read(&render("x \"\\@\" y\nz", &v.replace('`', ""))), own(&format!("\\{s}")));
        prop_assert_eq!(read(&render("x y # @\nz", &v)), vec!["/x", "y", "/z"]);
        prop_assert_eq!(read(&render("x y #@", &v)), vec!["/x", "y"]);
    }

    /// In any template a value neither adds nor removes a token, nor moves one to another line, nor adds a brace.
    #[test]
    fn no_value_changes_the_tokens_around_it(
        template in "[ax@@ \\n\"`#\\\\{$]{0,20}",
        v in hostile::value(),
    ) {
        let v: String = v.replace(MARKERS, "");
        let shape = |text: &str| {
            let lines: Vec<_> = read(text).iter().map(|token| token.starts_with('/')).collect();
            lines
        };
        let (plain, hostile) = (render(&template, "x"), render(&template, &v.replace('/', "")));
        prop_assert_eq!(shape(&plain), shape(&hostile), "{:?} and {:?}", plain, hostile);
        for forbidden in ["{", "{$"] {
            prop_assert!(hostile.matches(forbidden).count() <= plain.matches(forbidden).count(), "{:?}", hostile);
        }
    }

    #[test]
    fn a_text_without_values_reads_as_it_is(text in "[ax \\n\\r\"`#\\\\{$]{0,30}") {
        prop_assert_eq!(read(&write(&text)), read(&text));
    }
}
