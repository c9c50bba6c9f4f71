//! Puts a workload into a Kafka topic, once: a topic of the right name and size is used again.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::task::spawn_blocking;

use crate::report::say;
use crate::workload::{Expected, Workload};

const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a full producer queue is left to drain before the next try.
const BACKPRESSURE: Duration = Duration::from_millis(5);

const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// After `Ok` the topic holds exactly the workload's records.
pub(super) async fn prepare(brokers: String, workload: Workload) -> Result<Expected> {
    let (complete, brokers) =
        spawn_blocking(move || anyhow::Ok((is_complete(&brokers, &workload)?, brokers))).await??;
    if complete {
        say(format_args!("{}: already loaded", workload.topic()));
        return spawn_blocking(move || workload.generate(|_, _| Ok(()))).await?;
    }
    create(&brokers, &workload.topic(), workload.partitions).await?;
    say(format_args!("{}: loading {} records", workload.topic(), workload.records));
    spawn_blocking(move || fill(&brokers, &workload)).await?
}

fn fill(brokers: &str, workload: &Workload) -> Result<Expected> {
    let (topic, started) = (workload.topic(), Instant::now());
    let expected = load(brokers, workload)?;
    ensure!(is_complete(brokers, workload)?, "topic {topic} is gone: did somebody delete it?");
    say(format_args!("{topic}: {} records loaded in {:.1} s", workload.records, started.elapsed().as_secs_f64()));
    Ok(expected)
}

/// Whether the topic exists; `Err` when there is something else inside.
fn is_complete(brokers: &str, workload: &Workload) -> Result<bool> {
    let topic = workload.topic();
    let probe: BaseConsumer = config(brokers).set("group.id", "tine-bench").create().context("no Kafka consumer")?;
    let metadata = probe.fetch_metadata(None, TIMEOUT).with_context(|| format!("no Kafka at {brokers}"))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(false) };
    ensure!(found.partitions().len() == workload.partitions as usize, "topic {topic} has other partitions: delete it");
    for partition in 0..workload.partitions {
        let (low, high) = probe.fetch_watermarks(&topic, partition, TIMEOUT)?;
        let expected = i64::try_from(workload.records_in(partition))?;
        ensure!(
            (low, high) == (0, expected),
            "topic {topic}, partition {partition} holds [{low}, {high}) instead of [0, {expected}): delete the topic"
        );
    }
    Ok(true)
}

/// Makes an empty topic.
pub(crate) async fn create(brokers: &str, topic: &str, partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create().context("no Kafka admin client")?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let answers = admin.create_topics([&new], &AdminOptions::new().operation_timeout(Some(TIMEOUT))).await?;
    for answer in answers {
        answer.map_err(|(name, code)| anyhow!("cannot create topic {name}: {code}"))?;
    }
    Ok(())
}

fn load(brokers: &str, workload: &Workload) -> Result<Expected> {
    let producer: BaseProducer = config(brokers)
        // A retry must not write a record twice: the count is compared to the last one.
        .set("enable.idempotence", "true")
        // Success is seen in the watermarks; an event for each record would cost more than sending it.
        .set("delivery.report.only.error", "true")
        .set("linger.ms", "50")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "100000")
        .set("queue.buffering.max.messages", "500000")
        .create()
        .context("no Kafka producer")?;
    let topic = workload.topic();
    let (mut sent, mut said) = (0_u64, Instant::now());
    let expected = workload.generate(|partition, payload| {
        sent += 1;
        if said.elapsed() > PROGRESS_EVERY {
            said = Instant::now();
            say(format_args!("{topic}: {} % loaded", sent * 100 / workload.records));
        }
        let mut record = BaseRecord::<(), [u8]>::to(&topic).partition(partition).payload(payload);
        while let Err((error, back)) = producer.send(record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(error).with_context(|| format!("cannot write to topic {topic}"));
            }
            thread::sleep(BACKPRESSURE);
            record = back;
        }
        Ok(())
    })?;
    producer.flush(Duration::from_secs(120)).with_context(|| format!("topic {topic} was not written in time"))?;
    Ok(expected)
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}
