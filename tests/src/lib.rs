//! What tine's tests stand on: real servers, a network that breaks on request, processes that are killed, and an
//! answer to compare with.
//!
//! Read in this order:
//!
//! - [`services`]: real Kafka, ZooKeeper and PostgreSQL on loopback, each a process we own and may stop, kill or wipe.
//! - [`proxy`]: a TCP proxy in front of any of them that cuts, delays, swallows or stalls.
//! - [`process`]: our own programs as child processes: read their lines, SIGKILL, SIGSTOP, wait with a deadline.
//! - [`produce`]: loads topics through librdkafka: plain, idempotent, transactional with aborts.
//! - [`job`]: the example `kafka_to_postgres` as a job: start it, follow its phases, kill it in one of them.
//! - [`audit`]: the program `tine audit`, and its verdict.
//! - [`chaos`]: all of it at once, by a plan from a seed.
//! - [`count`]: the independent answer. It shares no parser, hash or reader with tine.
//!
//! A test that only *uses* a server asks [`services::shared`] for it; one that *breaks* a server starts its own. Nothing
//! here depends on tine, so that a mistake in tine cannot hide in the yardstick.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use tine_tests::{count, produce, services};
//!
//! let Some(kafka) = services::shared::kafka() else { return Ok(()) };
//! let topic = services::unique("words");
//! kafka.create_topic(&topic, 4).await?;
//! let lines = produce::text(7, 10_000, 10, 1_000);
//! produce::lines(kafka.address(), &topic, &lines)?;
//! let expected = count::words(&lines);
//! # Ok(()) }
//! ```
#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a library for tests: a missing service in CI is a panic, a skip is a line on stderr"
)]

pub mod audit;
pub mod chaos;
pub mod count;
pub mod disk;
mod gate;
pub mod job;
pub mod process;
pub mod produce;
pub mod proxy;
pub mod services;

use std::time::{Duration, Instant};

/// How often a condition without a notification is looked at.
const POLL: Duration = Duration::from_millis(5);

/// How often a server is asked again.
const ASK: Duration = Duration::from_millis(50);

/// Prints a result of a test where people see it; the test harness would keep it to itself.
pub fn report(text: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Looks at `condition` until it holds or `deadline` has passed, and says whether it held.
///
/// Blocks the calling thread; [`eventually`] is the asynchronous form.
pub fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// Asks until there is an answer, with a pause in between that a server can bear.
///
/// # Panics
/// When there is none within `deadline`.
pub fn answer_within<T>(deadline: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain for {what}");
        std::thread::sleep(ASK);
    }
}

/// Looks at `condition` until it holds or `deadline` has passed, and says whether it held.
pub async fn eventually<F: Future<Output = bool>>(deadline: Duration, mut condition: impl FnMut() -> F) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition().await {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
}
