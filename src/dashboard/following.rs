//! The events of one gateway as an operator is shown them: the same cursors, the same reads and the same resets as a
//! gateway's session ([`crate::session`]), but what goes out is a line about each event, not the event.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use gatecast_storage::{Cursor, Directory, GatewayId, LogError};
use gatecast_transports::{Alarm, CloseReason, Frame, Frames, Room};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use super::viewing::{Feed, Shown};
use crate::bell::Listener;
use crate::below::Below;
use crate::control::ResetReason;
use crate::reading::Reading;
use crate::session::Works;
use crate::tail::{Channel, Tailed};

/// The feed.
pub(super) struct Following {
    works: Arc<Works>,
    directory: Arc<Directory>,
    gateway: GatewayId,
    channel: Arc<Channel>,
    listener: Listener,
    position: Cursor,
    below: Option<Below>,
    /// It was told where it begins: it comes back there if it is cut off before the first event.
    is_told: bool,
    reading: Reading,
    alarm: Alarm,
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
        Ok(Self {
            works,
            directory,
            gateway,
            listener: Listener::new(channel.bell.clone()),
            channel,
            position,
            below,
            is_told: false,
            reading: Reading::default(),
            alarm: Alarm::default(),
            given: None,
        })
    }

    fn give(&mut self, frames: &[Arc<Frame>], to: Cursor, below: Option<Below>) -> Option<Shown> {
        self.given = Some((to, below));
        if frames.is_empty() {
            self.written();
            return None;
        }
        Some(Shown::Frames(frames.iter().map(line).collect()))
    }

    /// What the log has after the position.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: Room) -> Poll<Result<Tailed, LogError>> {
        let tail = &self.works.tail;
        if !self.reading.is_under_way()
            && self.below.is_none()
            && let Some(hot) = tail.hot(&self.channel, self.position, room, None)
        {
            return Poll::Ready(Ok(Tailed::Frames(hot.frames.into_vec())));
        }
        self.reading.poll(cx, tail, (self.gateway, self.position, self.below), room)
    }

    /// What a read of the log gives; `None` to look again.
    fn take(&mut self, read: Result<Tailed, LogError>) -> Option<Shown> {
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
            Ok(Tailed::Frames(_)) => self.reading.had_nothing(),
            Err(error) => {
                if self.reading.failed() {
                    warn!(gateway.id = %self.gateway, %error, "Event log is not readable; who watches it waits.");
                }
            }
        }
        None
    }
}

impl Feed for Following {
    fn poll_next(&mut self, cx: &mut Context<'_>, room: Room) -> Poll<Shown> {
        if !self.is_told {
            self.given = Some((self.position, self.below));
            let told = Arc::new(Frame::position_only(self.position.to_string()));
            return Poll::Ready(Shown::Frames(Frames::from([told])));
        }
        // Before the look: an append after it wakes us.
        self.listener.listen(cx);
        loop {
            if self.directory.gateway(self.gateway).is_none() {
                return Poll::Ready(Shown::End(CloseReason::GatewayDeleted));
            }
            if self.below.is_none() && self.position.seq >= self.channel.head() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if let Some(at) = self.reading.again().filter(|at| now < *at) {
                ready!(self.alarm.poll_at(cx, now, Some(at)));
                continue;
            }
            let read = ready!(self.poll_read(cx, room));
            if let Some(shown) = self.take(read) {
                return Poll::Ready(shown);
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
    let line = serde_json::from_str::<Line<'_>>(frame.text()).map(|line| Line { bytes: frame.bytes().len(), ..line });
    // Every event of the log has these members.
    let Ok(text) = line.and_then(|line| serde_json::to_string(&line)) else { return frame.clone() };
    Arc::new(Frame::new(Some(id.to_owned()), "event", text))
}
