//! Walks through a scene and prints what came of it.

use std::time::{Duration, Instant};

use tine_core::mutant::Mutant;

use super::{Checked, Found, Kind, Scene};

/// Nothing here takes so long unless the machine is busy with other things.
pub(crate) const WITHIN: Duration = Duration::from_secs(1_800);

/// So many records, and so many of the faults that befall any run.
pub(crate) fn usual(records: u64, faults: u8) -> Scene {
    Scene { records, faults, kinds: Kind::USUAL }
}

/// Looks at all properties.
pub(crate) fn check(scene: Scene, mutants: &[Mutant]) -> Found {
    found(scene, mutants, Checked::new(scene, mutants), WITHIN)
}

/// Looks at those that `checked` asks for, for no longer than `within`.
pub(crate) fn found(scene: Scene, mutants: &[Mutant], checked: Checked, within: Duration) -> Found {
    let began = Instant::now();
    let found = checked.check(within);
    let Scene { records, faults, kinds } = scene;
    let Found { states, different, deepest, most, .. } = found;
    let broken: String = mutants.iter().map(|mutant| format!(", {mutant:?}")).collect();
    println!(
        "{records} records, {faults} faults of {kinds:?}{broken}: {states} states, {different} different, at most {deepest} \
         steps from the first, up to {most} transactions complete, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    if !found.whole && found.wrong.is_none() {
        println!("  there are more: the time is over");
    }
    if let Some((property, why, way)) = &found.wrong {
        println!("  not so: {property}. {why}");
        let way: Vec<String> = way.iter().map(|action| format!("{action:?}")).collect();
        println!("  the way: {}", way.join(", "));
    }
    found
}
