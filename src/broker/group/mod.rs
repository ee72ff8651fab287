//! One classic consumer group as a pure state machine: `(event, now) -> effects`.
//!
//! | state | meaning |
//! |---|---|
//! | Empty | no members; committed offsets may be left |
//! | PreparingRebalance | waits until every member has joined again |
//! | CompletingRebalance | a new generation waits for its leader's assignment |
//! | Stable | every member has its assignment |
//! | Dead | does not exist (only ever described) |
//!
//! It reads no clock and answers nobody: `now` comes with each event, as time since the coordinator
//! started, and each answer is an [`Effect`] for the [`Ticket`] of the request.
//!
//! Invariants: the generation only rises; a group with members has exactly one leader, which is
//! a member; every ticket is answered exactly once, at the latest when a deadline passes.
//!
//! Source: Kafka protocol guide; KIP-62 (rebalance timeout), KIP-345 (static members), KIP-394
//! (member id required), KIP-814 (skip assignment).

mod join;
mod membership;
mod rebalance;
mod sync;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use crate::wire::ErrorCode;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// A member's id, given by the coordinator.
pub type MemberId = Arc<str>;

/// Shortest session timeout that is taken (Kafka's `group.min.session.timeout.ms`).
pub const SESSION_TIMEOUT_MIN: Duration = Duration::from_secs(6);
/// Longest session timeout that is taken (Kafka's `group.max.session.timeout.ms`).
pub const SESSION_TIMEOUT_MAX: Duration = Duration::from_secs(30 * 60);
/// How long a new member may wait in its first rebalance before it is dropped.
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// A shorter rebalance timeout would postpone a rebalance by nothing, again and again.
const REBALANCE_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// What a member costs beside its texts.
const MEMBER_BYTES: usize = 512;
/// What a protocol of a member costs beside its texts.
const PROTOCOL_BYTES: usize = 96;
/// What an id costs that was given out and not used yet.
const PENDING_ID_BYTES: usize = 512;

/// Bounds of one group.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most members.
    pub members_max: usize,
    /// Most member ids that were given out and have not joined yet.
    pub pending_members_max: usize,
    /// Most bytes of metadata and assignments.
    pub bytes_max: usize,
}

/// Names one request that waits for its answer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// Where a group stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// No members.
    Empty,
    /// Members join.
    PreparingRebalance,
    /// The leader assigns.
    CompletingRebalance,
    /// Members work.
    Stable,
    /// There is no such group.
    Dead,
}

impl State {
    /// Kafka's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// A way to assign partitions that a member knows, with what it says about itself in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Protocol {
    /// Its name, such as `range`.
    pub name: Arc<str>,
    /// The member's subscription, opaque to the coordinator.
    pub metadata: Bytes,
}

/// Who speaks: the id that the coordinator gave, and the id that the user gave, if any.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// Empty if the coordinator gave none yet.
    pub member_id: String,
    /// `group.instance.id`, of static members.
    pub instance_id: Option<Arc<str>>,
}

/// A JoinGroup request.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Who joins.
    pub identity: Identity,
    /// The id that a new member gets; no other member may have it.
    pub fresh_member_id: MemberId,
    /// What the client calls itself.
    pub client_id: Arc<str>,
    /// Where it connects from.
    pub client_host: Arc<str>,
    /// Silence after which the member is dropped.
    pub session_timeout: Duration,
    /// How long a rebalance waits for this member.
    pub rebalance_timeout: Duration,
    /// `consumer`, `connect`, ...
    pub protocol_type: Arc<str>,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    /// Whether a new dynamic member has to come back with its id (JoinGroup 4 and newer).
    pub requires_known_id: bool,
    /// Whether a static leader that returns can be told to skip the assignment (JoinGroup 9).
    pub can_skip_assignment: bool,
}

/// What the leader learns of a member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: MemberId,
    /// Its static id.
    pub instance_id: Option<Arc<str>>,
    /// Its metadata for the protocol that was chosen.
    pub metadata: Bytes,
}

/// A JoinGroup answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Joined {
    /// The new generation.
    pub generation: i32,
    /// The group's type.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol that was chosen.
    pub protocol: Option<Arc<str>>,
    /// Who assigns.
    pub leader: MemberId,
    /// Whether the leader keeps the assignment that there is.
    pub skip_assignment: bool,
    /// The member's own id.
    pub member_id: MemberId,
    /// All members, for the leader; else none.
    pub members: Vec<JoinedMember>,
}

/// Why a member did not join.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinRefused {
    /// Kafka's code.
    pub error: ErrorCode,
    /// The member id in the answer: the one to come back with, or the request's own.
    pub member_id: MemberId,
}

/// The answer to JoinGroup.
pub type JoinReply = Result<Joined, JoinRefused>;

/// A SyncGroup request.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// Who asks.
    pub identity: Identity,
    /// The generation that it joined.
    pub generation: i32,
    /// The group's type as the member knows it.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol as the member knows it.
    pub protocol: Option<Arc<str>>,
    /// From the leader: what each member gets.
    pub assignments: Vec<(String, Bytes)>,
}

