use std::sync::Arc;

use async_trait::async_trait;
use gatecast_storage::{Directory, GatewayId};
use gatecast_transports::{Gate, Handshake, HandshakeError, Refusal, Session};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::following::Following;
use super::pulse::{Felt, Pulse};
use super::viewing::Viewing;
use crate::api::error::{ApiError, problem};
use crate::auth::Operators;
use crate::gate::{in_time, not_a_handshake};
use crate::proxies::Proxies;
use crate::refusal_log::{RefusalLog, Refused};
use crate::session::Works;
use crate::sparse_log::Line;

/// Streams of operators at once.
const VIEWS_MAX: usize = 256;

/// Decides who may watch.
pub(crate) struct Observers {
    works: Arc<Works>,
    directory: Arc<Directory>,
    pulse: Arc<Pulse>,
    operators: Arc<Operators>,
    proxies: Proxies,
    refusal_log: Arc<RefusalLog>,
    draining: CancellationToken,
    places: Arc<Semaphore>,
}

impl Observers {
    pub(crate) fn new(
        works: Arc<Works>,
        directory: Arc<Directory>,
        pulse: Arc<Pulse>,
        operators: Arc<Operators>,
        proxies: Proxies,
        refusal_log: Arc<RefusalLog>,
        draining: CancellationToken,
    ) -> Self {
        let places = Arc::new(Semaphore::new(VIEWS_MAX));
        Self { works, directory, pulse, operators, proxies, refusal_log, draining, places }
    }

    async fn try_admit(&self, handshake: &Handshake) -> Result<Box<dyn Session>, ApiError> {
        if self.draining.is_cancelled() {
            return Err(ApiError::Draining);
        }
        let standing = self.operators.watch(handshake).map_err(|error| {
            let address = self.proxies.client(handshake);
            if let Some(Line { unlogged }) = self.refusal_log.line(address, Refused::Watch(error)) {
                warn!(peer.ip = %address, reason = %error, unlogged, "A request to watch was refused.");
            }
            ApiError::from(error)
        })?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| ApiError::CapacityExceeded)?;
        let cursor = handshake.cursor.as_deref();
        let (draining, timing) = (self.draining.clone(), self.works.timing);
        let Some(gateway) = &handshake.gateway else {
            let after = cursor.map_or(Ok(0), str::parse).map_err(|_| ApiError::InvalidCursor)?;
            let felt = Felt::after(self.pulse.clone(), after);
            return Ok(Box::new(Viewing::new(felt, standing, draining, timing, place)));
        };
        let gateway: GatewayId = gateway.parse().map_err(|_| ApiError::no_gateway())?;
        let gateway = self.directory.gateway(gateway).ok_or_else(ApiError::no_gateway)?.id;
        let after = cursor.map(str::parse).transpose().map_err(|_| ApiError::InvalidCursor)?;
        let following = in_time(Following::open(self.works.clone(), self.directory.clone(), gateway, after)).await?;
        Ok(Box::new(Viewing::new(following, standing, draining, timing, place)))
    }
}

#[async_trait]
impl Gate for Observers {
    async fn admit(&self, handshake: Handshake) -> Result<Box<dyn Session>, Refusal> {
        self.try_admit(&handshake).await.map_err(|error| Refusal(problem(&error)))
    }

    fn reject(&self, error: HandshakeError) -> Refusal {
        not_a_handshake(error)
    }
}
