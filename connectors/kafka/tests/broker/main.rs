//! The connector against a real broker, whose address `TINE_TEST_KAFKA` (host:port) gives.

mod bounds;
mod losses;
mod ranges;
mod support;
