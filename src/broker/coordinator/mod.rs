//! The group coordinator: one owner worker runs every group ([`super::group`]), their timers, and
//! their committed offsets.
//!
//! A request is a command with a `oneshot`; JoinGroup and SyncGroup may be answered by a later
//! event. Offset commits go through `broker.redb` without holding up the worker: one write at a
//! time for each group, so that their order is kept, answered and visible once durable.
//!
//! Bounds: the inbox, groups, members and pending ids of a group, bytes of a group and of all
//! groups, bytes of committed offsets, commits that wait and their bytes. A client that is gone
//! costs its ticket until the group answers it.
//!
//! Offsets of a topic that is deleted go with it: those that are durable, those that wait, those
//! that come later from a client that does not know yet, and those that a crash left behind.
//!
//! Membership is not kept over a restart: members are told UNKNOWN_MEMBER_ID and join again.

mod lane;
mod reserved;
mod worker;

#[cfg(test)]
pub(in crate::broker) mod tests;

use super::{
    group::{
        Description, Identity, JoinRefused, JoinReply, JoinRequest, Limits, SyncReply, SyncRequest,
    },
    meta::{CommittedOffset, Meta, MetaError},
};
use crate::{
    clock::Clock,
    position::{Offset, TopicName, TopicPartition},
    wire::ErrorCode,
};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Commands that wait for the worker; more wait with their connections.
const INBOX_MAX: usize = 1024;
/// Longest group id in bytes.
pub const GROUP_ID_BYTES_MAX: usize = 1024;

/// How the coordinator runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The daemon's own group: shown, never to be joined, committed to or deleted.
    pub reserved_group: String,
    /// Most groups.
    pub groups_max: usize,
    /// Bounds of each group.
    pub group: Limits,
    /// Most bytes of metadata and assignments in all groups together.
    pub bytes_max: usize,
    /// Most offset commits that wait for `broker.redb`.
    pub commits_pending_max: usize,
    /// Most bytes of offsets that wait for `broker.redb`.
    pub commit_bytes_pending_max: usize,
    /// Most bytes of committed offsets in all groups together, with their clients' words.
    pub offset_bytes_max: usize,
    /// How long offsets are kept after their group became empty.
    pub offsets_retention: Duration,
    /// How often old offsets and groups are looked for.
    pub retention_check: Duration,
}

impl Options {
    /// The defaults, for a daemon whose own group has this name.
    pub fn new(reserved_group: &str) -> Self {
        Self {
            reserved_group: reserved_group.to_owned(),
            groups_max: 10_000,
            group: Limits { members_max: 1000, pending_members_max: 1000, bytes_max: 16 << 20 },
            bytes_max: 64 << 20,
            commits_pending_max: 4096,
            commit_bytes_pending_max: 32 << 20,
            offset_bytes_max: 64 << 20,
            offsets_retention: Duration::from_secs(7 * 24 * 60 * 60),
            retention_check: Duration::from_secs(10 * 60),
        }
    }
}

/// Where the daemon's own group stands. Shared: the broker writes, the coordinator reads.
#[derive(Clone, Debug, Default)]
pub struct ReservedProgress(Arc<Mutex<BTreeMap<TopicPartition, Offset>>>);

impl ReservedProgress {
    /// Says that everything below `processed` is done.
    pub fn report(&self, at: TopicPartition, processed: Offset) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(at, processed);
    }

    /// Every partition that the group works on.
    pub fn snapshot(&self) -> BTreeMap<TopicPartition, Offset> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What an offset commit says about its sender.
#[derive(Clone, Debug, Default)]
pub struct Committer {
    /// Who commits; empty for a commit without membership.
    pub identity: Identity,
    /// Its generation; negative without membership.
    pub generation: i32,
}

/// An offset to be committed; the coordinator adds the time.
#[derive(Clone, Debug)]
pub struct NewOffset {
    /// Next offset to read.
    pub offset: Offset,
    /// Leader epoch the client knew; -1 if none.
    pub leader_epoch: i32,
    /// The client's own words, bounded by the handler.
    pub metadata: String,
}

/// One line of ListGroups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListedGroup {
    /// Its id.
    pub group: String,
    /// Its type; empty if it never had members.
    pub protocol_type: String,
    /// Kafka's name of its state.
    pub state: &'static str,
}

