//! What Prometheus scrapes from `/metrics` (CONTRACT.md § 9).
//!
//! Nearly all of it is looked up when it is asked for: in the registry, the log, the receipts, the failed deliveries.
//! Counted is only what leaves no trace, by the part that sees it: `traffic` (what each transport carried),
//! [`Tails`] (events appended), [`Publisher`] (how long an append takes),
//! [`Reports`]. Counts begin at 0 with the process.
//!
//! - Labels are transports, reasons and statuses, all of them few and fixed, and the ten gateways that are furthest
//!   behind (`behind`): a page has at most some 30 KB, whatever is connected.
//! - The text is written here (`text`), not by a metrics library: those want to own the numbers, and the well-kept one
//!   (`prometheus-client`) takes a lock to observe a histogram, once per delivery.

mod behind;
mod histogram;
mod process;
mod refusals;
mod text;
mod traffic;

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use gatecast_storage::{
    Clock, Condition, Deliveries, Directory, EventLog, FailureReason, Receipts, Records, Retention,
};

use self::behind::{Behind, Sources};
use self::process::Process;
use self::text::Text;
use crate::certificate::Expiry;
use crate::publish::Publisher;
use crate::receipts::Reports;
use crate::registry::Registry;
use crate::tail::Tails;
use crate::traces::Tracer;

pub(crate) use self::histogram::{Histogram, Snapshot};
pub use self::refusals::Refusals;
pub(crate) use self::text::MEDIA_TYPE;
pub(crate) use self::traffic::{Carried, Live, Traffic};

/// Where all that is measured is to be had.
pub struct Metrics {
    /// Who is connected, and what went over their connections.
    pub registry: Arc<Registry>,
    /// The write path.
    pub publisher: Arc<Publisher>,
    /// Makes spans.
    pub tracer: Arc<Tracer>,
    /// Hears of every append.
    pub tails: Arc<Tails>,
    /// What gateways reported.
    pub reports: Arc<Reports>,
    /// How far replicas are.
    pub receipts: Arc<Receipts>,
    /// What could not be handed over.
    pub deliveries: Arc<Deliveries>,
    /// Registered gateways.
    pub directory: Arc<Directory>,
    /// The gateways' logs.
    pub log: Arc<dyn EventLog>,
    /// How much of each log is kept.
    pub retention: Retention,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// The stores, for what they can do now.
    pub stores: [Arc<dyn Records>; 2],
    /// Calls that were refused.
    pub refusals: Refusals,
    /// Where the store is, if it is on disk.
    pub store_dir: Option<PathBuf>,
    /// When the certificate in use ends; `None` without TLS.
    pub certificate: Option<Arc<Expiry>>,
    /// When the process started.
    pub started_at: DateTime<Utc>,
}

impl Metrics {
    /// The page, in Prometheus's text format.
    pub(crate) async fn page(&self) -> String {
        let mut text = Text::default();
        self.connections(&mut text);
        self.events(&mut text);
        self.trouble(&mut text);
        self.behind(&mut text).await;
        self.store(&mut text);
        self.certificate(&mut text);
        self.traces(&mut text);
        self.process(&mut text).await;
        text.into_string()
    }

    /// What the stores can do now: no more than the worst of them.
    pub(crate) fn condition(&self) -> Condition {
        let conditions = self.stores.each_ref().map(|store| store.condition());
        let worst = [Condition::Broken, Condition::Full].into_iter().find(|bad| conditions.contains(bad));
        worst.unwrap_or(Condition::Serving)
    }

