//! `elasticd explain`: why an instance is a backend of a service, or why not.

use std::path::Path;

use super::client::{self, table};
use crate::api::types::{Explanation, FrontendExplanation, ServiceExplanation};
use crate::sys::http;

/// Says of which services an instance is a backend, and which rule excludes it from the others.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The instance's id
    pub instance: String,
    /// Print what the socket answers, as JSON
    #[arg(long)]
    pub json: bool,
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
    let row = |explained: &ServiceExplanation| {
        let backend = if explained.included { "yes" } else { "no" };
        vec![explained.service.to_string(), backend.to_owned(), explained.message.clone()]
    };
    let header = ["SERVICE", "BACKEND", "WHY"].map(str::to_owned).to_vec();
    let mut text = table(&std::iter::once(header).chain(explanation.services.iter().map(row)).collect::<Vec<_>>());
    for FrontendExplanation { frontend, service, message } in &explanation.frontends {
        text.push_str(&client::plain(&format!(
            "left out of frontend {frontend}, as backend of {service}: {message}\n"
        )));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_table() {
        let explanation = serde_json::from_str(
            r#"{"instance":"i-1","services":[{"service":"api","included":false,"message":"it has no port","reason":"no_port"},
                {"service":"web","included":true,"message":"a backend","backend":{"id":"i-1","address":"10.0.0.1","port":80,
                "zone":null,"weight":1,"state":"up","tags":{}}}],
                "frontends":[{"frontend":"nginx","service":"web","message":"t.conf line 4 column 9: there is no `b.tags.Owner`"}]}"#,
        )
        .expect("an explanation");
        assert_eq!(
            human(&explanation),
            "SERVICE  BACKEND  WHY\napi      no       it has no port\nweb      yes      a backend\n\
             left out of frontend nginx, as backend of web: t.conf line 4 column 9: there is no `b.tags.Owner`\n"
        );
    }
}
