//! The `ec2` provider with AWS's own chain for credentials, region and endpoint, which it reads from the environment: so
//! it is the program itself that is run, with an environment of its own.

use std::process::Command;

use crate::ec2_endpoint::{Endpoint, Fault, GROUP, Machine, When};
use crate::harness::BoundedCommand as _;
use crate::moto::Moto;

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];

/// What one discovery brings with this provider and environment, and with files that say this for AWS's own.
async fn poll(provider: &str, env: &[(&str, &str)], files: &str) -> String {
    let home = tempfile::tempdir().expect("a home");
    let at = |name: &str| home.path().join(name);
    let config = format!(
        "[providers.cloud]\ntype = 'ec2'\n{provider}\n[services.all]\nprovider = 'cloud'\nport = 80\n\
         [frontends.count]\ntype = 'custom'\nescape = 'none'\noutput = '{}'\ntemplate = 'count'\n",
        at("out").display()
    );
    std::fs::write(at("elasticd.toml"), config).expect("a configuration");
    std::fs::write(at("count"), "{{ services.0.backends | length }} instances").expect("a template");
    std::fs::write(at("aws"), files).expect("AWS's file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_elasticd"));
    command.arg("--config").arg(at("elasticd.toml")).arg("render");
    // Whatever machine this runs on: its own metadata service is never asked.
    command.env_clear().env("HOME", home.path()).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_CONFIG_FILE", at("aws")).env("AWS_SHARED_CREDENTIALS_FILE", at("none"));
    command.envs(env.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.bounded_output()).await.expect("no panic");
    if output.status.success() {
        return String::from_utf8_lossy(&output.stdout).lines().nth(1).expect("the output").to_owned();
    }
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    error.trim_start_matches("elasticd: providers.cloud: ").trim_end().to_owned()
}

#[tokio::test]
async fn endpoint_region_and_credentials_come_from_the_environment() {
    let endpoint = Endpoint::start((0..3).map(|n| Machine::numbered(n, &[])).collect());
    let url = endpoint.url();
    let [id, secret] = KEYS;
    let env = [id, secret, ("AWS_REGION", "eu-west-3"), ("AWS_ENDPOINT_URL_EC2", &url)];
    assert_eq!(poll("", &env, "").await, "3 instances");
    assert_eq!(
        poll("", &[id, secret, ("AWS_REGION", "eu-west-3"), ("AWS_ENDPOINT_URL", &url)], "").await,
        "3 instances"
    );
}

#[tokio::test]
async fn auto_scalings_endpoint_comes_from_the_environment_too() {
    let (ec2, scaling) = (Endpoint::start(vec![Machine::numbered(1, &[(GROUP, "web")])]), Endpoint::start(Vec::new()));
    let (ec2_url, scaling_url) = (ec2.url(), scaling.url());
    let [id, secret] = KEYS;
    let env = [id, secret, ("AWS_ENDPOINT_URL_EC2", &*ec2_url), ("AWS_ENDPOINT_URL_AUTO_SCALING", &*scaling_url)];
    assert_eq!(poll("region = 'eu-west-3'\nauto_scaling = true", &env, "").await, "0 instances");
    assert_eq!(scaling.requests()[0]["AutoScalingGroupNames.member.1"], "web");
    assert_eq!(scaling.signers(), ["test eu-west-3"]);
    scaling.fault(When::Always, Fault::Html(502));
    let said = poll("region = 'eu-west-3'\nauto_scaling = true", &env, "").await;
    assert!(said.contains(&scaling_url), "{said}");
}

#[tokio::test]
async fn missing_settings_are_reported() {
    let said = poll("", &KEYS, "").await;
    assert!(said.starts_with("no AWS region: ") && said.contains("set the provider's `region`"), "{said}");
    let said = poll("region = 'eu-west-1'", &[], "").await;
    assert!(said.starts_with("no AWS credentials from the environment, ") && said.contains("hop-limit 2"), "{said}");
    let said = poll("region = 'eu-west-1'\nprofile = 'absent'", &KEYS, "").await;
    let remedy = "`~/.aws/config`";
    assert!(said.starts_with("no AWS credentials from the profile \"absent\"") && said.contains(remedy), "{said}");
}

#[tokio::test]
async fn a_profile_goes_before_the_environment() {
    let endpoint = Endpoint::start(vec![Machine::numbered(1, &[])]);
    let url = endpoint.url();
    let files = "[profile deploy]\nregion = eu-south-1\naws_access_key_id = of-the-file\naws_secret_access_key = x\n";
    let [id, secret] = KEYS;
    let env = [id, secret, ("AWS_ENDPOINT_URL_EC2", &url)];
    assert_eq!(poll("profile = 'deploy'", &env, files).await, "1 instances");
    assert_eq!(endpoint.signers(), ["of-the-file eu-south-1"]);
}

#[tokio::test]
async fn a_role_that_may_not_be_assumed_is_reported() {
    let endpoint = Endpoint::start(vec![Machine::numbered(1, &[])]);
    let url = endpoint.url();
    let [id, secret] = KEYS;
    let config = "region = 'eu-west-1'\nrole_arn = 'arn:aws:iam::123456789012:role/finder'\nexternal_id = 'from us'";
    let env = [id, secret, ("AWS_ENDPOINT_URL_EC2", &url), ("AWS_ENDPOINT_URL_STS", &url)];
    let said = poll(config, &env, "").await;
    for words in
        ["arn:aws:iam::123456789012:role/finder", "`sts:AssumeRole`", "`external_id`", "trust policy", "AccessDenied"]
    {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    let asked = &endpoint.requests()[0];
    assert_eq!(asked["RoleSessionName"], "elasticd");
    assert_eq!(asked["ExternalId"], "from us");
    let said = poll(config, &[("AWS_ENDPOINT_URL_STS", &url)], "").await;
    assert!(said.starts_with("no AWS credentials from the environment, "), "{said}");
}

#[tokio::test]
async fn moto_assumes_a_role_in_another_account() {
    let moto = Moto::start().await;
    moto.launch(&[("Role", "web")], "127.1.0.1", None).await;
    for (region, ip) in [("us-east-1", "127.1.1.1"), ("us-east-1", "127.1.1.2"), ("eu-west-1", "127.1.1.3")] {
        moto.launch_elsewhere(region, Some("111122223333"), &[("Role", "web")], ip).await;
    }
    let url = moto.url();
    let [id, secret] = KEYS;
    let env = [id, secret, ("AWS_ENDPOINT_URL_STS", &url)];
    let own = format!("endpoint_url = '{url}'\nregion = 'us-east-1'\n");
    assert_eq!(poll(&own, &env, "").await, "1 instances");
    let role = "role_arn = 'arn:aws:iam::111122223333:role/finder'\n";
    assert_eq!(poll(&format!("{own}{role}"), &env, "").await, "2 instances");
    let regions = format!("{own}{role}regions = ['eu-west-1', 'eu-west-2']");
    assert_eq!(poll(&regions, &env, "").await, "3 instances");
}
