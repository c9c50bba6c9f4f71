//! Walks through every state of one small world, perhaps with a rule broken, and prints what came of it.
//!
//! `cargo run --release -p tine-sim --features mutants --example scene -- 3 1` takes three records and one fault;
//! `-- 2 1 NoFenceCheck` breaks that rule.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a program that prints figures")]
#![allow(clippy::vec_box, reason = "the machines' own sessions are boxes")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/model/mod.rs"]
mod model;

use std::process::ExitCode;

use clap::Parser;
use tine_core::mutant::Mutant;

use self::model::look::{check, usual};

/// Walks through every state of one small world.
#[derive(Parser)]
struct Asked {
    /// How many records there are, a transaction each
    records: u64,
    /// How many faults, each at any place
    faults: u8,
    /// Rules to break, all at once
    #[arg(value_parser = rule)]
    broken: Vec<Mutant>,
}

fn rule(name: &str) -> Result<Mutant, String> {
    let known = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name);
    known.copied().ok_or_else(|| format!("no such rule; the rules are {:?}", Mutant::ALL))
}

fn main() -> ExitCode {
    common::quiet();
    let asked = Asked::parse();
    match check(usual(asked.records, asked.faults), &asked.broken).wrong {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    }
}
