//! With any value nginx finds the same tokens as with a harmless one, and reads the value back.

use proptest::prelude::*;

use super::super::hostile;
use super::super::pieces::{END, MARKERS, VALUE};
use super::*;

/// What nginx reads.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Semicolon,
    Open,
    Close,
}

/// The tokens of a text, after `ngx_conf_read_token`, with its flags, and independent of the writer under test.
fn tokenise(text: &str) -> Result<Vec<Token>, String> {
    let (mut tokens, mut word) = (Vec::new(), Vec::new());
    let (mut quoted, mut need_space, mut last_space, mut sharp, mut variable) = (false, false, true, false, false);
    let mut quote = None;
    for &ch in text.as_bytes() {
        let space = matches!(ch, b' ' | b'\t' | b'\r' | b'\n');
        if ch == b'\n' {
            sharp = false;
        }
        if sharp {
            continue;
        }
        if quoted {
            quoted = false;
            word.push(ch);
            continue;
        }
        if need_space {
            need_space = false;
            last_space = true;
            match ch {
                b';' => tokens.push(Token::Semicolon),
                b'{' => tokens.push(Token::Open),
                b')' => {}
                _ if space => {}
                _ => return Err(format!("unexpected {:?} after a quote", ch as char)),
            }
            if ch != b')' {
                continue;
            }
        }
        if last_space {
            if space {
                continue;
            }
            match ch {
                b';' => tokens.push(Token::Semicolon),
                b'{' => tokens.push(Token::Open),
                b'}' => tokens.push(Token::Close),
                b'#' => sharp = true,
                b'"' | b'\'' => (quote, last_space) = (Some(ch), false),
                _ => {
                    (quoted, variable, last_space) = (ch == b'\\', ch == b'$', false);
                    word.push(ch);
                }
            }
            continue;
        }
        if ch == b'{' && variable {
            word.push(ch);
            continue;
        }
        variable = ch == b'$';
        if ch == b'\\' || ch == b'$' {
            quoted = ch == b'\\';
            word.push(ch);
            continue;
        }
        let ends = if quote.is_some() { quote == Some(ch) } else { space || ch == b';' || ch == b'{' };
        if !ends {
            word.push(ch);
            continue;
        }
        tokens.push(Token::Word(unescape(&std::mem::take(&mut word))));
        (need_space, last_space) = (quote.is_some(), quote.is_none());
        match ch {
            b';' if quote.is_none() => tokens.push(Token::Semicolon),
            b'{' if quote.is_none() => tokens.push(Token::Open),
            _ => {}
        }
        quote = None;
    }
    if word.is_empty() && quote.is_none() { Ok(tokens) } else { Err("unexpected end of file".to_owned()) }
}

fn unescape(word: &[u8]) -> String {
    let mut out = Vec::new();
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        let pair = match (first, tail.first()) {
            (b'\\', Some(&c @ (b'"' | b'\'' | b'\\'))) => Some(c),
            (b'\\', Some(b't')) => Some(b'\t'),
            (b'\\', Some(b'r')) => Some(b'\r'),
            (b'\\', Some(b'n')) => Some(b'\n'),
            _ => None,
        };
        out.push(pair.unwrap_or(first));
        rest = if pair.is_some() { &tail[1..] } else { tail };
    }
    String::from_utf8(out).expect("what was UTF-8 stays it")
}

/// What nginx must read: the value, with what its syntax cannot express encoded.
fn readable(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        if c == '$' || (c.is_control() && !matches!(c, '\t' | '\r' | '\n')) {
            c.to_string().bytes().for_each(|b| out += &format!("%{b:02X}"));
        } else {
            out.push(c);
        }
    }
    out
}

fn render(template: &str, value: &str) -> String {
    write(&template.replace('@', &format!("{VALUE}{value}{END}")))
}

/// The tokens with a harmless value, which is then replaced by the value.
fn expected(template: &str, value: &str) -> Vec<Token> {
    const HARMLESS: &str = "QQQ";
    let mut tokens = tokenise(&template.replace('@', HARMLESS)).expect("the template is sound");
    for token in &mut tokens {
        if let Token::Word(word) = token {
            *word = word.replace(HARMLESS, &readable(value));
        }
    }
    tokens
}

