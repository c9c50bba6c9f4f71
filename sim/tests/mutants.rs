//! Breaks one rule of the protocol at a time, and shows that the simulator notices: see [`mutation`].
//!
//! `cargo run --release -p tine-sim --features mutants --example mutants` prints the table; so does this test with `--nocapture`.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test prints figures and fails loudly")]
#![allow(clippy::vec_box, reason = "the machines' own sessions are boxes")]

mod common;
mod model;
mod mutation;

#[test]
fn every_broken_rule_is_noticed() {
    common::quiet();
    let missed = mutation::table(&mutation::chosen(), 5_000);
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

/// The other side of each way: when no rule is broken there is nothing to be found.
#[test]
fn nothing_is_noticed_when_no_rule_is_broken() {
    common::quiet();
    for way in mutation::all() {
        let found = way.hunt(None, 1_000);
        assert!(found.is_none(), "{}", found.unwrap());
    }
}
