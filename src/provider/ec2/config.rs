//! What an operator writes for an `ec2` provider.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::events;
use crate::model::FieldFault;
use crate::provider::rate_limiter::Rate;
use crate::units::{TimeSpan, duration};

/// How many instances a page may hold (EC2 API reference, `DescribeInstances`, `MaxResults`).
const PAGE_SIZES: std::ops::RangeInclusive<i64> = 5..=1000;

/// How long a call may take, in all its attempts, unless configured.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How short and how long `call_timeout` may be.
const CALL_TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

/// An `ec2` provider's configuration, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The regions whose instances are learnt; none: the one that the environment, the AWS profile or the metadata
    /// service names.
    pub regions: Vec<String>,
    /// Where EC2 is, if not where AWS and the region say. For EC2 alone, not for STS.
    pub endpoint_url: Option<String>,
    /// The profile in AWS's own files whose credentials are used, rather than the whole chain's.
    pub profile: Option<String>,
    /// The role, by its ARN, that is assumed with those credentials.
    pub role_arn: Option<String>,
    /// What the role's trust policy may ask for.
    pub external_id: Option<String>,
    /// How many instances a page holds: 5 to 1000.
    pub page_size: i32,
    /// How long one call, which is one page, may take in all its attempts.
    pub call_timeout: Duration,
    /// The queue of change events, so that a change is polled for at once.
    pub events: Option<events::Config>,
    /// Instances of Auto Scaling groups take traffic only where their lifecycle says so. Takes the IAM action
    /// `autoscaling:DescribeAutoScalingGroups`.
    pub auto_scaling: bool,
    /// Where Auto Scaling is, if not where AWS and the region say.
    pub auto_scaling_endpoint_url: Option<String>,
    /// Instances that fail EC2's system or instance status check take no traffic. Takes
    /// `ec2:DescribeInstanceStatus`.
    pub status_checks: bool,
    /// Instances leave a quarter of an hour before EC2 is to stop, retire, reboot or maintain them. Takes
    /// `ec2:DescribeInstanceStatus`.
    pub scheduled_events: bool,
    /// Spot instances leave when EC2 is about to take them back. Takes `ec2:DescribeSpotInstanceRequests`.
    pub spot: bool,
    /// How many API calls are made at most, in all regions together. A call that fails is not repeated then but with
    /// the next poll.
    pub api_budget: Option<Rate>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            regions: Vec::new(),
            endpoint_url: None,
            profile: None,
            role_arn: None,
            external_id: None,
            page_size: 1000,
            call_timeout: CALL_TIMEOUT,
            events: None,
            auto_scaling: false,
            auto_scaling_endpoint_url: None,
            status_checks: false,
            scheduled_events: false,
            spot: false,
            api_budget: None,
        }
    }
}

/// Instances of AWS EC2. Credentials are found as every AWS tool does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    /// The region; the same as a list of one in `regions`.
    pub region: Option<String>,
    /// The regions whose instances are learnt, all at the same time; one that fails fails the poll. Left out: the one that the environment, the
    /// AWS profile or the metadata service names.
    pub regions: Vec<String>,
    /// The URL of EC2, if not AWS' own, such as that of a VPC endpoint. For EC2 alone, not for STS.
    pub endpoint_url: Option<String>,
    /// The profile in AWS' own files whose credentials are used. Left out: the whole credential chain.
    pub profile: Option<String>,
    /// The ARN of the role that is assumed with those credentials.
    pub role_arn: Option<String>,
    /// What the role's trust policy may ask for.
    pub external_id: Option<String>,
    /// How many instances a page holds, 5 to 1000. Left out: 1000.
    #[schemars(range(min = 5, max = 1000))]
    pub page_size: Option<i64>,
    /// How long one API call, which is one page, may take with its retries: 100 ms to 10 min. Left out: `"30s"`. With an
    /// `api_budget` there are no retries.
    pub call_timeout: Option<TimeSpan>,
    /// A queue that reports changes, so that they are polled for at once.
    pub events: Option<events::Raw>,
    /// Instances of Auto Scaling groups take traffic only in the lifecycle state `InService`. Takes the IAM action
    /// `autoscaling:DescribeAutoScalingGroups`.
    pub auto_scaling: bool,
    /// The URL of Auto Scaling, if not AWS' own, such as that of a VPC endpoint. The environment variable
    /// `AWS_ENDPOINT_URL_AUTO_SCALING` does the same.
    pub auto_scaling_endpoint_url: Option<String>,
    /// Instances that fail EC2's system or instance status check take no traffic. Takes
    /// `ec2:DescribeInstanceStatus`.
    pub status_checks: bool,
    /// Instances leave a quarter of an hour before a scheduled stop, retirement, reboot or maintenance, until it is over.
    /// Takes `ec2:DescribeInstanceStatus`.
    pub scheduled_events: bool,
    /// Spot instances leave when EC2 marks them for interruption. Takes `ec2:DescribeSpotInstanceRequests`.
    pub spot: bool,
    /// The most API calls in any span, such as `"60/min"`, `"2/s"` or `"1000/h"`: all regions and APIs of the provider
    /// together. A call that fails is not repeated then, but with the next poll. Left out: no limit.
    #[schemars(regex(pattern = r"^\s*[0-9]+\s*/\s*(s|min|h)\s*$"))]
    pub api_budget: Option<String>,
}

