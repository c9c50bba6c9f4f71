//! Puts a workload into a Kafka topic, once: a topic of the right name and size is used again.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::workload::{Expected, PARTITIONS, Workload};
use crate::report::say;

const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a full producer queue is left to drain before the next try.
const BACKPRESSURE: Duration = Duration::from_millis(5);

/// After `Ok` the topic holds exactly the workload's records.
pub(super) async fn prepare(brokers: &str, workload: &Workload) -> Result<Expected> {
    let topic = workload.topic();
    let probe: BaseConsumer = config(brokers).set("group.id", "tine-bench").create().context("no Kafka consumer")?;
    if is_complete(&probe, workload)? {
        say(format_args!("{topic}: already loaded"));
        return workload.generate(|_, _| Ok(()));
    }
    create(brokers, &topic).await?;
    let started = Instant::now();
    let expected = load(brokers, workload)?;
    ensure!(is_complete(&probe, workload)?, "topic {topic} does not hold what was sent: delete it and start again");
    say(format_args!("{topic}: {} records loaded in {:.1} s", workload.records, started.elapsed().as_secs_f64()));
    Ok(expected)
}

/// `Err` when the topic exists with something else inside.
fn is_complete(probe: &BaseConsumer, workload: &Workload) -> Result<bool> {
    let topic = workload.topic();
    let metadata = probe.fetch_metadata(None, TIMEOUT).context("Kafka does not answer")?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(false) };
    ensure!(found.partitions().len() == PARTITIONS as usize, "topic {topic} has other partitions: delete it");
    for partition in 0..PARTITIONS {
        let (low, high) = probe.fetch_watermarks(&topic, partition, TIMEOUT)?;
        let expected = i64::try_from(workload.records_in(partition))?;
        if (low, high) != (0, expected) {
            bail!(
                "topic {topic}, partition {partition} holds [{low}, {high}) instead of [0, {expected}): delete the topic"
            );
        }
    }
    Ok(true)
}

async fn create(brokers: &str, topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create().context("no Kafka admin client")?;
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let answers = admin.create_topics([&new], &AdminOptions::new().operation_timeout(Some(TIMEOUT))).await?;
    for answer in answers {
        answer.map_err(|(name, code)| anyhow::anyhow!("cannot create topic {name}: {code}"))?;
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
    let expected = workload.generate(|partition, payload| {
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
