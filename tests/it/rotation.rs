//! A gateway's tokens are exchanged while it is connected and events are published.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gatecast::client::{ApiKey, Client, ClientConfig, Endpoint, Incoming, TransportChoice, Trust};
use serde_json::Value;
use tokio::time::timeout;

use crate::app::App;
use crate::wire::PATIENCE;

/// Events that are read with each of the two tokens at least.
const READ_WITH_EACH: usize = 40;

fn client(app: &App, token: &str, transport: TransportChoice, resume: &str) -> Client {
    let config = ClientConfig {
        transport,
        trust: Trust::Anyone,
        resume: Some(resume.to_owned()),
        ..ClientConfig::new(Endpoint::parse(&app.url("")).unwrap(), ApiKey::parse(token).unwrap())
    };
    Client::new(config).unwrap()
}

/// Reads into `seen` until that is `enough`; anything but an event on an unbroken stream is a failure.
async fn read(client: &mut Client, seen: &mut Vec<u64>, enough: impl Fn(&[u64]) -> bool) {
    while !enough(seen) {
        match timeout(PATIENCE, client.next()).await.expect("something in time") {
            Incoming::Event { raw, .. } => {
                let event: Value = serde_json::from_str(&raw).unwrap();
                seen.push(event["payload"]["n"].as_u64().unwrap());
            }
            Incoming::Reset(reset) => panic!("{reset:?}"),
            Incoming::Disconnected { reason, .. } => panic!("{reason}"),
            Incoming::Fatal { detail, .. } => panic!("{detail}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_gateway_moves_to_a_new_token_while_events_are_published_and_misses_none() {
    for transport in [TransportChoice::Ws, TransportChoice::Sse, TransportChoice::Poll] {
        let app = App::start().await;
        let gateway = app.register("one").await;
        let stop = Arc::new(AtomicBool::new(false));
        let publishing = {
            let (platform, stop) = ((*app).clone(), stop.clone());
            tokio::spawn(async move {
                let mut published = 0;
                while !stop.load(Ordering::Acquire) {
                    published += 1;
                    platform.publish(gateway.id, published).await;
                }
                published
            })
        };
        let (mut seen, mut old) = (Vec::new(), client(&app, &gateway.token, transport, "earliest"));
        read(&mut old, &mut seen, |seen| seen.len() >= READ_WITH_EACH).await;

        let (_, token) = app.token(gateway.id).await;
        let cursor = old.cursor().expect("a cursor after an event").to_owned();
        let mut new = client(&app, &token, transport, &cursor);
        read(&mut new, &mut seen, |seen| seen.len() >= 2 * READ_WITH_EACH).await;
        let path = format!("/api/v1/gateways/{}/tokens/{}", gateway.id, gateway.token_id);
        assert_eq!(app.delete(&path).await, 204);
        let ended = async { while !matches!(old.next().await, Incoming::Fatal { .. }) {} };
        timeout(PATIENCE, ended).await.expect("the old token is over");

        let after = seen.len() + READ_WITH_EACH;
        read(&mut new, &mut seen, |seen| seen.len() >= after).await;
        stop.store(true, Ordering::Release);
        let published = publishing.await.unwrap();
        read(&mut new, &mut seen, |seen| seen.last() == Some(&published)).await;
        assert_eq!(seen, (1..=published).collect::<Vec<u64>>(), "over {transport:?}");
    }
}
