//! Breaks one rule of the protocol at a time and prints what noticed it: mutant → schedules until caught → shrunk faults.
//!
//! `cargo run --release -p tine-sim --features mutants --example mutants` breaks all; with names, such as `XorDigest`, those.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a program that prints a table")]
#![allow(clippy::vec_box, reason = "the machines' own sessions are boxes")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/model/mod.rs"]
mod model;
#[path = "../tests/mutation/mod.rs"]
mod mutation;

use std::process::ExitCode;

use tine_core::mutant::Mutant;

/// How many schedules are tried before a rule is said to survive.
const LIMIT: u64 = 5_000;

fn main() -> ExitCode {
    common::quiet();
    let names: Vec<String> = std::env::args().skip(1).collect();
    let known = |name: &String| Mutant::ALL.iter().any(|mutant| format!("{mutant:?}") == *name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        println!("{unknown:?} is no rule; the rules are {:?}", Mutant::ALL);
        return ExitCode::from(2);
    }
    let chosen = |mutant: &&Mutant| names.is_empty() || names.contains(&format!("{mutant:?}"));
    let mutants: Vec<Mutant> = Mutant::ALL.iter().filter(chosen).copied().collect();
    match mutation::table(&mutants, LIMIT).is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
