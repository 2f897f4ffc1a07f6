//! `GET /metrics`: OpenMetrics text, encoded from the reports when asked for. There is no second set of counters.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::{Response, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::error::Problem;
use super::headers::OPEN_METRICS;
use super::respond::{Body, respond_as};
use super::sources::Sources;
use crate::status::{Kind, Measured, Metric, Number};
use crate::sys::usage::Usage;

/// The answer, once `/proc` has been read on a thread that may wait for it.
pub(super) async fn answer(sources: &Sources) -> Response<Body> {
    // Without /proc, its metrics are left out.
    let usage = tokio::task::spawn_blocking(Usage::read).await.ok().and_then(Result::ok);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Reports { sources: sources.clone(), usage }));
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => respond_as(StatusCode::OK, OPEN_METRICS, body),
        Err(error) => Problem::Internal { why: error.to_string() }.response(),
    }
}

#[derive(Debug)]
struct Reports {
    sources: Sources,
    usage: Option<Usage>,
}

impl Collector for Reports {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let report = Arc::clone(&self.sources.registry.borrow());
        let frontends = Arc::clone(&self.sources.frontends.borrow());
        let fleet = Arc::clone(&self.sources.fleet.borrow());
        let mut encoder = Encoder(encoder);
        self.elasticd(&mut encoder)?;
        let mut families = Families::new("elasticd_provider", "provider");
        for (name, provider) in &report.providers {
            families.add(name, &provider.status);
            let at = provider.status.age_seconds.map_or(Number::Fraction(0.0), |age| age.time().into());
            families.add_one(name, LAST_SUCCESS, Some(at));
        }
        encoder.families(families)?;
        let mut families = Families::new("elasticd_service", "service");
        for (name, service) in &report.services {
            families.add(name, &*service.status);
            let at = service.status.age_seconds.map_or(Number::Fraction(0.0), |age| age.time().into());
            families.add_one(name, OBSERVED, Some(at));
        }
        encoder.families(families)?;
        let mut families = Families::new("elasticd_frontend", "frontend");
        for (name, frontend) in &*frontends {
            let frontend = Arc::clone(&frontend.borrow());
            families.add(name, &*frontend);
            families.add_one(name, IN_SYNC, Some(Number::Whole(frontend.phase.is_applied().into())));
        }
        encoder.families(families)?;
        if let Some(publisher) = &fleet.publisher {
            let publisher = Arc::clone(&publisher.borrow());
            let mut families = Families::unlabelled("elasticd_fleet");
            families.add("", &*publisher);
            encoder.families(families)?;
            let mut families = Families::new("elasticd_publish", "provider");
            for (name, published) in &publisher.providers {
                families.add(name, published);
            }
            encoder.families(families)?;
        }
        // How old the sets are that are read from a fleet is said as of any other provider.
        let mut families = Families::new("elasticd_fleet", "provider");
        for (name, reader) in &fleet.readers {
            let reader = Arc::clone(&reader.borrow());
            families.add(name, &*reader);
            families.add_one(name, FALLBACK_ACTIVE, Some(Number::Whole(reader.fallback.is_some().into())));
        }
        encoder.families(families)?;
        process(&mut encoder, self.sources.started, self.usage.as_ref())
    }
}

impl Reports {
    fn elasticd(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let help = "The version of elasticd that runs.";
        encoder.0.encode_descriptor("elasticd_build", help, None, MetricType::Info)?.encode_info(&version)?;
        let ready = u64::from(*self.sources.ready.borrow());
        encoder.gauge("elasticd_ready", "Whether elasticd is ready: 0 or 1.", Number::Whole(ready))?;
        let revision = self.sources.snapshot.borrow().as_ref().map_or(0, |snapshot| snapshot.revision);
        let help = "The snapshot's revision; 0 before there is one.";
        encoder.gauge("elasticd_snapshot_revision", help, Number::Whole(revision))
    }
}

// What follows from a report, and is no field of it.

