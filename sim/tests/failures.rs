//! How a check fails: shrunk, told, kept and replayed; inside `proptest!`; and runs driven by hand.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

mod common;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use proptest::{prelude::*, test_runner::TestRunner};
use tine_sim::{Coverage, Fault, FaultPlan, Kind, Mode, Point, Regressions, Simulation, any_seed, holds};

/// A simulation in which losing a tail is taken for a catastrophe: wrong, but only under that fault.
fn wrong_about_tails() -> Simulation {
    common::simulation(Mode::Cluster(2)).expect(holds(|report| {
        let lost = report.plan.faults.iter().enumerate();
        let mut lost = lost.filter(|(index, fault)| matches!(fault.kind, Kind::LoseTail(_)) && report.felt(*index));
        match lost.next() {
            None => Ok(()),
            Some((_, fault)) => Err(format!("the database lost something {fault}")),
        }
    }))
}

/// A file of one's own, which is not there yet.
fn file(name: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_file(&file);
    file
}

fn check(simulation: Simulation, file: &std::path::Path) -> Result<Coverage, String> {
    let file = file.to_owned();
    let checked = catch_unwind(AssertUnwindSafe(move || {
        simulation
            .with_faults(any::<FaultPlan>())
            .regressions(Regressions::At(file))
            .cases(300)
            .check(holds(|_| Ok(())))
    }));
    checked.map_err(|panic| panic.downcast_ref::<String>().unwrap().clone())
}

#[test]
fn a_failure_is_shrunk_told_kept_and_replayed_first() {
    let file = file("kept.sim-regressions");
    let words = check(wrong_about_tails(), &file).unwrap_err();
    let told = words.lines().find(|line| line.starts_with("  ")).unwrap();
    assert!(told.contains("the database loses its last 1 transactions"), "{words}");
    assert_eq!(
        words.lines().filter(|line| line.starts_with("  ") && !line.contains(" ms  ")).count(),
        1,
        "one fault: {words}"
    );
    assert!(words.contains("timeline") && words.contains("replay: TINE_SIM_REPLAY='"), "{words}");
    assert!(words.contains("cargo test -- --exact a_failure_is_shrunk_told_kept_and_replayed_first"), "{words}");

    // The line that is kept replays the same run, bit for bit.
    let kept = fs::read_to_string(&file).unwrap();
    let case = kept.lines().find(|line| !line.starts_with('#')).unwrap().split("  #").next().unwrap();
    assert!(words.contains(&format!("TINE_SIM_REPLAY='{case}'")), "{kept}\n{words}");
    let (once, again) =
        (wrong_about_tails().replay_line(case).unwrap(), wrong_about_tails().replay_line(case).unwrap());
    assert_eq!((once.trace_hash, &once.timeline), (again.trace_hash, &again.timeline));
    assert!(words.contains(&format!("trace {:016x}", once.trace_hash)), "{words}");

    // It runs first from now on, and is kept once.
    let words = check(wrong_about_tails(), &file).unwrap_err();
    assert!(words.contains(&format!("the case is kept, as '{case}', in ")), "{words}");
    assert_eq!(fs::read_to_string(&file).unwrap(), kept);
    // Once whatever was wrong is mended, it is one more case that holds.
    let coverage = check(common::simulation(Mode::Cluster(2)), &file).unwrap();
    assert_eq!(coverage.runs, 301);
}

/// What a mistake of another test of the file left there is no part of this one's.
#[test]
fn a_kept_case_is_shrunk_to_what_breaks_this_test() {
    let file = file("others.sim-regressions");
    fs::write(&file, "7/crash:0@10~5,delay@3~50\n").unwrap();
    let words = check(common::simulation(Mode::Cluster(2)).expect(tine_sim::holds(|_| Err("no".to_owned()))), &file);
    let words = words.unwrap_err();
    assert!(words.contains("no faults: look at the topology, and at what is expected of it"), "{words}");
    assert!(words.contains("the case is kept, as '7/crash:0@10~5,delay@3~50', in "), "{words}");
}

