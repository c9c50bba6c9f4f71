//! Sets of batches with what is in them: made by the encoder of the crate `kafka-protocol`, or byte by byte.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    indexmap::IndexMap,
    protocol::StrBytes,
    records::{Compression, Record as Sent, RecordBatchEncoder, RecordEncodeOptions, TimestampType},
};
use proptest::prelude::*;

use crate::records::{Aborted, DecodeError, Decoder, Limits, Progress, Record, Wanted};

pub(super) const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

pub(super) const LIMITS: Limits = Limits { batch_bytes_max: 1 << 20 };

/// A record with bytes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) position: u64,
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Kept {
    pub(super) fn of(record: &Record<'_>) -> Kept {
        let own = |bytes: &[u8]| bytes.to_vec();
        Kept {
            position: record.position,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(own),
            value: record.value.map(own),
            headers: record.headers.iter().map(|(name, value)| (name.to_string(), value.map(own))).collect(),
        }
    }

    pub(super) fn text(position: u64, value: &str) -> Kept {
        let value = Some(value.as_bytes().to_vec());
        Kept { position, timestamp_ms: 1_000 + position as i64, key: None, value, headers: Vec::new() }
    }
}

/// Decodes and keeps everything; checks what holds for every decode.
pub(super) fn decode(decoder: &mut Decoder, set: &[u8], wanted: Wanted) -> (Vec<Kept>, Result<Progress, DecodeError>) {
    let mut kept: Vec<Kept> = Vec::new();
    let mut next = wanted.from;
    let progress = decoder.decode(set, &wanted, &mut |records| {
        assert!(!records.is_empty() && records.len() <= 256, "a chunk of {}", records.len());
        for record in records {
            assert!(next <= record.position && record.position < wanted.to, "{} in {wanted:?}", record.position);
            next = record.position + 1;
            kept.push(Kept::of(record));
        }
        Ok(())
    });
    if let Ok(progress) = &progress {
        assert!(progress.next <= wanted.to && progress.consumed <= set.len(), "{progress:?} of {wanted:?}");
        assert!(kept.is_empty() || next <= progress.next, "what was lent lies below {progress:?}");
    }
    (kept, progress)
}

/// All records of a response.
pub(super) fn decode_all(set: &[u8], aborted: Vec<Aborted>) -> (Vec<Kept>, Result<Progress, DecodeError>) {
    let mut decoder = Decoder::new(LIMITS);
    decoder.begin(aborted);
    decode(&mut decoder, set, Wanted { from: 0, to: u64::MAX, headers: true })
}

/// What is in a batch beside its records.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub(super) codec: Compression,
    /// -1 for none.
    pub(super) producer: i64,
    pub(super) transactional: bool,
    /// Whether the broker gave the timestamps.
    pub(super) append_time: bool,
    /// Offsets after the last record that compaction has emptied.
    pub(super) gone: i32,
}

impl Kind {
    pub(super) fn plain(codec: Compression) -> Kind {
        Kind { codec, producer: -1, transactional: false, append_time: false, gone: 0 }
    }

    pub(super) fn transactional(producer: i64) -> Kind {
        Kind { producer, transactional: true, ..Kind::plain(Compression::None) }
    }
}

/// The bytes of a batch with these records.
pub(super) fn batch(kind: &Kind, records: &[Kept]) -> Vec<u8> {
    let sent: Vec<Sent> = records.iter().map(|record| sent(kind, record, false)).collect();
    let mut bytes = encoded(kind.codec, &sent);
    edit(&mut bytes, |bytes| {
        if kind.append_time {
            bytes[22] |= 1 << 3;
        }
        let last = i32::from_be_bytes(bytes[23..27].try_into().expect("four")) + kind.gone;
        bytes[23..27].copy_from_slice(&last.to_be_bytes());
    });
    bytes
}

/// A batch that ends a transaction.
pub(super) fn marker(offset: u64, producer: i64, commit: bool) -> Vec<u8> {
    let mut record = Kept::text(offset, "\0\0\0\0\0\0");
    record.key = Some(vec![0, 0, 0, u8::from(commit)]);
    encoded(Compression::None, &[sent(&Kind::transactional(producer), &record, true)])
}

/// A batch whose records compaction has all taken away, as the broker keeps it.
pub(super) fn empty(base: u64, last_delta: i32, producer: i64) -> Vec<u8> {
    head(base, 0, last_delta, producer, 0, &[])
}

