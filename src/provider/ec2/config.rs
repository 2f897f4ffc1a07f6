//! How EC2 is asked.

use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;

/// `MaxResults` of `DescribeInstances` (Amazon EC2 API reference).
const PAGE_SIZES: std::ops::RangeInclusive<i32> = 5..=1000;

/// Most answers take a second or two; one user's 99th percentile was 114 s (prometheus#3664).
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How EC2 is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The regions, without repetition. None: the one region that the environment, the profile or the metadata name.
    pub regions: Vec<String>,
    /// Replaces EC2's endpoint, in every region.
    pub endpoint_url: Option<String>,
    /// The profile of the shared AWS configuration files.
    pub profile: Option<String>,
    /// A role to assume with the credentials found.
    pub role_arn: Option<String>,
    /// What the role's trust policy may ask for.
    pub external_id: Option<String>,
    /// Instances a page, 5 to 1000.
    pub page_size: i32,
    /// For one call, its retries included; 1 s to 10 min.
    pub call_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            regions: Vec::new(),
            endpoint_url: None,
            profile: None,
            role_arn: None,
            external_id: None,
            page_size: *PAGE_SIZES.end(),
            call_timeout: CALL_TIMEOUT,
        }
    }
}

/// How EC2 is asked, as written. Each key means what it means in [`Config`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the keys of `Config`")]
pub struct Raw {
    /// One region; may stand beside `regions`.
    pub region: Option<String>,
    pub regions: Vec<String>,
    pub endpoint_url: Option<String>,
    pub profile: Option<String>,
    pub role_arn: Option<String>,
    pub external_id: Option<String>,
    pub page_size: Option<i32>,
    /// Such as `"30s"`.
    pub call_timeout: Option<SignedDuration>,
}

impl Raw {
    /// Judges what is written.
    ///
    /// # Errors
    ///
    /// All faults at once, each with its key.
    pub fn resolve(self) -> Result<Config, Vec<String>> {
        let mut faults = Vec::new();
        let mut regions: Vec<String> = Vec::new();
        for region in self.region.clone().into_iter().chain(self.regions.clone()) {
            let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if region.is_empty() || !region.bytes().all(known) {
                faults.push(format!("regions: {region:?} is not a region: write one such as \"eu-west-1\""));
            } else if !regions.contains(&region) {
                regions.push(region);
            }
        }
        if let Some(url) = self.endpoint_url.as_deref().filter(|url| !is_url(url)) {
            faults.push(format!("endpoint_url: {url:?} is not a URL: write https://host or http://host:port"));
        }
        if let Some(arn) = self.role_arn.as_deref().filter(|arn| !(arn.starts_with("arn:") && arn.contains(":role/"))) {
            faults.push(format!("role_arn: {arn:?} is not a role: write arn:aws:iam::123456789012:role/name"));
        }
        if self.external_id.is_some() && self.role_arn.is_none() {
            faults.push("external_id: it belongs to a role: set `role_arn` too, or remove it".to_owned());
        }
        let page_size = self.page_size.unwrap_or(*PAGE_SIZES.end());
        if !PAGE_SIZES.contains(&page_size) {
            faults.push(format!("page_size: {page_size} is not within EC2's bounds: use 5 to 1000"));
        }
        let call_timeout = self.call_timeout.map_or(Ok(CALL_TIMEOUT), Duration::try_from).unwrap_or_default();
        if !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&call_timeout) {
            faults.push("call_timeout: use \"1s\" to \"10min\"".to_owned());
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let Self { endpoint_url, profile, role_arn, external_id, .. } = self;
        Ok(Config { regions, endpoint_url, profile, role_arn, external_id, page_size, call_timeout })
    }
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && text.parse::<hyper::Uri>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(json: &str) -> Result<Config, Vec<String>> {
        serde_json::from_str::<Raw>(json).unwrap().resolve()
    }

    #[test]
    fn left_out_is_the_default() {
        assert_eq!(resolve("{}"), Ok(Config::default()));
        let config = resolve(r#"{"region": "a-1", "regions": ["b-1", "a-1"], "call_timeout": "90s"}"#).unwrap();
        assert_eq!(config.regions, ["a-1", "b-1"]);
        assert_eq!(config.call_timeout, Duration::from_secs(90));
    }

    #[test]
    fn all_faults_come_at_once_each_with_its_key() {
        let faults = resolve(
            r#"{"regions": ["EU West"], "endpoint_url": "localhost", "role_arn": "me", "page_size": 4,
                "call_timeout": "-1s"}"#,
        )
        .unwrap_err();
        let keys: Vec<_> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
        assert_eq!(keys, ["regions", "endpoint_url", "role_arn", "page_size", "call_timeout"]);
        assert!(resolve(r#"{"external_id": "x"}"#).unwrap_err()[0].starts_with("external_id"));
        assert!(serde_json::from_str::<Raw>(r#"{"zone": "a"}"#).is_err());
    }
}
