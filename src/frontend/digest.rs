//! Contents by their SHA-256, so that they can be compared and remembered.

use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::sys::{regular_file, text};

/// The SHA-256 of some content, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(String);

impl Digest {
    /// Of one file's content.
    pub fn of(content: &[u8]) -> Self {
        Self(text::hex(Sha256::digest(content)))
    }

    /// Of the contents of several files; `None` stands for one that does not exist.
    pub fn of_all<'a>(contents: impl IntoIterator<Item = (&'a Path, Option<Self>)>) -> Self {
        let mut hasher = Sha256::new();
        for (path, content) in contents {
            let path = path.as_os_str().as_encoded_bytes();
            hasher.update(path.len().to_le_bytes());
            hasher.update(path);
            hasher.update(content.map_or_else(|| "absent".to_owned(), |digest| digest.0));
            hasher.update([0]);
        }
        Self(text::hex(hasher.finalize()))
    }

    /// Its hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The content at an output's path. `None`: there is none, it cannot be read, or it is a symbolic link. Blocks.
pub fn on_disk(path: &Path) -> Option<Digest> {
    let mut file = regular_file::open_itself(path).ok()?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(Digest(text::hex(hasher.finalize()))),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_paths_and_absence_apart() {
        let one =
            |path: &'static str, content: Option<&[u8]>| Digest::of_all([(Path::new(path), content.map(Digest::of))]);
        assert_ne!(one("/a", None), one("/b", None));
        assert_ne!(one("/a", None), one("/a", Some(b"")));
        assert_eq!(one("/a", Some(b"x")), one("/a", Some(b"x")));
    }
}