/// An operator that remembers breaks a run once, and not when it is run again for its timeline.
#[test]
fn what_does_not_break_twice_is_told_all_the_same() {
    let simulation = || {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        common::simulation(Mode::Cluster(2)).expect(holds(move |_| {
            match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Err("it was Monday".to_owned()),
                _ => Ok(()),
            }
        }))
    };
    let words = check(simulation(), &file("once.sim-regressions")).unwrap_err();
    let told =
        "it was Monday\nand when the same seed and faults were run again, nothing broke: functions of the topology do";
    assert!(words.contains(told) && words.contains(".expect(deterministic()) names them"), "{words}");
}

#[test]
fn an_expectation_that_panics_is_named() {
    let never: fn() -> Result<(), String> = || panic!("no number in \"ann\"");
    for oracle in [tine_sim::oracle::always(move |_| never()), holds(move |_| never())] {
        let report = common::simulation(Mode::Cluster(2)).expect(oracle).run(1, &FaultPlan::default());
        let broken = report.broken.unwrap();
        assert!(broken.invariant.starts_with("the user's expectation"), "{}", broken.invariant);
        assert_eq!(broken.what, "the expectation itself panics: no number in \"ann\"");
    }
}

#[test]
fn a_world_that_cannot_be_is_named() {
    let none = common::simulation(Mode::Cluster(2)).with_faults(any::<FaultPlan>()).cases(0);
    let words = catch_unwind(AssertUnwindSafe(|| none.check(holds(|_| Ok(()))))).unwrap_err();
    assert!(words.downcast_ref::<&str>().unwrap().contains("no case would be run, by .cases(0)"));
    for (simulation, told) in [
        (common::simulation(Mode::Cluster(0)), "Mode::Cluster(0): from 1 to 16 workers"),
        (common::simulation(Mode::Cluster(200)), "Mode::Cluster(200): from 1 to 16 workers"),
        (
            common::simulation(Mode::Embedded).settings(|settings| settings.partitions = 0),
            "settings.partitions is 0: a source has one at least",
        ),
    ] {
        assert_eq!(simulation.run_seed(1).broken.unwrap().what, told);
    }
}

#[test]
fn a_kept_case_that_cannot_be_read_is_named_with_its_line() {
    let file = file("broken.sim-regressions");
    fs::write(&file, "# a comment\n7/crash:0@10~5  # fine\n8/flood@3\n").unwrap();
    let words = check(common::simulation(Mode::Cluster(2)), &file).unwrap_err();
    assert!(words.contains("broken.sim-regressions line 3: \"8/flood@3\" is no case"), "{words}");
}

#[test]
fn proptest_and_the_simulator_shrink_to_the_same() {
    let simulation = wrong_about_tails();
    let mut runner = TestRunner::deterministic();
    let failed = runner.run(&(Just(5_u64), any::<FaultPlan>()), |(seed, plan)| simulation.case(seed, &plan).map(drop));
    let Err(proptest::test_runner::TestError::Fail(words, (seed, plan))) = failed else {
        panic!("nothing failed");
    };
    assert!(words.message().contains("the database lost something"), "{words}");
    assert_eq!(plan.faults.len(), 1, "{plan}");
    let report = simulation.run(seed, &plan);
    assert_eq!(simulation.shrink(&report).plan, plan, "nothing is left to shrink");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a user writes who has more to draw than faults.
    #[test]
    fn counts_stay_exact_for_any_number_of_lines(seed in any_seed(), plan in any::<FaultPlan>(), count in 30..90_usize) {
        let lines = common::lines(count);
        let simulation = tine_sim::simulate(move |world| common::word_count(world, &lines))
            .expect(tine_sim::exact_counts("counts", |line| line.split_whitespace().collect()));
        simulation.case(seed, &plan)?;
    }
}

