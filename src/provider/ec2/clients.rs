//! From the configuration to one EC2 client for each region.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::{Region, SharedHttpClient};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider as Tls;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use super::call_counter::ApiCallCounter;
use super::error::Context;
use super::xml::Whole;
use super::{Config, Error, credentials};
use crate::provider::rate_limiter::RateLimiter;

/// How long a connection may take to come about: the SDK's own default, written here so that it does not change with the SDK.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);

/// How often a call is tried in all. More is up to the next poll; and with a budget, all of it is, since what the SDK
/// repeats by itself would not wait for it.
const ATTEMPTS: u32 = 3;

/// One region's clients, and what their calls have in common.
#[derive(Debug)]
pub(super) struct Regional {
    pub ec2: Client,
    pub auto_scaling: aws_sdk_autoscaling::Client,
    pub page_size: i32,
    pub rate_limiter: RateLimiter,
    pub counter: ApiCallCounter,
    pub context: Context,
}

/// Finds what is not configured by AWS's own chain, and builds the clients.
pub(super) async fn build(
    config: &Config,
    source: &credentials::Source,
    rate_limiter: &RateLimiter,
    counter: &ApiCallCounter,
) -> Result<Vec<Regional>, Error> {
    let base = base(config, source).await;
    let regions = match (&*config.regions, base.region()) {
        ([], None) => return Err(Error::NoRegion),
        ([], Some(region)) => vec![region.clone()],
        (regions, _) => regions.iter().cloned().map(Region::new).collect(),
    };
    let sdk = credentials::assume(config, base).await;
    Ok(regions.into_iter().map(|region| regional(config, &sdk, region, rate_limiter, counter)).collect())
}

/// Credentials, the role's if there is one, retries and bounds, as clients of any AWS service share them.
pub(super) async fn shared(config: &Config, source: &credentials::Source) -> SdkConfig {
    credentials::assume(config, base(config, source).await).await
}

/// Region, credentials, retries and bounds, as all clients share them.
async fn base(config: &Config, source: &credentials::Source) -> SdkConfig {
    let http = http();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http.clone())
        .retry_config(RetryConfig::standard().with_max_attempts(if config.api_budget.is_some() { 1 } else { ATTEMPTS }))
        .timeout_config(bounds(config.call_timeout));
    let region = config.regions.first().cloned().map(Region::new);
    // With a region configured, the metadata service is not asked for one.
    if let Some(region) = &region {
        loader = loader.region(region.clone());
    }
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile).credentials_provider(credentials::of_profile(profile, region, &http));
    }
    if let Some(given) = &source.given {
        loader = loader.credentials_provider(given.clone());
    }
    credentials::unconfined(loader.load().await, &source.unconfined)
}

pub(super) fn http() -> SharedHttpClient {
    Builder::new().tls_provider(Tls::Rustls(CryptoMode::Ring)).build_https()
}

fn bounds(call: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(call)
        .operation_timeout(call)
        .build()
}

fn regional(
    config: &Config,
    sdk: &SdkConfig,
    region: Region,
    rate_limiter: &RateLimiter,
    counter: &ApiCallCounter,
) -> Regional {
    let endpoint = |configured: &Option<String>, service: &str, host: &str| {
        // For messages alone: the SDK finds it by itself, in this order.
        configured
            .clone()
            .or_else(|| std::env::var(format!("AWS_ENDPOINT_URL_{service}")).ok())
            .or_else(|| sdk.endpoint_url().map(str::to_owned))
            .unwrap_or_else(|| format!("https://{host}.{region}.amazonaws.com"))
    };
    let context = Context {
        region: region.to_string(),
        ec2: endpoint(&config.endpoint_url, "EC2", "ec2"),
        auto_scaling: endpoint(&config.auto_scaling_endpoint_url, "AUTO_SCALING", "autoscaling"),
        role: config.role_arn.clone(),
        profile: config.profile.clone(),
        limit: config.call_timeout,
    };
    let mut ec2 =
        aws_sdk_ec2::config::Builder::from(sdk).region(region.clone()).interceptor(counter.clone()).interceptor(Whole);
    if let Some(url) = &config.endpoint_url {
        ec2 = ec2.endpoint_url(url);
    }
    let mut auto_scaling =
        aws_sdk_autoscaling::config::Builder::from(sdk).region(region).interceptor(counter.clone()).interceptor(Whole);
    if let Some(url) = &config.auto_scaling_endpoint_url {
        auto_scaling = auto_scaling.endpoint_url(url);
    }
    Regional {
        ec2: Client::from_conf(ec2.build()),
        auto_scaling: aws_sdk_autoscaling::Client::from_conf(auto_scaling.build()),
        page_size: config.page_size,
        rate_limiter: rate_limiter.clone(),
        counter: counter.clone(),
        context,
    }
}
