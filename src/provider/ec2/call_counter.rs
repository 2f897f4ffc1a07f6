//! Counts the API calls that are made, whatever becomes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_ec2::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::BoxError;

use super::error::is_throttle;
use crate::provider::ApiUsage;

/// Counts calls, pages and throttled calls. It outlives the clients, and a poll that is dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct ApiCallCounter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    pages: AtomicU64,
    throttles: AtomicU64,
}

impl ApiCallCounter {
    /// Counts a page that came back.
    pub fn count_page(&self) {
        self.0.pages.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts since this was last called.
    pub fn take(&self) -> ApiUsage {
        let [calls, pages, throttles] =
            [&self.0.calls, &self.0.pages, &self.0.throttles].map(|count| count.swap(0, Ordering::Relaxed));
        ApiUsage { calls, pages, throttles }
    }
}

impl Intercept for ApiCallCounter {
    fn name(&self) -> &'static str {
        "ApiCallCounter"
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
