//! Which messages are events: of their content, no more than that is believed.

use serde::Deserialize;

/// The sources of events that concern instances (EventBridge reference): EC2 (state changes, spot interruption warnings,
/// rebalance recommendations), Auto Scaling (launches, terminations, lifecycle actions), and tags that change.
const SOURCES: &[&str] = &["aws.ec2", "aws.autoscaling", "aws.tag"];

/// What EventBridge writes, as far as it is looked at.
#[derive(Deserialize)]
struct Event {
    source: String,
}

/// Whether a message's body is an event that may concern instances.
pub fn is_event(body: &str) -> bool {
    serde_json::from_str::<Event>(body).is_ok_and(|event| SOURCES.contains(&event.source.as_str()))
}

#[cfg(test)]
mod tests {
    use super::is_event;

    #[test]
    fn tells_events_from_anything_else() {
        let event = r#"{"version": "0", "id": "7bf7", "detail-type": "EC2 Instance State-change Notification",
            "source": "aws.ec2", "account": "123456789012", "time": "2026-01-01T00:00:00Z", "region": "us-east-1",
            "resources": [], "detail": {"instance-id": "i-1", "state": "running"}}"#;
        assert!(is_event(event) && is_event(r#"{"source": "aws.autoscaling"}"#));
        let others = ["", "garbage", "{", "[]", "null", "7", "{}", r#"{"source": 7}"#, r#"{"source": "aws.s3"}"#];
        for other in others {
            assert!(!is_event(other), "{other}");
        }
        assert!(!is_event(&"[".repeat(200_000)), "too deep is no reason to die");
    }
}
