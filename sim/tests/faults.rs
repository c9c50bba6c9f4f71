//! Every kind of fault takes effect, and is survived, or halts the group by name where it must.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test prints figures and fails loudly")]

mod common;

use tine_sim::{End, Fault, FaultPlan, Kind, Mode, Point, Report, Simulation, SqlState};

const DB: End = End::Database;
const ZK: End = End::Coordination;
const WHO: u8 = Kind::WHOEVER;

/// How often a kind took effect in runs with it alone, at many times; every run must be exact.
fn took_effect(simulation: &Simulation, kind: Kind, for_ms: u16) -> usize {
    let mut effects = 0;
    for seed in 0..40_u16 {
        let plan = FaultPlan::from([Fault::at(20 + seed * 9, kind).lasting(for_ms)]);
        let report = simulation.run(seed.into(), &plan);
        assert!(report.broken.is_none(), "{}", simulation.replay(seed.into(), &plan));
        effects += report.faults();
    }
    effects
}

/// Each with how long it lasts.
fn survived() -> Vec<(Kind, u16)> {
    let mut kinds = vec![
        (Kind::Crash(0), 60),
        (Kind::Crash(WHO), 60),
        (Kind::Pause(1), 300),
        (Kind::Restart(0), 0),
        (Kind::Restart(WHO), 40),
        (Kind::Slow(1), 100),
        (Kind::CutOneWay(End::Node(0), End::Node(1)), 100),
        (Kind::CutOneWay(End::Node(1), ZK), 250),
        (Kind::CutOneWay(DB, End::Node(0)), 100),
        (Kind::Cut(End::Node(0), End::Node(1)), 100),
        (Kind::Cut(End::Node(WHO), ZK), 250),
        (Kind::Cut(End::Node(1), DB), 100),
        (Kind::Duplicate, 100),
        (Kind::Delay, 100),
        (Kind::Reorder, 100),
        (Kind::LostCoordinationReply(WHO), 60),
        (Kind::LostCommitReply(1), 60),
        (Kind::Expire(0), 0),
        (Kind::Expire(1), 0),
        (Kind::LeaderChange, 0),
        (Kind::CoordinationDown, 100),
        (Kind::CoordinationWiped, 0),
        (Kind::CoordinationRestored(5), 0),
        (Kind::LateStatement(0), 100),
        (Kind::CrashInCommit(0), 60),
        (Kind::CrashInCommit(WHO), 60),
        (Kind::SqlAbort(0), 40),
        (Kind::LoseTail(3), 0),
        (Kind::DatabaseRestart, 0),
        (Kind::SourceDown, 60),
        (Kind::ShortPolls, 60),
        (Kind::AddPartition, 0),
        (Kind::Leave(0), 80),
        (Kind::Leave(WHO), 0),
        (Kind::Reassign, 0),
        (Kind::UserError, 0),
        (Kind::UserPanic, 0),
    ];
    kinds.extend(SqlState::ALL.into_iter().filter(|state| state.passes()).map(|state| (Kind::SqlState(0, state), 30)));
    kinds
}

#[test]
fn every_kind_takes_effect_and_is_survived_by_a_cluster() {
    for workers in [2, 3] {
        let simulation = common::simulation(Mode::Cluster(workers));
        for (kind, for_ms) in survived() {
            let effects = took_effect(&simulation, kind, for_ms);
            println!("{workers} workers: {kind}: took effect in {effects} of 40 runs");
            assert!(effects >= 4, "{kind}: took effect only {effects} times");
        }
    }
}

#[test]
fn what_concerns_the_embedded_mode_takes_effect_and_is_survived_by_it() {
    let simulation = common::simulation(Mode::Embedded);
    let elsewhere = |kind: Kind| {
        let coordination = matches!(kind, Kind::CutOneWay(_, ZK) | Kind::Cut(_, ZK) | Kind::LostCoordinationReply(_));
        let coordination =
            coordination || kind.to_string().starts_with("coordination") || matches!(kind, Kind::CoordinationDown);
        let several = matches!(kind, Kind::Leave(_) | Kind::Reassign | Kind::Expire(1) | Kind::LostCommitReply(1));
        let several = several || matches!(kind, Kind::Duplicate | Kind::Delay | Kind::Reorder | Kind::Slow(1));
        let between = matches!(kind, Kind::CutOneWay(End::Node(0), End::Node(1)) | Kind::Cut(_, End::Node(1)));
        coordination || several || between || matches!(kind, Kind::Cut(End::Node(1), DB))
    };
    for (kind, for_ms) in survived().into_iter().filter(|(kind, _)| !elsewhere(*kind)) {
        let effects = took_effect(&simulation, kind, for_ms);
        println!("embedded: {kind}: took effect in {effects} of 40 runs");
        assert!(effects >= 4, "{kind}: took effect only {effects} times");
    }
}

