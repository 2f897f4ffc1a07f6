//! One API call, page by page, to the end.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::{BoxError, ProvideErrorMetadata, SdkError};

use super::Error;
use super::clients::Regional;
use super::error::is_throttle;
use crate::provider::ApiUsage;

/// The calls that this provider makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are AWS's own names")]
pub enum Call {
    DescribeInstances,
    DescribeInstanceStatus,
    DescribeSpotInstanceRequests,
    DescribeAutoScalingGroups,
    ReceiveMessage,
}

impl Call {
    /// Who answers it.
    pub const fn api(self) -> &'static str {
        match self {
            Self::DescribeAutoScalingGroups => "Auto Scaling",
            Self::ReceiveMessage => "SQS",
            Self::DescribeInstances | Self::DescribeInstanceStatus | Self::DescribeSpotInstanceRequests => "EC2",
        }
    }

    /// The IAM action it takes.
    pub const fn action(self) -> &'static str {
        match self {
            Self::DescribeInstances => "ec2:DescribeInstances",
            Self::DescribeInstanceStatus => "ec2:DescribeInstanceStatus",
            Self::DescribeSpotInstanceRequests => "ec2:DescribeSpotInstanceRequests",
            Self::DescribeAutoScalingGroups => "autoscaling:DescribeAutoScalingGroups",
            Self::ReceiveMessage => "sqs:ReceiveMessage",
        }
    }

    /// The key by which the provider is told where the API is.
    pub(super) const fn endpoint_key(self) -> &'static str {
        match self {
            Self::DescribeAutoScalingGroups => "auto_scaling_endpoint_url",
            Self::ReceiveMessage => "events.endpoint_url",
            Self::DescribeInstances | Self::DescribeInstanceStatus | Self::DescribeSpotInstanceRequests => {
                "endpoint_url"
            }
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Counts what is asked. It outlives the clients, and a poll that is dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct ApiCallCounter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    pages: AtomicU64,
    throttles: AtomicU64,
}

impl ApiCallCounter {
    /// What was counted since this was last asked.
    pub fn take(&self) -> ApiUsage {
        let [calls, pages, throttles] =
            [&self.0.calls, &self.0.pages, &self.0.throttles].map(|count| count.swap(0, Ordering::Relaxed));
        ApiUsage { calls, pages, throttles }
    }
}

impl Intercept for ApiCallCounter {
    fn name(&self) -> &'static str {
        "meter"
    }

    /// Once for every attempt.
    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The SDK repeats by itself what is throttled, so that the poll may never know.
    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response();
        let code = || {
            let body = std::str::from_utf8(answer.body().bytes()?).ok()?;
            Some(body.split_once("<Code>")?.1.split_once('<')?.0)
        };
        let status = answer.status();
        if status.as_u16() == 429 || (!status.is_success() && code().is_some_and(is_throttle)) {
            self.0.throttles.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Asks for one page after the other. `ask` asks for the one that a token names, `take` takes it and says which is the
/// next. Each is taken as it comes, so that only one of them is held at a time.
pub(super) async fn follow<P, E, F>(
    at: &Regional,
    call: Call,
    ask: impl Fn(Option<String>) -> F,
    mut take: impl FnMut(P) -> Option<String>,
) -> Result<(), Error>
where
    F: Future<Output = Result<P, SdkError<E, HttpResponse>>>,
    E: ProvideErrorMetadata + StdError + 'static,
{
    let mut seen = HashSet::new();
    let mut token = None;
    loop {
        let spent = at.budget.spend().await;
        let page = ask(token).await.map_err(|error| at.context.explain(call, &error))?;
        drop(spent);
        at.meter.0.pages.fetch_add(1, Ordering::Relaxed);
        let Some(next) = take(page).filter(|token| !token.is_empty()) else { return Ok(()) };
        if !seen.insert(next.clone()) {
            return Err(Error::RepeatedToken { call, region: at.context.region.clone(), page: seen.len() + 1 });
        }
        token = Some(next);
    }
}
