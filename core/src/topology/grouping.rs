//! Groupings: which of a bolt's tasks gets a tuple.

use std::{fmt, sync::Arc};

use rand::{RngCore, SeedableRng, rngs::SmallRng, seq::SliceRandom};

use crate::{
    component::{GroupKey, Named, combined},
    id::TaskId,
};

type KeyHash<T> = Arc<dyn Fn(&T) -> u64 + Send + Sync>;

/// Makes one [`Choose`] for each sending task.
type Choosers<T> = Arc<dyn Fn() -> Box<dyn Choose<T>> + Send + Sync>;

/// How the tuples of a stream find their tasks.
///
/// ```
/// use tine_core::component::Emit;
/// use tine_core::topology::{Grouping, Topology};
/// # use tine_core::{component::*, failure::*};
/// # struct Items<I>(I);
/// # impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
/// #     type Out = I::Item;
/// #     type Id = ();
/// #     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
/// #         Ok(self.0.next().map_or(Next::Done, |item| { out.emit(item, ()); Next::More }))
/// #     }
/// # }
///
/// #[derive(Clone)]
/// struct Sale {
///     user: String,
///     shop: u32,
/// }
/// tine_core::named!(Sale { user, shop });
///
/// # let sales = || (0..100).map(|number| Sale { user: "ann".to_owned(), shop: number % 7 });
/// let topology = Topology::new("sales");
/// let sales = topology.spout("sales", move || Items(sales())); // 100 of one user, in several shops
/// let grouped = |name: &str, grouping| {
///     topology.each(name, |_: Sale, _: &mut Emit<'_, ()>| Ok(())).input(&sales, grouping).tasks(2);
/// };
/// grouped("in turn", Grouping::shuffle());
/// grouped("in turn, here if there is room", Grouping::local_or_shuffle());
/// grouped("by chance", Grouping::none());
/// grouped("to all", Grouping::all());
/// grouped("to the first", Grouping::global());
/// grouped("to whom the emitter names", Grouping::direct());
/// grouped("by user", Grouping::fields(|sale: &Sale| sale.user.as_str()));
/// grouped("by both", Grouping::fields_by(|sale: &Sale| (sale.user.clone(), sale.shop)));
/// grouped("by both names", Grouping::field_names(&["user", "shop"]));
/// grouped("by user, to two", Grouping::partial_key(|sale: &Sale| sale.user.as_str()));
/// grouped("by user's name, to two", Grouping::partial_key_names(&["user"]));
/// # let running = topology.start()?;
/// let summary = running.wait()?;
/// let got = |name| -> Vec<u64> {
///     summary.tasks.iter().filter(|task| task.component == name).map(|task| task.executed).collect()
/// };
/// assert_eq!(got("in turn"), [50, 50]);
/// assert_eq!(got("to all"), [100, 100]);
/// assert_eq!(got("to the first"), [100, 0]);
/// assert_eq!(got("to whom the emitter names"), [0, 0]);
/// assert!(got("by user").contains(&100), "one task has all of one user's");
/// assert_eq!(got("by both"), got("by both names"));
/// for name in ["by chance", "by user, to two", "by user's name, to two"] {
///     assert_eq!(got(name).iter().sum::<u64>(), 100);
/// }
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub struct Grouping<T> {
    pub(crate) rule: Rule<T>,
}

pub(crate) enum Rule<T> {
    Shuffle,
    LocalOrShuffle,
    Random,
    All,
    Global,
    Direct,
    Key { hash: KeyHash<T>, partial: bool },
    Fields { names: Vec<String>, known: &'static [&'static str], hash: fn(&T, usize) -> u64, partial: bool },
    Custom(Choosers<T>),
}

/// A grouping of the user's own.
///
/// ```
/// use tine_core::component::Emit;
/// use tine_core::id::TaskId;
/// use tine_core::topology::{Choose, Grouping, Topology};
/// # use tine_core::{component::*, failure::*};
/// # struct Items<I>(I);
/// # impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
/// #     type Out = I::Item;
/// #     type Id = ();
/// #     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
/// #         Ok(self.0.next().map_or(Next::Done, |item| { out.emit(item, ()); Next::More }))
/// #     }
/// # }
///
/// /// Small numbers go to the first task, large ones to the last.
/// struct BySize(usize);
///
/// impl Choose<u64> for BySize {
///     fn prepare(&mut self, targets: &[TaskId]) {
///         self.0 = targets.len() - 1;
///     }
///
///     fn choose(&mut self, value: &u64, chosen: &mut Vec<usize>) {
///         chosen.push(if *value < 100 { 0 } else { self.0 });
///     }
/// }
///
/// let topology = Topology::new("sizes");
/// let numbers = topology.spout("numbers", || Items(90..103u64));
/// let sizes = topology.each("sizes", |_: u64, _: &mut Emit<'_, ()>| Ok(())).tasks(3);
/// sizes.input(&numbers, Grouping::custom(|| BySize(0)));
/// let summary = topology.run()?;
/// let sizes = summary.tasks.iter().filter(|task| task.component == "sizes");
/// assert_eq!(sizes.map(|task| task.executed).collect::<Vec<_>>(), [10, 0, 3]);
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub trait Choose<T>: Send {
    /// Before the first tuple: the tasks that there are.
    fn prepare(&mut self, _targets: &[TaskId]) {}

    /// Adds the indexes of the tasks that get the tuple; an index beyond the last is ignored.
    fn choose(&mut self, value: &T, chosen: &mut Vec<usize>);
}

