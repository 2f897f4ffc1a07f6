//! A rendered text in which values are marked, and the pieces that it consists of.

use percent_encoding::percent_encode_byte;

/// Begins a value. The markers are noncharacters, which Unicode reserves for internal use by programs (The Unicode
/// Standard, section 23.7).
pub(super) const VALUE: char = '\u{FDD0}';
/// Ends a value or a literal.
pub(super) const END: char = '\u{FDD1}';
/// Begins a complete JSON literal.
pub(super) const LITERAL: char = '\u{FDD2}';
pub(super) const MARKERS: [char; 3] = [VALUE, END, LITERAL];

/// The byte at which a text contains one of the markers.
pub(in crate::frontend) fn find_marker(text: &str) -> Option<usize> {
    text.find(MARKERS)
}

/// A part of a rendered text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// The template's own text, and values that need no encoding in any place.
    Text(&'a str),
    Value(&'a str),
    /// A complete JSON literal. In every syntax but JSON it is a value like any other.
    Literal(&'a str),
}

/// Splits a rendered text at its markers.
pub(super) fn pieces(mut rest: &str) -> impl Iterator<Item = Piece<'_>> {
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

/// Writes a character that a syntax cannot express: `%XX` for each of its bytes.
pub(super) fn percent(out: &mut String, c: char) {
    out.extend(c.encode_utf8(&mut [0; 4]).bytes().map(percent_encode_byte));
}

/// Replaces the markers, which a value may contain like any other character, by the replacement character.
pub(super) fn without_markers(text: &str) -> std::borrow::Cow<'_, str> {
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
}
