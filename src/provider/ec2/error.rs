//! Why EC2 could not be asked, in operators' words.

use std::error::Error as StdError;
use std::time::Duration;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesError;

use super::credentials;

/// Why EC2 gave no complete answer: what was tried, on what, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// EC2 asks for fewer calls.
    #[error(
        "EC2 in {region} throttled DescribeInstances ({code}): polls are spaced out by themselves; if it lasts, raise \
         the provider's `interval`, or poll from fewer sidecars of this account"
    )]
    Throttled {
        /// The region asked.
        region: String,
        /// EC2's word for it.
        code: String,
    },
    /// The identity may not list instances.
    #[error(
        "EC2 in {region} refused DescribeInstances: allow the action `ec2:DescribeInstances` on resource `*` to the \
         identity that elasticd uses ({detail})"
    )]
    AccessDenied {
        /// The region asked.
        region: String,
        /// EC2's own words.
        detail: String,
    },
    /// The identity may not take on `role_arn`.
    #[error(
        "STS refused to let elasticd assume the role {role}: allow `sts:AssumeRole` on it to the identity that elasticd \
         starts from, and name that identity, and any `external_id`, in the role's trust policy ({detail})"
    )]
    RoleDenied {
        /// The role to be assumed, by its ARN.
        role: String,
        /// STS's own words.
        detail: String,
    },
    /// The credential chain is at its end.
    #[error(
        "no AWS credentials from the environment, the AWS profile, a web identity token, the container's credential \
         endpoint or the metadata service (IMDS): attach an instance profile or a task role to this machine, or set the \
         provider's `profile`; in a container, let IMDS answer across one more hop: `aws ec2 \
         modify-instance-metadata-options --http-put-response-hop-limit 2 --instance-id ...` ({detail})"
    )]
    NoCredentials {
        /// What the chain said.
        detail: String,
    },
    /// The configured profile yields no credentials.
    #[error(
        "no AWS credentials from the profile {profile:?}: check that AWS's files (`~/.aws/config` and \
         `~/.aws/credentials` of elasticd's user, or where AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE point) define \
         it and can be read, or leave the provider's `profile` out to have the whole chain asked ({detail})"
    )]
    NoProfile {
        /// The profile's name.
        profile: String,
        /// What the SDK said.
        detail: String,
    },
    /// The session token is past its time.
    #[error(
        "the AWS credentials used in {region} have expired ({detail}): renew them where they come from (environment and \
         static profiles need it by hand); they are read anew at the next poll. If they have not, set this machine's \
         clock"
    )]
    Expired {
        /// The region asked.
        region: String,
        /// AWS's own words.
        detail: String,
    },
    /// AWS does not know the credentials.
    #[error(
        "AWS does not accept the credentials used in {region}: check that the access key is active, that the region is \
         enabled for the account, and that this machine's clock is right ({detail})"
    )]
    BadCredentials {
        /// The region asked.
        region: String,
        /// AWS's own words.
        detail: String,
    },
    /// No region is configured, and none is to be found.
    #[error(
        "no AWS region: neither the environment (AWS_REGION), nor the AWS profile, nor the metadata service (IMDS) names \
         one: set the provider's `region`"
    )]
    NoRegion,
    /// No connection came about, or it broke.
    #[error(
        "the connection to the EC2 endpoint {endpoint} ({region}) failed: {detail}; check the region's name, DNS, routes, the \
         firewall, any VPC endpoint, the provider's `endpoint_url`, and, if its certificate is not trusted, that the CA \
         certificates (package ca-certificates) are installed"
    )]
    Unreachable {
        /// The region asked.
        region: String,
        /// The URL asked.
        endpoint: String,
        /// What the connection said.
        detail: String,
    },
    /// A call took longer than `call_timeout`.
    #[error(
        "the EC2 endpoint {endpoint} ({region}) did not answer DescribeInstances within {limit:?}: raise the provider's \
         `call_timeout`, or lower its `page_size`"
    )]
    Timeout {
        /// The region asked.
        region: String,
        /// The URL asked.
        endpoint: String,
        /// The provider's `call_timeout`.
        limit: Duration,
    },
    /// What answered does not speak EC2, or fails before it does.
    #[error(
        "the EC2 endpoint {endpoint} ({region}) answered with status {status} and something that is not EC2's XML: if it \
         lasts, look for a proxy in between or a wrong `endpoint_url` ({detail})"
    )]
    Unreadable {
        /// The region asked.
        region: String,
        /// The URL asked.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What could not be read.
        detail: String,
    },
    /// The signature's time is not AWS's.
    #[error(
        "AWS in {region} refused the request's time: this machine's clock is wrong, synchronise it (chrony, \
         systemd-timesyncd) ({detail})"
    )]
    ClockSkew {
        /// The region asked.
        region: String,
        /// AWS's own words.
        detail: String,
    },
    /// Following the pages would never end.
    #[error(
        "EC2 in {region} gave the same NextToken twice, after page {page}: the pages would never end; if it lasts, \
         something between elasticd and EC2 caches answers: check the provider's `endpoint_url` and any proxy"
    )]
    RepeatedToken {
        /// The region asked.
        region: String,
        /// The page that repeated it, counted from 1.
        page: usize,
    },
    /// Anything else.
    #[error("EC2 in {region} failed DescribeInstances: {detail}; the poll is repeated, look the code up if it lasts")]
    Other {
        /// The region asked.
        region: String,
        /// EC2's own words.
        detail: String,
    },
}

