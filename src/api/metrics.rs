//! `GET /metrics`: OpenMetrics text, encoded from the reports when asked for. There is no second set of counters.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::{Response, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::Sources;
use super::error::Problem;
use super::respond::{Body, respond_as};
use crate::model::Name;
use crate::model::fleet::{Publishing, Reading};
use crate::{frontend, registry};

/// The media type of OpenMetrics text (OpenMetrics 1.0, "Protocol Negotiation").
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The encoder.
#[derive(Debug)]
pub(super) struct Metrics(Registry);

impl Metrics {
    pub(super) fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Reports(sources)));
        Self(registry)
    }

    /// The answer.
    pub(super) fn answer(&self) -> Result<Response<Body>, Problem> {
        let mut body = String::new();
        text::encode(&mut body, &self.0).map_err(|error| Problem::Internal { why: error.to_string() })?;
        Ok(respond_as(StatusCode::OK, OPEN_METRICS, body))
    }
}

#[derive(Debug)]
struct Reports(Sources);

impl Collector for Reports {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let report = Arc::clone(&self.0.registry.borrow());
        let frontends = Arc::clone(&self.0.frontends.borrow());
        let frontends: Vec<_> = frontends.iter().map(|(name, report)| (name, Arc::clone(&report.borrow()))).collect();
        let mut families = Families(encoder);
        self.elasticd(&mut families)?;
        providers(&mut families, &report)?;
        services(&mut families, &report)?;
        of_frontends(&mut families, &frontends)?;
        let fleet = Arc::clone(&self.0.fleet.borrow());
        if let Some(publisher) = &fleet.publisher {
            publishing(&mut families, &publisher.borrow().clone())?;
        }
        if !fleet.readers.is_empty() {
            let readers: Vec<_> = fleet.readers.iter().map(|(name, report)| (name, report.borrow().clone())).collect();
            reading(&mut families, &readers)?;
        }
        process(&mut families, self.0.started)
    }
}

impl Reports {
    fn elasticd(&self, families: &mut Families<'_>) -> fmt::Result {
        let mut build = families.0.encode_descriptor(
            "elasticd_build",
            "The version of elasticd that runs.",
            None,
            MetricType::Info,
        )?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let ready = u64::from(*self.0.ready.borrow());
        families.gauge("elasticd_ready", "Whether elasticd is ready: 0 or 1.", ready)?;
        let revision = self.0.snapshot.borrow().as_ref().map_or(0, |snapshot| snapshot.revision);
        families.gauge("elasticd_snapshot_revision", "The snapshot's revision; 0 before there is one.", revision)
    }
}

fn providers(families: &mut Families<'_>, report: &registry::Report) -> fmt::Result {
    let mut all = families.labelled("provider", || report.providers.iter());
    all.counters("elasticd_provider_polls", "Polls, failed ones included.", |p| p.polls)?;
    all.counters("elasticd_provider_failures", "Failed polls.", |p| p.failures)?;
    all.counters("elasticd_provider_throttles", "Calls refused because there were too many.", |p| p.throttles)?;
    all.counters("elasticd_provider_calls", "Calls to the source, repeated ones included.", |p| p.calls)?;
    all.counters("elasticd_provider_pages", "Pages the source answered with.", |p| p.pages)?;
    all.gauges("elasticd_provider_instances", "Instances in the last complete answer.", |p| Some(p.instances.len()))?;
    all.gauges(
        "elasticd_provider_last_success_timestamp_seconds",
        "When the provider last answered in full; 0 if it has not since elasticd started.",
        |p| Some(p.last_success.map_or(0.0, unix_seconds)),
    )?;
    all.gauges(
        "elasticd_provider_age_seconds",
        "How old the last complete answer is; absent before the first.",
        |p| p.last_success.map(|at| at.elapsed().unwrap_or_default().as_secs_f64()),
    )?;
    all.gauges("elasticd_provider_poll_duration_seconds", "How long the last poll took.", |p| Some(p.last_duration))
}

