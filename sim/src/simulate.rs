//! What a user calls: run a topology under faults, thousands of times, and hold it against what it should have done.

use std::{
    borrow::Cow,
    env, fmt,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner},
};

use crate::{
    engine::Engine,
    faults::FaultPlan,
    invariants::{Broken, Checker},
    oracle::{Expected, Oracle},
    report::{Coverage, Report},
    settings::{Mode, Settings},
    world::{Simulated, World},
};

/// The variable that holds one run to replay: `SEED/FAULTS`.
const REPLAY: &str = "TINE_SIM_REPLAY";

/// How many cases a check runs unless told otherwise.
const CASES: u32 = 2_000;

type Build = dyn Fn(&World) -> Result<tine_trident::pipeline::Built, String> + Send + Sync;

/// A topology to be simulated: see [`simulate`].
#[derive(Clone)]
pub struct Simulation {
    build: Arc<Build>,
    settings: Settings,
    oracles: Vec<Oracle>,
    cases: u32,
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("settings", &self.settings)
            .field("cases", &self.cases)
            .finish_non_exhaustive()
    }
}

/// Simulates the topology that `build` makes. It is built anew for every run, on a world of its own.
pub fn simulate<T: Simulated>(build: impl Fn(&World) -> T + Send + Sync + 'static) -> Simulation {
    let build = move |world: &World| build(world).built();
    Simulation { build: Arc::new(build), settings: Settings::default(), oracles: Vec::new(), cases: CASES }
}

impl Simulation {
    /// How the topology runs (default: a cluster of two workers).
    pub fn mode(mut self, mode: Mode) -> Simulation {
        self.settings.mode = mode;
        self
    }

    /// The world's size and time constants.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Simulation {
        change(&mut self.settings);
        self
    }

    /// Something that must hold for every run. May be called several times.
    pub fn expect(mut self, oracle: Oracle) -> Simulation {
        self.oracles.push(oracle);
        self
    }

    /// How many cases [`Faulty::check`] runs.
    pub fn cases(mut self, cases: u32) -> Simulation {
        self.cases = cases;
        self
    }

    /// Draws fault plans from a strategy: `any::<FaultPlan>()`, or one of your own.
    pub fn with_faults<S: Strategy<Value = FaultPlan>>(self, faults: S) -> Faulty<S> {
        Faulty { simulation: self, faults }
    }

    /// Runs one seed, under the faults that follow from it.
    pub fn run_seed(&self, seed: u64) -> Report {
        self.run(seed, &FaultPlan::from_seed(seed, self.settings.mode))
    }

    /// Runs one seed under these faults.
    pub fn run(&self, seed: u64, plan: &FaultPlan) -> Report {
        self.run_with(seed, plan, &self.settings)
    }

    /// Runs what a replay line (`SEED/FAULTS`) says, with a timeline; `None` if it is no such line.
    pub fn replay_line(&self, line: &str) -> Option<Report> {
        let (seed, plan) = line.split_once('/')?;
        Some(self.replay(seed.parse().ok()?, &plan.parse().ok()?))
    }

    /// The same, with a timeline.
    pub fn replay(&self, seed: u64, plan: &FaultPlan) -> Report {
        self.run_with(seed, plan, &Settings { timeline: true, ..self.settings.clone() })
    }

    fn run_with(&self, seed: u64, plan: &FaultPlan, settings: &Settings) -> Report {
        let world = World::new(seed, settings);
        let mut built = match (self.build)(&world) {
            Ok(built) => built,
            Err(error) => {
                return Report::without_a_run(seed, plan, Broken::new("the topology can be built", error));
            }
        };
        built.group.lineage = u128::from(seed) + 1;
        let counting = built.group.states.iter().map(|state| {
            self.oracles.iter().find_map(|oracle| match &oracle.0 {
                Expected::Counts { state: name, how } if *name == state.name => Some(how.clone()),
                _ => None,
            })
        });
        let letters = built.group.states.iter().position(|state| state.name == tine_trident::dead_letters::NAME);
        let checker = Checker::new(counting.collect(), letters);
        let (trips, taken) = world.wire();
        if !taken {
            trips.lay(&mut built);
        }
        let (plan_of, settings) = (Cow::Borrowed(plan), Cow::Borrowed(settings));
        let engine = Engine::new(seed, plan_of, settings, built, world.sources(), trips, checker);
        let mut report = match catch_unwind(AssertUnwindSafe(|| engine.run())) {
            Ok(report) => report,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words");
                return Report::without_a_run(seed, plan, Broken::new("an assertion of the machines", text));
            }
        };
        if report.broken.is_none() {
            let custom = self.oracles.iter().filter_map(|oracle| match &oracle.0 {
                Expected::Custom(check) => Some(check),
                Expected::Counts { .. } => None,
            });
            let found = custom.map(|check| check(&report)).find_map(Result::err);
            report.broken = found.map(|what| Broken::new("the user's expectation", what));
        }
        report
    }

    /// Runs `count` seeds from `from` on, on `threads` threads; answers with the coverage, and with the first failure,
    /// shrunk, with its timeline.
    pub fn campaign(&self, from: u64, count: u64, threads: usize) -> (Coverage, Option<Report>) {
        let (next, stop) = (AtomicU64::new(from), AtomicBool::new(false));
        let total = Mutex::new((Coverage::default(), None::<Report>));
        let work = || {
            let mut mine = Coverage::default();
            while !stop.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= from + count {
                    break;
                }
                let report = self.run_seed(seed);
                mine.add(&report);
                if report.broken.is_some() {
                    stop.store(true, Ordering::Relaxed);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    if total.1.as_ref().is_none_or(|other| other.seed > seed) {
                        total.1 = Some(report);
                    }
                }
            }
            total.lock().unwrap_or_else(PoisonError::into_inner).0.merge(&mine);
        };
        thread::scope(|scope| (0..threads.max(1)).for_each(|_| drop(scope.spawn(work))));
        let (coverage, failed) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
        (coverage, failed.map(|report| self.shrink(&report)))
    }

    /// Takes faults away and shortens them as long as the run still breaks; answers with the last that does.
    pub fn shrink(&self, failed: &Report) -> Report {
        self.shrink_while(failed, |report| report.broken.is_some())
    }

    /// The same for whatever is wrong with a run.
    pub fn shrink_while(&self, failed: &Report, wrong: impl Fn(&Report) -> bool) -> Report {
        let mut plan = failed.plan.clone();
        'simpler: loop {
            for candidate in plan.simpler() {
                if wrong(&self.run(failed.seed, &candidate)) {
                    plan = candidate;
                    continue 'simpler;
                }
            }
            return self.replay(failed.seed, &plan);
        }
    }
}

