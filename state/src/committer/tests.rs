use tine_core::{
    hash::Hash128,
    id::{Epoch, Generation, Nonce, Shard},
};

use super::*;

fn attempt(epoch: u64, nonce: u64, generation: u64) -> Attempt {
    Attempt::new(Epoch(epoch), Nonce(nonce), Generation(generation))
}

fn at(shard: u16) -> ShardRef {
    ShardRef { state: StateIndex(0), shard: Shard(shard) }
}

fn order() -> CommitOrder {
    CommitOrder {
        attempt: attempt(2, 7, 3),
        txid: TxId(5),
        previous: Hash128(4),
        chain: Hash128(5),
        manifest: Hash128(55),
        shards: vec![at(0), at(1)].into(),
        tables: Vec::new(),
        plan: None,
        location: Location::default(),
    }
}

fn row(shard: u16, txid: u64) -> LedgerRow {
    let txid_chain = Hash128(u128::from(txid));
    LedgerRow {
        at: at(shard),
        fence: attempt(2, 7, 3),
        txid: TxId(txid),
        chain: txid_chain,
        manifest: Hash128(u128::from(txid) * 11),
        attempt: attempt(2, 7, 1),
    }
}

fn kind(verdict: Verdict) -> FailureKind {
    match verdict {
        Verdict::End(CommitOutcome::Failed(failure)) => failure.kind,
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[test]
fn rows_at_the_predecessor_are_applied() {
    assert_eq!(judge(&order(), &[row(0, 4), row(1, 4)]), Verdict::Apply(vec![at(0), at(1)]));
}

#[test]
fn a_row_that_is_done_with_proof_is_left_alone() {
    assert_eq!(judge(&order(), &[row(0, 5), row(1, 4)]), Verdict::Apply(vec![at(1)]));
    assert_eq!(judge(&order(), &[row(0, 5), row(1, 5)]), Verdict::End(CommitOutcome::AlreadyDone));
}

#[test]
fn done_without_the_same_manifest_is_refused() {
    let other = LedgerRow { manifest: Hash128(1), ..row(0, 5) };
    assert_eq!(kind(judge(&order(), &[other, row(1, 5)])), FailureKind::Fatal);
}

#[test]
fn another_chain_at_the_predecessor_is_refused() {
    let other = LedgerRow { chain: Hash128(1), ..row(0, 4) };
    assert_eq!(kind(judge(&order(), &[other, row(1, 4)])), FailureKind::Fatal);
}

#[test]
fn another_number_at_the_right_chain_is_refused() {
    let chain = Hash128(4);
    assert_eq!(kind(judge(&order(), &[LedgerRow { chain, ..row(0, 5) }, row(1, 4)])), FailureKind::Fatal);
    assert_eq!(kind(judge(&order(), &[LedgerRow { chain, ..row(0, 3) }, row(1, 4)])), FailureKind::Behind);
}

#[test]
fn a6_rows_that_moved_on_under_my_fence_make_it_a_late_duplicate() {
    assert_eq!(judge(&order(), &[row(0, 6), row(1, 6)]), Verdict::End(CommitOutcome::LateDuplicate));
}

#[test]
fn rows_below_the_predecessor_say_that_the_tail_is_lost() {
    assert_eq!(kind(judge(&order(), &[row(0, 3), row(1, 3)])), FailureKind::Behind);
}

#[test]
fn foreign_fences_are_told_apart() {
    let with = |fence| kind(judge(&order(), &[LedgerRow { fence, ..row(0, 4) }, row(1, 4)]));
    assert_eq!(with(attempt(2, 7, 2)), FailureKind::Behind);
    assert_eq!(with(attempt(1, 9, 9)), FailureKind::Behind);
    assert_eq!(with(attempt(2, 7, 4)), FailureKind::Superseded);
    assert_eq!(with(attempt(2, 8, 1)), FailureKind::Fenced, "same epoch, another nonce");
    assert_eq!(with(attempt(3, 1, 1)), FailureKind::Fenced);
}

#[test]
fn g9_a_missing_row_is_fatal() {
    assert_eq!(kind(judge(&order(), &[row(0, 4)])), FailureKind::Fatal);
}

#[test]
fn a_compare_and_set_that_misses_leads_to_the_locking_read() {
    let mut committer = Committer::new(order());
    assert!(matches!(committer.start(), Statement::Begin(Some(_))));
    assert!(matches!(committer.step(Ok(Reply::Done)), Step::Next(Statement::Advance(_))));
    let missed = Reply::Advanced { moved: 1, merged: 0 };
    assert!(matches!(committer.step(Ok(missed)), Step::Next(Statement::Rollback)));
    assert!(matches!(committer.step(Ok(Reply::Done)), Step::Next(Statement::Begin(_))));
    assert!(matches!(committer.step(Ok(Reply::Done)), Step::Next(Statement::LockRows(Some(_)))));
    let rows = Reply::Rows(vec![row(0, 5), row(1, 4)]);
    match committer.step(Ok(rows)) {
        Step::Next(Statement::Advance(advance)) => assert_eq!(*advance.shards, [at(1)]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(committer.step(Ok(Reply::Advanced { moved: 1, merged: 0 })), Step::Next(Statement::Commit)));
    assert!(matches!(committer.step(Ok(Reply::Done)), Step::Done(CommitOutcome::Applied)));
}

#[test]
fn g1_a_lost_answer_to_commit_is_unknown_and_nothing_else() {
    let mut committer = Committer::new(order());
    committer.start();
    committer.step(Ok(Reply::Done));
    committer.step(Ok(Reply::Advanced { moved: 2, merged: 0 }));
    match committer.step(Err(Failure::new(FailureKind::Unknown, "connection lost"))) {
        Step::Done(CommitOutcome::Failed(failure)) => assert_eq!(failure.kind, FailureKind::Unknown),
        other => panic!("{other:?}"),
    }
}
