//! The source of a loaded VCL, compared with the outputs.

use std::path::Path;

use super::super::api::Wanted;
use super::cli::{Answer, TRUNCATED};

/// The first output that a loaded VCL does not include as it is. `shown` is the answer to `vcl.show -v`: size, name and
/// text of each file.
///
/// Only outputs whose name ends in `.vcl` are included by Varnish. An answer longer than Varnish's `cli_limit` is cut off:
/// what it does not show is taken to be included.
pub(super) fn not_included<'a>(shown: &Answer, wanted: &Wanted<'a>) -> Option<&'a Path> {
    let sources = sources(&shown.body);
    let is_cut = shown.status == TRUNCATED;
    let includes = |(path, content): &(&Path, &str)| {
        let holds = |source: &Source<'_>| {
            let whole = source.text.len() == source.size;
            source.size == content.len() && content.as_bytes().starts_with(source.text) && (whole || is_cut)
        };
        let is_shown = sources.iter().any(|source| source.name == path.as_os_str().as_encoded_bytes());
        sources.iter().any(holds) || (is_cut && !is_shown)
    };
    let vcls = wanted.outputs.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "vcl"));
    vcls.copied().find(|output| !includes(output)).map(|(path, _)| path)
}

/// A file of a VCL.
#[derive(Debug, PartialEq, Eq)]
struct Source<'a> {
    name: &'a [u8],
    size: usize,
    /// The whole text, or the beginning if the answer was cut off.
    text: &'a [u8],
}

fn sources(mut shown: &[u8]) -> Vec<Source<'_>> {
    /// What Varnish appends to an answer that it cuts off.
    const CUT: &[u8] = b"\n[response was truncated]\n";
    shown = shown.strip_suffix(CUT).unwrap_or(shown);
    let mut sources = Vec::new();
    while let Some(rest) = shown.strip_prefix(b"// VCL.SHOW ") {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let mut words = rest[..end].splitn(3, |byte| *byte == b' ').skip(1);
        let size = words.next().and_then(|size| std::str::from_utf8(size).ok()?.parse().ok());
        let (Some(size), Some(name)) = (size, words.next()) else { break };
        let text = rest.get(end + 1..).unwrap_or_default();
        sources.push(Source { name, size, text: &text[..text.len().min(size)] });
        shown = text.get(size..).unwrap_or_default().trim_ascii_start();
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::super::cli::OK;
    use super::*;
    use crate::frontend::digest::Digest;
    use crate::sys::output_file::Store;
    use crate::sys::unconfined::Unconfined;

    #[test]
    fn the_outputs_are_compared_with_the_sources_byte_by_byte() {
        let main = "include;\n// VCL.SHOW 9 9 /x.vcl\n";
        let ours = "backend a none;\n";
        let shown =
            format!("// VCL.SHOW 0 {} /m ain.vcl\n{main}\n// VCL.SHOW 1 {} /x.vcl\n{ours}\n", main.len(), ours.len());
        let whole = |text: &str| Answer { status: OK, body: text.as_bytes().to_vec() };
        let cut = |len: usize| Answer {
            status: TRUNCATED,
            body: format!("{}\n[response was truncated]\n", &shown[..len]).into_bytes(),
        };
        let digest = Digest::of(b"");
        let store = Store::new(Path::new("/nonexistent"), "varnish");
        let is_missing = |answer: &Answer, content: &str, path: &'static str| {
            let outputs = vec![(Path::new(path), content)];
            not_included(answer, &Wanted::new(outputs, &digest, 0, &store, &Unconfined::default())).is_some()
        };
        assert_eq!(
            sources(shown.as_bytes()).iter().map(|source| source.name).collect::<Vec<_>>(),
            [&b"/m ain.vcl"[..], b"/x.vcl"]
        );
        assert!(!is_missing(&whole(&shown), ours, "/x.vcl"));
        assert!(!is_missing(&whole(&shown), ours, "/a/link/to/x.vcl"), "Varnish may know it by another path");
        assert!(is_missing(&whole(&shown), "backend b none;\n", "/x.vcl"), "another content of the same length");
        assert!(is_missing(&whole(&shown), "backend", "/x.vcl"));
        assert!(is_missing(&whole(""), ours, "/x.vcl"));
        assert!(!is_missing(&whole(""), ours, "/x.json"), "not a VCL");
        for len in 0..shown.len() - 2 {
            assert!(!is_missing(&cut(len), ours, "/x.vcl"), "as far as it is shown: {len}");
        }
        assert!(is_missing(&cut(shown.len() - 2), "other..........\n", "/x.vcl"), "shown to be different");
    }
}
