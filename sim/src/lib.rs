//! The world in virtual time: crash your topology ten thousand ways, on a laptop, and see the counts stay exact.
//!
//! The production machines of core, state and trident run here unchanged, and so do the user's operators; what is
//! simulated is the world around them: processes that die and sleep, a network, a SQL database, coordination and
//! partitioned sources, each with the nasty habits of the real ones. One thread, one event heap, randomness by counter:
//! the same seed and the same faults give the same run, bit for bit.
//!
//! ```
//! use tine_sim::prelude::*;
//! use tine_trident::topology::Topology;
//!
//! fn word_count(world: &World) -> Topology {
//!     let topology = Topology::new("word_count");
//!     topology
//!         .source(world.source("lines", ["to be or not to be"; 40]))
//!         .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
//!         .persist(world.table("counts").key("word").value("n"));
//!     topology
//! }
//!
//! simulate(word_count)
//!     .with_faults(any::<FaultPlan>())
//!     .cases(200)
//!     .check(exact_counts("counts", |line| line.split_whitespace().collect()));
//! ```
//!
//! Read in this order: [`simulate`] and [`Simulation`] (what a user calls), [`world`] (what a topology is built on),
//! [`faults`] (what goes wrong), [`oracle`] and [`invariants`] (what must hold), [`witness`] (operators that are not
//! deterministic), [`Script`] (runs driven by hand), [`report`] and [`regressions`] (how a failure is told and kept); then
//! `engine` (the loop), `sql`, `coordination` and `source` (the fakes). The page for users is `docs/testing.md`.

mod agenda;
mod check;
mod coordination;
mod engine;
#[cfg(feature = "fakes")]
pub mod fakes;
pub mod faults;
pub mod invariants;
pub mod oracle;
mod random;
pub mod regressions;
pub mod report;
mod script;
pub mod settings;
mod simulate;
mod source;
mod sql;
mod trace;
mod trips;
pub mod witness;
pub mod world;

pub use check::{Faulty, any_seed};
pub use faults::{End, Fault, FaultPlan, Kind, Point, SqlState};
pub use oracle::{
    IntoCells, Oracle, always, dead_letters_complete, deterministic, exact, exact_counts, exact_table, holds,
    never_goes_back, no_replay_storm, order_per_key,
};
pub use regressions::Regressions;
pub use report::{Coverage, Report};
pub use script::Script;
pub use settings::{Mode, Settings};
pub use simulate::{Simulation, simulate};
pub use sql::table::{Cell, Cells};
pub use trips::Trips;
pub use world::World;

/// What a test needs: `use tine::sim::prelude::*`.
pub mod prelude {
    pub use proptest::prelude::any;

    pub use crate::{
        End, Fault, FaultPlan, Kind, Mode, Oracle, Point, Regressions, Report, Script, Settings, Simulation, SqlState,
        World, always, any_seed, dead_letters_complete, deterministic, exact, exact_counts, exact_table, holds,
        never_goes_back, no_replay_storm, order_per_key, simulate,
    };
}
