//! The state machine, case by case.

use super::*;

const LIMITS: Limits = Limits { members_max: 3, pending_members_max: 2, bytes_max: 4000 };
const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn protocols(names: &[&str]) -> Vec<Protocol> {
    let metadata = |name: &str| Bytes::from(format!("meta-{name}"));
    names.iter().map(|name| Protocol { name: Arc::from(*name), metadata: metadata(name) }).collect()
}

fn request(member_id: &str, fresh: &str) -> JoinRequest {
    JoinRequest {
        identity: Identity { member_id: member_id.to_owned(), instance_id: None },
        fresh_member_id: Arc::from(fresh),
        client_id: Arc::from("client"),
        client_host: Arc::from("/127.0.0.1"),
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        protocol_type: Arc::from("consumer"),
        protocols: protocols(&["range"]),
        requires_known_id: false,
        can_skip_assignment: false,
    }
}

fn static_request(member_id: &str, instance_id: &str, fresh: &str) -> JoinRequest {
    let mut request = request(member_id, fresh);
    request.identity.instance_id = Some(Arc::from(instance_id));
    request
}

fn sync_request(member_id: &str, generation: i32, assignments: &[(&str, &str)]) -> SyncRequest {
    let assignments = assignments.iter();
    SyncRequest {
        identity: identity(member_id),
        generation,
        protocol_type: None,
        protocol: None,
        assignments: assignments
            .map(|(id, bytes)| ((*id).to_owned(), Bytes::from((*bytes).to_owned())))
            .collect(),
    }
}

fn identity(member_id: &str) -> Identity {
    Identity { member_id: member_id.to_owned(), instance_id: None }
}

fn static_identity(member_id: &str, instance_id: &str) -> Identity {
    Identity { member_id: member_id.to_owned(), instance_id: Some(Arc::from(instance_id)) }
}

/// One line for each effect, so that a test reads as a table.
fn lines(effects: &[Effect]) -> Vec<String> {
    let line = |effect: &Effect| match effect {
        Effect::Join(ticket, Ok(joined)) => format!(
            "join {} -> {} generation {} leader {} knows {}{}",
            ticket.0,
            joined.member_id,
            joined.generation,
            joined.leader,
            joined.members.len(),
            if joined.skip_assignment { " skip" } else { "" }
        ),
        Effect::Join(ticket, Err(refused)) => {
            format!("join {} -> {:?} {}", ticket.0, refused.error, refused.member_id)
        }
        Effect::Sync(ticket, Ok(synced)) => {
            format!("sync {} -> {:?}", ticket.0, synced.assignment)
        }
        Effect::Sync(ticket, Err(error)) => format!("sync {} -> {error:?}", ticket.0),
    };
    effects.iter().map(line).collect()
}

#[track_caller]
fn check(effects: &[Effect], expected: &[&str]) {
    assert_eq!(lines(effects), expected);
}

fn ticket(number: u64) -> Ticket {
    Ticket(number)
}

/// A stable group of the given dynamic members at second 0; the first one leads.
fn stable(ids: &[&str]) -> Group {
    let mut group = Group::new(LIMITS);
    let (leader, followers) = ids.split_first().expect("a leader");
    group.join(ticket(900), request("", leader), at(0));
    for (number, id) in (901..).zip(followers) {
        group.join(ticket(number), request("", id), at(0));
        group.join(ticket(950), request(leader, "x"), at(0));
        for earlier in followers.iter().take_while(|earlier| *earlier != id) {
            group.join(ticket(960), request(earlier, "x"), at(0));
        }
    }
    let generation = group.generation;
    for id in followers {
        group.sync(ticket(970), sync_request(id, generation, &[]), at(0));
    }
    let assignments: Vec<_> = ids.iter().map(|id| (*id, *id)).collect();
    group.sync(ticket(980), sync_request(leader, generation, &assignments), at(0));
    assert_eq!(group.state(), State::Stable);
    group
}

#[test]
fn first_member_of_an_old_client_leads_at_once() {
    let mut group = Group::new(LIMITS);
    let joined = group.join(ticket(1), request("", "a"), at(0));
    check(&joined, &["join 1 -> a generation 1 leader a knows 1"]);
    assert_eq!(group.state(), State::CompletingRebalance);
    let synced = group.sync(ticket(2), sync_request("a", 1, &[("a", "p0")]), at(0));
    check(&synced, &["sync 2 -> b\"p0\""]);
    assert_eq!(group.state(), State::Stable);
    assert_eq!(group.heartbeat(&identity("a"), 1, at(1)), Ok(()));
}