fn services(families: &mut Families<'_>, report: &registry::Report) -> fmt::Result {
    let mut all = families.labelled("service", || report.services.iter().map(|(name, report)| (name, &**report)));
    all.gauges("elasticd_service_backends", "Backends in the snapshot; absent while nothing is known.", |s| {
        s.backends
    })?;
    all.gauges("elasticd_service_excluded", "Instances that did not become backends.", |s| Some(s.excluded.count))?;
    all.gauges("elasticd_service_held", "Whether a newly observed set is held back: 0 or 1.", |s| {
        Some(u64::from(s.held().is_some()))
    })?;
    all.gauges(
        "elasticd_service_observed_timestamp_seconds",
        "When the provider heard of longest ago last answered for the service in full; 0 if none has.",
        |s| Some(s.observed().map_or(0.0, unix_seconds)),
    )
}

fn of_frontends(families: &mut Families<'_>, frontends: &[(&Name, Arc<frontend::Report>)]) -> fmt::Result {
    let mut all = families.labelled("frontend", || frontends.iter().map(|(name, report)| (*name, &**report)));
    all.counters("elasticd_frontend_applies", "Attempts that changed a file or asked for a reload.", |f| f.applies)?;
    all.counters("elasticd_frontend_failures", "Attempts that failed.", |f| f.failures)?;
    all.counters("elasticd_frontend_reloads", "Reloads asked for.", |f| f.reloads)?;
    all.counters("elasticd_frontend_told", "Changes told over a runtime API, without a reload.", |f| f.told)?;
    all.gauges(
        "elasticd_frontend_proven_revision",
        "The revision last proven to run; absent before the first.",
        |f| f.proven_revision,
    )?;
    all.gauges("elasticd_frontend_in_sync", "Whether the newest snapshot is proven to run: 0 or 1.", |f| {
        Some(u64::from(f.phase == frontend::Phase::Proven))
    })
}

/// What only publishers have.
fn publishing(families: &mut Families<'_>, report: &Publishing) -> fmt::Result {
    families.gauge("elasticd_fleet_leads", "Whether this publisher leads: 0 or 1.", u64::from(report.leads))?;
    families.counter("elasticd_fleet_takeovers", "How often this publisher took the lead.", report.takeovers)?;
    if let Some(readers) = report.readers {
        families.gauge("elasticd_fleet_readers", "Sidecars that watch the bucket.", readers)?;
    }
    let mut all = families.labelled("provider", || report.providers.iter());
    all.counters("elasticd_publish_polls", "Polls as the leader, failed ones included.", |p| p.polls)?;
    all.counters("elasticd_publish_failures", "Failed polls.", |p| p.failures)?;
    all.counters("elasticd_publish_calls", "Calls to the source, repeated ones included.", |p| p.calls)?;
    all.counters("elasticd_publish_pages", "Pages the source answered with.", |p| p.pages)?;
    all.counters("elasticd_publish_throttles", "Calls refused because there were too many.", |p| p.throttles)?;
    all.counters("elasticd_publish_sets", "Different sets published.", |p| p.sets)?;
    all.counters("elasticd_publish_bytes", "Bytes of sets published.", |p| p.bytes)?;
    all.gauges("elasticd_publish_instances", "Instances in the last complete answer.", |p| Some(p.instances))?;
    all.gauges("elasticd_publish_age_seconds", "How old it is; absent before the first.", |p| {
        p.observed.map(|at| at.elapsed().unwrap_or_default().as_secs_f64())
    })
}

/// What only readers have. How old their sets are is told as of any other provider.
fn reading(families: &mut Families<'_>, readers: &[(&Name, Arc<Reading>)]) -> fmt::Result {
    let mut all = families.labelled("provider", || readers.iter().map(|(name, report)| (*name, &**report)));
    all.gauges("elasticd_fleet_connected", "Whether the bucket is watched: 0 or 1.", |r| Some(u64::from(r.connected)))?;
    all.gauges(
        "elasticd_fleet_term",
        "The term of the leader that published the set; absent before the first.",
        |r| r.position.map(|(term, _)| term),
    )?;
    all.gauges("elasticd_fleet_falls_back", "Whether the fallback is polled, as the fleet is silent: 0 or 1.", |r| {
        Some(u64::from(r.fallback.is_some()))
    })?;
    all.counters("elasticd_fleet_fallback_polls", "Polls of the fallback.", |r| r.fallback_polls)
}

