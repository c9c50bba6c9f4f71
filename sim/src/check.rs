//! What a test calls: thousands of cases, and how it fails.
//!
//! First the cases that were kept from earlier failures, then new ones, drawn by proptest. A failing case is shrunk, first
//! by proptest, then by [`Simulation::shrink`], which knows the same simpler plans and goes on where proptest ends; it is
//! kept, and printed with its timeline and the line that replays it.

use std::{
    cell::RefCell,
    env, fmt,
    panic::Location,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner},
};

use crate::{
    faults::FaultPlan,
    oracle::Oracle,
    regressions::{self, Regressions},
    report::{Coverage, Report},
    simulate::Simulation,
};

/// The variable that holds one run to replay: `SEED/FAULTS`.
pub(crate) const REPLAY: &str = "TINE_SIM_REPLAY";

/// Any seed. It is not shrunk: another seed is another run.
pub fn any_seed() -> impl Strategy<Value = u64> {
    proptest::num::u64::ANY.no_shrink()
}

impl Simulation {
    /// One case inside `proptest!`: `Err` with the whole story if something does not hold.
    ///
    /// ```
    /// use proptest::prelude::*;
    /// use tine_sim::{FaultPlan, any_seed};
    /// # use tine_sim::{Simulation, exact_counts, simulate};
    /// # use tine_trident::topology::Topology;
    /// # fn word_count() -> Simulation {
    /// #     simulate(|world| {
    /// #         let topology = Topology::new("words");
    /// #         topology.source(world.source("lines", ["a b", "b"]))
    /// #             .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
    /// #             .persist(world.table("counts").key("word").value("n"));
    /// #         topology
    /// #     })
    /// #     .expect(exact_counts("counts", |line| line.split_whitespace().collect()))
    /// # }
    ///
    /// proptest! {
    ///     # #![proptest_config(ProptestConfig { failure_persistence: None, cases: 32, ..Default::default() })]
    ///     # /*
    ///     #[test]
    ///     # */
    ///     fn counts_stay_exact(seed in any_seed(), faults in any::<FaultPlan>()) {
    ///         let report = word_count().case(seed, &faults)?;
    ///         prop_assert!(report.txids >= 1);
    ///     }
    /// }
    /// # counts_stay_exact();
    /// ```
    pub fn case(&self, seed: u64, plan: &FaultPlan) -> Result<Report, TestCaseError> {
        let report = self.run(seed, plan);
        match report.broken {
            None => Ok(report),
            Some(_) => Err(TestCaseError::fail(self.retold(&report).to_string())),
        }
    }
}

/// A simulation with a strategy for its faults.
pub struct Faulty<S> {
    pub(crate) simulation: Simulation,
    pub(crate) faults: S,
    pub(crate) regressions: Regressions,
}

impl<S> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.simulation.fmt(f)
    }
}

impl<S: Strategy<Value = FaultPlan>> Faulty<S> {
    /// How many cases [`check`](Faulty::check) runs.
    pub fn cases(mut self, cases: u32) -> Self {
        self.simulation.cases = cases;
        self
    }

    /// Where failing cases are kept (default: beside the test).
    pub fn regressions(mut self, regressions: Regressions) -> Self {
        self.regressions = regressions;
        self
    }

    /// Something more that must hold for every run.
    pub fn expect(mut self, oracle: Oracle) -> Self {
        self.simulation = self.simulation.expect(oracle);
        self
    }

    /// Runs all cases: first those that were kept from earlier failures, then new ones.
    ///
    /// # Panics
    /// With the shortest fault plan that breaks something, in words, its timeline, and the line that replays it.
    #[track_caller]
    #[allow(clippy::panic, reason = "this is how a test fails")]
    pub fn check(self, oracle: Oracle) -> Coverage {
        let source = Location::caller().file();
        let Faulty { simulation, faults, regressions } = self;
        let mut check =
            Check { simulation: simulation.expect(oracle), file: regressions.file(source), coverage: Mutex::default() };
        if check.simulation.cases == 0 {
            panic!("no case would be run, by .cases(0): ask for one at least");
        }
        let outcome = match env::var(REPLAY) {
            Ok(line) => check.replay(&line),
            Err(_) => check.run(source, faults),
        };
        match outcome {
            Ok(()) => check.coverage.into_inner().unwrap_or_else(PoisonError::into_inner),
            Err(words) => panic!("{words}"),
        }
    }

