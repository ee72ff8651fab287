//! One session's place in its user's changes.

use super::{Hub, message, recent::Found, recent::Listener};
use crate::{
    position::Position,
    store::{PAGE_ROWS_MAX, StoreError},
    task::UserId,
};
use bytes::Bytes;
use std::sync::Arc;

/// Most bytes of messages at a time, unless a single message is longer.
const NEXT_BYTES_MAX: usize = 64 * 1024;

/// What a session has next.
#[derive(Debug)]
pub enum Next {
    /// Whole JSON documents with their `pos`, in order; at most about 64 KiB at a time.
    Messages(Vec<Bytes>),
    /// All that had been published when [`Session::mark`] was called has been returned.
    Mark,
    /// What comes next was trimmed away. The client reads its tasks anew; the session goes on from
    /// here.
    Resync(Position),
}

/// One authenticated listener: a place in its user's changes. Dropping it ends it.
pub struct Session {
    hub: Hub,
    user_id: UserId,
    listener: Arc<Listener>,
    slot: usize,
    /// All of the user's changes up to here have been returned.
    cursor: u64,
    /// Where to return [`Next::Mark`].
    mark: Option<u64>,
}

/// Looks at a session's place without holding it.
#[derive(Clone)]
pub struct SessionView {
    listener: Arc<Listener>,
    slot: usize,
}

impl SessionView {
    /// All of its user's changes up to here were handed over; 0 once the session has ended.
    pub fn sequence(&self) -> u64 {
        self.listener.lock().cursor(self.slot).unwrap_or(0)
    }
}

impl Session {
    /// The slot was taken on the listener under the same cursor.
    pub(super) const fn new(
        hub: Hub,
        user_id: UserId,
        listener: Arc<Listener>,
        (slot, cursor): (usize, u64),
    ) -> Self {
        Self { hub, user_id, listener, slot, cursor, mark: None }
    }

    /// Makes [`Self::next`] tell once when all that is published by now has been returned. A later
    /// mark takes the place of one that was not reached.
    pub fn mark(&mut self) {
        self.mark = Some(self.hub.published());
    }

    /// The next messages, or the mark; waits until there is something. Cancel safe: what was not
    /// returned is returned next time.
    ///
    /// # Errors
    /// The store failed.
    pub async fn next(&mut self) -> Result<Next, StoreError> {
        let listener = Arc::clone(&self.listener);
        loop {
            // Also while others keep publishing.
            if self.mark.take_if(|mark| *mark <= self.cursor).is_some() {
                return Ok(Next::Mark);
            }
            // Before looking, so that no change falls between the look and the wait.
            let changed = listener.changed.notified();
            match self.look() {
                // The mark was published before: caught up is beyond it.
                Found::CaughtUp if self.mark.take().is_some() => return Ok(Next::Mark),
                Found::CaughtUp => changed.await,
                Found::Messages(messages, last) => {
                    self.advance(last);
                    return Ok(self.counted(messages));
                }
                Found::Older => match self.read_store().await? {
                    Next::Messages(messages) if messages.is_empty() => (),
                    Next::Messages(messages) => return Ok(self.counted(messages)),
                    next => return Ok(next),
                },
            }
        }
    }

    fn counted(&self, messages: Vec<Bytes>) -> Next {
        self.hub.count_messages(messages.len());
        Next::Messages(messages)
    }

    /// Another's look at where it is.
    pub fn view(&self) -> SessionView {
        SessionView { listener: Arc::clone(&self.listener), slot: self.slot }
    }

    /// Where it is.
    pub fn position(&self) -> Position {
        self.hub.store().position_of(self.cursor)
    }

    /// Changes of all users that were published and that this session has not come to.
    pub fn lag(&self) -> u64 {
        self.hub.published().saturating_sub(self.cursor)
    }

    /// Goes on after `position`, whose changes the client has by other means. Never back, and only
    /// within the store's life that the position is of.
    pub fn skip_to(&mut self, position: Position) {
        if position.sequence > self.cursor {
            self.advance(position.sequence);
        }
    }

    /// What memory has. Caught up, the cursor moves on with what others were told.
    fn look(&mut self) -> Found {
        // Read first: of what is published up to here, memory has all that is ours.
        let published = self.hub.published();
        let mut recent = self.listener.lock();
        let found = recent.after(self.cursor, NEXT_BYTES_MAX);
        if let Found::Messages(_, last) = &found
            && let Some(waited) = recent.waited(*last)
        {
            self.hub.count_delivery(waited);
        }
        if matches!(found, Found::CaughtUp) && published > self.cursor {
            self.cursor = published;
            recent.seen(self.slot, published);
        }
        found
    }

    fn advance(&mut self, cursor: u64) {
        self.cursor = cursor;
        self.listener.lock().seen(self.slot, cursor);
    }

    /// The next messages from the store; none if none are left there.
    async fn read_store(&mut self) -> Result<Next, StoreError> {
        let store = self.hub.store();
        let page = store.changes(&self.user_id, self.cursor, PAGE_ROWS_MAX, NEXT_BYTES_MAX).await?;
        // After the read: what it missed has raised this before.
        if self.cursor < store.earliest().sequence {
            let head = store.head();
            self.advance(head.sequence);
            self.hub.count_resync();
            return Ok(Next::Resync(head));
        }
        let encode = |change: &crate::store::StoredChange| {
            message::with_position(&change.message, store.position_of(change.sequence))
        };
        let messages = page.changes.iter().map(encode).collect();
        self.advance(page.seen_to);
        Ok(Next::Messages(messages))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hub.end(&self.user_id, &self.listener, self.slot);
    }
}
