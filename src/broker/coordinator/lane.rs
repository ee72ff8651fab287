//! The writes of one group's offsets, in order: one is at `broker.redb`, the rest wait.

use super::{CommitResult, Reply, answer};
use crate::{broker::meta::CommittedOffset, position::TopicPartition};
use std::collections::{BTreeMap, VecDeque};

/// Commits of one group that go to the disk together. They wait for one sync instead of many.
const COMMITS_PER_WRITE_MAX: usize = 256;

pub(super) type Offsets = BTreeMap<TopicPartition, CommittedOffset>;

/// A change of a group's offsets.
#[derive(Debug)]
pub(super) enum Write {
    Commit(Vec<(TopicPartition, CommittedOffset)>, Reply<CommitResult>),
    /// All of them, because the group is deleted.
    DeleteAll(Reply<CommitResult>),
    /// Some, because they are too old or their topic is gone.
    Forget(Vec<TopicPartition>),
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

    /// The next job, if none is at the disk.
    pub(super) fn next_job(&mut self) -> Option<Job> {
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
        let write = self.waiting.pop_front()?;
        let partitions = match &write {
            Write::Forget(partitions) => Some(partitions.clone()),
            Write::Commit(..) | Write::DeleteAll(_) => None,
        };
        self.at_disk.push(write);
        Some(Job::Delete(partitions))
    }

    /// The job is done: `offsets` follow the disk, and whoever waits is answered. Returns the
    /// number of commits that were answered.
    pub(super) fn finish(&mut self, result: CommitResult, offsets: &mut Offsets) -> usize {
        let mut commits = 0;
        for write in self.at_disk.drain(..) {
            let reply = match write {
                Write::Commit(committed, reply) => {
                    commits += 1;
                    if result.is_ok() {
                        offsets.extend(committed);
                    }
                    Some(reply)
                }
                Write::DeleteAll(reply) => {
                    if result.is_ok() {
                        offsets.clear();
                    }
                    Some(reply)
                }
                Write::Forget(partitions) => {
                    if result.is_ok() {
                        partitions.iter().for_each(|at| drop(offsets.remove(at)));
                    }
                    None
                }
            };
            if let Some(reply) = reply {
                answer(reply, result);
            }
        }
        commits
    }
}
