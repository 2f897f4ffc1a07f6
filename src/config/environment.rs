//! The layer of environment variables: `ELASTICD__API__SOCKET` sets `api.socket`.
//!
//! Of other variables that begin with `ELASTICD_` only the command line's own mean anything. In particular Kubernetes sets
//! `ELASTICD_PORT`, `ELASTICD_SERVICE_HOST` and more in every pod if there is a Service named `elasticd`.

use figment::providers::Env;

/// What every variable that sets a key begins with; `__` separates the parts of the key.
const PREFIX: &str = "ELASTICD__";

/// What such variables began with up to version 0.1.
const FORMER_PREFIX: &str = "ELASTICD_";

/// The keys above all sections, which were once set by variables without `__`.
const FORMER_TOP_KEYS: &[&str] = &["STATE_DIR", "ZONE", "CONFINE"];

/// The keys that environment variables set.
pub fn layer() -> Env {
    Env::prefixed(PREFIX).split("__")
}

/// The variable that sets a dotted key.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Variables that are spelt as they were once: each with its present spelling. They set nothing any more.
pub fn former_variables() -> Vec<(String, String)> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut former: Vec<_> = names.filter_map(|name| Some((present_spelling(&name)?, name))).collect();
    former.sort();
    former.into_iter().map(|(present, name)| (name, present)).collect()
}

fn present_spelling(name: &str) -> Option<String> {
    let key = name.strip_prefix(FORMER_PREFIX).filter(|key| !key.starts_with('_'))?;
    (key.contains("__") || FORMER_TOP_KEYS.contains(&key)).then(|| format!("{PREFIX}{key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_former_spellings_of_keys_are_found() {
        assert_eq!(present_spelling("ELASTICD_API__SOCKET").as_deref(), Some("ELASTICD__API__SOCKET"));
        assert_eq!(present_spelling("ELASTICD_ZONE").as_deref(), Some("ELASTICD__ZONE"));
        for other in
            ["ELASTICD__API__SOCKET", "ELASTICD_SOCKET", "ELASTICD_PORT_9464_TCP_ADDR", "ELASTICD_SERVICE_HOST"]
        {
            assert_eq!(present_spelling(other), None, "{other}");
        }
    }
}
