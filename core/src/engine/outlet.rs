//! From a stream to the tasks that subscribe to it: chooses, collects chunks, hands them over, keeps what finds no room.
//!
//! Everything here is typed; a chunk is erased once, when it leaves. A full inbox makes the sending task wait *between*
//! two tuples; behind a shuffle, when all are full. Only a call that emits very much at once is held inside `emit` ([`KEPT_MAX`]).

use std::{any::Any, collections::VecDeque, sync::Arc, time::Duration};

use super::{
    inbox::{Chunk, Inbox},
    lineage::Lineage,
    links::Links,
    shared::Phase,
};
use crate::{
    component::Data,
    failure::Failure,
    id::TaskId,
    metrics::StreamMeter,
    topology::grouping::{Chooser, Pick, Vacancy},
};

/// Bytes after which a chunk leaves even if it has few tuples.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks that wait at a lane for room before `emit` itself waits: more than an ordinary call emits, few enough to
/// bound what a call can pile up.
const KEPT_MAX: usize = 8;

/// How many bytes a tuple takes, as far as a queue's bound is concerned.
pub(crate) type Weigh<T> = Arc<dyn Fn(&T) -> usize + Send + Sync>;

/// One output stream of a task.
pub(crate) struct Output<T> {
    pub(crate) outlets: Vec<Outlet<T>>,
    pub(crate) emitted: u64,
    pub(crate) meter: Arc<StreamMeter>,
}

/// One subscriber of a stream: a component with its tasks.
pub(crate) struct Outlet<T> {
    pub(crate) chooser: Chooser<T>,
    pub(crate) weigh: Option<Weigh<T>>,
    pub(crate) lanes: Vec<Lane<T>>,
}

/// The way to one task.
pub(crate) struct Lane<T> {
    /// Which of the receiver's inputs.
    input: u32,
    from: TaskId,
    inbox: Arc<Inbox>,
    /// What finds no room fails instead of waiting: an edge that leads back.
    feedback: bool,
    chunk_tuples: usize,
    values: Vec<T>,
    lineages: Vec<Lineage>,
    bytes: usize,
    kept: VecDeque<Chunk>,
    transferred: u64,
}

/// What [`Output`]s of all types have in common.
pub(crate) trait AnyOutput: Send {
    /// Hands over what waits, and with `partial` also chunks that are not full. Answers whether nothing is kept back.
    fn flush(&mut self, partial: bool, links: &mut Links) -> bool;
    /// Whether a tuple more would find room, whatever its value.
    fn has_room(&self) -> bool;
    fn publish(&self);
    fn name(&self) -> &str;
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<T: Data> Output<T> {
    /// A stream with these [`Outlet`]s of its own type: build time has compared the types.
    pub(crate) fn of(outlets: Vec<Box<dyn Any + Send>>, meter: Arc<StreamMeter>) -> Output<T> {
        let typed =
            |outlet: Box<dyn Any + Send>| *outlet.downcast().expect("build time compares the types of both ends");
        Output { outlets: outlets.into_iter().map(typed).collect(), emitted: 0, meter }
    }

    /// Sends a tuple to whom the groupings choose; `bear` makes the lineage for each of them.
    #[inline]
    pub(crate) fn emit(&mut self, value: T, links: &mut Links, mut bear: impl FnMut(&mut Links) -> Lineage) {
        self.emitted += 1;
        let Some((last, others)) = self.outlets.split_last_mut() else { return };
        for outlet in others {
            outlet.emit(value.clone(), links, &mut bear);
        }
        last.emit(value, links, &mut bear);
    }

    /// Sends a tuple that takes over its parent's lineage as it stands: with the edges of the children before it XORed in, the
    /// parent's ack would be zero, and needs no report. Possible when there is one receiver; otherwise the parent's lineage comes
    /// back, to be acked.
    #[inline]
    pub(crate) fn pass_on(&mut self, value: T, mut parent: Lineage, links: &mut Links) -> Lineage {
        if let [outlet] = &mut self.outlets[..] {
            let lanes = &outlet.lanes;
            match outlet.chooser.pick(&value, lanes.len(), |lane| lanes[lane].room()) {
                Pick::One(lane) => {
                    outlet.send(lane, value, parent, links);
                    self.emitted += 1;
                    return Lineage::None;
                }
                pick => outlet.deliver(pick, value, links, &mut |links| parent.child(&mut links.random)),
            }
            self.emitted += 1;
            return parent;
        }
        self.emit(value, links, |links| parent.child(&mut links.random));
        parent
    }

    /// Sends a tuple to one task, by its index among all targets of the stream.
    pub(crate) fn emit_direct(
        &mut self,
        target: usize,
        value: T,
        links: &mut Links,
        bear: impl FnOnce(&mut Links) -> Lineage,
    ) -> Result<(), Failure> {
        self.emitted += 1;
        let mut index = target;
        for outlet in self.outlets.iter_mut() {
            if index < outlet.lanes.len() {
                let lineage = bear(links);
                outlet.send(index, value, lineage, links);
                return Ok(());
            }
            index -= outlet.lanes.len();
        }
        let targets: usize = self.outlets.iter().map(|outlet| outlet.lanes.len()).sum();
        Err(Failure::poison(format!("emit_direct to task {target} of a stream that leads to {targets} tasks")))
    }
}

impl<T: Data> AnyOutput for Output<T> {
    fn flush(&mut self, partial: bool, links: &mut Links) -> bool {
        let mut free = true;
        for lane in self.outlets.iter_mut().flat_map(|outlet| &mut outlet.lanes) {
            free &= lane.flush(partial, links);
        }
        free
    }

    fn has_room(&self) -> bool {
        self.outlets.iter().all(Outlet::has_room)
    }

