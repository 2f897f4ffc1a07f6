//! The configuration: figment layers, read raw, then valid. All faults at once, each with its file and key.

mod fault;
#[cfg(feature = "nats")]
mod fleet;
mod health;
mod layers;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::value::Value;
use jiff::fmt::serde::unsigned_duration::friendly::compact;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use fault::{Fault, Faults};
use layers::Layers;

use crate::model::{Name, Pattern, Selector, Service};
use crate::provider::poll::PollSchedule;
use crate::registry::Settings;
use crate::sys::unix_socket;
use crate::{api, frontend, provider};

/// The configuration file, where none is named.
pub const DEFAULT_PATH: &str = "/etc/elasticd/elasticd.toml";

/// The query socket, where none is configured.
pub const DEFAULT_SOCKET: &str = "/run/elasticd/elasticd.sock";

/// The admin socket, where none is configured.
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/elasticd/admin.sock";

/// The shortest and the longest interval between polls.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_hours(24));

/// How long one poll may take, where nothing else is configured.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A configuration in which everything is known to fit together.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the last known good and the apply records are kept.
    pub state_dir: PathBuf,
    /// Whether elasticd confines itself.
    pub confine: Confine,
    /// The sockets.
    pub api: api::Config,
    /// By name.
    pub providers: BTreeMap<Name, Provider>,
    /// Our own zone, if it is configured.
    pub zone: Option<String>,
    /// Ordered by name.
    pub services: Vec<Service>,
    /// What creates more of them, ordered by name.
    pub patterns: Vec<Pattern>,
    /// Ordered by name.
    pub frontends: Vec<frontend::Config>,
    /// What is published to a fleet.
    #[cfg(feature = "nats")]
    pub publish: Option<crate::fleet::Config>,
}

/// Whether elasticd gives up what it does not need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confine {
    /// As far as the kernel lets it.
    #[default]
    Auto,
    /// Nothing: for what is started and must gain privileges, such as `sudo`.
    Off,
}

