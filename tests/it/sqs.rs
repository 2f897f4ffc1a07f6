//! A queue in moto's SQS, and what EventBridge would put into it.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::QueueAttributeName;

use crate::harness::PATIENCE;
use crate::moto::REGION;

/// The queue's name.
const NAME: &str = "elasticd";

/// A queue, which need not exist.
#[derive(Debug)]
pub struct Queue {
    client: Client,
}

impl Queue {
    /// The queue in the SQS at this URL, not yet created.
    pub fn at(endpoint: &str) -> Self {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(endpoint);
        Self { client: Client::from_conf(config.build()) }
    }

    /// As AWS would name it.
    pub fn url() -> String {
        format!("https://sqs.{REGION}.amazonaws.com/123456789012/{NAME}")
    }

    /// Creates it.
    pub async fn create(&self) {
        self.client.create_queue().queue_name(NAME).send().await.expect("the queue is created");
    }

    /// Deletes it, with all that is in it.
    pub async fn delete(&self) {
        self.client.delete_queue().queue_url(Self::url()).send().await.expect("the queue is deleted");
    }

    /// Puts a message into it.
    pub async fn send(&self, body: &str) {
        let call = self.client.send_message().queue_url(Self::url()).message_body(body);
        call.send().await.expect("the message is sent");
    }

    /// How many messages are in it, read ones that are not yet deleted included.
    async fn messages(&self) -> usize {
        use QueueAttributeName::{ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible};
        let names = [ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible];
        let call = self.client.get_queue_attributes().queue_url(Self::url());
        let answer = call.set_attribute_names(Some(names.to_vec())).send().await.expect("the queue's attributes");
        let attributes = answer.attributes().expect("attributes");
        names.iter().map(|name| attributes[name].parse::<usize>().expect("a number")).sum()
    }

    /// Waits until all messages are deleted.
    pub async fn await_empty(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let left = self.messages().await;
            if left == 0 {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{left} messages are not deleted within {PATIENCE:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// The queue at an endpoint, as the configuration of an `ec2` provider.
pub fn events(endpoint: &str) -> String {
    format!("events = {{ queue_url = '{}', endpoint_url = '{endpoint}' }}\n", Queue::url())
}

/// What EventBridge writes of an instance's new state.
pub fn state_change(instance: &str, state: &str) -> String {
    let arn = format!("arn:aws:ec2:{REGION}:123456789012:instance/{instance}");
    serde_json::json!({
        "version": "0", "id": "7bf73129-1428-4cd3-a780-95db273d1602",
        "detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2", "account": "123456789012",
        "time": "2026-01-02T03:04:05Z", "region": REGION, "resources": [arn],
        "detail": { "instance-id": instance, "state": state },
    })
    .to_string()
}
