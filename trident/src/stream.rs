//! Streams: what a source brings, and what a stage makes of it.
//!
//! Both are handles into a [`Topology`](crate::topology::Topology): plain types without a lifetime that can be stored in
//! a struct and returned from a function. Nothing runs here.

use std::{fmt, marker::PhantomData, sync::Arc};

use tine_state::Table;

use crate::{
    columns::Columns,
    input::{Policy, Row, Transactional},
    stage::{Partial, Rows, fused::Stage},
    topology::{
        Topology,
        node::{StateNode, TypedSource},
    },
};

/// Replay promises under which a state stays exact.
#[diagnostic::on_unimplemented(
    message = "a source that promises `{Self}` cannot feed a state exactly once",
    note = "exact states need a source that can read every range again as it was: `Transactional`"
)]
pub trait ExactlyOnce {}

impl ExactlyOnce for Transactional {}

/// Rows of a source: `T` is what it lends, `R` its replay promise. Trident's `Stream`.
///
/// A stream used twice is used twice: each stage sees every record.
///
/// ```
/// use tine_trident::{input::{Text, Transactional}, source::files::files, stream::Stream, topology::Topology};
///
/// struct App {
///     topology: Topology,
///     lines: Stream<Text, Transactional>,
/// }
///
/// fn app() -> App {
///     let topology = Topology::new("word_count");
///     let lines = topology.source(files(["a.txt"]).text());
///     App { topology, lines }
/// }
/// # let _ = (app().topology, app().lines);
/// ```
pub struct Stream<T: Row, R> {
    topology: Topology,
    source: Arc<TypedSource<T>>,
    on_error: Policy,
    replay: PhantomData<fn() -> R>,
}

impl<T: Row, R> Clone for Stream<T, R> {
    fn clone(&self) -> Self {
        Stream::new(self.topology.clone(), self.source.clone(), self.on_error)
    }
}

impl<T: Row, R> Stream<T, R> {
    pub(crate) fn new(topology: Topology, source: Arc<TypedSource<T>>, on_error: Policy) -> Stream<T, R> {
        Stream { topology, source, on_error, replay: PhantomData }
    }

    /// What happens, in the stages that follow, to records at which a user's function fails: returns `Err` from a
    /// `try_` operator, panics, or makes a key that no column can hold. The default is to fail: the group halts and names
    /// operator, partition and position.
    ///
    /// With [`Policy::Skip`] and [`Policy::DeadLetter`] exactly that record is left out of that stage, wholly, whatever
    /// else it would have contributed. What is nobody's record's fault — a sum beyond 64 bits — always fails.
    pub fn on_error(mut self, policy: Policy) -> Stream<T, R> {
        self.on_error = policy;
        self
    }

    /// Operators on borrowed rows, up to the first repartition, fused: the closure composes them and ends in an
    /// aggregate by key. Per batch, every key comes out once; the order of records decides nothing.
    ///
    /// The closure runs once per chunk of records, on the emitter's thread; once it runs here, without rows, to learn
    /// which operators it has. It must be pure: no clock, no randomness, no counters of its own.
    ///
    /// ```
    /// use tine_trident::{source::files::files, topology::Topology};
    ///
    /// let topology = Topology::new("word_count");
    /// let counts = topology
    ///     .source(files(["a.txt"]).text())
    ///     .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count());
    /// # let _ = counts;
    /// ```
    ///
    /// Floating-point numbers are no keys, because they don't compare exactly:
    ///
    /// ```compile_fail
    /// # use tine_trident::{source::files::files, topology::Topology};
    /// # let topology = Topology::new("t");
    /// topology.source(files(["a"]).text()).stage(|lines| lines.group_by(|line| line.len() as f64).count());
    /// ```
    ///
    /// No row can leave the stage:
    ///
    /// ```compile_fail
    /// # use tine_trident::{source::files::files, topology::Topology};
    /// # let topology = Topology::new("t");
    /// topology.source(files(["a"]).text()).stage(|lines| lines.map(|line| line));
    /// ```
    pub fn stage<K, V, F>(self, closure: F) -> KeyedStream<K, V, R>
    where
        K: Columns,
        V: Columns,
        F: for<'b> Fn(Rows<'b, T::At<'b>>) -> Partial<K, V> + Send + Sync + 'static,
    {
        let stage = self.source.add_stage(Arc::new(Stage::new(closure)), self.on_error);
        KeyedStream { topology: self.topology, source: self.source.index(), stage, types: PhantomData }
    }
}

impl<T: Row, R> fmt::Debug for Stream<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.source.place())
    }
}

/// Values of type `V` by keys of type `K`, one per key and batch: what a stage ends in. `R` is the replay promise.
#[must_use = "a stage without .persist(…) leads nowhere"]
pub struct KeyedStream<K, V, R> {
    topology: Topology,
    source: usize,
    stage: usize,
    types: PhantomData<fn(K, V) -> R>,
}

impl<K: Columns, V: Columns, R> KeyedStream<K, V, R> {
    /// Keeps the values in a table, merged with what earlier batches left there, exactly once. Trident's
    /// `persistentAggregate`.
    ///
    /// The table gets one row per key: the handle names a column for each part of the key and of the value. Each batch
    /// is merged in one SQL transaction together with its transaction id, whatever crashes. What does not fit (another
    /// number of columns, a name that SQL would have to quote, a table used twice) is said by
    /// [`Topology::build`].
    ///
    /// ```
    /// use tine_state::Table;
    /// use tine_trident::{source::files::files, topology::{Persisted, Topology}};
    ///
    /// fn word_count(topology: &Topology, word_counts: Table) -> Persisted {
    ///     topology
    ///         .source(files(["a.txt"]).text())
    ///         .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
    ///         .persist(word_counts.key("word").value("n"))
    /// }
    /// ```
    pub fn persist(self, table: Table) -> crate::topology::Persisted
    where
        R: ExactlyOnce,
    {
        self.topology.add_state(StateNode { source: self.source, stage: self.stage, table })
    }
}

impl<K, V, R> fmt::Debug for KeyedStream<K, V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyedStream(stage {} after source {})", self.stage + 1, self.source + 1)
    }
}
