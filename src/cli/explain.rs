//! `elasticd explain`: why an instance is in or out.

use std::path::Path;

use serde::Deserialize;

use super::client::{self, table};
use crate::sys::http;

/// Says in which services an instance is a backend, and which rule keeps it out of the others.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The instance's id
    pub instance: String,
    /// Print what the socket answers, as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Deserialize)]
struct Explanation {
    services: Vec<Verdict>,
}

#[derive(Debug, Deserialize)]
struct Verdict {
    service: String,
    #[serde(rename = "in")]
    is_in: bool,
    message: String,
}

/// Asks the elasticd that listens on `socket`, and prints the answer.
///
/// # Errors
///
/// If it cannot be asked, knows no such instance, or the output cannot be written.
pub async fn run(args: &Args, socket: &Path) -> Result<(), client::Error> {
    let path = format!("/v1/explain/{}", http::encode(&args.instance));
    let body = client::get(socket, &path).await?;
    if args.json {
        return client::write_out(&[&body[..], b"\n"].concat());
    }
    client::write_out(human(&client::parse(socket, &path, &body)?).as_bytes())
}

fn human(explanation: &Explanation) -> String {
    let row = |verdict: &Verdict| {
        let is_in = if verdict.is_in { "in" } else { "out" };
        vec![verdict.service.clone(), is_in.to_owned(), verdict.message.clone()]
    };
    let header = ["SERVICE", "", "WHY"].map(str::to_owned).to_vec();
    table(&std::iter::once(header).chain(explanation.services.iter().map(row)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_table() {
        let explanation = serde_json::from_str(
            r#"{"instance":"i-1","services":[{"service":"api","in":false,"message":"it has no port","reason":"no_port"},
                {"service":"web","in":true,"message":"it is a backend","backend":{}}]}"#,
        )
        .expect("an explanation");
        assert_eq!(
            human(&explanation),
            "SERVICE       WHY\napi      out  it has no port\nweb      in   it is a backend\n"
        );
    }
}
