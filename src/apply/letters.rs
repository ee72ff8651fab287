//! Dead letters as a tool: listed, shown, sent again (mended or not), dismissed.
//!
//! Reads are of the store and of the dead-letter topic. What was done about a letter is noted by
//! the worker, which owns all commits; it is durable when an answer comes.
//!
//! Invariant: a letter is sent again before that is noted, and under an id that is its own. Killed
//! in between it is still open, and sending it once more is a duplicate.

use super::{
    letter::Letter,
    outcome::{Outcomes, PendingOutcome},
};
use crate::{
    feed::{EventLog, FeedError, FeedItem, FeedRecord, OutboundRecord},
    position::{Offset, Partition, RecordPosition, TopicName},
    store::{
        Store, StoreError,
        letter::{LetterFilter, LetterPage, LetterState, StoredLetter},
    },
    task::{
        event::{EVENT_ID_HEADER, EventId},
        transition::Reason,
    },
};
use bytes::Bytes;
use std::{fmt, str::FromStr, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Decisions that wait for the worker; who finds it full waits, at most [`NOTED_TIMEOUT`].
pub(super) const COMMANDS_MAX: usize = 16;
/// How long the worker may take to note a decision.
const NOTED_TIMEOUT: Duration = Duration::from_secs(10);
/// Most letters that one [`Letters::redrive_all`] sends again.
const BULK_LETTERS_MAX: usize = 500;
/// After so many bytes of records a bulk redrive publishes what it has.
const BULK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A letter's id: its place on the dead-letter topic. Text form `<partition>-<offset>`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LetterId {
    /// The partition.
    pub partition: Partition,
    /// The offset.
    pub offset: Offset,
}

impl LetterId {
    fn of(place: &RecordPosition) -> Self {
        Self { partition: place.partition, offset: place.offset }
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

/// Text that is no [`LetterId`].
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a letter's id")]
pub struct NotALetterId;

impl FromStr for LetterId {
    type Err = NotALetterId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (partition, offset) = text.split_once('-').ok_or(NotALetterId)?;
        let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_plain(partition) || !is_plain(offset) {
            return Err(NotALetterId);
        }
        let partition = partition.parse().ok().and_then(Partition::new).ok_or(NotALetterId)?;
        let offset = offset.parse().ok().and_then(Offset::new).ok_or(NotALetterId)?;
        Ok(Self { partition, offset })
    }
}

/// Why nothing was done about a letter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LettersError {
    /// There is no letter with this id.
    #[error("there is no such letter")]
    NotFound,
    /// It holds no record that could be sent again, or one that cannot be read: only a mended one
    /// can be sent.
    #[error("this letter ({0}) holds no record to send again")]
    NotARecord(Reason),
    /// It was sent again before: there is nothing left to dismiss, or to send as it came.
    #[error("the letter was redriven")]
    Redriven,
    /// What was decided is not noted in time. A letter that was sent again stays open; sending it
    /// once more is a duplicate.
    #[error("the decision was not noted in time")]
    NotNoted,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log.
    #[error(transparent)]
    Feed(#[from] FeedError),
}

/// A letter that was sent again.
pub struct Redriven {
    /// Where to.
    pub record: RecordPosition,
    /// Under which id.
    pub event_id: EventId,
    /// What it comes to.
    pub outcome: PendingOutcome,
}

/// What a bulk redrive did.
#[derive(Clone, Copy, Debug, Default)]
pub struct BulkRedriven {
    /// Letters that were sent again.
    pub redriven: u64,
    /// Letters that hold no record to send again, or one that the topic does not take.
    pub skipped: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<BulkPlace>,
}

/// Where a bulk redrive is. Text form `<id of a letter>@<ms>`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BulkPlace {
    /// After this letter.
    pub after: Option<LetterId>,
    /// Only letters that were noted until then (ms since 1970): those that fail again are new
    /// letters, and would keep it going for ever.
    pub until_ms: i64,
}

impl fmt::Display for BulkPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.after {
            Some(id) => write!(f, "{id}@{}", self.until_ms),
            None => write!(f, "@{}", self.until_ms),
        }
    }
}

impl FromStr for BulkPlace {
    type Err = NotALetterId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (after, until_ms) = text.split_once('@').ok_or(NotALetterId)?;
        let after = if after.is_empty() { None } else { Some(after.parse()?) };
        Ok(Self { after, until_ms: until_ms.parse().map_err(|_| NotALetterId)? })
    }
}

/// What the worker is to note.
pub(super) struct Command {
    pub(super) states: Vec<(RecordPosition, LetterState)>,
    pub(super) done: oneshot::Sender<Result<(), StoreError>>,
}

/// The dead letters of one applied topic. Cheap to clone.
#[derive(Clone)]
pub struct Letters {
    feed: Arc<dyn EventLog>,
    store: Arc<dyn Store>,
    /// The applied topic.
    topic: TopicName,
    outcomes: Arc<Outcomes>,
    commands: mpsc::Sender<Command>,
}