    fn connections(&self, text: &mut Text) {
        let (traffic, open) = (self.registry.traffic.all(), self.registry.by_transport());
        let mut family = text.gauge("gatecast_connections", "Live connections of gateways.");
        for transport in traffic.keys() {
            family.sample(&[("transport", transport)], open.get(transport).unwrap_or(&0));
        }
        text.gauge("gatecast_connections_max", "Connections that there may be at once.")
            .sample(&[], self.registry.connections_max());
        let mut family =
            text.counter("gatecast_connection_attempts_total", "Attempts to connect, admitted or refused.");
        for (transport, carried) in &traffic {
            family.sample(&[("transport", transport)], carried.attempts_total());
        }
        let mut family = text.counter(
            "gatecast_connections_refused_total",
            "Attempts to connect that were refused, by the code of the answer.",
        );
        for (transport, carried) in &traffic {
            for (reason, count) in carried.refusals() {
                family.sample(&[("transport", transport), ("reason", reason)], count);
            }
        }
        let mut family = text.counter(
            "gatecast_connections_ended_total",
            "Connections that ended, by reason; no-sign-of-life is a missed heartbeat.",
        );
        for (transport, carried) in &traffic {
            for (reason, count) in carried.ends() {
                family.sample(&[("transport", transport), ("reason", reason)], count);
            }
        }
        text.gauge("gatecast_gateways", "Registered gateways.").sample(&[], self.directory.gateway_count());
    }

    fn events(&self, text: &mut Text) {
        let traffic = self.registry.traffic.all();
        text.counter("gatecast_events_appended_total", "Events stored durably.")
            .sample(&[], self.tails.appended_total());
        text.histogram("gatecast_append_seconds", "From an event's publish being accepted to it being stored durably.")
            .distribution(&[], &self.publisher.append_seconds().snapshot());
        let mut family = text.counter(
            "gatecast_events_delivered_total",
            "Events written to connections: live ones were published while the connection was there, replayed ones before.",
        );
        for (transport, carried) in &traffic {
            family.sample(&[("transport", transport), ("kind", "live")], carried.delivery.count());
            family.sample(&[("transport", transport), ("kind", "replayed")], carried.replayed_total());
        }
        let mut family =
            text.counter("gatecast_delivered_bytes_total", "Bytes of the events written, without frames and TLS.");
        for (transport, carried) in &traffic {
            family.sample(&[("transport", transport)], carried.bytes_total());
        }
        let mut family = text.histogram(
            "gatecast_delivery_seconds",
            "From a live event's publish being accepted to a connection's socket having taken it; events of one write count as its oldest.",
        );
        for (transport, carried) in &traffic {
            family.distribution(&[("transport", transport)], &carried.delivery.snapshot());
        }
        let heard = self.reports.heard();
        let confirmed: u64 = traffic.values().map(|carried| carried.confirmed_total()).sum();
        text.counter("gatecast_receipts_total", "Receipts of gateways; pongs and cursors of polls count as received.")
            .sample(&[("status", "received")], heard.received + confirmed)
            .sample(&[("status", "applied")], heard.applied)
            .sample(&[("status", "failed")], heard.failed)
            .sample(&[("status", "ignored")], self.reports.ignored());
    }

    fn trouble(&self, text: &mut Text) {
        let traffic = self.registry.traffic.all();
        let mut family = text
            .counter("gatecast_stream_resets_total", "Connections that could not go on at their cursor, by reason.");
        for (transport, carried) in &traffic {
            for (reason, resets) in carried.resets() {
                family.sample(&[("transport", transport), ("reason", reason)], resets.count);
            }
        }
        let mut family =
            text.counter("gatecast_events_lost_total", "Events that resets said will never come to their connection.");
        for (transport, carried) in &traffic {
            let lost: u64 = carried.resets().values().map(|resets| resets.lost).sum();
            family.sample(&[("transport", transport)], lost);
        }
        let failed = self.deliveries.totals();
        let mut family = text.counter("gatecast_deliveries_failed_total", "Failed deliveries, by reason.");
        for reason in FailureReason::ALL {
            family.sample(&[("reason", reason.as_str())], failed.of(reason));
        }
    }

