//! The result, for people and for programs.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::output::table;
use super::super::printable::printable;
use super::super::seconds::seconds;
use super::diagnosis::{Diagnosis, OfTransport};
use super::examination::Examination;
use super::finding::Finding;
use crate::heartbeat::Timing;

/// All there is to say.
pub(super) struct Report<'r> {
    pub(super) url: String,
    pub(super) diagnosis: &'r Diagnosis,
    pub(super) timing: Timing,
    /// The least idle time-out that a proxy should have.
    pub(super) idle_timeout: Duration,
    pub(super) seen: &'r Examination,
}

impl Report<'_> {
    pub(super) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        if !self.diagnosis.transports.is_empty() {
            writeln!(out)?;
            let rows: Vec<_> = self.diagnosis.transports.iter().map(row).collect();
            let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
            table(out, &["TRANSPORT", "WORKS", "ACK", "HELD", "HEARTBEAT", "FINDINGS"], &rows)?;
        }
        writeln!(out)?;
        for (finding, of) in self.findings() {
            let mark = if finding.is_warning() { "!" } else { "✗" };
            let of = if of.is_empty() { String::new() } else { format!("{}: ", of.join(", ")) };
            writeln!(out, "{mark} {of}{} [{}]", printable(&finding.seen()), finding.code())?;
            writeln!(out, "  {}", printable(&finding.advice(self.idle_timeout)))?;
        }
        let Some(recommended) = self.diagnosis.recommended() else { return writeln!(out, "No transport works.") };
        let how = if self.diagnosis.is_clean() { "works cleanly" } else { "works, but see above" };
        writeln!(out, "Recommended: {}; it {how}.", recommended.transport)?;
        writeln!(
            out,
            "In a proxy: idle time-outs of {} or more. The server shows life over WebSocket every {}, over SSE every {}, \
             and holds a poll for up to 60 s.",
            seconds(self.idle_timeout),
            seconds(self.timing.ping_every),
            seconds(self.timing.comment_every)
        )
    }

    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let findings: Vec<_> = self.findings().into_iter().map(|(finding, of)| self.finding(finding, &of)).collect();
        let transports: Vec<_> = self.diagnosis.transports.iter().map(transport).collect();
        let reached = self.seen.reached.as_ref().ok();
        let head = self.seen.streams.as_ref().and_then(|streams| streams.head());
        let report = json!({
            "url": self.url,
            "addresses": reached.map(|reached| &reached.addresses),
            "tls": reached.map(|reached| reached.tls.is_some()),
            "http2Offered": reached.and_then(|reached| reached.tls).map(|(_, http2)| http2),
            "server": head.and_then(|head| head.server.as_deref()),
            "via": head.and_then(|head| head.via.as_deref()),
            "transports": transports,
            "findings": findings,
            "recommended": self.diagnosis.recommended().map(|of| of.transport.to_string()),
            "clean": self.diagnosis.is_clean(),
            "proxyIdleTimeoutSeconds": self.idle_timeout.as_secs(),
            "heartbeatSeconds": {
                "websocket": self.timing.ping_every.as_secs_f64(),
                "sse": self.timing.comment_every.as_secs_f64(),
            },
        });
        writeln!(out, "{report}")
    }

    fn finding(&self, finding: &Finding, of: &[String]) -> Value {
        json!({
            "code": finding.code(),
            "transports": of,
            "warning": finding.is_warning(),
            "detail": finding.seen(),
            "advice": finding.advice(self.idle_timeout),
        })
    }

    /// Each once, with the transports that have it; general ones with none.
    fn findings(&self) -> Vec<(&Finding, Vec<String>)> {
        let mut found: Vec<(&Finding, Vec<String>)> = self.diagnosis.general.iter().map(|f| (f, Vec::new())).collect();
        for of in &self.diagnosis.transports {
            for finding in &of.findings {
                match found.iter_mut().find(|(known, _)| *known == finding) {
                    Some((_, transports)) => transports.push(of.transport.to_string()),
                    None => found.push((finding, vec![of.transport.to_string()])),
                }
            }
        }
        found
    }
}

fn row(of: &OfTransport) -> Vec<String> {
    let none = || "-".to_owned();
    let works = match (of.ack, of.findings.is_empty()) {
        (Some(_), true) => "yes",
        (Some(_), false) => "with faults",
        (None, _) => "no",
    };
    let codes: Vec<_> = of.findings.iter().map(Finding::code).collect();
    vec![
        of.transport.to_string(),
        works.to_owned(),
        of.ack.map_or_else(none, |ack| format!("{} ms", ack.as_millis())),
        of.held.map_or_else(none, seconds),
        of.beat.map_or_else(none, seconds),
        if codes.is_empty() { none() } else { codes.join(", ") },
    ]
}

fn transport(of: &OfTransport) -> Value {
    json!({
        "transport": of.transport.to_string(),
        "works": of.ack.is_some(),
        "ackMillis": of.ack.map(|ack| ack.as_millis()),
        "heldSeconds": of.held.map(|held| held.as_secs_f64()),
        "heartbeatSeconds": of.beat.map(|beat| beat.as_secs_f64()),
        "findings": of.findings.iter().map(Finding::code).collect::<Vec<_>>(),
    })
}