impl Letters {
    pub(super) const fn new(
        feed: Arc<dyn EventLog>,
        store: Arc<dyn Store>,
        topic: TopicName,
        outcomes: Arc<Outcomes>,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        Self { feed, store, topic, outcomes, commands }
    }

    /// A page of letters, oldest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn list(
        &self,
        filter: &LetterFilter,
        after: Option<LetterId>,
        limit: usize,
    ) -> Result<LetterPage, LettersError> {
        // No letter can be on a topic whose name is too long.
        let Some(topic) = self.topic.dead_letters() else { return Ok(LetterPage::default()) };
        let after = after.map(|id| place(&topic, id));
        Ok(self.store.letters(&topic, filter, after.as_ref(), limit).await?)
    }

    /// One letter: what is known of it, and the record's bytes.
    ///
    /// # Errors
    /// `NotFound`; the store or the log failed.
    pub async fn show(&self, id: LetterId) -> Result<(StoredLetter, Letter), LettersError> {
        let (place, stored) = self.find(id).await?;
        let letter = self.read_letter(&place, &stored).await?;
        Ok((stored, letter))
    }

    /// Sends a letter's record to the applied topic again: its key, headers and timestamp, and its
    /// value or the mended one. Its state is durable when this returns. One that was redriven is
    /// sent once more only with a value: as it came it would, after a mended one, be another event
    /// of the same id, and so a new letter.
    ///
    /// # Errors
    /// See [`LettersError`].
    pub async fn redrive(
        &self,
        id: LetterId,
        mended: Option<Bytes>,
    ) -> Result<Redriven, LettersError> {
        let (place, stored) = self.find(id).await?;
        let mut letter = self.read_letter(&place, &stored).await?;
        match mended {
            Some(value) => letter.value = Some(value),
            None if stored.state == LetterState::Redriven => return Err(LettersError::Redriven),
            None if !is_record(&letter) => return Err(LettersError::NotARecord(letter.reason)),
            None => (),
        }
        let event_id = letter.redrive_id();
        let outcome = self.outcomes.expect(event_id.clone(), None);
        let record = self.feed.publish(redriven(letter)).await?;
        self.note(vec![(place, LetterState::Redriven)]).await?;
        Ok(Redriven { record, event_id, outcome })
    }

    /// Sends open letters from a place on again, oldest first, at most `BULK_LETTERS_MAX`. One
    /// that was noted later than `now_ms` is older than a clock that was set back.
    ///
    /// # Errors
    /// The store or the log failed; some letters may have been sent again.
    pub async fn redrive_all(
        &self,
        reason: Option<Reason>,
        from: BulkPlace,
        now_ms: i64,
    ) -> Result<BulkRedriven, LettersError> {
        let filter = LetterFilter { reason, state: Some(LetterState::Open) };
        let BulkPlace { after, until_ms } = from;
        let page = self.list(&filter, after, BULK_LETTERS_MAX).await?;
        let next = page.next.as_ref().map(|place| Some(LetterId::of(place)));
        let next = next.map(|after| BulkPlace { after, until_ms });
        let mut done = BulkRedriven { next, ..BulkRedriven::default() };
        let letters = page.letters.into_iter();
        let is_meant = |stored: &StoredLetter| stored.at_ms <= until_ms || now_ms < stored.at_ms;
        let mut left = letters.filter(|(_, stored)| is_meant(stored)).peekable();
        while left.peek().is_some() {
            let (mut group, mut bytes) = (Vec::new(), 0_usize);
            while bytes < BULK_BYTES_MAX
                && let Some((place, stored)) = left.next()
            {
                let letter = self.read_letter(&place, &stored).await?;
                if !is_record(&letter) {
                    done.skipped += 1;
                    continue;
                }
                bytes += letter.record_bytes();
                group.push((place, redriven(letter)));
            }
            let count = group.len();
            let states = self.publish_group(group).await?;
            done.redriven += u64::try_from(states.len()).expect("fits in memory");
            done.skipped += u64::try_from(count - states.len()).expect("fits in memory");
            if !states.is_empty() {
                self.note(states).await?;
            }
        }
        Ok(done)
    }

    /// Publishes letters of a bulk redrive, but for those that the topic does not take: a producer
    /// may have compressed them, and we do not. Returns what is to be noted.
    async fn publish_group(
        &self,
        group: Vec<(RecordPosition, OutboundRecord)>,
    ) -> Result<Vec<(RecordPosition, LetterState)>, FeedError> {
        let noted = |(place, _)| (place, LetterState::Redriven);
        if group.is_empty() {
            return Ok(Vec::new());
        }
        match self.feed.publish_all(group.iter().map(|(_, record)| record.clone()).collect()).await
        {
            Ok(_) => return Ok(group.into_iter().map(noted).collect()),
            Err(FeedError::TooLarge) => (),
            Err(error) => return Err(error),
        }
        // Some may be there already, and are duplicates then.
        let mut states = Vec::new();
        for letter in group {
            match self.feed.publish(letter.1.clone()).await {
                Ok(_) => states.push(noted(letter)),
                Err(FeedError::TooLarge) => (),
                Err(error) => return Err(error),
            }
        }
        Ok(states)
    }

    /// Leaves a letter as it is, for good. Durable when this returns.
    ///
    /// # Errors
    /// `NotFound`, `Redriven`, or the store failed.
    pub async fn dismiss(&self, id: LetterId) -> Result<(), LettersError> {
        let (place, stored) = self.find(id).await?;
        match stored.state {
            LetterState::Dismissed => Ok(()),
            LetterState::Redriven => Err(LettersError::Redriven),
            LetterState::Open => {
                self.note(vec![(place, LetterState::Dismissed)]).await?;
                // A redrive may have been noted before.
                match self.find(id).await?.1.state {
                    LetterState::Redriven => Err(LettersError::Redriven),
                    LetterState::Open | LetterState::Dismissed => Ok(()),
                }
            }
        }
    }

    async fn find(&self, id: LetterId) -> Result<(RecordPosition, StoredLetter), LettersError> {
        let topic = self.topic.dead_letters().ok_or(LettersError::NotFound)?;
        let place = place(&topic, id);
        let stored = self.store.letter(&place).await?.ok_or(LettersError::NotFound)?;
        Ok((place, stored))
    }

    /// The letter's bytes; where they are not on the topic or cannot be read, those at the source;
    /// where retention has taken these, too, none, which are told as omitted.
    async fn read_letter(
        &self,
        place: &RecordPosition,
        stored: &StoredLetter,
    ) -> Result<Letter, LettersError> {
        let letter = self.read_record(place).await?.and_then(|record| Letter::parse(&record));
        // Whatever else came to that place: it is sent to where the letter says.
        let letter = letter.filter(|letter| letter.source == stored.source);
        if let Some(letter) = &letter
            && letter.omitted_bytes.is_none()
        {
            return Ok(letter.clone());
        }
        let why = (stored.reason, stored.detail.as_str());
        let source = match stored.end {
            Some(_) => None,
            None => self.read_record(&stored.source).await?,
        };
        let of_source = source.map(|record| {
            Letter::of_record(&stored.source, &record, stored.event_id.as_ref(), why)
        });
        Ok(of_source.or(letter).unwrap_or_else(|| Letter {
            end: stored.end,
            event_id: stored.event_id.clone(),
            omitted_bytes: Some(stored.value_bytes),
            ..Letter::unreadable(&stored.source, None, why)
        }))
    }

    /// The record at a place; `None` if it cannot be read.
    async fn read_record(&self, place: &RecordPosition) -> Result<Option<FeedRecord>, FeedError> {
        let RecordPosition { topic, partition, offset } = place;
        let (start, end) = self.feed.bounds(topic, *partition).await?;
        if !(start..end).contains(offset) {
            return Ok(None);
        }
        let read = match self.feed.read(topic, *partition, *offset, 1).await {
            // Retention has just taken it.
            Err(FeedError::OutOfRange { .. }) => return Ok(None),
            read => read?,
        };
        let mut items = read.items.into_iter();
        Ok(items.find_map(|item| match item {
            FeedItem::Record(record) if record.offset == *offset => Some(record),
            _ => None,
        }))
    }

    async fn note(&self, states: Vec<(RecordPosition, LetterState)>) -> Result<(), LettersError> {
        let noting = async {
            let (done, noted) = oneshot::channel();
            self.commands.send(Command { states, done }).await.map_err(drop)?;
            noted.await.map_err(drop)
        };
        match timeout(NOTED_TIMEOUT, noting).await {
            Ok(Ok(noted)) => Ok(noted?),
            // The worker is busy with a full disk, or has ended.
            Ok(Err(())) | Err(_) => Err(LettersError::NotNoted),
        }
    }
}

