//! User functions that fail or panic once, when a fault plan says so.
//!
//! A topology may trip where it likes, over the wire that [`World::trips`](crate::World::trips) hands out. One that does not
//! fails before the first operators of a source.

use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tine_core::failure::Failure;
use tine_trident::{
    pipeline::{BatchRows, Built, Pipeline},
    source::Record,
};

/// A wire in a user's function, over which it may trip once.
#[derive(Clone, Debug, Default)]
pub struct Trips(Arc<Tripped>);

#[derive(Debug, Default)]
struct Tripped {
    /// 0: nothing; otherwise the fault's place times four, plus 1 for a failure, 2 for a panic, 3 when it has happened.
    armed: AtomicUsize,
}

/// What a user's function does when it trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fall {
    Error,
    Panic,
}

impl Trips {
    /// Fails or panics if the time has come, once.
    ///
    /// # Panics
    /// When a fault plan lets a user function panic.
    pub fn step(&self) -> Result<(), std::fmt::Error> {
        match self.fall() {
            None => Ok(()),
            Some(Fall::Error) => Err(std::fmt::Error),
            // Without the panic hook: nobody wants ten thousand backtraces.
            Some(Fall::Panic) => resume_unwind(Box::new("the simulated user function panics")),
        }
    }

    fn fall(&self) -> Option<Fall> {
        let armed = self.0.armed.load(Ordering::Relaxed);
        let (after, fall) = match armed % 4 {
            1 => (armed + 2, Fall::Error),
            2 => (armed + 1, Fall::Panic),
            _ => return None,
        };
        self.0.armed.store(after, Ordering::Relaxed);
        Some(fall)
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

    /// Lets the sources' operators trip.
    pub(crate) fn lay(&self, built: &mut Built) {
        for source in &mut built.sources {
            let (factory, trips) = (source.pipeline.clone(), self.clone());
            source.pipeline = Arc::new(move || Box::new(Tripping { inner: factory(), trips: trips.clone() }));
        }
    }
}

/// A pipeline that fails once in the place of a user's function.
struct Tripping {
    inner: Box<dyn Pipeline>,
    trips: Trips,
}

impl Pipeline for Tripping {
    fn records(&mut self, partition: &str, chunk: &[Record<'_>]) -> Result<(), Failure> {
        match self.trips.fall() {
            None => self.inner.records(partition, chunk),
            Some(Fall::Error) => Err(Failure::poison(format!("{partition}: the simulated user function fails"))),
            Some(Fall::Panic) => {
                Err(Failure::poison(format!("{partition}: a panic: the simulated user function panics")))
            }
        }
    }

    fn finish(&mut self) -> Result<BatchRows, Failure> {
        self.inner.finish()
    }

    fn reset(&mut self) {
        self.inner.reset();
    }
}
