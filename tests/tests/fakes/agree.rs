//! Runs random scripts on a fake and its service, and says what the first difference is.

use std::{
    cell::Cell,
    fmt::{Debug, Write},
    future::Future,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, FileFailurePersistence, RngSeed, TestCaseError, TestError, TestRunner},
};
use tine_core::failure::Failure;
use tokio::runtime::Runtime;

/// Waiting for something that must come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// How long a failing script is made shorter.
const SHRINKING_MS: u32 = 90_000;

/// The clients of the services run here.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

thread_local! {
    /// How many answers this lane has found alike.
    static ALIKE: Cell<u64> = const { Cell::new(0) };
}

fn one_more_alike() {
    ALIKE.set(ALIKE.get() + 1);
}

/// What both sides have answered so far.
#[derive(Default)]
pub(crate) struct Transcript(String);

impl Transcript {
    pub(crate) fn note(&mut self, line: impl std::fmt::Display) {
        let _ = writeln!(self.0, "  {line}");
    }

    /// Notes an operation and what both came to; an error with the whole transcript when that is not the same.
    pub(crate) fn agree<T: PartialEq + Debug>(
        &mut self,
        operation: impl std::fmt::Display,
        fake: &T,
        real: &T,
    ) -> Result<(), String> {
        if fake == real {
            one_more_alike();
            self.note(format_args!("{operation}: {fake:?}"));
            return Ok(());
        }
        Err(self.differ(operation, fake, real))
    }

    /// As [`agree`](Transcript::agree), for answers whose failures say the same in other words.
    pub(crate) fn agree_in<T: PartialEq + Debug>(
        &mut self,
        words: &[&'static str],
        operation: impl std::fmt::Display,
        fake: &Result<T, Failure>,
        real: &Result<T, Failure>,
    ) -> Result<(), String> {
        let same = match (fake, real) {
            (Ok(fake), Ok(real)) => fake == real,
            (Err(fake), Err(real)) => {
                fake.kind == real.kind && essence(words, &fake.message) == essence(words, &real.message)
            }
            _ => false,
        };
        if !same {
            return Err(self.differ(operation, fake, real));
        }
        one_more_alike();
        self.note(format_args!("{operation}: {fake:?}"));
        Ok(())
    }

    pub(crate) fn differ(&self, operation: impl std::fmt::Display, fake: impl Debug, real: impl Debug) -> String {
        format!("after\n{}{operation}:\n  the fake says {fake:?}\n  the service says {real:?}", self.0)
    }
}

/// The words of a message that both sides must say, or neither.
fn essence(words: &[&'static str], message: &str) -> Vec<&'static str> {
    words.iter().filter(|word| message.contains(**word)).copied().collect()
}

/// Runs `cases` random scripts (or `PROPTEST_CASES`, if that is set) in several threads; the shortest one that fails is
/// printed with both answers, and its seed is kept beside `source` for all later runs. `PROPTEST_RNG_SEED` draws the same
/// scripts again, each lane others. With `--nocapture` it says how many answers were alike.
pub(crate) fn scripts<S>(
    source: &'static str,
    lanes: u32,
    cases: u32,
    strategy: impl Fn() -> S + Sync,
    run: impl Fn(&S::Value) -> Result<(), String> + Sync,
) where
    S: Strategy<Value: Send>,
{
    let failing = AtomicBool::new(false);
    let asked: Option<u32> = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let run_lane = |lane: u32| {
        let drawn = Config::default();
        let rng_seed = match drawn.rng_seed {
            RngSeed::Fixed(seed) => RngSeed::Fixed(seed.wrapping_mul(1 << 16) + u64::from(lane)),
            RngSeed::Random => RngSeed::Random,
        };
        let config = Config {
            cases: asked.unwrap_or(cases).div_ceil(lanes),
            max_shrink_iters: u32::MAX - 1,
            max_shrink_time: SHRINKING_MS,
            source_file: Some(source),
            failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
            rng_seed,
            ..drawn
        };
        let fails = Cell::new(false);
        let result = TestRunner::new(config).run(&strategy(), |script| {
            // When one lane has found something the others need not look any more.
            if failing.load(Ordering::Relaxed) && !fails.get() {
                return Ok(());
            }
            let result = run(&script);
            if let Err(reason) = &result
                && !fails.replace(true)
            {
                failing.store(true, Ordering::Relaxed);
                tine_tests::report(format_args!("{}\n(shrinking)", last_lines(reason)));
            }
            result.map_err(TestCaseError::fail)
        });
        (result, ALIKE.get())
    };
    let run_lane = &run_lane;
    std::thread::scope(|scope| {
        let spawned: Vec<_> = (0..lanes).map(|lane| scope.spawn(move || run_lane(lane))).collect();
        let (results, alike): (Vec<_>, Vec<_>) =
            spawned.into_iter().map(|lane| lane.join().expect("no lane panics")).unzip();
        eprintln!("{source}: {} answers alike", alike.into_iter().sum::<u64>());
        match results.into_iter().find_map(Result::err) {
            Some(TestError::Fail(reason, script)) => panic!("{reason}\n\nthe shortest script:\n{script:#?}"),
            Some(TestError::Abort(reason)) => panic!("{reason}"),
            None => {}
        }
    });
}

/// How a transcript ends.
fn last_lines(reason: &str) -> String {
    let lines: Vec<&str> = reason.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// What must come in time.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(DEADLINE, future).await.map_err(|_| format!("{what} did not come within {DEADLINE:?}"))
}
