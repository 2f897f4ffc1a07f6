//! What `elasticd doctor` finds of the providers and of what they give to services.

use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::future::join_all;

use super::{Findings, Level};
use crate::config::{Config, Provider};
use crate::model::{Created, Instance, Name, Pattern, Selection, Service, select};
use crate::provider;
use crate::sys::unconfined::Unconfined;

/// How many reasons for exclusion are shown of a service: the most frequent ones.
const REASONS: usize = 3;

/// What each provider answered; `None` of one that did not, or was not asked.
pub type Answers = Vec<(Name, Option<Vec<Instance>>)>;

/// Asks all providers, at once.
pub async fn check(config: &Config, findings: &mut Findings) -> Answers {
    let each = config.providers.iter().map(|(name, provider)| check_provider(config, name, provider));
    let mut answers = Vec::new();
    for (name, (found, answer)) in config.providers.keys().zip(join_all(each).await) {
        findings.0.extend(found.0);
        answers.push((name.clone(), answer));
    }
    if let Some(publish) = &config.publish {
        findings.add_result("publish", crate::fleet::check(publish).await);
        for name in config.polled_twice() {
            let reader = crate::fleet::TYPE.unwrap_or_default();
            let message =
                format!("{name} is polled for our own services, too: let them use a provider of type {reader}");
            findings.add(Level::Warn, "publish.providers", message);
        }
    }
    answers
}

async fn check_provider(config: &Config, name: &Name, provider: &Provider) -> (Findings, Option<Vec<Instance>>) {
    let mut findings = Findings::default();
    let subject = format!("providers.{name}");
    let mut selectors = config.selectors(name);
    if selectors.is_empty() {
        selectors = config.extra_selectors(name);
    }
    if selectors.is_empty() {
        findings.add(
            Level::Warn,
            subject,
            "no service uses it, and it is not polled: name it in a service's `provider`",
        );
        return (findings, None);
    }
    let mut answer = None;
    let mut built =
        provider.config.build(&provider::BuildContext { selectors: &selectors, unconfined: &Unconfined::default() });
    built.set_read_only();
    let (limit, started) = (provider.pace.timeout, Instant::now());
    let asked = tokio::time::timeout(limit, built.discover()).await;
    match asked.unwrap_or_else(|_| Err(provider::Error::timed_out(limit))) {
        Ok(instances) => {
            findings.add(Level::Ok, &subject, format!("{} in {:.1?}", counted(instances.len()), started.elapsed()));
            for service in config.services.iter().filter(|service| service.providers.contains(name)) {
                check_service(service, name, &instances, &mut findings);
            }
            for pattern in config.patterns.iter().filter(|pattern| pattern.base.providers.contains(name)) {
                check_pattern(pattern, name, &instances, &mut findings);
            }
            answer = Some(instances);
        }
        Err(error) => findings.add(Level::Fail, &subject, error),
    }
    if let Some(check) = built.check_events() {
        let checked = tokio::time::timeout(limit, check).await;
        let result = checked.unwrap_or_else(|_| Err(provider::Error::timed_out(limit)));
        findings.add_result(format!("{subject}.events"), result);
    }
    (findings, answer)
}

fn counted(instances: usize) -> String {
    format!("{instances} instance{}", if instances == 1 { "" } else { "s" })
}

fn check_pattern(pattern: &Pattern, provider: &Name, instances: &[Instance], findings: &mut Findings) {
    let Created { services, faults } = pattern.expand(instances);
    let subject = format!("services.{}", pattern.base.name);
    let level = if services.is_empty() || !faults.is_empty() { Level::Warn } else { Level::Ok };
    let mut message = format!("services that tags create: {}", services.len());
    if let Some(fault) = faults.first() {
        message.push_str(&format!("; {} tags create none: correct them; the first: {fault}", faults.len()));
    }
    findings.add(level, subject, message);
    for (service, _) in services.values() {
        check_service(service, provider, instances, findings);
    }
}

fn check_service(service: &Service, provider: &Name, instances: &[Instance], findings: &mut Findings) {
    let Selection { members, exclusions } = select(service, instances);
    let faults = exclusions.iter().filter(|exclusion| exclusion.reason.is_fault()).count();
    let mut message = format!("{} of {} selected", members.len(), counted(instances.len()));
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for exclusion in &exclusions {
        *reasons.entry(exclusion.reason.to_string()).or_default() += 1;
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    // The sort is stable: equal counts stay in the order of their words.
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if service.providers.len() > 1 {
        message.push_str(&format!(" from provider {provider}"));
    }
    // A reason may have a semicolon of its own.
    let mut excluded: Vec<_> =
        reasons.iter().take(REASONS).map(|(reason, count)| format!("{count} ({reason})")).collect();
    if let Some(more) = reasons.len().checked_sub(REASONS).filter(|more| *more > 0) {
        excluded.push(format!("and for {more} more reasons"));
    }
    if !excluded.is_empty() {
        message.push_str(&format!(". Excluded: {}", excluded.join(", ")));
    }
    if members.is_empty() {
        message.push_str(". Correct the service's `select`, or the instances: an empty set is held");
    } else if faults > 0 {
        message.push_str(&format!(". Fix {faults} of them, or exclude them by `select`"));
    }
    let is_well = !members.is_empty() && faults == 0;
    findings.add(if is_well { Level::Ok } else { Level::Warn }, format!("services.{}", service.name), message);
}
