//! Reads the encoded plan of a transaction, and its hash: `docs/formats.md`, written down a second time.

use xxhash_rust::xxh3::Xxh3;

/// The version byte in front of a plan that this file knows.
const VERSION: u8 = 1;

/// What a transaction holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) txid: u64,
    pub(crate) previous: u128,
    pub(crate) ranges: Vec<Range>,
}

/// A piece of one partition, `[from, to)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) source: u64,
    pub(crate) partition: String,
    pub(crate) incarnation: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Plan {
    /// Reads a plan to its last byte; `Err` says what is wrong with it.
    pub(crate) fn read(bytes: &[u8]) -> Result<Plan, String> {
        let mut rest = Bytes(bytes);
        match rest.byte()? {
            VERSION => {}
            other => return Err(format!("format version {other} is unknown to this binary: run the newer one")),
        }
        let (txid, previous) = (rest.u64()?, rest.number()?);
        let (_time_ms, _seed) = (rest.u64()?, rest.u64()?);
        let count = rest.u64()?;
        // Not reserved: the number may be anything, the bytes behind it end.
        let ranges = (0..count).map(|_| rest.range()).collect::<Result<_, _>>()?;
        match rest.0 {
            [] => Ok(Plan { txid, previous, ranges }),
            more => Err(format!("{} bytes too many", more.len())),
        }
    }
}

/// The chain after a plan: XXH3-128 over the chain before it and its bytes, each behind its length.
pub(crate) fn chain(previous: u128, plan: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    for part in [&previous.to_be_bytes()[..], plan] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest128()
}

/// What is not read yet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.take(1).map(|byte| byte[0])
    }

    /// One byte up to 250, or a mark and 2, 4, 8 or 16 bytes.
    fn number(&mut self) -> Result<u128, String> {
        let length = match self.byte()? {
            small @ ..=250 => return Ok(small.into()),
            251 => 2,
            252 => 4,
            253 => 8,
            254 => 16,
            255 => return Err("a number begins with 255".to_owned()),
        };
        let mut number = [0; 16];
        number[..length].copy_from_slice(self.take(length)?);
        Ok(u128::from_le_bytes(number))
    }

    fn u64(&mut self) -> Result<u64, String> {
        let number = self.number()?;
        u64::try_from(number).map_err(|_| format!("{number} where 64 bits were expected"))
    }

    fn text(&mut self) -> Result<String, String> {
        let length = usize::try_from(self.u64()?).map_err(|_| "a text is too long")?;
        String::from_utf8(self.take(length)?.to_vec()).map_err(|error| error.to_string())
    }

    fn range(&mut self) -> Result<Range, String> {
        let (source, partition, incarnation) = (self.u64()?, self.text()?, self.text()?);
        let (from, to) = (self.u64()?, self.u64()?);
        match self.byte()? {
            0 => {}
            1 => drop(self.u64()?),
            other => return Err(format!("{other} where 0 or 1 was expected")),
        }
        Ok(Range { source, partition, incarnation, from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The golden bytes of docs/formats.md.
    const GOLDEN: [u8; 26] =
        [1, 2, 7, 1, 2, 2, 0, 3, b'a', b'/', b'0', 1, b'i', 3, 9, 0, 0, 3, b'a', b'/', b'1', 1, b'i', 5, 5, 1];

    fn golden() -> Vec<u8> {
        [&GOLDEN[..], &[5]].concat()
    }

    #[test]
    fn the_documented_bytes_are_read() {
        let range = |partition: &str, from, to| Range {
            source: 0,
            partition: partition.to_owned(),
            incarnation: "i".to_owned(),
            from,
            to,
        };
        let plan = Plan { txid: 2, previous: 7, ranges: vec![range("a/0", 3, 9), range("a/1", 5, 5)] };
        assert_eq!(Plan::read(&golden()), Ok(plan));
    }

    #[test]
    fn damaged_bytes_are_errors() {
        let golden = golden();
        for end in 0..golden.len() {
            assert!(Plan::read(&golden[..end]).is_err(), "cut at {end}");
        }
        assert!(Plan::read(&[&golden[..], &[0]].concat()).unwrap_err().contains("too many"));
        let hostile = [1, 2, 7, 1, 2, 253, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(Plan::read(&hostile).is_err());
        for at in 0..golden.len() {
            let mut damaged = golden.clone();
            damaged[at] = 255;
            // Whatever it reads, the chain is another one.
            let _ = Plan::read(&damaged);
            assert_ne!(chain(7, &damaged), chain(7, &golden));
        }
    }

    #[test]
    fn large_numbers_are_read() {
        let bytes = [
            &[1, 253][..],
            &u64::MAX.to_le_bytes(),
            &[254],
            &u128::MAX.to_le_bytes(),
            &[251, 0, 1, 252, 0, 0, 1, 0, 0],
        ];
        let plan = Plan { txid: u64::MAX, previous: u128::MAX, ranges: Vec::new() };
        assert_eq!(Plan::read(&bytes.concat()), Ok(plan));
    }
}
