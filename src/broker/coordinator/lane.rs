//! The writes of one group's offsets, in order: one is at `broker.redb`, the rest wait.

use super::{CommitResult, Reply, answer};
use crate::{
    broker::meta::CommittedOffset,
    position::{TopicName, TopicPartition},
};
use std::collections::{BTreeMap, VecDeque};

/// Commits of one group that go to the disk together. They wait for one sync instead of many.
const COMMITS_PER_WRITE_MAX: usize = 256;

/// What a committed offset costs beside its texts.
const OFFSET_BYTES: usize = 128;

/// The committed offsets of one group, and what they cost.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    by_place: BTreeMap<TopicPartition, CommittedOffset>,
    bytes: usize,
}

impl Offsets {
    pub(super) fn insert(&mut self, at: TopicPartition, committed: CommittedOffset) {
        self.remove(&at);
        self.bytes += cost(&at, &committed.metadata);
        self.by_place.insert(at, committed);
    }

    fn remove(&mut self, at: &TopicPartition) {
        if let Some(old) = self.by_place.remove(at) {
            self.bytes -= cost(at, &old.metadata);
        }
    }

    pub(super) fn get(&self, at: &TopicPartition) -> Option<&CommittedOffset> {
        self.by_place.get(at)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &CommittedOffset)> {
        self.by_place.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// What they cost in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What an offset costs in memory, with its client's words.
pub(super) fn cost(at: &TopicPartition, metadata: &str) -> usize {
    OFFSET_BYTES + at.topic.as_str().len() + metadata.len()
}

/// A change of a group's offsets.
#[derive(Debug)]
pub(super) enum Write {
    Commit(Vec<(TopicPartition, CommittedOffset)>, Reply<CommitResult>),
    /// All of them, because the group is deleted.
    DeleteAll(Reply<CommitResult>),
    /// Some, because they are too old or their topic is gone.
    Forget(Vec<TopicPartition>),
    /// All of a topic that is gone, those of commits that wait before it among them.
    ForgetTopic(TopicName),
}

/// What `broker.redb` is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    Commit(Vec<(TopicPartition, CommittedOffset)>),
    Delete(Option<Vec<TopicPartition>>),
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    waiting: VecDeque<Write>,
    at_disk: Vec<Write>,
}

impl Lane {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.at_disk.is_empty()
    }

    pub(super) fn push(&mut self, write: Write) {
        self.waiting.push_back(write);
    }

    /// The next job, if none is at the disk; `offsets` are those that are durable.
    pub(super) fn next_job(&mut self, offsets: &Offsets) -> Option<Job> {
        if !self.at_disk.is_empty() {
            return None;
        }
        let mut together = Vec::new();
        while self.at_disk.len() < COMMITS_PER_WRITE_MAX {
            let Some(Write::Commit(..)) = self.waiting.front() else { break };
            let Some(write) = self.waiting.pop_front() else { break };
            if let Write::Commit(offsets, _) = &write {
                together.extend(offsets.iter().cloned());
            }
            self.at_disk.push(write);
        }
        if !self.at_disk.is_empty() {
            return Some(Job::Commit(together));
        }
        let mut write = self.waiting.pop_front()?;
        if let Write::ForgetTopic(topic) = &write {
            let of_topic = offsets.iter().filter(|(at, _)| at.topic == *topic);
            write = Write::Forget(of_topic.map(|(at, _)| at.clone()).collect());
        }
        let partitions = match &write {
            Write::Forget(partitions) => Some(partitions.clone()),
            Write::ForgetTopic(_) | Write::Commit(..) | Write::DeleteAll(_) => None,
        };
        self.at_disk.push(write);
        Some(Job::Delete(partitions))
    }

    /// The job is done: `offsets` follow the disk, and whoever waits is answered.
    pub(super) fn finish(&mut self, result: CommitResult, offsets: &mut Offsets) -> Pending {
        let mut done = Pending::default();
        for write in self.at_disk.drain(..) {
            let reply = match write {
                Write::Commit(committed, reply) => {
                    done.commits += 1;
                    done.bytes += cost_of(&committed);
                    if result.is_ok() {
                        committed.into_iter().for_each(|(at, offset)| offsets.insert(at, offset));
                    }
                    Some(reply)
                }
                Write::DeleteAll(reply) => {
                    if result.is_ok() {
                        *offsets = Offsets::default();
                    }
                    Some(reply)
                }
                Write::Forget(partitions) => {
                    if result.is_ok() {
                        partitions.iter().for_each(|at| offsets.remove(at));
                    }
                    None
                }
                // Became the one above when it went to the disk.
                Write::ForgetTopic(_) => None,
            };
            if let Some(reply) = reply {
                answer(reply, result);
            }
        }
        done
    }
}

/// Commits that wait for the disk.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) commits: usize,
    pub(super) bytes: usize,
}

/// What the offsets of one commit cost in memory.
pub(super) fn cost_of(committed: &[(TopicPartition, CommittedOffset)]) -> usize {
    committed.iter().map(|(at, offset)| cost(at, &offset.metadata)).sum()
}