/// A SyncGroup answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Synced {
    /// The group's type.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol that was chosen.
    pub protocol: Option<Arc<str>>,
    /// What the member gets.
    pub assignment: Bytes,
}

/// The answer to SyncGroup.
pub type SyncReply = Result<Synced, ErrorCode>;

/// What is to be done after an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Answer a JoinGroup.
    Join(Ticket, JoinReply),
    /// Answer a SyncGroup.
    Sync(Ticket, SyncReply),
}

/// A member as DescribeGroups shows it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DescribedMember {
    /// Its id.
    pub member_id: String,
    /// Its static id.
    pub instance_id: Option<Arc<str>>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from, with Kafka's leading slash.
    pub client_host: String,
    /// Its metadata; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment; empty unless the group is stable.
    pub assignment: Bytes,
}

/// A group as DescribeGroups shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Description {
    /// Where it stands.
    pub state: State,
    /// Its type; empty if it never had members.
    pub protocol_type: String,
    /// The protocol; empty unless it is stable.
    pub protocol: String,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

#[derive(Debug)]
struct Member {
    instance_id: Option<Arc<str>>,
    client_id: Arc<str>,
    client_host: Arc<str>,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    protocols: Vec<Protocol>,
    assignment: Bytes,
    /// The JoinGroup that waits.
    joining: Option<Ticket>,
    /// The SyncGroup that waits.
    syncing: Option<Ticket>,
    /// Has not asked for its assignment in this generation.
    owes_sync: bool,
    /// Its first rebalance is not over.
    is_new: bool,
    /// When the session ends unless the member is heard before.
    expires_at: Duration,
}

/// One group. See the module's head.
#[derive(Debug)]
pub struct Group {
    limits: Limits,
    state: State,
    generation: i32,
    protocol_type: Option<Arc<str>>,
    protocol: Option<Arc<str>>,
    leader: Option<MemberId>,
    members: BTreeMap<MemberId, Member>,
    static_members: HashMap<Arc<str>, MemberId>,
    /// Ids that were given out, and until when they hold.
    pending: BTreeMap<MemberId, Duration>,
    /// When a rebalance stops waiting for members.
    join_deadline: Option<Duration>,
    /// When members that have not synced are dropped.
    sync_deadline: Option<Duration>,
    bytes: usize,
    effects: Vec<Effect>,
}

impl Group {
    /// A group without members.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            pending: BTreeMap::new(),
            join_deadline: None,
            sync_deadline: None,
            bytes: 0,
            effects: Vec::new(),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The group's type, once it had a member.
    pub fn protocol_type(&self) -> Option<&Arc<str>> {
        self.protocol_type.as_ref()
    }

    /// Whether nobody is in it, nor about to join.
    pub fn is_deserted(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// Whether somebody is in it.
    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Bytes that it holds: members with their metadata and assignments, and ids given out.
    pub fn bytes(&self) -> usize {
        self.bytes + self.pending.len() * PENDING_ID_BYTES
    }

    /// The group as DescribeGroups shows it.
    pub fn describe(&self) -> Description {
        let is_stable = self.state == State::Stable;
        let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
        let members = self.members.iter().map(|(id, member)| DescribedMember {
            member_id: id.as_ref().to_owned(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.as_ref().to_owned(),
            client_host: member.client_host.as_ref().to_owned(),
            metadata: if is_stable { self.metadata_of(member) } else { Bytes::new() },
            assignment: if is_stable { member.assignment.clone() } else { Bytes::new() },
        });
        Description {
            state: self.state,
            protocol_type: text(&self.protocol_type),
            protocol: if is_stable { text(&self.protocol) } else { String::new() },
            members: members.collect(),
        }
    }

    /// When [`Group::expire`] has something to do at the earliest.
    pub fn next_deadline(&self) -> Option<Duration> {
        let sessions = self.members.values().filter_map(Member::session_end);
        let ids = self.pending.values().copied();
        let phases = [self.join_deadline, self.sync_deadline].into_iter().flatten();
        sessions.chain(ids).chain(phases).min()
    }
}

impl Member {
    /// When it is dropped for silence. A member whose request waits here is not silent, but a new
    /// one does not wait for ever.
    fn session_end(&self) -> Option<Duration> {
        let waits_here = self.joining.is_some() || self.syncing.is_some();
        (self.is_new || !waits_here).then_some(self.expires_at)
    }

    fn knows(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|known| known.name.as_ref() == protocol)
    }

    fn hear(&mut self, now: Duration) {
        self.expires_at = now.saturating_add(self.session_timeout);
    }

    fn bytes(&self) -> usize {
        let names = [Some(&self.client_id), Some(&self.client_host), self.instance_id.as_ref()];
        names.into_iter().flatten().map(|name| name.len()).sum::<usize>()
            + MEMBER_BYTES
            + protocol_bytes(&self.protocols)
            + self.assignment.len()
    }
}

fn protocol_bytes(protocols: &[Protocol]) -> usize {
    let one = |protocol: &Protocol| protocol.name.len() + protocol.metadata.len() + PROTOCOL_BYTES;
    protocols.iter().map(one).sum()
}
