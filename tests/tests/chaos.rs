//! Everything breaks at once for three minutes, and every word is counted once. The long form is the program `chaos`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::time::Duration;

use tine_tests::chaos::Chaos;
use tine_tests::report;

/// `TINE_CHAOS_SEED` or another one each time; it is printed.
fn seed() -> u64 {
    let given = std::env::var("TINE_CHAOS_SEED").ok();
    given.map_or_else(rand::random, |seed| seed.parse().expect("TINE_CHAOS_SEED is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_count_exactly_while_everything_breaks() {
    let chaos = Chaos { seed: seed(), length: Duration::from_secs(180), workers: 3, broken: String::new() };
    let outcome = chaos.run().await.unwrap_or_else(|error| panic!("{error:#}"));
    let Some(outcome) = outcome else { return };
    report(&outcome);
    assert!(outcome.is_exact());
    assert!(outcome.faults() >= 30, "so few faults are no chaos");
}
