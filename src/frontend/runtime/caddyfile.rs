//! Caddy's admin API, for a Caddyfile, the key `config`, that imports the outputs.
//!
//! Caddy itself reads the Caddyfile, so that its own environment and rights count: a program that elasticd would run
//! would read another value, or none, for `{$NAME}`. It is asked to adapt it (`/adapt`), and told to load what came of
//! that (`/load`), within the running process. To load what it runs already does nothing.
//!
//! What is loaded decides where the admin API listens next, and without an `admin` in it that is the TCP port 2019,
//! even if Caddy then refuses it for another reason: what would move the API away from `api` is never loaded.

use std::path::Path;

use hyper::Method;
use serde_json::Value;

use super::caddy::{is_same, send};
use super::{Comparison, Error, Evidence, LiveUpdate, Runtime, Wanted};
use crate::frontend::digest::Digest;
use crate::sys::endpoint::Endpoint;

/// What Caddy runs.
const CONFIG: &str = "/config/";

/// Has a Caddyfile read.
const ADAPT: &str = "/adapt";

/// Where Caddy's admin API listens if its configuration does not say (`caddy.DefaultAdminListen`).
const DEFAULT_ADMIN: &str = "localhost:2019";

/// Once Caddy is proven to run the outputs, it is taken to do so until it runs anything else: what somebody edits in
/// the Caddyfile is not loaded before he says so, or the outputs change.
pub(super) async fn compare(
    runtime: &Runtime,
    wanted: &Wanted<'_>,
    last: Option<&Evidence>,
) -> Result<Comparison, Error> {
    let answer = runtime.get(CONFIG).await?;
    // What it runs, and for which outputs.
    let parts = [("running", Digest::of(&answer)), ("wanted", wanted.digest.clone())];
    let fixed = Digest::of_all(parts.map(|(name, digest)| (Path::new(name), Some(digest))));
    let now = Evidence { instance: None, fixed: Some(fixed) };
    if last == Some(&now) {
        return Ok(Comparison::Runs(now));
    }
    if is_same(&adapted(runtime).await?, &runtime.understood(CONFIG, &answer)?) {
        return Ok(Comparison::Runs(now));
    }
    Ok(Comparison::Differs(format!("what it runs is not what it reads in {}", main(runtime)?)))
}

pub(super) async fn apply(runtime: &Runtime) -> Result<LiveUpdate, Error> {
    let adapted = adapted(runtime).await?;
    if let Some(why) = admin_moves(&runtime.endpoint, &adapted) {
        return Err(runtime.unusable(format!("{why}: make `admin` in {} and `api` agree", main(runtime)?)));
    }
    send(runtime, Method::POST, "/load", Some(("application/json", adapted.to_string()))).await?;
    Ok(LiveUpdate::Applied)
}

/// The Caddyfile as Caddy reads it now. It is imported by its path, so that its own relative imports are found.
async fn adapted(runtime: &Runtime) -> Result<Value, Error> {
    let import = format!("import \"{}\"\n", main(runtime)?);
    let answer = send(runtime, Method::POST, ADAPT, Some(("text/caddyfile", import))).await?;
    Ok(runtime.understood::<Value>(ADAPT, &answer)?["result"].take())
}

fn main(runtime: &Runtime) -> Result<String, Error> {
    let path = runtime.config.as_deref().and_then(|path| path.to_str());
    match path {
        None => Err(runtime.unusable("`config` is missing: it names the Caddyfile that Caddy runs")),
        // An import is a pattern, and in a Caddyfile nothing escapes these.
        Some(path) if !path.starts_with('/') || path.contains(|c: char| "\"\\{}*?[]".contains(c) || c.is_control()) => {
            Err(runtime.unusable(format!("`config`, {path:?}, is not an absolute path that Caddy can import")))
        }
        Some(path) => Ok(path.to_owned()),
    }
}

/// Why the admin API would listen elsewhere, or no longer, with this configuration.
fn admin_moves(from: &Endpoint, config: &Value) -> Option<String> {
    let admin = &config["admin"];
    if admin["disabled"] == true {
        return Some(format!("the Caddyfile switches off the admin API, which listens at {from}"));
    }
    let to = admin["listen"].as_str().filter(|listen| !listen.is_empty()).unwrap_or(DEFAULT_ADMIN);
    // An interface has many names, a port only one.
    let stays = match from {
        Endpoint::Unix(_) => to.starts_with("unix"),
        Endpoint::Tcp(address) => !to.starts_with("unix") && port(address) == port(to),
    };
    (!stays).then(|| format!("the Caddyfile would move the admin API from {from} to {to}"))
}

fn port(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_that_moves_the_admin_api_is_told_apart() {
        let (unix, tcp): (Endpoint, Endpoint) = ("/run/a.sock".parse().unwrap(), "127.0.0.1:2019".parse().unwrap());
        let at = |listen: &str| json!({"admin": {"listen": listen}});
        assert_eq!(admin_moves(&unix, &at("unix//run/a.sock")), None);
        assert_eq!(admin_moves(&unix, &at("unix//run/a.sock|0660")), None);
        for moves in [json!({}), at(""), at("localhost:2019"), json!({"admin": {"disabled": true}})] {
            assert!(admin_moves(&unix, &moves).is_some(), "{moves}");
        }
        for stays in [json!({}), at(""), at(":2019"), at("localhost:2019"), at("tcp/[::1]:2019")] {
            assert_eq!(admin_moves(&tcp, &stays), None, "{stays}");
        }
        for moves in [at("localhost:2020"), at("unix//run/a.sock"), json!({"admin": {"disabled": true}})] {
            assert!(admin_moves(&tcp, &moves).is_some(), "{moves}");
        }
    }
}
