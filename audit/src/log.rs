//! Reads what Kafka holds between two offsets with a plain consumer: assigned, committed records only, one partition after
//! the other.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::AuditError;
use crate::ledger::Start;
use crate::record::Record;

/// How long a question to a broker may take, and how long a read may come to nothing.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(500);

/// A partition and what of it is read, `[from, to)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Piece {
    /// How many offsets it spans; not every one has a record.
    pub(crate) fn offsets(&self) -> u64 {
        u64::try_from(self.to - self.from).unwrap_or(0)
    }
}

impl std::fmt::Display for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} [{}, {})", self.topic, self.partition, self.from, self.to)
    }
}

/// A consumer that belongs to nobody.
pub(crate) struct Log {
    consumer: BaseConsumer,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl Log {
    /// `settings` are the client's own, for TLS and SASL.
    pub(crate) fn open(brokers: &str, settings: &[(String, String)]) -> Result<Log, AuditError> {
        let mut config = ClientConfig::new();
        settings.iter().for_each(|(name, value)| {
            config.set(name, value);
        });
        let fixed = [
            ("bootstrap.servers", brokers),
            // A name that the client asks for; no group is joined and nothing is committed.
            ("group.id", "tine-audit"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("isolation.level", "read_committed"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("check.crcs", "true"),
            ("allow.auto.create.topics", "false"),
            // What is fetched ahead is bounded, because memory is.
            ("queued.max.messages.kbytes", "16384"),
            ("queued.min.messages", "50000"),
            // A second by default: what is fetched ahead is read in a tenth of that.
            ("fetch.queue.backoff.ms", "2"),
        ];
        fixed.iter().for_each(|(name, value)| {
            config.set(*name, *value);
        });
        let consumer = config.create().map_err(AuditError::kafka("cannot make a consumer"))?;
        Ok(Log { consumer })
    }

    /// The piece of a partition that was counted when it was read from `start` to `end`; refuses one that is no longer whole.
    pub(crate) fn piece(&self, name: &str, start: Start, end: u64, told: Option<i64>) -> Result<Piece, AuditError> {
        let (topic, partition) = partition(name)?;
        let marks = self.consumer.fetch_watermarks(&topic, partition, PATIENCE);
        let (low, high) = marks.map_err(AuditError::kafka(format!("cannot ask how far {name} reaches")))?;
        let to = offset(name, end)?;
        let from = match (told, start) {
            (Some(told), _) => told,
            (None, Start::At(from)) => offset(name, from)?,
            (None, Start::Before(_)) if low <= 0 => 0,
            (None, Start::Before(from)) => return Err(unknown_start(name, low, from)),
        };
        let refuse = |why: String| Err(AuditError::not_possible(format!("{name} {why}")));
        if from < to && from < low {
            return refuse(format!(
                "was counted from offset {from} on, and Kafka has deleted what is below {low} since: an audit is not \
                 possible any more; keep records for longer, or audit a topology that starts now"
            ));
        }
        if high < to {
            return refuse(format!(
                "ends at offset {high}, and was counted up to {to}: records were lost in Kafka, or this is another cluster \
                 or topic than the one that was counted"
            ));
        }
        if from > to {
            return refuse(format!("was counted up to {to}, so that it cannot begin at {from}"));
        }
        Ok(Piece { topic, partition, from, to })
    }

    /// Shows every committed record of a piece to `each`, in order.
    pub(crate) fn read(
        &self,
        piece: &Piece,
        mut each: impl FnMut(&Record<'_>) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        if piece.from >= piece.to {
            return Ok(());
        }
        let failed = || AuditError::kafka(format!("cannot read {piece}"));
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&piece.topic, piece.partition, Offset::Offset(piece.from)).map_err(failed())?;
        self.consumer.assign(&list).map_err(failed())?;
        let (mut heard, mut trouble) = (Instant::now(), None);
        loop {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) if message.offset() >= piece.to => return Ok(()),
                Some(Ok(message)) => {
                    each(&record(&piece.topic, &message))?;
                    heard = Instant::now();
                    if message.offset() + 1 >= piece.to {
                        return Ok(());
                    }
                }
                // Everything below the last stable offset was seen, and the piece ends there or before it.
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) if is_final(&error) => return Err(failed()(error)),
                Some(Err(error)) => trouble = Some(error),
                None => {}
            }
            if heard.elapsed() > PATIENCE {
                return Err(match trouble {
                    Some(error) => failed()(error),
                    None => AuditError::not_possible(format!("kafka says nothing of {piece} for {PATIENCE:?}")),
                });
            }
        }
    }
}

fn record<'a>(topic: &'a str, message: &'a BorrowedMessage<'_>) -> Record<'a> {
    Record {
        topic,
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key(),
        value: message.payload(),
    }
}

/// Whether trying again cannot help; the client tries again by itself where it can.
fn is_final(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(
        code,
        Some(
            Code::OffsetOutOfRange
                | Code::AutoOffsetReset
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::UnknownTopicOrPartition
                | Code::TopicAuthorizationFailed
                | Code::BadMessage
                | Code::InvalidMessage
                | Code::Fatal
        )
    )
}

/// `topic/3`, as plans name it.
fn partition(name: &str) -> Result<(String, i32), AuditError> {
    let parts = name.rsplit_once('/').and_then(|(topic, number)| Some((topic.to_owned(), number.parse().ok()?)));
    parts.ok_or_else(|| AuditError::not_possible(format!("{name} is no Kafka partition: only those can be audited")))
}

fn offset(name: &str, offset: u64) -> Result<i64, AuditError> {
    i64::try_from(offset)
        .map_err(|_| AuditError::not_possible(format!("{name} stands at {offset}, which is no offset of Kafka's")))
}

fn unknown_start(name: &str, low: i64, oldest: u64) -> AuditError {
    AuditError::not_possible(format!(
        "where {name} was first read is not known: the oldest plan that is kept begins at offset {oldest}, and Kafka begins \
         at {low} today; if counting began at an offset that is still there, say it with --start {name}=OFFSET, else an \
         audit is not possible"
    ))
}
