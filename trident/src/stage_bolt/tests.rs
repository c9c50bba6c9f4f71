//! The stage task's rules: completeness, the hand-over before the acks, duplicates, older attempts.

use tine_core::{
    acker::AckerEvent,
    id::{Epoch, Generation, Nonce},
    task::{BoltTask, Effect, Grouping, Route},
    tuple::{Anchor, Root, Tuple},
};
use tine_state::StateIndex;

use super::*;
use crate::fold::{Batch as Chunk, BatchRow};

const A: TaskId = TaskId(1);
const B: TaskId = TaskId(2);
const COMMITTER: TaskId = TaskId(8);
const STAGES: [TaskId; 2] = [TaskId(5), TaskId(6)];
const TX: TxId = TxId(4);

type Effects = Vec<Effect<Batches, StageCall>>;

struct Bench {
    task: BoltTask<Batches, StageBolt>,
    edges: u64,
}

fn attempt(epoch: u64, generation: u64) -> Attempt {
    Attempt::new(Epoch(epoch), Nonce(epoch), Generation(generation))
}

fn now() -> Attempt {
    attempt(1, 1)
}

fn rows(keys: &[i64]) -> Box<dyn Rows> {
    let row = |key: &i64| BatchRow { hash: key.cast_unsigned().wrapping_mul(1 << 61), key: *key, held: 1i64 };
    Box::new(Chunk { rows: keys.iter().map(row).collect() })
}

impl Bench {
    /// A stage task after A and B, before two stage tasks and a committer of one state with two shards.
    fn new() -> Bench {
        let direct = |targets| Route { grouping: Grouping::Direct, targets };
        let routes = vec![direct(vec![COMMITTER]), direct(STAGES.to_vec())];
        let outlet = Outlet::new(1, vec![vec![0, 0]].into(), STAGES.len());
        Bench { task: BoltTask::new(TaskId(3), routes, 7, StageBolt::new(2, outlet)), edges: 0 }
    }

    fn tell(&mut self, from: TaskId, message: Message) -> Effects {
        self.edges += 1;
        let anchors = [Anchor { root: Root(9), edge: self.edges }].into_iter().collect();
        self.task.tuple(0, Tuple { anchors, from, message })
    }

    fn rows(&mut self, from: TaskId, attempt: Attempt, chunk: u64, keys: &[i64]) -> Effects {
        let target = Target::Exchange(ExchangeIndex(0));
        self.tell(from, Message::Rows { attempt, txid: TX, chunk, target, rows: rows(keys) })
    }

    fn end(&mut self, from: TaskId, attempt: Attempt, chunks: u64, rows: u64) -> Effects {
        self.tell(from, Message::End { attempt, txid: TX, chunks, rows })
    }

    /// Everything of A and B; what follows from the last end.
    fn complete(&mut self, attempt: Attempt) -> Effects {
        self.rows(B, attempt, 0, &[1, 2]);
        self.rows(A, attempt, 1, &[4]);
        self.rows(A, attempt, 0, &[3]);
        self.end(B, attempt, 1, 2);
        self.end(A, attempt, 2, 2)
    }

    fn ran(&mut self, result: Result<Targeted, Failure>) -> Effects {
        self.task.reply(0, StageReply::Ran { attempt: now(), txid: TX, result })
    }
}

fn calls(effects: &Effects) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Call(_))).count()
}

fn acks(effects: &Effects) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Acker(AckerEvent::Ack { .. }))).count()
}

fn fails(effects: &Effects) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Acker(AckerEvent::Fail { .. }))).count()
}

#[test]
fn a_batch_runs_once_when_every_sender_has_ended_with_parts_in_the_order_of_senders() {
    let mut bench = Bench::new();
    let effects = bench.complete(now());
    assert_eq!((calls(&effects), acks(&effects)), (1, 0), "the ends wait for what follows");
    let Some(Effect::Call(call)) = effects.first() else { panic!("{effects:?}") };
    let counts: Vec<usize> = call.parts[&ExchangeIndex(0)].iter().map(|part| part.count()).collect();
    assert_eq!(counts, [1, 1, 2], "A's chunks, then B's");
    assert!(bench.end(A, now(), 2, 2).is_empty(), "a duplicate while it runs");
}

