//! `ec2`: the instances of AWS EC2, in one region or several.

mod config;
mod error;
pub mod filters;
mod instance;

use std::collections::HashSet;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{Region, SharedCredentialsProvider, SharedHttpClient};
use aws_sdk_ec2::types;
use aws_smithy_http_client::tls;
use tokio::task::JoinSet;

pub use config::{Config, Raw};
pub use error::Error;

use self::error::Asked;
use self::filters::Filter;
use super::Provider;
use crate::model::{Instance, Selector};

/// Bounds what a silent network costs: connecting takes a round trip, and AWS regions are within half a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// One call and two more: the loop that asks us backs off by itself.
const MAX_ATTEMPTS: u32 = 3;

/// Regions asked at once; AWS has about forty in all, and each counts its calls apart.
const MAX_CONCURRENT: usize = 8;

/// How the assumed role's session shows in CloudTrail.
const SESSION_NAME: &str = "elasticd";

/// Asks EC2.
#[derive(Debug)]
pub struct Ec2 {
    config: Config,
    filters: Vec<Filter>,
    credentials: Option<SharedCredentialsProvider>,
    http: SharedHttpClient,
    /// `None`: to be made at the next poll, from credentials loaded anew.
    queries: Option<Vec<Query>>,
}

/// What is asked of one region.
#[derive(Debug, Clone)]
struct Query {
    client: Client,
    region: String,
    endpoint: String,
    role: Option<String>,
    filters: Vec<types::Filter>,
    page_size: i32,
    timeout: Duration,
}

impl Ec2 {
    /// A provider of what any of the selectors may want. Makes no call: what is missing, [`discover`](Self::discover)
    /// says.
    #[expect(clippy::unused_async, reason = "the contract of providers: some connect here")]
    pub async fn new(config: &Config, selectors: &[Selector]) -> Self {
        Self::build(config, selectors, None)
    }

    /// The same with these credentials, instead of those the environment, the profile or the metadata give.
    pub fn with_credentials(config: &Config, selectors: &[Selector], credentials: SharedCredentialsProvider) -> Self {
        Self::build(config, selectors, Some(credentials))
    }

    fn build(config: &Config, selectors: &[Selector], credentials: Option<SharedCredentialsProvider>) -> Self {
        let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        let http = aws_smithy_http_client::Builder::new().tls_provider(ring).build_https();
        Self { config: config.clone(), filters: filters::merge(selectors), credentials, http, queries: None }
    }

    /// Loads the credential chain, and makes one query a region.
    async fn connect(&self) -> Result<Vec<Query>, Error> {
        let sdk = self.load().await;
        let regions = match sdk.region() {
            _ if !self.config.regions.is_empty() => self.config.regions.clone(),
            Some(region) => vec![region.to_string()],
            None => return Err(Error::NoRegion),
        };
        let credentials = self.assume_role(&sdk, &regions[0]).await;
        Ok(regions.into_iter().map(|region| self.query(&sdk, region, credentials.clone())).collect())
    }

    async fn load(&self) -> SdkConfig {
        let timeouts =
            TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(self.config.call_timeout);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .retry_config(RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS))
            .timeout_config(timeouts.build());
        // A region that is given spares the search for one, which may go as far as the metadata.
        if let Some(region) = self.config.regions.first() {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.config.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(credentials) = &self.credentials {
            loader = loader.credentials_provider(credentials.clone());
        }
        loader.load().await
    }

    async fn assume_role(&self, sdk: &SdkConfig, region: &str) -> Option<SharedCredentialsProvider> {
        let base = sdk.credentials_provider();
        let (Some(role), Some(base)) = (&self.config.role_arn, base.clone()) else { return base };
        let mut builder = AssumeRoleProvider::builder(role)
            .configure(sdk)
            .region(Region::new(region.to_owned()))
            .session_name(SESSION_NAME);
        if let Some(id) = &self.config.external_id {
            builder = builder.external_id(id);
        }
        Some(SharedCredentialsProvider::new(builder.build_from_provider(base).await))
    }

    fn query(&self, sdk: &SdkConfig, region: String, credentials: Option<SharedCredentialsProvider>) -> Query {
        let mut builder = aws_sdk_ec2::config::Builder::from(sdk).region(Region::new(region.clone()));
        builder.set_credentials_provider(credentials);
        if let Some(url) = &self.config.endpoint_url {
            builder = builder.endpoint_url(url);
        }
        let endpoint = match self.config.endpoint_url.as_deref().or(sdk.endpoint_url()) {
            Some(url) => url.to_owned(),
            None => format!("the EC2 endpoint of {region}"),
        };
        let filter = |f: &Filter| types::Filter::builder().name(&f.name).set_values(Some(f.values.clone())).build();
        Query {
            client: Client::from_conf(builder.build()),
            region,
            endpoint,
            role: self.config.role_arn.clone(),
            filters: self.filters.iter().map(filter).collect(),
            page_size: self.config.page_size,
            timeout: self.config.call_timeout,
        }
    }
}

impl Provider for Ec2 {
    type Error = Error;

    async fn discover(&mut self) -> Result<Vec<Instance>, Error> {
        let queries = match self.queries.take() {
            Some(queries) => queries,
            None => self.connect().await?,
        };
        let result = ask_all(&queries).await;
        // Credentials that failed are forgotten with the chain that gave them: a metadata outage while they were
        // refreshed would otherwise outlive its cause.
        if !result.as_ref().is_err_and(Error::is_about_credentials) {
            self.queries = Some(queries);
        }
        result
    }
}

/// All regions' instances, or the first error. Dropping the future ends all calls.
async fn ask_all(queries: &[Query]) -> Result<Vec<Instance>, Error> {
    let mut waiting = queries.iter().cloned();
    let mut asked: JoinSet<_> = waiting.by_ref().take(MAX_CONCURRENT).map(Query::ask).collect();
    let mut instances = Vec::new();
    while let Some(answer) = asked.join_next().await {
        instances.extend(answer.map_err(|error| Error::Lost { cause: error.to_string() })??);
        if let Some(query) = waiting.next() {
            asked.spawn(query.ask());
        }
    }
    Ok(instances)
}

impl Query {
    /// Every page of one region.
    async fn ask(self) -> Result<Vec<Instance>, Error> {
        let mut instances = Vec::new();
        let mut seen = HashSet::new();
        let mut token: Option<String> = None;
        loop {
            let call = self.client.describe_instances().set_filters(Some(self.filters.clone()));
            let call = call.max_results(self.page_size).set_next_token(token.take());
            let page = call.send().await.map_err(|error| error::explain(&self.asked(), &error))?;
            let listed =
                page.reservations.unwrap_or_default().into_iter().flat_map(|r| r.instances.unwrap_or_default());
            instances.extend(listed.filter_map(instance::from_sdk));
            // An empty page may well have another after it; only a missing token ends the list.
            let Some(next) = page.next_token.filter(|next| !next.is_empty()) else { return Ok(instances) };
            if !seen.insert(next.clone()) {
                let (region, endpoint) = (self.region, self.endpoint);
                return Err(Error::RepeatedToken { region, endpoint, page: seen.len() + 1 });
            }
            token = Some(next);
        }
    }

    fn asked(&self) -> Asked<'_> {
        Asked { region: &self.region, endpoint: &self.endpoint, role: self.role.as_deref(), timeout: self.timeout }
    }
}