/// A batch of given parts.
pub(super) fn head(base: u64, attributes: i16, last_delta: i32, producer: i64, count: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = (base as i64).to_be_bytes().to_vec();
    bytes.extend((body.len() as i32 + 49).to_be_bytes());
    bytes.extend([0, 0, 0, 0, 2, 0, 0, 0, 0]);
    bytes.extend(attributes.to_be_bytes());
    bytes.extend(last_delta.to_be_bytes());
    bytes.extend([0; 16]);
    bytes.extend(producer.to_be_bytes());
    bytes.extend([0; 6]);
    bytes.extend(count.to_be_bytes());
    bytes.extend(body);
    edit(&mut bytes, |_| {});
    bytes
}

/// Changes a batch and makes its checksum right again.
pub(super) fn edit(bytes: &mut [u8], change: impl FnOnce(&mut [u8])) {
    change(bytes);
    let crc = crc_bit_by_bit(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// CRC-32C as it is defined: an oracle that is slow and obvious.
pub(super) fn crc_bit_by_bit(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82F6_3B78 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fn encoded(codec: Compression, records: &[Sent]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: codec };
    RecordBatchEncoder::encode(&mut bytes, records, &options).expect("an encoded batch");
    bytes.to_vec()
}

fn sent(kind: &Kind, record: &Kept, control: bool) -> Sent {
    let bytes = |bytes: &Vec<u8>| Bytes::from(bytes.clone());
    let header =
        |(name, value): &(String, Option<Vec<u8>>)| (StrBytes::from_string(name.clone()), value.as_ref().map(bytes));
    Sent {
        transactional: kind.transactional,
        control,
        delete_horizon: false,
        partition_leader_epoch: 7,
        producer_id: kind.producer,
        producer_epoch: 0,
        timestamp_type: TimestampType::Creation,
        offset: record.position as i64,
        // The encoder begins a new batch where offset and sequence part.
        sequence: record.position as i32,
        timestamp: record.timestamp_ms,
        key: record.key.as_ref().map(bytes),
        value: record.value.as_ref().map(bytes),
        headers: record.headers.iter().map(header).collect::<IndexMap<_, _>>(),
    }
}

/// A response: what the broker would send, and what of it a consumer of committed records may see.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) set: Vec<u8>,
    pub(super) aborted: Vec<Aborted>,
    /// For each batch: where its bytes end, the offset after it, and its visible records.
    pub(super) batches: Vec<(usize, u64, Vec<Kept>)>,
}

impl Response {
    pub(super) fn visible(&self) -> impl Iterator<Item = &Kept> {
        self.batches.iter().flat_map(|(.., records)| records)
    }

    pub(super) fn next(&self) -> u64 {
        self.batches.last().map_or(0, |(_, next, _)| *next)
    }
}

/// What is to be made of a batch.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Data {
        kind: Kind,
        records: Vec<Shape>,
        skipped: u64,
    },
    /// Ends the transaction of the producer, if one is open.
    End {
        producer: i64,
        commit: bool,
    },
    Empty {
        producer: i64,
        last_delta: i32,
    },
}

/// A record without its place.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    record: Kept,
    /// Offsets before it that compaction has emptied.
    skipped: u64,
}

/// Makes a log of all parts, and a response that begins with the batch `first`.
pub(super) fn response(parts: &[Part], first: usize) -> Response {
    let mut log = Log::default();
    for part in parts {
        log.append(part);
    }
    for producer in log.open.keys().copied().collect::<Vec<_>>() {
        log.append(&Part::End { producer, commit: producer % 2 == 0 });
    }
    log.response(first)
}

#[derive(Default)]
struct Log {
    next: u64,
    /// Bytes, the offset after it, its records.
    batches: Vec<(Vec<u8>, u64, Vec<Kept>)>,
    /// First offset and batches of each producer's open transaction.
    open: std::collections::BTreeMap<i64, (u64, Vec<usize>)>,
    /// Each aborted transaction and the index of its marker.
    aborted: Vec<(Aborted, usize)>,
}

