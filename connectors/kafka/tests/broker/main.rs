//! The connector against a real broker, whose address `TINE_TEST_KAFKA` (host:port) gives: librdkafka's client.

#![allow(clippy::panic, clippy::print_stderr, reason = "tests say why they fail or are skipped")]

mod bounds;
mod losses;
mod ranges;
mod support;

const CLIENT: tine_kafka::Client = tine_kafka::Client::Rdkafka;
