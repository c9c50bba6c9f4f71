//! Rows decoded from JSON: owned, or borrowed from the fetch buffer.
//!
//! A type of your own that owns what it holds needs nothing but `Deserialize`:
//!
//! ```
//! use serde::Deserialize;
//! use tine_trident::{source::files::files, topology::Topology};
//!
//! #[derive(Deserialize)]
//! struct Reading {
//!     sensor: u32,
//!     celsius: Option<i32>,
//! }
//!
//! let topology = Topology::new("readings");
//! let hottest = topology
//!     .source(files(["readings.jsonl"]).json::<Reading>())
//!     .stage(|readings| readings.group_by(|reading| reading.sensor).max(|reading| reading.celsius.unwrap_or(i32::MIN)));
//! # let _ = hottest;
//! ```
//!
//! A type that borrows its texts allocates nothing. Its rows get a name, because they have another lifetime in each
//! chunk; [`lend!`](crate::lend) gives it:
//!
//! ```
//! use std::borrow::Cow;
//!
//! use serde::Deserialize;
//! use tine_trident::{lend, source::files::files, topology::Topology};
//!
//! #[derive(Debug, Deserialize)]
//! struct Sale<'b> {
//!     user: &'b str,
//!     #[serde(borrow)]
//!     comment: Cow<'b, str>,
//!     cents: i64,
//! }
//! lend!(Sale as Sales);
//!
//! let topology = Topology::new("turnover");
//! let turnover = topology
//!     .source(files(["sales.jsonl"]).json::<Sales>())
//!     .stage(|sales| sales.filter(|sale| sale.comment != "test").group_by(|sale| sale.user).sum(|sale| sale.cents));
//! # let _ = turnover;
//! ```
//!
//! # Texts with escapes
//!
//! `"tab\there"` is not in the buffer as it is meant, so a `&str` cannot borrow it: such a record is invalid, and the
//! message says so. Where escapes may come (quotes, backslashes, control characters; some writers escape everything beyond
//! ASCII), use `Cow<'b, str>` with `#[serde(borrow)]`: it borrows where it can and owns the rest. Without the attribute
//! it always owns. Keys and ids are best left `&str`.
//!
//! # What is invalid
//!
//! Whatever serde says of the record: not JSON, another type, a missing or duplicate field, something after the value, more
//! than 128 levels. [`Input::on_invalid`](super::Input::on_invalid) decides what becomes of it. Fields that the type
//! does not name are skipped, and what they hold is checked for its form only.

use std::{fmt, marker::PhantomData};

use serde::{Deserialize, de::DeserializeOwned};

use super::{Invalid, Row};
use crate::source::Record;

/// A type of rows for each lifetime of the fetch buffer. Every `DeserializeOwned` is one, namely itself; a type that
/// borrows gets one by [`lend!`](crate::lend).
///
/// ```
/// # #[derive(serde::Deserialize)]
/// # struct Sale<'b> { user: &'b str }
/// use tine_trident::input::Lend;
///
/// // What `lend!(Sale as Sales)` writes:
/// enum Sales {}
/// impl Lend for Sales {
///     type At<'b> = Sale<'b>;
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the rows of a JSON source",
    label = "neither owned and `Deserialize`, nor lent",
    note = "derive `serde::Deserialize`; for a type that borrows (`struct Sale<'b>`) also write `tine::lend!(Sale as \
            Sales)` and ask for `json::<Sales>()`"
)]
pub trait Lend: 'static {
    /// The rows, borrowed from the fetch buffer.
    type At<'b>: Deserialize<'b>;
}

impl<T: DeserializeOwned + 'static> Lend for T {
    type At<'b> = T;
}

/// Names the rows of a type that borrows: after `lend!(Sale as Sales)`, `json::<Sales>()` lends `Sale<'_>`. The type has
/// one parameter, the lifetime; `lend!(pub Sale as Sales)` makes the name public.
#[macro_export]
macro_rules! lend {
    ($visible:vis $row:ident as $rows:ident) => {
        #[doc = concat!("Lends [`", stringify!($row), "`] out of the fetch buffer.")]
        #[derive(Debug)]
        $visible enum $rows {}

        impl $crate::input::Lend for $rows {
            type At<'b> = $row<'b>;
        }
    };
}

/// Lends the record's value decoded as JSON; see [`json`](self) for owned and borrowed types.
pub struct Json<L>(PhantomData<fn() -> L>);

impl<L> fmt::Debug for Json<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json")
    }
}

impl<L: Lend> Row for Json<L> {
    type At<'b> = L::At<'b>;

    fn decode<'b>(_: &'b str, _: &Record<'b>, value: &'b [u8]) -> Result<L::At<'b>, Invalid> {
        serde_json::from_slice(value).map_err(|error| invalid(&error))
    }
}

/// Serde's words may quote the record: as much of them as helps.
const WHAT_BYTES_MAX: usize = 300;

