//! How tuples become bytes when they travel to another worker, and come back.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::{Buf, BufMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    codec::{self, CodecError},
    component::Data,
    engine::task::said,
};

/// Both ways of one tuple type. What is erased is a `Vec` of it.
#[derive(Clone, Copy)]
pub(crate) struct Encoding {
    pub(crate) put: Put,
    pub(crate) take: Take,
}

/// Appends these values until they have [enough](Bounds::enough) bytes; answers with the index of the first that was not
/// appended. One that cannot be encoded leaves no bytes behind, and what is wrong with it.
pub(crate) type Put = fn(&dyn Any, Range<usize>, Bounds, &mut Vec<u8>) -> (usize, Option<String>);

/// Takes so many values off the front.
pub(crate) type Take = fn(&mut &[u8], usize) -> Result<Taken, CodecError>;

/// How many bytes values may have together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// With so many no more are appended; twice as many they do not get, but for a single value.
    pub(crate) enough: usize,
    /// No value may be larger.
    pub(crate) most: usize,
}

/// Values that came.
pub(crate) struct Taken {
    /// A `Vec` of those that can be decoded.
    pub(crate) values: Box<dyn Any + Send>,
    /// Where the others were, and what is wrong with them.
    pub(crate) bad: Vec<(usize, String)>,
}

/// In front of each value: how many bytes it has. So whoever cannot read one still finds the next.
const LENGTH_BYTES: usize = 4;

impl Encoding {
    fn of<T: Data + Serialize + DeserializeOwned>() -> Encoding {
        Encoding { put: put::<T>, take: take::<T> }
    }
}

fn put<T: Data + Serialize>(
    values: &dyn Any,
    range: Range<usize>,
    Bounds { enough, most }: Bounds,
    out: &mut Vec<u8>,
) -> (usize, Option<String>) {
    let values: &Vec<T> = values.downcast_ref().expect("build time compares the types of both ends");
    let begin = out.len();
    for at in range.clone() {
        let before = out.len();
        if before - begin >= enough {
            return (at, None);
        }
        out.put_u32_le(0);
        // `Serialize` is the user's.
        let wrong = match catch_unwind(AssertUnwindSafe(|| codec::append(&values[at], out))) {
            Ok(Ok(())) => {
                let bytes = out.len() - before - LENGTH_BYTES;
                out[before..before + LENGTH_BYTES].copy_from_slice(&(bytes as u32).to_le_bytes());
                if before > begin && out.len() - begin > 2 * enough {
                    // It begins the next ones.
                    out.truncate(before);
                    return (at, None);
                }
                (bytes > most).then(|| {
                    format!(
                        "takes {bytes} bytes, and {most} travel between workers: send where it is to be found instead"
                    )
                })
            }
            Ok(Err(error)) => Some(format!("cannot be encoded: {error}")),
            Err(panic) => Some(format!("cannot be encoded: Serialize panicked: {}", said(&*panic))),
        };
        if wrong.is_some() {
            out.truncate(before);
            return (at, wrong);
        }
    }
    (range.end, None)
}

fn take<T: Data + DeserializeOwned>(bytes: &mut &[u8], count: usize) -> Result<Taken, CodecError> {
    // Not more memory than the bytes can be worth, whatever they claim.
    let mut values: Vec<T> = Vec::with_capacity(count.min(bytes.len() / LENGTH_BYTES));
    let mut bad = Vec::new();
    for at in 0..count {
        let mut value = piece(bytes)?;
        // `Deserialize` is the user's.
        match catch_unwind(AssertUnwindSafe(|| codec::take(&mut value))) {
            Ok(Ok(taken)) if value.is_empty() => values.push(taken),
            Ok(Ok(_)) => bad.push((at, format!("Deserialize left {} bytes", value.len()))),
            Ok(Err(error)) => bad.push((at, error.to_string())),
            Err(panic) => bad.push((at, format!("Deserialize panicked: {}", said(&*panic)))),
        }
    }
    Ok(Taken { values: Box::new(values), bad })
}

/// The bytes of the next value.
fn piece<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], CodecError> {
    let few = |_| CodecError::Corrupt("fewer bytes than tuples need".to_owned());
    let length = bytes.try_get_u32_le().map_err(few)? as usize;
    let piece = bytes.split_off(..length);
    piece.ok_or_else(|| CodecError::Corrupt(format!("a tuple of {length} bytes, where there are {}", bytes.len())))
}

/// By tuple type.
pub(crate) type Encodings = HashMap<TypeId, Encoding>;

