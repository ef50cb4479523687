//! The events of one gateway as an operator is shown them: the same cursors, the same reads and the same resets as a
//! gateway's session ([`crate::session`]), but what goes out is a line about each event, not the event.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use gatecast_storage::{Cursor, Directory, GatewayId, LogError};
use gatecast_transports::{CloseReason, Frame, Room};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tracing::warn;

use super::viewing::{Feed, Shown};
use crate::below::Below;
use crate::control::ResetReason;
use crate::session::{Works, read_again_after};
use crate::tail::{Channel, Tailed};

/// The feed.
pub(super) struct Following {
    works: Arc<Works>,
    directory: Arc<Directory>,
    gateway: GatewayId,
    channel: Arc<Channel>,
    position: Cursor,
    below: Option<Below>,
    /// It was told where it begins: it comes back there if it is cut off before the first event.
    is_told: bool,
    /// Reads in a row that failed.
    failures: u32,
    /// Where it is once what was given is out.
    given: Option<(Cursor, Option<Below>)>,
}

/// What is shown of an event.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow, default)]
    correlation_id: Cow<'a, str>,
    /// Of the whole event.
    #[serde(default)]
    bytes: usize,
}

impl Following {
    /// From a cursor on, or from now.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(super) async fn open(
        works: Arc<Works>,
        directory: Arc<Directory>,
        gateway: GatewayId,
        after: Option<Cursor>,
    ) -> Result<Self, LogError> {
        let (channel, bounds) = works.tail.open(gateway).await?;
        let position = after.unwrap_or(bounds.head());
        let below = ResetReason::of(position, &bounds).map(Below::reset);
        Ok(Self { works, directory, gateway, channel, position, below, is_told: false, failures: 0, given: None })
    }

    fn give(&mut self, frames: &[Arc<Frame>], to: Cursor, below: Option<Below>) -> Option<Shown> {
        self.given = Some((to, below));
        if frames.is_empty() {
            self.written();
            return None;
        }
        Some(Shown::Frames(frames.iter().map(line).collect()))
    }

    /// What the log has after the position; `None` to look again.
    async fn read(&mut self, room: Room) -> Option<Shown> {
        let tail = &self.works.tail;
        let hot = if self.below.is_none() { tail.hot(&self.channel, self.position, room, None) } else { None };
        let read = match (hot, self.below) {
            (Some(hot), _) => Ok(Tailed::Frames(hot.frames)),
            (None, Some(below)) => tail.compacted(self.gateway, below.after(self.position), room).await,
            (None, None) => tail.cold(self.gateway, self.position, room).await,
        };
        match read {
            Ok(Tailed::Frames(frames)) if !frames.is_empty() => {
                let seq = gatecast_storage::Seq(self.position.seq.0 + frames.len() as u64);
                return self.give(&frames, Cursor { seq, ..self.position }, None);
            }
            Ok(Tailed::Compacted(page)) => {
                let climb = self.below?.climb(self.gateway, self.works.clock.now(), self.position, *page);
                return self.give(&climb.frames, climb.to, climb.below);
            }
            Ok(Tailed::Truncated { oldest }) => self.below = Some(Below::overwritten(oldest)),
            Ok(Tailed::Lost) => self.below = Some(Below::reset(ResetReason::UnknownEpoch)),
            Ok(Tailed::Frames(_)) => sleep(read_again_after(0)).await,
            Err(error) => {
                if self.failures == 0 {
                    warn!(gateway.id = %self.gateway, %error, "Event log is not readable; who watches it waits.");
                }
                // Counted first: the wait may be cut short, by a comment that is due.
                self.failures = self.failures.saturating_add(1);
                sleep(read_again_after(self.failures - 1)).await;
                return None;
            }
        }
        self.failures = 0;
        None
    }
}

#[async_trait]
impl Feed for Following {
    async fn next(&mut self, room: Room) -> Shown {
        if !self.is_told {
            self.given = Some((self.position, self.below));
            return Shown::Frames(vec![Arc::new(Frame::position_only(self.position.to_string()))]);
        }
        loop {
            if self.directory.gateway(self.gateway).is_none() {
                return Shown::End(CloseReason::GatewayDeleted);
            }
            let channel = self.channel.clone();
            // Before the look: an append after it wakes us.
            let notified = channel.notify.notified();
            if self.below.is_none() && self.position.seq >= channel.head() {
                notified.await;
            } else if let Some(shown) = self.read(room).await {
                return shown;
            }
        }
    }

    fn written(&mut self) {
        if let Some((position, below)) = self.given.take() {
            (self.position, self.below, self.is_told) = (position, below, true);
        }
    }

    fn position(&self) -> String {
        self.position.to_string()
    }
}

/// A line about an event; what is no event is shown as it is.
fn line(frame: &Arc<Frame>) -> Arc<Frame> {
    let Some(id) = frame.id() else { return frame.clone() };
    let line = serde_json::from_str::<Line<'_>>(frame.text()).map(|line| Line { bytes: frame.text().len(), ..line });
    // Every event of the log has these members.
    let Ok(text) = line.and_then(|line| serde_json::to_string(&line)) else { return frame.clone() };
    Arc::new(Frame::new(Some(id.to_owned()), "event", text))
}
