//! The coordinator alone: one emitter, one committer and a ledger of two shards that the tests move by hand.

mod owners;
mod recovery;
mod reigns;
mod transactions;

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
