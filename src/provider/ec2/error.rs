//! Why EC2 did not answer, in operators' words.

use std::time::Duration;

use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesError;

/// Why a poll of EC2 yielded no set.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "`region` is where, `cause` the SDK's words, `endpoint` and `role` what was asked")]
pub enum Error {
    /// Nothing says which region.
    #[error(
        "no region: neither the provider's `regions`, AWS_REGION, the profile nor the instance metadata names one; set \
         `regions = [\"…\"]`"
    )]
    NoRegion,
    /// The chain ended without credentials.
    #[error(
        "{region}: no AWS credentials: tried the environment, the profile, web identity, the container's role and the \
         instance metadata ({cause}); attach an instance profile, and in a container raise the metadata hop limit: aws \
         ec2 modify-instance-metadata-options --http-put-response-hop-limit 2"
    )]
    NoCredentials { region: String, cause: String },
    /// They were good once.
    #[error(
        "{region}: the AWS credentials have expired ({cause}); the next poll loads them anew: if they are static, \
         replace them, and check this machine's clock"
    )]
    Expired { region: String, cause: String },
    /// AWS does not know them.
    #[error(
        "{region}: AWS does not accept the credentials ({cause}); check the access key, and that the region is enabled \
         for the account"
    )]
    BadCredentials { region: String, cause: String },
    /// Credentials exist, but the role was refused.
    #[error(
        "{region}: cannot assume the role {role} ({cause}); allow sts:AssumeRole on it to the credentials used, and \
         name them in the role's trust policy, with the `external_id` if it asks for one"
    )]
    AssumeRole { region: String, role: String, cause: String },
    /// The credentials may not ask.
    #[error("{region}: access denied ({cause}); allow the action ec2:DescribeInstances to the credentials used")]
    Denied { region: String, cause: String },
    /// Too many calls in the account and region.
    #[error(
        "{region}: too many calls ({cause}); polls are spaced out meanwhile: raise the provider's `interval`, or let \
         one publisher poll for all"
    )]
    Throttled { region: String, cause: String },
    /// The signature's time is not AWS's.
    #[error("{region}: this machine's clock differs from AWS's ({cause}); synchronise it, with chrony for instance")]
    ClockSkew { region: String, cause: String },
    /// No connection, or a broken one.
    #[error(
        "{region}: cannot reach {endpoint} ({cause}); check routes, security groups and proxies, or `endpoint_url`"
    )]
    Unreachable { region: String, endpoint: String, cause: String },
    /// One call took too long.
    #[error(
        "{region}: {endpoint} did not answer within {after:?}; raise the provider's `call_timeout` if it is merely slow"
    )]
    Timeout { region: String, endpoint: String, after: Duration },
    /// Something else than an EC2 endpoint, or an ill one.
    #[error(
        "{region}: {endpoint} gave no valid EC2 answer{} ({cause}); check that it is an EC2 endpoint, and the AWS \
         Health Dashboard",
        http(*status)
    )]
    Invalid { region: String, endpoint: String, status: Option<u16>, cause: String },
    /// A page that leads back to one already read.
    #[error("{region}: {endpoint} repeated a page token after page {page}: the answer has no end; check the endpoint")]
    RepeatedToken { region: String, endpoint: String, page: usize },
    /// EC2 understood, and refused for another reason.
    #[error("{region}: EC2 refused DescribeInstances ({cause}); look the code up in the EC2 API's error codes")]
    Refused { region: String, cause: String },
    /// A defect: the task that asked one region ended by itself.
    #[error("the poll of one region ended early ({cause}); please report this")]
    Lost { cause: String },
}

fn http(status: Option<u16>) -> String {
    status.map_or_else(String::new, |status| format!(", but HTTP {status}"))
}

impl Error {
    /// Whether AWS asked for fewer calls.
    pub const fn is_throttled(&self) -> bool {
        matches!(self, Self::Throttled { .. })
    }

    /// Whether credentials loaded anew might help.
    pub(super) const fn is_about_credentials(&self) -> bool {
        matches!(
            self,
            Self::NoRegion
                | Self::NoCredentials { .. }
                | Self::Expired { .. }
                | Self::BadCredentials { .. }
                | Self::AssumeRole { .. }
                | Self::Denied { .. }
        )
    }
}

/// What was asked, for the words of an error.
pub(super) struct Asked<'a> {
    pub region: &'a str,
    pub endpoint: &'a str,
    pub role: Option<&'a str>,
    pub timeout: Duration,
}

