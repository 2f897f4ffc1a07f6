//! The credentials of calls to AWS.

use aws_config::SdkConfig;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_ec2::config::{Region, SharedHttpClient};

use super::Config;
use crate::sys::unconfined::Unconfined;

/// How the role's sessions are named, in CloudTrail for one.
const SESSION_NAME: &str = "elasticd";

/// The credentials of one profile. The SDK's chain would let the environment override what the configuration says.
pub(super) fn of_profile(profile: &str, region: Option<Region>, http: &SharedHttpClient) -> SharedCredentialsProvider {
    let sources = ProviderConfig::without_region().with_region(region).with_http_client(http.clone());
    let provider = ProfileFileCredentialsProvider::builder().configure(&sources).profile_name(profile).build();
    SharedCredentialsProvider::new(provider)
}

/// The same configuration, with the credentials of the role to be assumed, if any.
pub(super) async fn assume(config: &Config, base: SdkConfig) -> SdkConfig {
    let Some(role) = &config.role_arn else { return base };
    let mut provider = AssumeRoleProvider::builder(role).session_name(SESSION_NAME).configure(&base);
    if let Some(id) = &config.external_id {
        provider = provider.external_id(id);
    }
    let credentials = SharedCredentialsProvider::new(provider.build().await);
    base.into_builder().credentials_provider(credentials).build()
}

/// The same configuration, whose credentials may come from a program that the SDK starts (`credential_process`): the
/// calling thread may not.
pub(super) fn unconfined(sdk: SdkConfig, unconfined: &Unconfined) -> SdkConfig {
    let Some(inner) = sdk.credentials_provider() else { return sdk };
    let unconfined = unconfined.clone();
    sdk.into_builder().credentials_provider(SharedCredentialsProvider::new(ByProgram { inner, unconfined })).build()
}

/// Where a provider takes its credentials from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Credentials to use alone. `None`: AWS's own chain is asked.
    pub given: Option<SharedCredentialsProvider>,
    /// Starts the programs of that chain.
    pub unconfined: Unconfined,
}

#[derive(Debug)]
struct ByProgram {
    inner: SharedCredentialsProvider,
    unconfined: Unconfined,
}

impl ProvideCredentials for ByProgram {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let inner = self.inner.clone();
        future::ProvideCredentials::new(self.unconfined.run_future(async move { inner.provide_credentials().await }))
    }
}
