//! Requests to a running elasticd over its sockets, and writing to the standard output.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::sys::http;

/// How long connecting may take. It takes none unless elasticd is stopped or overloaded.
pub const CONNECT_BOUND: Duration = Duration::from_secs(2);

/// How long an answer may take.
pub const ANSWER_BOUND: Duration = Duration::from_secs(10);

/// The longest answer taken, in bytes: 200,000 backends at the 160 bytes each has without tags.
pub const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// Why elasticd could not be asked, or gave no usable answer. Each message is complete: it holds its cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no socket.
    #[error("no socket {}: is elasticd running? If so, give the path of its api.socket with --socket", socket.display())]
    Absent {
        /// The socket's path.
        socket: PathBuf,
    },
    /// The socket's mode does not admit us.
    #[error(
        "permission denied for {}: only the socket's owner and group may connect (api.mode, api.group); run this as a \
         member of the group, or as root", socket.display()
    )]
    Denied {
        /// The socket's path.
        socket: PathBuf,
    },
    /// Nothing listens there any more.
    #[error("nothing listens on {}: elasticd ended without removing it; start elasticd", socket.display())]
    Refused {
        /// The socket's path.
        socket: PathBuf,
    },
    /// Any other trouble on the way there.
    #[error("cannot connect to {}: {cause}; check that it is the path of elasticd's api.socket", socket.display())]
    Connect {
        /// The socket's path.
        socket: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// No answer within the time limit.
    #[error("no answer from {} within {} s: elasticd is suspended or overloaded; see its log", socket.display(), bound.as_secs_f64())]
    Late {
        /// The socket's path.
        socket: PathBuf,
        /// The time limit.
        bound: Duration,
    },
    /// The answer is invalid.
    #[error("invalid answer to {path} from {}: {cause}; is that elasticd's socket?", socket.display())]
    Garbled {
        /// The socket's path.
        socket: PathBuf,
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// elasticd answered with a problem.
    #[error("{}", plain(detail))]
    Problem {
        /// The HTTP status.
        status: StatusCode,
        /// elasticd's description of it.
        detail: String,
    },
    /// Our own output.
    #[error("cannot write to the standard output: {0}; check where it goes")]
    Output(io::Error),
}

impl Error {
    /// Whether there was no answer at all.
    pub const fn is_unavailable(&self) -> bool {
        match self {
            Self::Absent { .. }
            | Self::Denied { .. }
            | Self::Refused { .. }
            | Self::Connect { .. }
            | Self::Late { .. } => true,
            Self::Garbled { .. } | Self::Problem { .. } | Self::Output(_) => false,
        }
    }
}

/// What `path` (with its query) answers with 200 on the socket.
///
/// # Errors
///
/// If elasticd cannot be asked, takes longer than [`CONNECT_BOUND`] or [`ANSWER_BOUND`], answers with more than
/// [`MAX_ANSWER`] bytes, or answers with another status.
pub async fn get(socket: &Path, path: &str) -> Result<Bytes, Error> {
    send(socket, Method::GET, path, "").await
}

/// The same, with any method and a body in JSON; any answer of success will do.
///
/// # Errors
///
/// Those of [`get`].
pub async fn send(socket: &Path, method: Method, path: &str, json: &str) -> Result<Bytes, Error> {
    send_within(socket, method, path, json, CONNECT_BOUND, ANSWER_BOUND).await
}

async fn send_within(
    socket: &Path,
    method: Method,
    path: &str,
    json: &str,
    connect: Duration,
    answer: Duration,
) -> Result<Bytes, Error> {
    let late = |bound| move |_| Error::Late { socket: socket.into(), bound };
    let garbled = |cause| Error::Garbled { socket: socket.into(), path: path.to_owned(), cause };
    let mut request = Request::builder().method(method).uri(path).header(HOST, "elasticd");
    if !json.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::from(json.to_owned())).map_err(|error| garbled(error.to_string()))?;
    let stream = timeout(connect, connect_to(socket)).await.map_err(late(connect))??;
    let exchange = http::exchange(stream, request, MAX_ANSWER);
    let (status, body) = timeout(answer, exchange).await.map_err(late(answer))?.map_err(garbled)?;
    if status.is_success() { Ok(body) } else { Err(Error::Problem { status, detail: detail(status, &body) }) }
}

/// A connection to the socket.
///
/// # Errors
///
/// If elasticd cannot be reached.
pub async fn connect_to(socket: &Path) -> Result<UnixStream, Error> {
    UnixStream::connect(socket).await.map_err(|cause| unconnected(socket, cause))
}

