//! What a user's topology is built on: simulated sources and tables, and user functions that fail once.

use std::{
    panic::resume_unwind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tine_core::failure::Failure;
use tine_state::{Database, GroupSpec, Lock, Session, Table};
use tine_trident::{
    input::{Input, Text},
    pipeline::Built,
};

use crate::{settings::Settings, source::SimSource};

/// The world that one topology is built in, anew for every run.
#[derive(Debug)]
pub struct World {
    seed: u64,
    settings: Settings,
    sources: Mutex<Vec<SimSource>>,
    trips: Trips,
}

/// Into how many shards a simulated table's keys are cut.
pub const SHARDS: u16 = 4;

impl World {
    pub(crate) fn new(seed: u64, settings: &Settings) -> World {
        World { seed, settings: settings.clone(), sources: Mutex::default(), trips: Trips::default() }
    }

    /// A source of texts, spread over partitions with gaps, growing while the topology runs.
    pub fn source(&self, name: &str, values: &[Arc<str>]) -> Input<Text> {
        let Settings { partitions, steps, .. } = self.settings;
        let source = SimSource::new(name, values, partitions, steps, self.seed);
        let mut sources = self.sources.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sources.push(source.clone());
        Input::transactional(Arc::new(source))
    }

    /// A table in the simulated database.
    pub fn table(&self, name: &str) -> Table {
        Table::new(Arc::new(SimDatabase), name).shards(SHARDS)
    }

    /// What operators call to fail when a fault plan says so ([`Trips::step`]).
    pub fn trips(&self) -> Trips {
        self.trips.clone()
    }

    pub(crate) fn sources(&self) -> Vec<SimSource> {
        self.sources.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// A wire in a user's function, over which it may trip once.
#[derive(Clone, Debug, Default)]
pub struct Trips(Arc<Tripped>);

#[derive(Debug, Default)]
struct Tripped {
    /// 0: nothing; otherwise the fault's place times four, plus 1 for a failure, 2 for a panic, 3 when it has happened.
    armed: AtomicUsize,
}

impl Trips {
    /// Fails or panics if the time has come, once.
    ///
    /// # Panics
    /// When a fault plan lets a user function panic.
    pub fn step(&self) -> Result<(), std::fmt::Error> {
        let armed = self.0.armed.load(Ordering::Relaxed);
        match armed % 4 {
            1 => {
                self.0.armed.store(armed + 2, Ordering::Relaxed);
                Err(std::fmt::Error)
            }
            2 => {
                self.0.armed.store(armed + 1, Ordering::Relaxed);
                // Without the panic hook: nobody wants ten thousand backtraces.
                resume_unwind(Box::new("the simulated user function panics"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn arm(&self, fault: usize, panics: bool) {
        self.0.armed.store((fault + 1) * 4 + if panics { 2 } else { 1 }, Ordering::Relaxed);
    }

    /// The fault whose failure has just happened.
    pub(crate) fn sprung(&self) -> Option<usize> {
        let armed = self.0.armed.load(Ordering::Relaxed);
        if armed % 4 != 3 {
            return None;
        }
        self.0.armed.store(0, Ordering::Relaxed);
        Some(armed / 4 - 1)
    }
}

/// What a simulation can run: a built topology.
pub trait Simulated {
    /// Checks and compiles.
    fn built(self) -> Result<Built, String>;
}

impl Simulated for Built {
    fn built(self) -> Result<Built, String> {
        Ok(self)
    }
}

impl Simulated for tine_trident::topology::Topology {
    fn built(self) -> Result<Built, String> {
        self.build().map_err(|error| error.to_string())
    }
}

/// A name for the simulated database; the simulator executes its statements itself.
#[derive(Debug)]
struct SimDatabase;

fn not_here() -> Failure {
    Failure::fatal("a simulated table runs only in a simulation")
}

#[async_trait]
impl Database for SimDatabase {
    fn describe(&self) -> String {
        "the simulated database".to_owned()
    }

    async fn create(&self, _: &GroupSpec) -> Result<(), Failure> {
        Err(not_here())
    }

    async fn session(&self, _: &GroupSpec) -> Result<Box<dyn Session>, Failure> {
        Err(not_here())
    }

    async fn try_lock(&self, _: &str) -> Result<Option<Box<dyn Lock>>, Failure> {
        Err(not_here())
    }
}
