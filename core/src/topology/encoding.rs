//! How tuples become bytes when they travel to another worker, and come back.

use std::any::{Any, TypeId};
use std::collections::HashMap;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    codec::{self, CodecError},
    component::Data,
};

/// Both ways of one tuple type. What is erased is a `Vec` of it.
#[derive(Clone, Copy)]
pub(crate) struct Encoding {
    pub(crate) put: Put,
    pub(crate) take: Take,
}

/// Appends values, from the one at this index on until the buffer has so many bytes or there are no more; answers with the
/// index of the first that was not appended. One that cannot be encoded leaves no bytes behind, and its error.
pub(crate) type Put = fn(&dyn Any, usize, usize, &mut Vec<u8>) -> (usize, Option<CodecError>);

/// Takes so many values off the front.
pub(crate) type Take = fn(&mut &[u8], usize) -> Result<Box<dyn Any + Send>, CodecError>;

impl Encoding {
    fn of<T: Data + Serialize + DeserializeOwned>() -> Encoding {
        Encoding { put: put::<T>, take: take::<T> }
    }
}

fn put<T: Data + Serialize>(
    values: &dyn Any,
    from: usize,
    bytes: usize,
    out: &mut Vec<u8>,
) -> (usize, Option<CodecError>) {
    let values: &Vec<T> = values.downcast_ref().expect("build time compares the types of both ends");
    for (at, value) in values.iter().enumerate().skip(from) {
        let before = out.len();
        if before >= bytes {
            return (at, None);
        }
        if let Err(error) = codec::append(value, out) {
            out.truncate(before);
            return (at, Some(error));
        }
    }
    (values.len(), None)
}

fn take<T: Data + DeserializeOwned>(bytes: &mut &[u8], count: usize) -> Result<Box<dyn Any + Send>, CodecError> {
    // Not more memory than the bytes can be worth, whatever they claim.
    let mut values: Vec<T> = Vec::with_capacity(count.min(bytes.len()));
    for _ in 0..count {
        values.push(codec::take(bytes)?);
    }
    Ok(Box::new(values))
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
    use super::*;

    #[test]
    fn values_come_back_in_pieces_of_the_size_that_is_asked_for() {
        let Encoding { put, take } = Encoding::of::<String>();
        let values: Vec<String> = (0..100).map(|number| format!("value {number}")).collect();
        let (mut at, mut came) = (0, Vec::new());
        while at < values.len() {
            let mut bytes = Vec::new();
            let (next, error) = put(&values, at, 64, &mut bytes);
            assert!(error.is_none() && next > at && bytes.len() < 64 + 16);
            let mut rest = &bytes[..];
            let piece = take(&mut rest, next - at).unwrap();
            assert!(rest.is_empty());
            came.extend(*piece.downcast::<Vec<String>>().unwrap());
            at = next;
        }
        assert_eq!(came, values);
    }

    #[test]
    fn a_value_that_cannot_be_encoded_is_told_and_leaves_nothing_behind() {
        #[derive(Clone, serde::Deserialize)]
        struct Odd(u64);
        impl Serialize for Odd {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                match self.0 % 2 {
                    0 => to.serialize_u64(self.0),
                    _ => Err(serde::ser::Error::custom(format!("{} is odd", self.0))),
                }
            }
        }
        let (values, mut bytes) = (vec![Odd(2), Odd(3), Odd(4)], Vec::new());
        let (at, error) = put::<Odd>(&values, 0, 1000, &mut bytes);
        assert_eq!((at, bytes.len()), (1, 1));
        assert!(error.unwrap().to_string().contains("3 is odd"));
        assert_eq!(put::<Odd>(&values, 2, 1000, &mut bytes).0, 3);
    }

    #[test]
    fn hostile_counts_take_no_memory() {
        let take = Encoding::of::<String>().take;
        assert!(take(&mut &[1, b'a'][..], usize::MAX).is_err());
    }
}
