//! A real `moto_server`: an independent implementation of EC2. It takes any credentials.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ec2::types::{Placement, ResourceType, Tag, TagSpecification};
use nix::sys::signal::Signal;

use crate::harness::{end, own_socket, require};

/// The region in which everything here happens.
pub const REGION: &str = "us-east-1";

/// How long the server may take to answer: a cold start of Python on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The server; it is killed when dropped.
#[derive(Debug)]
pub struct Moto {
    address: SocketAddr,
    child: Child,
    client: Client,
}

impl Moto {
    /// Starts it, and waits until it answers.
    pub async fn start() -> Self {
        let address = own_socket();
        let mut moto = Self { address, child: spawn(address), client: client(address, REGION) };
        moto.wait().await;
        moto
    }

    /// Kills it and starts it anew at the same address: all it knew is gone.
    pub async fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.address);
        self.wait().await;
    }

    /// Where it listens, as `endpoint_url` takes it.
    pub fn url(&self) -> String {
        url(self.address)
    }

    /// Launches one running machine with a call of its own, since moto pages by reservation. `zone` is one of
    /// [`REGION`]'s. Returns its id.
    pub async fn launch(&self, tags: &[(&str, &str)], private_ip: &str, zone: Option<&str>) -> String {
        Self::launch_at(&self.client, None, tags, private_ip, zone).await
    }

    /// The same, in another region or account.
    pub async fn launch_elsewhere(
        &self,
        region: &'static str,
        account: Option<&'static str>,
        tags: &[(&str, &str)],
        private_ip: &str,
    ) -> String {
        Self::launch_at(&client(self.address, region), account, tags, private_ip, None).await
    }

    async fn launch_at(
        client: &Client,
        account: Option<&'static str>,
        tags: &[(&str, &str)],
        private_ip: &str,
        zone: Option<&str>,
    ) -> String {
        let tags = tags.iter().map(|(key, value)| tag(key, value)).collect();
        let spec = TagSpecification::builder().resource_type(ResourceType::Instance).set_tags(Some(tags)).build();
        let placement = zone.map(|zone| Placement::builder().availability_zone(zone).build());
        let call = client.run_instances().image_id("ami-12c6146b").min_count(1).max_count(1);
        let call = call.private_ip_address(private_ip).tag_specifications(spec).set_placement(placement).customize();
        let call = call.mutate_request(move |request| {
            if let Some(account) = account {
                request.headers_mut().insert("x-moto-account-id", account);
            }
        });
        let answer = call.send().await.expect("an instance is launched");
        answer.instances()[0].instance_id().expect("an id").to_owned()
    }

    /// Creates an Auto Scaling group of so many machines that carry these tags.
    pub async fn create_group(&self, group: &str, size: i32, tags: &[(&str, &str)]) {
        let scaling = self.auto_scaling();
        let call = scaling.create_launch_configuration().launch_configuration_name(group).image_id("ami-12c6146b");
        call.instance_type("t3.micro").send().await.expect("a launch configuration");
        let mut call = scaling.create_auto_scaling_group().auto_scaling_group_name(group);
        for (key, value) in tags {
            let tag = aws_sdk_autoscaling::types::Tag::builder().key(*key).value(*value).propagate_at_launch(true);
            call = call.tags(tag.build());
        }
        call = call.launch_configuration_name(group).min_size(0).max_size(100).desired_capacity(size);
        call.availability_zones(format!("{REGION}a")).send().await.expect("a group");
    }

    /// A client of its Auto Scaling.
    pub fn auto_scaling(&self) -> aws_sdk_autoscaling::Client {
        let config = aws_sdk_autoscaling::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(self.url());
        aws_sdk_autoscaling::Client::from_conf(config.build())
    }

    /// Stops a machine.
    pub async fn stop(&self, id: &str) {
        self.client.stop_instances().instance_ids(id).send().await.expect("the instance is stopped");
    }

    /// Starts a stopped machine.
    pub async fn start_instance(&self, id: &str) {
        self.client.start_instances().instance_ids(id).send().await.expect("the instance is started");
    }

    /// Terminates a machine for good.
    pub async fn terminate(&self, id: &str) {
        self.client.terminate_instances().instance_ids(id).send().await.expect("the instance is terminated");
    }

    /// Sets one of a machine's tags.
    pub async fn tag(&self, id: &str, key: &str, value: &str) {
        self.client.create_tags().resources(id).tags(tag(key, value)).send().await.expect("the instance is tagged");
    }

    async fn wait(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.client.describe_regions().send().await.is_err() {
            if let Some(status) = self.child.try_wait().expect("moto's status") {
                panic!("moto_server ended at once ({status}): is {} taken?", self.address);
            }
            assert!(Instant::now() < deadline, "moto_server does not answer on {} within {PATIENCE:?}", self.url());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn kill(&mut self) {
        end(&mut self.child, Signal::SIGKILL);
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> PathBuf {
    let program = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/.venv/bin/moto_server"));
    require(&program);
    program
}

fn spawn(address: SocketAddr) -> Child {
    let mut command = Command::new(program());
    command.args(["-H", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("moto_server starts")
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn client(address: SocketAddr, region: &'static str) -> Client {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(region))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(url(address));
    Client::from_conf(config.build())
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}