#[cold]
fn invalid(error: &serde_json::Error) -> Invalid {
    let (line, column) = (error.line(), error.column());
    let words = error.to_string();
    let what = words.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&words);
    let advice = match what.contains("expected a borrowed string") {
        true => {
            "; a text with escapes cannot be borrowed: make the field a Cow<'b, str> with #[serde(borrow)], or a String"
        }
        false => "",
    };
    Invalid::Json { line, column, what: format!("{}{advice}", shortened(what)).into() }
}

/// Both ends of a long text: serde says at the end what it expected.
fn shortened(what: &str) -> String {
    if what.len() <= WHAT_BYTES_MAX {
        return what.to_owned();
    }
    let head = what.floor_char_boundary(WHAT_BYTES_MAX / 2);
    let tail = what.ceil_char_boundary(what.len() - WHAT_BYTES_MAX / 2);
    format!("{} […] {}", &what[..head], &what[tail..])
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Place<'b> {
        #[serde(borrow)]
        city: Cow<'b, str>,
        zip: Option<u32>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Sale<'b> {
        user: &'b str,
        cents: i64,
        #[serde(borrow)]
        place: Option<Place<'b>>,
    }
    lend!(Sale as Sales);

    fn decode<L: Lend>(value: &[u8]) -> Result<L::At<'_>, Invalid> {
        let record = Record { position: 0, timestamp_ms: -1, key: None, value: Some(value), headers: &[] };
        Json::<L>::decode("p", &record, value)
    }

    fn refused<L: Lend>(value: &[u8]) -> String {
        match decode::<L>(value) {
            Ok(_) => "a row".to_owned(),
            Err(invalid) => invalid.to_string(),
        }
    }

    #[test]
    fn rows_borrow_from_the_buffer_what_needs_no_unescaping() {
        let value = br#"{"place":{"city":"Ulm","zip":null,"new":[{}]},"user":"ann","cents":-3}"#;
        let sale = decode::<Sales>(value).unwrap();
        assert_eq!((sale.user, sale.cents), ("ann", -3));
        assert!(value.as_ptr_range().contains(&sale.user.as_ptr()));
        assert!(matches!(&sale.place, Some(Place { city: Cow::Borrowed("Ulm"), zip: None })));

        let escaped = decode::<Sales>(br#"{"user":"a","cents":1,"place":{"city":"\u00dcb\"er"}}"#).unwrap();
        assert!(matches!(&escaped.place, Some(Place { city: Cow::Owned(city), .. }) if city == "Üb\"er"));
    }

    #[test]
    fn owned_types_need_no_ceremony() {
        assert_eq!(decode::<(u8, String)>(br#"[7,"a\n"]"#), Ok((7, "a\n".to_owned())));
        assert_eq!(decode::<Option<i64>>(b"null"), Ok(None));
    }

    #[test]
    fn a_refusal_names_line_column_and_what_was_expected() {
        assert_eq!(
            refused::<Sales>(b"{\"user\":\"a\",\n \"cents\":1.5}"),
            "the value is not the JSON that was expected, at line 2 column 12: invalid type: floating point `1.5`, \
             expected i64"
        );
        assert!(refused::<Sales>(br#"{"user":"a"}"#).ends_with("line 1 column 12: missing field `cents`"));
        assert!(refused::<Sales>(br#"{"user":"a","cents":1} x"#).contains("trailing characters"));
        assert!(refused::<Sales>(br#"{"user":"a","user":"b"}"#).contains("duplicate field `user`"));
        assert!(refused::<Sales>(b"").contains("EOF"));
        assert!(refused::<Sales>(b"{\"user\":\"\xff\"").contains("line 1"));
    }

    #[test]
    fn an_escape_in_a_borrowed_text_is_explained() {
        let why = refused::<Sales>(br#"{"user":"a\tb","cents":1}"#);
        assert!(why.contains("expected a borrowed string") && why.contains("Cow<'b, str>"), "{why}");
    }

    #[test]
    fn hostile_values_are_refused_in_few_words() {
        let deep = "[".repeat(1 << 20);
        assert!(refused::<serde_json::Value>(deep.as_bytes()).contains("recursion limit"));
        let skipped = format!("{{\"x\":{deep}");
        assert!(refused::<Sales>(skipped.as_bytes()).starts_with("the value is not"));
        let long = format!("{{\"user\":\"a\",\"cents\":\"{}\"}}", "ü".repeat(1 << 20));
        let why = refused::<Sales>(long.as_bytes());
        assert!(why.len() < 2 * WHAT_BYTES_MAX && why.ends_with("expected i64"), "{why}");
        assert!(refused::<Sales>(br#"{"user":"a","cents":99999999999999999999}"#).contains("expected i64"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Sales>(&value);
        }

        #[test]
        fn no_damage_panics(at in 0..60_usize, with: u8, cut in 0..70_usize) {
            let mut value = br#"{"user":"ann\n","cents":12,"place":{"city":"\u00dclm","zip":3}}"#.to_vec();
            value[at] = with;
            value.truncate(cut);
            let _ = (decode::<Sales>(&value), decode::<serde_json::Value>(&value));
        }
    }
}
