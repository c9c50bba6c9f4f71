//! Groupings: which of a bolt's tasks gets a tuple.

mod chooser;

use std::{fmt, sync::Arc};

pub(crate) use self::chooser::{Chooser, Pick, Vacancy};
use crate::{
    component::{GroupKey, Named},
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
