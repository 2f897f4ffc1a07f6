//! What EC2 and Auto Scaling write.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hyper::body::Bytes;

use super::{Form, GROUP, Machine};

/// The pages that answer what a form asks for. `size` goes before the form's own.
pub fn pages(machines: &[Machine], asked: &Form, size: Option<usize>) -> Vec<Bytes> {
    let action = asked.get("Action").map_or("", |action| action);
    let most = asked.get("MaxResults").or_else(|| asked.get("MaxRecords")).and_then(|size| size.parse().ok());
    let size = size.or(most).unwrap_or(usize::MAX).max(1);
    let items: Vec<String> = match action {
        "DescribeInstances" => machines.iter().filter(|machine| passes(machine, asked)).map(instance).collect(),
        "DescribeInstanceStatus" => machines.iter().filter_map(|machine| status(machine, asked)).collect(),
        "DescribeSpotInstanceRequests" => machines.iter().filter_map(spot).collect(),
        "DescribeAutoScalingGroups" => groups(machines, asked),
        _ => Vec::new(),
    };
    let chunks: Vec<&[String]> = if items.is_empty() { vec![&[]] } else { items.chunks(size).collect() };
    let last = chunks.len();
    chunks.iter().zip(1..).map(|(chunk, number)| page(action, chunk, (number < last).then_some(number))).collect()
}

/// A page of these items.
pub fn page(action: &str, items: &[String], next: Option<usize>) -> Bytes {
    let next = next.map(token_of);
    let xml = if action == "DescribeAutoScalingGroups" {
        let next = next.map(|next| written("NextToken", &next)).unwrap_or_default();
        format!(
            "<{action}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><{action}Result>\
             <AutoScalingGroups>{}</AutoScalingGroups>{next}</{action}Result></{action}Response>",
            items.concat()
        )
    } else {
        let list = match action {
            "DescribeInstances" => "reservationSet",
            "DescribeInstanceStatus" => "instanceStatusSet",
            _ => "spotInstanceRequestSet",
        };
        let next = next.map(|next| written("nextToken", &next)).unwrap_or_default();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>fake</requestId><{list}>{}</{list}>{next}</{action}Response>",
            items.concat()
        )
    };
    xml.into()
}

/// An error of the API that is asked for this action.
pub fn error(action: &str, code: &str, message: &str) -> Bytes {
    let (code, message) = (written("Code", code), written("Message", message));
    let xml = if action == "DescribeAutoScalingGroups" {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type>{code}{message}</Error><RequestId>fake</RequestId></ErrorResponse>"
        )
    } else {
        format!("<Response><Errors><Error>{code}{message}</Error></Errors><RequestID>fake</RequestID></Response>")
    };
    xml.into()
}

/// The page, but with the first page's token for the next one.
pub fn repeating(page: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(page);
    let end = text.rfind("</Describe").expect("a page");
    let list = text.split_once("<nextToken>").map_or(&text[..end], |(list, _)| list);
    format!("{list}<nextToken>{}</nextToken>{}", token_of(1), &text[end..]).into()
}

/// The page, but as no XML may be.
pub fn garbled(page: &Bytes) -> Bytes {
    String::from_utf8_lossy(page).replace("</instanceId>", "</instanceIdentity>").into()
}

/// Which page a token names, counted from 0.
pub fn page_of(token: &str) -> Option<usize> {
    token.strip_prefix("page+")?.split_once('/')?.0.parse().ok()
}

fn token_of(page: usize) -> String {
    // Tokens are long, and hold what a form must encode.
    format!("page+{page}/={}", "x".repeat(200))
}

/// The filters, by name.
fn filters(asked: &Form) -> BTreeMap<&str, Vec<&str>> {
    let names = (1..).map_while(|n| Some((n, asked.get(&format!("Filter.{n}.Name"))?)));
    let values = |n| (1..).map_while(move |v| Some(asked.get(&format!("Filter.{n}.Value.{v}"))?.as_str()));
    names.map(|(n, name)| (name.as_str(), values(n).collect())).collect()
}

fn passes(machine: &Machine, asked: &Form) -> bool {
    filters(asked).iter().all(|(name, values)| {
        let any = |text: &str| values.iter().any(|value| matches(value.as_bytes(), text.as_bytes()));
        match (*name, name.strip_prefix("tag:")) {
            (_, Some(key)) => machine.tags.iter().any(|(k, value)| k == key && any(value)),
            ("tag-key", _) => machine.tags.iter().any(|(key, _)| any(key)),
            _ => true,
        }
    })
}

/// EC2's reading of a filter value.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        ([b'\\', c, pattern @ ..], [t, text @ ..]) => t == c && matches(pattern, text),
        ([b'*', rest @ ..], text) => (0..=text.len()).any(|n| matches(rest, &text[n..])),
        ([b'?', pattern @ ..], [_, text @ ..]) => matches(pattern, text),
        ([c, pattern @ ..], [t, text @ ..]) => c == t && matches(pattern, text),
        (_, []) => false,
    }
}

