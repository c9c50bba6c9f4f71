//! A Kafka broker that is its own controller (KRaft), and what tests ask of a broker's topics.
//!
//! [`Kafka`] is a broker of ours that can be broken; [`Broker`] is the client's side of any broker, ours or shared.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use rand::Rng;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::guard::{Guard, Service};
use super::place::{has_jar, java};
use super::{Error, Place, base_folder, tied};
use crate::eventually;

/// How long one question to a broker may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// How long a single look during a start may take: short, because it is repeated.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// A broker of our own.
///
/// [`create_topic`](Broker::create_topic) and the other questions are on [`broker`](Guard::broker).
pub type Kafka = Guard<Kraft>;

impl Guard<Kraft> {
    /// The client's side of this broker.
    pub fn broker(&self) -> Broker {
        Broker::at(self.address())
    }

    /// [`Broker::create_topic`].
    pub async fn create_topic(&self, name: &str, partitions: i32) -> anyhow::Result<()> {
        self.broker().create_topic(name, partitions).await
    }

    /// [`Broker::create_topic_with`].
    pub async fn create_topic_with(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> anyhow::Result<()> {
        self.broker().create_topic_with(name, partitions, config).await
    }

    /// [`Broker::delete_topic`].
    pub async fn delete_topic(&self, name: &str) -> anyhow::Result<()> {
        self.broker().delete_topic(name).await
    }

    /// Starts a second broker, which belongs to this one's cluster and leaves being the controller to it. This one must
    /// have been started with [`CLUSTER_ID`] among its settings.
    pub fn start_beside(&self, settings: &[(&str, &str)]) -> Result<Self, Error> {
        let controller = format!("1@127.0.0.1:{}", self.place.inner_port);
        let id = setting(&self.place, CLUSTER_ID).unwrap_or_default();
        let own = [
            ("process.roles", "broker"),
            ("node.id", "2"),
            ("controller.quorum.voters", &controller),
            ("listeners", "PLAINTEXT://127.0.0.1:{port}"),
            (CLUSTER_ID, id),
        ];
        Self::start_with(&[&own, settings].concat())
    }

    /// Runs one of Kafka's own command-line programs, by the name of its class, and returns what it printed.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.service.java("-Xmx128m", None);
        command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", class]).args(arguments).stdin(Stdio::null());
        let out = command.output().with_context(|| format!("run {class}"))?;
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        if out.status.success() { Ok(text) } else { bail!("{class} {arguments:?} ended with {}:\n{text}", out.status) }
    }
}

/// A setting that only these tests know: the cluster's id, 22 characters of base64, instead of a new one.
pub const CLUSTER_ID: &str = "cluster.id";

/// The client's side of a broker: its address and what can be done with topics there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    address: String,
}

impl Broker {
    /// The broker at `address` (`host:port`). Nothing is contacted yet.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Creates a topic and returns when every partition has a leader.
    pub async fn create_topic(&self, name: &str, partitions: i32) -> anyhow::Result<()> {
        self.create_topic_with(name, partitions, &[]).await
    }

    /// Creates a topic with settings of its own, such as `("retention.ms", "1000")`.
    pub async fn create_topic_with(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        topic.config.extend_from_slice(config);
        let made = self.admin()?.create_topics([&topic], &options()).await;
        if let Err((topic, code)) = one(made).with_context(|| format!("create topic {name} at {}", self.address))? {
            bail!("create topic {topic} at {}: {code}", self.address);
        }
        let wanted = usize::try_from(partitions)?;
        self.await_partitions(name, wanted).await.with_context(|| format!("topic {name} was created and has no leader"))
    }

    /// Deletes a topic and returns when the broker no longer lists it.
    pub async fn delete_topic(&self, name: &str) -> anyhow::Result<()> {
        let gone = self.admin()?.delete_topics(&[name], &options()).await;
        if let Err((topic, code)) = one(gone).with_context(|| format!("delete topic {name} at {}", self.address))? {
            bail!("delete topic {topic} at {}: {code}", self.address);
        }
        self.await_partitions(name, 0).await.with_context(|| format!("topic {name} was deleted and is still listed"))
    }

