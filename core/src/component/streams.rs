//! The output streams of one task: the default one, and those that its component declares.

use super::{Data, Port};
use crate::{
    engine::{
        links::Links,
        outlet::{AnyOutput, Output},
    },
    failure::Failure,
};

/// All output streams of one task.
pub(crate) struct Streams<O> {
    pub(crate) default: Output<O>,
    pub(crate) ports: Vec<Box<dyn AnyOutput>>,
}

impl<O: Data> Streams<O> {
    /// Whether a tuple more would find room, whichever stream it goes to.
    pub(crate) fn has_room(&self) -> bool {
        self.default.has_room() && self.ports.iter().all(|port| port.has_room())
    }

    /// Hands over what waits; answers whether nothing is kept back.
    pub(crate) fn flush(&mut self, partial: bool, links: &mut Links) -> bool {
        let free = self.default.flush(partial, links);
        self.ports.iter_mut().fold(free, |free, port| port.flush(partial, links) && free)
    }

    pub(crate) fn publish(&self) {
        self.default.publish();
        self.ports.iter().for_each(|port| port.publish());
    }

    pub(super) fn port<T: Data>(&mut self, port: Port<T>) -> Result<&mut Output<T>, Failure> {
        let known = self.ports.iter_mut().find(|known| known.name() == port.name());
        known.and_then(|known| known.as_any().downcast_mut()).ok_or_else(|| {
            let name = port.name();
            Failure::poison(format!(
                "a tuple for stream {name:?}, which the component does not declare: declare({port:?})"
            ))
        })
    }
}
