//! From what was seen to what is wrong: pure, and careful to blame nobody without a reason.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::super::exit::Exit;
use super::examination::{Examination, Streams};
use super::finding::Finding;
use crate::client::Transport;
use crate::client::probe::{Credential, Ending, Head, Polled, Reached, Sign, Unopened, Unreached, Watched, Why};
use crate::heartbeat::Timing;

/// What is later than it should be by less than this is a busy machine's or a slow line's fault, not a proxy's.
const SLACK: Duration = Duration::from_secs(2);
/// Clocks that are no further apart than this agree.
const SKEW_S_MAX: i64 = 5;
/// The close code of a server that saw no sign of life.
const NO_LIFE: u16 = 1011;

/// What is wrong, in all and by transport.
#[derive(Debug)]
pub(super) struct Diagnosis {
    /// What no transport is alone with.
    pub(super) general: Vec<Finding>,
    /// In the order of preference; empty if the server was not reached or refused the key.
    pub(super) transports: Vec<OfTransport>,
}

/// One transport.
#[derive(Debug)]
pub(super) struct OfTransport {
    pub(super) transport: Transport,
    /// When its acknowledgement came, if one did.
    pub(super) ack: Option<Duration>,
    /// For how long it held.
    pub(super) held: Option<Duration>,
    /// The longest time between two heartbeats of the server that were seen.
    pub(super) beat: Option<Duration>,
    pub(super) findings: Vec<Finding>,
}

impl OfTransport {
    fn is_clean(&self) -> bool {
        self.ack.is_some() && self.findings.is_empty()
    }
}

impl Diagnosis {
    /// The first that works cleanly, else the first that works at all.
    pub(super) fn recommended(&self) -> Option<&OfTransport> {
        let clean = self.transports.iter().find(|of| of.is_clean());
        clean.or_else(|| self.transports.iter().find(|of| of.ack.is_some()))
    }

    pub(super) fn is_clean(&self) -> bool {
        self.general.iter().all(Finding::is_warning) && self.recommended().is_some_and(OfTransport::is_clean)
    }

    pub(super) fn exit(&self) -> Exit {
        let of_transports = self.transports.iter().flat_map(|of| &of.findings);
        match self.recommended() {
            Some(_) if self.is_clean() => Exit::Ok,
            Some(_) => Exit::Failure,
            None => {
                let faults = self.general.iter().filter(|finding| !finding.is_warning()).chain(of_transports);
                faults.map(Finding::exit).find(|exit| *exit != Exit::Failure).unwrap_or(Exit::Failure)
            }
        }
    }
}

/// What it means.
pub(super) fn diagnose(seen: &Examination, timing: &Timing, idle: Duration) -> Diagnosis {
    let mut general = Vec::from_iter(reaching(&seen.reached));
    let Some(streams) = &seen.streams else { return Diagnosis { general, transports: Vec::new() } };
    if streams.credential == Credential::Bearer {
        general.push(Finding::ApiKeyStripped);
    }
    general.extend(clock_skew(streams));
    if let Some(expelled) = expelled(streams) {
        // All that ended with it has no other cause to be looked for.
        general.push(expelled);
        return Diagnosis { general, transports: Vec::new() };
    }
    let (Some(websocket), Some(sse)) = (&streams.websocket, &streams.sse) else {
        general.extend(streams.opening.as_ref().err().map(|unopened| unopened_finding(Transport::LongPoll, unopened)));
        return Diagnosis { general, transports: Vec::new() };
    };
    let round_trip = streams.opening.as_ref().map_or(Duration::ZERO, |polled| polled.took);
    let asked = streams.ack().is_some_and(|ack| ack.position.is_some());
    let of = |transport, every, seen| stream(&Expected { transport, every, idle, round_trip, asked }, seen);
    let transports = vec![
        of(Transport::WebSocket, timing.ping_every, websocket),
        of(Transport::Sse, timing.comment_every, sse),
        long_poll(streams),
    ];
    Diagnosis { general, transports }
}

fn reaching(reached: &Result<Reached, Unreached>) -> Option<Finding> {
    match reached {
        Err(unreached) => Some(Finding::Unreached(unreached.clone())),
        Ok(reached) if reached.silent.is_empty() => None,
        Ok(Reached { silent, address, .. }) => {
            Some(Finding::AddressSilent { silent: silent.clone(), reached: *address })
        }
    }
}

/// What a server says that no longer wants this gateway, or this key, while it is watched.
fn expelled(streams: &Streams) -> Option<Finding> {
    let watched = [&streams.websocket, &streams.sse].into_iter().filter_map(|seen| seen.as_ref()?.as_ref().ok());
    watched.filter_map(|watched| watched.end.as_ref()).find_map(|end| match &end.why {
        Why::Expelled { code, detail } => Some(expulsion(code, detail)),
        _ => None,
    })
}

fn expulsion(code: &str, detail: &str) -> Finding {
    match code {
        "UNAUTHORIZED" | "TOKEN_REVOKED" | "TOKEN_EXPIRED" => Finding::KeyRefused,
        _ => Finding::Refused { status: None, code: code.to_owned(), detail: detail.to_owned() },
    }
}