/// A simulation with a strategy for its faults.
pub struct Faulty<S> {
    simulation: Simulation,
    faults: S,
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

    /// Runs all cases.
    ///
    /// # Panics
    /// With the shortest fault plan that breaks something, in words, its timeline, and the line that replays it.
    #[track_caller]
    #[allow(clippy::panic, reason = "this is how a test fails")]
    pub fn check(self, oracle: Oracle) -> Coverage {
        let source = Location::caller().file();
        let simulation = self.simulation.expect(oracle);
        if let Ok(line) = env::var(REPLAY) {
            let report = match simulation.replay_line(&line) {
                Some(report) => report,
                None => panic!("{REPLAY}={line:?} is no replay line: it looks like '7/0.120.40.1.0,17.300.0.0.2'"),
            };
            assert!(report.broken.is_none(), "{report}");
            let mut coverage = Coverage::default();
            coverage.add(&report);
            return coverage;
        }
        let coverage = Mutex::new(Coverage::default());
        let config = Config {
            cases: simulation.cases,
            source_file: Some(source),
            rng_seed: RngSeed::Fixed(0x7173),
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new(config);
        let case = (proptest::num::u64::ANY.no_shrink(), self.faults);
        let result = runner.run(&case, |(seed, plan)| {
            let report = simulation.run(seed, &plan);
            coverage.lock().unwrap_or_else(PoisonError::into_inner).add(&report);
            match report.broken {
                None => Ok(()),
                Some(broken) => Err(TestCaseError::fail(broken.invariant)),
            }
        });
        match result {
            Ok(()) => coverage.into_inner().unwrap_or_else(PoisonError::into_inner),
            Err(TestError::Fail(_, (seed, plan))) => panic!("{}", simulation.replay(seed, &plan)),
            Err(TestError::Abort(reason)) => panic!("the fault plans could not be drawn: {reason}"),
        }
    }

    /// One plan drawn from the strategy, for a look at it.
    pub fn sample(&self) -> Option<FaultPlan> {
        self.faults.new_tree(&mut TestRunner::deterministic()).ok().map(|tree| tree.current())
    }
}
