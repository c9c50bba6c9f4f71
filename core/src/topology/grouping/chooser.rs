//! Groupings at work: a [`Chooser`] in each sending task says whom the next tuple goes to.

use std::sync::Arc;

use rand::{RngCore, SeedableRng, rngs::SmallRng, seq::SliceRandom};

use super::{Choose, Grouping, KeyHash, Rule};
use crate::{component::combined, id::TaskId};

/// What a [`Chooser`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    One(usize),
    All,
    /// Those in [`Chooser::chosen`].
    Chosen,
}

/// What a target's queue says to one more tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vacancy {
    /// There is room, and the task runs on this worker.
    Here,
    /// There is room, and the task runs on another worker.
    Elsewhere,
    /// There is none, and so many chunks wait for some.
    Full(usize),
}

impl Vacancy {
    fn kept(self) -> usize {
        if let Vacancy::Full(kept) = self { kept } else { 0 }
    }
}

/// A grouping at work in one sending task.
pub(crate) struct Chooser<T> {
    choice: Choice<T>,
    chosen: Vec<usize>,
}

enum Choice<T> {
    /// `near`: tasks of this worker before all others.
    Shuffle {
        among: Vec<usize>,
        next: usize,
        near: bool,
    },
    Random(SmallRng),
    All,
    Global,
    Direct,
    Key(KeyHash<T>),
    PartialKey {
        hash: KeyHash<T>,
        sent: Vec<u64>,
    },
    Custom(Box<dyn Choose<T>>),
}

impl<T: 'static> Grouping<T> {
    /// The chooser of one sending task.
    pub(crate) fn chooser(&self, targets: &[TaskId]) -> Chooser<T> {
        let mut random = SmallRng::from_os_rng();
        let mut shuffled = |near| {
            let mut among: Vec<usize> = (0..targets.len()).collect();
            among.shuffle(&mut random);
            Choice::Shuffle { among, next: 0, near }
        };
        let key = |hash: KeyHash<T>, partial: bool| match partial {
            false => Choice::Key(hash),
            true => Choice::PartialKey { hash, sent: vec![0; targets.len()] },
        };
        let choice = match &self.rule {
            Rule::Shuffle => shuffled(false),
            Rule::LocalOrShuffle => shuffled(true),
            Rule::Random => Choice::Random(random),
            Rule::All => Choice::All,
            Rule::Global => Choice::Global,
            Rule::Direct => Choice::Direct,
            Rule::Key { hash, partial } => key(Arc::clone(hash), *partial),
            Rule::Fields { names, known, hash, partial } => {
                let index = |name: &String| known.iter().position(|known| known == name);
                let (indexes, hash): (Vec<usize>, _) = (names.iter().filter_map(index).collect(), *hash);
                let several = move |value: &T| match indexes[..] {
                    // As the field itself, so that streams meet that are grouped in either way.
                    [index] => hash(value, index),
                    _ => combined(indexes.iter().map(|index| hash(value, *index))),
                };
                key(Arc::new(several), *partial)
            }
            Rule::Custom(make) => {
                let mut custom = make();
                custom.prepare(targets);
                Choice::Custom(custom)
            }
        };
        Chooser { choice, chosen: Vec::new() }
    }
}

impl<T> Chooser<T> {
    /// Whether a target with a full queue gets nothing while another's is not full.
    pub(crate) fn passes_over(&self) -> bool {
        matches!(self.choice, Choice::Shuffle { .. })
    }

    /// Whom a tuple goes to; `room` says where a target runs and whether its queue takes more.
    #[inline]
    pub(crate) fn pick(&mut self, value: &T, targets: usize, room: impl Fn(usize) -> Vacancy) -> Pick {
        match &mut self.choice {
            Choice::Shuffle { among, next, near } => {
                let mut pass = |suits: fn(Vacancy) -> bool| {
                    for _ in 0..among.len() {
                        *next = if *next + 1 >= among.len() { 0 } else { *next + 1 };
                        if suits(room(among[*next])) {
                            return true;
                        }
                    }
                    false
                };
                let found =
                    *near && pass(|room| room == Vacancy::Here) || pass(|room| !matches!(room, Vacancy::Full(_)));
                if !found {
                    // All are full: they take turns all the same, but not where a task takes nothing at all.
                    let turns = (*next + 1..among.len()).chain(0..=*next);
                    *next = turns.min_by_key(|at| room(among[*at]).kept()).unwrap_or(0);
                }
                Pick::One(among[*next])
            }
            Choice::Random(random) => Pick::One(scale(random.next_u64(), targets)),
            Choice::All => Pick::All,
            Choice::Global => Pick::One(0),
            Choice::Direct => {
                self.chosen.clear();
                Pick::Chosen
            }
            Choice::Key(hash) => Pick::One(if targets == 1 { 0 } else { scale(hash(value), targets) }),
            Choice::PartialKey { hash, sent } => {
                let hash = hash(value);
                let (first, second) = (scale(hash, targets), scale(combined([hash]), targets));
                let pick = if sent[first] <= sent[second] { first } else { second };
                sent[pick] += 1;
                Pick::One(pick)
            }
            Choice::Custom(custom) => {
                self.chosen.clear();
                custom.choose(value, &mut self.chosen);
                Pick::Chosen
            }
        }
    }

