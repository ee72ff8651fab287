//! SyncGroup: the leader hands out the assignment, the others fetch theirs.

use super::{Effect, Group, MemberId, State, SyncRequest, Synced, Ticket};
use crate::wire::ErrorCode;
use bytes::Bytes;
use std::{collections::HashMap, mem, sync::Arc, time::Duration};

impl Group {
    /// A member asks for its assignment. The answer may come with a later event.
    pub fn sync(&mut self, ticket: Ticket, request: SyncRequest, now: Duration) -> Vec<Effect> {
        if let Err(error) = self.try_sync(ticket, request, now) {
            self.effects.push(Effect::Sync(ticket, Err(error)));
        }
        mem::take(&mut self.effects)
    }

    fn try_sync(
        &mut self,
        ticket: Ticket,
        request: SyncRequest,
        now: Duration,
    ) -> Result<(), ErrorCode> {
        self.check_generation(&request.identity, request.generation)?;
        let is_ours = |asked: &Option<Arc<str>>, ours| asked.is_none() || asked == ours;
        if !is_ours(&request.protocol_type, &self.protocol_type)
            || !is_ours(&request.protocol, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let id: MemberId = Arc::from(request.identity.member_id);
        match self.state {
            State::Empty | State::Dead => return Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance => return Err(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance => {
                let is_leader = self.leader.as_ref() == Some(&id);
                if is_leader {
                    self.assign(request.assignments)?;
                }
                self.wait_for_assignment(&id, ticket);
                if is_leader {
                    self.state = State::Stable;
                    self.answer_syncs(now);
                }
            }
            State::Stable => {
                self.wait_for_assignment(&id, ticket);
                self.answer_syncs(now);
            }
        }
        if self.members.values().all(|member| !member.owes_sync) {
            self.sync_deadline = None;
        }
        Ok(())
    }

    /// Keeps what the leader assigned to members; a member that it left out gets nothing.
    fn assign(&mut self, assignments: Vec<(String, Bytes)>) -> Result<(), ErrorCode> {
        let mut assigned: HashMap<String, Bytes> = assignments.into_iter().collect();
        let held: usize = self.members.values().map(|member| member.assignment.len()).sum();
        let asked: usize = assigned.values().map(Bytes::len).sum();
        let bytes = self.bytes - held + asked;
        if bytes > self.limits.bytes_max {
            // What Kafka says to an assignment that is too large for its log.
            return Err(ErrorCode::UnknownServerError);
        }
        self.bytes -= held;
        for (id, member) in &mut self.members {
            member.assignment = assigned.remove(id.as_ref()).unwrap_or_default();
            self.bytes += member.assignment.len();
        }
        Ok(())
    }

    fn wait_for_assignment(&mut self, id: &MemberId, ticket: Ticket) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.owes_sync = false;
        if let Some(older) = member.syncing.replace(ticket) {
            self.effects.push(Effect::Sync(older, Err(ErrorCode::RebalanceInProgress)));
        }
    }

    fn answer_syncs(&mut self, now: Duration) {
        for member in self.members.values_mut() {
            let Some(ticket) = member.syncing.take() else { continue };
            member.hear(now);
            let synced = Synced {
                protocol_type: self.protocol_type.clone(),
                protocol: self.protocol.clone(),
                assignment: member.assignment.clone(),
            };
            self.effects.push(Effect::Sync(ticket, Ok(synced)));
        }
    }
}