impl Error {
    /// Whether EC2 asked for fewer calls.
    pub const fn is_throttled(&self) -> bool {
        matches!(self, Self::Throttled { .. })
    }

    /// Whether the clients may be used again as they are. Where identity, region or connection is in doubt, all is
    /// built anew, so that whatever has healed meanwhile is noticed.
    pub(super) const fn keeps_clients(&self) -> bool {
        matches!(
            self,
            Self::Throttled { .. } | Self::Unreadable { .. } | Self::RepeatedToken { .. } | Self::Other { .. }
        )
    }

    #[cfg(test)]
    pub(crate) fn throttled_for_tests() -> Self {
        Self::Throttled { region: "eu-west-1".to_owned(), code: "RequestLimitExceeded".to_owned() }
    }
}

/// What a call was about, for its errors.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub region: String,
    pub endpoint: String,
    pub role: Option<String>,
    pub profile: Option<String>,
    pub limit: Duration,
}

impl Context {
    /// The error in operators' words.
    pub fn explain(&self, error: &SdkError<DescribeInstancesError, HttpResponse>) -> Error {
        if let Some(cause) = credentials::cause(error) {
            return credentials::explain(self, cause);
        }
        match error {
            SdkError::TimeoutError(_) => self.timeout(),
            SdkError::DispatchFailure(_) => self.unreachable(error),
            SdkError::ResponseError(answer) => self.unreadable(answer.raw(), error),
            SdkError::ServiceError(answer) => match answer.err().code() {
                Some(code) => self.refused(code, answer.err().message().unwrap_or_default()),
                None => self.unreadable(answer.raw(), error),
            },
            _ => Error::Other { region: self.region.clone(), detail: chain(error) },
        }
    }

    /// EC2 or STS answered with an error of its own.
    pub fn refused(&self, code: &str, message: &str) -> Error {
        let region = self.region.clone();
        let detail = format!("{code}: {message}");
        match code {
            "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "TooManyRequestsException"
            | "SlowDown"
            | "BandwidthLimitExceeded"
            | "PriorRequestNotComplete" => Error::Throttled { region, code: code.to_owned() },
            "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" | "Blocked" => {
                Error::AccessDenied { region, detail }
            }
            // EC2 has said `RequestExpired` of an old session token, too.
            "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => Error::Expired { region, detail },
            "RequestTimeTooSkewed" | "RequestInTheFuture" => Error::ClockSkew { region, detail },
            "SignatureDoesNotMatch" | "InvalidSignatureException"
                if message.contains("expired") || message.contains("not yet current") =>
            {
                Error::ClockSkew { region, detail }
            }
            "AuthFailure"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "OptInRequired"
            | "PendingVerification"
            | "MissingAuthenticationToken"
            | "InvalidAccessKeyId" => Error::BadCredentials { region, detail },
            _ => Error::Other { region, detail },
        }
    }

    fn timeout(&self) -> Error {
        Error::Timeout { region: self.region.clone(), endpoint: self.endpoint.clone(), limit: self.limit }
    }

    fn unreachable(&self, error: &(dyn StdError + 'static)) -> Error {
        Error::Unreachable { region: self.region.clone(), endpoint: self.endpoint.clone(), detail: chain(error) }
    }

    fn unreadable(&self, answer: &HttpResponse, error: &(dyn StdError + 'static)) -> Error {
        let status = answer.status().as_u16();
        if status == 429 {
            return Error::Throttled { region: self.region.clone(), code: "429 Too Many Requests".to_owned() };
        }
        Error::Unreadable { region: self.region.clone(), endpoint: self.endpoint.clone(), status, detail: chain(error) }
    }
}

/// The error and everything beneath it, on one line: the SDK keeps the reason at the bottom.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    for error in causes(error) {
        let said = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !words.iter().any(|earlier| earlier.contains(&said)) {
            words.push(said);
        }
    }
    words.join(": ")
}

/// The error, its source, that one's source and so on.
pub(super) fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