    /// One plan drawn from the strategy, for a look at it.
    pub fn sample(&self) -> Option<FaultPlan> {
        self.faults.new_tree(&mut TestRunner::deterministic()).ok().map(|tree| tree.current())
    }
}

/// A check under way.
struct Check {
    simulation: Simulation,
    file: Option<PathBuf>,
    coverage: Mutex<Coverage>,
}

impl Check {
    fn count(&self, report: &Report) {
        self.coverage.lock().unwrap_or_else(PoisonError::into_inner).add(report);
    }

    fn replay(&mut self, line: &str) -> Result<(), String> {
        let report = self.simulation.replay_line(line).ok_or_else(|| {
            format!("{REPLAY}={line:?} is no replay line: it looks like '7/pause:0@120~300,crash:1@commit-sent:7'")
        })?;
        self.count(&report);
        match report.broken {
            None => Ok(()),
            Some(_) => Err(in_words(report)),
        }
    }

    fn run(&mut self, source: &'static str, faults: impl Strategy<Value = FaultPlan>) -> Result<(), String> {
        self.simulation.check_determinism()?;
        self.run_kept()?;
        self.run_new(source, faults)?;
        // Once more, now that time has passed: clocks have moved on.
        self.simulation.check_determinism_again()
    }

    fn run_kept(&self) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        for (seed, plan) in regressions::kept(file)? {
            let report = self.simulation.run(seed, &plan);
            self.count(&report);
            if report.broken.is_some() {
                let case = report.case();
                let words = in_words(self.simulation.shrink(&report));
                return Err(format!("{words}\nthe case is kept, as '{case}', in {}", file.display()));
            }
        }
        Ok(())
    }

    fn run_new(&self, source: &'static str, faults: impl Strategy<Value = FaultPlan>) -> Result<(), String> {
        let config = Config {
            cases: self.simulation.cases,
            source_file: Some(source),
            rng_seed: RngSeed::Fixed(0x7173),
            failure_persistence: None,
            ..Config::default()
        };
        let last = RefCell::new(None);
        let result = TestRunner::new(config).run(&(any_seed(), faults), |(seed, plan)| {
            let report = self.simulation.run(seed, &plan);
            self.count(&report);
            match &report.broken {
                None => Ok(()),
                Some(broken) => {
                    let what = broken.invariant;
                    last.replace(Some(report));
                    Err(TestCaseError::fail(what))
                }
            }
        });
        match result {
            Ok(()) => Ok(()),
            Err(TestError::Abort(reason)) => Err(format!("the fault plans could not be drawn: {reason}")),
            Err(TestError::Fail(..)) => match last.into_inner() {
                Some(failed) => Err(self.fail(&failed)),
                None => Err("a case failed and left no report".to_owned()),
            },
        }
    }

    fn fail(&self, failed: &Report) -> String {
        let report = self.simulation.shrink(failed);
        let Some(file) = &self.file else { return in_words(report) };
        match regressions::keep(file, &report, &this_test()) {
            Ok(()) => format!("{}\nkept in {}: it runs first from now on", in_words(report), file.display()),
            Err(error) => format!("{}\nnot kept in {}: {error}", in_words(report), file.display()),
        }
    }
}

/// The test that runs here; the harness names its threads by them.
fn this_test() -> String {
    thread::current().name().unwrap_or("TEST").to_owned()
}

/// A run that this test can be asked for again.
fn in_words(report: Report) -> String {
    Report { test: Some(this_test()), ..report }.to_string()
}
