//! Kafka's variable-length integers: seven bits a byte, low ones first, with the sign in the lowest bit (zigzag).
//!
//! Each function takes one number off the front of a slice. `None` is a number that does not end within the slice, or has
//! more bits than its type. A long spelling of a small number is a number.

/// Takes an `int32` off the front.
#[inline(always)]
pub(super) fn int(bytes: &mut &[u8]) -> Option<i32> {
    let plain = match **bytes {
        [low, ref rest @ ..] if low < MORE => {
            *bytes = rest;
            u32::from(low)
        }
        [low, high, ref rest @ ..] if high < MORE => {
            *bytes = rest;
            u32::from(low & !MORE) | u32::from(high) << 7
        }
        // The offsets of a batch of more than 8192 records.
        [low, middle, high, ref rest @ ..] if high < MORE => {
            *bytes = rest;
            u32::from(low & !MORE) | u32::from(middle & !MORE) << 7 | u32::from(high) << 14
        }
        _ => u32::try_from(long(bytes)?).ok()?,
    };
    Some((plain >> 1) as i32 ^ -((plain & 1) as i32))
}

/// Takes an `int64` off the front.
#[inline(always)]
pub(super) fn long_int(bytes: &mut &[u8]) -> Option<i64> {
    let plain = match **bytes {
        [low, ref rest @ ..] if low < MORE => {
            *bytes = rest;
            u64::from(low)
        }
        [low, high, ref rest @ ..] if high < MORE => {
            *bytes = rest;
            u64::from(low & !MORE) | u64::from(high) << 7
        }
        _ => long(bytes)?,
    };
    Some((plain >> 1) as i64 ^ -((plain & 1) as i64))
}

/// Takes a length and that many bytes off the front; a length of -1 is `None` inside, any other negative one none at all.
#[inline(always)]
pub(super) fn nullable<'b>(bytes: &mut &'b [u8]) -> Option<Option<&'b [u8]>> {
    match int(bytes)? {
        -1 => Some(None),
        length => {
            let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
            *bytes = rest;
            Some(Some(taken))
        }
    }
}

/// The bit that says that another byte follows.
const MORE: u8 = 0x80;

#[cold]
fn long(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & !MORE);
        let shifted = bits << (7 * index);
        if shifted >> (7 * index) != bits {
            return None;
        }
        number |= shifted;
        if byte & MORE == 0 {
            *bytes = &bytes[index + 1..];
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(mut plain: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while plain >= 0x80 {
            bytes.push(plain as u8 | MORE);
            plain >>= 7;
        }
        bytes.push(plain as u8);
        bytes
    }

    #[test]
    fn numbers_of_every_size_come_back() {
        for shift in 0..64 {
            for number in [i64::MAX >> shift, (i64::MAX >> shift) - 1, i64::MIN >> shift, 1 << shift, 0, -1] {
                let mut bytes = spelled(((number << 1) ^ (number >> 63)) as u64);
                bytes.push(7);
                let mut rest = bytes.as_slice();
                assert_eq!((long_int(&mut rest), rest), (Some(number), &[7][..]));
                let mut rest = bytes.as_slice();
                let narrow = i32::try_from(number).ok();
                assert_eq!(int(&mut rest), narrow, "{number}");
                assert!(narrow.is_none() || rest == [7]);
            }
        }
    }

    #[test]
    fn numbers_without_an_end_or_with_too_many_bits_are_none() {
        for bytes in [&[][..], &[0x80], &[0xff, 0xff], &[0x80; 10], &[0xff; 11]] {
            assert_eq!(long_int(&mut &*bytes), None, "{bytes:x?}");
            assert_eq!(int(&mut &*bytes), None, "{bytes:x?}");
        }
        let too_wide = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(long_int(&mut &too_wide[..]), None);
        assert_eq!(int(&mut &[0xff, 0xff, 0xff, 0xff, 0x10][..]), None);
    }

    #[test]
    fn lengths_are_within_what_is_there() {
        assert_eq!(nullable(&mut &[1][..]), Some(None), "-1 is null");
        assert_eq!(nullable(&mut &[0][..]), Some(Some(&[][..])));
        assert_eq!(nullable(&mut &[4, 8, 9, 10][..]), Some(Some(&[8, 9][..])));
        assert_eq!(nullable(&mut &[3, 8, 9][..]), None, "-2 is nothing");
        assert_eq!(nullable(&mut &[6, 8, 9][..]), None, "three bytes of two");
    }
}