#[test]
fn new_client_has_to_come_back_with_its_id() {
    let mut group = Group::new(LIMITS);
    let new = |id, fresh| JoinRequest { requires_known_id: true, ..request(id, fresh) };
    check(&group.join(ticket(1), new("", "a"), at(0)), &["join 1 -> MemberIdRequired a"]);
    assert_eq!(group.state(), State::Empty);
    let joined = group.join(ticket(2), new("a", "x"), at(0));
    check(&joined, &["join 2 -> a generation 1 leader a knows 1"]);
    check(&group.join(ticket(3), new("b", "x"), at(0)), &["join 3 -> UnknownMemberId b"]);
}

#[test]
fn pending_ids_are_bounded_and_expire() {
    let mut group = Group::new(LIMITS);
    let new = |id, fresh| JoinRequest { requires_known_id: true, ..request(id, fresh) };
    group.join(ticket(1), new("", "a"), at(0));
    group.join(ticket(2), new("", "b"), at(0));
    check(&group.join(ticket(3), new("", "c"), at(0)), &["join 3 -> GroupMaxSizeReached "]);
    assert_eq!(group.next_deadline(), Some(SESSION));
    check(&group.expire(SESSION), &[]);
    assert!(group.is_deserted());
    check(&group.join(ticket(4), new("a", "x"), at(11)), &["join 4 -> UnknownMemberId a"]);
}

#[test]
fn rebalance_waits_for_every_member_and_tells_only_the_leader() {
    let mut group = stable(&["a", "b"]);
    check(&group.join(ticket(1), request("", "c"), at(1)), &[]);
    let rebalancing = Err(ErrorCode::RebalanceInProgress);
    assert_eq!(group.heartbeat(&identity("a"), 2, at(1)), rebalancing);
    check(&group.join(ticket(2), request("b", "x"), at(2)), &[]);
    let joined = group.join(ticket(3), request("a", "x"), at(3));
    let expected = [
        "join 3 -> a generation 3 leader a knows 3",
        "join 2 -> b generation 3 leader a knows 0",
        "join 1 -> c generation 3 leader a knows 0",
    ];
    check(&joined, &expected);
    check(&group.sync(ticket(4), sync_request("c", 3, &[]), at(3)), &[]);
    check(&group.sync(ticket(5), sync_request("b", 3, &[]), at(3)), &[]);
    let synced = group.sync(ticket(6), sync_request("a", 3, &[("a", "1"), ("c", "3")]), at(3));
    check(&synced, &["sync 6 -> b\"1\"", "sync 5 -> b\"\"", "sync 4 -> b\"3\""]);
}

#[test]
fn members_that_do_not_come_back_are_dropped_at_the_rebalance_timeout() {
    let mut group = stable(&["a", "b"]);
    check(&group.join(ticket(1), request("", "c"), at(1)), &[]);
    check(&group.join(ticket(2), request("b", "x"), at(1)), &[]);
    // The old leader is alive, but busy.
    for second in 2..61 {
        assert!(group.heartbeat(&identity("a"), 2, at(second)).is_err());
        check(&group.expire(at(second)), &[]);
    }
    let joined = group.expire(at(61));
    let expected =
        ["join 2 -> b generation 3 leader b knows 2", "join 1 -> c generation 3 leader b knows 0"];
    check(&joined, &expected);
}

#[test]
fn silent_member_is_dropped_and_the_rest_rebalances() {
    let mut group = stable(&["a", "b"]);
    assert_eq!(group.heartbeat(&identity("b"), 2, at(9)), Ok(()));
    assert_eq!(group.next_deadline(), Some(at(10)));
    check(&group.expire(at(10)), &[]);
    assert_eq!(group.state(), State::PreparingRebalance);
    let gone = Err(ErrorCode::UnknownMemberId);
    assert_eq!(group.heartbeat(&identity("a"), 2, at(10)), gone);
    let joined = group.join(ticket(1), request("b", "x"), at(11));
    check(&joined, &["join 1 -> b generation 3 leader b knows 1"]);
}