impl<T> Grouping<T> {
    /// One after the other, in random order; a task whose queue is full is passed over while another's is not.
    pub fn shuffle() -> Self {
        Grouping { rule: Rule::Shuffle }
    }

    /// As [`shuffle`](Grouping::shuffle) among the tasks of this worker that have room; among all others when there are none.
    pub fn local_or_shuffle() -> Self {
        Grouping { rule: Rule::LocalOrShuffle }
    }

    /// Storm's "none": any task, at random.
    pub fn none() -> Self {
        Grouping { rule: Rule::Random }
    }

    /// Every task.
    pub fn all() -> Self {
        Grouping { rule: Rule::All }
    }

    /// The first task.
    pub fn global() -> Self {
        Grouping { rule: Rule::Global }
    }

    /// The task that the emitter names: only what is emitted with `emit_direct` arrives.
    pub fn direct() -> Self {
        Grouping { rule: Rule::Direct }
    }

    /// Equal keys go to the same task, always and everywhere as long as the number of tasks is the same.
    pub fn fields<K: GroupKey + ?Sized>(key: impl Fn(&T) -> &K + Send + Sync + 'static) -> Self {
        Grouping::keyed(move |value| key(value).group_hash(), false)
    }

    /// As [`fields`](Grouping::fields), with a key that is computed.
    pub fn fields_by<K: GroupKey>(key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        Grouping::keyed(move |value| key(value).group_hash(), false)
    }

    /// Equal keys go to one of two tasks, whichever has got less from this sender: evens out frequent keys. Who gathers
    /// the two halves is the next bolt.
    pub fn partial_key<K: GroupKey + ?Sized>(key: impl Fn(&T) -> &K + Send + Sync + 'static) -> Self {
        Grouping::keyed(move |value| key(value).group_hash(), true)
    }

    fn keyed(hash: impl Fn(&T) -> u64 + Send + Sync + 'static, partial: bool) -> Self {
        Grouping { rule: Rule::Key { hash: Arc::new(hash), partial } }
    }

    /// As [`fields`](Grouping::fields), by the names of fields ([`named!`](crate::named)). A name that the type does not
    /// have is a [`BuildError`](super::BuildError).
    pub fn field_names(names: &[&str]) -> Self
    where
        T: Named,
    {
        Grouping::by_names(names, false)
    }

    /// As [`partial_key`](Grouping::partial_key), by the names of fields.
    pub fn partial_key_names(names: &[&str]) -> Self
    where
        T: Named,
    {
        Grouping::by_names(names, true)
    }

    fn by_names(names: &[&str], partial: bool) -> Self
    where
        T: Named,
    {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Grouping { rule: Rule::Fields { names, known: T::NAMES, hash: T::field_hash, partial } }
    }

    /// As the user [chooses](Choose); `make` is called once for each sending task.
    pub fn custom<C: Choose<T> + 'static>(make: impl Fn() -> C + Send + Sync + 'static) -> Self {
        Grouping { rule: Rule::Custom(Arc::new(move || Box::new(make()))) }
    }

    /// The first name that the tuple's type does not have, and those that it has.
    pub(crate) fn missing_field(&self) -> Option<(&str, &'static [&'static str])> {
        let Rule::Fields { names, known, .. } = &self.rule else { return None };
        names.iter().find(|name| !known.contains(&name.as_str())).map(|name| (name.as_str(), *known))
    }

    /// The chooser of one sending task.
    pub(crate) fn chooser(&self, targets: &[TaskId]) -> Chooser<T>
    where
        T: 'static,
    {
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

impl<T> Clone for Grouping<T> {
    fn clone(&self) -> Self {
        let rule = match &self.rule {
            Rule::Shuffle => Rule::Shuffle,
            Rule::LocalOrShuffle => Rule::LocalOrShuffle,
            Rule::Random => Rule::Random,
            Rule::All => Rule::All,
            Rule::Global => Rule::Global,
            Rule::Direct => Rule::Direct,
            Rule::Key { hash, partial } => Rule::Key { hash: Arc::clone(hash), partial: *partial },
            Rule::Fields { names, known, hash, partial } => {
                Rule::Fields { names: names.clone(), known, hash: *hash, partial: *partial }
            }
            Rule::Custom(make) => Rule::Custom(Arc::clone(make)),
        };
        Grouping { rule }
    }
}

impl<T> fmt::Debug for Grouping<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.rule {
            Rule::Shuffle => "shuffle",
            Rule::LocalOrShuffle => "local or shuffle",
            Rule::Random => "none",
            Rule::All => "all",
            Rule::Global => "global",
            Rule::Direct => "direct",
            Rule::Key { partial: false, .. } | Rule::Fields { partial: false, .. } => "fields",
            Rule::Key { .. } | Rule::Fields { .. } => "partial key",
            Rule::Custom(_) => "custom",
        })
    }
}

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
