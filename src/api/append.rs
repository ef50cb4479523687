use futures::{StreamExt, stream};
use gatecast_storage::{Cursor, GatewayId};
use serde::Serialize;

use super::Api;
use super::error::ApiError;
use crate::publish::{CheckedEvent, Published};

/// Appends under way at once for one call: enough to share a flush, too few to crowd out other calls.
const APPENDS_MAX: usize = 64;

/// Appends an event to the log of a gateway that exists.
///
/// A gateway that was deleted meanwhile must not keep a log: the append made it anew, so it is let go again.
pub(super) async fn append(
    api: &Api,
    to: GatewayId,
    event: &CheckedEvent,
    expect: Option<Cursor>,
) -> Result<Published, ApiError> {
    let published = api.publisher.publish(to, event, expect).await?;
    if api.directory.gateway(to).is_some() {
        return Ok(published);
    }
    api.deliveries.forget(to);
    api.receipts.forget(to);
    api.log.forget(to).await?;
    Err(ApiError::no_gateway())
}

/// Appends events of several gateways, some at a time, and answers in their order.
pub(super) async fn append_each(
    api: &Api,
    events: Vec<(GatewayId, CheckedEvent)>,
) -> Vec<(GatewayId, Result<Published, ApiError>)> {
    let appends = events.into_iter().map(|(to, event)| async move { (to, append(api, to, &event, None).await) });
    stream::iter(appends).buffered(APPENDS_MAX).collect().await
}

/// A cursor as JSON shows it: an eventId.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventId(pub(super) Cursor);

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
