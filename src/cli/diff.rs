//! What an output would become, against what it is.

use std::path::Path;

use similar::TextDiff;

/// Lines of unchanged text shown around each change, as `diff -u` does.
const CONTEXT_LINES: usize = 3;

/// The unified diff from a file's `old` text to its `new` one; `None` when they are equal.
///
/// An absent file (`old` is `None`) is called `/dev/null`, as `git diff` does, so that `patch` creates it; that `new`
/// is then empty too is still a change, shown by its headers alone.
pub fn unified(path: &Path, old: Option<&str>, new: &str) -> Option<String> {
    if old == Some(new) {
        return None;
    }
    let path = path.display().to_string();
    let before = if old.is_some() { path.as_str() } else { "/dev/null" };
    let diff = TextDiff::from_lines(old.unwrap_or_default(), new);
    let text = diff.unified_diff().context_radius(CONTEXT_LINES).header(before, &path).to_string();
    Some(if text.is_empty() { format!("--- {before}\n+++ {path}\n") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(old: Option<&str>, new: &str) -> Option<String> {
        unified(Path::new("/etc/x.conf"), old, new)
    }

    #[test]
    fn equal_texts_differ_in_nothing() {
        assert_eq!(diff(Some("a\n"), "a\n"), None);
        assert_eq!(diff(Some(""), ""), None);
    }

    #[test]
    fn changed_lines_are_shown_with_their_surroundings() {
        let expected = "--- /etc/x.conf\n+++ /etc/x.conf\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n";
        assert_eq!(diff(Some("a\nb\nc\n"), "a\nB\nc\n").as_deref(), Some(expected));
    }

    #[test]
    fn an_absent_file_is_dev_null() {
        assert_eq!(diff(None, "a\n").as_deref(), Some("--- /dev/null\n+++ /etc/x.conf\n@@ -0,0 +1 @@\n+a\n"));
        assert_eq!(diff(None, "").as_deref(), Some("--- /dev/null\n+++ /etc/x.conf\n"));
    }

    #[test]
    fn a_missing_last_newline_is_said() {
        let text = diff(Some("a\n"), "a").expect("they differ");
        assert!(text.contains("\\ No newline at end of file"), "{text}");
    }
}