fn place(topic: &TopicName, id: LetterId) -> RecordPosition {
    RecordPosition { topic: topic.clone(), partition: id.partition, offset: id.offset }
}

/// Whether the letter is of a record that was read, not of a damaged batch or a hole, and holds its
/// bytes.
const fn is_record(letter: &Letter) -> bool {
    letter.timestamp_ms.is_some() && letter.omitted_bytes.is_none()
}

/// The record that is sent to the applied topic again.
pub(super) fn redriven(letter: Letter) -> OutboundRecord {
    let event_id = Bytes::copy_from_slice(letter.redrive_id().as_str().as_bytes());
    let Letter { source, timestamp_ms, key, value, mut headers, .. } = letter;
    headers.retain(|(name, _)| name != EVENT_ID_HEADER.as_bytes());
    headers.push((Bytes::from_static(EVENT_ID_HEADER.as_bytes()), Some(event_id)));
    OutboundRecord {
        topic: source.topic,
        partition: Some(source.partition),
        timestamp_ms,
        key,
        value,
        headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_place_and_nothing_else() {
        let id: LetterId = "3-17".parse().unwrap();
        assert_eq!((id.partition.get(), id.offset.get(), id.to_string().as_str()), (3, 17, "3-17"));
        for bad in ["", "3", "-", "3-", "-17", "+3-1", "3--1", "3-1-1", "3-99999999999999999999"] {
            assert_eq!(bad.parse::<LetterId>(), Err(NotALetterId), "{bad}");
        }
    }
}
