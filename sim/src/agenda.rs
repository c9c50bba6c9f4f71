//! The one event heap: what happens next, by virtual time and, within a microsecond, in the order it was scheduled.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Events to come. Payloads stay where they are; the heap moves only small keys.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    keys: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    scheduled: u64,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Agenda<E> {
        Agenda { keys: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), scheduled: 0 }
    }

    /// Schedules an event.
    pub(crate) fn put(&mut self, at_us: u64, event: E) {
        self.scheduled += 1;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.events.push(None);
                u32::try_from(self.events.len() - 1).expect("far fewer than four billion events wait at once")
            }
        };
        self.events[slot as usize] = Some(event);
        self.keys.push(Reverse((at_us, self.scheduled, slot)));
    }

    /// Takes the next event and its time.
    pub(crate) fn next(&mut self) -> Option<(u64, E)> {
        let Reverse((at_us, _, slot)) = self.keys.pop()?;
        self.free.push(slot);
        self.events[slot as usize].take().map(|event| (at_us, event))
    }

    /// Keeps the events of which `keep` says so, asked in the order in which they would come.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&E) -> bool) {
        let mut keys = std::mem::take(&mut self.keys).into_sorted_vec();
        // Sorted by `Reverse`: the last comes first.
        keys.reverse();
        keys.retain(|Reverse((.., slot))| {
            let event = &mut self.events[*slot as usize];
            let stays = event.as_ref().is_some_and(&mut keep);
            if !stays {
                *event = None;
                self.free.push(*slot);
            }
            stays
        });
        self.keys = keys.into();
    }

    /// Shows all events, in any order.
    pub(crate) fn visit(&self, look: impl FnMut(&E)) {
        self.events.iter().flatten().for_each(look);
    }

    /// When the next event comes.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.keys.peek().map(|Reverse((at_us, ..))| *at_us)
    }

    /// How many events were scheduled so far.
    pub(crate) fn scheduled(&self) -> u64 {
        self.scheduled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_they_were_scheduled() {
        let mut agenda = Agenda::new();
        for (at, name) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            agenda.put(at, name);
        }
        let order: String = std::iter::from_fn(|| agenda.next()).map(|(_, name)| name).collect();
        assert_eq!(order, "abcd");
    }

    #[test]
    fn what_is_not_kept_does_not_come_and_its_slot_is_used_again() {
        let mut agenda = Agenda::new();
        for (at, name) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            agenda.put(at, name);
        }
        agenda.retain(|name| *name != 'c');
        agenda.put(4, 'e');
        let mut seen = Vec::new();
        agenda.visit(|name| seen.push(*name));
        seen.sort_unstable();
        assert_eq!((agenda.next_at(), seen), (Some(1), vec!['a', 'b', 'd', 'e']));
        let order: String = std::iter::from_fn(|| agenda.next()).map(|(_, name)| name).collect();
        assert_eq!(order, "abed");
        assert_eq!(agenda.events.len(), 4);
    }
}
