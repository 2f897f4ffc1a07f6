//! `/etc/hosts` and similar files (hosts(5)): an address and names on a line, separated by white space; `#` opens a comment.
//!
//! There is no quoting: every character that would end a name, a line or its visible part is written as `%XX`. Spaces are
//! kept in comments only.

use super::pieces::{Piece, percent, pieces};

/// Encodes the marked values of a rendered file for their places.
pub(super) fn write(marked: &str) -> String {
    let mut out = String::with_capacity(marked.len());
    let mut in_comment = false;
    for piece in pieces(marked) {
        match piece {
            Piece::Text(text) => {
                out.push_str(text);
                let line = text.rfind('\n').map(|at| &text[at..]);
                in_comment = line.unwrap_or(text).contains('#') || (in_comment && line.is_none());
            }
            Piece::Value(value) | Piece::Literal(value) => {
                for c in value.chars() {
                    let is_kept = if c == ' ' { in_comment } else { c != '#' && !c.is_whitespace() && !c.is_control() };
                    if is_kept { out.push(c) } else { percent(&mut out, c) }
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hostile;
    use super::super::pieces::{END, MARKERS, VALUE};
    use super::*;

    fn render(template: &str, value: &str) -> String {
        write(&template.replace('@', &format!("{VALUE}{value}{END}")))
    }

    /// The words of each line, as glibc's `nss_files` reads them.
    fn read(text: &str) -> Vec<Vec<&str>> {
        let lines = text.split('\n').map(|line| line.split('#').next().unwrap_or_default());
        lines.map(|line| line.split_ascii_whitespace().collect()).collect()
    }

    #[test]
    fn white_space_and_comments_are_percent_encoded() {
        assert_eq!(render("1.2.3.4 @ # @\n", "a b\t#\nc"), "1.2.3.4 a%20b%09%23%0Ac # a b%09%23%0Ac\n");
        assert_eq!(render("# x\n1.2.3.4 @", "a b"), "# x\n1.2.3.4 a%20b");
        assert_eq!(render("# x @ y\n1.2.3.4 @", " "), "# x   y\n1.2.3.4 %20");
    }

    proptest! {
        #[test]
        fn no_value_adds_a_line_or_a_name(v in hostile::value().prop_filter("a name", |v| !v.is_empty())) {
            let v = v.replace(MARKERS, "");
            prop_assume!(!v.is_empty());
            for template in ["1.2.3.4 @ x\n::1 y", "1.2.3.4 a@b @\n# @\n::1 y", "1.2.3.4 x # @ y\n::1 @"] {
                let harmless = render(template, "QQQ");
                let shape = |text: &str| read(text).iter().map(Vec::len).collect::<Vec<_>>();
                prop_assert_eq!(shape(&render(template, &v)), shape(&harmless));
            }
        }
    }
}