/// All places in which a value can be, and their combinations.
const TEMPLATES: &[&str] = &[
    "a @; b c;",
    "@ a; b c;",
    "a {\n  @ b;\n}\nc;",
    "a x@; b c;",
    "a @x; b c;",
    "a x@y@z; b c;",
    "a @@; b c;",
    "a @{ b c; }",
    "a x@{ b c; }",
    "a \"@\"; b c;",
    "a \"x @ y\"; b c;",
    "a '@'; b c;",
    "a 'x \" @ y'; b c;",
    "a \"x ' @ y\" @; b c;",
    "a b; # @ \nc d;",
    "a b; # x@y ; { }\nc d;",
    "a x\"y@z; b c;",
    "a x'y@; b c;",
    "a x#@; b c;",
    "a @#x; b c;",
    "a @\"x\"; b c;",
    "a @}; b c;",
    "a x\\;y@\\ z; b c;",
    "a x\\\"y@; b c;",
    "a \\\\@; b c;",
    "a \"\\\\@\"; b c;",
    "a ${x}@; b c;",
    "a @${x}{ b c; }",
    "a @$x; b c;",
    "if ($x = @) { b c; }",
    "if ($x = \"@\") { b c; }",
    "a \"x\")@; b c;",
];

fn assert_reads_back(value: &str) {
    for template in TEMPLATES {
        let text = render(template, value);
        let tokens = tokenise(&text).unwrap_or_else(|error| panic!("{error} in {text:?} from {template:?}"));
        assert_eq!(tokens, expected(template, value), "{text:?} from {template:?} with {value:?}");
    }
}

#[test]
fn known_hostile_values_read_back_at_every_place() {
    hostile::SEEDS.iter().for_each(|value| assert_reads_back(value));
}

#[test]
fn values_get_quotes_and_escapes_where_needed() {
    assert_eq!(render("a @;", "b"), "a b;");
    assert_eq!(render("a @;", ""), "a \"\";");
    assert_eq!(render("a x@;", ""), "a x;");
    assert_eq!(render("a x=@;", "1; }"), "a \"x=1; }\";");
    assert_eq!(render("a \"@\";", "say \"$x\"\n"), "a \"say \\\"%24x\\\"\\n\";");
    assert_eq!(render("# @\n", "x\ny"), "# x\\ny\n");
    assert_eq!(render("a x@", " "), "a \"x \"");
}

#[test]
fn a_backslash_of_the_template_does_not_escape_a_value() {
    for value in ["n", "\"", ";", "", "\\", " "] {
        for template in ["a \\@; b;", "a x\\@; b;", "a \"\\@\"; b;", "a '\\@'; b;"] {
            let tokens = tokenise(&render(template, value)).expect("nginx accepts it");
            let words: Vec<_> = tokens.iter().filter(|t| matches!(t, Token::Word(_))).collect();
            assert_eq!(words.len(), 3, "{template:?} with {value:?}");
            let Token::Word(word) = words[1] else { unreachable!("only words were kept") };
            assert_eq!(word.trim_start_matches('x'), format!("\\{value}"), "{template:?}");
        }
    }
}

#[test]
fn a_dollar_of_the_template_does_not_make_a_variable_of_a_value() {
    for (template, value) in [("a $@; b;", "{x}"), ("a \"$@\"; b;", "{x}"), ("a $@{ b; }", ""), ("a $@{ b; }", "{")] {
        let text = render(template, value);
        assert!(!text.contains("${"), "{text:?}");
        assert_eq!(tokenise(&text).map(|t| t.len()), tokenise(&template.replace('@', "x")).map(|t| t.len()), "{text}");
    }
}

#[test]
fn a_value_after_a_closing_quote_is_refused_by_nginx_whatever_it_holds() {
    for value in hostile::SEEDS.iter().filter(|v| !v.is_empty()) {
        assert!(tokenise(&render("a \"x\"@; b c;", value)).is_err(), "{value:?}");
    }
}

proptest! {
    #[test]
    fn every_value_reads_back_at_every_place(value in hostile::value()) {
        assert_reads_back(&value.replace(MARKERS, "").replace("QQQ", ""));
    }

    /// Holds for any text that nginx accepts with a harmless value, not only for the templates above.
    #[test]
    fn no_template_lets_a_value_change_its_tokens(
        template in "[ \n;{}\"'#\\\\$()abn@]{0,16}@[ \n;{}\"'#\\\\$()abn@]{0,16}",
        value in hostile::value(),
    ) {
        let harmless = tokenise(&template.replace('@', "QQQ"));
        prop_assume!(harmless.is_ok());
        let text = render(&template, &value.replace(MARKERS, ""));
        let kinds = |tokens: Vec<Token>| tokens.iter().map(std::mem::discriminant).collect::<Vec<_>>();
        prop_assert_eq!(tokenise(&text).map(kinds), harmless.map(kinds), "{:?} from {:?}", text, template);
    }

    #[test]
    fn text_without_values_is_left_alone(text in "[ \n;{}\"'#\\\\$()ab]{0,40}") {
        prop_assert_eq!(write(&text), text);
    }
}
