//! Tries schedules or states until something is wrong.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tine_core::mutant::{self, Mutant};
use tine_sim::Report;

use super::Scenario;
use crate::model::{Checked, Scene};

/// The first seed at which something goes wrong, shrunk, and what it is.
pub(super) fn schedules(scenario: &Scenario, mutant: Option<Mutant>, limit: u64) -> Option<(Report, String)> {
    let (next, found) = (AtomicU64::new(1), Mutex::new(None::<Report>));
    let work = || {
        mutant::with(mutant, || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed > limit || found.lock().unwrap().as_ref().is_some_and(|report| report.seed < seed) {
                    return;
                }
                let report = scenario.simulation.run(seed, &(scenario.plan)(seed));
                if (scenario.wrong)(&report).is_some() {
                    let mut found = found.lock().unwrap();
                    if found.as_ref().is_none_or(|other| other.seed > seed) {
                        *found = Some(report);
                    }
                }
            }
        });
    };
    thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let report = found.into_inner().unwrap()?;
    let shrink = || scenario.simulation.shrink_while(&report, |report| (scenario.wrong)(report).is_some());
    let report = mutant::with(mutant, shrink);
    let what = (scenario.wrong)(&report)?;
    Some((report, what))
}

/// The nearest state at which something is wrong: how many were looked at, which property, why, and the way there.
pub(super) fn states(scene: Scene, mutants: &[Mutant]) -> Option<(usize, &'static str, String, Vec<String>)> {
    let found = Checked::new(scene, mutants).check(Duration::from_secs(1_800));
    let (property, why, way) = found.wrong?;
    Some((found.states, property, why, way.iter().map(|action| format!("{action:?}")).collect()))
}
