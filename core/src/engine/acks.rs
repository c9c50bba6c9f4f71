//! How reports about trees reach the spout task that owns them: never waiting, and bounded all the same.
//!
//! Bolts collect reports per owner and hand them over with every chunk they have worked off. The owner's box never
//! refuses: a report that had to wait could stop the very bolt that would make room. It is bounded because reports of one
//! tree can be combined: beyond [`COMBINE_ABOVE`] they are, and then there is at most one for each tree under way.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::bell::Bell;
use crate::{failure::Failure, tuple::Root};

/// Reports kept as they came. More than a spout's trees report between two of its turns, so that combining is the
/// exception: it happens when a spout does not return.
pub(crate) const COMBINE_ABOVE: usize = 1 << 18;

/// Reports that a task collects for one owner before it hands them over.
const REPORTS: usize = 512;

/// A report that is not an ack.
#[derive(Clone, Debug)]
pub(crate) enum Word {
    Failed(Root, Failure),
    Alive(Root),
    /// Every tree of the task has failed: what tasks elsewhere had in their hands is gone.
    AllFailed(Failure),
}

impl Word {
    /// The tree that it is about, if it is about one.
    pub(crate) fn root(&self) -> Option<Root> {
        match self {
            Word::Failed(root, _) | Word::Alive(root) => Some(*root),
            Word::AllFailed(_) => None,
        }
    }
}

/// In front of one spout task.
#[derive(Debug)]
pub(crate) struct AckBox {
    bell: Arc<Bell>,
    waiting: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    acks: Vec<(Root, u64)>,
    words: Vec<Word>,
    /// Combine when there are this many acks.
    combine_at: usize,
}

impl AckBox {
    pub(crate) fn new(bell: Arc<Bell>) -> AckBox {
        let state = State { acks: Vec::new(), words: Vec::new(), combine_at: COMBINE_ABOVE };
        AckBox { bell, waiting: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    /// Takes acks, always.
    pub(crate) fn acks(&self, acks: &[(Root, u64)]) {
        let mut state = self.lock();
        state.acks.extend_from_slice(acks);
        if state.acks.len() > state.combine_at {
            state.combine();
        }
        self.came(state);
    }

    /// Takes a failure or a sign of life, always.
    pub(crate) fn word(&self, word: Word) {
        let mut state = self.lock();
        state.words.push(word);
        if state.words.len() > state.combine_at {
            state.combine();
        }
        self.came(state);
    }

    /// Whether something waits: a hint.
    pub(crate) fn waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire) != 0
    }

    fn came(&self, state: MutexGuard<'_, State>) {
        let came = state.acks.len() + state.words.len();
        let was_empty = self.waiting.swap(came, Ordering::AcqRel) == 0;
        drop(state);
        if was_empty {
            self.bell.ring();
        }
    }

    /// Everything that has come, in exchange for two empty vectors.
    pub(crate) fn take(&self, acks: &mut Vec<(Root, u64)>, words: &mut Vec<Word>) {
        debug_assert!(acks.is_empty() && words.is_empty());
        if !self.waits() {
            return;
        }
        let mut state = self.lock();
        std::mem::swap(&mut state.acks, acks);
        std::mem::swap(&mut state.words, words);
        state.combine_at = COMBINE_ABOVE;
        self.waiting.store(0, Ordering::Release);
    }

    /// Takes back what was not for whoever took it.
    pub(crate) fn put_back(&self, acks: &mut Vec<(Root, u64)>, words: &mut Vec<Word>) {
        self.acks(acks);
        acks.clear();
        words.drain(..).for_each(|word| self.word(word));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let state = self.lock();
        state.acks.len() + state.words.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One ack and one word at most for each tree; a failure is the last word.
    fn combine(&mut self) {
        let mut sums: HashMap<Root, u64> = HashMap::new();
        for (root, value) in self.acks.drain(..) {
            *sums.entry(root).or_default() ^= value;
        }
        self.acks.extend(sums);
        let (mut words, mut all): (HashMap<Root, Word>, _) = (HashMap::new(), None);
        for word in self.words.drain(..) {
            match word {
                Word::Failed(root, _) => drop(words.insert(root, word)),
                Word::Alive(root) => drop(words.entry(root).or_insert(word)),
                // What was said of single trees before it says nothing more.
                Word::AllFailed(_) => {
                    words.clear();
                    all = Some(word);
                }
            }
        }
        self.words.extend(all.into_iter().chain(words.into_values()));
        self.combine_at = COMBINE_ABOVE.max(2 * self.acks.len().max(self.words.len()));
    }
}

/// One task's way to all owners.
#[derive(Debug)]
pub(crate) struct AckLines(Vec<(Acks, Arc<AckBox>)>);

/// What was acked of which tree.
type Acks = Vec<(Root, u64)>;

impl AckLines {
    pub(crate) fn new(boxes: &[Arc<AckBox>]) -> AckLines {
        AckLines(boxes.iter().map(|owner| (Vec::with_capacity(REPORTS), Arc::clone(owner))).collect())
    }

    /// A tuple was acked. A root that no spout of this topology owns is nobody's business.
    #[inline]
    pub(crate) fn ack(&mut self, root: Root, value: u64) {
        if let Some((acks, owner)) = self.0.get_mut(root.owner()) {
            acks.push((root, value));
            if acks.len() >= REPORTS {
                owner.acks(acks);
                acks.clear();
            }
        }
    }

    /// A tuple has failed, or work on it goes on: said at once.
    pub(crate) fn word(&mut self, root: Root, word: Word) {
        if let Some((_, owner)) = self.0.get(root.owner()) {
            owner.word(word);
        }
    }

    /// Hands over what was collected.
    pub(crate) fn flush(&mut self) {
        for (acks, owner) in &mut self.0 {
            if !acks.is_empty() {
                owner.acks(acks);
                acks.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_to_a_spout_that_does_not_return_are_bounded_by_its_trees() {
        let full = AckBox::new(Arc::default());
        for round in 0..20u64 {
            let acks: Vec<_> = (0..50_000).map(|root| (Root(root), 1 << round)).collect();
            full.acks(&acks);
            full.word(Word::Alive(Root(round)));
            full.word(Word::Failed(Root(round), Failure::transient("x")));
        }
        assert!(full.len() <= 2 * COMBINE_ABOVE);
        let (mut acks, mut words) = (Vec::new(), Vec::new());
        full.take(&mut acks, &mut words);
        let mut sums = HashMap::new();
        acks.iter().for_each(|(root, value)| *sums.entry(*root).or_insert(0) ^= value);
        assert_eq!(sums.len(), 50_000);
        assert!(sums.values().all(|sum| *sum == (1 << 20) - 1), "and what they come to is the same");
    }
}
