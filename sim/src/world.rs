//! What a user's topology is built on: simulated sources and tables, and user functions that fail once.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use tine_core::failure::Failure;
use tine_state::{Database, GroupSpec, Lock, Session, Table};
use tine_trident::{
    input::{Input, Text},
    pipeline::Built,
};

use crate::{settings::Settings, source::SimSource, trips::Trips};

/// The world that one topology is built in, anew for every run.
#[derive(Debug)]
pub struct World {
    seed: u64,
    settings: Settings,
    sources: Mutex<Vec<SimSource>>,
    trips: Trips,
    /// Whether the topology trips by itself.
    taken: AtomicBool,
}

/// Into how many shards a simulated table's keys are cut.
pub const SHARDS: u16 = 4;

impl World {
    pub(crate) fn new(seed: u64, settings: &Settings) -> World {
        World {
            seed,
            settings: settings.clone(),
            sources: Mutex::default(),
            trips: Trips::default(),
            taken: AtomicBool::new(false),
        }
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

    /// What operators call to fail when a fault plan says so ([`Trips::step`]). Without it the first operators of a
    /// source fail in their place.
    pub fn trips(&self) -> Trips {
        self.taken.store(true, Ordering::Relaxed);
        self.trips.clone()
    }

    /// The wire, and whether the topology's own functions trip over it.
    pub(crate) fn wire(&self) -> (Trips, bool) {
        (self.trips.clone(), self.taken.load(Ordering::Relaxed))
    }

    pub(crate) fn sources(&self) -> Vec<SimSource> {
        self.sources.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
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
