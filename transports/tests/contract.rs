//! Every transport against the one contract.

use gatecast_transports::contract::{self, by_hyper::ByHyper, poll::PollClient, sse::SseClient, ws::WsClient};

#[tokio::test]
async fn websocket_keeps_the_contract() {
    contract::all::<WsClient>().await;
}

#[tokio::test]
async fn websocket_by_hyper_keeps_the_contract() {
    contract::all::<ByHyper<WsClient>>().await;
}

#[tokio::test]
async fn sse_keeps_the_contract() {
    contract::all::<SseClient>().await;
}

#[tokio::test]
async fn long_poll_keeps_the_contract() {
    contract::all::<PollClient>().await;
}

#[tokio::test]
async fn long_poll_by_hyper_keeps_the_contract() {
    contract::all::<ByHyper<PollClient>>().await;
}