/// A provider, and how often it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The provider's own configuration.
    pub config: provider::Config,
    /// How often it is asked.
    pub pace: PollSchedule,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTop {
    state_dir: PathBuf,
    zone: Option<String>,
    #[serde(default)]
    confine: Confine,
    api: RawApi,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawApi {
    socket: PathBuf,
    admin_socket: Option<PathBuf>,
    mode: Option<String>,
    group: Option<String>,
    max_connections: Option<usize>,
    metrics: Option<SocketAddr>,
}

/// The keys every provider has, beside `type` and its own.
#[derive(Deserialize)]
struct RawSchedule {
    #[serde(default, with = "compact::optional")]
    interval: Option<Duration>,
    #[serde(default, with = "compact::optional")]
    timeout: Option<Duration>,
}

impl Config {
    /// Reads `file`, the fragments beside it and the environment.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        let mut layers = Layers::read(file).map_err(Faults)?;
        let base = file.parent().unwrap_or(Path::new(""));
        #[cfg_attr(not(feature = "nats"), expect(unused_mut, reason = "only `nats` has more to bind"))]
        let mut providers = providers(&mut layers);
        let (services, patterns) = service::services(&mut layers);
        let names: Vec<_> = services.iter().map(|service| service.name.clone()).collect();
        let mut frontends = frontends(&mut layers, &names, base);
        for frontend in &mut frontends {
            frontend.follows_all_services &= !patterns.is_empty();
        }
        let top = top(&mut layers);
        #[cfg(feature = "nats")]
        fleet::bind(&mut layers, &mut providers, top.as_ref().map(|(state_dir, ..)| state_dir.as_path()));
        #[cfg(feature = "nats")]
        let publish = fleet::publish(&mut layers, &providers);
        let config = top.map(|(state_dir, zone, confine, api)| Self {
            state_dir,
            zone,
            confine,
            api,
            providers,
            services,
            patterns,
            frontends,
            #[cfg(feature = "nats")]
            publish,
        });
        if let Some(config) = &config {
            config.cross_check(&mut layers);
        }
        match config {
            Some(config) if layers.faults.is_empty() => Ok(config),
            _ => Err(Faults(layers.faults)),
        }
    }

    /// The services that are configured, and what those have in common that tags will create.
    pub fn all_services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().chain(self.patterns.iter().map(|pattern| &pattern.base))
    }

    /// The directories that outputs are written to.
    pub fn output_directories(&self) -> BTreeSet<PathBuf> {
        let outputs = self.frontends.iter().flat_map(|frontend| &frontend.outputs);
        outputs.filter_map(|output| output.path.parent()).map(Path::to_owned).collect()
    }

    /// What the registry is to know.
    pub fn settings(&self) -> Settings {
        Settings {
            services: self.services.clone(),
            patterns: self.patterns.clone(),
            providers: self.providers.iter().map(|(name, p)| (name.clone(), p.config.type_name())).collect(),
            zone: self.zone.clone(),
        }
    }

    /// What a provider's instances are selected by for other purposes than services: a fleet's, or as a fallback.
    #[cfg(feature = "nats")]
    pub fn extra_selectors(&self, provider: &Name) -> Vec<Selector> {
        let falls_back = |other: &Provider| match &other.config {
            provider::Config::Nats(nats) => nats.fallback.as_ref().is_some_and(|f| f.name == *provider),
            _ => false,
        };
        let fallback_of = self.providers.iter().filter(|(_, other)| falls_back(other));
        let publish = self.publish.iter().filter(|publish| publish.providers.contains_key(provider));
        fallback_of
            .flat_map(|(other, _)| self.selectors(other))
            .chain(publish.map(|publish| publish.select.clone()))
            .collect()
    }

    /// The same without fleets: never.
    #[cfg(not(feature = "nats"))]
    pub fn extra_selectors(&self, _: &Name) -> Vec<Selector> {
        Vec::new()
    }

    /// Providers that are published, and that our own services ask as well.
    #[cfg(feature = "nats")]
    pub fn polled_twice(&self) -> impl Iterator<Item = &Name> {
        let published = self.publish.iter().flat_map(|publish| publish.providers.keys());
        published.filter(|name| !self.selectors(name).is_empty())
    }

    /// What a provider's instances are selected by.
    pub fn selectors(&self, provider: &Name) -> Vec<Selector> {
        let configured = self.services.iter().map(|service| (service, service.select.clone()));
        let created = self.patterns.iter().map(|pattern| (&pattern.base, pattern.selector()));
        let all = configured.chain(created).filter(|(service, _)| service.providers.contains(provider));
        all.map(|(_, selector)| selector).collect()
    }

    /// What no section can know alone. A section that could not be read is still named by its key.
    fn cross_check(&self, layers: &mut Layers) {
        let defined = |layers: &Layers, section: &str| -> BTreeSet<String> {
            let table = layers.values.get(section).and_then(Value::as_dict);
            table.map(|entries| entries.keys().cloned().collect()).unwrap_or_default()
        };
        let providers = defined(layers, "providers");
        let services = defined(layers, "services");
        for service in self.all_services() {
            let key = format!("services.{}.provider", service.name);
            for provider in service.providers.iter().filter(|provider| !providers.contains(provider.as_str())) {
                layers.fault(&key, format!("there is no provider {provider:?}; {}", known("providers", &providers)));
            }
        }
        let all: Vec<_> = self.all_services().cloned().collect();
        let mut outputs: BTreeMap<&Path, &Name> = BTreeMap::new();
        for frontend in &self.frontends {
            let key = format!("frontends.{}", frontend.name);
            // What tags will create, nobody can know yet.
            let is_unknown = |name: &&Name| !services.contains(name.as_str()) && self.patterns.is_empty();
            for service in frontend.services.iter().filter(is_unknown) {
                let message = format!("there is no service {service:?}; {}", known("services", &services));
                layers.fault(&format!("{key}.services"), message);
            }
            for output in &frontend.outputs {
                if let Some(other) = outputs.insert(&output.path, &frontend.name) {
                    let message = format!("{} is written by frontends.{other} as well", output.path.display());
                    layers.fault(&format!("{key}.output"), message);
                }
            }
            if frontend.follows_all_services && frontend.outputs.iter().any(|o| o.service.is_some()) {
                let message = "missing: an output for each service cannot be made for those that tags create; list those \
                               that it is told of";
                layers.fault(&format!("{key}.services"), message);
            }
            for (field, message) in frontend.verify(&all) {
                layers.fault(&format!("{key}.{field}"), message);
            }
        }
        let asks_where = self.all_services().any(|service| service.prefer.is_some());
        if cfg!(not(feature = "ec2")) && self.zone.is_none() && asks_where {
            let message = "missing: a service prefers our own zone, and this elasticd is built without EC2, whose \
                           metadata service would be asked";
            layers.fault("zone", message);
        }
        let publishes = layers.values.contains_key("publish");
        if publishes && cfg!(not(feature = "nats")) {
            layers.fault("publish", "this elasticd was built without the feature `nats`: it cannot publish");
        }
        // A publisher may have no services of its own.
        if services.is_empty() && !publishes {
            layers.fault("services", "there is none: nothing would be discovered; write [services.NAME]");
        }
    }
}

