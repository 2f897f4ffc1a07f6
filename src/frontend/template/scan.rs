//! What a template's text names: paths such as `vars.keepalive`, and files that it includes. Comments and the text outside
//! of its tags name nothing.

/// A word in one of a template's tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word<'t> {
    /// A name, or several with dots between them: `b.tags?.Owner`.
    Path(&'t str),
    /// The content of a text in quotes, as it is written.
    Text(&'t str),
    /// Anything else but white space.
    Mark(char),
}

/// How a template uses a member of a map, such as one of its variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// It must be there: `vars.keepalive`.
    Needed,
    /// It may be absent: `vars?.keepalive`, or `vars | get: "keepalive", 0`.
    Optional,
}

/// A use of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use<'t> {
    /// The member's name. `None`: the map as a whole is used, so that any member may be.
    pub member: Option<&'t str>,
    /// Whether it has to be there.
    pub access: Access,
    /// The byte offset of the path.
    pub at: usize,
}

/// The names of the files that a text includes, with the byte offset of each.
pub fn includes(text: &str) -> Vec<(usize, &str)> {
    let words = words(text);
    let pairs = words.windows(2).filter_map(|pair| match pair {
        [(_, Word::Path("include")), (at, Word::Text(name))] => Some((*at, *name)),
        _ => None,
    });
    pairs.collect()
}

/// How a text uses the members of each map that is called `map`: of `vars` the uses of `vars.X` and `s.vars.X`, of `tags`
/// those of `b.tags.X`.
pub fn uses<'t>(text: &'t str, map: &str) -> Vec<Use<'t>> {
    let words = words(text);
    let mut uses = Vec::new();
    for (i, (at, word)) in words.iter().enumerate() {
        let Word::Path(path) = word else { continue };
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            if part.trim_end_matches('?') != map {
                continue;
            }
            let access = if part.ends_with('?') { Access::Optional } else { Access::Needed };
            let after: Vec<_> = words[i + 1..].iter().take(4).map(|(_, word)| *word).collect();
            let found = match (parts.peek(), after.as_slice()) {
                (Some(member), _) => Use { member: Some(member.trim_end_matches('?')), access, at: *at },
                (None, [Word::Mark('|'), Word::Path("get"), Word::Mark(':'), Word::Text(member), ..]) => {
                    Use { member: Some(member), access: Access::Optional, at: *at }
                }
                (None, _) => Use { member: None, access: Access::Optional, at: *at },
            };
            uses.push(found);
            break;
        }
    }
    uses
}

/// The words of all tags, each with its byte offset.
fn words(text: &str) -> Vec<(usize, Word<'_>)> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(open) = text[at..].find("{{").into_iter().chain(text[at..].find("{%")).min() {
        // A comment may hold tags, which are none.
        if let Some(comment) = text[at..].find("{#").filter(|comment| *comment < open) {
            let start = at + comment;
            at = text[start..].find("#}").map_or(text.len(), |end| start + end + 2);
            continue;
        }
        at = tag(text, at + open + 2, &mut words);
    }
    words
}

/// Takes the words of the tag that begins at `at`; returns where it ends.
fn tag<'t>(text: &'t str, mut at: usize, words: &mut Vec<(usize, Word<'t>)>) -> usize {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if rest.starts_with("}}") || rest.starts_with("%}") {
            return at + 2;
        }
        let len = if c == '"' {
            let len = quoted(rest);
            words.push((at, Word::Text(rest[1..len].trim_end_matches('"'))));
            len
        } else if is_name(c) {
            let len = rest.find(|c| !is_name(c) && c != '.' && c != '?').unwrap_or(rest.len());
            words.push((at, Word::Path(&rest[..len])));
            len
        } else {
            if !c.is_whitespace() {
                words.push((at, Word::Mark(c)));
            }
            c.len_utf8()
        };
        at += len;
    }
    text.len()
}

/// The length of the text in quotes with which `rest` begins.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    let end = rest.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(rest.len(), |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members<'t>(text: &'t str, map: &str) -> Vec<(Option<&'t str>, Access)> {
        uses(text, map).into_iter().map(|found| (found.member, found.access)).collect()
    }

    #[test]
    fn members_are_found_in_tags_alone() {
        use Access::{Needed, Optional};
        let text = "vars.no {# {{ vars.no }} #} {{ vars.a }} \"{{ x | f: vars?.b, \"vars.no }}\" }}\" {% if s.vars.c.d %} \
                    {{ vars | get: \"e\", 1 }} {{- vars.größe -}} {{ myvars.no }}";
        assert_eq!(
            members(text, "vars"),
            [
                (Some("a"), Needed),
                (Some("b"), Optional),
                (Some("c"), Needed),
                (Some("e"), Optional),
                (Some("größe"), Needed)
            ]
        );
        assert_eq!(members("{% for k, v in vars %}", "vars"), [(None, Optional)]);
        assert_eq!(
            members("{{ b.tags.Owner }}{{ b.tags?.Own", "tags"),
            [(Some("Owner"), Needed), (Some("Own"), Optional)]
        );
    }

    #[test]
    fn includes_are_found_with_their_places() {
        let text = "{% include \"a.conf\" %} {# {% include \"no\" %} #} {%- include \"b/c\" with s -%} include \"no\"";
        let names: Vec<_> = includes(text).into_iter().map(|(at, name)| (&text[at..at + 2], name)).collect();
        assert_eq!(names, [("\"a", "a.conf"), ("\"b", "b/c")]);
    }
}
