//! Why a topology cannot be built: always with both ends, and with what to do.

use std::fmt;

/// A topology that makes no sense.
///
/// ```
/// use tine_core::component::Emit;
/// use tine_core::topology::{BuildError, Grouping, Stream, Topology};
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
/// let topology = Topology::new("words");
/// let words = topology.spout("words", || Items(["a", "b"].into_iter()));
/// topology.each("count", |_: &'static str, _: &mut Emit<'_, ()>| Ok(())).shuffle(&words).tasks(0);
/// let error = topology.check().unwrap_err();
/// assert!(matches!(&error, BuildError::Number { component, value: 0, .. } if component == "count"));
/// assert!(error.to_string().contains(r#"component "count" is to have tasks = 0"#), "{error}");
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A type that may have to travel to another worker, and nobody has said how.
    #[error("bolt {bolt:?} takes {tuple}, which may come from another worker: say topology.register_type::<{tuple}>()")]
    NotRegistered {
        /// Who takes it.
        bolt: String,
        /// The tuples' type.
        tuple: &'static str,
    },
    /// No spout.
    #[error("topology {topology:?} has no spout: nothing would ever happen")]
    NoSpout {
        /// Its name.
        topology: String,
    },
    /// Two components are called the same.
    #[error("two components are named {name:?}: give each a name of its own")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A bolt that nothing leads to.
    #[error("bolt {bolt:?} has no input: subscribe it to a stream")]
    NoInput {
        /// Its name.
        bolt: String,
    },
    /// A subscription names a component that is not there.
    #[error("bolt {bolt:?} subscribes to component {component:?}, which topology {topology:?} does not have")]
    NoSuchComponent {
        /// Who subscribes.
        bolt: String,
        /// To what.
        component: String,
        /// Where.
        topology: String,
    },
    /// A subscription names a stream that is not there.
    #[error("bolt {bolt:?} subscribes to stream {stream:?} of {component:?}, which has {known:?}: declare the stream")]
    NoSuchStream {
        /// Who subscribes.
        bolt: String,
        /// Whose stream.
        component: String,
        /// Which.
        stream: String,
        /// Those that are declared.
        known: Vec<String>,
    },
    /// One stream is declared twice.
    #[error("component {component:?} declares stream {stream:?} twice")]
    DuplicateStream {
        /// Whose.
        component: String,
        /// Which.
        stream: String,
    },
    /// The types of the two ends differ.
    #[error("stream {stream:?} of {component:?} carries {sent}, but bolt {bolt:?} takes it for {expected}")]
    TypeMismatch {
        /// Who sends.
        component: String,
        /// Into which stream.
        stream: String,
        /// What.
        sent: &'static str,
        /// Who subscribes.
        bolt: String,
        /// To what.
        expected: &'static str,
    },
    /// A grouping on a field that is not there.
    #[error(
        "bolt {bolt:?} groups stream {stream:?} of {component:?} by field {field:?}, but {tuple} has only {known:?}"
    )]
    NoSuchField {
        /// Who subscribes.
        bolt: String,
        /// Who sends.
        component: Box<str>,
        /// Into which stream.
        stream: Box<str>,
        /// The field.
        field: Box<str>,
        /// The tuple's type.
        tuple: &'static str,
        /// The fields it has.
        known: &'static [&'static str],
    },
    /// Components feed one another in a circle.
    #[error("{} feed one another in a circle: make one of the edges a feedback edge with a bound", .components.join(" -> "))]
    Cycle {
        /// The circle, the first component again at the end.
        components: Vec<String>,
    },
    /// A stream of another topology.
    #[error("bolt {bolt:?} of topology {topology:?} subscribes to a stream of another topology, {other:?}")]
    ForeignStream {
        /// Who subscribes.
        bolt: String,
        /// Where.
        topology: String,
        /// Where the stream is.
        other: String,
    },
    /// A number that makes no sense.
    #[error("component {component:?} is to have {what} = {value}: {fix}")]
    Number {
        /// Whose.
        component: String,
        /// Which number.
        what: &'static str,
        /// What it is.
        value: usize,
        /// What it can be.
        fix: &'static str,
    },
}

/// As people read it: a `main` that returns an error prints its `Debug`.
impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