fn clock_skew(streams: &Streams) -> Option<Finding> {
    let polled = streams.opening.as_ref().ok()?;
    let took_s = i64::try_from(polled.took.as_secs()).unwrap_or(i64::MAX);
    let skew = |there: DateTime<Utc>| {
        // Written somewhere between the request and the end of its answer.
        let ahead_s = (there - streams.answered_at).num_seconds();
        (ahead_s > SKEW_S_MAX || ahead_s + took_s < -SKEW_S_MAX).then_some(ahead_s)
    };
    let own = streams.ack().and_then(|ack| DateTime::parse_from_rfc3339(&ack.timestamp).ok());
    if let Some(ahead_s) = own.and_then(|own| skew(own.to_utc())) {
        return Some(Finding::ClockSkew { ahead_s, whose: "the server's clock".to_owned() });
    }
    let ahead_s = polled.head.date.and_then(skew)?;
    Some(Finding::ClockSkew { ahead_s, whose: format!("the Date header of {}", author(&polled.head)) })
}

/// What a stream should do.
struct Expected {
    transport: Transport,
    /// The server's heartbeats.
    every: Duration,
    idle: Duration,
    /// What a request takes here.
    round_trip: Duration,
    /// It was asked to go on after a position.
    asked: bool,
}

fn stream(expected: &Expected, seen: &Result<Watched, Unopened>) -> OfTransport {
    let transport = expected.transport;
    let watched = match seen {
        Ok(watched) => watched,
        Err(unopened) => {
            let findings = vec![unopened_finding(transport, unopened)];
            return OfTransport { transport, ack: None, held: None, beat: None, findings };
        }
    };
    let ack = watched.signs.iter().find_map(|(at, sign)| match sign {
        Sign::Ack(ack) => Some((*at, ack)),
        _ => None,
    });
    let mut findings = Vec::new();
    if let Some(encoding) = watched.head.encoding.clone().filter(|encoding| encoding != "identity") {
        findings.push(Finding::Compressed { encoding, by: author(&watched.head) });
    } else {
        let end = watched.end.as_ref().map(|end| ended(expected, watched, end));
        let is_over = end.is_some();
        findings.extend(end);
        match ack {
            Some((at, ack)) => {
                findings.extend(late_ack(expected, at));
                let resumed = ack.resume.as_deref() != Some("live");
                findings.extend((expected.asked && !resumed).then_some(Finding::CursorStripped));
                if findings.is_empty() {
                    findings.extend(heartbeat(expected, watched));
                }
            }
            None if !is_over => findings.push(Finding::HeldBack { first: None, waited: watched.held }),
            None => {}
        }
    }
    let ack = ack.map(|(at, _)| at);
    OfTransport { transport, ack, held: Some(watched.held), beat: longest_beat(watched), findings }
}

fn late_ack(expected: &Expected, at: Duration) -> Option<Finding> {
    // A stream dials anew: some round trips more than the poll's own.
    let late = at > expected.round_trip * 4 + SLACK;
    late.then_some(Finding::HeldBack { first: Some(at), waited: at })
}

fn heartbeat(expected: &Expected, watched: &Watched) -> Option<Finding> {
    let every = expected.every;
    let is_websocket = expected.transport == Transport::WebSocket;
    let has = |wanted: fn(&Sign) -> bool| watched.signs.iter().any(|(_, sign)| wanted(sign));
    if is_websocket && expected.idle > SLACK && !has(|sign| matches!(sign, Sign::Pong)) {
        return Some(Finding::PingsDropped { gap: None, every });
    }
    // Only pings keep a gateway; over SSE whatever comes shows that nothing is gathered.
    let shows_life = |sign: &Sign| !is_websocket || matches!(sign, Sign::Ack(_) | Sign::Beat);
    let life = watched.signs.iter().filter(|(_, sign)| shows_life(sign)).map(|(at, _)| *at);
    let gap = gaps(life.chain([watched.held])).max()?;
    if gap <= every + SLACK {
        return None;
    }
    Some(if is_websocket {
        Finding::PingsDropped { gap: Some(gap), every }
    } else {
        Finding::BeatsHeldBack { gap, every }
    })
}

fn gaps(times: impl Iterator<Item = Duration>) -> impl Iterator<Item = Duration> {
    times
        .scan(None, |last: &mut Option<Duration>, at| Some(last.replace(at).map(|last| at.saturating_sub(last))))
        .flatten()
}

fn longest_beat(watched: &Watched) -> Option<Duration> {
    gaps(watched.signs.iter().filter(|(_, sign)| matches!(sign, Sign::Ack(_) | Sign::Beat)).map(|(at, _)| *at)).max()
}