    pub(crate) fn chosen(&self) -> &[usize] {
        &self.chosen
    }
}

/// A hash scaled to `0..targets`, by its high bits: like [`Shard::of`](crate::id::Shard::of).
#[inline]
fn scale(hash: u64, targets: usize) -> usize {
    ((u128::from(hash) * targets as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::GroupKey;

    fn picks(grouping: &Grouping<u64>, targets: usize, values: impl Iterator<Item = u64>) -> Vec<usize> {
        let ids: Vec<_> = (0..targets as u32).map(TaskId).collect();
        let mut chooser = grouping.chooser(&ids);
        let mut counts = vec![0; targets];
        for value in values {
            match chooser.pick(&value, targets, |_| Vacancy::Here) {
                Pick::One(index) => counts[index] += 1,
                Pick::All => counts.iter_mut().for_each(|count| *count += 1),
                Pick::Chosen => chooser.chosen().iter().for_each(|index| counts[*index] += 1),
            }
        }
        counts
    }

    #[test]
    fn shuffle_is_even_and_passes_over_a_full_queue() {
        assert_eq!(picks(&Grouping::shuffle(), 3, 0..300), [100; 3]);
        let mut chooser = Grouping::<u64>::shuffle().chooser(&[TaskId(0), TaskId(1), TaskId(2)]);
        for _ in 0..50 {
            let room = |lane| if lane == 1 { Vacancy::Full(1) } else { Vacancy::Here };
            assert_ne!(chooser.pick(&0, 3, room), Pick::One(1));
        }
        let full: Vec<_> = (0..3).map(|_| chooser.pick(&0, 3, |_| Vacancy::Full(1))).collect();
        assert!((0..3).all(|lane| full.contains(&Pick::One(lane))), "all full: each in turn: {full:?}");
        let least = |lane| Vacancy::Full(if lane == 2 { 1 } else { 3 });
        assert!((0..5).all(|_| chooser.pick(&0, 3, least) == Pick::One(2)), "where the least waits");
    }

    #[test]
    fn local_or_shuffle_leaves_the_worker_only_when_nobody_here_takes_it() {
        let mut chooser = Grouping::<u64>::local_or_shuffle().chooser(&[TaskId(0), TaskId(1), TaskId(2)]);
        let near = |lane| if lane == 1 { Vacancy::Here } else { Vacancy::Elsewhere };
        assert!((0..10).all(|_| chooser.pick(&0, 3, near) == Pick::One(1)));
        let full = |lane| if lane == 1 { Vacancy::Full(1) } else { Vacancy::Elsewhere };
        assert!((0..10).all(|_| chooser.pick(&0, 3, full) != Pick::One(1)));
    }

    #[test]
    fn equal_keys_meet_and_partial_keys_go_to_two_tasks_evenly() {
        assert_eq!(picks(&Grouping::fields(|value| value), 8, std::iter::repeat_n(7, 100)).iter().max(), Some(&100));
        // A key whose two candidates are different tasks.
        let key = (0..).find(|key: &u64| {
            let hash = key.group_hash();
            scale(hash, 8) != scale(combined([hash]), 8)
        });
        let mut counts = picks(&Grouping::partial_key(|value| value), 8, std::iter::repeat_n(key.unwrap(), 100));
        counts.sort_unstable();
        assert_eq!(counts[6..], [50, 50]);
    }

    #[test]
    fn fields_by_their_names_are_the_fields() {
        #[derive(Clone)]
        struct Sale {
            user: u64,
            shop: String,
        }
        crate::named!(Sale { user, shop });
        let lane = |grouping: Grouping<Sale>, user: u64| {
            let sale = Sale { user, shop: format!("shop {user}") };
            grouping.chooser(&[TaskId(0); 64]).pick(&sale, 64, |_| Vacancy::Here)
        };
        for user in 0..100 {
            assert_eq!(
                lane(Grouping::field_names(&["user"]), user),
                lane(Grouping::fields(|sale: &Sale| &sale.user), user)
            );
            assert_eq!(
                lane(Grouping::field_names(&["user", "shop"]), user),
                lane(Grouping::fields_by(|sale: &Sale| (sale.user, sale.shop.clone())), user)
            );
        }
    }

    #[test]
    fn all_global_direct_none_and_custom() {
        assert_eq!(picks(&Grouping::all(), 3, 0..5), [5, 5, 5]);
        assert_eq!(picks(&Grouping::global(), 3, 0..5), [5, 0, 0]);
        assert_eq!(picks(&Grouping::direct(), 3, 0..5), [0, 0, 0]);
        assert!(picks(&Grouping::none(), 3, 0..300).iter().all(|count| *count > 50));

        struct LastTwo(usize);
        impl Choose<u64> for LastTwo {
            fn prepare(&mut self, targets: &[TaskId]) {
                self.0 = targets.len();
            }
            fn choose(&mut self, _: &u64, chosen: &mut Vec<usize>) {
                chosen.extend([self.0 - 2, self.0 - 1]);
            }
        }
        assert_eq!(picks(&Grouping::custom(|| LastTwo(0)), 3, 0..5), [0, 5, 5]);
    }
}
