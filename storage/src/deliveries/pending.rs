use std::sync::atomic::{AtomicU32, Ordering};

use crate::ids::GatewayId;

/// Gateways share these, so that one that failed costs one in a thousand of the others a lock at each delivery.
const SLOTS: usize = 1_024;

/// How many failures may recover and have not, of the gateways of each slot. Written under the book's lock.
#[derive(Debug)]
pub(super) struct Pending([AtomicU32; SLOTS]);

impl Default for Pending {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; SLOTS])
    }
}

impl Pending {
    pub(super) fn add(&self, gateway: GatewayId) {
        self.slot(gateway).fetch_add(1, Ordering::Release);
    }

    pub(super) fn sub(&self, gateway: GatewayId) {
        self.slot(gateway).fetch_sub(1, Ordering::Release);
    }

    /// Whether there is one of this gateway, or of one that shares its slot.
    pub(super) fn any(&self, gateway: GatewayId) -> bool {
        self.slot(gateway).load(Ordering::Acquire) > 0
    }

    fn slot(&self, gateway: GatewayId) -> &AtomicU32 {
        // The end of a random UUID is random in all its bits.
        let [.., high, low] = *gateway.0.as_bytes();
        let [slot, ..] = &self.0;
        self.0.get(usize::from(u16::from_be_bytes([high, low])) % SLOTS).unwrap_or(slot)
    }
}