fn ended(expected: &Expected, watched: &Watched, end: &Ending) -> Finding {
    let last = watched.signs.last().map_or(Duration::ZERO, |(at, _)| *at);
    if watched.signs.iter().any(|(_, sign)| matches!(sign, Sign::Goodbye)) {
        return Finding::Drained;
    }
    match &end.why {
        Why::Altered(what) => Finding::Altered(what.clone()),
        Why::Expelled { code, detail } => expulsion(code, detail),
        Why::Closed { code: NO_LIFE, .. } if watched.signs.iter().any(|(_, sign)| matches!(sign, Sign::Beat)) => {
            Finding::PongsDropped { after: end.at }
        }
        // It asked, and we never heard.
        Why::Closed { code: NO_LIFE, .. } => Finding::PingsDropped { gap: Some(end.at), every: expected.every },
        Why::Closed { code, reason } => cut(watched, end.at, last, format!("closed with {code} {reason}")),
        Why::Lost(reason) => cut(watched, end.at, last, reason.clone()),
    }
}

fn cut(watched: &Watched, at: Duration, last: Duration, reason: String) -> Finding {
    if watched.signs.is_empty() {
        return Finding::Broken { after: at, reason };
    }
    Finding::Cut { at, silence: at.saturating_sub(last), reason }
}

fn long_poll(streams: &Streams) -> OfTransport {
    let transport = Transport::LongPoll;
    let (mut findings, mut held, mut ack) = (Vec::new(), None, None);
    match &streams.opening {
        Ok(polled) if polled.ack.is_some() => ack = Some(polled.took),
        Ok(_) => findings.push(Finding::Altered("the first poll has no acknowledgement".to_owned())),
        Err(unopened) => findings.push(unopened_finding(transport, unopened)),
    }
    findings.extend((streams.cursor_arrives == Some(false)).then_some(Finding::CursorStripped));
    for (may_take, polled) in &streams.polls {
        match polled {
            Ok(polled) => held = held.max(Some(polled.took)),
            Err(Unopened::Cut { after, .. } | Unopened::Late { after }) => held = held.max(Some(*after)),
            Err(_) => {}
        }
        findings.extend(poll(*may_take, polled));
    }
    OfTransport { transport, ack, held, beat: None, findings }
}

fn poll(held: Duration, polled: &Result<Polled, Unopened>) -> Option<Finding> {
    match polled {
        Ok(polled) if polled.goodbye => Some(Finding::Drained),
        Ok(polled) if polled.has_events => None,
        Ok(polled) if polled.took + Duration::from_secs(1) < held => {
            Some(Finding::PollEarly { after: polled.took, held })
        }
        // A request dials anew now and then.
        Ok(polled) if polled.took > held + SLACK * 2 => Some(Finding::PollLate { after: polled.took, held }),
        Ok(_) => None,
        Err(Unopened::Late { after }) => Some(Finding::PollLate { after: *after, held }),
        Err(Unopened::Cut { after, reason }) => Some(Finding::PollCut { after: *after, held, reason: reason.clone() }),
        Err(Unopened::Refused(head)) if head.code.is_none() && matches!(head.status, 408 | 499 | 502..=504) => {
            let reason = format!("{} from {}", head.status, author(head));
            Some(Finding::PollCut { after: head.took, held, reason })
        }
        Err(unopened) => Some(unopened_finding(Transport::LongPoll, unopened)),
    }
}

fn unopened_finding(transport: Transport, unopened: &Unopened) -> Finding {
    match unopened {
        Unopened::Refused(head) => refused(transport, head),
        Unopened::NotHttp => Finding::NotHttp,
        Unopened::Altered(what) => Finding::Altered(what.clone()),
        Unopened::Cut { after, reason } => Finding::Broken { after: *after, reason: reason.clone() },
        Unopened::Late { after } => Finding::HeldBack { first: None, waited: *after },
    }
}

fn refused(transport: Transport, head: &Head) -> Finding {
    let (status, by) = (head.status, author(head));
    let is_websocket = transport == Transport::WebSocket;
    match (&head.code, status) {
        (Some(_), 401) => Finding::KeyRefused,
        (Some(_), 426) if is_websocket => Finding::UpgradeStripped,
        (Some(code), 429 | 503) => Finding::Busy { code: code.clone(), retry_after: head.retry_after },
        (Some(code), _) => Finding::Refused { status: Some(status), code: code.clone(), detail: head.detail.clone() },
        (None, 300..=399) => {
            Finding::Redirected { status, to: head.location.clone().unwrap_or_else(|| "nowhere".to_owned()), by }
        }
        (None, 502..=504) => Finding::NothingBehind { status, by },
        (None, 200 | 404) => Finding::NotGatecast { status, by },
        (None, _) if is_websocket => Finding::UpgradeRefused { status, by },
        (None, 401 | 403 | 407 | 429 | 451) => Finding::Blocked { status, by },
        (None, _) => Finding::NotGatecast { status, by },
    }
}

/// Who wrote an answer, as far as it says.
fn author(head: &Head) -> String {
    match (&head.server, &head.via) {
        (Some(server), Some(via)) => format!("{server} (via {via})"),
        (Some(server), None) => server.clone(),
        (None, Some(via)) => format!("a proxy ({via})"),
        (None, None) if head.code.is_some() => "the server".to_owned(),
        (None, None) => "something that does not say its name".to_owned(),
    }
}
