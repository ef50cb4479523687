use gatecast_storage::{Gateway, Replica};
use gatecast_transports::{ConnInfo, Handshake, HandshakeError, Liveness};
use http::StatusCode;
use serde::Serialize;

use super::error::ApiError;
use super::reply::{self, Answer};
use super::{Api, Request, nowhere};
use crate::receipts::{Reporter, Taken, report};

/// Receipts of one call.
const RECEIPTS_MAX: usize = 1_000;

#[derive(Serialize)]
struct View {
    accepted: usize,
    /// Those that are of nothing that this gateway was sent, or of a replica that is not known or cannot be told from others.
    ignored: usize,
}

/// Takes receipts, one or a list. All are read before one is taken, so that a call that is refused may be repeated.
pub(super) async fn take(api: &Api, gateway: &Gateway, request: &Request<'_>) -> Answer {
    let replica = replica(api, request)?;
    let body = request.json()?;
    let (mut reports, mut faults) = (Vec::new(), Vec::new());
    match body.as_array() {
        None => report(&body, "").map_or_else(|wrong| faults = wrong, |read| reports.push(read)),
        Some(list) if (1..=RECEIPTS_MAX).contains(&list.len()) => {
            for (index, message) in list.iter().enumerate() {
                match report(message, &format!("/{index}")) {
                    Ok(read) => reports.push(read),
                    Err(wrong) => faults.extend(wrong),
                }
            }
        }
        Some(_) => return Err(ApiError::field("", format!("must be a receipt, or a list of 1 to {RECEIPTS_MAX}"))),
    }
    if !faults.is_empty() {
        return Err(ApiError::InvalidBody(faults));
    }
    let sent = api.log.bounds(gateway.id).await?.head();
    let (mut accepted, mut ignored) = (0, 0);
    for report in reports {
        match api.reports.take(report, Reporter { gateway: gateway.id, replica: &replica, sent }) {
            Taken::Kept => accepted += 1,
            Taken::Received(to) => {
                let is_taken = api.receipts.received(gateway.id, &replica, to);
                *(if is_taken { &mut accepted } else { &mut ignored }) += 1;
            }
            Taken::Foreign => ignored += 1,
        }
    }
    reply::json(StatusCode::ACCEPTED, &View { accepted, ignored })
}

/// Which replica calls, read as from a request to connect.
fn replica(api: &Api, request: &Request<'_>) -> Result<Replica, ApiError> {
    let info = request.peer.map_or_else(nowhere, |info| ConnInfo::clone(info));
    let handshake = Handshake::read("receipts", Liveness::Lease, &info, request.headers, request.query.raw());
    let handshake = handshake.map_err(|error| match error {
        HandshakeError::InvalidParameter { name, expected } => {
            ApiError::InvalidParameter { name, expected: expected.to_owned() }
        }
        _ => ApiError::InvalidParameter { name: "instance", expected: "1 to 128 visible ASCII characters".to_owned() },
    })?;
    Ok(Replica::of(handshake.instance.as_deref(), api.proxies.client(&handshake)))
}