    /// Deletes the records of one partition below `before`, as retention would.
    pub async fn delete_records(&self, topic: &str, partition: i32, before: i64) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before))?;
        let done = self.admin()?.delete_records(&list, &options()).await.context("delete records")?;
        done.elements().iter().try_for_each(|element| element.error()).context("delete records")
    }

    /// The first offset that is there, and the next one to be written (aborted and control records count).
    pub async fn watermarks(&self, topic: &str, partition: i32) -> anyhow::Result<(i64, i64)> {
        let (client, topic) = (self.consumer(&[("isolation.level", "read_uncommitted")])?, topic.to_owned());
        let marks = tokio::task::spawn_blocking(move || client.fetch_watermarks(&topic, partition, ANSWER_DEADLINE));
        marks.await?.with_context(|| format!("read the watermarks at {}", self.address))
    }

    /// A client that reads, without a group and without commits, with `settings` on top.
    pub(crate) fn consumer(&self, settings: &[(&str, &str)]) -> anyhow::Result<BaseConsumer> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("group.id", "tine-tests").set("enable.auto.commit", "false");
        settings.iter().for_each(|(name, value)| {
            config.set(*name, *value);
        });
        Ok(config.create()?)
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        Ok(ClientConfig::new().set("bootstrap.servers", &self.address).create()?)
    }

    async fn await_partitions(&self, topic: &str, wanted: usize) -> anyhow::Result<()> {
        let client = std::sync::Arc::new(self.consumer(&[])?);
        let seen = eventually(ANSWER_DEADLINE, || {
            let (client, topic) = (client.clone(), topic.to_owned());
            async move { tokio::task::spawn_blocking(move || led(&client, &topic)).await.ok().flatten() == Some(wanted) }
        });
        if seen.await { Ok(()) } else { bail!("not {wanted} partitions with a leader after {ANSWER_DEADLINE:?}") }
    }
}

/// How many partitions of `topic` have a leader; `None` when the broker does not answer.
fn led(client: &BaseConsumer, topic: &str) -> Option<usize> {
    let metadata = client.fetch_metadata(Some(topic), LOOK_DEADLINE).ok()?;
    let topic = metadata.topics().iter().find(|listed| listed.name() == topic)?;
    let unknown = topic.error().map(RDKafkaErrorCode::from) == Some(RDKafkaErrorCode::UnknownTopicOrPartition);
    if unknown {
        return Some(0);
    }
    Some(topic.partitions().iter().filter(|partition| partition.error().is_none() && partition.leader() >= 0).count())
}

/// The only result of an admin request about one topic.
fn one<T, E: std::error::Error + Send + Sync + 'static>(results: Result<Vec<T>, E>) -> anyhow::Result<T> {
    results?.pop().context("the broker answered with no result")
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_DEADLINE)).operation_timeout(Some(ANSWER_DEADLINE))
}

/// Where Kafka's jars and Java are.
#[derive(Debug)]
pub struct Kraft {
    java: PathBuf,
    libs: PathBuf,
}

impl Kraft {
    fn java(&self, heap: &str, signal: Option<&str>) -> Command {
        let mut command = match signal {
            Some(signal) => tied(&self.java, signal),
            None => Command::new(&self.java),
        };
        command.args(["-Xms128m", heap, "-cp"]).arg(self.libs.join("*"));
        command
    }
}

impl Service for Kraft {
    const NAME: &'static str = "kafka";
    const STOP: Signal = Signal::SIGTERM;
    const END: Signal = Signal::SIGKILL;

    fn find() -> Result<Self, Error> {
        let missing = |missing: String| Error::NotInstalled {
            service: Self::NAME,
            missing,
            advice: "run tests/run, which fetches Kafka's jars with Maven, or name a folder with Kafka's libs in TINE_TEST_KAFKA_LIBS; Java 17 or newer: apt-get install default-jre-headless",
        };
        let libs = match std::env::var_os("TINE_TEST_KAFKA_LIBS") {
            Some(libs) => PathBuf::from(libs),
            None => base_folder().join("kafka-libs"),
        };
        if !has_jar(&libs, "kafka_2.13-") {
            return Err(missing(format!("no kafka_2.13-*.jar in {}", libs.display())));
        }
        let java = java().ok_or_else(|| missing("no java in JAVA_HOME or PATH".to_owned()))?;
        Ok(Self { java, libs })
    }