impl Raw {
    /// The valid configuration.
    ///
    /// # Errors
    ///
    /// Every fault.
    pub fn resolve(self) -> Result<Config, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let page_size = self.page_size(&mut faults);
        let call_timeout = self.call_timeout(&mut faults);
        let api_budget = self.api_budget(&mut faults);
        self.check_endpoints(&mut faults);
        self.check_identity(&mut faults);
        let regions = regions(self.region, self.regions, &mut faults);
        let events = self.events.map(|raw| raw.resolve(regions.first())).transpose();
        let events = events.unwrap_or_else(|wrong| {
            faults.extend(wrong);
            None
        });
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Config {
            regions,
            endpoint_url: self.endpoint_url,
            profile: self.profile,
            role_arn: self.role_arn,
            external_id: self.external_id,
            page_size,
            call_timeout,
            events,
            auto_scaling: self.auto_scaling,
            auto_scaling_endpoint_url: self.auto_scaling_endpoint_url,
            status_checks: self.status_checks,
            scheduled_events: self.scheduled_events,
            spot: self.spot,
            api_budget,
        })
    }

    fn page_size(&self, faults: &mut Vec<FieldFault>) -> i32 {
        let size = self.page_size.unwrap_or(*PAGE_SIZES.end());
        if !PAGE_SIZES.contains(&size) {
            faults.push(FieldFault::new("page_size", format!("{size} is not from 5 to 1000, which are EC2's bounds")));
        }
        i32::try_from(size).unwrap_or_default()
    }

    fn call_timeout(&self, faults: &mut Vec<FieldFault>) -> Duration {
        let timeout = self.call_timeout.map_or(CALL_TIMEOUT, Into::into);
        if !CALL_TIMEOUTS.contains(&timeout) {
            faults.push(FieldFault::new("call_timeout", format!("{} is not from 100ms to 10m", duration(timeout))));
        }
        timeout
    }

    fn api_budget(&self, faults: &mut Vec<FieldFault>) -> Option<Rate> {
        let rate = self.api_budget.as_ref()?.parse();
        rate.map_err(|fault| faults.push(FieldFault::new("api_budget", fault))).ok()
    }

    fn check_endpoints(&self, faults: &mut Vec<FieldFault>) {
        let urls = [
            ("endpoint_url", "ec2", &self.endpoint_url),
            ("auto_scaling_endpoint_url", "autoscaling", &self.auto_scaling_endpoint_url),
        ];
        for (key, host, url) in urls {
            if let Some(url) = url.as_ref().filter(|url| !is_url(url)) {
                faults.push(FieldFault::new(
                    key,
                    format!("{url:?} is not a URL such as \"https://vpce-0a1b.{host}.eu-west-1.vpce.amazonaws.com\""),
                ));
            }
        }
        if self.auto_scaling_endpoint_url.is_some() && !self.auto_scaling {
            faults.push(FieldFault::new(
                "auto_scaling_endpoint_url",
                "it is for `auto_scaling = true`; set that, or leave it out",
            ));
        }
    }

    fn check_identity(&self, faults: &mut Vec<FieldFault>) {
        if self.profile.as_ref().is_some_and(|profile| profile.trim().is_empty()) {
            faults.push(FieldFault::new("profile", "it is empty; leave it out for the whole credential chain"));
        }
        if let Some(role) = &self.role_arn
            && !(role.starts_with("arn:") && role.contains(":role/"))
        {
            faults.push(FieldFault::new(
                "role_arn",
                format!("{role:?} is not an ARN such as \"arn:aws:iam::123456789012:role/discovery\""),
            ));
        }
        match &self.external_id {
            Some(_) if self.role_arn.is_none() => {
                faults
                    .push(FieldFault::new("external_id", "it is for assuming a role; set `role_arn`, or leave it out"));
            }
            // AWS STS API reference, `AssumeRole`, `ExternalId`: 2 to 1224 characters.
            Some(id) if !(2..=1224).contains(&id.chars().count()) => {
                faults.push(FieldFault::new(
                    "external_id",
                    "it must have from 2 to 1224 characters, which are STS's bounds",
                ));
            }
            _ => {}
        }
    }
}

