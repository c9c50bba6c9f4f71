//! Leaders move between two brokers, in good order and by force, while records are written and read.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::consumer::{BaseConsumer, Consumer};
use tine_kafka::{Client, Kafka};
use tine_tests::services::{Kafka as Broker, kafka::CLUSTER_ID};

use crate::{
    both::{CLIENTS, bounds_at, range, read, reader, source},
    brokers::{Admin, DEADLINE, NewOne, config, eventually, start},
    writers::{Content, Writer},
};

const PARTITIONS: i32 = 6;
const TOPIC: &str = "moving";
/// The second broker's id.
const OTHER: i32 = 2;
/// Records that both readers must have got past between two moves.
const BETWEEN: u64 = 2_000;

const BROKER: &[(&str, &str)] = &[
    (CLUSTER_ID, "equalityOfBothClientsA"),
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
    // Leaders go back to where they were as soon as that broker is there again.
    ("leader.imbalance.check.interval.seconds", "1"),
    ("leader.imbalance.per.broker.percentage", "0"),
];

#[test]
fn leaders_that_move_while_a_topic_is_read_lose_and_double_nothing() {
    let Some(one) = start(BROKER) else { return };
    let mut other = one.start_beside(&BROKER[1..]).expect("a second broker");
    let brokers = format!("{},{}", one.address(), other.address());
    let admin = Admin::new(&one.address());
    admin.create(&[NewOne { name: TOPIC.into(), partitions: PARTITIONS, settings: Vec::new() }], 2);
    let led = Leaders::of(&one);
    eventually("the second broker to lead some", || (led.by(OTHER) > 0).then_some(()));

    let ended = AtomicBool::new(false);
    let written = Mutex::new(vec![Vec::new(); PARTITIONS as usize]);
    let got = [AtomicU64::new(0), AtomicU64::new(0)];
    std::thread::scope(|scope| {
        scope.spawn(|| write(&brokers, &ended, &written));
        for (client, got) in CLIENTS.into_iter().zip(&got) {
            let (brokers, ended, written) = (&brokers, &ended, &written);
            scope.spawn(move || {
                let found = read_along(brokers, client, ended, written, got);
                compare(client, &found, &written.lock().expect("no panic before"));
            });
        }
        let _end = EndAtLast(&ended);
        let read_on = || {
            let count = || got.each_ref().map(|got| got.load(Ordering::Relaxed));
            let (before, mut looks) = (count(), 0);
            eventually("both clients to read on", || {
                looks += 1;
                if looks % 200 == 0 {
                    eprintln!("waiting for {CLIENTS:?} to read on: {:?} records, {before:?} before", count());
                }
                count().iter().zip(before).all(|(now, before)| *now > before + BETWEEN).then_some(())
            });
        };
        read_on();
        for end in [Broker::stop, Broker::kill] {
            end(&mut other).expect("ended");
            eventually("the leaders to move away", || (led.by(OTHER) == 0).then_some(()));
            read_on();
            other.restart().expect("started again");
            eventually("the leaders to come back", || (led.by(OTHER) > 0).then_some(()));
            read_on();
        }
        // One that stands still and does not know that others lead now.
        other.pause().expect("paused");
        eventually("the leaders to move away", || (led.by(OTHER) == 0).then_some(()));
        read_on();
        other.resume().expect("resumed");
        eventually("the leaders to come back", || (led.by(OTHER) > 0).then_some(()));
        read_on();
    });
}

/// Lets the other threads end, whatever happens to this one.
struct EndAtLast<'e>(&'e AtomicBool);

impl Drop for EndAtLast<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Who leads the topic's partitions, as the first broker says.
struct Leaders(BaseConsumer);

impl Leaders {
    fn of(broker: &Broker) -> Leaders {
        Leaders(config(&broker.address()).create().expect("a client"))
    }

    fn by(&self, broker: i32) -> usize {
        let Ok(metadata) = self.0.fetch_metadata(Some(TOPIC), Duration::from_secs(5)) else { return usize::MAX };
        metadata.topics()[0].partitions().iter().filter(|partition| partition.leader() == broker).count()
    }
}

fn write(brokers: &str, ended: &AtomicBool, written: &Mutex<Vec<Vec<Content>>>) {
    let writer = Writer::new(brokers, &[("acks", "all"), ("compression.type", "lz4")]);
    let mut number = 0_u64;
    while !ended.load(Ordering::Relaxed) {
        let mut written = written.lock().expect("no panic before");
        for _ in 0..50 {
            let partition = (number % PARTITIONS as u64) as usize;
            let value = Some(number.to_string().into_bytes());
            let content = Content { timestamp_ms: 1_700_000_000_000, value, ..Content::default() };
            writer.send(TOPIC, partition as i32, &content);
            written[partition].push(content);
            number += 1;
        }
        drop(written);
        std::thread::sleep(Duration::from_millis(5));
    }
    writer.flush();
}

/// Reads range after range, up to the end that was seen last: until all that was written is there and nothing more comes,
/// or nothing has come for [`DEADLINE`].
fn read_along(
    brokers: &str,
    client: Client,
    ended: &AtomicBool,
    written: &Mutex<Vec<Vec<Content>>>,
    got: &AtomicU64,
) -> Vec<Vec<Content>> {
    let source = source(Kafka::connect(brokers).client(client).topic(TOPIC));
    let mut found = vec![Vec::new(); PARTITIONS as usize];
    let mut at = vec![0; PARTITIONS as usize];
    let mut reader = reader(&*source);
    let (mut last, mut rounds_after) = (Instant::now(), 0);
    while rounds_after < 20 {
        let before = got.load(Ordering::Relaxed);
        for (partition, bounds) in bounds_at(&*source).iter().enumerate() {
            let end = bounds.end.max(at[partition]);
            let records = read(&mut *reader, &range(bounds, at[partition], end)).expect("records");
            got.fetch_add(records.len() as u64, Ordering::Relaxed);
            found[partition].extend(records.into_iter().map(|record| record.content));
            at[partition] = end;
        }
        let count = got.load(Ordering::Relaxed);
        if count > before {
            last = Instant::now();
        }
        let quiet = ended.load(Ordering::Relaxed) && count == before;
        let all = || count >= written.lock().expect("no panic before").iter().map(|all| all.len() as u64).sum();
        rounds_after = if quiet && (all() || last.elapsed() > DEADLINE) { rounds_after + 1 } else { 0 };
        if quiet {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    found
}

fn compare(client: Client, found: &[Vec<Content>], written: &[Vec<Content>]) {
    for (partition, (found, written)) in found.iter().zip(written).enumerate() {
        let differs = found.iter().zip(written).position(|(found, written)| found != written);
        assert_eq!(differs, None, "{client:?}, partition {partition}: the first record that differs");
        assert_eq!(found.len(), written.len(), "{client:?}, partition {partition}: records");
    }
}