/// Committed offsets; `None` where there is none.
pub type FetchedOffsets = Vec<(TopicPartition, Option<CommittedOffset>)>;

/// Handle of the worker. Cheap to clone; the worker ends with the last clone, after its writes.
#[derive(Clone, Debug)]
pub struct Coordinator {
    inbox: mpsc::Sender<Command>,
    reserved: Arc<str>,
}

/// What the coordinator has to be told of the rest of the broker.
#[derive(Clone)]
pub struct Facts {
    /// Where the daemon's own group stands.
    pub progress: ReservedProgress,
    /// Whether there is such a partition now.
    pub has_partition: Arc<dyn Fn(&TopicPartition) -> bool + Send + Sync>,
}

/// Loads the committed offsets and starts the worker.
///
/// # Errors
/// `broker.redb` cannot be read.
pub fn start(
    options: Options,
    meta: Meta,
    clock: Clock,
    facts: Facts,
) -> Result<Coordinator, MetaError> {
    let offsets = meta.load_offsets()?;
    let offsets = offsets.into_iter().map(|(group, topic, partition, committed)| {
        (group, TopicPartition { topic, partition }, committed)
    });
    Ok(start_with(options, meta, clock, (facts, offsets.collect())))
}

fn start_with<S: OffsetStore>(
    options: Options,
    store: S,
    clock: Clock,
    (facts, offsets): (Facts, Vec<(String, TopicPartition, CommittedOffset)>),
) -> Coordinator {
    let (inbox, commands) = mpsc::channel(INBOX_MAX);
    let reserved = Arc::from(options.reserved_group.as_str());
    let mut worker = worker::Worker::new(options, store, clock, facts);
    worker.load(offsets);
    // Its keeper is `Coordinator::ended`: a worker that panics drops its inbox.
    drop(tokio::spawn(worker.run(commands)));
    Coordinator { inbox, reserved }
}

/// Where committed offsets are kept. A trait so that the worker runs without a disk in tests.
trait OffsetStore: Clone + Send + Sync + 'static {
    fn commit(
        &self,
        group: Arc<str>,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> impl Future<Output = Result<(), MetaError>> + Send;

    /// Deletes these, or all with `None`.
    fn delete(
        &self,
        group: Arc<str>,
        partitions: Option<Vec<TopicPartition>>,
    ) -> impl Future<Output = Result<(), MetaError>> + Send;
}

impl OffsetStore for Meta {
    async fn commit(
        &self,
        group: Arc<str>,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<(), MetaError> {
        self.commit_offsets(&group, offsets).await
    }

    async fn delete(
        &self,
        group: Arc<str>,
        partitions: Option<Vec<TopicPartition>>,
    ) -> Result<(), MetaError> {
        self.delete_offsets(&group, partitions).await
    }
}

type Reply<T> = oneshot::Sender<T>;

#[derive(Debug)]
enum Command {
    Join(Arc<str>, JoinRequest, Reply<JoinReply>),
    Sync(Arc<str>, SyncRequest, Reply<SyncReply>),
    Heartbeat(Arc<str>, Committer, Reply<Result<(), ErrorCode>>),
    Leave(Arc<str>, Vec<Identity>, Reply<Result<LeaveResults, ErrorCode>>),
    Commit(Arc<str>, Committer, Vec<(TopicPartition, NewOffset)>, Reply<CommitResult>),
    Fetch(Arc<str>, Option<Vec<TopicPartition>>, Reply<FetchedOffsets>),
    Describe(Arc<str>, Reply<Description>),
    List(Reply<Vec<ListedGroup>>),
    Delete(Arc<str>, Reply<CommitResult>),
    Forget(TopicName),
}

/// One result for each leaver, in order.
pub type LeaveResults = Vec<Result<(), ErrorCode>>;
/// Whether a write of offsets is durable.
pub type CommitResult = Result<(), ErrorCode>;

impl Coordinator {
    /// Waits until the worker has ended, be it by a panic. Cancel safe.
    pub async fn ended(&self) {
        self.inbox.closed().await;
    }