fn is_url(text: &str) -> bool {
    text.parse::<hyper::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    })
}

fn regions(one: Option<String>, more: Vec<String>, faults: &mut Vec<FieldFault>) -> Vec<String> {
    let named = one.map(|region| ("region", region)).into_iter().chain(more.into_iter().map(|r| ("regions", r)));
    let mut regions: Vec<String> = Vec::new();
    for (key, region) in named {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if region.is_empty() || !region.bytes().all(plain) {
            faults.push(FieldFault::new(key, format!("{region:?} is not a region such as \"eu-west-1\"")));
        } else if regions.contains(&region) {
            faults.push(FieldFault::new(key, format!("{region:?} is there twice")));
        } else {
            regions.push(region);
        }
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Raw {
        serde_json::from_str(json).expect("a raw configuration")
    }

    #[test]
    fn nothing_written_means_the_defaults() {
        assert_eq!(raw("{}").resolve(), Ok(Config::default()));
    }

    #[test]
    fn one_region_and_more_are_joined() {
        let config =
            raw(r#"{"region": "eu-west-1", "regions": ["us-east-1"], "call_timeout": "1m 30s", "page_size": 5}"#);
        let config = config.resolve().expect("valid");
        assert_eq!(config.regions, ["eu-west-1", "us-east-1"]);
        assert_eq!(config.call_timeout, Duration::from_secs(90));
        assert_eq!(config.page_size, 5);
    }

    #[test]
    fn what_else_is_asked_is_off_unless_set() {
        let config =
            raw(r#"{"auto_scaling": true, "auto_scaling_endpoint_url": "http://127.0.0.1:1", "status_checks": true,
                "scheduled_events": true, "spot": true, "api_budget": "60/min"}"#);
        let config = config.resolve().expect("valid");
        assert!(config.auto_scaling && config.status_checks && config.scheduled_events && config.spot);
        assert_eq!(config.auto_scaling_endpoint_url.as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(config.api_budget, Some(Rate { calls: 60, per: Duration::from_secs(60) }));
        let faults = raw(r#"{"auto_scaling_endpoint_url": "x", "api_budget": "many"}"#).resolve().expect_err("faulty");
        let keys: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(keys, ["api_budget", "auto_scaling_endpoint_url", "auto_scaling_endpoint_url"], "{faults:#?}");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(serde_json::from_str::<Raw>(r#"{"zone": "a"}"#).is_err());
    }

    #[test]
    fn all_faults_are_reported_each_with_its_key() {
        let faults = raw(
            r#"{"region": "EU", "regions": ["eu-west-1", "eu-west-1", ""], "endpoint_url": "ec2.example.com", "profile": " ",
                "external_id": "x", "page_size": 1001, "call_timeout": "0s"}"#,
        );
        let faults = faults.resolve().expect_err("faulty");
        let keys: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        let expected =
            ["page_size", "call_timeout", "endpoint_url", "profile", "external_id", "region", "regions", "regions"];
        assert_eq!(keys, expected, "{faults:#?}");
        let faults = raw(r#"{"role_arn": "discovery", "external_id": "x", "page_size": -5}"#).resolve();
        assert_eq!(faults.expect_err("faulty").len(), 3);
    }
}
