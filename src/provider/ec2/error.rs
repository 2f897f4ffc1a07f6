//! Why AWS gave no complete answer, and what to do.

use std::error::Error as StdError;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ErrorMetadata, ProvideErrorMetadata, SdkError};

use super::Call;
use crate::provider::{self, ErrorKind};
use crate::sys::text;
use crate::sys::text::chain;
use crate::units::HumanDuration;

/// The most characters of an AWS message that an error repeats. Messages with an encoded authorization failure are longer.
const MAX_DETAIL: usize = 2000;

/// Why AWS gave no complete answer: what was tried, on what, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// AWS asks for fewer calls.
    #[error(
        "{} in {region} throttled {call} ({code}): polls are spaced out by themselves; if it lasts, raise the provider's \
         `interval`, or poll from fewer sidecars of this account",
        call.api()
    )]
    Throttled {
        /// The call.
        call: Call,
        /// The region.
        region: String,
        /// AWS's word for it.
        code: String,
    },
    /// The identity may not ask for this.
    #[error(
        "{} in {region} refused {call}: allow the action `{}` on resource `*` to the identity that elasticd uses \
         ({detail})",
        call.api(),
        call.action()
    )]
    AccessDenied {
        /// The call.
        call: Call,
        /// The region.
        region: String,
        /// AWS's own words.
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
        /// The region.
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
        /// The region.
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
        "the connection to the {} endpoint {endpoint} ({region}) failed: {detail}; check the region's name, DNS, routes, the \
         firewall, any VPC endpoint (each API has its own) and the provider's `{}`",
        call.api(),
        call.endpoint_key()
    )]
    Unreachable {
        /// The call.
        call: Call,
        /// The region.
        region: String,
        /// The API's URL.
        endpoint: String,
        /// What the connection said.
        detail: String,
    },
    /// A connection came about, but no agreement on how to keep it secret.
    #[error(
        "the {} endpoint {endpoint} ({region}) was reached, but TLS failed: {detail}; check that the CA certificates (package \
         ca-certificates) are installed and current, and this machine's clock; that no proxy in between shows a \
         certificate of its own (add its CA to the system's); and the provider's `{}`",
        call.api(),
        call.endpoint_key()
    )]
    Tls {
        /// The call.
        call: Call,
        /// The region.
        region: String,
        /// The API's URL.
        endpoint: String,
        /// What TLS said.
        detail: String,
    },
    /// A call took longer than `call_timeout`.
    #[error(
        "the {} endpoint {endpoint} ({region}) did not answer {call} within {}: raise the provider's \
         `call_timeout`, or lower its `page_size`",
        call.api(),
        HumanDuration(*limit)
    )]
    Timeout {
        /// The call.
        call: Call,
        /// The region.
        region: String,
        /// The API's URL.
        endpoint: String,
        /// The provider's `call_timeout`.
        limit: Duration,
    },
    /// What answered does not speak EC2, or fails before it does.
    #[error(
        "the {} endpoint {endpoint} ({region}) answered with status {status} and something that is not its XML: if it \
         lasts, look for a proxy in between or a wrong `{}` ({detail})",
        call.api(),
        call.endpoint_key()
    )]
    Unreadable {
        /// The call.
        call: Call,
        /// The region.
        region: String,
        /// The API's URL.
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
        /// The region.
        region: String,
        /// AWS's own words.
        detail: String,
    },
    /// Following the pages would never end.
    #[error(
        "{} in {region} gave {call} the same NextToken twice, after page {page}: the pages would never end; if it lasts, \
         something in between caches answers: check the provider's `{}` and any proxy",
        call.api(),
        call.endpoint_key()
    )]
    RepeatedToken {
        /// The call.
        call: Call,
        /// The region.
        region: String,
        /// The page that repeated it, counted from 1.
        page: usize,
    },
    /// Anything else.
    #[error("{} in {region} failed {call}: {detail}; the poll is repeated, look the code up if it lasts", call.api())]
    Other {
        /// The call.
        call: Call,
        /// The region.
        region: String,
        /// AWS's own words.
        detail: String,
    },
}

impl Error {
    /// Whether AWS asked for fewer calls.
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
}

impl From<Error> for provider::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Throttled { .. } => ErrorKind::Throttled,
            Error::AccessDenied { .. }
            | Error::RoleDenied { .. }
            | Error::NoCredentials { .. }
            | Error::NoProfile { .. }
            | Error::Expired { .. }
            | Error::BadCredentials { .. }
            | Error::ClockSkew { .. } => ErrorKind::Denied,
            Error::Unreachable { .. } | Error::Tls { .. } => ErrorKind::Unreachable,
            Error::Timeout { .. } => ErrorKind::Timeout,
            Error::Unreadable { .. } | Error::RepeatedToken { .. } => ErrorKind::Invalid,
            Error::NoRegion | Error::Other { .. } => ErrorKind::Failed,
        };
        Self::new(kind, error)
    }
}

