//! The written text, read by functions that follow Apache's source.

use proptest::prelude::*;

use super::super::hostile;
use super::super::pieces::{END, MARKERS, VALUE};
use super::*;

/// Lines, joined and trimmed, after `ap_cfg_getline`.
fn lines(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for raw in text.split_inclusive('\n') {
        let last = lines.last_mut().expect("one at least");
        last.push_str(raw);
        let ending = raw.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        if ending.is_some_and(|line| line.ends_with('\\')) {
            let cut = last.rfind('\\').expect("just seen");
            last.truncate(cut);
        } else {
            lines.push(String::new());
        }
    }
    lines.iter().map(|line| line.trim_matches(is_space).to_owned()).collect()
}

/// The words of a line, after `ap_getword_conf` and `ap_resolve_env`; every variable is defined, as `<NAME>`.
fn words(line: &str) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    let (mut words, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let quote = Some(chars[at]).filter(|c| matches!(c, '"' | '\''));
        at += usize::from(quote.is_some());
        let mut word = String::new();
        while at < chars.len() && quote.map_or(!is_space(chars[at]), |quote| chars[at] != quote) {
            let next = chars.get(at + 1).copied();
            at += usize::from(chars[at] == '\\' && (next == Some('\\') || (quote.is_some() && next == quote)));
            word.push(chars[at]);
            at += 1;
        }
        at += usize::from(quote.is_some());
        while chars.get(at).copied().is_some_and(is_space) {
            at += 1;
        }
        words.push(resolved(&word));
    }
    words
}

fn resolved(word: &str) -> String {
    let Some((before, name, after)) = word
        .split_once("${")
        .and_then(|(before, rest)| rest.split_once('}').map(|(name, after)| (before, name, after)))
    else {
        return word.to_owned();
    };
    format!("{before}<{name}>{}", resolved(after))
}

fn directives(text: &str) -> Vec<Vec<String>> {
    let lines = lines(text);
    lines.iter().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| words(line)).collect()
}

fn render(template: &str, value: &str) -> String {
    write(&template.replace('@', &format!("{VALUE}{value}{END}")))
}

/// What Apache must read: the value, with what the syntax cannot express encoded.
fn readable(value: &str) -> String {
    let percent =
        |c: char| -> String { c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let written = |c: char| if c.is_control() && c != '\t' { percent(c) } else { c.to_string() };
    value.chars().map(written).collect::<String>().replace("${", "$%7B")
}

#[test]
fn plain_values_stay_plain() {
    assert_eq!(
        render("A @ x@y \"@\" # @\n", "10.0.0.1:80"),
        "A 10.0.0.1:80 x10.0.0.1:80y \"10.0.0.1:80\" # 10.0.0.1:80\n"
    );
    assert_eq!(render("# @\nA @\n", "a b"), "# a b\nA \"a b\"\n");
    assert_eq!(render("A http://@/\\x\"\n", "a b"), "A \"http://a b/\\\\x\\\"\"\n");
}

#[test]
fn no_backslash_of_a_value_joins_the_next_line() {
    assert_eq!(render("# @\nA b\n", "x\\"), "# x%5C\nA b\n");
    assert_eq!(render("A \"@\n", "x\\"), "A \"x%5C\n");
    assert_eq!(render("A \"@\r\nB\n", "x\\"), "A \"x%5C\r\nB\n");
    assert_eq!(render("A @\nB\n", "x\\"), "A \"x\\\\\"\nB\n");
}

#[test]
fn no_value_makes_a_variable() {
    assert_eq!(render("A @{x}\n", "$"), "A %24{x}\n");
    assert_eq!(render("A $@\n", "{x}"), "A \"$%7Bx}\"\n");
    assert_eq!(render("A \"@\"\n", "${x}"), "A \"$%7Bx}\"\n");
    assert_eq!(render("A ${HOME}@ ${x\n", "}"), "A \"${HOME}}\" ${x\n");
}

proptest! {
    #[test]
    fn every_value_reads_back_wherever_it_stands(v in hostile::value()) {
        let v = v.replace(MARKERS, "");
        let r = readable(&v);
        for (template, expected) in [
            ("A @ z\nB\n", r.clone()),
            ("A x@y z\nB\n", format!("x{r}y")),
            ("A \"@\" z\nB\n", r.clone()),
            ("A '@' z\nB\n", r.clone()),
            ("A \"a @ b\" z\nB\n", format!("a {r} b")),
            ("A '\\'@\"' z\nB\n", format!("'{r}\"")),
            ("A \"\\@\" z\nB\n", format!("\\{r}")),
            ("A \"\\\\@\\\\\" z\nB\n", format!("\\{r}\\")),
            ("A x\\@\\y z\nB\n", format!("x\\{r}\\y")),
            ("A x\\\\@\\\\y z\nB\n", format!("x\\{r}\\y")),
            ("A x\"@'y z\nB\n", format!("x\"{r}'y")),
            ("A x\\\n@\\\ny z\nB\n", format!("x{r}y")),
            ("A @@ z\nB\n", format!("{r}{r}")),
            ("# @\nA @ \\\n z\n# @\nB\n", r.clone()),
        ] {
            // A `$` of one value before a `{` of the next does not make a variable.
            let expected = expected.replace("${", "$%7B");
            let text = render(template, &v);
            let wanted = vec![vec!["A".to_owned(), expected, "z".to_owned()], vec!["B".to_owned()]];
            prop_assert_eq!(directives(&text), wanted, "{} {:?}: {}", template, v, text);
        }
        let last = vec![vec!["A".to_owned(), r.clone()], vec!["B".to_owned()]];
        prop_assert_eq!(directives(&render("A @\nB\n", &v)), last.clone());
        prop_assert_eq!(directives(&render("A @\r\nB", &v)), last);
        // The last word of a line, in quotes that are never closed.
        let text = render("A \"@\nB\n", &v);
        prop_assert_eq!(directives(&text).len(), 2, "{}", text);
        prop_assert_eq!(directives(&render("@ z\n", &v)).len(), 1, "no value opens a comment");
    }
}
