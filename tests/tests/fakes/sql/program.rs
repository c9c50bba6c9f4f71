//! What one session does: one of the protocol's procedures, or statements in the order in which procedures send them,
//! left off anywhere, and statements that come out of order.

use std::{collections::VecDeque, sync::Arc};

use proptest::prelude::*;
use tine_core::{failure::Failure, id::TxId};
use tine_state::{
    Advance, CommitOrder, CommitOutcome, Committer, Location, Prepare, PrepareOutcome, Procedure, Raise, RaiseOutcome,
    Reply, ShardRef, Snapshot, StateIndex, Statement, Step,
};

use super::words::{Rows, Who, chain, manifest, rows, transaction};

/// What a transaction relies on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Promise {
    Here,
    Ahead,
    OtherSystem,
    OtherTimeline,
}

/// A commit, by how it stands to what is committed.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    promise: Promise,
    who: Who,
    /// How far from the next transaction.
    off: i64,
    history: (u8, u8),
    way: u8,
    /// Which shards, one bit each.
    shards: u8,
    rows: Rows,
}

/// How a transaction of statements ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Commit,
    Rollback,
    /// It stays open.
    Not,
    /// It stays open, and the session reads.
    Read,
}

/// Which statement names a state that nobody knows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wrong {
    Lock,
    Load,
    Advance,
}

/// What a session is to do.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    Commit(Order),
    Raise(Who),
    Prepare(Promise, Who, i64, u8),
    Read,
    /// Begin, compare-and-set, perhaps a plan.
    Advance(Order, End),
    /// Begin, locking read, stored values, compare-and-set.
    Locked(Order, End),
    /// Begin, group, ledger, fence; with the locks taken first, or not.
    Fence(Who, bool, End),
    /// Begin, group, plan.
    Plan(Who, i64, u8, End),
    /// Begin and a locking read of some shards or none, perhaps after the group's.
    Look(bool, u8, End),
    /// Begin, something wrong, and then a commit.
    Wrong(Wrong),
    /// The statement of this number, in no transaction.
    Stray(usize),
}

fn order() -> impl Strategy<Value = Order> {
    let rarely = |usual: u8| prop_oneof![6 => Just(usual), 1 => Just(1 - usual)];
    let shards = prop_oneof![3 => Just(0b11_1111u8), 3 => 0u8..64];
    (promise(), who(), off(), (rarely(0), rarely(0)), rarely(0), shards, rows()).prop_map(
        |(promise, who, off, history, way, shards, rows)| Order { promise, who, off, history, way, shards, rows },
    )
}

fn promise() -> impl Strategy<Value = Promise> {
    prop_oneof![20 => Just(Promise::Here), 1 => Just(Promise::Ahead), 1 => Just(Promise::OtherSystem),
        1 => Just(Promise::OtherTimeline)]
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![16 => Just(Who::Fence), 1 => Just(Who::GenerationBefore), 1 => Just(Who::NextGeneration),
        1 => Just(Who::EpochBefore), 1 => Just(Who::NextEpoch), 1 => Just(Who::Rival)]
}

fn raiser() -> impl Strategy<Value = Who> {
    prop_oneof![4 => Just(Who::NextEpoch), 4 => Just(Who::NextGeneration), 1 => Just(Who::Fence),
        1 => Just(Who::EpochBefore), 1 => Just(Who::Rival), 1 => Just(Who::GenerationBefore)]
}

fn off() -> impl Strategy<Value = i64> {
    prop_oneof![8 => Just(0i64), 2 => Just(-1i64), 1 => Just(1i64), 1 => Just(-2i64)]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![4 => Just(End::Commit), 2 => Just(End::Rollback), 2 => Just(End::Not), 1 => Just(End::Read)]
}

/// A compare-and-set that misses, with a text that Postgres cannot hold.
pub(crate) fn missing_with_nul() -> Task {
    let rows = Rows::with_nul();
    let order =
        Order { promise: Promise::Here, who: Who::Fence, off: 1, history: (0, 0), way: 0, shards: u8::MAX, rows };
    Task::Advance(order, End::Rollback)
}

/// Locks everything and stays so.
pub(crate) fn look_and_stay() -> [Task; 1] {
    [Task::Look(true, u8::MAX, End::Not)]
}

pub(crate) fn prepare() -> Task {
    Task::Prepare(Promise::Here, Who::Fence, 0, 0)
}

pub(crate) fn raise() -> Task {
    Task::Raise(Who::NextEpoch)
}

pub(crate) fn stray_commit() -> Task {
    Task::Stray(6)
}

