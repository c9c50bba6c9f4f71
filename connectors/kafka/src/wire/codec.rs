//! Kafka's wire format: numbers, texts, arrays and tagged fields, written and read.
//!
//! What comes from a socket is a claim. Every length is compared with the bytes that are there before anything is
//! believed or allocated: an array of a billion elements in an answer of a hundred bytes is [`Malformed`].

/// An answer that is not what Kafka's protocol says: what was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

pub(crate) type Read<T> = Result<T, Malformed>;

/// Reads from a message, front to back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Take<'b> {
    all: &'b [u8],
    at: usize,
}

impl<'b> Take<'b> {
    pub(crate) fn new(message: &'b [u8]) -> Take<'b> {
        Take { all: message, at: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.all.len() - self.at
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Read<&'b [u8]> {
        let rest = &self.all[self.at..];
        let bytes = rest.get(..count).ok_or(Malformed("a field that ends after the message"))?;
        self.at += count;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut fixed = [0; N];
        fixed.copy_from_slice(self.bytes(N)?);
        Ok(fixed)
    }

    pub(crate) fn flag(&mut self) -> Read<bool> {
        Ok(self.fixed::<1>()? != [0])
    }

    pub(crate) fn i16(&mut self) -> Read<i16> {
        self.fixed().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Read<i32> {
        self.fixed().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Read<i64> {
        self.fixed().map(i64::from_be_bytes)
    }

    pub(crate) fn uuid(&mut self) -> Read<[u8; 16]> {
        self.fixed()
    }

    /// An unsigned number of one to five bytes.
    pub(crate) fn varint(&mut self) -> Read<u32> {
        let mut value = 0;
        for shift in (0..5).map(|byte| byte * 7) {
            let [byte] = self.fixed()?;
            let bits = u32::from(byte & 0x7f);
            if bits.leading_zeros() < shift {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number of more than 32 bits"))
    }

    /// Compact bytes, or `None` for null.
    pub(crate) fn blob(&mut self) -> Read<Option<&'b [u8]>> {
        match self.varint()? {
            0 => Ok(None),
            more => self.bytes(more as usize - 1).map(Some),
        }
    }

    /// A compact text, or `None` for null.
    pub(crate) fn text(&mut self) -> Read<Option<&'b str>> {
        self.blob()?.map(utf8).transpose()
    }

    /// A text of the old, inflexible messages.
    pub(crate) fn old_text(&mut self) -> Read<&'b str> {
        let len = usize::try_from(self.i16()?).map_err(|_| Malformed("a text of negative length"))?;
        utf8(self.bytes(len)?)
    }

    /// How many elements a compact array has; none when it is null. Each takes at least `least` bytes.
    pub(crate) fn count(&mut self, least: usize) -> Read<usize> {
        let count = (self.varint()? as usize).saturating_sub(1);
        self.believable(count, least)
    }

    /// As [`count`](Take::count), of the old messages.
    pub(crate) fn old_count(&mut self, least: usize) -> Read<usize> {
        let count = usize::try_from(self.i32()?).unwrap_or(0);
        self.believable(count, least)
    }

    fn believable(&self, count: usize, least: usize) -> Read<usize> {
        let fits = count <= self.left() / least.max(1);
        if fits { Ok(count) } else { Err(Malformed("an array longer than its message")) }
    }

    /// The tagged fields at the end of a structure: `each` sees those that it may know.
    pub(crate) fn tags(&mut self, mut each: impl FnMut(u32, &mut Take<'b>) -> Read<()>) -> Read<()> {
        for _ in 0..self.varint()? {
            let (tag, len) = (self.varint()?, self.varint()?);
            each(tag, &mut Take::new(self.bytes(len as usize)?))?;
        }
        Ok(())
    }

    /// Tagged fields of which none is of interest.
    pub(crate) fn skip_tags(&mut self) -> Read<()> {
        self.tags(|_, _| Ok(()))
    }
}

fn utf8(bytes: &[u8]) -> Read<&str> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a text that is not UTF-8"))
}

/// Writes a message behind what is there.
#[derive(Debug)]
pub(crate) struct Put<'v>(&'v mut Vec<u8>);

impl<'v> Put<'v> {
    pub(crate) fn new(out: &'v mut Vec<u8>) -> Put<'v> {
        Put(out)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn flag(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    pub(crate) fn i8(&mut self, value: i8) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Compact bytes.
    pub(crate) fn blob(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes(bytes);
    }

    /// A compact text.
    pub(crate) fn text(&mut self, text: &str) {
        self.blob(text.as_bytes());
    }

    /// A text of the old, inflexible messages; what is longer than they can say is cut, which only names of ours can be.
    pub(crate) fn old_text(&mut self, text: &str) {
        let text = &text.as_bytes()[..text.len().min(i16::MAX as usize)];
        self.i16(text.len() as i16);
        self.bytes(text);
    }

    /// The length of a compact array.
    pub(crate) fn count(&mut self, count: usize) {
        self.varint(count + 1);
    }

    /// No tagged fields.
    pub(crate) fn no_tags(&mut self) {
        self.0.push(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_beyond_the_message_are_refused() {
        assert!(Take::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).count(1).is_err());
        assert!(Take::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2]).blob().is_err());
        assert!(Take::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint().is_err());
        assert!(Take::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]).varint().is_err());
        assert!(Take::new(&[0x7f, 0xff, 0xff, 0xff]).old_count(4).is_err());
        assert!(Take::new(&[3, 0xff, 0xff]).text().is_err());
    }

    #[test]
    fn null_is_nothing() {
        let mut take = Take::new(&[0, 0, 0]);
        assert_eq!((take.blob(), take.text(), take.count(9)), (Ok(None), Ok(None), Ok(0)));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(number: u32, text in ".{0,40}", bytes: Vec<u8>) {
            let mut out = Vec::new();
            let mut put = Put::new(&mut out);
            put.varint(number as usize);
            put.text(&text);
            put.old_text(&text);
            put.blob(&bytes);
            put.no_tags();
            let mut take = Take::new(&out);
            prop_assert_eq!(take.varint().unwrap(), number);
            prop_assert_eq!(take.text().unwrap(), Some(text.as_str()));
            prop_assert_eq!(take.old_text().unwrap(), text.as_str());
            prop_assert_eq!(take.blob().unwrap(), Some(&bytes[..]));
            take.skip_tags().unwrap();
            prop_assert_eq!(take.at(), out.len());
        }
    }
}
