//! JoinGroup.

use super::{
    Effect, Group, Identity, JoinRefused, JoinRequest, Joined, Member, MemberId,
    NEW_MEMBER_JOIN_TIMEOUT, Protocol, REBALANCE_TIMEOUT_MIN, State, Ticket, protocol_bytes,
};
use crate::wire::ErrorCode;
use bytes::Bytes;
use std::{collections::HashSet, mem, sync::Arc, time::Duration};

impl Group {
    /// A member joins, or joins again. The answer may come with a later event.
    pub fn join(&mut self, ticket: Ticket, request: JoinRequest, now: Duration) -> Vec<Effect> {
        if let Err(refused) = self.try_join(ticket, request, now) {
            self.effects.push(Effect::Join(ticket, Err(refused)));
        }
        mem::take(&mut self.effects)
    }

    fn try_join(
        &mut self,
        ticket: Ticket,
        request: JoinRequest,
        now: Duration,
    ) -> Result<(), JoinRefused> {
        let refuse = |error, id: &str| JoinRefused { error, member_id: Arc::from(id) };
        let asked_id = request.identity.member_id.as_str();
        if !self.has_room_for(&request) {
            let error = refuse(ErrorCode::GroupMaxSizeReached, "");
            if self.members.contains_key(asked_id) {
                self.remove_member(asked_id);
                self.after_removal(now);
            }
            return Err(error);
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return Err(refuse(ErrorCode::InconsistentGroupProtocol, asked_id));
        }
        if asked_id.is_empty() {
            return self.join_new(ticket, request, now);
        }
        if self.pending.contains_key(asked_id) {
            if request.identity.instance_id.is_some() {
                return Err(refuse(ErrorCode::UnknownMemberId, asked_id));
            }
            let member_id = Arc::from(asked_id);
            self.add_member(member_id, ticket, request, now);
            return Ok(());
        }
        self.check_member(&request.identity).map_err(|error| refuse(error, asked_id))?;
        let member_id: MemberId = Arc::from(asked_id);
        self.join_known(&member_id, ticket, request, now);
        Ok(())
    }

    fn join_new(
        &mut self,
        ticket: Ticket,
        request: JoinRequest,
        now: Duration,
    ) -> Result<(), JoinRefused> {
        let member_id = request.fresh_member_id.clone();
        if let Some(instance_id) = &request.identity.instance_id {
            match self.static_members.get(instance_id).cloned() {
                Some(old) => self.replace_static(&old, ticket, request, now),
                None => self.add_member(member_id, ticket, request, now),
            }
            return Ok(());
        }
        if !request.requires_known_id {
            self.add_member(member_id, ticket, request, now);
            return Ok(());
        }
        if self.pending.len() >= self.limits.pending_members_max {
            let error = ErrorCode::GroupMaxSizeReached;
            return Err(JoinRefused { error, member_id: Arc::from("") });
        }
        self.pending.insert(member_id.clone(), now.saturating_add(request.session_timeout));
        Err(JoinRefused { error: ErrorCode::MemberIdRequired, member_id })
    }

    fn join_known(&mut self, id: &MemberId, ticket: Ticket, request: JoinRequest, now: Duration) {
        let is_leader = self.leader.as_ref() == Some(id);
        let is_same = self.members.get(id).is_some_and(|m| m.protocols == request.protocols);
        // A follower that says nothing new gets what there is. While the leader assigns, that holds
        // for the leader too: only its answer was lost.
        let is_answered = match self.state {
            State::CompletingRebalance => is_same,
            State::Stable => is_same && !is_leader,
            State::PreparingRebalance | State::Empty | State::Dead => false,
        };
        if is_answered {
            let is_told = self.state == State::CompletingRebalance && is_leader;
            if let Some(member) = self.members.get_mut(id) {
                member.hear(now);
            }
            let joined = self.joined(id, if is_told { self.joined_members() } else { Vec::new() });
            self.effects.push(Effect::Join(ticket, Ok(joined)));
            return;
        }
        self.update_member(id, ticket, request);
        self.rebalance(now);
    }