    /// What publishers and operators are refused, and whether that is for the store.
    fn store(&self, text: &mut Text) {
        let mut family = text.counter(
            "gatecast_api_refusals_total",
            "API calls, and elements of calls to many, that were refused, by the code of the answer.",
        );
        for (code, count) in self.refusals.all() {
            family.sample(&[("code", code)], count);
        }
        let now = self.condition();
        let mut family = text.gauge(
            "gatecast_store_state",
            "1 for what the store can do now: all (serving), read only (full), or not all until a restart (broken).",
        );
        for (state, of) in [("serving", Condition::Serving), ("full", Condition::Full), ("broken", Condition::Broken)] {
            family.sample(&[("state", state)], u8::from(of == now));
        }
    }

    /// The gateways that are furthest behind, and how many there are.
    pub(crate) async fn gateways_behind(&self) -> Behind {
        let sources = Sources {
            directory: &self.directory,
            registry: &self.registry,
            deliveries: &self.deliveries,
            receipts: &self.receipts,
            log: self.log.as_ref(),
            retention: self.retention,
            clock: self.clock.as_ref(),
        };
        sources.behind().await
    }

    async fn behind(&self, text: &mut Text) {
        let behind = self.gateways_behind().await;
        text.gauge("gatecast_gateways_behind", "Gateways with events that a replica has not got yet.")
            .sample(&[], behind.gateways);
        let mut family = text.gauge(
            "gatecast_gateway_lag_events",
            "Events after the position of the replica furthest behind, of the ten gateways furthest behind.",
        );
        for laggard in &behind.furthest {
            family.sample(&[("gateway_id", &laggard.gateway.to_string())], laggard.events);
        }
        let mut family = text.gauge(
            "gatecast_gateway_time_to_gap_seconds",
            "How long until that replica loses an event, at the present pace, of the same gateways.",
        );
        for laggard in &behind.furthest {
            if let Some(seconds) = laggard.time_to_gap_seconds {
                family.sample(&[("gateway_id", &laggard.gateway.to_string())], seconds);
            }
        }
    }

    fn certificate(&self, text: &mut Text) {
        let mut family = text.gauge(
            "gatecast_certificate_expiration_timestamp_seconds",
            "When the server's certificate expires, since the epoch; nothing without TLS.",
        );
        if let Some(at) = self.certificate.as_ref().and_then(|certificate| certificate.at()) {
            family.sample(&[], at.timestamp());
        }
    }

    fn traces(&self, text: &mut Text) {
        text.counter("gatecast_spans_total", "Spans of traces, by whether the collector took them.")
            .sample(&[("outcome", "exported")], self.tracer.exported_total())
            .sample(&[("outcome", "dropped")], self.tracer.dropped_total());
    }

    async fn process(&self, text: &mut Text) {
        let dir = self.store_dir.clone();
        let looked = tokio::task::spawn_blocking(move || (dir.map(|dir| process::bytes_in(&dir)), Process::now()));
        // It fails only if the runtime shuts down; the page then shows nothing of these.
        let (store_bytes, process) = looked.await.unwrap_or_default();
        let mut family = text.gauge("gatecast_store_bytes", "Bytes of the store's files on disk.");
        if let Some(bytes) = store_bytes {
            family.sample(&[], bytes);
        }
        let mut family = text.gauge("process_resident_memory_bytes", "Resident memory.");
        if let Some(bytes) = process.resident_bytes {
            family.sample(&[], bytes);
        }
        let mut family = text.gauge("process_open_fds", "Open file descriptors.");
        if let Some(fds) = process.open_fds {
            family.sample(&[], fds);
        }
        let mut family = text.counter("process_cpu_seconds_total", "User and system time.");
        if let Some(seconds) = process.cpu_seconds {
            family.sample(&[], seconds);
        }
        text.gauge("process_start_time_seconds", "When the process started, since the epoch.")
            .sample(&[], self.started_at.timestamp());
        text.gauge("gatecast_build_info", "The version that runs.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    }
}
