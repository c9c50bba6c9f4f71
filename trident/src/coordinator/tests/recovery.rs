//! What failed, halts, is done again, or was lost.

use super::*;

#[test]
fn a_failed_commit_raises_the_fence_and_replays_the_same_plan() {
    let mut world = World::leading_whole();
    let Message::Emit { plan, attempt } = world.process(9) else { panic!() };
    world.end_tree(TreeEnd::Failed(Failure::new(FailureKind::Unknown, "lost")));
    world.skip_notes();
    world.answer_raise();
    let Message::Emit { plan: again, attempt: next } = world.trees[0].1.clone() else { panic!() };
    assert_eq!((again, next), (plan, attempt.next_generation()));
}

#[test]
fn g1_an_unknown_commit_that_had_happened_is_not_committed_again() {
    let mut world = World::leading_whole();
    world.process(9);
    let Message::Commit(command) = world.end_tree(TreeEnd::Failed(Failure::new(FailureKind::Unknown, "lost"))) else {
        panic!()
    };
    for row in &mut world.rows {
        (row.txid, row.chain, row.manifest) = (TxId(1), command.chain, command.manifest);
    }
    world.transactions.push((**command.plan.as_ref().unwrap()).clone());
    world.skip_notes();
    world.answer_raise();
    assert!(world.trees.is_empty(), "transaction 1 is complete, there is no other");
    assert_eq!(world.task.spout().last_complete(), TxId(1));
}

#[test]
fn d5_a_replay_that_makes_other_rows_after_a_partial_commit_halts() {
    let mut world = World::leading_whole();
    world.process(9);
    let Message::Commit(command) = world.end_tree(TreeEnd::Failed(Failure::transient("x"))) else { panic!() };
    (world.rows[0].txid, world.rows[0].chain, world.rows[0].manifest) = (TxId(1), command.chain, command.manifest);
    world.transactions.push((**command.plan.as_ref().unwrap()).clone());
    world.skip_notes();
    world.answer_raise();
    world.process(10);
    let halted = finished(&mut world).unwrap_err();
    assert!(halted.message.contains("non-deterministic operator"), "{halted}");
    assert!(world.trees.is_empty(), "nothing is committed");
}

#[test]
fn poison_halts_after_its_retries() {
    let mut world = World::leading_whole();
    world.end_tree(TreeEnd::Failed(Failure::poison("bad record")));
    world.skip_notes();
    world.answer_raise();
    world.end_tree(TreeEnd::Failed(Failure::poison("bad record")));
    assert_eq!(finished(&mut world).unwrap_err().message, "bad record");
}

#[test]
fn after_a_lost_tail_the_end_of_a_run_is_worked_out_anew() {
    let setup = Setup { batch_units_max: 100, in_flight_max: 1, ..World::setup(CommitMode::Whole, Horizon::Now) };
    let mut world = World::with(setup);
    let one_more = |world: &mut World| {
        world.answer_bounds();
        world.process(9);
        world.end_tree(TreeEnd::Complete(vec![Note::Committed]));
        world.calls.retain(|call| matches!(call, Call::Bounds { .. } | Call::Finish(_)));
    };
    world.end = 200;
    world.elect(GroupRecord::default());
    one_more(&mut world);
    world.answer_bounds();
    world.end_tree(TreeEnd::Failed(Failure::new(FailureKind::Unknown, "lost")));
    world.skip_notes();
    // The database knows nothing of the first transaction, and the sources hold more by now.
    world.end = 300;
    world.answer_raise();
    one_more(&mut world);
    one_more(&mut world);
    assert!(!world.calls.iter().any(|call| matches!(call, Call::Finish(_))), "200 were the end of the run before");
    one_more(&mut world);
    assert_eq!(finished(&mut world), Ok(()));
}

#[test]
fn a_leader_with_nothing_to_do_looks_whether_the_database_has_lost_its_tail() {
    let mut world = World::leading_whole();
    world.now_ms = 500;
    world.process(9);
    world.end_tree(TreeEnd::Complete(vec![Note::Committed]));
    let before = world.attempt();
    world.calls.retain(|call| matches!(call, Call::Bounds { .. }));
    world.answer_bounds();
    world.calls.clear();
    world.now_ms = 1_499;
    world.tell(Reply::Woke);
    world.answer_bounds();
    world.calls.clear();
    assert_eq!(world.attempt(), before, "the commit has looked");
    world.now_ms = 1_504;
    world.tell(Reply::Woke);
    world.answer_bounds();
    assert_eq!(world.attempt(), before.next_generation());
    // The ledger's rows are as they were before the first transaction.
    world.answer_raise();
    assert_eq!(world.task.spout().last_complete(), TxId::NONE);
    world.answer_bounds();
    assert!(matches!(&world.trees[0].1, Message::Emit { plan, .. } if plan.txid == TxId(1)), "and it is made again");
}

#[test]
fn a_leader_whose_sources_do_not_answer_looks_all_the_same() {
    let mut world = World::leading_whole();
    world.process(9);
    world.end_tree(TreeEnd::Complete(vec![Note::Committed]));
    let before = world.attempt();
    world.calls.retain(|call| matches!(call, Call::Bounds { .. }));
    let Call::Bounds { attempt, .. } = world.call() else { panic!() };
    world.now_ms = 1_000;
    let result = Err(Failure::transient("no broker"));
    world.tell(Reply::Bounds { attempt, result, time_ms: 0, seed: 0 });
    assert_eq!(world.attempt(), before.next_generation());
}