/// A task of a group whose plans are prepared, or are committed with the data.
pub(crate) fn task(whole: bool) -> impl Strategy<Value = Task> {
    let wrong = prop_oneof![Just(Wrong::Lock), Just(Wrong::Load), Just(Wrong::Advance)];
    let both = prop_oneof![
        8 => order().prop_map(Task::Commit),
        4 => raiser().prop_map(Task::Raise),
        1 => Just(Task::Read),
        5 => (order(), end()).prop_map(|(order, end)| Task::Advance(order, end)),
        5 => (order(), end()).prop_map(|(order, end)| Task::Locked(order, end)),
        2 => (raiser(), any::<bool>(), end()).prop_map(|(who, locks, end)| Task::Fence(who, locks, end)),
        3 => (any::<bool>(), 0u8..64, end()).prop_map(|(group, shards, end)| Task::Look(group, shards, end)),
        1 => wrong.prop_map(Task::Wrong),
        1 => (0usize..8).prop_map(Task::Stray),
    ];
    let prepared = prop_oneof![
        3 => (promise(), who(), off(), 0u8..2).prop_map(|(promise, who, off, way)| Task::Prepare(promise, who, off, way)),
        2 => (who(), off(), 0u8..2, end()).prop_map(|(who, off, way, end)| Task::Plan(who, off, way, end)),
    ];
    match whole {
        true => both.boxed(),
        false => prop_oneof![5 => both, 1 => prepared].boxed(),
    }
}

/// What a task is given: what is committed, and where this side's database is.
pub(crate) struct Ground<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) location: Location,
    /// Whether plans are committed with the data.
    pub(crate) whole: bool,
}

impl Ground<'_> {
    fn promised(&self, promise: Promise) -> Location {
        let here = self.location;
        match promise {
            Promise::Here => here,
            Promise::Ahead => Location { lsn: here.lsn + (1 << 40), ..here },
            Promise::OtherSystem => Location { system: here.system ^ 1, ..here },
            Promise::OtherTimeline => Location { timeline: here.timeline + 1, ..here },
        }
    }

    fn txid(&self, off: i64) -> TxId {
        let low = self.snapshot.rows.iter().map(|row| row.txid).min().unwrap_or_default();
        TxId(low.next().0.saturating_add_signed(off).max(1))
    }

    fn shards(&self, mask: u8) -> Vec<ShardRef> {
        let all = &self.snapshot.group.shards;
        all.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, at)| *at).collect()
    }

    fn order(&self, order: &Order) -> CommitOrder {
        let (txid, attempt) = (self.txid(order.off), order.who.attempt(self.snapshot.group.fence));
        let mut shards = self.shards(if self.whole { u8::MAX } else { order.shards });
        if shards.is_empty() {
            shards = self.shards(1);
        }
        CommitOrder {
            attempt,
            txid,
            previous: chain(txid.previous(), order.history.0),
            chain: chain(txid, order.history.1),
            manifest: manifest(txid, order.way),
            tables: order.rows.tables(&shards, true),
            shards: shards.into(),
            plan: self.whole.then(|| transaction(txid, order.history.1, attempt)),
            location: self.promised(order.promise),
        }
    }

    fn advance(&self, order: &Order) -> (Statement, Option<Statement>) {
        let CommitOrder { attempt, txid, previous, chain, manifest, shards, plan, .. } = self.order(order);
        // An owner whose shards are all empty, or who has none.
        let shards: Arc<[ShardRef]> = if order.shards == 0 && !self.whole { Arc::new([]) } else { shards };
        let tables = order.rows.tables(&shards, false);
        let advance = Advance { attempt, txid, previous, chain, manifest, shards, tables };
        (Statement::Advance(Arc::new(advance)), plan.map(Statement::WritePlan))
    }

    /// The program, which starts here.
    pub(crate) fn program(&self, task: &Task) -> Program {
        let fence = self.snapshot.group.fence;
        let begin = |promise: Promise| Statement::Begin(Some(self.promised(promise)));
        let (statements, end): (Vec<Statement>, End) = match task {
            Task::Commit(order) => return Program::Commit(Box::new(Committer::new(self.order(order)))),
            Task::Raise(who) => return Program::Raise(Box::new(Raise::new(who.attempt(fence)))),
            Task::Prepare(promise, who, off, way) => {
                let row = transaction(self.txid(*off), *way, who.attempt(fence));
                return Program::Prepare(Box::new(Prepare::new(row, self.promised(*promise))));
            }
            Task::Read => (vec![], End::Read),
            Task::Advance(order, end) => {
                let (advance, plan) = self.advance(order);
                ([begin(order.promise), advance].into_iter().chain(plan).collect(), *end)
            }
            Task::Locked(order, end) => {
                let (advance, plan) = self.advance(order);
                let Statement::Advance(what) = &advance else { unreachable!("it is one") };
                let lock = Statement::LockRows(Some(what.shards.clone()));
                let loads = what.tables.iter().map(|(state, rows)| Statement::Load(*state, rows.clone()));
                let statements = [begin(order.promise), lock].into_iter().chain(loads);
                (statements.chain([advance.clone()]).chain(plan).collect(), *end)
            }
            Task::Fence(who, locks, end) => {
                let locks = [Statement::LockGroup, Statement::LockRows(None)].into_iter().filter(|_| *locks);
                let fence = Statement::WriteFence(who.attempt(fence));
                ([Statement::Begin(None)].into_iter().chain(locks).chain([fence]).collect(), *end)
            }
            Task::Plan(who, off, way, end) => {
                let row = transaction(self.txid(*off), *way, who.attempt(fence));
                (vec![begin(Promise::Here), Statement::LockGroup, Statement::WritePlan(row)], *end)
            }
            Task::Look(group, shards, end) => {
                let group = [Statement::LockGroup].into_iter().filter(|_| *group);
                let rows = Statement::LockRows(Some(self.shards(*shards).into()));
                ([begin(Promise::Here)].into_iter().chain(group).chain([rows]).collect(), *end)
            }
            Task::Wrong(wrong) => (vec![begin(Promise::Here), self.wrong(*wrong)], End::Commit),
            Task::Stray(number) => return Program::Statements([self.stray(*number)].into()),
        };
        let end = match end {
            End::Commit => Some(Statement::Commit),
            End::Rollback => Some(Statement::Rollback),
            End::Read => Some(Statement::Read),
            End::Not => None,
        };
        Program::Statements(statements.into_iter().chain(end).collect())
    }

    fn wrong(&self, wrong: Wrong) -> Statement {
        let nobody = ShardRef { state: StateIndex(9), ..ShardRef::default() };
        let (advance, _) = self.advance(&self.plain());
        let Statement::Advance(plain) = advance else { unreachable!("it is one") };
        match wrong {
            Wrong::Lock => Statement::LockRows(Some([nobody].into())),
            Wrong::Load => Statement::Load(StateIndex(9), plain.tables[0].1.clone()),
            Wrong::Advance => Statement::Advance(Arc::new(Advance { shards: [nobody].into(), ..(*plain).clone() })),
        }
    }

    fn plain(&self) -> Order {
        Order {
            promise: Promise::Here,
            who: Who::Fence,
            off: 0,
            history: (0, 0),
            way: 0,
            shards: u8::MAX,
            rows: Rows::one(),
        }
    }

    fn stray(&self, number: usize) -> Statement {
        let (advance, _) = self.advance(&self.plain());
        let Statement::Advance(plain) = &advance else { unreachable!("it is one") };
        match number {
            0 => Statement::LockGroup,
            1 => Statement::LockRows(None),
            2 => Statement::Load(plain.tables[0].0, plain.tables[0].1.clone()),
            3 => advance,
            4 => Statement::WriteFence(self.snapshot.group.fence),
            5 => Statement::WritePlan(transaction(self.txid(0), 0, self.snapshot.group.fence)),
            6 => Statement::Commit,
            _ => Statement::Rollback,
        }
    }
}

