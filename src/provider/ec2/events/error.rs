//! Why the queue of events cannot be used, in operators' words.

use std::time::Duration;

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

use super::super::call::Call;
use super::super::error::{Context, Error as Ec2Error, credentials_error};
use crate::provider::{self, ErrorKind};
use crate::sys::text::chain;
use crate::units::HumanDuration;

/// Why no events come: what was tried, on which queue, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such queue.
    #[error(
        "there is no queue {queue}: create it, in the region and the account of its URL, or correct `events.queue_url` \
         ({detail})"
    )]
    Absent {
        /// The queue's URL.
        queue: String,
        /// SQS' own words.
        detail: String,
    },
    /// The identity may not use the queue.
    #[error(
        "SQS refused {operation} on the queue {queue}: allow the actions `sqs:ReceiveMessage` and `sqs:DeleteMessage` on \
         it to the identity that elasticd uses; if the queue is encrypted with a key of your own, `kms:Decrypt` on that \
         key as well ({detail})"
    )]
    Denied {
        /// The queue's URL.
        queue: String,
        /// What was refused.
        operation: &'static str,
        /// SQS' own words.
        detail: String,
    },
    /// SQS asks for fewer calls.
    #[error("SQS throttled {operation} on the queue {queue} ({code}): elasticd slows down by itself")]
    Throttled {
        /// The queue's URL.
        queue: String,
        /// What was throttled.
        operation: &'static str,
        /// SQS' word for it.
        code: String,
    },
    /// No connection came about, or it broke.
    #[error(
        "the connection to SQS ({endpoint}) failed: {detail}; check DNS, routes, the firewall, any VPC endpoint (one for \
         EC2 does not serve SQS) and `events.endpoint_url`"
    )]
    Unreachable {
        /// The URL asked.
        endpoint: String,
        /// What the connection said.
        detail: String,
    },
    /// No answer in time.
    #[error("SQS ({endpoint}) did not answer {operation} within {}: look for a proxy that holds answers back", HumanDuration(*limit))]
    Late {
        /// The URL asked.
        endpoint: String,
        /// What was not answered.
        operation: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The credentials are not accepted.
    #[error("the queue of events: {0}")]
    Identity(Box<Ec2Error>),
    /// Anything else.
    #[error("SQS failed {operation} on the queue {queue}: {detail}; it is tried again; look the code up if it lasts")]
    Other {
        /// The queue's URL.
        queue: String,
        /// What failed.
        operation: &'static str,
        /// SQS' own words.
        detail: String,
    },
}

impl From<Error> for provider::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Throttled { .. } => ErrorKind::Throttled,
            Error::Denied { .. } => ErrorKind::Denied,
            Error::Absent { .. } | Error::Unreachable { .. } => ErrorKind::Unreachable,
            Error::Late { .. } => ErrorKind::Timeout,
            Error::Identity(_) => ErrorKind::Denied,
            Error::Other { .. } => ErrorKind::Failed,
        };
        Self::new(kind, error)
    }
}

/// Which call an error is of.
#[derive(Debug, Clone)]
pub struct About<'a> {
    /// The queue's URL.
    pub queue: &'a str,
    /// The operation, as SQS names it.
    pub operation: &'static str,
    /// The URL asked.
    pub endpoint: String,
    /// The region, role and profile.
    pub context: Context,
}

impl About<'_> {
    /// The error in operators' words.
    pub fn explain<E>(&self, error: &SdkError<E, HttpResponse>) -> Error
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        if let Some(cause) = credentials_error(error) {
            return Error::Identity(Box::new(self.context.no_credentials(Call::ReceiveMessage, cause)));
        }
        let endpoint = || self.endpoint.clone();
        match error {
            SdkError::TimeoutError(_) => {
                Error::Late { endpoint: endpoint(), operation: self.operation, limit: self.context.limit }
            }
            SdkError::DispatchFailure(_) => Error::Unreachable { endpoint: endpoint(), detail: chain(error) },
            SdkError::ServiceError(answer) => match answer.err().code() {
                Some(code) => self.refused(code, answer.err().message().unwrap_or_default()),
                None => self.other(chain(error)),
            },
            _ => self.other(chain(error)),
        }
    }

    /// SQS answered with an error of its own.
    pub fn refused(&self, code: &str, message: &str) -> Error {
        let (queue, operation) = (self.queue.to_owned(), self.operation);
        let detail = format!("{code}: {message}");
        // The older protocol's names are still to be met.
        match code {
            "QueueDoesNotExist" | "AWS.SimpleQueueService.NonExistentQueue" | "InvalidAddress" => {
                Error::Absent { queue, detail }
            }
            "KmsAccessDenied" | "KMS.AccessDeniedException" => Error::Denied { queue, operation, detail },
            "RequestThrottled" | "OverLimit" | "KmsThrottled" | "KMS.ThrottlingException" => {
                Error::Throttled { queue, operation, code: code.to_owned() }
            }
            _ => match self.context.refused(Call::ReceiveMessage, code, message) {
                Ec2Error::AccessDenied { .. } => Error::Denied { queue, operation, detail },
                Ec2Error::Throttled { code, .. } => Error::Throttled { queue, operation, code },
                identity @ (Ec2Error::Expired { .. }
                | Ec2Error::BadCredentials { .. }
                | Ec2Error::ClockSkew { .. }
                | Ec2Error::RoleDenied { .. }) => Error::Identity(Box::new(identity)),
                _ => Error::Other { queue, operation, detail },
            },
        }
    }

    fn other(&self, detail: String) -> Error {
        Error::Other { queue: self.queue.to_owned(), operation: self.operation, detail }
    }
}
