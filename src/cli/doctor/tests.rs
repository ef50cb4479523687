//! Findings that no injected fault of `it::doctor` brings about, from what was seen to what is said.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::super::exit::Exit;
use super::diagnosis::{Diagnosis, diagnose};
use super::examination::{Examination, Streams};
use super::finding::Finding;
use crate::client::Ack;
use crate::client::probe::{
    Credential, Ending, Head, Polled, Reached, Sign, TlsFault, Unopened, Unreached, Watched, Why,
};
use crate::heartbeat::Timing;

const IDLE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(50);

/// A clean path, as it is seen.
fn clean() -> Streams {
    let now = DateTime::UNIX_EPOCH;
    let ack = Ack {
        gateway_id: String::new(),
        connection_id: String::new(),
        timestamp: now.to_rfc3339(),
        position: Some("6f3a9c21-1".to_owned()),
        resume: Some("live".to_owned()),
        transport: None,
        raw: String::new(),
    };
    let resumed = Ack { resume: Some("resumed".to_owned()), ..ack.clone() };
    let signs = vec![(SOON, Sign::Ack(Box::new(resumed))), (SOON, Sign::Pong)];
    let watched = Watched { signs, held: IDLE, ..Watched::default() };
    Streams {
        credential: Credential::ApiKey,
        opening: Ok(Polled { ack: Some(ack), ..polled(SOON) }),
        answered_at: now,
        cursor_arrives: Some(true),
        polls: vec![(IDLE, Ok(polled(IDLE)))],
        websocket: Some(Ok(watched.clone())),
        sse: Some(Ok(watched)),
    }
}

fn polled(took: Duration) -> Polled {
    let head = Head { status: 200, ..Head::default() };
    Polled { head, took, connection: None, cursor: None, ack: None, goodbye: false, has_events: false }
}

fn of(streams: Streams) -> Diagnosis {
    at(Vec::new(), streams)
}

/// Reached at an address of a name that has these others, which are silent.
fn at(silent: Vec<IpAddr>, streams: Streams) -> Diagnosis {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let addresses = [&silent[..], &[address]].concat();
    let reached = Reached { addresses, address, silent, tcp: SOON, tls: None };
    let seen = Examination { reached: Ok(reached), streams: Some(streams) };
    diagnose(&seen, &Timing::new(Duration::from_secs(30)), IDLE)
}

/// What is found in general, then of websocket, sse and long-poll.
fn codes(diagnosis: &Diagnosis) -> Vec<Vec<&'static str>> {
    let of_transports = diagnosis.transports.iter().map(|of| &of.findings);
    [&diagnosis.general]
        .into_iter()
        .chain(of_transports)
        .map(|all| all.iter().map(|one| one.code()).collect())
        .collect()
}

fn refused(status: u16, code: Option<&str>) -> Unopened {
    let retry_after = Some(Duration::from_secs(2));
    Unopened::Refused(Box::new(Head { status, code: code.map(str::to_owned), retry_after, ..Head::default() }))
}

/// A stream that ended so, right after its first messages.
fn ended(signs: &[Sign], why: Why) -> Watched {
    let mut watched = clean().sse.unwrap().unwrap();
    watched.signs.extend(signs.iter().map(|sign| (SOON * 2, sign.clone())));
    Watched { end: Some(Ending { at: SOON * 3, why }), held: SOON * 3, ..watched }
}

#[test]
fn a_clean_path_is_clean() {
    let diagnosis = of(clean());
    assert_eq!(codes(&diagnosis), [[""; 0]; 4]);
    assert_eq!(diagnosis.exit(), Exit::Ok);
}

#[test]
fn a_port_that_is_not_reached_is_told_by_how_it_is_not() {
    let address = || "192.0.2.1:443".to_owned();
    for (unreached, code) in [
        (Unreached::Silent { address: address(), after: IDLE }, "tcp-silent"),
        (Unreached::Network { address: address(), reason: "no route".to_owned() }, "tcp-failed"),
        (Unreached::Tls(TlsFault::Late), "tls-failed"),
        (Unreached::Tls(TlsFault::Other("alert".to_owned())), "tls-failed"),
    ] {
        let seen = Examination { reached: Err(unreached), streams: None };
        let diagnosis = diagnose(&seen, &Timing::new(Duration::from_secs(30)), IDLE);
        assert_eq!((codes(&diagnosis), diagnosis.exit()), (vec![vec![code]], Exit::Unreachable));
    }
}

#[test]
fn an_address_that_is_silent_beside_one_that_is_not_is_named_and_no_more() {
    let diagnosis = at(vec![IpAddr::V6(Ipv6Addr::LOCALHOST)], clean());
    assert_eq!(codes(&diagnosis), [vec!["address-silent"], vec![], vec![], vec![]]);
    assert_eq!(diagnosis.exit(), Exit::Ok);
    assert!(diagnosis.general[0].seen().starts_with("no answer from ::1, "), "{}", diagnosis.general[0].seen());
}

