//! `elasticd doctor` and the ways in which EC2 and its queue of events cannot be asked.

use crate::doctor::Found;
use crate::ec2_endpoint::{Endpoint, Fault, Machine, When};
use crate::harness::closed_socket;
use crate::harness::elasticd::Elasticd;
use crate::sqs::events;
use crate::sqs_endpoint::SqsEndpoint;

fn elasticd(ec2: &str) -> Elasticd {
    Elasticd::new(&format!(
        "[providers.cloud]\ntype = 'ec2'\n{ec2}[services.web]\nprovider = 'cloud'\nselect = {{ Role = 'web' }}\nport = 80\n\
         [frontends.json]\ntype = 'json'\noutput = 'DIR/services.json'\n"
    ))
}

fn with_keys(elasticd: Elasticd) -> Elasticd {
    elasticd.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test")
}

fn at(url: &str) -> String {
    format!("region = 'us-east-1'\nendpoint_url = '{url}'\n")
}

#[test]
fn each_failure_to_reach_ec2_has_its_remedy() {
    let nowhere = format!("http://{}", closed_socket());
    let no_metadata = |elasticd: Elasticd| elasticd.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &nowhere);
    let endpoint = Endpoint::start(vec![Machine::numbered(1, &[("Role", "web")])]);
    endpoint.fault(When::Always, Fault::Unauthorized);
    let cases: [(Elasticd, &[&str]); 4] = [
        (no_metadata(with_keys(elasticd(""))), &["no AWS region", "set the provider's `region`"]),
        (no_metadata(elasticd(&at(&nowhere))), &["no AWS credentials", "instance profile", "hop-limit 2"]),
        (with_keys(elasticd(&at(&nowhere))), &["the connection to the EC2 endpoint", "`endpoint_url`"]),
        (with_keys(elasticd(&at(&endpoint.url()))), &["allow the action `ec2:DescribeInstances`"]),
    ];
    for (elasticd, words) in cases {
        let found = Found::of(&elasticd);
        assert_eq!((found.code, found.subjects("fail")), (1, vec!["providers.cloud"]));
        found.says("fail", "providers.cloud", words);
    }
}

#[test]
fn the_queue_of_events_is_read_and_keeps_its_messages() {
    let (sqs, endpoint) = (SqsEndpoint::start(), Endpoint::start(vec![Machine::numbered(1, &[("Role", "web")])]));
    let elasticd = with_keys(elasticd(&format!("{}{}", at(&endpoint.url()), events(&sqs.url()))));
    sqs.send("a message");
    let found = Found::of(&elasticd);
    assert_eq!(found.code, 0);
    found.says("ok", "providers.cloud.events", &["can be read and emptied"]).says(
        "ok",
        "services.web",
        &["1 of 1 instance selected"],
    );
    assert_eq!((sqs.calls("ReceiveMessage"), sqs.waiting()), (1, 1), "it was looked at, and stays");
    for (operation, code, words) in [
        ("ReceiveMessage", "AccessDeniedException", "SQS refused ReceiveMessage"),
        ("DeleteMessageBatch", "AccessDeniedException", "SQS refused DeleteMessageBatch"),
        ("ReceiveMessage", "QueueDoesNotExist", "there is no queue https://sqs.us-east-1.amazonaws.com/"),
    ] {
        sqs.refuse(operation, code);
        let found = Found::of(&elasticd);
        assert_eq!((found.code, found.subjects("fail")), (1, vec!["providers.cloud.events"]));
        found.says("fail", "providers.cloud.events", &[words]);
    }
}