#[test]
fn last_member_leaves_an_empty_group() {
    let mut group = stable(&["a"]);
    let (results, effects) = group.leave(&[identity("a"), identity("b")], at(1));
    assert_eq!(results, [Ok(()), Err(ErrorCode::UnknownMemberId)]);
    check(&effects, &[]);
    assert_eq!((group.state(), group.next_deadline()), (State::Empty, None));
    assert_eq!(group.bytes(), 0);
    let next = group.join(ticket(1), request("", "c"), at(2));
    check(&next, &["join 1 -> c generation 3 leader c knows 1"]);
}

#[test]
fn failed_leave_disturbs_nobody() {
    let mut group = stable(&["a"]);
    let (results, _) = group.leave(&[identity("nobody"), Identity::default()], at(1));
    assert_eq!(results, [Err(ErrorCode::UnknownMemberId); 2]);
    assert_eq!(group.state(), State::Stable);
}

#[test]
fn wrong_generations_and_members_are_told_so() {
    let mut group = stable(&["a", "b"]);
    let cases = [
        (identity("a"), 2, Ok(())),
        (identity("a"), 1, Err(ErrorCode::IllegalGeneration)),
        (identity("a"), 3, Err(ErrorCode::IllegalGeneration)),
        (identity("z"), 2, Err(ErrorCode::UnknownMemberId)),
        (static_identity("a", "i"), 2, Err(ErrorCode::UnknownMemberId)),
    ];
    for (identity, generation, expected) in cases {
        assert_eq!(group.heartbeat(&identity, generation, at(1)), expected, "{identity:?}");
    }
    check(
        &group.sync(ticket(1), sync_request("a", 1, &[]), at(1)),
        &["sync 1 -> IllegalGeneration"],
    );
    let mut other_type = sync_request("a", 2, &[]);
    other_type.protocol_type = Some(Arc::from("connect"));
    check(&group.sync(ticket(2), other_type, at(1)), &["sync 2 -> InconsistentGroupProtocol"]);
    let mut other_protocol = sync_request("a", 2, &[]);
    other_protocol.protocol = Some(Arc::from("sticky"));
    check(&group.sync(ticket(3), other_protocol, at(1)), &["sync 3 -> InconsistentGroupProtocol"]);
}

#[test]
fn protocol_is_chosen_by_votes_among_those_all_know() {
    let cases: [(&[&[&str]], &str); 4] = [
        (&[&["range"], &["range", "sticky"]], "range"),
        (&[&["sticky", "range"], &["range", "sticky"], &["sticky", "range"]], "sticky"),
        (&[&["sticky", "range"], &["range", "sticky"]], "range"),
        (&[&["only-a", "range"], &["range"]], "range"),
    ];
    for (members, expected) in cases {
        let mut group = Group::new(LIMITS);
        for (number, names) in members.iter().enumerate() {
            let mut asked = request("", &format!("m{number}"));
            asked.protocols = protocols(names);
            group.join(ticket(1), asked, at(0));
        }
        assert_eq!(group.select_protocol().as_deref(), Some(expected), "{members:?}");
    }
}

#[test]
fn protocol_that_the_group_does_not_share_is_refused() {
    let mut group = stable(&["a"]);
    let cases = [
        JoinRequest { protocol_type: Arc::from("connect"), ..request("", "b") },
        JoinRequest { protocols: protocols(&["sticky"]), ..request("", "b") },
        JoinRequest { protocols: Vec::new(), ..request("", "b") },
        JoinRequest { protocol_type: Arc::from(""), ..request("", "b") },
    ];
    for case in cases {
        let refused = group.join(ticket(1), case, at(1));
        check(&refused, &["join 1 -> InconsistentGroupProtocol "]);
    }
    assert_eq!(group.state(), State::Stable);
}

#[test]
fn follower_that_says_nothing_new_gets_what_there_is() {
    let mut group = stable(&["a", "b"]);
    let again = group.join(ticket(1), request("b", "x"), at(1));
    check(&again, &["join 1 -> b generation 2 leader a knows 0"]);
    assert_eq!(group.state(), State::Stable);
    check(&group.sync(ticket(2), sync_request("b", 2, &[]), at(1)), &["sync 2 -> b\"b\""]);
    // New metadata, or the leader itself, does rebalance.
    check(&group.join(ticket(3), request("a", "x"), at(1)), &[]);
    assert_eq!(group.state(), State::PreparingRebalance);
}

