//! The dashboard at `/`: a static page in the binary, and the two streams that keep it live.
//!
//! # Layout
//! - `files`: the page; what it may load and talk to is in its Content-Security-Policy: its own server, nothing else.
//! - `observers`: the gate of the stream at [`STREAM`]: an SSE transport like the gateways', over another gate.
//! - `viewing`: the session of an operator who watches. It is no replica: it is not registered, has no seat, moves no
//!   stored position and makes no delivery recovered. What it is shown is a `Feed`:
//! - `pulse`: what the server did, second by second; `following`: the events of one gateway.
//!
//! All that the page does it does by the platform API ([`crate::api`]), as everybody else.

mod files;
mod following;
mod observers;
mod pulse;
mod viewing;

pub(crate) use self::files::routes;
pub(crate) use self::observers::Observers;
pub(crate) use self::pulse::Pulse;

/// Where operators watch: `?gatewayId=` for the events of a gateway, without it the pulse of the server.
pub(crate) const STREAM: &str = "/api/internal/v1/dashboard/stream";