/// What `/proc/self` tells, under the names Prometheus's own clients use.
fn process(families: &mut Families<'_>, started: SystemTime) -> fmt::Result {
    families.gauge("process_start_time_seconds", "When elasticd started.", unix_seconds(started))?;
    // Where /proc is not to be had, these are left out.
    let Ok(myself) = procfs::process::Process::myself() else { return Ok(()) };
    if let Ok(stat) = myself.stat() {
        families.gauge("process_resident_memory_bytes", "Memory in use.", stat.rss * procfs::page_size())?;
        // Ticks of a hundredth of a second: exact as a float for a million years.
        let seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        families.counter("process_cpu_seconds", "Processor time used.", seconds)?;
    }
    match myself.fd_count() {
        Ok(open) => families.gauge("process_open_fds", "Open file descriptors.", open),
        Err(_) => Ok(()),
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Writes metric families.
struct Families<'a>(DescriptorEncoder<'a>);

impl<'a> Families<'a> {
    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter(&value, None::<&Exemplar<[(&str, &str); 0], f64>>)
    }

    fn labelled<'r, R: 'r, I: Iterator<Item = (&'r Name, &'r R)>, F: Fn() -> I>(
        &mut self,
        label: &'static str,
        all: F,
    ) -> Labelled<'_, 'a, F> {
        Labelled { families: self, label, all }
    }
}

/// Writes families with one sample for each of `all`.
struct Labelled<'f, 'a, F> {
    families: &'f mut Families<'a>,
    label: &'static str,
    all: F,
}

impl<'r, R: 'r, I: Iterator<Item = (&'r Name, &'r R)>, F: Fn() -> I> Labelled<'_, '_, F> {
    fn gauges<V: EncodeGaugeValue>(&mut self, name: &str, help: &str, value: impl Fn(&R) -> Option<V>) -> fmt::Result {
        let mut metric = self.families.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, report) in (self.all)() {
            if let Some(value) = value(report) {
                metric.encode_family(&[(self.label, of.as_str())])?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn counters(&mut self, name: &str, help: &str, value: impl Fn(&R) -> u64) -> fmt::Result {
        let mut metric = self.families.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, report) in (self.all)() {
            metric
                .encode_family(&[(self.label, of.as_str())])?
                .encode_counter(&value(report), None::<&Exemplar<[(&str, &str); 0], f64>>)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::watch;

    use super::*;
    use crate::api::status::tests::feeds;
    use crate::model::fleet::Published;

    #[tokio::test]
    async fn encodes_the_reports() {
        let (feeds, sources) = feeds();
        feeds.nginx.send_modify(|report| {
            let report = Arc::make_mut(report);
            (report.phase, report.proven_revision, report.reloads) = (frontend::Phase::Proven, Some(8), 3);
        });
        let response = Metrics::new(sources).answer().expect("an answer");
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
            "elasticd_service_excluded{service=\"web\"} 2",
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
        assert!(!text.contains("elasticd_fleet_"), "it has no part in a fleet");
    }

    #[tokio::test]
    async fn no_family_is_told_twice_and_fleets_have_theirs() {
        let (_feeds, mut sources) = feeds();
        let publishing = Publishing {
            leads: true,
            takeovers: 2,
            readers: Some(300),
            providers: [("prod".parse().expect("a name"), Published { sets: 4, ..Published::default() })].into(),
            ..Publishing::default()
        };
        let reading = Reading { connected: true, position: Some((7, 1)), fallback_polls: 3, ..Reading::default() };
        let fleet = super::super::Fleet {
            publisher: Some(watch::channel(Arc::new(publishing)).1),
            readers: [("prod".parse().expect("a name"), watch::channel(Arc::new(reading)).1)].into(),
        };
        sources.fleet = watch::channel(Arc::new(fleet)).1;
        let response = Metrics::new(sources).answer().expect("an answer");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("UTF-8");
        let mut families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let told = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), told, "{text}");
        for line in [
            "elasticd_fleet_leads 1",
            "elasticd_fleet_takeovers_total 2",
            "elasticd_fleet_readers 300",
            "elasticd_publish_sets_total{provider=\"prod\"} 4",
            "elasticd_fleet_connected{provider=\"prod\"} 1",
            "elasticd_fleet_term{provider=\"prod\"} 7",
            "elasticd_fleet_falls_back{provider=\"prod\"} 0",
            "elasticd_fleet_fallback_polls_total{provider=\"prod\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
        }
    }
}
