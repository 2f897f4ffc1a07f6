//! Text that others wrote, in a form that fits into a message of ours.

use std::fmt::{Display, Write as _};

/// The text, cut after `max` characters, with `…` where something was cut off.
pub fn shorten(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The text on one line of at most `max` characters: trimmed, with a blank for each control character, and shortened.
pub fn one_line(text: &str, max: usize) -> String {
    let short = shorten(text.replace(char::is_control, " ").trim(), max);
    match short.strip_suffix('…') {
        Some(start) => format!("{}…", start.trim_end()),
        None => short,
    }
}

/// The text without its digits: tools print the time and their PID, which tell no two errors apart.
pub fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// How much of each error's own text [`chain`] repeats, in characters.
const MAX_OF_AN_ERROR: usize = 300;

/// An error and its sources on one line: some errors have the reason only at the bottom. Text that an earlier one has
/// said already is left out.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    for error in std::iter::successors(Some(error), |&error| error.source()) {
        let part = one_line(&error.to_string(), MAX_OF_AN_ERROR);
        if !parts.iter().any(|earlier| earlier.contains(&part)) {
            parts.push(part);
        }
    }
    parts.join(": ")
}

/// Bytes in lower-case hexadecimal, two digits each.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The first `max` of these, separated by commas, and how many more there are.
pub fn list<T: Display>(items: impl IntoIterator<Item = T>, max: usize) -> String {
    let mut items = items.into_iter();
    let text = items.by_ref().take(max).map(|item| item.to_string()).collect::<Vec<_>>().join(", ");
    match items.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_text_is_cut_and_says_so() {
        assert_eq!(shorten("four", 4), "four");
        assert_eq!(shorten("übër five", 4), "übër…");
        assert_eq!(one_line(" a\tb\r\nc ", 10), "a b  c");
        assert_eq!(one_line("one two", 4), "one…");
        assert_eq!(one_line("", 4), "");
    }

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(hex([0, 0x0a, 0xff]), "000aff");
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_of_bounded_length(text in any::<String>(), max in 0usize..40) {
            let line = one_line(&text, max);
            prop_assert!(line.chars().count() <= max + 1 && !line.contains(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn a_list_names_some_and_counts_the_rest() {
        assert_eq!(list(["a", "b"], 2), "a, b");
        assert_eq!(list(["a", "b", "c", "d"], 2), "a, b and 2 more");
    }

    #[test]
    fn a_tools_clock_and_pid_make_no_other_text() {
        let at = |time: &str, what: &str| format!("2026/11/22 {time} [emerg] {what} in x.conf:1");
        let same = |one: String, other: String| without_digits(&one) == without_digits(&other);
        assert!(same(at("21:15:39", "7331#7331: unknown"), at("21:15:40", "7332#7332: unknown")));
        assert!(!same(at("21:15:39", "unknown"), at("21:15:39", "unexpected")));
    }
}