fn unconnected(socket: &Path, cause: io::Error) -> Error {
    let socket = socket.to_owned();
    match cause.kind() {
        io::ErrorKind::NotFound => Error::Absent { socket },
        io::ErrorKind::PermissionDenied => Error::Denied { socket },
        io::ErrorKind::ConnectionRefused => Error::Refused { socket },
        _ => Error::Connect { socket, cause },
    }
}

/// The detail of a problem, or the body if it is no problem.
fn detail(status: StatusCode, body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Problem {
        detail: String,
    }
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => problem.detail,
        Err(_) => format!("elasticd answered {status}: {}", String::from_utf8_lossy(body).trim()),
    }
}

/// An answer as JSON.
///
/// # Errors
///
/// [`Error::Garbled`] if it is not what was expected.
pub fn parse<T: serde::de::DeserializeOwned>(socket: &Path, path: &str, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Garbled {
        socket: socket.into(),
        path: path.to_owned(),
        cause: error.to_string(),
    })
}

/// Writes to the standard output. A reader that closes it early (`elasticd get web | head -1`) is no error.
///
/// # Errors
///
/// [`Error::Output`] for any other trouble.
pub fn write_out(bytes: &[u8]) -> Result<(), Error> {
    write_to(&mut io::stdout().lock(), bytes)
}

fn write_to(out: &mut impl Write, bytes: &[u8]) -> Result<(), Error> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The text without control characters: a tag or another program's error must not steer the terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Rows as left-aligned columns, two blanks apart, a line each. What is shown is [`plain`].
pub fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(10);

    /// What asking a server that answers with these bytes, and then closes, leads to.
    async fn answered(bytes: &'static [u8]) -> Result<Bytes, Error> {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).expect("a listener");
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.expect("a request");
            assert!(request[..read].starts_with(b"GET /x?y=z HTTP/1.1\r\n"));
            stream.write_all(bytes).await.expect("written");
        };
        tokio::join!(send_within(&socket, Method::GET, "/x?y=z", "", LONG, LONG), server).0
    }

    #[tokio::test]
    async fn gives_the_body_or_the_detail_of_a_problem() {
        let body = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.expect("an answer");
        assert_eq!(body, "hi");
        let body = answered(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").await.expect("an answer");
        assert_eq!(body, "until the end");
        let error = answered(b"HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\n\r\n{\"detail\":\"no\\u001bname\"}");
        let error = error.await.expect_err("a problem");
        assert!(matches!(&error, Error::Problem { status, .. } if *status == 404), "{error:?}");
        let error = answered(b"HTTP/1.1 502 Bad Gateway\r\n\r\nwhat").await.expect_err("a problem");
        assert_eq!(error.to_string(), "elasticd answered 502 Bad Gateway: what");
    }

    #[tokio::test]
    async fn says_so_if_it_is_no_answer() {
        for bytes in [&b"SSH-2.0\r\n"[..], b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"] {
            let error = answered(bytes).await.expect_err("no answer");
            assert!(matches!(error, Error::Garbled { .. }), "{error:?}");
        }
    }

    #[tokio::test]
    async fn names_the_remedy_when_it_cannot_connect() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("s");
        let error = get(&socket, "/").await.expect_err("absent");
        assert!(error.to_string().contains("is elasticd running?"), "{error}");
        drop(UnixListener::bind(&socket).expect("a listener"));
        let error = get(&socket, "/").await.expect_err("refused");
        assert!(error.to_string().contains("start elasticd"), "{error}");
        let denied = unconnected(&socket, io::ErrorKind::PermissionDenied.into()).to_string();
        assert!(denied.contains("api.mode") && denied.contains("api.group"), "{denied}");
    }

    #[tokio::test]
    async fn does_not_wait_for_ever() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("s");
        let _silent = UnixListener::bind(&socket).expect("a listener");
        let error = send_within(&socket, Method::GET, "/", "", LONG, SHORT).await.expect_err("late");
        assert!(matches!(error, Error::Late { .. }), "{error:?}");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        struct Closed(io::ErrorKind);
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(write_to(&mut Closed(io::ErrorKind::BrokenPipe), b"x").is_ok());
        assert!(write_to(&mut Closed(io::ErrorKind::StorageFull), b"x").is_err());
    }

    #[test]
    fn aligns_and_replaces_control_characters() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["lo\u{1b}g".to_owned(), String::new()]];
        assert_eq!(table(&rows), "a     b\nlo\u{fffd}g\n");
    }
}
