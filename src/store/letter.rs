//! Dead letters as the store knows them: which there are, why, and what was done about them. Their
//! bytes stay on the dead-letter topic.

use crate::{
    position::{Offset, RecordPosition, TopicPartition},
    task::{event::EventId, transition::Reason},
};

/// What was done about a letter.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LetterState {
    /// Nothing yet.
    Open,
    /// It was sent to the applied topic again.
    Redriven,
    /// Somebody decided to leave it.
    Dismissed,
}

impl LetterState {
    const ALL: [Self; 3] = [Self::Open, Self::Redriven, Self::Dismissed];

    /// The state once `decided` is noted: what was sent again cannot be dismissed, even where the
    /// two were decided at once.
    #[must_use]
    pub const fn then(self, decided: Self) -> Self {
        match (self, decided) {
            (Self::Redriven, Self::Dismissed) => Self::Redriven,
            _ => decided,
        }
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Redriven => "redriven",
            Self::Dismissed => "dismissed",
        }
    }

    /// The state of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// One letter; its place on the dead-letter topic is its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredLetter {
    /// What was done about it.
    pub state: LetterState,
    /// Why it is one.
    pub reason: Reason,
    /// One clause that names the field or the cause.
    pub detail: String,
    /// The event's own id.
    pub event_id: Option<EventId>,
    /// The record that it is of.
    pub source: RecordPosition,
    /// The first offset after, of a range that cannot be read.
    pub end: Option<Offset>,
    /// Wall time at which it was noted.
    pub at_ms: i64,
    /// Bytes of the record's value.
    pub value_bytes: u64,
}

/// Which letters are kept no longer.
#[derive(Clone, Debug)]
pub struct LetterTrim {
    /// Where the logs of dead-letter topics start: letters below are gone there.
    pub log_starts: Vec<(TopicPartition, Offset)>,
    /// Letters about which something was done are kept if they were noted (ms since 1970) at or
    /// after this.
    pub ended_since_ms: i64,
}

impl LetterTrim {
    /// Whether a letter goes; `None` for one that cannot be read.
    pub fn takes(&self, place: (&str, i32, i64), letter: Option<&StoredLetter>) -> bool {
        let (topic, partition, offset) = place;
        let is_gone = self.log_starts.iter().any(|(at, log_start)| {
            let is_there = (at.topic.as_str(), at.partition.get()) == (topic, partition);
            is_there && offset < log_start.get()
        });
        let has_ended = letter.is_some_and(|letter| {
            letter.state != LetterState::Open && letter.at_ms < self.ended_since_ms
        });
        is_gone || has_ended
    }
}

/// Which letters a list asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct LetterFilter {
    /// Only of this reason.
    pub reason: Option<Reason>,
    /// Only in this state.
    pub state: Option<LetterState>,
}

impl LetterFilter {
    /// Whether a letter is asked for.
    pub fn takes(&self, letter: &StoredLetter) -> bool {
        self.reason.is_none_or(|reason| reason == letter.reason)
            && self.state.is_none_or(|state| state == letter.state)
    }
}

/// A page of letters in the order of their places.
#[derive(Clone, Debug, Default)]
pub struct LetterPage {
    /// Place and letter.
    pub letters: Vec<(RecordPosition, StoredLetter)>,
    /// Places of letters that cannot be read, whatever was asked for, and why.
    pub damaged: Vec<(RecordPosition, String)>,
    /// Where the next page goes on after; `None` at the end. A page may be short, even empty, and
    /// still have a next one: work per page is bounded.
    pub next: Option<RecordPosition>,
}