/// Where a call goes, for its errors.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub region: String,
    /// The endpoints' URLs, as far as they are known.
    pub ec2: String,
    pub auto_scaling: String,
    pub role: Option<String>,
    pub profile: Option<String>,
    pub limit: Duration,
}

impl Context {
    /// The error with what to do about it.
    pub fn explain<E>(&self, call: Call, error: &SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        if let Some(cause) = credentials_error(error) {
            return self.no_credentials(call, cause);
        }
        match error {
            SdkError::TimeoutError(_) => self.timeout(call),
            SdkError::DispatchFailure(_) => self.unreachable(call, error),
            SdkError::ResponseError(answer) => self.unreadable(call, answer.raw(), error),
            SdkError::ServiceError(answer) => match answer.err().code() {
                Some(code) => self.refused(call, code, answer.err().message().unwrap_or_default()),
                None => self.unreadable(call, answer.raw(), error),
            },
            _ => Error::Other { call, region: self.region.clone(), detail: chain(error) },
        }
    }

    /// The error of a call for which there were no credentials.
    pub fn no_credentials(&self, call: Call, error: &CredentialsError) -> Error {
        let refusal = causes(error).filter_map(|cause| cause.downcast_ref::<ErrorMetadata>()).last();
        if let Some(code) = refusal.and_then(ErrorMetadata::code) {
            let message = refusal.and_then(ErrorMetadata::message).unwrap_or_default();
            return match (self.refused(call, code, message), &self.role) {
                (Error::AccessDenied { detail, .. }, Some(role)) => Error::RoleDenied { role: role.clone(), detail },
                (error, _) => error,
            };
        }
        let detail = chain(error);
        match &self.profile {
            Some(profile) => Error::NoProfile { profile: profile.clone(), detail },
            None => Error::NoCredentials { detail },
        }
    }

    /// AWS answered with an error of its own.
    pub fn refused(&self, call: Call, code: &str, message: &str) -> Error {
        let region = self.region.clone();
        // On one line, whatever answered.
        let detail = text::one_line(&format!("{code}: {message}"), MAX_DETAIL);
        match code {
            code if is_throttle(code) => Error::Throttled { call, region, code: code.to_owned() },
            "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" | "Blocked" => {
                Error::AccessDenied { call, region, detail }
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
            _ => Error::Other { call, region, detail },
        }
    }

    fn endpoint(&self, call: Call) -> String {
        match call {
            Call::DescribeAutoScalingGroups => self.auto_scaling.clone(),
            _ => self.ec2.clone(),
        }
    }

    fn timeout(&self, call: Call) -> Error {
        Error::Timeout { call, region: self.region.clone(), endpoint: self.endpoint(call), limit: self.limit }
    }

    fn unreachable(&self, call: Call, error: &(dyn StdError + 'static)) -> Error {
        let (region, endpoint, detail) = (self.region.clone(), self.endpoint(call), chain(error));
        if is_tls(&detail) {
            return Error::Tls { call, region, endpoint, detail };
        }
        Error::Unreachable { call, region, endpoint, detail }
    }

    fn unreadable(&self, call: Call, answer: &HttpResponse, error: &(dyn StdError + 'static)) -> Error {
        let (region, endpoint, status) = (self.region.clone(), self.endpoint(call), answer.status().as_u16());
        if status == 429 {
            return Error::Throttled { call, region, code: "429 Too Many Requests".to_owned() };
        }
        Error::Unreadable { call, region, endpoint, status, detail: chain(error) }
    }
}

/// The failure to get credentials that caused a call's error, if one did. The innermost one: a role's credentials may
/// fail for want of those that it is assumed with.
pub(super) fn credentials_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a CredentialsError> {
    causes(error).filter_map(|cause| cause.downcast_ref()).last()
}

/// Whether the code asks for fewer calls.
pub(super) fn is_throttle(code: &str) -> bool {
    matches!(
        code,
        "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "TooManyRequestsException"
            | "SlowDown"
            | "BandwidthLimitExceeded"
            | "PriorRequestNotComplete"
    )
}

/// Whether these are TLS's words. Its errors have types of a crate that only the SDK's HTTP client knows.
fn is_tls(detail: &str) -> bool {
    ["certificate", "received fatal alert", "received corrupt message", "tls handshake", "peer is incompatible"]
        .iter()
        .any(|words| detail.contains(words))
}

/// The error, its source, that one's source and so on.
pub(super) fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_is_on_one_line() {
        let context = Context {
            region: "eu-west-1".to_owned(),
            ec2: String::new(),
            auto_scaling: String::new(),
            role: None,
            profile: None,
            limit: Duration::from_secs(1),
        };
        let said = context.refused(Call::DescribeInstances, "Unauthor\nized", "You\r\nare not").to_string();
        assert!(said.contains("Unauthor ized: You  are not") && !said.contains(char::is_control), "{said}");
    }
}
