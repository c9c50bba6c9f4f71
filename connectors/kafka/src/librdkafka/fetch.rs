//! Fetching through librdkafka: one handle for a reader, and a [`Track`] with a queue of its own for each partition.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rdkafka::ClientConfig;
use tine_core::failure::Failure;
use tine_trident::source::Sink;

use super::{
    ask::Asking,
    handle::Handle,
    track::{self, STALL, Track},
};
use crate::client::{Fetching, Halt, Mark, Place, Questions, Topic};

/// A partition that was not read for this long is fetched no more.
const IDLE: Duration = Duration::from_secs(60);

/// A reader's partitions.
pub(crate) struct Fetcher {
    /// Before the handle: tracks are freed first.
    tracks: HashMap<String, Track>,
    handle: Option<Arc<Handle>>,
    config: ClientConfig,
    asking: Asking,
    headers: bool,
}

impl Fetcher {
    /// Nothing is connected before the first range.
    pub(crate) fn new(config: ClientConfig, asking: Asking, headers: bool) -> Fetcher {
        Fetcher { tracks: HashMap::new(), handle: None, config, asking, headers }
    }

    fn handle(&mut self) -> Result<Arc<Handle>, Failure> {
        match &self.handle {
            Some(handle) => Ok(Arc::clone(handle)),
            None => Ok(Arc::clone(self.handle.insert(Arc::new(Handle::new(&self.config)?)))),
        }
    }

    /// The partition's track at the place where the range goes on: the one at hand, or a new start.
    fn track(&mut self, handle: &Arc<Handle>, place: &Place<'_>, next: u64) -> Result<&mut Track, Failure> {
        if self.tracks.get(place.name).is_none_or(|track| track.next() != next) {
            // The old one stops before the new one starts: both are the same partition to librdkafka.
            self.tracks.remove(place.name);
            self.tracks.retain(|_, track| track.used.elapsed() < IDLE);
            let track = Track::start(handle, place.topic, place.partition, next)?;
            self.tracks.insert(place.name.to_string(), track);
        }
        Ok(self.tracks.get_mut(place.name).expect("it is there or was inserted above"))
    }
}

impl Fetching for Fetcher {
    fn lend(&mut self, place: &Place<'_>, next: &mut u64, to: u64, sink: &mut dyn Sink) -> Result<(), Halt> {
        let handle = self.handle().map_err(Halt::Failed)?;
        handle.serve();
        let headers = self.headers;
        let track = self.track(&handle, place, *next).map_err(Halt::Failed)?;
        let ran = track.run(to, headers, &handle, sink);
        *next = track.next();
        ran.map_err(|halt| match halt {
            track::Halt::Stalled => Halt::Stalled(format!("nothing came for {} s", STALL.as_secs())),
            track::Halt::Broken { code, text } => judged(code, text),
            track::Halt::Failed(failure) => Halt::Failed(failure),
        })
    }

    fn stop(&mut self, partition: &str) {
        self.tracks.remove(partition);
    }

    /// A topic under another id gets a new handle: nothing that librdkafka knows of the old one may be taken for the new
    /// one's.
    fn forget(&mut self) {
        self.tracks.clear();
        self.handle = None;
    }
}

impl Questions for Fetcher {
    fn describe(&mut self, names: &[&str], cancelled: &dyn Fn() -> bool) -> Result<Vec<Option<Topic>>, Failure> {
        self.asking.describe(names, cancelled)
    }

    fn marks(
        &mut self,
        asked: &[(&str, i32, Mark)],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<u64>>, Failure> {
        self.asking.marks(asked, cancelled)
    }

    fn away(&self, tried: &str, why: &str) -> Failure {
        match &self.handle {
            Some(handle) => handle.away(tried, why),
            None => self.asking.away(tried, why),
        }
    }
}

fn judged(code: i32, text: String) -> Halt {
    const NOT_ALLOWED: i32 = 29;
    match code {
        NOT_ALLOWED => Halt::NotAllowed,
        // librdkafka compares leader epochs (KIP-320) and finds another history at our position; its event says so in
        // words only.
        _ if text.to_ascii_lowercase().contains("truncat") => Halt::Truncated(text),
        _ => Halt::Broken(text),
    }
}