const LAST_SUCCESS: Metric = Metric {
    name: "last_success_timestamp_seconds",
    help: "When the provider last answered in full; 0 if it has not since elasticd started.",
    kind: Kind::Gauge,
};

const OBSERVED: Metric = Metric {
    name: "observed_timestamp_seconds",
    help: "When the provider silent for longest last answered for the service in full; 0 if none has.",
    kind: Kind::Gauge,
};

const IN_SYNC: Metric = Metric {
    name: "in_sync",
    help: "Whether the newest snapshot is in effect, as far as that can be known: 0 or 1.",
    kind: Kind::Gauge,
};

const FALLBACK_ACTIVE: Metric = Metric {
    name: "fallback_active",
    help: "Whether the fallback is polled because the fleet is silent: 0 or 1.",
    kind: Kind::Gauge,
};

/// What elasticd itself uses, under the names that Prometheus's own clients use.
fn process(encoder: &mut Encoder<'_>, started: SystemTime, usage: Option<&Usage>) -> fmt::Result {
    encoder.gauge("process_start_time_seconds", "When elasticd started.", started.into())?;
    let Some(Usage { resident_bytes, processor_seconds, open_files }) = usage else { return Ok(()) };
    encoder.gauge("process_resident_memory_bytes", "Memory in use.", Number::Whole(*resident_bytes))?;
    let seconds = Number::Fraction(*processor_seconds);
    encoder.sample("process_cpu_seconds", "Processor time used.", Kind::Counter, seconds)?;
    encoder.gauge("process_open_fds", "Open file descriptors.", Number::Whole(*open_files))
}

/// Metric families with one sample for each of some reports of a kind, in the order of the reports' fields.
struct Families {
    prefix: &'static str,
    label: Option<&'static str>,
    families: Vec<(Metric, Vec<(String, Number)>)>,
}

impl Families {
    fn new(prefix: &'static str, label: &'static str) -> Self {
        Self { prefix, label: Some(label), families: Vec::new() }
    }

    fn unlabelled(prefix: &'static str) -> Self {
        Self { prefix, label: None, families: Vec::new() }
    }

    fn add(&mut self, name: impl ToString, report: &impl Measured) {
        let name = name.to_string();
        report.measure(&mut |metric, value| self.add_one(&name, metric, value));
    }

    fn add_one(&mut self, name: impl ToString, metric: Metric, value: Option<Number>) {
        let index = self.families.iter().position(|(known, _)| *known == metric).unwrap_or_else(|| {
            self.families.push((metric, Vec::new()));
            self.families.len() - 1
        });
        self.families[index].1.extend(value.map(|value| (name.to_string(), value)));
    }
}

/// Writes metric families.
struct Encoder<'a>(DescriptorEncoder<'a>);

impl Encoder<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: Number) -> fmt::Result {
        self.sample(name, help, Kind::Gauge, value)
    }

    fn sample(&mut self, name: &str, help: &str, kind: Kind, value: Number) -> fmt::Result {
        encode(&mut self.0.encode_descriptor(name, help, None, metric_type(kind))?, kind, value)
    }

    fn families(&mut self, families: Families) -> fmt::Result {
        let Families { prefix, label, families } = families;
        for (Metric { name, help, kind }, samples) in families {
            let name = format!("{prefix}_{name}");
            let mut family = self.0.encode_descriptor(&name, help, None, metric_type(kind))?;
            for (of, value) in samples {
                match label {
                    Some(label) => encode(&mut family.encode_family(&[(label, of.as_str())])?, kind, value)?,
                    None => encode(&mut family, kind, value)?,
                }
            }
        }
        Ok(())
    }
}

const fn metric_type(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
    }
}

