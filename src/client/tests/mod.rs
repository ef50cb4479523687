//! The client against small servers over real sockets.

#![expect(clippy::panic, reason = "a test that hears something else has failed")]

mod server;
mod trust;

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Closed, Incoming, Transport, TransportChoice};
use server::{Server, ack, connected, disconnected, event, event_of};

#[tokio::test]
async fn a_client_sends_its_key_instance_and_cursor_and_gets_its_events() {
    let server = Server::start().await;
    let mut client = server.client(TransportChoice::Ws, Some("6f3a9c21-3"));
    let serve = async {
        let request = server.request().await;
        assert_eq!(request.target, "/api/internal/v1/ws/gateways/connect");
        assert_eq!((request.headers["api-key"].as_str(), request.cursor()), ("test-key", Some("6f3a9c21-3")));
        assert_eq!(request.headers["gateway-instance"], "replica-1");
        let mut ws = request.websocket().await;
        ws.send(&ack("6f3a9c21-3").replace("live", "resumed")).await;
        ws.send(&event("6f3a9c21-4")).await;
        ws.send(r#"{"type":"unknown.thing"}"#).await;
        ws.send(r#"{"type":"stream.reset","payload":{"reason":"overwritten","lost":3}}"#).await;
        ws.send(&event("6f3a9c21-9")).await;
        ws.until_closed().await;
    };
    let hear = async {
        connected(&mut client).await;
        assert_eq!(client.cursor(), None);
        let Incoming::Event { cursor, event_type, raw, .. } = client.next().await else { panic!() };
        assert_eq!((cursor.as_str(), event_type.as_str(), raw), ("6f3a9c21-4", "api.deployed", event("6f3a9c21-4")));
        assert!(matches!(client.next().await, Incoming::Reset(reset) if reset.lost == Some(3)));
        assert_eq!(event_of(&mut client).await, "6f3a9c21-9");
        assert_eq!(client.cursor(), Some("6f3a9c21-9"));
        assert_eq!(client.close().await, Closed::ByServer);
    };
    tokio::join!(serve, hear);
}

#[tokio::test]
async fn a_busy_server_is_asked_again_no_sooner_than_it_said() {
    for transport in [TransportChoice::Ws, TransportChoice::Sse, TransportChoice::Poll, TransportChoice::Auto] {
        let server = Server::start().await;
        let mut client = server.client(transport, None);
        let serve = async {
            server.request().await.problem(503, "DRAINING", "retry-after: 30\r\n").await;
        };
        let (_, (reason, retry_in)) = tokio::join!(serve, disconnected(&mut client));
        assert!(reason.contains("DRAINING"), "{reason}");
        assert!((30.0..=33.0).contains(&retry_in.as_secs_f64()), "{retry_in:?}");
    }
}

#[tokio::test]
async fn after_a_refusal_the_client_comes_back_by_itself() {
    let server = Server::start().await;
    let mut client = server.client(TransportChoice::Ws, None);
    let serve = async {
        server.request().await.problem(503, "CAPACITY_EXCEEDED", "").await;
        server.request().await.problem(429, "RATE_LIMITED", "").await;
        let mut ws = server.request().await.websocket().await;
        ws.send(&ack("6f3a9c21-0")).await;
        ws.until_closed().await;
    };
    let hear = async {
        disconnected(&mut client).await;
        disconnected(&mut client).await;
        connected(&mut client).await;
        drop(client);
    };
    tokio::join!(serve, hear);
}

#[tokio::test]
async fn a_connection_dropped_in_mid_stream_is_resumed_where_it_was() {
    let server = Server::start().await;
    let mut client = server.client(TransportChoice::Ws, None);
    let serve = async {
        let request = server.request().await;
        assert_eq!(request.cursor(), None);
        let mut ws = request.websocket().await;
        ws.send(&ack("6f3a9c21-0")).await;
        ws.send(&event("6f3a9c21-1")).await;
        drop(ws);
        let request = server.request().await;
        assert_eq!(request.cursor(), Some("6f3a9c21-1"));
        let mut ws = request.websocket().await;
        ws.send(&ack("6f3a9c21-1")).await;
        ws.send(&event("6f3a9c21-2")).await;
        ws.until_closed().await;
    };
    let hear = async {
        connected(&mut client).await;
        assert_eq!(event_of(&mut client).await, "6f3a9c21-1");
        disconnected(&mut client).await;
        connected(&mut client).await;
        assert_eq!(event_of(&mut client).await, "6f3a9c21-2");
        drop(client);
    };
    tokio::join!(serve, hear);
}

#[tokio::test]
async fn a_live_connection_lost_before_its_first_event_resumes_at_its_start() {
    let server = Server::start().await;
    let mut client = server.client(TransportChoice::Ws, Some("latest"));
    let serve = async {
        let mut ws = server.request().await.websocket().await;
        ws.send(&ack("6f3a9c21-41")).await;
        drop(ws);
        assert_eq!(server.request().await.cursor(), Some("6f3a9c21-41"));
    };
    let hear = async {
        connected(&mut client).await;
        disconnected(&mut client).await;
        client.next().await
    };
    tokio::select! { () = serve => {}, _ = hear => panic!("connected to no server") }
}

#[tokio::test]
async fn a_reset_connection_lost_before_its_first_event_asks_again_for_what_it_asked() {
    let server = Server::start().await;
    let mut client = server.client(TransportChoice::Ws, Some("00000000-7"));
    let serve = async {
        let mut ws = server.request().await.websocket().await;
        ws.send(&ack("6f3a9c21-41").replace("live", "reset")).await;
        drop(ws);
        assert_eq!(server.request().await.cursor(), Some("00000000-7"));
    };
    let hear = async {
        connected(&mut client).await;
        disconnected(&mut client).await;
        client.next().await
    };
    tokio::select! { () = serve => {}, _ = hear => panic!("connected to no server") }
}

#[tokio::test]
async fn a_goodbye_names_the_slot_for_coming_back() {
    let server = Server::start().await;
    let mut client = server.client(TransportChoice::Ws, None);
    let serve = async {
        let mut ws = server.request().await.websocket().await;
        ws.send(&ack("6f3a9c21-0")).await;
        ws.send(r#"{"type":"server.goodbye","reconnectAfterMs":40000}"#).await;
        let frame = CloseFrame { code: CloseCode::Normal, reason: "server shutdown".into() };
        ws.0.close(Some(frame)).await.unwrap();
        ws.until_closed().await;
    };
    let hear = async {
        connected(&mut client).await;
        let slot = Some(Duration::from_secs(40));
        assert_eq!(client.next().await, Incoming::Goodbye { reconnect_after: slot });
        let (reason, retry_in) = disconnected(&mut client).await;
        assert!(reason.contains("1000 server shutdown"), "{reason}");
        assert!((35.0..=40.0).contains(&retry_in.as_secs_f64()), "{retry_in:?}");
    };
    tokio::join!(serve, hear);
}

#[tokio::test]
async fn a_goodbye_ends_long_poll_without_another_poll() {
    let server = Server::start().await;
    let mut client = server.client(TransportChoice::Poll, None);
    let serve = async {
        let goodbye = r#"{"type":"server.goodbye","reconnectAfterMs":40000}"#;
        let body = format!(r#"{{"connectionId":"c","events":[{},{goodbye}]}}"#, ack("6f3a9c21-0"));
        server.request().await.answer("200 OK", "content-type: application/json\r\n", &body).await;
    };
    let hear = async {
        connected(&mut client).await;
        assert!(matches!(client.next().await, Incoming::Goodbye { .. }));
        let (_, retry_in) = disconnected(&mut client).await;
        assert!((35.0..=40.0).contains(&retry_in.as_secs_f64()), "{retry_in:?}");
    };
    tokio::join!(serve, hear);
}

#[tokio::test]
async fn a_wrong_key_ends_it_on_every_transport() {
    for transport in [TransportChoice::Ws, TransportChoice::Sse, TransportChoice::Poll, TransportChoice::Auto] {
        let server = Server::start().await;
        let mut client = server.client(transport, None);
        let serve = async { server.request().await.problem(401, "UNAUTHORIZED", "").await };
        let (_, incoming) = tokio::join!(serve, client.next());
        let Incoming::Fatal { status: Some(401), code, detail } = incoming else { panic!("{incoming:?}") };
        assert_eq!((code.as_str(), detail.as_str()), ("UNAUTHORIZED", "because"));
        assert!(matches!(client.next().await, Incoming::Fatal { .. }));
    }
}

#[tokio::test]
async fn a_revoked_token_ends_it() {
    let server = Server::start().await;
    let mut client = server.client(TransportChoice::Sse, None);
    let serve = async {
        let mut stream = server.request().await.stream().await;
        let error = r#"{"type":"error","code":"UNAUTHORIZED","detail":"revoked"}"#;
        let sent = format!("event: connection.ack\ndata: {}\n\nevent: error\ndata: {error}\n\n", ack("6f3a9c21-0"));
        stream.write_all(sent.as_bytes()).await.unwrap();
    };
    let hear = async {
        connected(&mut client).await;
        assert!(matches!(client.next().await, Incoming::Error { .. }));
        assert!(matches!(client.next().await, Incoming::Fatal { status: None, .. }));
    };
    tokio::join!(serve, hear);
}

#[tokio::test]
async fn a_proxy_that_refuses_the_upgrade_leads_to_sse_with_the_same_cursor() {
    let server = Server::start().await;
    let mut client = server.client(TransportChoice::Auto, Some("6f3a9c21-5"));
    let serve = async {
        let request = server.request().await;
        assert_eq!(request.target, "/api/internal/v1/ws/gateways/connect");
        request.answer("400 Bad Request", "content-type: text/html\r\n", "<html>no upgrades here").await;
        let request = server.request().await;
        assert_eq!(request.target, "/api/internal/v1/sse/gateways/connect");
        assert_eq!(request.cursor(), Some("6f3a9c21-5"));
        assert_eq!(request.headers["accept"], "text/event-stream");
        let mut stream = request.stream().await;
        let first = format!("retry: 3\n\nid: 6f3a9c21-5\nevent: connection.ack\ndata: {}\n\n", ack("6f3a9c21-5"));
        stream.write_all(first.as_bytes()).await.unwrap();
        stream
            .write_all(format!(":\n\nid: 6f3a9c21-6\ndata: {}\n\nid: 6f3a9c21-8\n\n", event("6f3a9c21-6")).as_bytes())
            .await
            .unwrap();
        drop(stream);
        // What worked is kept, and the id-only event moved the cursor.
        let request = server.request().await;
        assert_eq!(
            (request.target.as_str(), request.cursor()),
            ("/api/internal/v1/sse/gateways/connect", Some("6f3a9c21-8"))
        );
    };
    let hear = async {
        let (reason, retry_in) = disconnected(&mut client).await;
        assert!(reason.contains("trying sse") && retry_in == Duration::ZERO, "{reason}");
        connected(&mut client).await;
        assert_eq!(client.transport(), Transport::Sse);
        assert_eq!(event_of(&mut client).await, "6f3a9c21-6");
        disconnected(&mut client).await;
        client.next().await
    };
    tokio::select! { () = serve => {}, _ = hear => panic!("connected to no server") }
}

#[tokio::test]
async fn without_websocket_and_sse_there_is_long_poll() {
    let server = Server::start().await;
    let mut client = server.client(TransportChoice::Auto, None);
    let serve = async {
        // Of a proxy that takes `Upgrade` away, and of the server behind it.
        server.request().await.problem(426, "UPGRADE_REQUIRED", "upgrade: websocket\r\n").await;
        server.request().await.answer("200 OK", "content-type: text/html\r\n", "<html>").await;
        let poll = server.request().await;
        assert!(poll.target.starts_with("/api/internal/v1/poll/gateways/connect?timeout="), "{}", poll.target);
        // One that no server knows: the poll opens a connection of its own.
        assert!(poll.target.contains("connectionId="), "{}", poll.target);
        let first = format!(r#"{{"connectionId":"c7","events":[{}],"lastEventId":"6f3a9c21-0"}}"#, ack("6f3a9c21-0"));
        let poll = poll.reply(&first).await;
        assert!(poll.target.contains("connectionId=c7"), "{}", poll.target);
        assert_eq!(poll.cursor(), Some("6f3a9c21-0"));
        let events = [event("6f3a9c21-1"), event("6f3a9c21-2")].join(",");
        let poll =
            poll.reply(&format!(r#"{{"connectionId":"c7","events":[{events}],"lastEventId":"6f3a9c21-2"}}"#)).await;
        assert_eq!(poll.cursor(), Some("6f3a9c21-2"));
        poll.problem(401, "UNAUTHORIZED", "").await;
    };
    let hear = async {
        disconnected(&mut client).await;
        disconnected(&mut client).await;
        connected(&mut client).await;
        assert_eq!(client.transport(), Transport::LongPoll);
        assert_eq!(event_of(&mut client).await, "6f3a9c21-1");
        // Handed out one by one: the cursor is not ahead of what the caller has seen.
        assert_eq!(client.cursor(), Some("6f3a9c21-1"));
        assert_eq!(event_of(&mut client).await, "6f3a9c21-2");
        assert!(matches!(client.next().await, Incoming::Fatal { status: Some(401), .. }));
    };
    tokio::join!(serve, hear);
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_answered_as_slowly_as_the_line_is() {
    let server = Server::start().await;
    let mut client = server.client(TransportChoice::Poll, None);
    let serve = async {
        let first = format!(r#"{{"connectionId":"c","events":[{}]}}"#, ack("6f3a9c21-0"));
        let next = format!(r#"{{"connectionId":"c","events":[{}]}}"#, event("6f3a9c21-1"));
        let mut poll = server.request().await;
        for reply in [first, next] {
            // Longer than any wait for an answer, in pieces.
            poll = poll.reply_by_bytes(&reply, Duration::from_secs(2)).await;
        }
    };
    let hear = async {
        connected(&mut client).await;
        assert_eq!(event_of(&mut client).await, "6f3a9c21-1");
        client.next().await
    };
    tokio::select! { () = serve => {}, other = hear => panic!("{other:?}") }
}

#[tokio::test]
async fn pings_are_told_and_a_cancelled_wait_loses_nothing() {
    let server = Server::start().await;
    let mut client = server.client(TransportChoice::Ws, None);
    let serve = async {
        let mut ws = server.request().await.websocket().await;
        ws.send(&ack("6f3a9c21-0")).await;
        ws.0.send_ping("6f3a9c21-0").await;
        ws.send(&event("6f3a9c21-1")).await;
        ws.until_closed().await;
    };
    let hear = async {
        let mut heard = Vec::new();
        while heard.len() < 4 {
            // Polled once and dropped, again and again.
            tokio::select! {
                biased;
                incoming = client.next() => heard.push(incoming),
                () = tokio::task::yield_now() => {}
            }
        }
        assert!(
            matches!(
                heard[..],
                [Incoming::Connected { .. }, Incoming::Ping, Incoming::PongSent, Incoming::Event { .. }]
            ),
            "{heard:?}"
        );
        drop(client);
    };
    tokio::join!(serve, hear);
}

/// Sends a ping frame.
trait SendPing {
    async fn send_ping(&mut self, payload: &'static str);
}

impl SendPing for tokio_tungstenite::WebSocketStream<tokio::net::TcpStream> {
    async fn send_ping(&mut self, payload: &'static str) {
        futures::SinkExt::send(self, Message::Ping(payload.into())).await.unwrap();
    }
}