fn instance(machine: &Machine) -> String {
    let mut xml = String::from("<item><reservationId>r-1</reservationId><instancesSet><item>");
    element(&mut xml, "instanceId", &machine.id);
    let _ = write!(xml, "<instanceState><code>16</code><name>{}</name></instanceState>", machine.state);
    let optional = [
        ("privateIpAddress", &machine.private_ip),
        ("ipAddress", &machine.public_ip),
        ("ipv6Address", &machine.ipv6),
        ("vpcId", &machine.vpc),
        ("subnetId", &machine.subnet),
        ("instanceType", &machine.kind),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            element(&mut xml, name, value);
        }
    }
    let _ = write!(xml, "<placement><availabilityZone>{}</availabilityZone></placement>", machine.zone);
    element(&mut xml, "launchTime", "2026-01-02T03:04:05.000Z");
    if let Some(address) = &machine.interface_ipv6 {
        let _ = write!(
            xml,
            "<networkInterfaceSet><item><ipv6AddressesSet><item><ipv6Address>{address}</ipv6Address></item>\
             </ipv6AddressesSet></item></networkInterfaceSet>"
        );
    }
    if !(machine.tags.is_empty() && machine.valueless.is_empty()) {
        xml.push_str("<tagSet>");
        for (key, value) in &machine.tags {
            let _ = write!(xml, "<item>{}{}</item>", written("key", key), written("value", value));
        }
        for key in &machine.valueless {
            let _ = write!(xml, "<item>{}</item>", written("key", key));
        }
        xml.push_str("</tagSet>");
    }
    xml.push_str("</item></instancesSet></item>");
    xml
}

/// What is listed of a machine that the filters ask for.
fn status(machine: &Machine, asked: &Form) -> Option<String> {
    let check = |name: &str| if machine.impaired.as_deref() == Some(name) { "impaired" } else { "ok" };
    let (system, instance) = (check("system"), check("instance"));
    let is_wanted = filters(asked).iter().all(|(name, values)| match *name {
        "system-status.status" => values.contains(&system),
        "instance-status.status" => values.contains(&instance),
        "event.code" => machine.event.as_ref().is_some_and(|(code, ..)| values.contains(&code.as_str())),
        name => panic!("elasticd does not filter by {name}"),
    });
    let events = machine.event.as_ref().map(|(code, at, description)| {
        let (code, at) = (written("code", code), written("notBefore", at));
        format!("<eventsSet><item>{code}{}{at}</item></eventsSet>", written("description", description))
    });
    is_wanted.then(|| {
        format!(
            "<item>{}<instanceStatus><status>{instance}</status></instanceStatus><systemStatus><status>{system}</status>\
             </systemStatus>{}</item>",
            written("instanceId", &machine.id),
            events.unwrap_or_default()
        )
    })
}

fn spot(machine: &Machine) -> Option<String> {
    let code = machine.spot.as_ref()?;
    Some(format!(
        "<item><spotInstanceRequestId>sir-1</spotInstanceRequestId>{}<status>{}</status></item>",
        written("instanceId", &machine.id),
        written("code", code)
    ))
}

/// The groups asked for by name, or all.
fn groups(machines: &[Machine], asked: &Form) -> Vec<String> {
    let names: Vec<_> =
        (1..).map_while(|n| asked.get(&format!("AutoScalingGroupNames.member.{n}"))).map(String::as_str).collect();
    let mut groups: BTreeMap<&str, String> = BTreeMap::new();
    for machine in machines {
        let group = machine.tags.iter().find(|(key, _)| key == GROUP).map(|(_, name)| name.as_str());
        let Some(group) = group.filter(|group| names.is_empty() || names.contains(group)) else { continue };
        let members = groups.entry(group).or_default();
        let Some((state, health)) = &machine.lifecycle else { continue };
        let (id, state) = (written("InstanceId", &machine.id), written("LifecycleState", state));
        let _ = write!(members, "<member>{id}{state}{}</member>", written("HealthStatus", health));
    }
    let group = |(name, members): (&str, String)| {
        format!("<member>{}<Instances>{members}</Instances></member>", written("AutoScalingGroupName", name))
    };
    groups.into_iter().map(group).collect()
}

fn written(name: &str, text: &str) -> String {
    let mut xml = String::new();
    element(&mut xml, name, text);
    xml
}

fn element(xml: &mut String, name: &str, text: &str) {
    let _ = write!(xml, "<{name}>");
    for c in text.chars() {
        match c {
            '<' => xml.push_str("&lt;"),
            '&' => xml.push_str("&amp;"),
            '\n' | '\r' | '\t' => {
                let _ = write!(xml, "&#{};", u32::from(c));
            }
            c => xml.push(c),
        }
    }
    let _ = write!(xml, "</{name}>");
}
