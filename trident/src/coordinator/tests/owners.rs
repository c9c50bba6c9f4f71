//! Tasks that move to other workers under a living leader.

use super::*;

#[test]
fn other_owners_are_a_new_generation_and_nothing_is_sent_before_there_are_some() {
    let mut world = World::with(Setup { committers: 0, ..World::setup(CommitMode::Whole, Horizon::Endless) });
    world.elect(GroupRecord::default());
    assert!(world.calls.is_empty() && world.trees.is_empty(), "{:?}", world.calls);
    let before = world.attempt();
    world.tell(Reply::Owners { nonce: NONCE, committers: 1 });
    assert_eq!(world.attempt(), before.next_generation());
    world.answer_raise();
    world.answer_bounds();
    world.skip_notes();
    let Message::Emit { plan, attempt } = world.trees[0].1.clone() else { panic!() };
    // A worker is lost: what is under way has failed at once, and begins again with the next owners.
    world.tell(Reply::Disbanded(Failure::transient("x")));
    world.skip_notes();
    world.answer_raise();
    world.trees.clear();
    world.tell(Reply::Woke);
    assert!(world.trees.is_empty(), "nobody is there");
    world.tell(Reply::Owners { nonce: NONCE, committers: 2 });
    world.skip_notes();
    world.answer_raise();
    let Message::Emit { plan: again, attempt: next } = world.trees[0].1.clone() else { panic!() };
    assert!(again == plan && next.generation > attempt.generation);
    // Now there are two, and one answer is not enough.
    let attempt = world.attempt();
    world.process(9);
    assert_eq!(world.attempt(), attempt.next_generation());
}

/// The membership hears that a reign is over when the leader's calls to coordination are done, which may take long.
#[test]
fn owners_of_a_reign_that_is_over_are_not_gone_on_with() {
    let mut world = World::with(Setup { committers: 0, ..World::setup(CommitMode::Whole, Horizon::Endless) });
    world.elect(GroupRecord::default());
    world.tell(Reply::Lost(NONCE, Failure::transient("the session has ended")));
    world.tell(Reply::Owners { nonce: NONCE, committers: 1 });
    world.skip_notes();
    assert!(matches!(world.call(), Call::Campaign));
    let next = Elected { nonce: Nonce(78), record: GroupRecord::default(), lineage: LINEAGE, fence: world.attempt() };
    world.tell(Reply::Elected(Box::new(next)));
    assert!(matches!(world.call(), Call::Claim(_)));
    world.tell(Reply::Claimed(Nonce(78), Ok(())));
    world.answer_raise();
    assert!(world.calls.is_empty(), "nobody is there to work: {:?}", world.calls);
    world.tell(Reply::Owners { nonce: Nonce(78), committers: 1 });
    world.answer_raise();
    world.answer_bounds();
    world.skip_notes();
    assert_eq!(world.trees.len(), 1);
}

#[test]
fn r6_a_run_that_is_asked_to_end_does_not_wait_for_workers_that_are_not_there() {
    let mut world = World::with(Setup { committers: 0, ..World::setup(CommitMode::Whole, Horizon::Endless) });
    world.elect(GroupRecord::default());
    world.tell(Reply::Owners { nonce: NONCE, committers: 1 });
    world.answer_raise();
    world.answer_bounds();
    world.skip_notes();
    world.tell(Reply::Disbanded(Failure::transient("x")));
    world.skip_notes();
    world.answer_raise();
    world.tell(Reply::Stop);
    assert!(world.calls.iter().any(|call| matches!(call, Call::Finish(Ok(())))), "{:?}", world.calls);
}

#[test]
fn a_change_of_owners_waits_until_what_is_under_way_is_complete() {
    let mut world = World::leading_whole();
    world.tell(Reply::Drain);
    assert!(!world.calls.iter().any(|call| matches!(call, Call::Drained)));
    world.process(9);
    world.end = 300;
    world.end_tree(TreeEnd::Complete(vec![Note::Committed]));
    assert!(world.calls.iter().any(|call| matches!(call, Call::Drained)));
    assert!(!world.calls.iter().any(|call| matches!(call, Call::Bounds { .. })), "nothing begins meanwhile");
    world.calls.clear();
    world.tell(Reply::Owners { nonce: NONCE, committers: 1 });
    world.answer_raise();
    world.answer_bounds();
    assert_eq!(world.trees.len(), 1);
}
