//! The streams that a component sends into: the default one, and others under a [`Port`]; and what their tuples are.

use std::{
    any::{Any, TypeId},
    fmt,
    marker::PhantomData,
    sync::Arc,
};

use crate::{
    engine::outlet::{AnyOutput, Output},
    metrics::StreamMeter,
};

/// What a stream may carry: anything that can be cloned (for groupings that send to several tasks; put large values behind
/// an `Arc`) and moved to another thread.
///
/// ```
/// fn travels<T: tine_core::component::Data>() {}
///
/// travels::<(String, u64)>();
/// travels::<std::sync::Arc<[f32]>>(); // several tasks get it, and nobody copies the numbers
/// ```
pub trait Data: Clone + Send + 'static {}

impl<T: Clone + Send + 'static> Data for T {}

/// The name of the stream that a component has without declaring it.
///
/// ```
/// use tine_core::{component::DEFAULT_STREAM, topology::Stream};
///
/// let lines = Stream::<String>::named("lines", DEFAULT_STREAM);
/// assert_eq!(format!("{lines:?}"), r#"Stream("default" of "lines")"#);
/// ```
pub const DEFAULT_STREAM: &str = "default";

/// A named output stream and the type of its tuples: a constant that sender and receiver share.
///
/// ```
/// use tine_core::component::Port;
///
/// const LATE: Port<String> = Port::new("late");
/// assert_eq!(LATE.name(), "late");
/// ```
pub struct Port<T> {
    name: &'static str,
    tuples: PhantomData<fn() -> T>,
}

impl<T> Port<T> {
    /// A port of this name; a component declares it in `declare`.
    pub const fn new(name: &'static str) -> Self {
        Port { name, tuples: PhantomData }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

impl<T> Clone for Port<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Port<T> {}

impl<T> fmt::Debug for Port<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({:?}: {})", self.name, std::any::type_name::<T>())
    }
}

/// A Rust type, by identity and by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TypeOf {
    pub(crate) id: TypeId,
    pub(crate) name: &'static str,
}

impl TypeOf {
    pub(crate) fn of<T: 'static>() -> TypeOf {
        TypeOf { id: TypeId::of::<T>(), name: std::any::type_name::<T>() }
    }
}

/// Where a component declares the streams that it has besides the default one.
///
/// ```
/// use tine_core::component::{Basic, BasicBolt, Declaration, Emit, Port};
/// use tine_core::topology::{BuildError, Topology};
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
/// const EVEN: Port<u64> = Port::new("even");
/// const ODD: Port<u64> = Port::new("odd");
/// const PRIME: Port<u64> = Port::new("prime");
///
/// struct Sort;
///
/// impl BasicBolt for Sort {
///     type In = u64;
///     type Out = ();
///
///     fn declare(streams: &mut Declaration) {
///         streams.stream(EVEN).stream(ODD);
///     }
///
///     fn execute(&mut self, number: u64, out: &mut Emit<'_, ()>) -> Result<(), Failure> {
///         out.emit_to(if number.is_multiple_of(2) { EVEN } else { ODD }, number)
///     }
/// }
///
/// let topology = Topology::new("sorted");
/// let numbers = topology.spout("numbers", || Items(0..10u64));
/// let sort = topology.bolt("sort", || Basic(Sort)).shuffle(&numbers);
/// topology.each("odd", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&sort.port(ODD));
/// assert_eq!(topology.check(), Ok(()));
///
/// topology.each("prime", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&sort.port(PRIME));
/// assert!(matches!(topology.check(), Err(BuildError::NoSuchStream { .. })), "nobody has declared it");
/// ```
#[derive(Debug, Default)]
pub struct Declaration {
    pub(crate) streams: Vec<Declared>,
}

/// The erased outlets of one stream.
pub(crate) type Outlets = Vec<Box<dyn Any + Send>>;

/// A declared stream.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) name: &'static str,
    pub(crate) tuples: TypeOf,
    /// Makes the stream of one task out of its subscribers' outlets.
    pub(crate) output: fn(Outlets, Arc<StreamMeter>) -> Box<dyn AnyOutput>,
}

impl Declared {
    pub(crate) fn new<T: Data>(name: &'static str) -> Declared {
        Declared { name, tuples: TypeOf::of::<T>(), output: |outlets, meter| Box::new(Output::<T>::of(outlets, meter)) }
    }
}

impl Declaration {
    /// The component also sends into this port.
    pub fn stream<T: Data>(&mut self, port: Port<T>) -> &mut Self {
        self.streams.push(Declared::new::<T>(port.name));
        self
    }
}

/// A tuple type whose fields have names, for groupings by name; [`named!`](crate::named) writes it.
///
/// ```
/// use tine_core::component::{GroupKey, Named};
///
/// struct Sale { user: String, shop: u32, cents: u64 }
/// tine_core::named!(Sale { user, shop }); // cents is nothing to group by
///
/// let sale = Sale { user: "ann".to_owned(), shop: 7, cents: 1995 };
/// assert_eq!(Sale::NAMES, ["user", "shop"]);
/// assert_eq!(sale.field_hash(0), "ann".group_hash());
/// # let _ = sale.cents;
/// ```
pub trait Named {
    /// The names, in order.
    const NAMES: &'static [&'static str];

    /// The stable hash of the field at `index` of [`NAMES`](Named::NAMES).
    fn field_hash(&self, index: usize) -> u64;
}

/// Gives a struct's fields names that groupings can use.
///
/// ```
/// #[derive(Clone)]
/// struct Sale { user: String, shop: u32 }
/// tine_core::named!(Sale { user, shop });
///
/// assert_eq!(<Sale as tine_core::component::Named>::NAMES, ["user", "shop"]);
/// ```
#[macro_export]
macro_rules! named {
    ($type:ty { $($field:ident),+ $(,)? }) => {
        impl $crate::component::Named for $type {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            fn field_hash(&self, index: usize) -> u64 {
                let fields: &[fn(&Self) -> u64] = &[$(|it| $crate::component::GroupKey::group_hash(&it.$field)),+];
                fields[index](self)
            }
        }
    };
}
