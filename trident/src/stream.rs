//! Streams: what a source brings, and what a stage makes of it.
//!
//! Both are handles into a [`Topology`](crate::topology::Topology): plain types without a lifetime that can be stored in
//! a struct and returned from a function. Nothing runs here.

use std::{fmt, marker::PhantomData, sync::Arc};

use tine_state::Table;

use crate::{
    columns::{Columns, Lends},
    exchange::Later,
    input::{Policy, Row, Transactional},
    stage::{
        Partial, Rows,
        fused::{Stage, learn},
    },
    topology::{
        Topology,
        node::{LaterNode, Origin, StateNode, TypedSource},
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
        KeyedStream::new(self.topology, Origin::Source { source: self.source.index(), stage })
    }
}

impl<T: Row, R> fmt::Debug for Stream<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.source.place())
    }
}

/// Values of type `V` by keys of type `K`, one per key and batch: what a stage ends in. `R` is the replay promise.
///
/// A stream used twice is used twice, and computed once: it may be kept in a table, and feed any number of later stages.
#[must_use = "a stage without .persist(…) leads nowhere"]
pub struct KeyedStream<K, V, R> {
    topology: Topology,
    origin: Origin,
    types: PhantomData<fn(K, V) -> R>,
}

impl<K, V, R> Clone for KeyedStream<K, V, R> {
    fn clone(&self) -> Self {
        KeyedStream::new(self.topology.clone(), self.origin)
    }
}

impl<K, V, R> KeyedStream<K, V, R> {
    fn new(topology: Topology, origin: Origin) -> KeyedStream<K, V, R> {
        KeyedStream { topology, origin, types: PhantomData }
    }
}

impl<K: Columns, V: Columns, R> KeyedStream<K, V, R> {
    /// Operators on what this stage made of a batch, after a repartition by key: the closure sees each distinct key of the
    /// batch exactly once, with its value combined over all emitters, as a borrowed pair. It ends in an aggregate by
    /// another key, which may be kept in a table or feed a further stage.
    ///
    /// What is aggregated is the *batch*, not the table: a count of words that is 2 in one batch and 3 in the next
    /// reaches the closure as 2 and as 3. Where batches are cut is nobody's promise, so the later aggregate must come to the
    /// same whatever the cuts: sums of counts and extremes of extremes do, a count of distinct words does not.
    ///
    /// The closure runs on stage tasks of its own ([`Options::stage_tasks`](crate::run::Options::stage_tasks)); how many
    /// there are changes nothing. It must be pure, like that of [`Stream::stage`]. When it fails, the group halts and names
    /// operator, stage and key; [`Stream::on_error`] says nothing here, because a row is made of many records.
    ///
    /// ```
    /// use tine_state::Table;
    /// use tine_trident::{source::files::files, topology::Topology};
    ///
    /// fn letters(topology: &Topology, words: Table, letters: Table) {
    ///     let counts = topology
    ///         .source(files(["a.txt"]).text())
    ///         .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count());
    ///     counts.clone().persist(words.key("word").value("n"));
    ///     counts
    ///         .stage(|words| words.group_by(|(word, _)| word.chars().next().map_or(0, u32::from)).sum(|(_, n)| *n))
    ///         .persist(letters.key("letter").value("n"));
    /// }
    /// ```
    pub fn stage<K2, V2, F>(self, closure: F) -> KeyedStream<K2, V2, R>
    where
        K2: Columns,
        V2: Columns,
        F: for<'b> Fn(Rows<'b, (<K::Lent as Lends>::At<'b>, <V::Lent as Lends>::At<'b>)>) -> Partial<K2, V2>
            + Send
            + Sync
            + 'static,
    {
        let closure: Later<K, V> = Arc::new(Stage::new(closure));
        let learned = learn(&*closure);
        let later = self.topology.add_later(LaterNode { after: self.origin, closure: Arc::new(closure), learned });
        KeyedStream::new(self.topology, later)
    }

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
        self.topology.add_state(StateNode { origin: self.origin, table })
    }
}

impl<K, V, R> fmt::Debug for KeyedStream<K, V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyedStream({:?})", self.origin)
    }
}