    fn publish(&self) {
        let lanes = self.outlets.iter().flat_map(|outlet| &outlet.lanes);
        self.meter.publish(self.emitted, lanes.map(|lane| lane.transferred).sum());
    }

    fn name(&self) -> &str {
        self.meter.name()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl<T: Data> Outlet<T> {
    /// A grouping that passes over full queues needs one that is not; any other may choose each of them.
    fn has_room(&self) -> bool {
        let mut lanes = self.lanes.iter().map(|lane| lane.kept.is_empty());
        if self.chooser.passes_over() { lanes.any(|is_free| is_free) } else { lanes.all(|is_free| is_free) }
    }

    #[inline]
    fn emit(&mut self, value: T, links: &mut Links, bear: &mut impl FnMut(&mut Links) -> Lineage) {
        let lanes = &self.lanes;
        let pick = self.chooser.pick(&value, lanes.len(), |lane| lanes[lane].room());
        self.deliver(pick, value, links, bear);
    }

    #[inline]
    fn deliver(&mut self, pick: Pick, value: T, links: &mut Links, bear: &mut impl FnMut(&mut Links) -> Lineage) {
        match pick {
            Pick::One(lane) => {
                let lineage = bear(links);
                self.send(lane, value, lineage, links);
            }
            Pick::All => {
                let last = self.lanes.len() - 1;
                for lane in 0..last {
                    let lineage = bear(links);
                    self.send(lane, value.clone(), lineage, links);
                }
                let lineage = bear(links);
                self.send(last, value, lineage, links);
            }
            Pick::Chosen => {
                for at in 0..self.chooser.chosen().len() {
                    let lane = self.chooser.chosen()[at];
                    if lane < self.lanes.len() {
                        let lineage = bear(links);
                        self.send(lane, value.clone(), lineage, links);
                    }
                }
            }
        }
    }

    #[inline]
    fn send(&mut self, lane: usize, value: T, lineage: Lineage, links: &mut Links) {
        let weight = self.weigh.as_ref().map_or(0, |weigh| weigh(&value));
        if self.lanes[lane].send(value, weight, lineage, links) > KEPT_MAX {
            self.wait(lane, links);
        }
    }

    /// Waits for room in the middle of a call that emits more than its share. Receivers never wait for this task, because
    /// edges that lead back do not wait; so there will be room, or the topology stops.
    fn wait(&mut self, lane: usize, links: &mut Links) {
        while links.shared.phase() != Phase::Stopped {
            for lane in &mut self.lanes {
                lane.flush(false, links);
            }
            if self.lanes[lane].kept.is_empty() || self.chooser.passes_over() && self.has_room() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        // What is left when the topology stops goes nowhere.
        self.lanes.iter_mut().for_each(|lane| lane.kept.clear());
    }
}

impl<T: Data> Lane<T> {
    pub(crate) fn new(input: u32, from: TaskId, inbox: Arc<Inbox>, feedback: bool, chunk_tuples: usize) -> Lane<T> {
        let (values, lineages, kept) = (Vec::new(), Vec::new(), VecDeque::new());
        Lane { input, from, inbox, feedback, chunk_tuples, values, lineages, bytes: 0, kept, transferred: 0 }
    }

    #[inline]
    fn room(&self) -> Vacancy {
        match (self.kept.is_empty(), self.inbox.is_here()) {
            (false, _) => Vacancy::Full(self.kept.len()),
            (true, true) => Vacancy::Here,
            (true, false) => Vacancy::Elsewhere,
        }
    }

    /// Answers how many chunks wait for room.
    #[inline]
    fn send(&mut self, value: T, weight: usize, lineage: Lineage, links: &mut Links) -> usize {
        if self.values.capacity() == 0 {
            self.values.reserve_exact(self.chunk_tuples);
        }
        // Lineages are kept from the first anchored tuple on.
        if !self.lineages.is_empty() || !matches!(lineage, Lineage::None) {
            if self.lineages.len() < self.values.len() || self.lineages.capacity() == 0 {
                self.lineages.reserve_exact(self.chunk_tuples);
                self.lineages.resize(self.values.len(), Lineage::None);
            }
            self.lineages.push(lineage);
        }
        self.values.push(value);
        self.bytes += weight;
        if self.values.len() >= self.chunk_tuples || self.bytes >= CHUNK_BYTES {
            self.cut();
            self.flush(false, links);
            return self.kept.len();
        }
        0
    }

    /// Makes a chunk of what was collected.
    fn cut(&mut self) {
        let (values, lineages) = (std::mem::take(&mut self.values), std::mem::take(&mut self.lineages));
        let tuples = values.len();
        let bytes = std::mem::take(&mut self.bytes) + tuples * (size_of::<T>() + size_of::<Lineage>());
        self.transferred += tuples as u64;
        let (input, from) = (self.input, self.from);
        self.kept.push_back(Chunk { input, from, values: Box::new(values), lineages, tuples, bytes, credit: None });
    }

    fn flush(&mut self, partial: bool, links: &mut Links) -> bool {
        if partial && !self.values.is_empty() {
            self.cut();
        }
        while let Some(chunk) = self.kept.pop_front() {
            let tuples = chunk.tuples;
            links.shared.sent(tuples);
            if let Err(chunk) = self.inbox.push(chunk, &links.bell) {
                links.shared.done(tuples);
                if self.feedback {
                    let failure = Failure::transient(format!(
                        "no room on the edge back to {}: give it a larger bound, or let fewer trees be pending",
                        links.shared.name_of_task(self.from)
                    ));
                    chunk.lineages.iter().for_each(|lineage| links.fail(lineage, &failure));
                    links.report(&failure);
                    continue;
                }
                self.kept.push_front(chunk);
                return false;
            }
        }
        true
    }
}