/// Adds a type.
pub(crate) fn register<T: Data + Serialize + DeserializeOwned>(encodings: &mut Encodings) {
    encodings.insert(TypeId::of::<T>(), Encoding::of::<T>());
}

/// The types that need no registration.
pub(crate) fn plain() -> Encodings {
    let mut encodings = Encodings::new();
    macro_rules! plain {
        ($($of:ty)*) => {$( register::<$of>(&mut encodings); )*};
    }
    plain!(() bool char u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 String Vec<u8>);
    encodings
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    const BOUNDS: Bounds = Bounds { enough: 64, most: 100 };

    #[test]
    fn values_come_back_in_pieces_of_the_size_that_is_asked_for() {
        let Encoding { put, take } = Encoding::of::<String>();
        let values: Vec<String> = (0..100).map(|number| format!("value {number}")).collect();
        let (mut at, mut came) = (0, Vec::new());
        while at < 90 {
            let mut bytes = vec![7; 3];
            let (next, wrong) = put(&values, at..90, BOUNDS, &mut bytes);
            assert!(wrong.is_none() && next > at && bytes.len() < 3 + 64 + 16);
            let mut rest = &bytes[3..];
            let Taken { values, bad } = take(&mut rest, next - at).unwrap();
            assert!(rest.is_empty() && bad.is_empty());
            came.extend(*values.downcast::<Vec<String>>().unwrap());
            at = next;
        }
        assert_eq!(came, values[..90]);
    }

    /// Odd ones cannot be written, and of even ones 4 cannot be read; 6 and 7 panic.
    #[derive(Clone, Debug, PartialEq)]
    struct Odd(u64);

    impl Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                7 => panic!("no sevens"),
                odd if odd % 2 == 1 => Err(serde::ser::Error::custom(format!("{odd} is odd"))),
                even => to.serialize_u64(even),
            }
        }
    }

    impl<'de> Deserialize<'de> for Odd {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Odd, D::Error> {
            match u64::deserialize(from)? {
                4 => Err(serde::de::Error::custom("4 is in the way")),
                6 => panic!("no sixes"),
                number => Ok(Odd(number)),
            }
        }
    }

    #[test]
    fn a_value_that_cannot_be_written_is_told_and_leaves_nothing_behind() {
        let (values, mut bytes) = (vec![Odd(2), Odd(3), Odd(7), Odd(8)], Vec::new());
        let (at, wrong) = put::<Odd>(&values, 0..4, BOUNDS, &mut bytes);
        assert_eq!((at, bytes.len()), (1, LENGTH_BYTES + 1));
        assert!(wrong.unwrap().contains("3 is odd"));
        let (at, wrong) = put::<Odd>(&values, 2..4, BOUNDS, &mut bytes);
        assert_eq!((at, bytes.len()), (2, LENGTH_BYTES + 1));
        assert!(wrong.unwrap().contains("no sevens"));
        assert_eq!(put::<Odd>(&values, 3..4, BOUNDS, &mut bytes), (4, None));
        let (at, wrong) = put::<String>(&vec!["x".repeat(101)], 0..1, BOUNDS, &mut bytes);
        assert!(at == 0 && wrong.unwrap().contains("takes 102 bytes"));
    }

    #[test]
    fn a_value_that_cannot_be_read_is_told_and_the_others_come() {
        let (values, mut bytes) = (vec![Odd(2), Odd(4), Odd(6), Odd(8)], Vec::new());
        assert_eq!(put::<Odd>(&values, 0..4, BOUNDS, &mut bytes), (4, None));
        let Taken { values, bad } = take::<Odd>(&mut &bytes[..], 4).unwrap();
        assert_eq!(*values.downcast::<Vec<Odd>>().unwrap(), [Odd(2), Odd(8)]);
        assert_eq!([bad[0].0, bad[1].0], [1, 2]);
        assert!(bad[0].1.contains("4 is in the way") && bad[1].1.contains("no sixes"), "{bad:?}");
        // More bytes than the value takes are not its own.
        bytes[0] += 5;
        assert!(take::<Odd>(&mut &bytes[..], 1).unwrap().bad[0].1.contains("left 5 bytes"));
    }

    #[test]
    fn hostile_counts_and_lengths_take_no_memory() {
        let take = Encoding::of::<String>().take;
        assert!(take(&mut &[2, 0, 0, 0, 1, b'a'][..], usize::MAX).is_err());
        assert!(take(&mut &[255, 255, 255, 255, 1, b'a'][..], 1).is_err());
    }
}
