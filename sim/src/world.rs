//! What a user's topology is built on: simulated sources and tables, and user functions that fail once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use tine_core::failure::Failure;
use tine_state::{Database, GroupSpec, Lock, Session, Table};
use tine_trident::{
    input::{Bytes, Input, Json, Lend, Records, Row, Text},
    pipeline::Built,
};

use crate::{
    settings::Settings,
    source::{Keyed, SimSource},
    trips::Trips,
};

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

    /// A source of texts, spread over partitions with gaps, growing while the topology runs. Short for
    /// [`topic`](World::topic) and [`text`](Topic::text).
    pub fn source(&self, name: &str, values: impl Lines) -> Input<Text> {
        self.topic(name, values).text()
    }

    /// A source of records, like a topic of Kafka; say next what its rows are.
    pub fn topic(&self, name: &str, values: impl Lines) -> Topic<'_> {
        let records = values.lines().into_iter().map(|value| (None, value)).collect();
        Topic { world: self, name: name.to_owned(), records }
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

    /// Whether its sources are those that the topology reads, can be told apart, and hold anything.
    pub(crate) fn check(&self, built: &Built) -> Result<(), String> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let (here, read) = (sources.len(), built.sources.len());
        if here != read {
            let fix = "take each of them from world.source or world.topic, and use it once";
            return Err(format!("sources: the topology reads {read}, and {here} are of this world: {fix}"));
        }
        let mut names = BTreeSet::new();
        if let Some(name) = sources.iter().map(SimSource::name).find(|name| !names.insert(*name)) {
            return Err(format!("two sources are called {name:?}: give each a name of its own"));
        }
        match sources.iter().all(SimSource::is_empty) {
            true => Err(format!("no records in {names:?}, so nothing would be tested: give the sources some")),
            false => Ok(()),
        }
    }

    pub(crate) fn sources(&self) -> Vec<SimSource> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Records under construction; see [`World::topic`].
#[derive(Debug)]
pub struct Topic<'w> {
    world: &'w World,
    name: String,
    records: Vec<Keyed>,
}

impl Topic<'_> {
    /// Gives each record a key: records of one key lie in one partition, in order, as Kafka places them.
    pub fn keyed(mut self, key: impl Fn(&str) -> String) -> Self {
        self.records.iter_mut().for_each(|(place, value)| *place = Some(key(value).into()));
        self
    }

    /// Values as `&str`.
    pub fn text(self) -> Input<Text> {
        self.input()
    }

    /// Values as `&[u8]`.
    pub fn bytes(self) -> Input<Bytes> {
        self.input()
    }

    /// Values as JSON, decoded into a type of yours.
    pub fn json<L: Lend>(self) -> Input<Json<L>> {
        self.input()
    }

    /// Records with partition, position and key.
    pub fn records(self) -> Input<Records> {
        self.input()
    }

    fn input<T: Row>(self) -> Input<T> {
        let Settings { partitions, steps, .. } = self.world.settings;
        let source = SimSource::new(&self.name, self.records, partitions, steps, self.world.seed);
        let mut sources = self.world.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.push(source.clone());
        Input::transactional(Arc::new(source))
    }
}

/// Values of records, in order: slices, arrays and vectors of `&str`, `String` or `Arc<str>`. Of `Arc<str>` nothing is
/// copied, which matters when thousands of worlds are made.
pub trait Lines {
    /// One by one.
    fn lines(self) -> Vec<Arc<str>>;
}

/// One value.
trait Line {
    fn line(&self) -> Arc<str>;
}

impl Line for Arc<str> {
    fn line(&self) -> Arc<str> {
        self.clone()
    }
}

impl Line for &str {
    fn line(&self) -> Arc<str> {
        Arc::from(*self)
    }
}

impl Line for String {
    fn line(&self) -> Arc<str> {
        Arc::from(self.as_str())
    }
}

macro_rules! lines {
    ($([$($generics:tt)*] $type:ty;)+) => {$(
        #[allow(private_bounds, reason = "what a line is is not for users to extend")]
        impl<T: Line, $($generics)*> Lines for $type {
            fn lines(self) -> Vec<Arc<str>> {
                self.iter().map(Line::line).collect()
            }
        }
    )+};
}

lines! {
    [] &[T];
    [] Vec<T>;
    [] &Vec<T>;
    [] Arc<[T]>;
    [] &Arc<[T]>;
    [const N: usize] [T; N];
    [const N: usize] &[T; N];
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