    fn prepare(&self, place: &Place) -> Result<(), Error> {
        let config = config_file(place);
        fs::write(&config, configuration(place))
            .map_err(|e| Error::io(Self::NAME, format!("write {}", config.display()), e))?;
        let mut format = self.java("-Xmx128m", None);
        format.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format"]);
        let id = setting(place, CLUSTER_ID).map_or_else(cluster_id, str::to_owned);
        let out = format.args(["-t", &id, "-c"]).arg(&config).stdin(Stdio::null()).output();
        let out = out.map_err(|e| Error::io(Self::NAME, "run its storage tool", e))?;
        if out.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        Err(Error::io(Self::NAME, "format its data folder", std::io::Error::other(why)))
    }

    fn command(&self, place: &Place) -> Command {
        let mut command = self.java("-Xmx1g", Some("KILL"));
        command.arg("kafka.Kafka").arg(config_file(place)).current_dir(&place.folder);
        command
    }

    fn ready(&self, place: &Place, _pid: u32) -> bool {
        // librdkafka waits longer and longer between attempts, so it is asked only when the port is open.
        if std::net::TcpStream::connect(("127.0.0.1", place.port)).is_err() {
            return false;
        }
        let Ok(client) = Broker::at(place.address()).consumer(&[]) else { return false };
        let metadata = client.fetch_metadata(None, LOOK_DEADLINE);
        // Behind a proxy it is listed with the proxy's port.
        let told = setting(place, "advertised.listeners").unwrap_or_default();
        let is_own =
            |port: i32| port == i32::from(place.port) || told.split(',').any(|one| one.ends_with(&format!(":{port}")));
        metadata.is_ok_and(|metadata| metadata.brokers().iter().any(|broker| is_own(broker.port())))
    }
}

fn setting<'p>(place: &'p Place, name: &str) -> Option<&'p str> {
    place.settings.iter().rev().find(|(set, _)| set == name).map(|(_, value)| value.as_str())
}

fn config_file(place: &Place) -> PathBuf {
    place.folder.join("server.properties")
}

fn configuration(place: &Place) -> String {
    let Place { port, inner_port, settings, .. } = place;
    let mut lines = vec![
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("controller.quorum.voters=1@127.0.0.1:{inner_port}"),
        format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{inner_port}"),
        format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        format!("log.dirs={}", place.data().display()),
    ];
    let fixed = [
        "offsets.topic.replication.factor=1",
        "offsets.topic.num.partitions=1",
        "transaction.state.log.replication.factor=1",
        "transaction.state.log.min.isr=1",
        "transaction.state.log.num.partitions=4",
        "share.coordinator.state.topic.replication.factor=1",
        "share.coordinator.state.topic.min.isr=1",
        "group.initial.rebalance.delay.ms=0",
        "auto.create.topics.enable=false",
        // Retention and deletion are things tests wait for.
        "log.retention.check.interval.ms=1000",
        "log.segment.delete.delay.ms=1000",
        "log.cleaner.dedupe.buffer.size=16777216",
    ];
    lines.extend(fixed.map(str::to_owned));
    // Of two lines with the same name the last one counts. Ports are known only now.
    let with_ports =
        |value: &str| value.replace("{port}", &port.to_string()).replace("{inner}", &inner_port.to_string());
    lines.extend(settings.iter().map(|(name, value)| format!("{name}={}", with_ports(value))));
    lines.join("\n") + "\n"
}

/// A new identity for each format, so that a wiped broker is another cluster to its clients.
fn cluster_id() -> String {
    const SYMBOLS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    // 22 characters of base64 are 132 bits for 128: the last one must end in four zero bits.
    (0..21).map(|_| char::from(SYMBOLS[random.random_range(0..SYMBOLS.len())])).chain(['A']).collect()
}