/// A zombie inside its COMMIT, step by step.
#[test]
fn a_process_that_falls_asleep_in_commit_wakes_up_to_a_fence() {
    for mode in [Mode::Cluster(2), Mode::Cluster(3), Mode::Embedded] {
        let simulation = common::simulation(mode);
        let mut run = simulation.script(7);
        let sleeper = run.until(Point::CommitSent(4));
        assert_eq!(run.committed(), 3, "sent, and not there yet");
        run.inject(Kind::Pause(sleeper));
        run.run_for(900);
        assert_ne!(run.leader(), Some(sleeper));
        run.end(Kind::Pause(sleeper));
        run.run_for(50);
        let report = run.finish();
        report.assert_held();
        // A sleeper keeps a lock on a file: nobody takes over from it.
        assert!(report.attempts >= 2 || mode == Mode::Embedded, "{report}");
    }
}

/// After the COMMIT of transaction 7 was executed, before its answer: the answer is lost.
#[test]
fn the_answer_to_a_commit_is_lost_and_the_transaction_counts_once() {
    let simulation = common::simulation(Mode::Embedded);
    let plan = FaultPlan::from([Fault::when(Point::Committed(7), Kind::LostCommitReply(Kind::WHOEVER)).lasting(5)]);
    let mut replayed = simulation.replay(3, &plan);
    replayed.assert_held();
    assert_eq!((replayed.faults(), replayed.attempts), (1, 2), "one replay settles it");
    replayed.timeline.retain(|line| line.contains("transaction 7"));
    let commits = replayed.timeline.iter().filter(|line| line.contains("the database commits transaction 7"));
    assert_eq!(commits.count(), 1, "{:#?}", replayed.timeline);
}

#[test]
fn time_stands_still_until_it_is_driven_and_moves_as_far_as_it_is_told() {
    let simulation = common::simulation(Mode::Cluster(2));
    let mut run = simulation.script(1);
    assert_eq!((run.now_ms(), run.committed(), run.leader()), (0, 0, None));
    run.until(Point::Elected(1));
    run.until(Point::Complete(2));
    assert!(run.table("counts").is_some_and(|counts| !counts.is_empty()));
    let now_ms = run.now_ms();
    run.run_for(250);
    assert_eq!(run.now_ms(), now_ms + 250);
    let before = run.committed();
    run.inject(Kind::Cut(tine_sim::End::Node(0), tine_sim::End::Database));
    run.inject(Kind::Cut(tine_sim::End::Node(1), tine_sim::End::Database));
    assert_eq!(run.reaches(Point::Complete(9999)), None);
    assert!(run.committed() <= before + 1, "nothing gets to the database");
    run.heal();
    let report = run.finish();
    report.assert_held();
    assert!(report.timeline.iter().any(|line| line.contains("FAULT")), "{report}");
}

#[test]
#[should_panic(expected = "it never came that transaction 60000 is complete")]
fn a_moment_that_does_not_come_is_told_with_the_timeline() {
    common::simulation(Mode::Cluster(2)).script(1).until(Point::Complete(60_000));
}

#[test]
#[should_panic(expected = "and not again within a minute; drive to it earlier")]
fn a_moment_that_has_passed_is_told_with_its_time() {
    let simulation = common::simulation(Mode::Cluster(2));
    let mut run = simulation.script(1);
    run.until(Point::Complete(4));
    run.until(Point::Complete(3));
}

#[test]
#[should_panic(expected = "does not hold before transaction 5 is complete: no more")]
fn what_breaks_before_a_moment_is_told() {
    let enough = |seen: &tine_sim::oracle::Seen<'_>| if seen.txid() < 3 { Ok(()) } else { Err("no more".to_owned()) };
    common::simulation(Mode::Cluster(2)).expect(tine_sim::oracle::always(enough)).script(1).until(Point::Complete(5));
}
