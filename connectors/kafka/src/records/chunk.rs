//! Records gathered until there are enough of them to be lent.

use tine_trident::source::Record;

use super::{
    DecodeError, Lend,
    headers::{self, Header, Unreadable},
};

/// How many records are lent at a time: enough to spread a call's cost, few enough to stay in the first cache.
const RECORDS_MAX: usize = 256;

/// How many bytes of headers are gathered at a time; a header takes up to 16 times its bytes as long as it is lent.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Records of one buffer on their way to the sink.
pub(super) struct Chunk<'b, 'k> {
    records: Vec<Record<'b>>,
    headers: Option<RawHeaders<'b>>,
    sink: &'k mut Lend<'k>,
}

/// The bytes of the records' headers, in the records' order.
#[derive(Default)]
struct RawHeaders<'b> {
    each: Vec<&'b [u8]>,
    bytes: usize,
}

impl<'b, 'k> Chunk<'b, 'k> {
    pub(super) fn new(headers: bool, sink: &'k mut Lend<'k>) -> Chunk<'b, 'k> {
        Chunk { records: Vec::new(), headers: headers.then(RawHeaders::default), sink }
    }
}

impl<'b> Chunk<'b, '_> {
    /// Adds a record; `headers` are the bytes of its headers.
    #[inline(always)]
    pub(super) fn push(&mut self, record: Record<'b>, headers: &'b [u8]) -> Result<(), DecodeError> {
        if self.records.len() == self.records.capacity() {
            self.make_room()?;
        }
        self.records.push(record);
        match &mut self.headers {
            None => Ok(()),
            Some(_) => self.push_headers(headers),
        }
    }

    #[cold]
    fn make_room(&mut self) -> Result<(), DecodeError> {
        self.flush()?;
        self.records.reserve_exact(RECORDS_MAX);
        Ok(())
    }

    fn push_headers(&mut self, bytes: &'b [u8]) -> Result<(), DecodeError> {
        let Some(headers) = &mut self.headers else { return Ok(()) };
        headers.each.push(bytes);
        headers.bytes += bytes.len();
        if headers.bytes > HEADER_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    /// Lends what was gathered.
    pub(super) fn flush(&mut self) -> Result<(), DecodeError> {
        if self.records.is_empty() {
            return Ok(());
        }
        match &mut self.headers {
            None => (self.sink)(&self.records).map_err(DecodeError::Sink)?,
            Some(headers) => {
                lend_with_headers(&self.records, &headers.each, self.sink)?;
                headers.each.clear();
                headers.bytes = 0;
            }
        }
        self.records.clear();
        Ok(())
    }

    /// A chunk for another buffer and the same sink.
    pub(super) fn beside<'c>(&mut self) -> Chunk<'c, '_> {
        let headers = self.headers.as_ref().map(|_| RawHeaders::default());
        Chunk { records: Vec::new(), headers, sink: &mut *self.sink }
    }
}

fn lend_with_headers(records: &[Record<'_>], raw: &[&[u8]], sink: &mut Lend<'_>) -> Result<(), DecodeError> {
    let (mut all, mut ends) = (Vec::new(), Vec::with_capacity(raw.len()));
    for (record, bytes) in records.iter().zip(raw) {
        headers::parse(bytes, &mut all).map_err(|why| refused(record.position, &why))?;
        ends.push(all.len());
    }
    let lent: Vec<Record<'_>> = with_headers(records, &all, &ends).collect();
    sink(&lent).map_err(DecodeError::Sink)
}

fn with_headers<'c>(
    records: &'c [Record<'c>],
    all: &'c [Header<'c>],
    ends: &'c [usize],
) -> impl Iterator<Item = Record<'c>> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let spans = starts.zip(ends);
    records.iter().zip(spans).map(|(record, (start, end))| Record { headers: &all[start..*end], ..*record })
}

fn refused(offset: u64, why: &Unreadable) -> DecodeError {
    match why {
        Unreadable::Corrupt => DecodeError::Corrupt(format!(
            "the headers of the record at offset {offset} are not what Kafka's format says"
        )),
        Unreadable::Name(index) => {
            DecodeError::Sink(headers::unreadable(offset, &format!("the name of header {index} is not UTF-8")))
        }
        Unreadable::Many(count) => {
            let why =
                format!("there are {count}, and {} are read at most: produce it with fewer", headers::HEADERS_MAX);
            DecodeError::Sink(headers::unreadable(offset, &why))
        }
    }
}