impl Log {
    fn append(&mut self, part: &Part) {
        let base = self.next;
        match part {
            Part::Data { kind, records, skipped } => {
                let base = base + skipped;
                let records = placed(base, records);
                let Some(last) = records.last() else { return };
                self.next = last.position + 1 + kind.gone as u64;
                if kind.transactional {
                    let (_, batches) = self.open.entry(kind.producer).or_insert((records[0].position, Vec::new()));
                    batches.push(self.batches.len());
                }
                let bytes = batch(kind, &records);
                let latest = records.iter().map(|record| record.timestamp_ms).max().unwrap_or(0);
                let stamp = |record: Kept| match kind.append_time {
                    true => Kept { timestamp_ms: latest, ..record },
                    false => record,
                };
                self.batches.push((bytes, self.next, records.into_iter().map(stamp).collect()));
            }
            Part::End { producer, commit } => {
                let Some((first, batches)) = self.open.remove(producer) else { return };
                if !commit {
                    let aborted = Aborted { producer_id: *producer, first_offset: first as i64 };
                    self.aborted.push((aborted, self.batches.len()));
                    batches.iter().for_each(|index| self.batches[*index].2.clear());
                }
                self.next = base + 1;
                self.batches.push((marker(base, *producer, *commit), self.next, Vec::new()));
            }
            Part::Empty { producer, last_delta } => {
                self.next = base + *last_delta as u64 + 1;
                self.batches.push((empty(base, *last_delta, *producer), self.next, Vec::new()));
            }
        }
    }

    fn response(self, first: usize) -> Response {
        let first = first.min(self.batches.len());
        let aborted = self.aborted.iter().filter(|(_, marker)| *marker >= first).map(|(aborted, _)| *aborted).collect();
        let (mut set, mut batches) = (Vec::new(), Vec::new());
        for (bytes, next, records) in &self.batches[first..] {
            set.extend(bytes);
            batches.push((set.len(), *next, records.clone()));
        }
        Response { set, aborted, batches }
    }
}

fn placed(base: u64, shapes: &[Shape]) -> Vec<Kept> {
    let mut next = base;
    let place = |shape: &Shape| {
        // The encoder makes the first record's offset the base.
        let position = if next == base { base } else { next + shape.skipped };
        next = position + 1;
        Kept { position, ..shape.record.clone() }
    };
    shapes.iter().map(place).collect()
}

pub(super) fn any_response() -> impl Strategy<Value = Response> {
    (prop::collection::vec(any_part(), 1..12), 0_usize..4).prop_map(|(parts, first)| response(&parts, first))
}

fn any_part() -> impl Strategy<Value = Part> {
    prop_oneof![
        6 => (any_kind(), prop::collection::vec(any_shape(), 1..40), few()).prop_map(|(kind, records, skipped)| Part::Data { kind, records, skipped }),
        3 => (0_i64..3, any::<bool>()).prop_map(|(producer, commit)| Part::End { producer, commit }),
        1 => (-1_i64..3, 0_i32..9).prop_map(|(producer, last_delta)| Part::Empty { producer, last_delta }),
        1 => any_kind().prop_map(|kind| {
            let record = |n: u64| Shape { record: Kept::text(n, "one of many"), skipped: 0 };
            Part::Data { kind, records: (0..600).map(record).collect(), skipped: 0 }
        }),
    ]
}

fn any_kind() -> impl Strategy<Value = Kind> {
    // Producers 0 to 2 write in transactions, 3 is only idempotent.
    (prop::sample::select(&CODECS[..]), -1_i64..4, any::<bool>(), few()).prop_map(
        |(codec, producer, append_time, gone)| {
            let transactional = (0..3).contains(&producer);
            Kind { codec, producer, transactional, append_time, gone: gone as i32 }
        },
    )
}

fn few() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0), 1 => 1_u64..200]
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let some = || prop::option::weighted(0.8, prop_oneof![9 => any_bytes(0..40), 1 => any_bytes(60..300)]);
    let header = ("[a-zé]{0,6}", prop::option::of(any_bytes(0..9)));
    let headers = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::btree_map(header.0, header.1, 0..4)
        .prop_map(|map| map.into_iter().collect::<Vec<_>>())];
    let time = prop_oneof![8 => 1_700_000_000_000_i64..1_700_000_100_000, 1 => Just(-1), 1 => 0_i64..1 << 40];
    (some(), some(), headers, time, few()).prop_map(|(key, value, headers, timestamp_ms, skipped)| Shape {
        record: Kept { position: 0, timestamp_ms, key, value, headers },
        skipped,
    })
}

fn any_bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), length)
}

#[test]
fn the_oracle_of_checksums_knows_the_published_value() {
    assert_eq!(crc_bit_by_bit(b"123456789"), 0xE306_9283);
}
