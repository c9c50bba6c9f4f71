//! The parts of the Kafka client that read answers.

#[path = "../../../connectors/kafka/src/wire/codec.rs"]
pub(crate) mod codec;
#[path = "../../../connectors/kafka/src/wire/message/mod.rs"]
pub(crate) mod message;
