//! nginx, in its http and in its stream context.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use super::hostile::{self, Hostile};
use super::{Frontend, Takes};
use crate::harness::backend::Backend;
use crate::harness::load::ask;
use crate::harness::nginx::Nginx;
use crate::harness::{PATIENCE, until};
use crate::nginx_syntax::readable;

/// nginx, proxying HTTP.
pub struct Http(Nginx);

/// nginx, proxying TCP alone.
pub struct Stream(Nginx);

/// Not yet started.
pub fn http() -> Http {
    Http(Nginx::new())
}

/// Not yet started.
pub fn stream() -> Stream {
    Stream(Nginx::stream())
}

/// In the conf.d of either.
const BROKEN: &str = "broken.conf";

/// Where values are shown, beside the proxy.
fn shown_at(nginx: &Nginx) -> SocketAddr {
    SocketAddr::new(nginx.address.ip(), nginx.address.port() + 1)
}

/// Waits until exactly these answer, and no worker of an earlier configuration still serves what it had accepted.
fn await_backends(nginx: &Nginx, ids: &[&str]) {
    nginx.await_old_workers_gone();
    nginx.await_answers(ids);
}

/// Its upstreams are read by the workers that serve, so what they know is what is in the file.
fn assert_runs(nginx: &Nginx, backends: &[(&Backend, u16)]) {
    let upstreams = nginx.upstreams();
    let servers: Vec<_> = upstreams.lines().filter(|line| line.contains("server ") && line.contains("127.")).collect();
    for (backend, weight) in backends.iter().filter(|(_, weight)| *weight > 0) {
        let address = backend.address.to_string();
        let found =
            servers.iter().find(|line| line.contains(&address)).unwrap_or_else(|| panic!("{address}: {upstreams}"));
        assert!(*weight == 1 || found.contains(&format!("weight={weight} ")), "{weight}: {found}");
    }
}

macro_rules! delegate {
    ($name:literal) => {
        fn name(&self) -> &'static str {
            "nginx"
        }

        fn takes(&self) -> Takes {
            Takes::Reload
        }

        fn spawn(&mut self) {
            self.0.spawn();
        }

        fn stop(&mut self) {
            self.0.stop();
        }

        fn section(&self) -> String {
            self.0.frontend().replace("type = 'nginx'", concat!("type = '", $name, "'"))
        }

        fn directory(&self) -> PathBuf {
            self.0.conf_d()
        }

        fn output(&self) -> PathBuf {
            self.0.conf_d().join("elasticd.conf")
        }

        fn address(&self) -> Option<SocketAddr> {
            Some(self.0.address)
        }

        fn process(&self) -> String {
            format!("{} {:?}", self.0.master(), self.0.workers())
        }

        fn pid(&self) -> Option<u32> {
            Some(self.0.master())
        }

        fn changes_taken(&self) -> String {
            self.0.hups().to_string()
        }

        fn await_backends(&self, ids: &[&str]) {
            await_backends(&self.0, ids);
        }

        fn assert_runs(&self, backends: &[(&Backend, u16)]) {
            assert_runs(&self.0, backends);
        }

        fn refusal(&self) -> &'static [&'static str] {
            &["unknown directive", "was broken already, without this change"]
        }

        fn break_configuration(&self) {
            fs::write(self.0.conf_d().join(BROKEN), "no such directive;\n").expect("written");
        }

        fn repair_configuration(&self) {
            fs::remove_file(self.0.conf_d().join(BROKEN)).expect("removed");
        }
    };
}

impl Frontend for Http {
    delegate!("nginx");

    fn kills(&self) -> (u64, u64) {
        (25, 300)
    }

    fn await_none(&self) {
        until("502", || (self.0.ask()?.0 == 502).then_some(()));
    }

    fn hostile(&self) -> Hostile {
        // Each value as a word, in either kind of quotes and in a comment; a server of its own shows the first.
        let address = shown_at(&self.0);
        let template = format!(
            "{{% for s in services %}}{{% for b in s.backends %}}\
             map $uri $v{{{{ loop.index }}}} {{ default {{{{ b.tags.V }}}}; d \"{{{{ b.tags.V }}}}\"; s '{{{{ b.tags.V }}}}'; }} \
             # {{{{ b.tags.V }}}}\n{{% endfor %}}server {{\nlisten {address};\n{{% for b in s.backends %}}\
             location = /{{{{ b.id }}}} {{ return 200 \"$v{{{{ loop.index }}}}\"; }}\n{{% endfor %}}\n}}\n{{% endfor %}}"
        );
        Hostile { template: Some(template), keys: String::new(), values: hostile::values(readable) }
    }

    fn read_values(&self, count: usize) -> BTreeMap<String, String> {
        hostile::asked(shown_at(&self.0), count)
    }
}

impl Frontend for Stream {
    delegate!("nginx-stream");

    fn kills(&self) -> (u64, u64) {
        (10, 300)
    }

    fn await_none(&self) {
        self.0.await_old_workers_gone();
        let mut stream = TcpStream::connect(self.0.address).expect("nginx listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
        let closed = stream.read(&mut [0]);
        let reset = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(matches!(&closed, Ok(0)) || closed.is_err_and(reset), "the connection is closed");
        assert_eq!(ask(self.0.address), None);
    }

    fn hostile(&self) -> Hostile {
        // A port for each backend, at which its value is what every connection is sent.
        let ip = self.0.address.ip();
        let template = format!(
            "{{% for s in services %}}upstream {{{{ s.name }}}} {{ server {ip}:1 down; }}\nmap $server_port $v {{\n\
             {{% for b in s.backends %}}{{{{ b.port }}}} {{{{ b.tags.V }}}}; # {{{{ b.tags.V }}}}\n{{% endfor %}}\n}}\n\
             server {{\n{{% for b in s.backends %}}listen {ip}:{{{{ b.port }}}};\n{{% endfor %}}return $v;\n}}\n{{% endfor %}}"
        );
        Hostile { template: Some(template), keys: String::new(), values: hostile::values(readable) }
    }

    fn read_values(&self, count: usize) -> BTreeMap<String, String> {
        let ip = self.0.address.ip();
        let one = |index| {
            let mut stream = TcpStream::connect((ip, hostile::port(index))).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some((hostile::id(index), text))
        };
        (0..count).filter_map(one).collect()
    }
}