    /// JoinGroup.
    ///
    /// # Errors
    /// In the reply: why the member did not join.
    pub async fn join(&self, group: &str, request: JoinRequest) -> JoinReply {
        let member_id: Arc<str> = Arc::from(request.identity.member_id.as_str());
        let refuse = |error| JoinRefused { error, member_id: member_id.clone() };
        let group = self.membership_id(group).map_err(refuse)?;
        let sent = self.ask(|reply| Command::Join(group, request, reply)).await;
        sent.map_err(refuse)?
    }

    /// SyncGroup.
    ///
    /// # Errors
    /// Why there is no assignment.
    pub async fn sync(&self, group: &str, request: SyncRequest) -> SyncReply {
        let group = self.membership_id(group)?;
        self.ask(|reply| Command::Sync(group, request, reply)).await?
    }

    /// Heartbeat.
    ///
    /// # Errors
    /// What the member has to do.
    pub async fn heartbeat(&self, group: &str, member: Committer) -> Result<(), ErrorCode> {
        let group = self.membership_id(group)?;
        self.ask(|reply| Command::Heartbeat(group, member, reply)).await?
    }

    /// LeaveGroup.
    ///
    /// # Errors
    /// The request as a whole is refused; else each leaver has a result of its own.
    pub async fn leave(
        &self,
        group: &str,
        leavers: Vec<Identity>,
    ) -> Result<LeaveResults, ErrorCode> {
        let group = self.membership_id(group)?;
        self.ask(|reply| Command::Leave(group, leavers, reply)).await?
    }

    /// OffsetCommit, all or none. Returns when durable.
    ///
    /// # Errors
    /// Why nothing was committed.
    pub async fn commit(
        &self,
        group: &str,
        committer: Committer,
        offsets: Vec<(TopicPartition, NewOffset)>,
    ) -> CommitResult {
        let group = self.membership_id(group)?;
        self.ask(|reply| Command::Commit(group, committer, offsets, reply)).await?
    }

    /// OffsetFetch; every committed offset with `None`. A group that does not exist has none.
    ///
    /// # Errors
    /// The broker stops.
    pub async fn fetch(
        &self,
        group: &str,
        partitions: Option<Vec<TopicPartition>>,
    ) -> Result<FetchedOffsets, ErrorCode> {
        self.ask(|reply| Command::Fetch(Arc::from(group), partitions, reply)).await
    }

    /// DescribeGroups, for one group; `Dead` if it does not exist.
    ///
    /// # Errors
    /// The broker stops.
    pub async fn describe(&self, group: &str) -> Result<Description, ErrorCode> {
        self.ask(|reply| Command::Describe(Arc::from(group), reply)).await
    }

    /// ListGroups, in order of their ids.
    ///
    /// # Errors
    /// The broker stops.
    pub async fn list(&self) -> Result<Vec<ListedGroup>, ErrorCode> {
        self.ask(Command::List).await
    }

    /// DeleteGroups, for one group: its offsets and itself.
    ///
    /// # Errors
    /// Why it is still there.
    pub async fn delete(&self, group: &str) -> CommitResult {
        if *group == *self.reserved {
            return Err(ErrorCode::GroupAuthorizationFailed);
        }
        self.ask(|reply| Command::Delete(Arc::from(group), reply)).await?
    }

    /// Drops the offsets that groups committed for a topic that was deleted.
    pub async fn forget_topic(&self, topic: &TopicName) {
        // A coordinator that has ended has nothing to forget.
        drop(self.inbox.send(Command::Forget(topic.clone())).await);
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        let stops = |()| ErrorCode::CoordinatorNotAvailable;
        self.inbox.send(command(reply)).await.map_err(|_| stops(()))?;
        answer.await.map_err(|_| stops(()))
    }

    fn membership_id(&self, group: &str) -> Result<Arc<str>, ErrorCode> {
        if group.is_empty() || group.len() > GROUP_ID_BYTES_MAX {
            return Err(ErrorCode::InvalidGroupId);
        }
        if *group == *self.reserved {
            return Err(ErrorCode::GroupAuthorizationFailed);
        }
        Ok(Arc::from(group))
    }
}

fn answer<T>(reply: Reply<T>, value: T) {
    // Losing the answer is right: the client has gone.
    drop(reply.send(value));
}
