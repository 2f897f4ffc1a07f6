//! Whom elasticd is to AWS, and what it means when that fails.

use std::error::Error as StdError;

use aws_config::SdkConfig;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_ec2::config::{Region, SharedHttpClient};
use aws_sdk_ec2::error::ErrorMetadata;

use super::error::{Context, Error, causes};
use super::{Call, Config};
use crate::provider::chain;
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
pub(super) fn outside(sdk: SdkConfig) -> SdkConfig {
    let Some(inside) = sdk.credentials_provider() else { return sdk };
    sdk.into_builder().credentials_provider(SharedCredentialsProvider::new(ByProgram(inside))).build()
}

#[derive(Debug)]
struct ByProgram(SharedCredentialsProvider);

impl ProvideCredentials for ByProgram {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let inside = self.0.clone();
        future::ProvideCredentials::new(Unconfined::new(async move { inside.provide_credentials().await }))
    }
}

/// The failure to get credentials beneath a call's error, if that is what it was. The innermost: a role's
/// credentials may fail for want of those it is assumed with.
pub(super) fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a CredentialsError> {
    causes(error).filter_map(|cause| cause.downcast_ref()).last()
}

/// The error in operators' words.
pub(super) fn explain(context: &Context, call: Call, error: &CredentialsError) -> Error {
    let refusal = causes(error).filter_map(|cause| cause.downcast_ref::<ErrorMetadata>()).last();
    if let Some(code) = refusal.and_then(ErrorMetadata::code) {
        let message = refusal.and_then(ErrorMetadata::message).unwrap_or_default();
        return match (context.refused(call, code, message), &context.role) {
            (Error::AccessDenied { detail, .. }, Some(role)) => Error::RoleDenied { role: role.clone(), detail },
            (error, _) => error,
        };
    }
    let detail = chain(error);
    match &context.profile {
        Some(profile) => Error::NoProfile { profile: profile.clone(), detail },
        None => Error::NoCredentials { detail },
    }
}