#[test]
fn lost_join_answer_is_repeated_while_the_leader_assigns() {
    let mut group = Group::new(LIMITS);
    group.join(ticket(1), request("", "a"), at(0));
    let again = group.join(ticket(2), request("a", "x"), at(1));
    check(&again, &["join 2 -> a generation 1 leader a knows 1"]);
    assert_eq!(group.state(), State::CompletingRebalance);
}

#[test]
fn leader_that_never_assigns_is_dropped() {
    let mut group = Group::new(LIMITS);
    group.join(ticket(1), request("", "a"), at(0));
    group.join(ticket(2), request("", "b"), at(0));
    group.join(ticket(3), request("a", "x"), at(0));
    check(&group.sync(ticket(4), sync_request("b", 2, &[]), at(0)), &[]);
    // Its heartbeats go on, its assignment does not come.
    for second in 1..60 {
        assert_eq!(group.heartbeat(&identity("a"), 2, at(second)), Ok(()));
        check(&group.expire(at(second)), &[]);
    }
    check(&group.expire(at(60)), &["sync 4 -> RebalanceInProgress"]);
    let joined = group.join(ticket(5), request("b", "x"), at(61));
    check(&joined, &["join 5 -> b generation 3 leader b knows 1"]);
}

#[test]
fn new_join_while_the_leader_assigns_calls_everyone_back() {
    let mut group = Group::new(LIMITS);
    group.join(ticket(1), request("", "a"), at(0));
    group.join(ticket(2), request("", "b"), at(0));
    group.join(ticket(3), request("a", "x"), at(0));
    check(&group.sync(ticket(4), sync_request("b", 2, &[]), at(0)), &[]);
    let called = group.join(ticket(5), request("", "c"), at(1));
    check(&called, &["sync 4 -> RebalanceInProgress"]);
    let late = group.sync(ticket(6), sync_request("a", 2, &[("a", "1")]), at(1));
    check(&late, &["sync 6 -> RebalanceInProgress"]);
}

#[test]
fn full_group_takes_nobody_else() {
    let mut group = stable(&["a", "b", "c"]);
    check(&group.join(ticket(1), request("", "d"), at(1)), &["join 1 -> GroupMaxSizeReached "]);
    let mut large = request("a", "x");
    large.protocols[0].metadata = Bytes::from(vec![0; LIMITS.bytes_max]);
    check(&group.join(ticket(2), large, at(1)), &["join 2 -> GroupMaxSizeReached "]);
}

#[test]
fn too_large_assignment_is_refused() {
    let mut group = Group::new(LIMITS);
    group.join(ticket(1), request("", "a"), at(0));
    let large = "x".repeat(LIMITS.bytes_max);
    let refused = group.sync(ticket(2), sync_request("a", 1, &[("a", &large)]), at(0));
    check(&refused, &["sync 2 -> UnknownServerError"]);
}

#[test]
fn join_again_from_a_new_connection_ends_the_older_wait() {
    let mut group = stable(&["a", "b"]);
    check(&group.join(ticket(1), request("", "c"), at(1)), &[]);
    check(&group.join(ticket(2), request("b", "x"), at(1)), &[]);
    check(&group.join(ticket(3), request("b", "x"), at(1)), &["join 2 -> RebalanceInProgress b"]);
}

#[test]
fn static_member_keeps_its_place_over_a_restart() {
    let mut group = Group::new(LIMITS);
    group.join(ticket(1), static_request("", "i", "i-1"), at(0));
    group.sync(ticket(2), sync_request_static("i-1", "i", 1, &[("i-1", "p0")]), at(0));
    // Version 9: the leader that comes back is told to skip the assignment.
    let back = JoinRequest { can_skip_assignment: true, ..static_request("", "i", "i-2") };
    let joined = group.join(ticket(3), back, at(5));
    check(&joined, &["join 3 -> i-2 generation 1 leader i-2 knows 1 skip"]);
    let synced = group.sync(ticket(4), sync_request_static("i-2", "i", 1, &[]), at(5));
    check(&synced, &["sync 4 -> b\"p0\""]);
    // Older versions: it is told a leader that it is not.
    let joined = group.join(ticket(5), static_request("", "i", "i-3"), at(6));
    check(&joined, &["join 5 -> i-3 generation 1 leader i-2 knows 0"]);
    let synced = group.sync(ticket(6), sync_request_static("i-3", "i", 1, &[]), at(6));
    check(&synced, &["sync 6 -> b\"p0\""]);
    // Whoever still uses the old id is fenced.
    let fenced = Err(ErrorCode::FencedInstanceId);
    assert_eq!(group.heartbeat(&static_identity("i-1", "i"), 1, at(6)), fenced);
    assert_eq!(group.check_commit(&static_identity("i-1", "i"), 1, at(6)), fenced);
    let stale = group.join(ticket(7), static_request("i-1", "i", "x"), at(6));
    check(&stale, &["join 7 -> FencedInstanceId i-1"]);
}