/// Puts the SDK's error into operators' words.
pub(super) fn explain(asked: &Asked<'_>, error: &SdkError<DescribeInstancesError>) -> Error {
    let (region, endpoint) = (asked.region.to_owned(), asked.endpoint.to_owned());
    let status = error.raw_response().map(|response| response.status().as_u16());
    let cause = DisplayErrorContext(error).to_string();
    match error {
        SdkError::TimeoutError(_) => Error::Timeout { region, endpoint, after: asked.timeout },
        SdkError::ServiceError(service) => match service.err().code() {
            Some(code) => refused(region, code, service.err().message().unwrap_or("no message")),
            None => Error::Invalid { region, endpoint, status, cause: chain(error) },
        },
        SdkError::ResponseError(_) => Error::Invalid { region, endpoint, status, cause: chain(error) },
        SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout() => {
            Error::Unreachable { region, endpoint, cause: chain(error) }
        }
        // The SDK's types do not tell whose failure it was: its words do.
        _ if is_about_credentials(&cause) => credentials(asked, &cause, chain(error)),
        _ if cause.contains("timeout") || cause.contains("timed out") => {
            Error::Timeout { region, endpoint, after: asked.timeout }
        }
        _ => Error::Unreachable { region, endpoint, cause: chain(error) },
    }
}

fn is_about_credentials(cause: &str) -> bool {
    ["credential", "Credential", "identity", "AssumeRole"].iter().any(|word| cause.contains(word))
}

fn credentials(asked: &Asked<'_>, words: &str, cause: String) -> Error {
    let region = asked.region.to_owned();
    let says = |codes: &[&str]| codes.iter().any(|code| words.contains(code));
    match asked.role {
        _ if says(&["ExpiredToken"]) => Error::Expired { region, cause },
        _ if says(&["RequestTimeTooSkewed", "Signature expired", "Signature not yet current"]) => {
            Error::ClockSkew { region, cause }
        }
        Some(role) if says(&["AccessDenied", "AssumeRole"]) => {
            Error::AssumeRole { region, role: role.to_owned(), cause }
        }
        None if says(&["AccessDenied", "AssumeRole"]) => {
            Error::AssumeRole { region, role: "of the profile or the web identity".to_owned(), cause }
        }
        _ => Error::NoCredentials { region, cause },
    }
}

/// By the codes of "Error codes for the Amazon EC2 API" and of the SDK's own list of throttling codes.
fn refused(region: String, code: &str, message: &str) -> Error {
    let cause = format!("{code}: {message}");
    match code {
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded"
        | "SlowDown" => Error::Throttled { region, cause },
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => Error::Denied { region, cause },
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => Error::Expired { region, cause },
        "RequestTimeTooSkewed" | "RequestInTheFuture" => Error::ClockSkew { region, cause },
        _ if message.contains("Signature expired") || message.contains("Signature not yet current") => {
            Error::ClockSkew { region, cause }
        }
        "AuthFailure"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException"
        | "OptInRequired" => Error::BadCredentials { region, cause },
        _ => Error::Refused { region, cause },
    }
}

/// Every error of the chain, without the debug form that the SDK appends.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if words.last() != Some(&text) {
            words.push(text);
        }
        source = error.source();
    }
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_leads_to_its_remedy() {
        for (code, message, remedy) in [
            ("RequestLimitExceeded", "", "`interval`"),
            ("UnauthorizedOperation", "", "ec2:DescribeInstances"),
            ("ExpiredToken", "", "loads them anew"),
            ("AuthFailure", "", "check the access key"),
            ("SignatureDoesNotMatch", "Signature expired: 2020 is now earlier than 2021", "synchronise it"),
            ("InvalidParameterValue", "", "error codes"),
        ] {
            let error = refused("eu-west-1".to_owned(), code, message);
            let text = error.to_string();
            assert!(text.starts_with("eu-west-1: ") && text.contains(code) && text.contains(remedy), "{text}");
            assert_eq!(error.is_throttled(), code == "RequestLimitExceeded");
        }
    }

    #[test]
    fn a_refused_role_is_told_from_missing_credentials() {
        let asked = Asked { region: "r", endpoint: "e", role: Some("arn:x"), timeout: Duration::ZERO };
        let explain = |words: &str| credentials(&asked, words, words.to_owned()).to_string();
        assert!(explain("AccessDenied: not authorized to perform sts:AssumeRole").contains("sts:AssumeRole on it"));
        assert!(explain("no providers in chain provided credentials").contains("hop-limit 2"));
        assert!(explain("AssumeRoleError: ExpiredToken").contains("expired"));
    }
}
