//! Who leads, and what comes too late to count.

use super::*;

#[test]
fn a_stale_failure_changes_nothing() {
    let mut world = World::leading_whole();
    let stale = world.trees[0].0;
    world.end_tree(TreeEnd::Failed(Failure::transient("x")));
    world.skip_notes();
    world.answer_raise();
    let attempt = world.attempt();
    let effects = world.task.ended(0, stale, TreeEnd::Failed(Failure::transient("again")));
    world.note(effects);
    assert_eq!(world.attempt(), attempt);
}

#[test]
fn a4_a_raise_that_misses_picks_a_higher_epoch_at_a_takeover_and_abdicates_at_an_abort() {
    let mut world = World::new(CommitMode::Whole, Horizon::Endless);
    assert!(matches!(world.call(), Call::Campaign));
    let elected = Elected { nonce: NONCE, record: GroupRecord::default(), lineage: LINEAGE, fence: Attempt::NONE };
    world.tell(Reply::Elected(Box::new(elected)));
    world.call();
    world.tell(Reply::Claimed(NONCE, Ok(())));
    world.call();
    let foreign = Attempt::new(Epoch(9), Nonce(1), Generation(4));
    world.tell(Reply::Raised(world.attempt(), RaiseOutcome::Missed(foreign)));
    assert!(matches!(world.call(), Call::Claim(claim) if claim.epoch == Epoch(10)));
    world.tell(Reply::Claimed(NONCE, Ok(())));
    world.answer_raise();
    world.answer_bounds();
    world.end_tree(TreeEnd::Failed(Failure::transient("x")));
    world.tell(Reply::Raised(world.attempt(), RaiseOutcome::Missed(Attempt { epoch: Epoch(11), ..foreign })));
    assert!(world.calls.iter().any(|call| matches!(call, Call::Warn(text) if text.starts_with("fenced"))));
    assert!(world.calls.iter().any(|call| matches!(call, Call::Campaign)));
}

#[test]
fn z6_a_wiped_coordination_and_one_of_another_lineage_are_told_apart() {
    let mut wiped = World::new(CommitMode::Prepared, Horizon::Endless);
    wiped.elect(GroupRecord::default());
    assert_eq!(wiped.task.spout().leading().map(|attempt| attempt.epoch), Some(Epoch(1)));

    let mut other = World::new(CommitMode::Prepared, Horizon::Endless);
    let record = GroupRecord { lineage: Some(6), ..GroupRecord::default() };
    let elected = Elected { nonce: NONCE, record, lineage: LINEAGE, fence: Attempt::NONE };
    other.tell(Reply::Elected(Box::new(elected)));
    assert!(finished(&mut other).unwrap_err().message.contains("lineage"));
}

#[test]
fn two_coordinations_over_one_ledger_are_named() {
    let mut world = World::new(CommitMode::Whole, Horizon::Endless);
    for reign in 1..20 {
        world.elect(GroupRecord::default());
        world.calls.clear();
        world.be_fenced();
        assert!(world.calls.iter().any(|call| matches!(call, Call::Campaign)), "reign {reign}");
        world.calls.retain(|call| matches!(call, Call::Campaign));
    }
    world.elect(GroupRecord::default());
    world.calls.clear();
    world.be_fenced();
    assert!(finished(&mut world).unwrap_err().message.contains("two coordinations"));
}

#[test]
fn a_reign_that_was_lost_before_it_was_heard_of_is_not_begun() {
    let mut world = World::new(CommitMode::Whole, Horizon::Endless);
    assert!(matches!(world.call(), Call::Campaign));
    world.tell(Reply::Lost(NONCE, Failure::transient("the session has ended")));
    let elected = Elected { nonce: NONCE, record: GroupRecord::default(), lineage: LINEAGE, fence: Attempt::NONE };
    world.tell(Reply::Elected(Box::new(elected)));
    assert!(matches!(&world.calls[..], [Call::Campaign]), "{:?}", world.calls);
    // The next one is another.
    world.rows.iter_mut().for_each(|row| row.fence = Attempt::NONE);
    let elected = Elected { nonce: Nonce(78), record: GroupRecord::default(), lineage: LINEAGE, fence: Attempt::NONE };
    world.tell(Reply::Elected(Box::new(elected)));
    assert!(matches!(world.calls.last(), Some(Call::Claim(claim)) if claim.nonce == Nonce(78)), "{:?}", world.calls);
}

#[test]
fn an_answer_about_bounds_to_an_older_attempt_is_not_planned_on() {
    let mut world = World::new(CommitMode::Whole, Horizon::Endless);
    world.elect(GroupRecord::default());
    let Call::Bounds { attempt: older, .. } = world.call() else { panic!("expected a look at the sources") };
    world.tell(Reply::NoteFailed(NONCE, Failure::transient("x")));
    world.skip_notes();
    world.answer_raise();
    let late = Reply::Bounds { attempt: older, result: Ok(vec![vec![]]), time_ms: 0, seed: 0 };
    world.tell(late);
    assert!(world.trees.is_empty(), "nothing is planned on it");
    world.answer_bounds();
    assert_eq!(world.trees.len(), 1);
}
