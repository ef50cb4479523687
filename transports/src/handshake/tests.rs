use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

fn read(headers: &[(&str, &str)], query: &str) -> Result<Handshake, HandshakeError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let info = ConnInfo::of(([192, 0, 2, 1], 4711).into());
    Handshake::read("websocket", Liveness::PingPong, &info, &map, query)
}

fn secret(headers: &[(&str, &str)]) -> Option<String> {
    read(headers, "api-key=query&apiKey=query").unwrap().credential.map(|secret| secret.expose().to_owned())
}

#[test]
fn credential_comes_from_api_key_or_bearer_and_never_from_the_query() {
    assert_eq!(secret(&[("api-key", "k")]).as_deref(), Some("k"));
    assert_eq!(secret(&[("Authorization", "bEaReR  k")]).as_deref(), Some("k"));
    assert_eq!(secret(&[("api-key", "k"), ("authorization", "Bearer other")]).as_deref(), Some("k"));
    for none in [&[][..], &[("authorization", "Basic k")], &[("authorization", "Bearer ")], &[("api-key", "")]] {
        assert_eq!(secret(none), None, "{none:?}");
    }
}

#[test]
fn two_credentials_of_one_name_are_none() {
    assert_eq!(secret(&[("api-key", "a"), ("api-key", "a")]), None);
    assert_eq!(secret(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]), None);
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", read(&[("api-key", "hunter2")], "").unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn last_event_id_header_wins_and_empty_is_absent() {
    let cursor = |headers: &[_], query| read(headers, query).unwrap().cursor;
    assert_eq!(cursor(&[("last-event-id", "a")], "lastEventId=b").as_deref(), Some("a"));
    assert_eq!(cursor(&[("last-event-id", "")], "lastEventId=b").as_deref(), Some("b"));
    assert_eq!(cursor(&[], "lastEventId=").as_deref(), None);
}

#[test]
fn instances_are_bounded() {
    assert!(read(&[], &format!("instance={}", "x".repeat(128))).is_ok());
    for query in [&format!("instance={}", "x".repeat(129)), "instance=a%20b", "instance=%C3%A4"] {
        assert!(matches!(read(&[], query), Err(HandshakeError::InvalidParameter { .. })), "{query}");
    }
}

#[test]
fn what_is_no_cursor_is_left_for_the_gate_to_refuse() {
    let cursor = |headers: &[_], query: &str| read(headers, query).unwrap().cursor.unwrap();
    assert_eq!(cursor(&[("last-event-id", "a-1"), ("last-event-id", "b-2")], ""), "a-1,b-2");
    assert_eq!(cursor(&[], "lastEventId=a-1&lastEventId=a-1"), "a-1,a-1");
    assert_eq!(cursor(&[], "lastEventId=%00"), "\0");
    assert_eq!(cursor(&[], "lastEventId=%ff"), "\u{fffd}");
    assert_eq!(cursor(&[("last-event-id", &"x".repeat(5_000))], "").len(), 5_000);
}

#[test]
fn forwarding_lines_are_joined_in_order() {
    let read = read(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-for", "3.3.3.3")], "").unwrap();
    assert_eq!(read.forwarded_for.as_deref(), Some("1.1.1.1, 2.2.2.2,3.3.3.3"));
    assert_eq!(read.forwarded, None);
}

proptest! {
    #[test]
    fn any_request_is_read_or_refused(
        headers in prop::collection::vec((0_usize..6, prop::collection::vec(any::<u8>(), 0..300)), 0..8),
        query in ".{0,400}",
    ) {
        let names =
            ["api-key", "authorization", "last-event-id", "gateway-instance", "x-forwarded-for", "forwarded"];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                map.append(names[name], value);
            }
        }
        let info = ConnInfo::of(([192, 0, 2, 1], 4711).into());
        if let Ok(read) = Handshake::read("sse", Liveness::WriteOnly, &info, &map, &query) {
            prop_assert!(read.cursor.as_ref().is_none_or(|text| !text.is_empty()));
            prop_assert!(read.instance.as_ref().is_none_or(|text| is_name(text) && !text.is_empty()));
            prop_assert!(read.credential.as_ref().is_none_or(|text| !text.expose().is_empty()));
        }
    }

    #[test]
    fn cursor_survives_percent_encoding(cursor in "[ -~äß€]{1,80}") {
        let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("lastEventId", &cursor).finish();
        prop_assert_eq!(read(&[], &query).unwrap().cursor, Some(cursor));
    }
}