#[test]
fn a_server_that_is_busy_or_refuses_is_told_from_a_proxy_that_does() {
    for (status, code, expected, exit) in [
        (503, Some("DRAINING"), "server-busy", Exit::TryLater),
        (429, Some("RATE_LIMITED"), "server-busy", Exit::TryLater),
        (409, Some("NO_SUCH_THING"), "server-refused", Exit::Failure),
        (403, None, "blocked", Exit::Failure),
        (407, None, "blocked", Exit::Failure),
    ] {
        let refusal = || Err(refused(status, code));
        let on_websocket = if code.is_none() { "upgrade-refused" } else { expected };
        let diagnosis = of(Streams {
            opening: refusal(),
            polls: Vec::new(),
            cursor_arrives: None,
            websocket: Some(refusal().map(|_: Polled| Watched::default())),
            sse: Some(refusal().map(|_: Polled| Watched::default())),
            ..clean()
        });
        let found = [vec![], vec![on_websocket], vec![expected], vec![expected]];
        assert_eq!((codes(&diagnosis), diagnosis.exit()), (found.to_vec(), exit), "{status} {code:?}");
    }
}

#[test]
fn a_poll_that_does_not_live_its_time_is_told_by_which_way() {
    let long = IDLE + Duration::from_secs(30);
    for (poll, code) in [
        (Ok(polled(SOON)), "poll-answered-early"),
        (Ok(polled(long)), "poll-held-back"),
        (Err(Unopened::Late { after: long }), "poll-held-back"),
    ] {
        let diagnosis = of(Streams { polls: vec![(IDLE, poll)], ..clean() });
        assert_eq!((codes(&diagnosis), diagnosis.exit()), (vec![vec![], vec![], vec![], vec![code]], Exit::Ok));
    }
    let events = Polled { has_events: true, ..polled(SOON) };
    assert_eq!(codes(&of(Streams { polls: vec![(IDLE, Ok(events))], ..clean() })), [[""; 0]; 4], "events came");
}

#[test]
fn a_connection_that_breaks_before_anything_comes_is_told_from_one_that_is_cut() {
    let lost = || Why::Lost("reset".to_owned());
    let nothing = Watched { end: Some(Ending { at: SOON, why: lost() }), ..Watched::default() };
    let unopened = Err(Unopened::Cut { after: SOON, reason: "reset".to_owned() });
    for (sse, code) in
        [(Ok(nothing), "connection-broken"), (unopened, "connection-broken"), (Ok(ended(&[], lost())), "cut")]
    {
        let diagnosis = of(Streams { sse: Some(sse), ..clean() });
        assert_eq!((codes(&diagnosis), diagnosis.exit()), (vec![vec![], vec![], vec![code], vec![]], Exit::Ok));
    }
}

#[test]
fn a_cut_is_said_to_be_for_age_or_for_silence_and_the_advice_is_of_the_same() {
    for (silence, seen, advice) in
        [(29, "a limit on its age", "how long a request may take"), (30, "30.0 s of silence", "idle time-out to 35 s")]
    {
        let (at, silence) = (Duration::from_secs(60), Duration::from_secs(silence));
        let cut = Finding::Cut { at, silence, reason: "reset".to_owned() };
        let (told, advised) = (cut.seen(), cut.advice(Duration::from_secs(35)));
        assert!(told.contains(seen) && advised.contains(advice), "{told}: {advised}");
    }
}

#[test]
fn a_server_that_leaves_while_it_is_watched_is_no_fault_of_the_way() {
    let left = || ended(&[Sign::Goodbye], Why::Closed { code: 1000, reason: String::new() });
    let goodbye = Polled { goodbye: true, ..polled(SOON) };
    let all =
        Streams { websocket: Some(Ok(left())), sse: Some(Ok(left())), polls: vec![(IDLE, Ok(goodbye))], ..clean() };
    assert_eq!(codes(&of(all)), [vec![], vec!["server-left"], vec!["server-left"], vec!["server-left"]]);
}

#[test]
fn a_key_that_is_revoked_while_it_is_watched_is_the_keys_fault_and_no_proxys() {
    for (code, expected, exit) in
        [("TOKEN_REVOKED", "key-refused", Exit::Unauthorized), ("GATEWAY_DELETED", "server-refused", Exit::Failure)]
    {
        let expelled = || ended(&[], Why::Expelled { code: code.to_owned(), detail: "why".to_owned() });
        // The poll that was held is answered empty.
        let polls = vec![(IDLE, Ok(polled(SOON)))];
        let diagnosis = of(Streams { websocket: Some(Ok(expelled())), sse: Some(Ok(expelled())), polls, ..clean() });
        assert_eq!((codes(&diagnosis), diagnosis.exit()), (vec![vec![expected]], exit));
    }
}

#[test]
fn a_clock_is_wrong_only_beyond_what_the_call_itself_took() {
    let told = |ahead_s: i64, took: Duration| {
        let mut streams = clean();
        streams.answered_at = DateTime::<Utc>::UNIX_EPOCH - chrono::TimeDelta::seconds(ahead_s);
        streams.opening = streams.opening.map(|polled| Polled { took, ..polled });
        codes(&of(streams)).swap_remove(0)
    };
    for (ahead_s, took, expected) in [
        (5, SOON, &[][..]),
        (6, SOON, &["clock-skew"]),
        (-5, SOON, &[]),
        (-6, SOON, &["clock-skew"]),
        (-9, Duration::from_secs(4), &[]),
    ] {
        assert_eq!(told(ahead_s, took), expected, "{ahead_s} s");
    }
}
