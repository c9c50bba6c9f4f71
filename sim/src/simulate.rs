//! A topology under simulation: built anew for every run, run under faults, held against what it should have done.

use std::{
    borrow::Cow,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use proptest::strategy::Strategy;
use tine_trident::pipeline::Built;

use crate::{
    check::Faulty,
    engine::Engine,
    faults::FaultPlan,
    invariants::{Broken, Checker, asked, said},
    oracle::{Expected, Oracle, unknown_state},
    regressions::{Regressions, parse_case},
    report::{Coverage, Report},
    script::Script,
    settings::{Mode, Settings},
    witness::{self, Account},
    world::{Simulated, World},
};

/// How many cases a check runs unless told otherwise.
const CASES: u32 = 2_000;

type Build = dyn Fn(&World) -> Result<Built, String> + Send + Sync;

/// A topology to be simulated: see [`simulate`].
#[derive(Clone)]
pub struct Simulation {
    build: Arc<Build>,
    settings: Settings,
    oracles: Vec<Oracle>,
    pub(crate) cases: u32,
    /// What operators made of the records when they were looked at first, or how they differed.
    made: Arc<OnceLock<Result<Account, String>>>,
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
    Simulation {
        build: Arc::new(build),
        settings: Settings::default(),
        oracles: Vec::new(),
        cases: CASES,
        made: Arc::default(),
    }
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
        // Other settings may make other records.
        self.made = Arc::default();
        self
    }

    /// Something that must hold for every run. May be called several times.
    pub fn expect(mut self, oracle: Oracle) -> Simulation {
        self.oracles.push(oracle);
        self
    }

    /// How many cases [`Faulty::check`](crate::Faulty::check) runs (default: 2,000).
    pub fn cases(mut self, cases: u32) -> Simulation {
        self.cases = cases;
        self
    }

    /// Draws fault plans from a strategy: `any::<FaultPlan>()`, or one of your own.
    pub fn with_faults<S: Strategy<Value = FaultPlan>>(self, faults: S) -> Faulty<S> {
        Faulty { simulation: self, faults, regressions: Regressions::default() }
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
        let (seed, plan) = parse_case(line)?;
        Some(self.replay(seed, &plan))
    }

    /// The same, with a timeline.
    pub fn replay(&self, seed: u64, plan: &FaultPlan) -> Report {
        self.run_with(seed, plan, &Settings { timeline: true, ..self.settings.clone() })
    }

    /// A run of this seed that is driven by hand, without any fault of its own, with a timeline.
    ///
    /// ```
    /// use tine_sim::{Kind, Point};
    /// # use tine_sim::{exact_counts, simulate};
    /// # use tine_trident::topology::Topology;
    /// # let word_count = simulate(|world| {
    /// #     let topology = Topology::new("words");
    /// #     topology.source(world.source("lines", ["a b"; 40]))
    /// #         .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
    /// #         .persist(world.table("counts").key("word").value("n"));
    /// #     topology
    /// # })
    /// # .expect(exact_counts("counts", |line| line.split_whitespace().collect()));
    ///
    /// let mut run = word_count.script(1);
    /// // After the COMMIT of transaction 3 was sent, before its answer: the process falls asleep.
    /// let sleeper = run.until(Point::CommitSent(3));
    /// run.inject(Kind::Pause(sleeper));
    /// run.run_for(400);
    /// // The others have gone on, as far as they can. The sleeper wakes up and believes that it is where it was.
    /// assert_ne!(run.leader(), Some(sleeper));
    /// run.end(Kind::Pause(sleeper));
    /// run.finish().assert_held();
    /// ```
    ///
    /// # Panics
    /// When the topology cannot be built.
    #[track_caller]
    #[allow(clippy::panic, reason = "this is how a test fails")]
    pub fn script(&self, seed: u64) -> Script {
        let settings = Cow::Owned(Settings { timeline: true, ..self.settings.clone() });
        match self.engine(seed, Cow::Owned(FaultPlan::default()), settings) {
            Ok(engine) => Script::new(self.clone(), engine),
            Err(broken) => panic!("{}: {}", broken.invariant, broken.what),
        }
    }

    fn run_with(&self, seed: u64, plan: &FaultPlan, settings: &Settings) -> Report {
        if let Err(what) = self.check_determinism() {
            return Report::without_a_run(seed, plan, Broken::new("deterministic", what));
        }
        let engine = match self.engine(seed, Cow::Borrowed(plan), Cow::Borrowed(settings)) {
            Ok(engine) => engine,
            Err(broken) => return Report::without_a_run(seed, plan, broken),
        };
        match catch_unwind(AssertUnwindSafe(|| engine.run())) {
            Ok(report) => self.judged(report),
            Err(panic) => Report::without_a_run(seed, plan, Broken::new("an assertion of the machines", said(&*panic))),
        }
    }

    /// The world of a run, before its first event.
    fn engine<'a>(
        &self,
        seed: u64,
        plan: Cow<'a, FaultPlan>,
        settings: Cow<'a, Settings>,
    ) -> Result<Engine<'a>, Broken> {
        settings.check().map_err(|what| Broken::new("the world can be built", what))?;
        let world = World::new(seed, &settings);
        let mut built = (self.build)(&world).map_err(|error| Broken::new("the topology can be built", error))?;
        world.check(&built).map_err(|what| Broken::new("the world can be built", what))?;
        built.group.lineage = u128::from(seed) + 1;
        let (trips, taken) = world.wire();
        if !taken {
            trips.lay(&mut built);
        }
        let checker = self.checker(&built)?;
        Ok(Engine::new(seed, plan, settings, built, world.sources(), trips, checker))
    }

    fn checker(&self, built: &Built) -> Result<Checker, Broken> {
        let states: Vec<String> = built.group.states.iter().map(|state| state.name.clone()).collect();
        let mut counting = vec![None; states.len()];
        let mut watching = Vec::new();
        for oracle in &self.oracles {
            match &oracle.expected {
                Expected::Counts { state, how } => match states.iter().position(|name| name == state) {
                    Some(index) => counting[index] = Some(how.clone()),
                    None => return Err(Broken::new(oracle.name, unknown_state(state, &states))),
                },
                Expected::Seen(watch) => watching.push((oracle.name, watch.clone())),
                Expected::End(_) | Expected::Deterministic => {}
            }
        }
        Ok(Checker::new(states, counting, watching))
    }

    /// Looks at what is expected at the end.
    pub(crate) fn judged(&self, mut report: Report) -> Report {
        if report.broken.is_none() {
            let ends = self.oracles.iter().filter_map(|oracle| match &oracle.expected {
                Expected::End(check) => Some((oracle.name, check)),
                _ => None,
            });
            let found = ends.map(|(name, check)| asked(name, || check(&report)));
            report.broken = found.filter_map(Result::err).next();
        }
        report
    }

    fn wants_determinism(&self) -> bool {
        self.oracles.iter().any(|oracle| matches!(oracle.expected, Expected::Deterministic))
    }

    /// Looks once whether operators are deterministic, if that is expected.
    pub(crate) fn check_determinism(&self) -> Result<(), String> {
        match self.wants_determinism() {
            true => {
                self.made.get_or_init(|| witness::look(&|| self.topology())).as_ref().map(drop).map_err(Clone::clone)
            }
            false => Ok(()),
        }
    }

    /// Looks again, and compares with what was made the first time.
    pub(crate) fn check_determinism_again(&self) -> Result<(), String> {
        match (self.wants_determinism(), self.made.get()) {
            (true, Some(Ok(first))) => witness::look_again(&|| self.topology(), first),
            _ => Ok(()),
        }
    }

    /// The topology, fresh, with all the records that its sources will ever hold.
    fn topology(&self) -> Result<witness::Subject, String> {
        let world = World::new(0, &self.settings);
        let built = (self.build)(&world)?;
        world.check(&built)?;
        Ok(witness::Subject { built, sources: world.sources() })
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

    /// Takes faults away and shortens them as long as the run still breaks the same; answers with the last that does.
    pub fn shrink(&self, failed: &Report) -> Report {
        let invariant = |report: &Report| report.broken.as_ref().map(|broken| broken.invariant);
        let what = invariant(failed);
        self.shrink_while(failed, |report| invariant(report) == what)
    }

    /// The same for whatever is wrong with a run.
    pub fn shrink_while(&self, failed: &Report, wrong: impl Fn(&Report) -> bool) -> Report {
        let mut last = Cow::Borrowed(failed);
        'simpler: loop {
            for candidate in last.plan.simpler() {
                let report = self.run(failed.seed, &candidate);
                if wrong(&report) {
                    last = Cow::Owned(report);
                    continue 'simpler;
                }
            }
            return self.retold(&last);
        }
    }

    /// The same run again, with a timeline. When it is another one, what broke first is said all the same.
    pub(crate) fn retold(&self, failed: &Report) -> Report {
        let mut again = self.replay(failed.seed, &failed.plan);
        if again.broken == failed.broken {
            return again;
        }
        let now =
            again.broken.map_or("nothing broke".to_owned(), |broken| format!("{} does not hold", broken.invariant));
        again.broken = failed.broken.clone().map(|broken| Broken {
            what: format!(
                "{}\nand when the same seed and faults were run again, {now}: functions of the topology do not make the same of the same, \
                 and .expect(deterministic()) names them",
                broken.what
            ),
            ..broken
        });
        again
    }
}
