//! Who is in, who is heard, who leaves: Heartbeat, LeaveGroup, expiry, and the check of commits.

use super::{Effect, Group, Identity, JoinRefused, State};
use crate::wire::ErrorCode;
use std::{mem, time::Duration};

impl Group {
    /// A member is alive.
    ///
    /// # Errors
    /// What the member has to be told: to join again, or that it is no member.
    pub fn heartbeat(
        &mut self,
        identity: &Identity,
        generation: i32,
        now: Duration,
    ) -> Result<(), ErrorCode> {
        self.check_generation(identity, generation)?;
        self.hear(identity, now);
        match self.state {
            State::Empty | State::Dead => Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// Members leave; one result for each, in order.
    pub fn leave(
        &mut self,
        leavers: &[Identity],
        now: Duration,
    ) -> (Vec<Result<(), ErrorCode>>, Vec<Effect>) {
        let members_before = self.members.len();
        let results = leavers.iter().map(|leaver| self.leave_one(leaver)).collect();
        self.after_shrinking(members_before, now);
        (results, mem::take(&mut self.effects))
    }

    fn leave_one(&mut self, leaver: &Identity) -> Result<(), ErrorCode> {
        if leaver.member_id.is_empty() {
            // An operator removes a static member by the name that it was given.
            let instance_id = leaver.instance_id.as_ref().ok_or(ErrorCode::UnknownMemberId)?;
            let id = self.static_members.get(instance_id).ok_or(ErrorCode::UnknownMemberId)?;
            self.remove_member(&id.clone());
            return Ok(());
        }
        if self.pending.remove(leaver.member_id.as_str()).is_some() {
            return Ok(());
        }
        self.check_member(leaver)?;
        self.remove_member(&leaver.member_id);
        Ok(())
    }

    /// Whether an offset commit is to be taken. A commit also tells that the member is alive.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check_commit(
        &mut self,
        identity: &Identity,
        generation: i32,
        now: Duration,
    ) -> Result<(), ErrorCode> {
        let claims_nothing = generation < 0;
        if claims_nothing && self.state == State::Empty {
            return Ok(());
        }
        if claims_nothing && identity.member_id.is_empty() && identity.instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_generation(identity, generation)?;
        if self.state == State::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        self.hear(identity, now);
        Ok(())
    }

    /// Does what is due at `now`.
    pub fn expire(&mut self, now: Duration) -> Vec<Effect> {
        let members_before = self.members.len();
        self.pending.retain(|_, until| *until > now);
        for id in self.ids_of(|member| member.session_end().is_some_and(|end| end <= now)) {
            self.remove_member(&id);
        }
        self.after_shrinking(members_before, now);
        if self.join_deadline.is_some_and(|deadline| deadline <= now) {
            self.complete(now);
        }
        if self.sync_deadline.is_some_and(|deadline| deadline <= now) {
            self.sync_deadline = None;
            for id in self.ids_of(|member| member.owes_sync) {
                self.remove_member(&id);
            }
            self.rebalance(now);
        }
        mem::take(&mut self.effects)
    }

    /// A pending id that went away may have been all that a rebalance waited for; to a group at
    /// work it means nothing.
    fn after_shrinking(&mut self, members_before: usize, now: Duration) {
        if self.members.len() < members_before || self.state == State::PreparingRebalance {
            self.after_removal(now);
        }
    }

    /// A member went away: those who stay share the work anew.
    pub(super) fn after_removal(&mut self, now: Duration) {
        match self.state {
            State::CompletingRebalance | State::Stable => self.rebalance(now),
            State::PreparingRebalance => self.complete_or_wait(now),
            State::Empty | State::Dead => (),
        }
    }

    pub(super) fn remove_member(&mut self, id: &str) {
        let Some((id, member)) = self.members.remove_entry(id) else { return };
        self.bytes -= member.bytes();
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if let Some(ticket) = member.joining {
            let error = ErrorCode::UnknownMemberId;
            let refused = JoinRefused { error, member_id: id.clone() };
            self.effects.push(Effect::Join(ticket, Err(refused)));
        }
        if let Some(ticket) = member.syncing {
            self.effects.push(Effect::Sync(ticket, Err(ErrorCode::UnknownMemberId)));
        }
        if self.leader.as_ref() == Some(&id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    pub(super) fn check_generation(
        &self,
        identity: &Identity,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        self.check_member(identity)?;
        if generation == self.generation { Ok(()) } else { Err(ErrorCode::IllegalGeneration) }
    }

    pub(super) fn check_member(&self, identity: &Identity) -> Result<(), ErrorCode> {
        let id = identity.member_id.as_str();
        let Some(instance_id) = &identity.instance_id else {
            let is_member = self.members.contains_key(id);
            return if is_member { Ok(()) } else { Err(ErrorCode::UnknownMemberId) };
        };
        match self.static_members.get(instance_id) {
            None => Err(ErrorCode::UnknownMemberId),
            Some(holder) if holder.as_ref() == id => Ok(()),
            Some(_) => Err(ErrorCode::FencedInstanceId),
        }
    }

    fn hear(&mut self, identity: &Identity, now: Duration) {
        if let Some(member) = self.members.get_mut(identity.member_id.as_str()) {
            member.hear(now);
        }
    }
}
