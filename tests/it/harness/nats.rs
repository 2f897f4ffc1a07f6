//! Real NATS servers, and a line between them and others that can be cut.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{PATIENCE, cannot_start, end, own_socket, until_or};

/// A NATS server with JetStream.
pub struct Nats {
    dir: tempfile::TempDir,
    address: SocketAddr,
    /// Where it says whether it is healthy.
    monitor: SocketAddr,
    child: Option<Child>,
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Nats {
    /// Not yet started. `config` is added to its configuration, in which `NATS_DIR` stands for its directory.
    pub fn new(config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("na").tempdir().expect("a directory");
        let nats = Self { dir, address: own_socket(), monitor: own_socket(), child: None };
        nats.configure(config);
        nats
    }

    /// Replaces what is added to its configuration.
    pub fn configure(&self, config: &str) {
        let dir = self.dir.path().display();
        let base = format!(
            "listen: \"{}\"\nhttp: \"{}\"\nserver_name: \"{}\"\n\
             jetstream: {{ store_dir: \"{dir}/js\" }}\n",
            self.address,
            self.monitor,
            self.address.to_string().replace(['.', ':'], "-")
        );
        fs::write(self.path("nats.conf"), base + &config.replace("NATS_DIR", &dir.to_string()))
            .expect("a configuration");
    }

    /// Starts one by itself.
    pub fn start() -> Self {
        Self::with("")
    }

    /// The same, with this in its configuration.
    pub fn with(config: &str) -> Self {
        let mut nats = Self::new(config);
        nats.spawn();
        nats
    }

    /// Three that make one cluster.
    pub fn cluster() -> [Self; 3] {
        let routes = [(); 3].map(|()| own_socket());
        let all = routes.map(|address| format!("nats-route://{address}")).join(", ");
        let mut cluster = routes
            .map(|address| Self::new(&format!("cluster: {{ name: c, listen: \"{address}\", routes: [{all}] }}\n")));
        cluster.iter_mut().for_each(Self::launch);
        cluster.iter().for_each(Self::await_healthy);
        cluster
    }

    /// Starts it, and waits until it is healthy: of a cluster, until it has caught up with the others.
    pub fn spawn(&mut self) {
        self.launch();
        self.await_healthy();
    }

    fn launch(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        let mut command = Command::new("nats-server");
        command.env("PATH", "/usr/local/bin:/usr/bin:/usr/sbin:/sbin:/bin").arg("-c").arg(self.path("nats.conf"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.unwrap_or_else(|error| cannot_start("nats-server", &error)));
    }

    fn await_healthy(&self) {
        until_or(|| format!("nats-server is healthy:\n{}", self.log()), || self.is_healthy().then_some(()));
    }

    fn is_healthy(&self) -> bool {
        let mut answer = String::new();
        TcpStream::connect_timeout(&self.monitor, PATIENCE)
            .and_then(|mut stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
                stream.read_to_string(&mut answer)
            })
            .is_ok_and(|_| answer.starts_with("HTTP/1.0 200"))
            // The monitor may listen before clients are let in.
            && TcpStream::connect_timeout(&self.address, PATIENCE).is_ok()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, Signal::SIGKILL);
        }
    }

    /// Kills it and loses all that it stored.
    pub fn lose(&mut self) {
        self.kill();
        fs::remove_dir_all(self.path("js")).expect("removed");
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }
}

/// A line to a server that carries nothing while it is cut, and says nothing of it either.
pub struct Line {
    port: u16,
    cut: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

impl Line {
    /// To this address.
    pub fn to(address: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let (cut, end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let line = Self { port: own, cut: Arc::clone(&cut), end: Arc::clone(&end) };
        listener.set_nonblocking(true).expect("set");
        thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((near, _)) => {
                        let Ok(far) = TcpStream::connect_timeout(&address, PATIENCE) else { continue };
                        near.set_nonblocking(false).expect("set");
                        let [a, b] = [near.try_clone(), far.try_clone()].map(|stream| stream.expect("a copy"));
                        carry(near, far, &cut, &end);
                        carry(b, a, &cut, &end);
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        line
    }

    /// The line's URL.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Cuts it, or mends it: what was sent meanwhile then arrives.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, cut: &Arc<AtomicBool>, end: &Arc<AtomicBool>) {
    let (cut, end) = (Arc::clone(cut), Arc::clone(end));
    from.set_read_timeout(Some(Duration::from_millis(5))).expect("set");
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while !end.load(Ordering::Relaxed) {
            if cut.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    // Cut while it was being read: it is on the line, and waits there.
                    while cut.load(Ordering::Relaxed) && !end.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(5));
                    }
                    if to.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
