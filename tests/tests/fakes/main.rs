//! The simulator's fakes, held against the real services: the same random scripts to both, and every answer compared.
//!
//! Ten thousand simulated schedules prove nothing if the database in them is kinder than Postgres. Each room below
//! draws scripts for one fake and the service that it stands for; what they may differ in is written down there, in a
//! table, and whatever else they differ in fails the test with the shortest script that shows it. `docs/proof.md` says
//! what is compared and what is not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "helpers of tests are tests")]

mod agree;
mod coordination;
mod files;
mod source;
mod sql;
