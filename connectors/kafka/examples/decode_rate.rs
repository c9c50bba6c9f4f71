//! What decoding record batches costs, without a broker: `decode_rate [ROUNDS [VALUE_BYTES [PER_BATCH [CODEC]]]]`.
//!
//! Makes a response of 1 MB for each codec and decodes it ROUNDS times (default 200), checksum included, lending all
//! records to a sink that looks at each one. Prints ns per record, the best of the rounds; and what passing over a record
//! costs, when a range begins late in a batch. Instructions per record are the difference of two runs with other rounds:
//! `valgrind --tool=callgrind target/release/examples/decode_rate 5 12 1000 none`.

#![allow(clippy::print_stdout, reason = "its purpose is to print")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, NO_PRODUCER_ID, Record as Sent, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use records::{DecodeError, Decoder, Limits, Wanted};

#[allow(dead_code, unreachable_pub, reason = "the module as the connector has it")]
#[path = "../src/records/mod.rs"]
mod records;

const SET_BYTES: usize = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |given| given.parse());
    let (rounds, value_bytes, per_batch) = (number(200)?, number(12)?, number(1000)?);
    let chosen = std::env::args().nth(4);
    println!("values of {value_bytes} bytes, {per_batch} records in a batch, best of {rounds} rounds");
    for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        if chosen.as_ref().is_some_and(|chosen| !format!("{codec:?}").eq_ignore_ascii_case(chosen)) {
            continue;
        }
        let (set, records) = response(codec, value_bytes, per_batch)?;
        let all = best(rounds, || decode(&set, 0, records))?;
        let none = best(rounds, || decode(&set[..first_batch(&set)], per_batch as u64 - 1, records))?;
        println!(
            "{codec:?}: {records} records in {} bytes; lent {:.1} ns each, passed over {:.1} ns each",
            set.len(),
            all.as_nanos() as f64 / records as f64,
            none.as_nanos() as f64 / per_batch as f64,
        );
    }
    Ok(())
}

fn decode(set: &[u8], from: u64, to: u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut decoder = Decoder::new(Limits { batch_bytes_max: 64 << 20 });
    decoder.begin(Vec::new());
    let (mut lent, mut bytes) = (0, 0);
    let progress = decoder.decode(set, &Wanted { from, to, headers: false }, &mut |chunk| {
        lent += chunk.len() as u64;
        bytes += chunk.iter().map(|record| record.value.map_or(0, <[u8]>::len)).sum::<usize>();
        Ok(())
    });
    black_box(bytes);
    match progress {
        Ok(progress) if progress.next - from == lent => Ok(()),
        Ok(progress) => Err(format!("{lent} records up to {}", progress.next).into()),
        Err(DecodeError::Corrupt(why)) => Err(why.into()),
        Err(DecodeError::Sink(failure)) => Err(failure.into()),
    }
}

/// Batches of about a megabyte, and how many records are in them.
fn response(
    codec: Compression,
    value_bytes: usize,
    per_batch: usize,
) -> Result<(Vec<u8>, u64), Box<dyn std::error::Error>> {
    let (mut set, mut offset) = (BytesMut::new(), 0);
    while set.len() < SET_BYTES {
        let records: Vec<Sent> = (0..per_batch as i64).map(|n| record(offset + n, value_bytes)).collect();
        RecordBatchEncoder::encode(&mut set, &records, &RecordEncodeOptions { version: 2, compression: codec })?;
        offset += per_batch as i64;
    }
    Ok((set.to_vec(), offset as u64))
}

fn record(offset: i64, value_bytes: usize) -> Sent {
    let mut value = format!("w{}", offset.wrapping_mul(0x9E37_79B9) & 0xffff).into_bytes();
    value.resize(value_bytes, b'.');
    Sent {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: offset as i32,
        timestamp: 1_790_000_000_000 + offset / 100,
        key: None,
        value: Some(Bytes::from(value)),
        headers: Default::default(),
    }
}

fn first_batch(set: &[u8]) -> usize {
    12 + set[8..12].iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

fn best(
    rounds: usize,
    mut run: impl FnMut() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Duration, Box<dyn std::error::Error>> {
    let mut best = Duration::MAX;
    for _ in 0..rounds {
        let started = Instant::now();
        run()?;
        best = best.min(started.elapsed());
    }
    Ok(best)
}
