//! Follows the pages of one API call to the end.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::future::Future;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

use super::Error;
use super::call::Call;
use super::clients::Regional;

/// Requests one page after the other. `request` requests the one that a token names; `take` consumes it and returns the
/// token of the next one. Each is consumed as it comes, so that only one of them is held at a time.
pub(super) async fn follow<P, E, F>(
    at: &Regional,
    call: Call,
    request: impl Fn(Option<String>) -> F,
    mut take: impl FnMut(P) -> Option<String>,
) -> Result<(), Error>
where
    F: Future<Output = Result<P, SdkError<E, HttpResponse>>>,
    E: ProvideErrorMetadata + StdError + 'static,
{
    let mut seen = HashSet::new();
    let mut token = None;
    loop {
        let permit = at.rate_limiter.acquire().await;
        let page = request(token).await.map_err(|error| at.context.explain(call, &error))?;
        drop(permit);
        at.counter.count_page();
        let Some(next) = take(page).filter(|token| !token.is_empty()) else { return Ok(()) };
        if !seen.insert(next.clone()) {
            return Err(Error::RepeatedToken { call, region: at.context.region.clone(), page: seen.len() + 1 });
        }
        token = Some(next);
    }
}
