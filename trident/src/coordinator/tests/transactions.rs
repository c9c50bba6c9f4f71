//! A transaction from its plan to its end.

use super::*;

#[test]
fn an_embedded_transaction_is_committed_with_its_plan_and_ends_the_run() {
    let mut world = World::new(CommitMode::Whole, Horizon::Now);
    world.elect(GroupRecord::default());
    world.answer_bounds();
    assert!(matches!(world.process(9), Message::Emit { plan, .. } if plan.txid == TxId(1) && plan.units() == 100));
    let Message::Commit(command) = world.end_tree(TreeEnd::Complete(vec![Note::Committed])) else { panic!() };
    assert!(command.plan.is_some(), "the plan goes into the same SQL transaction");
    assert_eq!(finished(&mut world), Ok(()));
}

#[test]
fn nothing_is_prepared_before_its_plan_stands_in_coordination_and_nothing_commits_before_it_is_prepared() {
    let mut world = World::new(CommitMode::Prepared, Horizon::Endless);
    world.elect(GroupRecord::default());
    world.calls.retain(|call| matches!(call, Call::Bounds { .. }));
    world.answer_bounds();
    world.process(9);
    assert!(!world.calls.iter().any(|call| matches!(call, Call::Prepare { .. })));
    world.next_plan_written();
    let place = world.calls.iter().position(|call| matches!(call, Call::Prepare { .. })).expect("now it is prepared");
    let Call::Prepare { row, .. } = world.calls.remove(place) else { panic!() };
    assert!(world.trees.is_empty(), "not committed yet");
    world.tell(Reply::Prepared { attempt: row.attempt, txid: row.txid, outcome: PrepareOutcome::Prepared });
    assert!(matches!(&world.trees[0].1, Message::Commit(command) if command.plan.is_none()));
}

#[test]
fn without_the_ackers_completion_nothing_commits() {
    let world = World::leading_whole();
    assert_eq!(world.trees.len(), 1);
    assert!(matches!(world.trees[0].1, Message::Emit { .. }));
}

#[test]
fn a_completion_without_every_committers_digests_commits_nothing() {
    let mut world = World::leading_whole();
    let before = world.attempt();
    world.end_tree(TreeEnd::Complete(vec![]));
    assert!(world.trees.is_empty());
    assert_eq!(world.attempt(), before.next_generation());
}

#[test]
fn a_stop_finishes_what_is_under_way() {
    let mut world = World::leading_whole();
    world.tell(Reply::Stop);
    assert!(world.calls.iter().all(|call| !matches!(call, Call::Finish(_))));
    world.process(9);
    world.end_tree(TreeEnd::Complete(vec![Note::Committed]));
    assert_eq!(finished(&mut world), Ok(()));
}

#[test]
fn the_first_plan_may_be_empty_and_makes_durable_where_the_sources_begin() {
    let mut world = World::new(CommitMode::Whole, Horizon::Endless);
    world.end = 0;
    world.elect(GroupRecord::default());
    world.answer_bounds();
    assert!(matches!(world.process(0), Message::Emit { plan, .. } if plan.units() == 0 && plan.ranges.len() == 1));
    world.end_tree(TreeEnd::Complete(vec![Note::Committed]));
    world.skip_notes();
    world.calls.clear();
    assert!(world.trees.is_empty(), "and only the first");
}
