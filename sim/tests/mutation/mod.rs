//! Breaks one rule of the protocol at a time, and hunts for a run that shows it: the test `mutants` and the program of the same name.
//!
//! A rule is hunted for in one or several ways ([`scenarios::ways`]): schedules of a topology under faults, seed by seed, or all states of a small
//! world, nearest first. What is found is shrunk. The same ways must find nothing when no rule is broken.

#![allow(dead_code, unused_imports, reason = "the test and the program use their parts")]

pub(crate) mod coins;
mod hunt;
mod scenarios;
mod topologies;

use std::fmt;

use tine_core::mutant::Mutant;
use tine_sim::{FaultPlan, Report, Simulation};

pub(crate) use self::scenarios::{all, ways};
use crate::model::Scene;

/// A way to meet a broken rule.
pub(crate) enum Way {
    /// Schedules, by seed from 1 on.
    Schedules(Scenario),
    /// The states of a small world; perhaps with more rules broken, which guard the same.
    States(&'static str, Scene, &'static [Mutant]),
}

/// A topology under faults.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) simulation: Simulation,
    pub(crate) plan: Box<dyn Fn(u64) -> FaultPlan + Send + Sync>,
    /// What is wrong with a run.
    pub(crate) wrong: fn(&Report) -> Option<String>,
}

/// A broken rule that was noticed.
pub(crate) struct Caught {
    /// Where.
    name: &'static str,
    /// After so many schedules or states.
    tries: String,
    /// What broke.
    what: String,
    /// The seed and the shrunk faults, or the way through the states.
    how: String,
}

impl Way {
    fn name(&self) -> &'static str {
        match self {
            Way::Schedules(scenario) => scenario.name,
            Way::States(name, ..) => name,
        }
    }

    /// Tries the first `limit` schedules, or all states; `None` when nothing is wrong.
    pub(crate) fn hunt(&self, mutant: Option<Mutant>, limit: u64) -> Option<Caught> {
        let name = self.name();
        match self {
            Way::Schedules(scenario) => {
                let (report, what) = hunt::schedules(scenario, mutant, limit)?;
                let tries = format!("{} schedules", report.seed);
                Some(Caught { name, tries, what, how: format!("{:#}", report.plan) })
            }
            Way::States(_, scene, also) => {
                let mutants: Vec<Mutant> =
                    mutant.into_iter().chain(mutant.and(Some(*also)).into_iter().flatten().copied()).collect();
                let (states, property, why, way) = hunt::states(*scene, &mutants)?;
                let tries = format!("{states} states");
                Some(Caught { name, tries, what: format!("{property}: {why}"), how: format!("  {}\n", way.join(", ")) })
            }
        }
    }
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 110;
        let Caught { name, tries, what, how } = self;
        let what: String = what.chars().take(SHOWN).collect();
        write!(f, "after {tries} of {name}: {what}\n{how}")
    }
}

/// Hunts for each of these rules in its ways; prints the table, and answers with those that nothing noticed.
pub(crate) fn table(mutants: &[Mutant], limit: u64) -> Vec<Mutant> {
    let mut missed = Vec::new();
    for &mutant in mutants {
        match ways(mutant).iter().find_map(|way| way.hunt(Some(mutant), limit)) {
            Some(caught) => print!("{mutant:?}: {caught}"),
            None => {
                println!("{mutant:?}: SURVIVES");
                missed.push(mutant);
            }
        }
    }
    println!("{} of {} caught", mutants.len() - missed.len(), mutants.len());
    missed
}

/// The rules that the variable `TINE_SIM_MUTANT` names, or all.
pub(crate) fn chosen() -> Vec<Mutant> {
    let only = std::env::var("TINE_SIM_MUTANT").ok();
    let wanted = |mutant: &&Mutant| only.as_ref().is_none_or(|only| *only == format!("{mutant:?}"));
    Mutant::ALL.iter().filter(wanted).copied().collect()
}
