//! Three ways to carry one ordered stream to a gateway.
//!
//! This crate knows HTTP, frames and sockets. It knows no events, no storage and no policy: positions and
//! bodies are opaque text and bytes, secrets are opaque text, and every decision is the [`Session`]'s.
//!
//! # Layout
//! - [`transport`]: the seam. [`Transport`] is implemented here; [`Gate`] and [`Session`] by the server.
//! - [`close`]: why a connection ends, and how each transport says so: one table.
//! - [`handshake`]: what a request says, read the same way for every transport.
//! - [`timing`]: how long a peer is waited for; [`alarm`]: a connection's one timer; [`stall`]: whether it takes what waits for it. [`sever`]: the end of a socket whose peer does not read.
//! - `head`, `answer`, `date`: a request and its answer on a socket that hyper has not seen. [`host`]: what both it and hyper
//!   are asked about a request's `Host`.
//! - [`bare`]: a socket that hyper does not have. [`hand_over`]: that of an endless HTTP/1.1 response, taken out of hyper. [`linger`]: one
//!   that hyper ends with the last answer to a poll.
//! - `shared`: a connection that whoever has news for it may serve in its task's stead.
//! - [`websocket`], [`sse`], [`long_poll`]: the transports. [`scripted`]: an in-memory double.
//! - `contract` (feature of that name): the suite that every transport passes.

pub mod alarm;
mod answer;
pub mod bare;
pub mod close;
#[cfg(feature = "contract")]
pub mod contract;
mod date;
pub mod hand_over;
pub mod handshake;
mod head;
pub mod host;
pub mod linger;
pub mod long_poll;
mod pipe;
mod query;
mod request;
pub mod scripted;
pub mod sever;
mod shared;
pub mod sse;
pub mod stall;
pub mod timing;
pub mod transport;
pub mod websocket;

pub use alarm::Alarm;
pub use bare::{BoxSocket, Rewound, Socket};
pub use close::{CloseReason, Ending};
pub use hand_over::{HandOver, Http1};
pub use handshake::{ConnInfo, Handshake, HandshakeError, Secret, forwarded, forwarded_for};
pub use linger::Lingering;
pub use long_poll::LongPoll;
pub use scripted::Scripted;
pub use sever::{Answered, Sever};
pub use sse::Sse;
pub use stall::{NOTICED_WITHIN, Stall, TAKEN_BYTES_MIN};
pub use timing::Timing;
pub use transport::{
    Direct, Frame, Frames, Gate, Heard, Liveness, Newcomer, Refusal, Room, Served, Session, Step, Text, Ticket,
    Transport,
};
pub use websocket::WebSocket;
