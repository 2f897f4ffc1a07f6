//! `file`: instances in a JSON or YAML file, read anew whenever it changes.

use std::io::Read;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::digest::Output;
use sha2::{Digest as _, Sha256};

use super::{BuildContext, Configuration, Context, ErrorKind, Provider, format};
use crate::model::{FieldFault, Instance};
use crate::sys::watch::PathWatch;

/// Where the file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `.json`, `.yaml` and `.yml` say what it holds; otherwise its first character does.
    pub path: PathBuf,
}

/// Instances in a JSON or YAML file, which is read at each interval and whenever it changes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// The path of the file, absolute. `.json`, `.yaml` and `.yml` say what it holds; otherwise its first character does.
    pub path: PathBuf,
}

impl Raw {
    /// The valid configuration. The file itself may appear later.
    ///
    /// # Errors
    ///
    /// A path that is empty or depends on the working directory.
    pub fn resolve(self) -> Result<Config, Vec<FieldFault>> {
        if self.path.is_absolute() {
            return Ok(Config { path: self.path });
        }
        let message = format!("{:?} is not an absolute path: start it with `/`", self.path);
        Err(vec![FieldFault::new("path", message)])
    }
}

impl Configuration for Config {
    const TYPE: &'static str = "file";
    const EXAMPLE: Option<&'static str> = Some(
        "# Without a cloud, a file of backends serves to try things out:\ntype = \"file\"\npath = \"/etc/elasticd/backends.yaml\"\n",
    );

    type Raw = Raw;

    fn resolve(raw: Raw, _context: &Context<'_>) -> Result<Self, Vec<FieldFault>> {
        raw.resolve()
    }

    fn build(&self, _context: &BuildContext<'_>) -> Box<dyn Provider> {
        Box::new(File::new(self))
    }
}

/// Why a file yielded no set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing at the path.
    #[error("there is no file {}: create it (`[]` is an empty set), or correct the provider's `path`", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// It could not be opened or read.
    #[error("cannot read {}: {source}; make the file and its directories readable for elasticd's user", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A directory, a pipe or a device.
    #[error("{} is not a regular file: correct the provider's `path`", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// More than is ever read.
    #[error(
        "{} is larger than {} MiB, which is no list of instances: correct the provider's `path`",
        path.display(),
        format::MAX_SIZE / 1024 / 1024
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It holds no set.
    #[error(transparent)]
    Content(#[from] format::Error),
}

impl From<Error> for super::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Absent { .. } => ErrorKind::Unreachable,
            Error::Unreadable { source, .. } => source.into(),
            Error::NotAFile { .. } | Error::TooLarge { .. } | Error::Content(_) => ErrorKind::Invalid,
        };
        Self::new(kind, error)
    }
}

/// Answers with what the file holds.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    watch: PathWatch,
    /// The digest of the last content, and its instances: to parse it takes hundreds of times as long as to compare it.
    last: Option<(Output<Sha256>, Vec<Instance>)>,
}

impl File {
    /// A provider that reads the file at each poll.
    pub fn new(config: &Config) -> Self {
        Self { path: config.path.clone(), watch: PathWatch::new(&config.path), last: None }
    }
}

impl File {
    /// Reads the file, unless it is the same as before.
    ///
    /// # Errors
    ///
    /// [`Error`]: what [`Provider::discover`] fails with, as this module's own type.
    pub async fn discover(&mut self) -> Result<Vec<Instance>, Error> {
        let (path, last) = (self.path.clone(), self.last.take());
        // Reading and parsing may take long enough to hold up everything else.
        let read = tokio::task::spawn_blocking(move || {
            let bytes = read(&path)?;
            // Not by its time of change, which neither every file system nor every writer keeps well enough.
            let digest = Sha256::digest(&bytes);
            match last {
                Some((same, instances)) if same == digest => Ok((digest, instances)),
                _ => Ok((digest, format::parse(&path, &bytes)?)),
            }
        });
        let read = read.await.unwrap_or_else(|error| {
            Err(Error::Unreadable { path: self.path.clone(), source: std::io::Error::other(error) })
        });
        let (_, instances) = self.last.insert(read?);
        Ok(instances.clone())
    }
}

