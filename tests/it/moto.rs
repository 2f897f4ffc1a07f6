//! moto: an EC2 that nobody here wrote.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_ec2::types::{InstanceType, ResourceType, Tag, TagSpecification};
use tokio::net::TcpStream;

/// Starting Python and importing moto takes seconds on a busy machine.
const READY: Duration = Duration::from_secs(120);

/// The region all tests use.
pub const REGION: &str = "eu-west-1";

/// Credentials that any fake takes.
pub fn credentials() -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Credentials::new("AKIDEXAMPLE", "secret", None, None, "tests"))
}

/// A moto server. It is killed when dropped.
pub struct Moto {
    server: Child,
    url: String,
    client: Client,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Moto {
    /// Starts one on a free loopback port, and waits until it accepts.
    pub async fn start() -> Self {
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/moto_server");
        let port = free_port();
        let mut server = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; `tests/run` installs it", program.display()));
        let accepting = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                assert!(server.try_wait().expect("a status").is_none(), "moto_server ended by itself");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ready = tokio::time::timeout(READY, accepting).await;
        let url = format!("http://127.0.0.1:{port}");
        let client = client(&url);
        let moto = Self { server, url, client };
        ready.expect("moto_server accepts in time");
        moto
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Launches one instance; its id. One call an instance: moto's pages hold whole reservations.
    pub async fn run(&self, private_ip: &str, tags: &[(&str, &str)]) -> String {
        let mut specification = TagSpecification::builder().resource_type(ResourceType::Instance);
        for (key, value) in tags {
            specification = specification.tags(Tag::builder().key(*key).value(*value).build());
        }
        let call = self.client.run_instances().image_id("ami-12c6146b").instance_type(InstanceType::T3Micro);
        let call = call.min_count(1).max_count(1).private_ip_address(private_ip);
        let launched = call.tag_specifications(specification.build()).send().await.expect("an instance");
        launched.instances()[0].instance_id().expect("an id").to_owned()
    }

    /// Stops one.
    pub async fn stop(&self, id: &str) {
        self.client.stop_instances().instance_ids(id).send().await.expect("stopped");
    }

    /// Starts one that was stopped.
    pub async fn start_instance(&self, id: &str) {
        self.client.start_instances().instance_ids(id).send().await.expect("started");
    }

    /// Ends one for good.
    pub async fn terminate(&self, id: &str) {
        self.client.terminate_instances().instance_ids(id).send().await.expect("terminated");
    }

    /// Sets one tag.
    pub async fn retag(&self, id: &str, key: &str, value: &str) {
        let tag = Tag::builder().key(key).value(value).build();
        self.client.create_tags().resources(id).tags(tag).send().await.expect("tagged");
    }
}

/// A port that was free a moment ago: moto cannot say which port it chose by itself.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn client(url: &str) -> Client {
    let ring = aws_smithy_http_client::tls::rustls_provider::CryptoMode::Ring;
    let tls = aws_smithy_http_client::tls::Provider::Rustls(ring);
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().tls_provider(tls).build_https())
        .region(Region::new(REGION))
        .endpoint_url(url)
        .credentials_provider(credentials());
    Client::from_conf(config.build())
}
