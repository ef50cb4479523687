//! Sends spans to a collector: OTLP over HTTP, as JSON (opentelemetry.io, OTLP specification § OTLP/HTTP).
//!
//! A batch is at most [`BATCH_SPANS_MAX`] spans, sent a second after its first span at the latest. What is refused for
//! now (429, 502, 503, 504, no answer) is sent again up to [`TRIES_MAX`] times, after a growing and jittered pause or the
//! one that the collector asks for (`Retry-After`); meanwhile the queue fills up and then drops. What it takes in part
//! (`partialSuccess`) is not sent again. At the end each batch is tried once, all of them within
//! [`LAST_TRIES`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gatecast_storage::Clock;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::Tracer;
use super::partial::Partial;
use super::span::{Span, request};
use crate::client::{Backoff, BackoffBounds, LinkError, client_config, http_client, retry_after};
use crate::config::TraceExport;

/// The default of the OpenTelemetry SDKs (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
const BATCH_SPANS_MAX: usize = 512;
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// As `OTEL_EXPORTER_OTLP_TIMEOUT`'s default.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const TRIES_MAX: u32 = 5;
/// What the pauses between tries grow from and to.
const PAUSES: BackoffBounds = BackoffBounds { first: Duration::from_secs(1), most: Duration::from_secs(16) };
/// A collector that is gone does not hold up the end of the process for longer.
const LAST_TRIES: Duration = Duration::from_secs(2);

/// The way to a collector.
pub struct Exporter {
    tracer: Arc<Tracer>,
    spans: mpsc::Receiver<Span>,
    /// What is to be sent next: kept until it was taken or is dropped.
    batch: Vec<Span>,
    to: TraceExport,
    http: reqwest::Client,
    /// The last batch was not taken; for the log.
    is_failing: bool,
}

/// An exporter cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be exported: {0}")]
pub struct ExportError(#[from] LinkError);

/// How a try ended.
enum Tried {
    /// All but so many, which are not to be sent again.
    Taken(Partial),
    /// It may be otherwise next time, after this if the collector says so.
    NotNow(String, Option<Duration>),
    Refused(StatusCode),
}

impl Exporter {
    /// An exporter, and the tracer whose spans it sends.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(to: TraceExport, clock: Arc<dyn Clock>) -> Result<(Arc<Tracer>, Self), ExportError> {
        let tls = client_config(&to.trust, None).map_err(LinkError::from)?;
        let http = http_client(&tls).map_err(LinkError::from)?;
        let (tracer, spans) = Tracer::new(clock);
        Ok((tracer.clone(), Self { tracer, spans, batch: Vec::new(), to, http, is_failing: false }))
    }

    /// Sends until `stop`, then what is left.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let batch_and_send = async {
                self.fill().await;
                self.send().await;
            };
            if stop.run_until_cancelled(batch_and_send).await.is_none() {
                break;
            }
        }
        let end = Instant::now() + LAST_TRIES;
        loop {
            while self.batch.len() < BATCH_SPANS_MAX
                && let Ok(span) = self.spans.try_recv()
            {
                self.batch.push(span);
            }
            if self.batch.is_empty() {
                return;
            }
            match timeout_at(end, self.post()).await {
                Ok(Tried::Taken(partial)) => self.taken(&partial),
                _ => self.drop_batch("the server stops"),
            }
        }
    }

    /// Waits for a span and what follows it.
    async fn fill(&mut self) {
        // The tracer, so a sender, lives as long as this.
        self.batch.extend(self.spans.recv().await);
        let end = Instant::now() + BATCH_EVERY;
        while self.batch.len() < BATCH_SPANS_MAX {
            match timeout_at(end, self.spans.recv()).await {
                Ok(Some(span)) => self.batch.push(span),
                _ => break,
            }
        }
    }

    async fn send(&mut self) {
        let mut pauses = Backoff::new(PAUSES, Uuid::new_v4().as_u64_pair().0);
        for attempt in 1..=TRIES_MAX {
            let tried = timeout(ANSWER_WITHIN, self.post()).await;
            match tried.unwrap_or_else(|_| Tried::NotNow("no answer in time".to_owned(), None)) {
                Tried::Taken(partial) => return self.taken(&partial),
                Tried::NotNow(why, asked) if attempt < TRIES_MAX => {
                    self.failing(&why);
                    tokio::time::sleep(pauses.wait(asked)).await;
                }
                Tried::NotNow(why, _) => self.drop_batch(&why),
                Tried::Refused(status) => return self.drop_batch(status.as_str()),
            }
        }
    }

    async fn post(&self) -> Tried {
        let body = request(&self.to.service, &self.batch);
        let post = self.http.post(self.to.url.clone()).headers(self.to.headers.clone());
        match post.header(CONTENT_TYPE, "application/json").body(body).send().await {
            Ok(answer) if answer.status().is_success() => Tried::Taken(Partial::of(answer).await),
            Ok(answer) => match answer.status() {
                status @ (StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT) => Tried::NotNow(status.to_string(), retry_after(answer.headers())),
                status => Tried::Refused(status),
            },
            Err(error) => Tried::NotNow(error.without_url().to_string(), None),
        }
    }

    fn taken(&mut self, but: &Partial) {
        let sent = self.batch.len() as u64;
        let rejected = but.rejected.min(sent);
        self.tracer.exported.fetch_add(sent - rejected, Ordering::Relaxed);
        self.tracer.dropped.fetch_add(rejected, Ordering::Relaxed);
        self.batch.clear();
        if rejected > 0 || !but.message.is_empty() {
            warn!(spans = rejected, why = ?but.message, "The collector did not take all spans as they are.");
        }
        if std::mem::replace(&mut self.is_failing, false) {
            info!("The collector takes traces again.");
        }
    }

    fn drop_batch(&mut self, why: &str) {
        self.tracer.dropped.fetch_add(self.batch.len() as u64, Ordering::Relaxed);
        self.batch.clear();
        self.failing(why);
    }

    fn failing(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(url = %self.to.url, why, "The collector does not take traces; they are dropped once the queue is full.");
        }
    }
}

#[cfg(test)]
mod tests {
    use gatecast_storage::ManualClock;
    use http::HeaderMap;
    use tokio::net::TcpListener;

    use super::*;
    use crate::client::Trust;
    use crate::traceparent::TraceParent;

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_never_answers_holds_the_end_up_once_and_not_for_each_batch() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = TraceExport {
            url: format!("http://{}/v1/traces", silent.local_addr().unwrap()).parse().unwrap(),
            headers: HeaderMap::new(),
            trust: Trust::Anyone,
            service: "test".to_owned(),
        };
        let (tracer, exporter) = Exporter::new(to, Arc::new(ManualClock::default())).unwrap();
        let context: TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        for _ in 0..3 * BATCH_SPANS_MAX {
            drop(tracer.publishing(Some(&context), &"api.deployed".parse().unwrap()));
        }
        let stop = CancellationToken::new();
        stop.cancel();
        let before = Instant::now();
        exporter.run(stop).await;
        assert!(before.elapsed() < LAST_TRIES + Duration::from_secs(1), "{:?}", before.elapsed());
        assert_eq!((tracer.exported_total(), tracer.dropped_total()), (0, 3 * BATCH_SPANS_MAX as u64));
    }
}
