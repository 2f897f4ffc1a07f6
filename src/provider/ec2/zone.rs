//! In which availability zone this machine is.

use std::time::Duration;

use aws_config::imds;
use aws_config::imds::client::error::ImdsError;
use aws_config::provider_config::ProviderConfig;
use tokio::time::timeout;

use super::clients::http;
use crate::provider::{self, ErrorKind};
use crate::sys::text;
use crate::sys::text::chain;

/// Where the metadata service keeps it (EC2 user guide, "Instance metadata categories").
const PATH: &str = "/latest/meta-data/placement/availability-zone";

/// How long the metadata service has in all; it is on this very host and takes milliseconds.
const LIMIT: Duration = Duration::from_secs(5);

/// How long a connection to it may take, and then an answer. Where there is none, packets are dropped without an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the zone could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    /// There was no answer.
    #[error(
        "the metadata service (IMDS) did not say in which availability zone this machine is: {detail}. In a container, let \
         IMDS answer across one more hop: `aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2 \
         --http-endpoint enabled --instance-id ...`; elsewhere than on EC2, name the zone in the configuration"
    )]
    Unreachable {
        /// What the connection said.
        detail: String,
    },
    /// The environment forbids to ask.
    #[error(
        "AWS_EC2_METADATA_DISABLED is set, so that the metadata service (IMDS) is not asked in which availability zone \
         this machine is: unset it, or name the zone in the configuration"
    )]
    Disabled,
    /// It answered with something else.
    #[error(
        "the metadata service (IMDS) answered, but not with an availability zone: {detail}; is what answers there EC2's? \
         Name the zone in the configuration"
    )]
    Unknown {
        /// What came.
        detail: String,
    },
}

impl From<ZoneError> for provider::Error {
    fn from(error: ZoneError) -> Self {
        let kind = match &error {
            ZoneError::Unreachable { .. } => ErrorKind::Unreachable,
            ZoneError::Disabled => ErrorKind::Denied,
            ZoneError::Unknown { .. } => ErrorKind::Invalid,
        };
        Self::new(kind, error)
    }
}

/// This machine's availability zone, such as `eu-west-1a`, as the instance metadata service (version 2) says. Takes
/// 5 s at most. The service is where `AWS_EC2_METADATA_SERVICE_ENDPOINT` says, or else at its usual address.
///
/// # Errors
///
/// The environment forbids to ask (`AWS_EC2_METADATA_DISABLED`), there is no answer, as in a container more than one hop away, or what answers names no zone.
pub async fn own_zone() -> Result<String, ZoneError> {
    // As the SDK does where it looks for a region or credentials.
    if std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|set| set.eq_ignore_ascii_case("true")) {
        return Err(ZoneError::Disabled);
    }
    of(None).await
}

async fn of(endpoint: Option<&str>) -> Result<String, ZoneError> {
    let sources = ProviderConfig::without_region().with_http_client(http());
    let mut client = imds::Client::builder().configure(&sources).max_attempts(2);
    client = client.connect_timeout(PATIENCE).read_timeout(PATIENCE);
    if let Some(endpoint) = endpoint {
        let unusable =
            |error: Box<dyn std::error::Error + Send + Sync>| ZoneError::Unreachable { detail: chain(&*error) };
        client = client.endpoint(endpoint).map_err(unusable)?;
    }
    let client = client.build();
    let answer = match timeout(LIMIT, client.get(PATH)).await {
        Ok(answer) => answer.map_err(|error| explain(&error))?,
        Err(_) => return Err(ZoneError::Unreachable { detail: format!("no answer within {LIMIT:?}") }),
    };
    let zone = answer.as_ref().trim();
    let is_zone = |zone: &str| {
        (1..=64).contains(&zone.len())
            && zone.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if !is_zone(zone) {
        return Err(ZoneError::Unknown { detail: format!("{:?}", text::shorten(zone, 64)) });
    }
    Ok(zone.to_owned())
}

fn explain(error: &ImdsError) -> ZoneError {
    let detail = chain(error);
    match error {
        ImdsError::ErrorResponse(answer) => {
            ZoneError::Unknown { detail: format!("{detail}, status {}", answer.response().status().as_u16()) }
        }
        _ => ZoneError::Unreachable { detail },
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A metadata service that answers one request a connection: a token to `PUT`, and this to `GET` with that token.
    async fn service(status: &'static str, body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.expect("a request");
                let request = String::from_utf8_lossy(&request[..length]).to_ascii_lowercase();
                let (status, headers, body) = if request.starts_with("put /latest/api/token ") {
                    ("200 OK", "x-aws-ec2-metadata-token-ttl-seconds: 60\r\n", "the-token")
                } else if request.contains("x-aws-ec2-metadata-token: the-token\r\n") {
                    assert!(request.starts_with(&format!("get {PATH} ")), "{request}");
                    (status, "", body)
                } else {
                    ("401 Unauthorized", "", "")
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.expect("sent");
            }
        });
        url
    }

    #[tokio::test]
    async fn the_metadata_service_is_asked_with_a_token() {
        let url = service("200 OK", "eu-west-1c\n").await;
        assert_eq!(of(Some(&url)).await.expect("a zone"), "eu-west-1c");
    }

    #[tokio::test]
    async fn what_is_no_zone_is_an_error() {
        for (status, body, said) in [
            ("200 OK", "<html>Log in</html>", "<html>Log in</html>"),
            ("200 OK", "", "not with an availability zone"),
            ("404 Not Found", "", "status 404"),
        ] {
            let error = of(Some(&service(status, body).await)).await.expect_err("no zone");
            assert!(matches!(error, ZoneError::Unknown { .. }), "{error}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[tokio::test]
    async fn nobody_there_names_the_hop_limit() {
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("an address");
        // An answer that is dropped for want of a hop looks like this one.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        for url in [format!("http://{closed}"), format!("http://{}", silent.local_addr().expect("an address"))] {
            let error = of(Some(&url)).await.expect_err("nobody there");
            assert!(matches!(error, ZoneError::Unreachable { .. }), "{error}");
            assert!(error.to_string().contains("--http-put-response-hop-limit 2"), "{error}");
        }
    }
}