fn sync_request_static(
    member_id: &str,
    instance_id: &str,
    generation: i32,
    assignments: &[(&str, &str)],
) -> SyncRequest {
    let identity = static_identity(member_id, instance_id);
    SyncRequest { identity, ..sync_request(member_id, generation, assignments) }
}

#[test]
fn static_member_that_is_replaced_while_it_waits_is_fenced() {
    let mut group = stable(&["a"]);
    check(&group.join(ticket(1), static_request("", "i", "i-1"), at(1)), &[]);
    let replaced = group.join(ticket(2), static_request("", "i", "i-2"), at(2));
    check(&replaced, &["join 1 -> FencedInstanceId i-1"]);
    let joined = group.join(ticket(3), request("a", "x"), at(3));
    let expected = [
        "join 3 -> a generation 2 leader a knows 2",
        "join 2 -> i-2 generation 2 leader a knows 0",
    ];
    check(&joined, &expected);
}

#[test]
fn absent_static_member_outlives_a_rebalance_until_its_session_ends() {
    let mut group = stable(&["a"]);
    group.join(ticket(1), static_request("", "i", "i-1"), at(0));
    group.join(ticket(2), request("a", "x"), at(0));
    group.sync(ticket(3), sync_request_static("i-1", "i", 2, &[]), at(0));
    group.sync(ticket(4), sync_request("a", 2, &[]), at(0));
    // A rebalance ends by its timeout, with the static member still in it.
    let short = |id| JoinRequest { rebalance_timeout: at(5), ..request(id, "x") };
    check(&group.join(ticket(5), short("a"), at(1)), &[]);
    assert_eq!(group.members.len(), 2);
    check(&group.expire(at(10)), &["join 5 -> a generation 3 leader a knows 1"]);
}

#[test]
fn operator_removes_a_static_member_by_its_name() {
    let mut group = stable(&["a"]);
    group.join(ticket(1), static_request("", "i", "i-1"), at(0));
    let (results, effects) = group.leave(&[static_identity("", "i")], at(1));
    assert_eq!(results, [Ok(())]);
    check(&effects, &["join 1 -> UnknownMemberId i-1"]);
}

#[test]
fn commits_are_taken_from_members_and_into_empty_groups() {
    let empty = || Group::new(LIMITS);
    let at_work = || stable(&["a"]);
    let assigning = || {
        let mut group = Group::new(LIMITS);
        group.join(ticket(1), request("", "a"), at(0));
        group
    };
    let unknown = Err(ErrorCode::UnknownMemberId);
    let cases = [
        (empty(), "", -1, Ok(())),
        (empty(), "a", 1, unknown),
        (at_work(), "a", 1, Ok(())),
        (at_work(), "a", 0, Err(ErrorCode::IllegalGeneration)),
        (at_work(), "", -1, unknown),
        (at_work(), "z", 1, unknown),
        (assigning(), "a", 1, Err(ErrorCode::RebalanceInProgress)),
    ];
    for (number, (mut group, id, generation, expected)) in cases.into_iter().enumerate() {
        let result = group.check_commit(&identity(id), generation, at(1));
        assert_eq!(result, expected, "case {number}");
    }
}

#[test]
fn description_shows_metadata_and_assignments_of_a_stable_group_only() {
    let mut group = stable(&["a"]);
    let described = group.describe();
    assert_eq!(
        (described.protocol_type.as_str(), described.protocol.as_str()),
        ("consumer", "range")
    );
    let member = &described.members[0];
    assert_eq!((&member.metadata[..], &member.assignment[..]), (&b"meta-range"[..], &b"a"[..]));
    group.join(ticket(1), request("", "b"), at(1));
    let described = group.describe();
    assert_eq!((described.state.name(), described.protocol.as_str()), ("PreparingRebalance", ""));
    assert!(described.members.iter().all(|m| m.metadata.is_empty() && m.assignment.is_empty()));
}
