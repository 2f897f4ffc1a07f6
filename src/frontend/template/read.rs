//! Templates and what they include, read from files.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use super::error::Fault;
use super::scan;
use super::source::Source;
use crate::frontend::preset;

/// The most files that one template includes, directly and indirectly.
const MAX_INCLUDES: usize = 100;

/// The largest template, and included file, in bytes.
const MAX_SIZE: u64 = 4 * 1024 * 1024;

impl Source {
    /// Reads a template and what it includes. Relative paths start in `base`, the configuration's directory. A path that
    /// exists wins over a built-in template of the same name.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or files include each other in a circle; with the place of the `include`.
    pub fn read(name: &str, base: &Path) -> Result<Self, String> {
        let mut source = Self { name: name.to_owned(), text: read(name, base)?, includes: BTreeMap::new() };
        let text = source.text.clone();
        source.add_includes(&[name], &text, base)?;
        Ok(source)
    }

    /// Reads what the last of `chain` includes. Each of `chain` includes the next.
    fn add_includes(&mut self, chain: &[&str], text: &str, base: &Path) -> Result<(), String> {
        let within = chain.last().copied().unwrap_or_default();
        for (at, name) in scan::includes(text) {
            let fault = |reason: String| Fault::at(within, text, at, reason).to_string();
            if let Some(first) = chain.iter().position(|above| *above == name) {
                let circle: Vec<_> = chain[first..].iter().copied().chain([name]).collect();
                return Err(fault(format!(
                    "these files include each other in a circle: {}; take one of the includes out",
                    circle.join(", ")
                )));
            }
            // What is included a second time was searched for circles the first time.
            if self.includes.contains_key(name) {
                continue;
            }
            if self.includes.len() == MAX_INCLUDES {
                return Err(fault(format!("more than {MAX_INCLUDES} files are included: join some of them")));
            }
            let included = read(name, base).map_err(fault)?;
            self.includes.insert(name.to_owned(), included.clone());
            self.add_includes(&[chain, &[name]].concat(), &included, base)?;
        }
        Ok(())
    }
}

fn read(name: &str, base: &Path) -> Result<String, String> {
    let path = base.join(name);
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let text = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() > MAX_SIZE => {
            return Err(format!("{} is larger than {} MiB, the most for a template", path.display(), MAX_SIZE >> 20));
        }
        Ok(_) => std::fs::read_to_string(&path).map_err(cannot)?,
        // A file may have the name of a built-in template's directory.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => preset::template(name)
            .map(str::to_owned)
            .ok_or_else(|| format!("there is no file {} and no built-in template {name:?}", path.display()))?,
        Err(error) => return Err(cannot(error)),
    };
    // Editors on Windows write it, and a frontend would take it for a part of the first word.
    Ok(text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        dir
    }

    #[test]
    fn included_files_are_read_with_what_they_include_themselves() {
        let dir = directory(&[
            ("a", "\u{FEFF}a {% include \"b\" %}{% include \"b\" %}{% include \"json/services.json\" %}"),
            ("b", "{% include \"c\" %}"),
            ("c", "\u{FEFF}c"),
        ]);
        let source = Source::read("a", dir.path()).expect("read");
        assert!(source.text.starts_with("a "), "without its byte order mark");
        assert_eq!(source.includes.keys().collect::<Vec<_>>(), ["b", "c", "json/services.json"]);
        assert_eq!((source.text_of("c"), source.text_of("a")), ("c", source.text.as_str()));
    }

    #[test]
    fn what_cannot_be_included_is_named_with_its_place() {
        let dir = directory(&[
            ("a", "x\n {% include \"b\" %}"),
            ("b", "{% include \"c\" %}"),
            ("c", "\n{% include \"b\" %}"),
            ("self", "{% include \"self\" %}"),
            ("d", "\n\n{% include \"missing\" %}"),
        ]);
        let error = |name| Source::read(name, dir.path()).expect_err("no template");
        let circle =
            "c line 2 column 12: these files include each other in a circle: b, c, b; take one of the includes out";
        assert_eq!(error("a"), circle);
        assert!(
            error("self").starts_with("self line 1 column 12: these files include each other"),
            "{}",
            error("self")
        );
        assert!(error("d").starts_with("d line 3 column 12: there is no file "), "{}", error("d"));
    }
}
