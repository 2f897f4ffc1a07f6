//! An HTTP server that answers byte for byte what a test says, without TLS, over TLS or on a Unix socket.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::accept_one;

/// How long a connection that does nothing is kept, and a silent answer lasts.
const IDLE: Duration = Duration::from_secs(20);

/// How a TLS client begins, to which a plain server answers like to anything else.
const TLS: u8 = 0x16;

/// What is answered to one request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes, the rest of them one by one with this pause before each.
    Trickle(Vec<u8>, Vec<u8>, Duration),
    /// These bytes, and then the others for ever.
    Endless(Vec<u8>, Vec<u8>),
    /// Nothing, while the connection stays open.
    Silence,
}

impl Reply {
    /// A whole answer. `headers` are lines with their ends.
    pub fn new(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Bytes(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes())
    }

    /// A set.
    pub fn json(body: &str) -> Self {
        Self::new("200 OK", "Content-Type: application/json\r\n", body)
    }
}

type Script = Box<dyn Fn(&str) -> Reply + Send>;

/// The server; it ends when dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    script: Mutex<Script>,
    requests: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // This ends the acceptor's wait, whatever is free: a connection to wake it could fail.
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Server {
    /// On the loopback. Without a script it answers with an empty set.
    pub fn start(tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let tls = tls.map(Arc::new);
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(|_| Reply::json("[]"))),
            requests: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let serving = shared.clone();
        let accepting = listener.try_clone().expect("a handle");
        let acceptor = std::thread::spawn(move || {
            while !serving.stop.load(Ordering::SeqCst) {
                let Ok((stream, _)) = accepting.accept() else {
                    // Without a descriptor left, or stopped.
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                let (shared, tls) = (serving.clone(), tls.clone());
                std::thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(IDLE));
                    let _ = stream.set_write_timeout(Some(IDLE));
                    // A client that hangs up needs no answer.
                    let _ = match tls {
                        None => serve(stream, &shared),
                        Some(config) => match ServerConnection::new(config) {
                            Ok(connection) => serve_tls(StreamOwned::new(connection, stream), &shared),
                            Err(error) => Err(io::Error::other(error)),
                        },
                    };
                });
            }
        });
        Self { address, shared, listener, acceptor: Some(acceptor) }
    }

    /// One set on a Unix socket, to one client.
    pub fn once_at(path: &Path, reply: Reply) -> JoinHandle<String> {
        let listener = UnixListener::bind(path).expect("a socket");
        std::thread::spawn(move || {
            let mut stream = accept_one(&listener);
            let request = read_request(&mut stream).expect("a request");
            write_reply(&mut stream, reply, &AtomicBool::new(false)).expect("an answer");
            request
        })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers each request, head and body as they come, with what the script makes of it.
    pub fn script(&self, script: impl Fn(&str) -> Reply + Send + 'static) {
        *self.shared.script.lock().expect("a script") = Box::new(script);
    }

    /// Answers every request like this from now on.
    pub fn answer(&self, reply: Reply) {
        self.script(move |_| reply.clone());
    }

    /// The heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().expect("requests").clone()
    }
}

fn serve_tls(mut stream: StreamOwned<ServerConnection, TcpStream>, shared: &Shared) -> io::Result<()> {
    let result = serve(&mut stream, shared);
    if result.is_ok() {
        stream.conn.send_close_notify();
        stream.flush()?;
    }
    result
}

fn serve(mut stream: impl Read + Write, shared: &Shared) -> io::Result<()> {
    let request = read_request(&mut stream)?;
    let reply = (shared.script.lock().expect("a script"))(&request);
    shared.requests.lock().expect("requests").push(request);
    write_reply(&mut stream, reply, &shared.stop)
}

fn read_request(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") && head.first() != Some(&TLS) {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => head.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn write_reply(stream: &mut impl Write, reply: Reply, stop: &AtomicBool) -> io::Result<()> {
    match reply {
        Reply::Bytes(bytes) => stream.write_all(&bytes)?,
        Reply::Trickle(bytes, rest, pause) => {
            stream.write_all(&bytes)?;
            for byte in rest {
                std::thread::sleep(pause);
                stream.write_all(&[byte])?;
                stream.flush()?;
            }
        }
        Reply::Endless(bytes, more) => {
            stream.write_all(&bytes)?;
            while !stop.load(Ordering::SeqCst) {
                stream.write_all(&more)?;
            }
        }
        Reply::Silence => std::thread::sleep(IDLE),
    }
    stream.flush()
}
