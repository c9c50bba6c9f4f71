//! Canonical bytes are the documented ones and sort like values; what goes into columns comes back.

use proptest::prelude::*;
use tine_core::{
    hash::{Hash128, hash64},
    id::Shard,
};

use super::*;

fn bytes(value: &impl Columns) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

/// Golden bytes: if this fails, rows in the field are looked for in the wrong shards.
#[test]
fn p11_canonical_bytes_and_shards_are_the_documented_ones() {
    assert_eq!(bytes(&"tine".to_string()), b"\x02tine\0");
    assert_eq!(bytes(&String::new()), b"\x02\0");
    assert_eq!(bytes(&vec![7u8, 0, 255]), b"\x01\x07\0\xff\xff\0");
    assert_eq!(bytes(&1i64), b"\x03\x80\0\0\0\0\0\0\x01");
    assert_eq!(bytes(&-1i64), b"\x03\x7f\xff\xff\xff\xff\xff\xff\xff");
    assert_eq!(bytes(&("ä".to_string(), 2i64)), b"\x02\xc3\xa4\0\x03\x80\0\0\0\0\0\0\x02");
    assert_eq!(hash64(&bytes(&"tine".to_string())), GOLDEN_HASH);
    assert_eq!(Shard::of(GOLDEN_HASH, 32), Shard(GOLDEN_SHARD));
    assert_eq!(Hash128::of(&bytes(&("tine".to_string(), 3i64))).0, GOLDEN_ROW);
}

/// As the reference implementation of XXH3 hashes the documented bytes.
const GOLDEN_HASH: u64 = 0x5c5d_c643_8757_68f9;
const GOLDEN_SHARD: u16 = 11;
const GOLDEN_ROW: u128 = 0x6783_6560_5ffa_48d8_5a1a_a684_9395_6bd1;

#[test]
fn a_nul_is_found_wherever_it_is() {
    for length in 0..40 {
        let text = "\u{1}\u{80}".repeat(length);
        assert_eq!(check_text(&text), Ok(()));
        for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            let mut text = text.clone();
            text.insert(at, '\0');
            assert_eq!(check_text(&text), Err(Unfit::Nul { at }));
        }
    }
}

#[test]
fn a_tuple_goes_to_columns_and_back() {
    let value = ("a".to_string(), vec![0u8], -5i64);
    let mut build = <(String, Vec<u8>, i64)>::build(1);
    value.clone().push(&mut build);
    let mut columns = Vec::new();
    <(String, Vec<u8>, i64)>::finish(build, &mut columns);
    assert_eq!(columns.iter().map(Column::kind).collect::<Vec<_>>(), kinds::<(String, Vec<u8>, i64)>());
    assert_eq!(Columns::read(&mut columns.iter(), 0), Some(value));
    assert_eq!(<(String, i64)>::read(&mut columns.iter(), 0), None);
}

proptest! {
    #[test]
    fn canonical_bytes_sort_like_values(
        a in any::<(Vec<u8>, i64, String)>(),
        b in any::<(Vec<u8>, i64, String)>(),
    ) {
        prop_assume!(a.2.check().is_ok() && b.2.check().is_ok());
        prop_assert_eq!(a.cmp(&b), bytes(&a).cmp(&bytes(&b)));
        let (a, b) = ((a.0, a.2), (b.0, b.2));
        prop_assert_eq!(a.cmp(&b), bytes(&a).cmp(&bytes(&b)));
    }
}