/// Gaps are no fault: they are always there, and are survived like everything else.
#[test]
fn positions_have_gaps_and_every_record_counts() {
    let gaps = tine_sim::always(|seen| {
        let records = seen.records();
        let beyond = |place: usize| {
            let of = |record: &&tine_sim::oracle::Committed| record.partition == format!("lines/{place}");
            records.iter().rfind(of).map_or(0, |last| last.position + 1)
        };
        let positions: u64 = (0..4).map(beyond).sum();
        match records.len() == 72 && positions < 80 {
            true => Err(format!("72 records at {positions} positions")),
            false => Ok(()),
        }
    });
    let simulation = common::simulation(Mode::Cluster(2)).expect(gaps);
    (1..50).for_each(|seed| simulation.run_seed(seed).assert_held());
}

/// News only matters with an election.
#[test]
fn news_that_comes_late_or_never_is_survived() {
    let simulation = common::simulation(Mode::Cluster(2));
    for news in [Kind::LateNews, Kind::LostNews] {
        let mut effects = 0;
        for seed in 0..60_u16 {
            let plan = FaultPlan::from([
                Fault::at(seed * 5, news).lasting(400),
                Fault::at(20 + seed * 5, Kind::LeaderChange),
                Fault::at(40 + seed * 5, Kind::Pause(WHO)).lasting(200),
            ]);
            let report = simulation.run(seed.into(), &plan);
            assert!(report.broken.is_none(), "{}", simulation.replay(seed.into(), &plan));
            effects += usize::from(report.felt(0));
        }
        println!("{news}: took effect in {effects} of 60 runs");
        assert!(effects > 20, "{news}: {effects}");
    }
}

fn halts(simulation: &Simulation, plan: impl Fn(u16) -> FaultPlan, halted: impl Fn(&Report) -> bool) -> u32 {
    let mut halts = 0;
    for seed in 0..60 {
        let report = simulation.run(seed.into(), &plan(seed));
        assert!(report.broken.is_none() || halted(&report), "{report}");
        halts += u32::from(report.broken.is_some());
    }
    halts
}

#[test]
fn what_cannot_be_survived_halts_and_says_so() {
    let simulation = common::simulation(Mode::Cluster(2));
    let lost = |report: &Report| common::halted(report, "data lost") || common::halted(report, "retention deleted");
    let down = Fault::at(100, Kind::CoordinationDown).lasting(60);
    let truncated = |seed: u16| FaultPlan::from([down, Fault::at(140 + seed % 20, Kind::Truncate)]);
    assert!(halts(&simulation, truncated, lost) > 10);
    let recreated = |seed: u16| FaultPlan::from([Fault::at(40 + seed * 3, Kind::Recreate)]);
    assert_eq!(halts(&simulation, recreated, |report| common::halted(report, "made again")), 60);
    for state in [SqlState::CheckViolation, SqlState::InsufficientPrivilege] {
        let refused = |seed: u16| FaultPlan::from([Fault::at(40 + seed * 3, Kind::SqlState(0, state)).lasting(200)]);
        assert!(halts(&simulation, refused, |report| common::halted(report, state.code())) > 50, "{state:?}");
    }
    // More failures than the budget for poisoned batches.
    let always = |_| FaultPlan::from([40, 41, 42].map(|at_ms| Fault::at(at_ms, Kind::UserError)));
    assert_eq!(halts(&simulation, always, |_| false), 0, "a function that fails now and then halts nobody");
}

/// Faults at named moments: the process that sends COMMIT of transaction 7 dies before, in and after it.
#[test]
fn a_fault_begins_at_the_moment_that_it_names() {
    let simulation = common::simulation(Mode::Cluster(2));
    let points: [fn(u16) -> Point; 8] = [
        Point::Planned,
        Point::Emitting,
        Point::Processed,
        Point::Prepared,
        Point::CommitSent,
        Point::Committed,
        Point::Acknowledged,
        Point::Complete,
    ];
    for point in points {
        for (kind, for_ms) in [(Kind::Crash(WHO), 40), (Kind::Pause(WHO), 300), (Kind::LoseTail(1), 0)] {
            for seed in 0..20 {
                let plan = FaultPlan::from([Fault::when(point(5), kind).lasting(for_ms)]);
                let report = simulation.replay(seed, &plan);
                assert!(report.broken.is_none(), "{report}");
                assert_eq!(report.faults(), 1, "{report}");
                assert!(report.timeline.iter().any(|line| line.contains("FAULT: when")), "{report}");
            }
        }
    }
    let elected = FaultPlan::from([1, 2, 3].map(|n| Fault::when(Point::Elected(n), Kind::Crash(WHO)).lasting(30)));
    let report = simulation.run(1, &elected);
    assert!(report.broken.is_none() && report.faults() == 3, "{report}");
}

#[test]
fn a_tail_that_is_lost_when_the_sources_hold_nothing_new_is_made_again() {
    let simulation = tine_sim::simulate(|world| {
        let topology = tine_trident::topology::Topology::new("words");
        topology
            .source(world.source("lines", ["a b", "b"]))
            .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
            .persist(world.table("counts").key("word").value("n"));
        topology
    })
    .expect(tine_sim::exact_counts("counts", |line| line.split_whitespace().collect()));
    for seed in 0..300 {
        for txid in 1..=2 {
            let line = format!("{seed}/lose-tail:1@committed:{txid}+1");
            let report = simulation.replay_line(&line).unwrap();
            assert!(report.broken.is_none(), "{report}");
        }
    }
}