fn known(what: &str, names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return format!("there are no {what} at all");
    }
    format!("the {what} are {}", names.iter().cloned().collect::<Vec<_>>().join(", "))
}

fn top(layers: &mut Layers) -> Option<(PathBuf, Option<String>, Confine, api::Config)> {
    let mut values = layers.values.clone();
    for section in ["providers", "services", "frontends", "publish"] {
        values.remove(section);
    }
    let RawTop { state_dir, zone, confine, api } = layers.extract("", &mut Value::from(values))?;
    if !state_dir.is_absolute() {
        layers.fault("state_dir", format!("{state_dir:?} is not an absolute path"));
    }
    let admin_socket = api.admin_socket.unwrap_or_else(|| api.socket.with_file_name("admin.sock"));
    // An empty path is how it is switched off.
    let admin_socket = Some(admin_socket).filter(|path| !path.as_os_str().is_empty());
    for (key, path) in [("api.socket", Some(&api.socket)), ("api.admin_socket", admin_socket.as_ref())] {
        let Some(path) = path else { continue };
        if !path.is_absolute() {
            layers.fault(key, format!("{} is not an absolute path", path.display()));
        }
        let (length, most) = (path.as_os_str().len(), unix_socket::MAX_PATH);
        if length > most {
            let message =
                format!("the path has {length} bytes, and a Unix socket's may have {most}: use a shorter one");
            layers.fault(key, message);
        }
    }
    if admin_socket.as_ref() == Some(&api.socket) {
        layers.fault("api.admin_socket", "is the query socket: name another path");
    }
    let mode = frontend::parse_mode(api.mode.as_deref().unwrap_or("0660")).unwrap_or_else(|message| {
        layers.fault("api.mode", message);
        0
    });
    let gid = api.group.as_deref().map(frontend::gid).transpose().unwrap_or_else(|message| {
        layers.fault("api.group", message);
        None
    });
    let max_connections = api.max_connections.unwrap_or(api::Config::MAX_CONNECTIONS);
    if max_connections == 0 {
        layers.fault("api.max_connections", "must be at least 1");
    }
    if zone.as_ref().is_some_and(|zone| zone.trim().is_empty()) {
        layers.fault("zone", "is empty: name the zone, or leave it out to have the metadata service asked");
    }
    Some((
        state_dir,
        zone,
        confine,
        api::Config { socket: api.socket, admin_socket, mode, gid, max_connections, metrics: api.metrics },
    ))
}

fn name(layers: &mut Layers, section: &str, text: &str) -> Option<Name> {
    text.parse().map_err(|error| layers.fault(&format!("{section}.{text}"), format!("{error}"))).ok()
}

/// Takes `type` out of an entry.
fn type_of(layers: &mut Layers, key: &str, entry: &mut Value, known: &[&str]) -> Option<String> {
    let Value::Dict(_, dict) = entry else { return None };
    match dict.remove("type") {
        Some(Value::String(_, text)) if known.contains(&text.as_str()) => Some(text),
        Some(other) => {
            let found = other.as_str().map_or_else(|| "not a text".to_owned(), |text| format!("{text:?}"));
            layers.fault(&format!("{key}.type"), format!("{found} is none of {}", known.join(", ")));
            None
        }
        None => {
            layers.fault(&format!("{key}.type"), format!("missing: one of {}", known.join(", ")));
            None
        }
    }
}

