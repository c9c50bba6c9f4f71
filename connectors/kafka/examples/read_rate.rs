//! What reading a topic costs: `read_rate native|rdkafka|both HOST:PORT TOPIC [RECORDS_PER_RANGE [KEY=VALUE …]]`.
//!
//! Reads all of the topic as an emitter does (range after range, partition after partition) and prints the records per
//! second, the CPU time per record of the whole process (librdkafka's threads, decompression and checksums included),
//! the largest resident size, and what a poll of the bounds and the proof at a range's end take. `both` reads with one
//! client after the other, in one process, and prints the ratio; settings then must be known to both. Linux only.

#![allow(clippy::print_stdout, reason = "its purpose is to print")]

use std::time::{Duration, Instant};

use tine_core::{
    failure::{Failure, FailureKind},
    hash::Hash128,
    id::TxId,
};
use tine_kafka::{Client, Kafka};
use tine_trident::{
    plan::Plan,
    source::{Horizon, PartitionRange, Reached, Record, Sink, SourceIndex},
};

#[derive(Clone, Default)]
struct Count {
    records: u64,
    bytes: u64,
}

impl Sink for Count {
    fn records(&mut self, chunk: &[Record<'_>]) -> Result<(), Failure> {
        self.records += chunk.len() as u64;
        self.bytes += chunk.iter().filter_map(|record| record.value).map(|value| value.len() as u64).sum::<u64>();
        Ok(())
    }

    fn cancelled(&self) -> bool {
        false
    }
}

const USAGE: &str = "usage: read_rate native|rdkafka|both HOST:PORT TOPIC [RECORDS_PER_RANGE [KEY=VALUE …]]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [client, broker, topic, rest @ ..] = arguments.as_slice() else { return Err(USAGE.into()) };
    let clients: &[Client] = match client.as_str() {
        "native" => &[Client::Native],
        "rdkafka" => &[Client::Rdkafka],
        "both" => &[Client::Rdkafka, Client::Native],
        _ => return Err(USAGE.into()),
    };
    let size: u64 = rest.first().map_or(Ok(50_000), |size| size.parse())?;
    let mut kafka = Kafka::connect(broker);
    for (key, value) in rest.iter().skip(1).filter_map(|setting| setting.split_once('=')) {
        kafka = kafka.set(key, value);
    }
    let mut cost = Vec::new();
    for client in clients {
        println!("{client:?}");
        cost.push(measure(&kafka.clone().client(*client), topic, size)?);
    }
    if let [rdkafka, native] = cost[..] {
        println!("native takes {:.2} of rdkafka's CPU per record", native / rdkafka);
    }
    Ok(())
}

/// Nanoseconds of CPU per record.
fn measure(kafka: &Kafka, topic: &str, size: u64) -> Result<f64, Box<dyn std::error::Error>> {
    let source = kafka.topic(topic).bytes().source;
    let mut bounds = source.bounds()?;
    let partitions = bounds.poll(Horizon::Now, &Reached::nothing())?;
    let mut reader = source.reader()?;

    let (started, cpu) = (Instant::now(), cpu_s()?);
    let (mut count, mut ranges, mut again) = (Count::default(), 0, 0);
    let mut at: Vec<u64> = partitions.iter().map(|bounds| bounds.start).collect();
    while at.iter().zip(&partitions).any(|(at, bounds)| *at < bounds.end) {
        for (at, bounds) in at.iter_mut().zip(&partitions) {
            let to = bounds.end.min(*at + size);
            // As a topology does: what could not be read now is read again, and counts once.
            let mut tried = count.clone();
            while let Err(failure) = reader.read(&range(bounds, *at, to), &mut tried) {
                if failure.kind != FailureKind::Transient || Instant::now() > started + Duration::from_secs(120) {
                    return Err(failure.into());
                }
                tried = count.clone();
                again += 1;
            }
            (*at, count, ranges) = (to, tried, ranges + 1);
        }
    }
    let (wall, cpu) = (started.elapsed(), cpu_s()? - cpu);
    let cost = cpu * 1e9 / count.records as f64;
    println!(
        "{} records of {:.1} bytes in {ranges} ranges ({again} read again): {:.2} M/s, {:.0} ns of CPU each, {} MB resident at most",
        count.records,
        count.bytes as f64 / count.records as f64,
        count.records as f64 / wall.as_secs_f64() / 1e6,
        cost,
        peak_mb()?,
    );

    let empty = range(&partitions[0], partitions[0].end, partitions[0].end);
    let proof = spread(|| reader.read(&empty, &mut Count::default()))?;
    let planned = Plan { txid: TxId(1), previous: Hash128(0), time_ms: 0, seed: 0, ranges: vec![empty] }.ends();
    let reached = Reached::new(SourceIndex(0), &planned);
    let poll = spread(|| bounds.poll(Horizon::Now, &reached).map(drop))?;
    let start = spread(|| {
        let from = partitions[0].low;
        reader.read(&range(&partitions[0], from, from + 1), &mut Count::default())
    })?;
    println!("proof of a range's end {proof}; poll of all bounds {poll}; one record elsewhere {start}");

    let (started, cpu) = (Instant::now(), cpu_s()?);
    std::thread::sleep(Duration::from_secs(2));
    let idle = (cpu_s()? - cpu) / started.elapsed().as_secs_f64();
    println!("fetching at the end with nothing to do: {:.1} % of a core", idle * 100.0);
    Ok(cost)
}

fn range(bounds: &tine_trident::source::PartitionBounds, from: u64, to: u64) -> PartitionRange {
    let (partition, incarnation) = (bounds.partition.clone(), bounds.incarnation.clone());
    PartitionRange { source: SourceIndex(0), partition, incarnation, from, to, closed_at: None }
}

/// Median and 99th percentile of 200 calls.
fn spread(mut call: impl FnMut() -> Result<(), Failure>) -> Result<String, Failure> {
    let mut times = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        call()?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(format!("{:.2?} (p99 {:.2?})", times[100], times[198]))
}

/// User and system time of the process, in seconds.
fn cpu_s() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn peak_mb() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no VmHWM")?.parse::<u64>()? / 1024)
}