/// A task under way, on one side.
pub(crate) enum Program {
    Commit(Box<Committer>),
    Raise(Box<Raise>),
    Prepare(Box<Prepare>),
    Statements(VecDeque<Statement>),
}

impl Program {
    /// The first statement, if there is one.
    pub(crate) fn start(&mut self) -> Option<Statement> {
        match self {
            Program::Commit(committer) => Some(committer.start()),
            Program::Raise(raise) => Some(raise.start()),
            Program::Prepare(prepare) => Some(prepare.start()),
            Program::Statements(statements) => statements.pop_front(),
        }
    }

    /// The next statement, or how it ended.
    pub(crate) fn step(&mut self, answer: Result<Reply, Failure>) -> Result<Statement, String> {
        match self {
            Program::Commit(committer) => ended(committer.step(answer), |outcome| match outcome {
                CommitOutcome::Failed(failure) => format!("{:?}", failure.kind),
                outcome => format!("{outcome:?}"),
            }),
            Program::Raise(raise) => ended(raise.step(answer), |outcome| match outcome {
                RaiseOutcome::Raised(_) => "Raised".to_owned(),
                RaiseOutcome::Failed(failure) => format!("{:?}", failure.kind),
                outcome => format!("{outcome:?}"),
            }),
            Program::Prepare(prepare) => ended(prepare.step(answer), |outcome| match outcome {
                PrepareOutcome::Failed(failure) => format!("{:?}", failure.kind),
                outcome => format!("{outcome:?}"),
            }),
            Program::Statements(statements) => {
                if missed(&answer) {
                    // As the committer does: what has not moved has no plan.
                    statements.retain(|statement| !matches!(statement, Statement::WritePlan(_)));
                }
                statements.pop_front().ok_or_else(|| "the last statement".to_owned())
            }
        }
    }
}

fn missed(answer: &Result<Reply, Failure>) -> bool {
    matches!(answer, Ok(Reply::Advanced { moved: 0, .. }) | Err(_))
}

fn ended<Outcome>(step: Step<Outcome>, words: impl FnOnce(Outcome) -> String) -> Result<Statement, String> {
    match step {
        Step::Next(statement) => Ok(statement),
        Step::Done(outcome) => Err(words(outcome)),
    }
}