fn encode(metric: &mut MetricEncoder<'_>, kind: Kind, value: Number) -> fmt::Result {
    type NoLabels = Exemplar<[(&'static str, &'static str); 0], f64>;
    match (kind, value) {
        (Kind::Gauge, Number::Whole(value)) => metric.encode_gauge(&value),
        (Kind::Gauge, Number::Fraction(value)) => metric.encode_gauge(&value),
        (Kind::Counter, Number::Whole(value)) => metric.encode_counter(&value, None::<&NoLabels>),
        (Kind::Counter, Number::Fraction(value)) => metric.encode_counter(&value, None::<&NoLabels>),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::watch;

    use super::super::sources::Fleet;
    use super::*;
    use crate::api::testing::feeds;
    use crate::status::{Phase, Published, Publisher, Reader};

    #[tokio::test]
    async fn encodes_the_reports() {
        let (feeds, sources) = feeds();
        feeds.nginx.send_modify(|report| {
            let report = Arc::make_mut(report);
            (report.phase, report.proven_revision, report.reloads) = (Phase::Proven, Some(8), 3);
        });
        let response = answer(&sources).await;
        assert_eq!(response.headers()["content-type"], OPEN_METRICS);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("UTF-8");
        for line in [
            concat!("elasticd_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# TYPE elasticd_ready gauge",
            "elasticd_ready 0",
            "elasticd_snapshot_revision 8",
            "# TYPE elasticd_provider_polls counter",
            "elasticd_provider_polls_total{provider=\"prod\"} 9",
            "elasticd_provider_failures_total{provider=\"prod\"} 2",
            "elasticd_provider_throttles_total{provider=\"prod\"} 1",
            "elasticd_provider_calls_total{provider=\"prod\"} 31",
            "elasticd_provider_pages_total{provider=\"prod\"} 28",
            "elasticd_provider_instances{provider=\"prod\"} 12",
            "elasticd_provider_poll_duration_seconds{provider=\"prod\"} 0.25",
            "elasticd_service_backends{service=\"web\"} 1",
            "elasticd_service_exclusions{service=\"web\"} 2",
            "elasticd_service_held{service=\"web\"} 1",
            "elasticd_service_held{service=\"db\"} 0",
            "elasticd_service_observed_timestamp_seconds{service=\"db\"} 0.0",
            "elasticd_frontend_reloads_total{frontend=\"nginx\"} 3",
            "elasticd_frontend_proven_revision{frontend=\"nginx\"} 8",
            "elasticd_frontend_in_sync{frontend=\"nginx\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
        }
        assert!(!text.contains("elasticd_service_backends{service=\"db\"}"), "nothing is known of it");
        assert!(text.contains("\nprocess_start_time_seconds 1"), "{text}");
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("elasticd_fleet_"), "no fleet is configured");
    }

    #[tokio::test]
    async fn no_family_is_listed_twice_and_fleets_have_theirs() {
        let (_feeds, mut sources) = feeds();
        let publisher = Publisher {
            is_leader: true,
            takeovers: 2,
            readers: Some(300),
            providers: [("prod".parse().expect("a name"), Published { sets: 4, ..Published::default() })].into(),
            ..Publisher::default()
        };
        let reader = Reader { connected: true, term: Some(7), fallback_polls: 3, ..Reader::default() };
        let fleet = Fleet {
            publisher: Some(watch::channel(Arc::new(publisher)).1),
            readers: [("prod".parse().expect("a name"), watch::channel(Arc::new(reader)).1)].into(),
        };
        sources.fleet = watch::channel(Arc::new(fleet)).1;
        let response = answer(&sources).await;
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("UTF-8");
        let mut families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let listed = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), listed, "{text}");
        for line in [
            "elasticd_fleet_is_leader 1",
            "elasticd_fleet_takeovers_total 2",
            "elasticd_fleet_readers 300",
            "elasticd_publish_sets_total{provider=\"prod\"} 4",
            "elasticd_fleet_connected{provider=\"prod\"} 1",
            "elasticd_fleet_term{provider=\"prod\"} 7",
            "elasticd_fleet_fallback_active{provider=\"prod\"} 0",
            "elasticd_fleet_fallback_polls_total{provider=\"prod\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
        }
    }
}