#[test]
fn rows_and_ends_go_out_before_the_acks() {
    let mut bench = Bench::new();
    bench.complete(now());
    let letters = (Target::State(StateIndex(0)), rows(&[7]));
    let next = (Target::Exchange(ExchangeIndex(1)), rows(&[0, 1, 2, 3, 4, 5]));
    let effects = bench.ran(Ok(vec![letters, next]));
    let sent: Vec<_> = effects
        .iter()
        .map_while(|effect| match effect {
            Effect::Send { to, tuple } => Some((to.0, &tuple.message)),
            _ => None,
        })
        .map(|(to, message)| match message {
            Message::Rows { chunk, rows, .. } => (to, "rows", *chunk, rows.count() as u64),
            Message::End { chunks, rows, .. } => (to, "end", *chunks, *rows),
            other => panic!("{other:?}"),
        })
        .collect();
    let rows_of_five = sent.iter().find(|(to, what, ..)| (*to, *what) == (5, "rows")).unwrap().3;
    assert_eq!(
        sent,
        [
            (8, "rows", 0, 1),
            (5, "rows", 0, rows_of_five),
            (6, "rows", 0, 6 - rows_of_five),
            (8, "end", 1, 1),
            (5, "end", 1, rows_of_five),
            (6, "end", 1, 6 - rows_of_five),
        ]
    );
    assert_eq!((acks(&effects), effects.len()), (2, sent.len() + 2), "two ends, after everything else");
    assert!(bench.rows(A, now(), 0, &[3]).is_empty(), "a late duplicate");
    assert!(bench.end(A, now(), 2, 2).is_empty());
    assert!(bench.task.bolt().batches.is_empty(), "and nothing is kept of it");
}

#[test]
fn a_failure_fails_the_ends_and_emits_nothing() {
    let mut bench = Bench::new();
    bench.complete(now());
    let effects = bench.ran(Err(Failure::poison("no")));
    assert_eq!((fails(&effects), effects.len()), (2, 2));
}

#[test]
fn a_missing_chunk_keeps_the_batch_open_and_wrong_counts_fail_it() {
    let mut bench = Bench::new();
    bench.rows(A, now(), 0, &[3]);
    bench.end(B, now(), 0, 0);
    assert!(bench.end(A, now(), 2, 2).is_empty(), "a chunk is missing");
    let effects = bench.rows(A, now(), 1, &[3, 4]);
    assert_eq!((calls(&effects), fails(&effects)), (0, 2), "three rows instead of two: {effects:?}");
}

#[test]
fn a_newer_attempt_drops_what_an_older_one_left_and_older_ones_are_ignored() {
    let mut bench = Bench::new();
    bench.rows(A, now(), 0, &[3]);
    bench.end(A, now(), 1, 1);
    let next = attempt(1, 2);
    assert_eq!(acks(&bench.rows(A, next, 0, &[5])), 1);
    assert_eq!(bench.task.bolt().batches[&TX].chunks.len(), 1, "only the newer attempt's");
    assert!(bench.rows(A, now(), 1, &[4]).is_empty());
    assert!(bench.end(B, now(), 0, 0).is_empty());
    assert!(bench.ran(Ok(Vec::new())).is_empty(), "the answer to an older call");
    bench.end(B, next, 0, 0);
    assert_eq!(calls(&bench.end(A, next, 1, 1)), 1);
    assert_eq!(fails(&bench.end(A, attempt(0, 9), 0, 0)), 1, "another reign is answered");
}

#[test]
fn work_that_goes_on_keeps_its_ends_alive() {
    let mut bench = Bench::new();
    let alive = |effects: Effects| effects.len();
    bench.end(A, now(), 0, 0);
    assert_eq!(alive(bench.task.reply(0, StageReply::Running(now()))), 0, "nothing runs yet");
    bench.end(B, now(), 0, 0);
    assert_eq!(alive(bench.task.reply(0, StageReply::Running(now()))), 2);
    assert_eq!(alive(bench.task.reply(0, StageReply::Running(attempt(1, 0)))), 0);
}

#[test]
fn what_is_not_for_a_stage_task_is_fatal() {
    let target = Target::State(StateIndex(0));
    let stray = Message::Rows { attempt: now(), txid: TX, chunk: 0, target, rows: rows(&[1]) };
    assert_eq!(fails(&Bench::new().tell(A, stray)), 1);
}
