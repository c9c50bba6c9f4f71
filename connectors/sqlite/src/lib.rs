//! Exact state in a SQLite file: the embedded default, no server needed.
//!
//! [`Sqlite`] is the handle that a user opens and takes tables from; it is also the
//! [`Database`](tine_state::Database) that tine drives. The file is in WAL mode with `synchronous = FULL`: what was
//! committed survives a power cut. Any other program may read it meanwhile; one that *writes* for longer than five
//! seconds in one transaction makes tine wait and try again.
//!
//! Read in this order: `database` (the handle), `create` (what is made and checked at the start), `session` (one
//! connection that executes the protocol's statements), `merge` (how a batch enters a table).

mod create;
mod database;
mod failure;
mod file;
mod inspect;
mod ledger;
mod lock;
mod merge;
mod session;

pub use database::Sqlite;