    fn add_member(&mut self, id: MemberId, ticket: Ticket, request: JoinRequest, now: Duration) {
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type);
        }
        if let Some(instance_id) = &request.identity.instance_id {
            self.static_members.insert(instance_id.clone(), id.clone());
        }
        let member = Member {
            instance_id: request.identity.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            session_timeout: request.session_timeout,
            rebalance_timeout: request.rebalance_timeout.max(REBALANCE_TIMEOUT_MIN),
            protocols: request.protocols,
            assignment: Bytes::new(),
            joining: Some(ticket),
            syncing: None,
            owes_sync: false,
            is_new: true,
            expires_at: now.saturating_add(NEW_MEMBER_JOIN_TIMEOUT),
        };
        self.bytes += member.bytes();
        self.leader.get_or_insert_with(|| id.clone());
        self.members.insert(id, member);
        self.rebalance(now);
    }

    fn update_member(&mut self, id: &MemberId, ticket: Ticket, request: JoinRequest) {
        let Some(member) = self.members.get_mut(id) else { return };
        self.bytes -= member.bytes();
        member.protocols = request.protocols;
        member.session_timeout = request.session_timeout;
        member.rebalance_timeout = request.rebalance_timeout.max(REBALANCE_TIMEOUT_MIN);
        member.client_id = request.client_id;
        member.client_host = request.client_host;
        self.bytes += member.bytes();
        if let Some(older) = member.joining.replace(ticket) {
            // The member gave up on that one (a new connection): only the newest is waited for.
            let error = ErrorCode::RebalanceInProgress;
            let refused = JoinRefused { error, member_id: id.clone() };
            self.effects.push(Effect::Join(older, Err(refused)));
        }
    }

    /// A static member comes back without its member id: it takes over the old one's place.
    fn replace_static(
        &mut self,
        old: &MemberId,
        ticket: Ticket,
        request: JoinRequest,
        now: Duration,
    ) {
        let id = request.fresh_member_id.clone();
        let can_skip = request.can_skip_assignment;
        let old_leader = self.leader.clone();
        let Some(mut member) = self.members.remove(old) else { return };
        if let Some(older) = member.joining.take() {
            let error = ErrorCode::FencedInstanceId;
            let refused = JoinRefused { error, member_id: old.clone() };
            self.effects.push(Effect::Join(older, Err(refused)));
        }
        if let Some(older) = member.syncing.take() {
            self.effects.push(Effect::Sync(older, Err(ErrorCode::FencedInstanceId)));
        }
        member.hear(now);
        if let Some(instance_id) = member.instance_id.clone() {
            self.static_members.insert(instance_id, id.clone());
        }
        self.members.insert(id.clone(), member);
        if old_leader.as_ref() == Some(old) {
            self.leader = Some(id.clone());
        }
        self.update_member(&id, ticket, request);
        if self.state != State::Stable || self.protocol != self.select_protocol() {
            self.rebalance(now);
            return;
        }
        // The assignment stays as it is, so nobody else has to hear of it.
        if let Some(member) = self.members.get_mut(&id) {
            member.joining = None;
            member.hear(now);
        }
        let is_leader = self.leader.as_ref() == Some(&id);
        let members = if is_leader && can_skip { self.joined_members() } else { Vec::new() };
        let mut joined = self.joined(&id, members);
        if can_skip {
            joined.skip_assignment = is_leader;
        } else if let Some(old_leader) = old_leader {
            // An older client that finds itself the leader would assign anew: it is told the id
            // that it had before, which is nobody's now.
            joined.leader = old_leader;
        }
        self.effects.push(Effect::Join(ticket, Ok(joined)));
    }

    pub(super) fn joined(&self, id: &MemberId, members: Vec<super::JoinedMember>) -> Joined {
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_else(|| Arc::from("")),
            skip_assignment: false,
            member_id: id.clone(),
            members,
        }
    }

    fn has_room_for(&self, request: &JoinRequest) -> bool {
        let member = self.members.get(request.identity.member_id.as_str());
        let held = member.map_or(0, Member::bytes);
        let asked = protocol_bytes(&request.protocols);
        if self.bytes.saturating_sub(held).saturating_add(asked) > self.limits.bytes_max {
            return false;
        }
        let is_replacement = |identity: &Identity| {
            let instance_id = identity.instance_id.as_ref();
            instance_id.is_some_and(|id| self.static_members.contains_key(id))
        };
        match self.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                let joining = self.members.values().filter(|m| m.joining.is_some()).count();
                member.is_some_and(|member| member.joining.is_some())
                    || joining < self.limits.members_max
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some()
                    || is_replacement(&request.identity)
                    || self.members.len() < self.limits.members_max
            }
        }
    }

    fn supports(&self, protocol_type: &Arc<str>, protocols: &[Protocol]) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        let common = self.common_protocols();
        self.protocol_type.as_ref() == Some(protocol_type)
            && protocols.iter().any(|protocol| common.contains(protocol.name.as_ref()))
    }

    pub(super) fn common_protocols(&self) -> HashSet<&str> {
        let mut members = self.members.values();
        let Some(first) = members.next() else { return HashSet::new() };
        let mut common: HashSet<&str> = first.protocols.iter().map(|p| p.name.as_ref()).collect();
        for member in members {
            common.retain(|protocol| member.knows(protocol));
        }
        common
    }
}
