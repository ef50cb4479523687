//! Three ways to carry one ordered stream to a gateway.
//!
//! This crate knows HTTP, frames and sockets. It knows no events, no storage and no policy: positions and
//! bodies are opaque text and bytes, secrets are opaque text, and every decision is the [`Session`]'s.
//!
//! # Layout
//! - [`transport`]: the seam. [`Transport`] is implemented here; [`Gate`] and [`Session`] by the server.
//! - [`close`]: why a connection ends, and how each transport says so: one table.
//! - [`handshake`]: what a request says, read the same way for every transport.
//! - `websocket`, `sse`, `long_poll`: the transports. `scripted`: an in-memory double.
//! - `contract`: the suite that every transport passes.

pub mod close;
pub mod handshake;
pub mod transport;

pub use close::CloseReason;
pub use handshake::{ConnInfo, Handshake, HandshakeError, Secret};
pub use transport::{Frame, Gate, Heard, Liveness, Refusal, Room, Session, Step, Transport};
