//! The queue: long-polled, emptied, and tried again with back-off when it fails.

use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::Region;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;

use super::super::error::Context;
use super::super::{Config as Ec2Config, clients, credentials};
use super::error::{About, Error};
use super::{Config, message};
use crate::sys::backoff::{Backoff, Jitter};

/// How long SQS waits for a message before it answers that there is none: its longest (SQS API reference,
/// `ReceiveMessage`, `WaitTimeSeconds`). So an idle queue costs 180 calls an hour.
const WAIT_SECONDS: i32 = 20;

/// How many messages come, and go, at a time: SQS' most.
const BATCH: i32 = 10;

/// How long a call may take, in all its attempts.
const LIMIT: Duration = Duration::from_secs(WAIT_SECONDS.unsigned_abs() as u64 + 10);

/// Before a queue that was lost is tried again. Sidecars that lost their queues together do not come back together.
const RETRY: Backoff = Backoff::constant(Duration::from_secs(1), Duration::from_secs(60), Jitter::Equal);

/// What SQS never gave as a receipt.
const NO_RECEIPT: &str = "none";

/// A queue of events.
#[derive(Debug)]
pub struct Queue {
    config: Config,
    provider: Ec2Config,
    credentials: credentials::Source,
    /// Built when first needed, and again after each failure.
    client: Option<Client>,
    /// Of messages that are read, and not yet deleted.
    receipts: Vec<String>,
    /// Failures in a row, and of which kind the last one was.
    failing: Option<(u32, Discriminant<Error>)>,
    /// How many messages were not events.
    foreign: u64,
}

impl Queue {
    /// The queue of `config`, read with the credentials that `provider` is configured with.
    pub fn new(config: &Config, provider: &Ec2Config, credentials: &credentials::Source) -> Self {
        Self {
            config: config.clone(),
            provider: provider.clone(),
            credentials: credentials.clone(),
            client: None,
            receipts: Vec::new(),
            failing: None,
            foreign: 0,
        }
    }

    /// Deletes what was read before, and reads what comes next. Returns after any answer, or after a pause if there is
    /// none to be had; whether there was an event.
    pub async fn step(mut self) -> (Self, bool) {
        let result = self.delete_and_receive().await;
        match &result {
            Ok(_) => self.succeeded(),
            Err(error) => {
                let pause = self.failed(error);
                tokio::time::sleep(pause).await;
            }
        }
        let is_event = result.unwrap_or(false);
        (self, is_event)
    }

    /// Reads and deletes as [`step`](Self::step) does, but hides nothing and deletes nothing.
    ///
    /// # Errors
    ///
    /// Either is not possible.
    pub async fn check(mut self) -> Result<(), Error> {
        let client = self.client().await;
        let call = client.receive_message().queue_url(&self.config.queue_url);
        // A message that is read remains visible to others.
        let call = call.visibility_timeout(0).wait_time_seconds(0).max_number_of_messages(1);
        call.send().await.map_err(|error| self.about("ReceiveMessage").explain(&error))?;
        // That there is no such receipt is only noticed once deleting is allowed.
        match self.delete(&client, vec![NO_RECEIPT.to_owned()]).await {
            Err(Error::Other { detail, .. }) if detail.starts_with("ReceiptHandleIsInvalid") => Ok(()),
            other => other,
        }
    }

    async fn delete_and_receive(&mut self) -> Result<bool, Error> {
        let client = self.client().await;
        let receipts = std::mem::take(&mut self.receipts);
        if !receipts.is_empty() {
            // What fails to be deleted comes again by itself.
            self.delete(&client, receipts).await?;
        }
        let call = client.receive_message().queue_url(&self.config.queue_url);
        let call = call.wait_time_seconds(WAIT_SECONDS).max_number_of_messages(BATCH);
        let answer = call.send().await.map_err(|error| self.about("ReceiveMessage").explain(&error))?;
        let mut is_event = false;
        for message in answer.messages.unwrap_or_default() {
            if message::is_event(message.body().unwrap_or_default()) {
                is_event = true;
            } else {
                self.count_foreign();
            }
            self.receipts.extend(message.receipt_handle);
        }
        self.client = Some(client);
        Ok(is_event)
    }

    async fn delete(&self, client: &Client, receipts: Vec<String>) -> Result<(), Error> {
        let about = self.about("DeleteMessageBatch");
        let entry = |(index, receipt): (usize, String)| {
            DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(receipt).build()
        };
        let entries: Result<Vec<_>, _> = receipts.into_iter().enumerate().map(entry).collect();
        let entries = entries.expect("each has an id and a receipt");
        let call = client.delete_message_batch().queue_url(&self.config.queue_url).set_entries(Some(entries));
        let answer = call.send().await.map_err(|error| about.explain(&error))?;
        match answer.failed().first() {
            Some(failed) => Err(about.refused(failed.code(), failed.message().unwrap_or_default())),
            None => Ok(()),
        }
    }

    /// Taken out, so that a failure leads to a new one: identity and connection may be what failed.
    async fn client(&mut self) -> Client {
        if let Some(client) = self.client.take() {
            return client;
        }
        let shared = clients::shared(&self.provider, &self.credentials).await;
        let bounds = TimeoutConfig::builder()
            .connect_timeout(clients::CONNECT_TIMEOUT)
            .operation_attempt_timeout(LIMIT)
            .operation_timeout(LIMIT)
            .build();
        let mut builder = aws_sdk_sqs::config::Builder::from(&shared)
            .region(Region::new(self.config.region.clone()))
            .timeout_config(bounds);
        if let Some(url) = &self.config.endpoint_url {
            builder = builder.endpoint_url(url);
        }
        Client::from_conf(builder.build())
    }

    fn about(&self, operation: &'static str) -> About<'_> {
        let Config { queue_url, region, endpoint_url } = &self.config;
        let context = Context {
            region: region.clone(),
            ec2: String::new(),
            auto_scaling: String::new(),
            role: self.provider.role_arn.clone(),
            profile: self.provider.profile.clone(),
            limit: LIMIT,
        };
        let endpoint = endpoint_url.clone().unwrap_or_else(|| format!("https://sqs.{region}.amazonaws.com"));
        About { queue: queue_url, operation, endpoint, context }
    }

    fn count_foreign(&mut self) {
        self.foreign += 1;
        // Logged again when they have doubled: a rule that is too wide causes thousands an hour.
        if self.foreign.is_power_of_two() {
            tracing::warn!(
                queue = self.config.queue_url,
                count = self.foreign,
                "unknown messages in the queue of events deleted; check that the queue serves this sidecar alone and that \
                 its rule's pattern matches events of EC2, Auto Scaling and tags"
            );
        }
    }

    fn succeeded(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!(queue = self.config.queue_url, "queue of events reachable again");
        }
    }

    /// Logs the error, unless the last one was of the same kind, and returns how long to wait.
    fn failed(&mut self, error: &Error) -> Duration {
        let kind = discriminant(error);
        let failures = match self.failing {
            Some((failures, same)) if same == kind => failures,
            earlier => {
                tracing::warn!(%error, "queue of events failed; changes are noticed at the provider's interval until it works again");
                earlier.map_or(0, |(failures, _)| failures)
            }
        };
        self.failing = Some((failures.saturating_add(1), kind));
        RETRY.delay_after(failures)
    }
}
