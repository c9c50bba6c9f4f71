//! Walks through every state of one small world, perhaps with a rule broken, and prints what came of it.
//!
//! `cargo run --release -p tine-sim --features mutants --example scene -- 3 1` takes three records and one fault;
//! `-- 2 1 NoFenceCheck` breaks that rule; `-- 1 2 --kinds Crash,Expire --minutes 8` takes two faults of these kinds, and ends
//! after that time with exit code 2 if it has not seen everything.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a program that prints figures")]
#![allow(clippy::vec_box, reason = "the machines' own sessions are boxes")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/model/mod.rs"]
mod model;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use tine_core::mutant::Mutant;

use self::model::{Checked, Kind, Scene, look::found};

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
    /// What may go wrong; otherwise all that befalls any run
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    kinds: Vec<Kind>,
    /// How long it may take
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
}

fn rule(name: &str) -> Result<Mutant, String> {
    let known = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name);
    known.copied().ok_or_else(|| format!("no such rule; the rules are {:?}", Mutant::ALL))
}

fn kind(name: &str) -> Result<Kind, String> {
    let known = Kind::ALL.iter().find(|kind| format!("{kind:?}") == name);
    known.copied().ok_or_else(|| format!("no such kind; the kinds are {:?}", Kind::ALL))
}

fn main() -> ExitCode {
    common::quiet();
    let Asked { records, faults, broken, kinds, minutes } = Asked::parse();
    let kinds = if kinds.is_empty() { Kind::USUAL } else { kinds.leak() };
    let scene = Scene { records, faults, kinds };
    let found = found(scene, &broken, Checked::new(scene, &broken), Duration::from_secs_f64(minutes * 60.0));
    match (&found.wrong, found.whole) {
        (Some(_), _) => ExitCode::FAILURE,
        (None, true) => ExitCode::SUCCESS,
        (None, false) => ExitCode::from(2),
    }
}