impl Provider for File {
    fn discover(&mut self) -> BoxFuture<'_, Result<Vec<Instance>, super::Error>> {
        Box::pin(async { Ok(File::discover(self).await?) })
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.watch.changed())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => Error::Absent { path: path.to_owned() },
        _ => Error::Unreadable { path: path.to_owned(), source },
    };
    // Before opening: to open a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    if metadata.len() > format::MAX_SIZE as u64 {
        return Err(Error::TooLarge { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(format::MAX_SIZE as u64 + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() > format::MAX_SIZE {
        return Err(Error::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn discover(name: &str, content: &[u8]) -> Result<Vec<Instance>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        File::new(&Config { path }).discover().await.map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn each_failure_names_the_file_and_the_remedy() {
        for (name, content, expected) in [
            ("f.json", &b""[..], "write `[]`"),
            ("f.yaml", b"\n  \n", "write `[]`"),
            ("f.yaml", b"---\n# nothing\n", "write `[]`"),
            ("f.json", b"[{\"id\": \"a\",\n  }]", "f.json:2:3: invalid JSON"),
            ("f.json", b"[{\"id\": \"a\"}", "invalid JSON"),
            ("f.yaml", b"- id: a\n  adress: b\n", "f.yaml:2:3: invalid YAML"),
            ("f.yaml", b"- id: a\n- id: [\n", "invalid YAML"),
            ("f", b"\xff\xfe", "not UTF-8"),
            ("f.json", b"7", "invalid JSON"),
            ("f.json", b"[{\"address\": \"web-1\"}]", "entry 0: the address \"web-1\""),
            ("f.json", b"[{\"id\": \"a\"}, {\"id\": \"a\"}]", "entry 1: the id \"a\" is that of entry 0"),
            ("f.json", b"[{\"targets\": [\"10.0.0.1\", \"web:80\"]}]", "entry 0, target 1: the address \"web:80\""),
        ] {
            let error = discover(name, content).await.unwrap_err();
            assert!(error.contains(expected), "{}: {error}", String::from_utf8_lossy(content));
            assert!(error.contains(name), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_not_a_readable_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let discover = async |path: PathBuf| File::new(&Config { path }).discover().await.unwrap_err();
        assert!(matches!(discover(dir.path().join("absent")).await, Error::Absent { .. }));
        assert!(matches!(discover(dir.path().to_owned()).await, Error::NotAFile { .. }));
        let large = dir.path().join("large");
        std::fs::File::create(&large).unwrap().set_len(format::MAX_SIZE as u64 + 1).unwrap();
        assert!(matches!(discover(large).await, Error::TooLarge { .. }));
    }

    #[tokio::test]
    async fn reads_anew_when_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backends");
        std::fs::write(&path, "[]").unwrap();
        let mut provider = File::new(&Config { path: path.clone() });
        assert_eq!(provider.discover().await.unwrap(), []);
        let next = dir.path().join("next");
        std::fs::write(&next, "- address: 10.0.0.1:80\n").unwrap();
        std::fs::rename(&next, &path).unwrap();
        tokio::time::timeout(Duration::from_secs(10), provider.changed()).await.unwrap();
        assert_eq!(provider.discover().await.unwrap()[0].id, "10.0.0.1:80");
    }

    #[tokio::test]
    async fn what_is_the_same_is_not_parsed_again_and_what_only_looks_so_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backends");
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        };
        write("- address: 10.0.0.1:80\n");
        let mut provider = File::new(&Config { path: path.clone() });
        provider.discover().await.unwrap();
        provider.last.as_mut().unwrap().1[0].id = "remembered".to_owned();
        assert_eq!(provider.discover().await.unwrap()[0].id, "remembered");
        write("- address: 10.0.0.2:80\n");
        assert_eq!(provider.discover().await.unwrap()[0].id, "10.0.0.2:80", "of the same size and time");
        write("- address: 10.0.0.2\n- 7\n");
        provider.discover().await.unwrap_err();
        write("- address: 10.0.0.2:80\n");
        assert_eq!(provider.discover().await.unwrap()[0].id, "10.0.0.2:80");
    }

    #[test]
    fn the_path_is_absolute() {
        let faults = Raw { path: "backends.json".into() }.resolve().unwrap_err();
        assert!(faults[0].to_string().starts_with("path: \"backends.json\" is not an absolute path"));
        assert!(Raw { path: "/backends.json".into() }.resolve().is_ok());
    }
}
