//! The state machine under random events.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

const LIMITS: Limits = Limits { members_max: 4, pending_members_max: 2, bytes_max: 2600 };
const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(15);

/// What may happen; numbers pick among the ids that were given out so far.
#[derive(Clone, Debug)]
enum Step {
    Join { who: usize, instance: Option<u8>, protocol: bool, new: bool, known: bool, skip: bool },
    Sync { who: usize, is_current: bool, bytes: usize },
    Heartbeat { who: usize },
    Commit { who: usize },
    Leave { who: usize },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let join = (0..8_usize, proptest::option::of(0..2_u8), any::<[bool; 4]>()).prop_map(
        |(who, instance, [protocol, new, known, skip])| Step::Join {
            who,
            instance,
            protocol,
            new,
            known,
            skip,
        },
    );
    let sync = (0..8_usize, any::<bool>(), 0..60_usize)
        .prop_map(|(who, is_current, bytes)| Step::Sync { who, is_current, bytes });
    prop_oneof![
        4 => join,
        4 => sync,
        2 => (0..8_usize).prop_map(|who| Step::Heartbeat { who }),
        1 => (0..8_usize).prop_map(|who| Step::Commit { who }),
        1 => (0..8_usize).prop_map(|who| Step::Leave { who }),
        2 => (0..12_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

struct World {
    group: Group,
    now: Duration,
    given: u64,
    ids: Vec<Identity>,
    open: HashSet<Ticket>,
    generation: i32,
    /// Who was told to be the leader of a generation, by the instance or member id.
    leaders: BTreeMap<i32, String>,
}

impl World {
    fn new() -> Self {
        Self {
            group: Group::new(LIMITS),
            now: Duration::ZERO,
            given: 0,
            ids: vec![Identity::default()],
            open: HashSet::new(),
            generation: 0,
            leaders: BTreeMap::new(),
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.given += 1;
        self.open.insert(Ticket(self.given));
        Ticket(self.given)
    }

    fn who(&self, who: usize) -> Identity {
        self.ids[who % self.ids.len()].clone()
    }

    fn take(&mut self, step: &Step) {
        let effects = match *step {
            Step::Join { who, instance, protocol, new, known, skip } => {
                let mut identity = if new { Identity::default() } else { self.who(who) };
                if new {
                    identity.instance_id = instance.map(|id| Arc::from(format!("instance-{id}")));
                }
                let name = Arc::from(if protocol { "range" } else { "sticky" });
                let both: Arc<str> = Arc::from("both");
                let protocols = [name, both]
                    .map(|name| Protocol { name, metadata: Bytes::from_static(b"topics") });
                let ticket = self.ticket();
                let request = JoinRequest {
                    identity,
                    fresh_member_id: Arc::from(format!("m{}", self.given)),
                    client_id: Arc::from("c"),
                    client_host: Arc::from("h"),
                    session_timeout: SESSION,
                    rebalance_timeout: REBALANCE,
                    protocol_type: Arc::from("consumer"),
                    protocols: protocols.to_vec(),
                    requires_known_id: known,
                    can_skip_assignment: skip,
                };
                self.group.join(ticket, request, self.now)
            }
            Step::Sync { who, is_current, bytes } => {
                let identity = self.who(who);
                let assignment = Bytes::from(vec![0; bytes]);
                let assignments =
                    self.ids.iter().map(|id| (id.member_id.clone(), assignment.clone())).collect();
                let generation = self.group.generation - i32::from(!is_current);
                let (protocol_type, protocol) = (None, None);
                let request =
                    SyncRequest { identity, generation, protocol_type, protocol, assignments };
                let ticket = self.ticket();
                self.group.sync(ticket, request, self.now)
            }
            Step::Heartbeat { who } => {
                let generation = self.group.generation;
                let _ = self.group.heartbeat(&self.who(who), generation, self.now);
                Vec::new()
            }
            Step::Commit { who } => {
                let generation = self.group.generation;
                let _ = self.group.check_commit(&self.who(who), generation, self.now);
                Vec::new()
            }
            Step::Leave { who } => self.group.leave(&[self.who(who)], self.now).1,
            Step::Wait { seconds } => {
                self.now += Duration::from_secs(seconds);
                let effects = self.group.expire(self.now);
                assert!(self.group.next_deadline().is_none_or(|next| next > self.now), "spins");
                effects
            }
        };
        self.check(effects);
    }

    fn check(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let ticket = match &effect {
                Effect::Join(ticket, _) | Effect::Sync(ticket, _) => *ticket,
            };
            assert!(self.open.remove(&ticket), "answered twice: {effect:?}");
            self.learn(effect);
        }
        let group = &self.group;
        assert!(group.generation >= self.generation, "the generation fell");
        self.generation = group.generation;
        assert_eq!(group.members.is_empty(), group.leader.is_none(), "{group:?}");
        let leader = group.leader.as_ref();
        assert!(leader.is_none_or(|leader| group.members.contains_key(leader)), "{group:?}");
        let bytes: usize = group.members.values().map(Member::bytes).sum();
        assert_eq!(group.bytes, bytes);
        assert_eq!(group.members.is_empty(), group.state == State::Empty, "{group:?}");
        for (instance_id, id) in &group.static_members {
            assert_eq!(group.members[id].instance_id.as_ref(), Some(instance_id));
        }
        let is_waiting = group.members.values().any(|m| m.joining.is_some());
        assert!(!is_waiting || group.state == State::PreparingRebalance, "{group:?}");
        let is_syncing = group.members.values().any(|m| m.syncing.is_some());
        assert!(!is_syncing || group.state == State::CompletingRebalance, "{group:?}");
        let has_deadline = group.next_deadline().is_some();
        assert!(has_deadline || group.is_deserted(), "nothing would ever happen: {group:?}");
    }

    /// Keeps the ids that a real client would use, and that there is one leader a generation.
    fn learn(&mut self, effect: Effect) {
        match effect {
            Effect::Join(_, Ok(joined)) => {
                let member = &self.group.members.get(&joined.member_id);
                let instance_id = member.and_then(|member| member.instance_id.clone());
                let name = instance_id.as_ref().unwrap_or(&joined.member_id).to_string();
                if joined.leader == joined.member_id {
                    let first = self.leaders.entry(joined.generation).or_insert(name.clone());
                    assert_eq!(*first, name, "two leaders in generation {}", joined.generation);
                }
                let member_id = joined.member_id.as_ref().to_owned();
                self.ids.push(Identity { member_id, instance_id });
            }
            Effect::Join(_, Err(refused)) if refused.error == ErrorCode::MemberIdRequired => {
                let member_id = refused.member_id.as_ref().to_owned();
                self.ids.push(Identity { member_id, instance_id: None });
            }
            Effect::Join(..) | Effect::Sync(..) => (),
        }
        let excess = self.ids.len().saturating_sub(8);
        self.ids.drain(..excess);
    }
}

proptest! {
    #[test]
    fn random_events_never_break_a_group(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        // Everyone falls silent: all that waits is answered, and the group ends empty.
        for _ in 0..1000 {
            let Some(next) = world.group.next_deadline() else { break };
            world.now = next;
            let effects = world.group.expire(next);
            world.check(effects);
        }
        prop_assert!(world.open.is_empty(), "never answered: {:?}", world.open);
        prop_assert!(world.group.is_deserted());
        prop_assert_eq!(world.group.state(), State::Empty);
    }
}
