//! Caddy's admin API, for a Caddyfile, the key `config`, that imports the outputs.
//!
//! Caddy itself reads the Caddyfile, with its own environment and permissions: a program run by elasticd would read
//! another value, or none, for `{$NAME}`. Caddy is asked to adapt the Caddyfile to JSON (`/adapt`), and then to load the
//! result (`/load`), within the running process. Loading what it runs already does nothing.
//!
//! The loaded configuration decides where the admin API listens next. Without `admin` that is TCP port 2019, even if
//! Caddy then refuses the configuration for another reason. So a configuration that would move the admin API away from
//! `api` is never loaded.

use std::path::Path;

use futures_util::future::BoxFuture;
use hyper::Method;
use serde_json::Value;

use super::api::{Access, Comparison, Error, Evidence, LiveUpdate, RuntimeApi, Wanted};
use super::caddy::{is_same, send};
use crate::frontend::digest::Digest;
use crate::sys::endpoint::Endpoint;

/// The configuration that Caddy runs, as JSON.
const CONFIG: &str = "/config/";

const ADAPT: &str = "/adapt";

/// Where Caddy's admin API listens if its configuration does not say (`caddy.DefaultAdminListen`).
const DEFAULT_ADMIN: &str = "localhost:2019";

pub(super) struct Caddyfile;

impl RuntimeApi for Caddyfile {
    fn compare<'a>(
        &self,
        access: &'a Access,
        wanted: &'a Wanted<'a>,
        last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<Comparison, Error>> {
        Box::pin(compare(access, wanted, last))
    }

    fn takes_changes(&self) -> bool {
        true
    }

    fn apply<'a>(
        &self,
        access: &'a Access,
        _wanted: &'a Wanted<'a>,
        _last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<LiveUpdate, Error>> {
        Box::pin(apply(access))
    }
}

/// Once Caddy is proven to run the outputs, the Caddyfile is not read again until Caddy runs something else or the
/// outputs change: an operator's edit of the Caddyfile must not be loaded before the operator asks for it.
async fn compare(access: &Access, wanted: &Wanted<'_>, last: Option<&Evidence>) -> Result<Comparison, Error> {
    let answer = access.get(CONFIG).await?;
    let parts = [("running", Digest::of(&answer)), ("wanted", wanted.digest.clone())];
    let digest = Digest::of_all(parts.map(|(name, digest)| (Path::new(name), Some(digest))));
    let evidence = Evidence { digest: Some(digest), ..Evidence::default() };
    if last == Some(&evidence) {
        return Ok(Comparison::Runs(evidence));
    }
    if is_same(&adapt(access).await?, &access.parse_answer(CONFIG, &answer)?) {
        return Ok(Comparison::Runs(evidence));
    }
    Ok(Comparison::Differs(format!("what it runs is not what it reads in {}", caddyfile(access)?)))
}

async fn apply(access: &Access) -> Result<LiveUpdate, Error> {
    let adapted = adapt(access).await?;
    if let Some(reason) = admin_moves(&access.endpoint, &adapted) {
        return Err(access.unusable(format!("{reason}: make `admin` in {} and `api` agree", caddyfile(access)?)));
    }
    send(access, Method::POST, "/load", Some(("application/json", adapted.to_string()))).await?;
    Ok(LiveUpdate::Applied)
}

/// The Caddyfile as Caddy reads it now, in JSON. It is imported by its path, so that its own relative imports are found.
async fn adapt(access: &Access) -> Result<Value, Error> {
    let import = format!("import \"{}\"\n", caddyfile(access)?);
    let answer = send(access, Method::POST, ADAPT, Some(("text/caddyfile", import))).await?;
    Ok(access.parse_answer::<Value>(ADAPT, &answer)?["result"].take())
}

/// The path of the Caddyfile.
fn caddyfile(access: &Access) -> Result<String, Error> {
    let path = access.config.as_deref().and_then(|path| path.to_str());
    match path {
        None => Err(access.unusable("`config` is missing: set it to the path of the Caddyfile that Caddy runs")),
        // The path of an import is a pattern, and a Caddyfile has no escapes for these characters.
        Some(path) if !path.starts_with('/') || path.contains(|c: char| "\"\\{}*?[]".contains(c) || c.is_control()) => {
            Err(access.unusable(format!("`config`, {path:?}, is not an absolute path that Caddy can import")))
        }
        Some(path) => Ok(path.to_owned()),
    }
}

/// Why the admin API would listen elsewhere, or no longer listen, with this configuration.
fn admin_moves(from: &Endpoint, config: &Value) -> Option<String> {
    let admin = &config["admin"];
    if admin["disabled"] == true {
        return Some(format!("the Caddyfile switches off the admin API, which listens at {from}"));
    }
    let to = admin["listen"].as_str().filter(|listen| !listen.is_empty()).unwrap_or(DEFAULT_ADMIN);
    // One interface has many names, so only ports are compared.
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
    fn a_configuration_that_moves_the_admin_api_is_recognised() {
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
