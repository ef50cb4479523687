use std::collections::VecDeque;
use std::mem::discriminant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::Cursor;

/// Outcomes of events kept of one replica; the oldest go first.
pub const EVENT_OUTCOMES_PER_INSTANCE_MAX: usize = 256;
/// Outcomes of deployments kept of one replica, so APIs of a gateway of which it can be told how many replicas have
/// them; the oldest go first, and no outcome of an event makes one go.
pub const DEPLOYMENT_OUTCOMES_PER_INSTANCE_MAX: usize = 1_024;
/// Characters kept of an error code.
pub const ERROR_CODE_CHARS_MAX: usize = 128;
/// Characters kept of a message.
pub const MESSAGE_CHARS_MAX: usize = 256;

/// What an outcome is of: gateways name an event, or the deployment that an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// An event.
    Event(Cursor),
    /// A deployment.
    Deployment(Uuid),
}

impl Subject {
    /// How many outcomes of this kind are kept of one replica.
    fn kept_max(self) -> usize {
        match self {
            Self::Event(_) => EVENT_OUTCOMES_PER_INSTANCE_MAX,
            Self::Deployment(_) => DEPLOYMENT_OUTCOMES_PER_INSTANCE_MAX,
        }
    }
}

/// What a replica made of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Applied, or failed.
    pub applied: bool,
    /// When it was reported.
    pub at: DateTime<Utc>,
    /// Why it failed, for machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Why it failed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// Nothing: it was known, or a failure after a success.
    Nothing,
    /// The first outcome, another failure, or a success after one.
    New,
    /// It is of a replica that is not known, so it was not kept.
    Unknown,
}

/// The outcomes of one replica, oldest first.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Outcomes(VecDeque<(Subject, Outcome)>);

impl Outcomes {
    /// A success stands: what an event once did is done, whatever a second delivery of it runs into.
    pub(super) fn report(&mut self, of: Subject, mut outcome: Outcome) -> Reported {
        outcome.error_code = outcome.error_code.map(|text| cut(&text, ERROR_CODE_CHARS_MAX));
        outcome.message = outcome.message.map(|text| cut(&text, MESSAGE_CHARS_MAX));
        let known = self.0.iter().position(|(subject, _)| *subject == of);
        let before = known.and_then(|index| self.0.get(index)).map(|(_, before)| before);
        let reported = match before {
            Some(before) if before.applied => return Reported::Nothing,
            Some(before)
                if !outcome.applied && before.error_code == outcome.error_code && before.message == outcome.message =>
            {
                return Reported::Nothing;
            }
            Some(_) | None => Reported::New,
        };
        if let Some(index) = known {
            self.0.remove(index);
        } else {
            self.make_room(of);
        }
        self.0.push_back((of, outcome));
        reported
    }

    /// For one more outcome of this kind.
    fn make_room(&mut self, of: Subject) {
        let mut alike = self.0.iter().enumerate().filter(|(_, (kept, _))| discriminant(kept) == discriminant(&of));
        let oldest = alike.next().map(|(index, _)| index);
        if let Some(oldest) = oldest
            && alike.count() + 1 >= of.kept_max()
        {
            self.0.remove(oldest);
        }
    }

    /// The best outcome of any of these subjects: they are names of one thing.
    pub(super) fn of(&self, subjects: &[Subject]) -> Option<&Outcome> {
        let matching = self.0.iter().filter(|(subject, _)| subjects.contains(subject)).map(|(_, outcome)| outcome);
        matching.max_by_key(|outcome| (outcome.applied, outcome.at))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars).collect()
}
