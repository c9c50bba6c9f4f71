use tine_core::{
    acker::{AckerEvent, TreeEnd},
    coordination::GroupRecord,
    id::{Epoch, Generation, Shard, TaskId},
    task::{Effect, Grouping, Route, SpoutTask},
    tuple::Root,
};
use tine_state::{GroupRow, LedgerRow, RaiseOutcome, Snapshot, StateIndex};

use super::*;

const NONCE: Nonce = Nonce(77);
const LINEAGE: u128 = 5;

/// A coordinator with one emitter and one committer, and a ledger of two shards that the test moves by hand.
struct World {
    task: SpoutTask<Batches, Coordinator>,
    calls: Vec<Call>,
    /// The trees that were started, with what was sent.
    trees: Vec<(Root, Message)>,
    rows: Vec<LedgerRow>,
    transactions: Vec<tine_state::TransactionRow>,
    end: u64,
    now_ms: u64,
}

fn at(shard: u16) -> ShardRef {
    ShardRef { state: StateIndex(0), shard: Shard(shard) }
}

impl World {
    fn setup(mode: CommitMode, horizon: Horizon) -> Setup {
        Setup {
            shards: vec![at(0), at(1)].into(),
            committers: 1,
            mode,
            horizon,
            in_flight_max: 2,
            batch_ms: 10,
            batch_units_max: u64::MAX,
            poll_ms: 5,
            look_back_ms: 1_000,
            poison_retries: 1,
        }
    }

    fn new(mode: CommitMode, horizon: Horizon) -> World {
        World::with(World::setup(mode, horizon))
    }

    fn with(setup: Setup) -> World {
        let route = |task| Route { grouping: Grouping::All, targets: vec![TaskId(task)] };
        let row = |shard| LedgerRow {
            at: at(shard),
            fence: Attempt::NONE,
            txid: TxId::NONE,
            chain: Hash128(0),
            manifest: Hash128(0),
            attempt: Attempt::NONE,
        };
        let mut world = World {
            task: SpoutTask::new(TaskId(0), vec![route(1), route(2)], 1, Coordinator::new(setup)),
            calls: Vec::new(),
            trees: Vec::new(),
            rows: vec![row(0), row(1)],
            transactions: Vec::new(),
            end: 100,
            now_ms: 0,
        };
        let effects = world.task.open(0);
        world.note(effects);
        world
    }

    fn note(&mut self, effects: Vec<Effect<Batches, Call>>) {
        let mut sent = None;
        for effect in effects {
            match effect {
                Effect::Send { tuple, .. } => sent = Some(tuple.message),
                Effect::Acker(AckerEvent::Start { root, .. }) => {
                    self.trees.push((root, sent.take().expect("a tree starts with a tuple")));
                }
                Effect::Acker(other) => panic!("a spout does not {other:?}"),
                Effect::Call(Call::Entered(..)) => {}
                Effect::Call(call) => self.calls.push(call),
            }
        }
    }

    fn tell(&mut self, reply: Reply) {
        let effects = self.task.reply(self.now_ms, reply);
        self.note(effects);
    }

    fn end_tree(&mut self, end: TreeEnd<Note>) -> Message {
        let (root, message) = self.trees.remove(0);
        let effects = self.task.ended(self.now_ms, root, end);
        self.note(effects);
        message
    }

    fn call(&mut self) -> Call {
        assert!(!self.calls.is_empty(), "a call was expected");
        self.calls.remove(0)
    }

    fn attempt(&self) -> Attempt {
        self.task.spout().attempt
    }

    fn elect(&mut self, record: GroupRecord) {
        assert!(matches!(self.call(), Call::Campaign));
        let elected = Elected { nonce: NONCE, record, lineage: LINEAGE, fence: self.rows[0].fence };
        self.tell(Reply::Elected(Box::new(elected)));
        assert!(matches!(self.call(), Call::Claim(_)));
        self.tell(Reply::Claimed(NONCE, Ok(())));
        self.answer_raise();
    }

    fn answer_raise(&mut self) {
        let call = self.call();
        let Call::Raise(attempt) = call else { panic!("expected a raise, got {call:?}") };
        self.rows.iter_mut().for_each(|row| row.fence = attempt);
        let group = GroupRow { lineage: LINEAGE, fingerprint: Hash128(0), fence: attempt, shards: vec![at(0), at(1)] };
        let snapshot = Snapshot {
            group,
            rows: self.rows.clone(),
            transactions: self.transactions.clone(),
            location: Location::default(),
        };
        self.tell(Reply::Raised(attempt, RaiseOutcome::Raised(Box::new(snapshot))));
    }

    fn answer_bounds(&mut self) {
        let bounds = PartitionBounds {
            partition: "p".to_string(),
            incarnation: "i".to_string(),
            low: 0,
            end: self.end,
            start: 0,
            closed_at: None,
        };
        let call = self.call();
        let Call::Bounds { attempt, positions } = call else { panic!("expected a look at the sources, got {call:?}") };
        let spout = self.task.spout();
        assert_eq!(positions.is_empty(), spout.complete.0 == TxId::NONE && spout.open.is_empty(), "{positions:?}");
        self.tell(Reply::Bounds { attempt, result: Ok(vec![vec![bounds]]), time_ms: 0, seed: 0 });
    }

    fn process(&mut self, sum: u128) -> Message {
        let digests = vec![(at(0), Digest { count: 1, sum })];
        self.end_tree(TreeEnd::Complete(vec![Note::Digests { digests, rows: 1 }]))
    }

    /// Another leader's fence ends this reign.
    fn be_fenced(&mut self) {
        let failure = Failure::new(FailureKind::Fenced, "another leader");
        self.tell(Reply::NoteFailed(NONCE, failure));
    }

    fn next_plan_written(&mut self) {
        let Some(place) = self.calls.iter().position(|call| matches!(call, Call::WritePlan { .. })) else {
            panic!("no plan is written: {:?}", self.calls)
        };
        let Call::WritePlan { txid, attempt, .. } = self.calls.remove(place) else { return };
        self.tell(Reply::PlanWritten { attempt, txid, result: Ok(()) });
    }

    fn skip_notes(&mut self) {
        self.calls.retain(|call| {
            !matches!(
                call,
                Call::Bounds { .. }
                    | Call::ForgetFrom(_)
                    | Call::Complete(_)
                    | Call::Progress(_)
                    | Call::Warn(_)
                    | Call::Wake { .. }
            )
        });
    }

    /// Leads in the embedded mode, with transaction 1 emitted and nothing more to plan.
    fn leading_whole() -> World {
        let mut world = World::new(CommitMode::Whole, Horizon::Endless);
        world.elect(GroupRecord::default());
        world.answer_bounds();
        world.skip_notes();
        world
    }
}

fn finished(world: &mut World) -> Result<(), Failure> {
    match world.calls.iter().position(|call| matches!(call, Call::Finish(_))) {
        Some(place) => match world.calls.remove(place) {
            Call::Finish(result) => result,
            _ => Ok(()),
        },
        None => panic!("the run goes on: {:?}", world.calls),
    }
}

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
fn poison_halts_after_its_retries() {
    let mut world = World::leading_whole();
    world.end_tree(TreeEnd::Failed(Failure::poison("bad record")));
    world.skip_notes();
    world.answer_raise();
    world.end_tree(TreeEnd::Failed(Failure::poison("bad record")));
    assert_eq!(finished(&mut world).unwrap_err().message, "bad record");
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
