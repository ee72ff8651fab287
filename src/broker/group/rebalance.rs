//! Rebalances: begin, wait for the members, elect, choose the protocol, end.

use super::{Effect, Group, JoinedMember, Member, MemberId, State};
use crate::wire::ErrorCode;
use bytes::Bytes;
use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

impl Group {
    /// Begins a rebalance, or sees whether the one that is open can end.
    pub(super) fn rebalance(&mut self, now: Duration) {
        if self.state != State::PreparingRebalance {
            self.abandon_assignment(now);
            self.state = State::PreparingRebalance;
            self.join_deadline = None;
        }
        self.complete_or_wait(now);
    }

    /// Ends the rebalance if everyone is there, and else waits for the slowest member's timeout.
    pub(super) fn complete_or_wait(&mut self, now: Duration) {
        let is_complete =
            self.pending.is_empty() && self.members.values().all(|m| m.joining.is_some());
        if is_complete || self.members.is_empty() {
            self.complete(now);
        } else if self.join_deadline.is_none() {
            self.join_deadline = Some(now.saturating_add(self.rebalance_timeout()));
        }
    }

    /// The next generation, of those who joined.
    pub(super) fn complete(&mut self, now: Duration) {
        self.join_deadline = None;
        for id in self.ids_of(|member| member.joining.is_none() && member.instance_id.is_none()) {
            self.remove_member(&id);
        }
        if !self.members.is_empty() && !self.elect() {
            // Only static members are left, and none has joined: they keep their places for now.
            self.join_deadline = Some(now.saturating_add(self.rebalance_timeout()));
            return;
        }
        self.generation = self.generation.saturating_add(1);
        if self.members.is_empty() {
            self.state = State::Empty;
            self.protocol = None;
            self.leader = None;
            return;
        }
        self.protocol = self.select_protocol();
        self.state = State::CompletingRebalance;
        self.answer_joins(now);
        self.sync_deadline = Some(now.saturating_add(self.rebalance_timeout()));
    }

    fn answer_joins(&mut self, now: Duration) {
        let mut waiting = Vec::new();
        for (id, member) in &mut self.members {
            waiting.extend(member.joining.take().map(|ticket| (ticket, id.clone())));
            member.hear(now);
            member.is_new = false;
            member.owes_sync = true;
        }
        for (ticket, id) in waiting {
            let is_leader = self.leader.as_ref() == Some(&id);
            let members = if is_leader { self.joined_members() } else { Vec::new() };
            let joined = self.joined(&id, members);
            self.effects.push(Effect::Join(ticket, Ok(joined)));
        }
    }

    /// Takes back what the leader of this generation has or has not assigned.
    fn abandon_assignment(&mut self, now: Duration) {
        self.sync_deadline = None;
        let is_completing = self.state == State::CompletingRebalance;
        for member in self.members.values_mut() {
            member.owes_sync = false;
            if !is_completing {
                continue;
            }
            self.bytes -= mem::take(&mut member.assignment).len();
            if let Some(ticket) = member.syncing.take() {
                member.hear(now);
                self.effects.push(Effect::Sync(ticket, Err(ErrorCode::RebalanceInProgress)));
            }
        }
    }

    /// Whether there is a leader that has joined; one is chosen if the old one has not.
    fn elect(&mut self) -> bool {
        let has_joined = |id: &MemberId| self.members.get(id).is_some_and(|m| m.joining.is_some());
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        let joined = self.members.iter().find(|(_, member)| member.joining.is_some());
        let Some((id, _)) = joined else { return false };
        self.leader = Some(id.clone());
        true
    }

    /// The protocol that all know and most prefer; of equals the first by name.
    pub(super) fn select_protocol(&self) -> Option<Arc<str>> {
        let common = self.common_protocols();
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().find(|p| common.contains(p.name.as_ref()));
            if let Some(protocol) = vote {
                *votes.entry(&protocol.name).or_default() += 1;
            }
        }
        // `max_by_key` takes the last of equals, hence the reversed order.
        votes.into_iter().rev().max_by_key(|(_, count)| *count).map(|(name, _)| name.clone())
    }

    pub(super) fn joined_members(&self) -> Vec<JoinedMember> {
        let members = self.members.iter().map(|(id, member)| JoinedMember {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: self.metadata_of(member),
        });
        members.collect()
    }

    pub(super) fn metadata_of(&self, member: &Member) -> Bytes {
        let chosen = member.protocols.iter().find(|p| Some(&p.name) == self.protocol.as_ref());
        chosen.map(|protocol| protocol.metadata.clone()).unwrap_or_default()
    }

    pub(super) fn ids_of(&self, is_meant: impl Fn(&Member) -> bool) -> Vec<MemberId> {
        let meant = self.members.iter().filter(|(_, member)| is_meant(member));
        meant.map(|(id, _)| id.clone()).collect()
    }

    fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default()
    }
}
