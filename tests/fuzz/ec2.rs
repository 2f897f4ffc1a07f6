//! Mutated answers of EC2, read by the SDK's own types: a whole set or an error, in bounded time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use elasticd::provider::ec2::{Config, Ec2};

use crate::payloads::Chain;
use crate::{for_a_while, mutated};

const SEEDS: &[&str] = &[
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
     <requestId>r</requestId><reservationSet><item><reservationId>r-1</reservationId><instancesSet><item>\
     <instanceId>i-0123</instanceId><instanceState><code>16</code><name>running</name></instanceState>\
     <privateIpAddress>10.0.0.1</privateIpAddress><ipAddress>192.0.2.1</ipAddress><vpcId>vpc-1</vpcId><subnetId>s-1</subnetId>\
     <instanceType>m7g.large</instanceType><launchTime>2024-05-01T12:00:00.000Z</launchTime>\
     <placement><availabilityZone>eu-west-1a</availabilityZone></placement>\
     <tagSet><item><key>Role</key><value>web</value></item><item><key>Port</key><value>80 &lt;&amp;&#10;</value></item></tagSet>\
     <networkInterfaceSet><item><ipv6AddressesSet><item><ipv6Address>2001:db8::1</ipv6Address></item></ipv6AddressesSet></item>\
     </networkInterfaceSet></item></instancesSet></item></reservationSet></DescribeInstancesResponse>",
    "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId><reservationSet/>\
     </DescribeInstancesResponse>",
    "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not</Message></Error></Errors>\
     <RequestID>r</RequestID></Response>",
];

const TOKENS: &[&str] = &[
    "<",
    ">",
    "</",
    "/>",
    "&amp;",
    "&#0;",
    "&#x110000;",
    "&x;",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<!DOCTYPE x [<!ENTITY e \"e\">]>",
    "<item>",
    "</item>",
    "<item/>",
    "\0",
    "é",
    "\u{feff}",
    "<?xml version=\"1.1\"?>",
    "<value/>",
    "<key></key>",
    "999.0.0.1",
    "<nextToken>t</nextToken>",
    "99999-99-99T99:99:99Z",
    "<instanceState>",
    " xmlns=\"\"",
    "<a:b>",
    "\r\n",
    "<launchTime>0</launchTime>",
];

#[test]
fn whatever_ec2_answers() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = Arc::new(Mutex::new(Vec::new()));
    let next_answer = Arc::clone(&answer);
    // Ends with this process. A second page is the end: a mutation may ask for pages without one.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 16384];
            let n = stream.read(&mut request).unwrap_or_default();
            let is_next = request[..n].windows(9).any(|word| word == b"NextToken");
            let bytes =
                if is_next { whole(200, SEEDS[1].as_bytes()) } else { next_answer.lock().expect("unpoisoned").clone() };
            let _ = stream.write_all(&bytes);
        }
    });
    let config = Config {
        regions: vec!["eu-west-1".to_owned()],
        endpoint_url: Some(url),
        call_timeout: Duration::from_secs(5),
        ..Config::default()
    };
    let credentials = SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "test"));
    let mut provider = Ec2::with_credentials(&config, &[], credentials);
    let mut chain = Chain::new("[providers.p]\ntype = 'fixed'\ninstances = []\n");
    for_a_while("EC2", |random| {
        let body = mutated(random, SEEDS, TOKENS);
        let status = if random.u8(0..8) == 0 { 400 } else { 200 };
        *answer.lock().expect("unpoisoned") = whole(status, &body);
        chain.poll(&mut provider);
    });
    chain.conclude("EC2");
}

fn whole(status: u16, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}
