//! Exact state in PostgreSQL: the ledger and the merge of `tine-state`, in SQL, on connections that tine owns.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tine_postgres::Postgres;
//!
//! let database = Postgres::connect("postgres://tine@localhost:5432/shop")?;
//! let table = database.table("stats.word_counts").key("word").value("n");
//! # Ok(())
//! # }
//! ```
//!
//! **What a server needs.** PostgreSQL 13 or newer, a primary; `fsync = on` (a warning says when it is off); a role that may create tables in the
//! schema of its states, or finds them there with `select, insert, update, delete` granted. Tables are durable (never
//! unlogged). Each session holds one connection of its own, without a pool: one for each owner of shards, one for the
//! leader, one for the lock of the embedded mode. The lock needs a connection of its own on the server; behind a
//! pooler in transaction mode use another form of coordination.
//!
//! **Which server it is** is checked in every transaction: the system identifier, the timeline of the current WAL file
//! and the position of the log must hold what the last raise saw, so that a failover or a restored backup is noticed.
//! A role without the right to call `pg_control_system()` gets a warning, and goes on without the identifier.
//!
//! **What a transaction does.** `begin` with every setting in one message ([`settings`]), one statement that moves
//! the ledger rows and merges the data if *all* of them moved, `commit` in a form that a failed transaction cannot
//! survive: three round trips for a small batch, whatever the number of shards. Keys that are known to have rows are
//! updated and new ones upserted, which for a mixture is one statement more.
//!
//! Read in this order: [`handle`] (what a user holds), [`settings`] (the numbers), `session` (statements and
//! answers), `sql` (their texts), `create` (tables, checked or made), `sqlstate` (what an error means), `lock`.

mod address;
mod create;
mod durability;
mod errors;
pub mod handle;
mod link;
mod lock;
mod session;
pub mod settings;
mod settle;
mod sql;
mod sqlstate;

pub use address::AddressError;
pub use durability::Durability;
pub use handle::Postgres;
