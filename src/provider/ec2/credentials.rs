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
pub(super) fn unconfined(sdk: SdkConfig) -> SdkConfig {
    let Some(inner) = sdk.credentials_provider() else { return sdk };
    sdk.into_builder().credentials_provider(SharedCredentialsProvider::new(ByProgram(inner))).build()
}

#[derive(Debug)]
struct ByProgram(SharedCredentialsProvider);

impl ProvideCredentials for ByProgram {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let inner = self.0.clone();
        future::ProvideCredentials::new(Unconfined::new(async move { inner.provide_credentials().await }))
    }
}
