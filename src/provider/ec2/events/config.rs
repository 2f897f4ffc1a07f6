//! What an operator writes for `events` of an `ec2` provider.

use hyper::Uri;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::FieldFault;

/// The queue of events, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The queue, as SQS names it. It must be this sidecar's own: SQS gives each message to one reader.
    pub queue_url: String,
    /// The queue's region.
    pub region: String,
    /// Where SQS is, if not where AWS and the region say.
    pub endpoint_url: Option<String>,
}

/// A queue that reports changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "Events")]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// The URL of the SQS queue, whose region is that of the URL. It must be this sidecar's own: SQS gives each message to
    /// one reader.
    pub queue_url: String,
    /// The URL of SQS, if not AWS' own, such as that of a VPC endpoint.
    #[serde(default)]
    pub endpoint_url: Option<String>,
}

impl Raw {
    /// The valid configuration. `region` is the provider's own: that of a queue whose URL does not say it.
    ///
    /// # Errors
    ///
    /// Every fault.
    pub fn resolve(self, region: Option<&String>) -> Result<Config, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let Self { queue_url, endpoint_url } = self;
        let queue = http_url(&queue_url).filter(|uri| names_a_queue(uri.path()));
        if queue.is_none() {
            faults.push(FieldFault::new(
                "events.queue_url",
                format!(
                    "{queue_url:?} is not the URL of a queue such as \
                 \"https://sqs.eu-west-1.amazonaws.com/123456789012/elasticd\""
                ),
            ));
        }
        if let Some(url) = endpoint_url.as_deref().filter(|url| http_url(url).is_none()) {
            faults.push(FieldFault::new(
                "events.endpoint_url",
                format!("{url:?} is not a URL such as \"https://vpce-0a1b.sqs.eu-west-1.vpce.amazonaws.com\""),
            ));
        }
        let host = queue.as_ref().and_then(Uri::host).unwrap_or_default();
        let named = region_of(host);
        if queue.is_some() && named.is_none() && region.is_none() {
            faults.push(FieldFault::new(
                "events.queue_url",
                format!("{host} names no region: set the provider's `region`"),
            ));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let region = named.map(str::to_owned).or_else(|| region.cloned()).unwrap_or_default();
        // A queue with another host than its region's is asked at that host: the SDK would go by the region alone.
        let is_usual = host.strip_suffix(".cn").unwrap_or(host) == format!("sqs.{region}.amazonaws.com");
        let own = queue.filter(|_| !is_usual).and_then(|uri| {
            let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
            Some(format!("{scheme}://{authority}"))
        });
        Ok(Config { queue_url, region, endpoint_url: endpoint_url.or(own) })
    }
}

fn http_url(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    (is_http && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

/// Whether a path ends in an account and a name.
fn names_a_queue(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let (name, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    !name.is_empty() && !account.is_empty() && account.bytes().all(|b| b.is_ascii_digit())
}

/// The region in a host name of SQS: `sqs.REGION.…`, `sqs-fips.REGION.…`, `ID.sqs.REGION.vpce.…` or, as once,
/// `REGION.queue.…` (AWS General Reference, "Amazon SQS endpoints and quotas").
fn region_of(host: &str) -> Option<&str> {
    let labels: Vec<_> = host.split('.').collect();
    let position = |names: &[&str]| labels.iter().position(|label| names.contains(label));
    let region = match position(&["sqs", "sqs-fips"]) {
        Some(index) => labels.get(index + 1),
        None => position(&["queue"])?.checked_sub(1).and_then(|before| labels.get(before)),
    };
    region.copied().filter(|region| region.contains('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(queue_url: &str, endpoint_url: Option<&str>, region: Option<&str>) -> Result<Config, Vec<String>> {
        let raw = Raw { queue_url: queue_url.to_owned(), endpoint_url: endpoint_url.map(str::to_owned) };
        raw.resolve(region.map(str::to_owned).as_ref())
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_region_is_that_of_the_queue() {
        let hosts = [
            ("sqs.eu-west-1.amazonaws.com", false),
            ("sqs.eu-west-1.amazonaws.com.cn", false),
            ("sqs-fips.eu-west-1.amazonaws.com", true),
            ("sqs.eu-west-1.api.aws", true),
            ("vpce-0a1b.sqs.eu-west-1.vpce.amazonaws.com", true),
            ("eu-west-1.queue.amazonaws.com", true),
        ];
        for (host, is_own) in hosts {
            let config = resolve(&format!("https://{host}/123456789012/q"), None, Some("us-east-1")).expect("valid");
            assert_eq!(config.region, "eu-west-1", "{host}");
            assert_eq!(config.endpoint_url, is_own.then(|| format!("https://{host}")));
        }
        let config = resolve("http://127.0.0.1:5000/123456789012/q", None, Some("us-east-1")).expect("valid");
        assert_eq!((&*config.region, config.endpoint_url.as_deref()), ("us-east-1", Some("http://127.0.0.1:5000")));
        let queue = "https://sqs.eu-west-1.amazonaws.com/123456789012/q";
        let config = resolve(queue, Some("http://localhost:1"), None).expect("valid");
        assert_eq!(config.endpoint_url.as_deref(), Some("http://localhost:1"));
    }

    #[test]
    fn what_is_no_queue_is_refused() {
        for url in [
            "",
            "elasticd",
            "arn:aws:sqs:eu-west-1:123456789012:elasticd",
            "https://sqs.eu-west-1.amazonaws.com",
            "https://sqs.eu-west-1.amazonaws.com/123456789012/",
            "ftp://sqs.eu-west-1.amazonaws.com/123456789012/q",
        ] {
            let faults = resolve(url, Some("sqs"), None).expect_err(url);
            assert_eq!(faults.len(), 2, "{faults:?}");
            assert!(faults[0].starts_with("events.queue_url: ") && faults[1].starts_with("events.endpoint_url: "));
        }
        let faults = resolve("http://localhost/1/q", None, None).expect_err("no region");
        assert!(faults[0].contains("names no region"), "{faults:?}");
    }
}