fn providers(layers: &mut Layers) -> BTreeMap<Name, Provider> {
    let mut providers = BTreeMap::new();
    for (text, mut entry) in layers.tables("providers") {
        let key = format!("providers.{text}");
        let name = name(layers, "providers", &text);
        let type_name = type_of(layers, &key, &mut entry, provider::Config::TYPES);
        let pace = pace(layers, &key, &mut entry);
        let config = type_name.and_then(|type_name| {
            let timeout = pace.map_or(TIMEOUT, |pace| pace.timeout);
            provider_config(layers, &key, name.as_ref(), &type_name, &mut entry, timeout)
        });
        if let (Some(name), Some(config), Some(pace)) = (name, config, pace) {
            providers.insert(name, Provider { config, pace });
        }
    }
    providers
}

fn provider_config(
    layers: &mut Layers,
    key: &str,
    name: Option<&Name>,
    type_name: &str,
    entry: &mut Value,
    timeout: Duration,
) -> Option<provider::Config> {
    #[cfg(not(feature = "nats"))]
    let _ = name;
    use provider::{exec, file, fixed, http};
    match type_name {
        "fixed" => resolved(layers, key, entry, fixed::Raw::resolve).map(provider::Config::Fixed),
        "file" => resolved(layers, key, entry, file::Raw::resolve).map(provider::Config::File),
        "exec" => resolved(layers, key, entry, |raw: exec::Raw| raw.resolve(timeout)).map(provider::Config::Exec),
        "http" => resolved(layers, key, entry, |raw: http::Raw| raw.resolve(timeout).map(Box::new))
            .map(provider::Config::Http),
        #[cfg(feature = "ec2")]
        "ec2" => resolved(layers, key, entry, provider::ec2::Raw::resolve).map(provider::Config::Ec2),
        #[cfg(feature = "nats")]
        "nats" => fleet::provider(layers, key, name?, entry).map(provider::Config::Nats),
        _ => None,
    }
}

fn resolved<R: DeserializeOwned, C>(
    layers: &mut Layers,
    key: &str,
    entry: &mut Value,
    resolve: impl FnOnce(R) -> Result<C, Vec<String>>,
) -> Option<C> {
    let raw = layers.extract(key, entry)?;
    resolve(raw).map_err(|messages| report(layers, key, messages)).ok()
}

/// Notes faults of the entry at `key`, each of which begins with its own key.
fn report(layers: &mut Layers, key: &str, messages: Vec<String>) {
    for message in messages {
        match message.split_once(": ") {
            Some((field, message)) => layers.fault(&format!("{key}.{field}"), message),
            None => layers.fault(key, message),
        }
    }
}

fn pace(layers: &mut Layers, key: &str, entry: &mut Value) -> Option<PollSchedule> {
    let raw: RawSchedule = layers.part(key, entry, &["interval", "timeout"])?;
    let interval = raw.interval.unwrap_or(Duration::from_secs(15));
    let timeout = raw.timeout.unwrap_or(TIMEOUT);
    if !(INTERVALS.0..=INTERVALS.1).contains(&interval) {
        layers.fault(&format!("{key}.interval"), format!("{interval:?} is not between 100ms and 24h"));
    }
    if timeout.is_zero() {
        layers.fault(&format!("{key}.timeout"), "must be longer than 0s");
    }
    Some(PollSchedule { interval, timeout })
}

fn frontends(layers: &mut Layers, services: &[Name], base: &Path) -> Vec<frontend::Config> {
    use frontend::preset;
    let mut known = preset::names();
    known.push(preset::CUSTOM);
    let mut frontends = Vec::new();
    for (text, mut entry) in layers.tables("frontends") {
        let key = format!("frontends.{text}");
        let name = name(layers, "frontends", &text);
        let type_name = type_of(layers, &key, &mut entry, &known);
        let raw: Option<frontend::Raw> = layers.extract(&key, &mut entry);
        let (Some(name), Some(type_name), Some(raw)) = (name, type_name, raw) else { continue };
        match raw.over(preset::defaults(&type_name).unwrap_or_default()).resolve(name, &type_name, services, base) {
            Ok(config) => frontends.push(config),
            Err(faults) => {
                for (field, message) in faults {
                    layers.fault(&format!("{key}.{field}"), message);
                }
            }
        }
    }
    frontends
}

#[cfg(test)]
mod tests;
