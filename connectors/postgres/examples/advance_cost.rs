//! What the ledger costs: a commit by tine against the same rows in a plain upsert, interleaved, on one server.
//!
//! ```text
//! TINE_TEST_POSTGRES=postgres://… cargo run --release -p tine-postgres --example advance_cost [-- ROWS ROUNDS SHARDS]
//! ```
//!
//! Both sides merge the same sorted words into tables of the same definition (`fillfactor = 50`); every round updates
//! each row once. Prints the median and the spread of the whole transaction, begin to commit, as seen by the client.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program with a printed ratio; what fails ends it")]

#[path = "../tests/server/mod.rs"]
mod server;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use server::*;
use sqlx::{Executor, PgConnection};
use tine_state::{Column, CommitOutcome, Committer, Database, run};

const UPSERT: &str = "insert into plain as t (word, n) select * from unnest($1::text[], $2::int8[]) \
                      on conflict (word) do update set n = t.n + excluded.n";

async fn plain(connection: &mut PgConnection, rows: &tine_state::TableRows) -> Duration {
    let ([Column::Text(words)], [Column::BigInt(counts)]) = (rows.keys.as_slice(), rows.values.as_slice()) else {
        unreachable!("rows of the other shape")
    };
    let started = Instant::now();
    connection.execute("begin").await.unwrap();
    sqlx::query(UPSERT).bind(words).bind(counts).execute(&mut *connection).await.unwrap();
    connection.execute("commit").await.unwrap();
    started.elapsed()
}

fn spread(name: &str, rows: usize, base: f64, mut took: Vec<Duration>) -> f64 {
    took.sort();
    let micros = |at: usize| took[at].as_secs_f64() * 1e6 / rows as f64;
    let (median, low, high) = (micros(took.len() / 2), micros(0), micros(took.len() - 1));
    let ratio = if base > 0.0 { median / base } else { 1.0 };
    println!("{name:<32} {median:>8.2} us/row   {low:>6.2} .. {high:>6.2}   ratio {ratio:.3}");
    median
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let argument = |at: usize, default| std::env::args().nth(at).map_or(default, |text| text.parse().unwrap());
    let (count, rounds): (usize, u64) = (argument(1, 100_000), argument(2, 11) as u64);
    let Some(fresh) = Fresh::new().await else { return ExitCode::FAILURE };
    let (database, mut spec) = (fresh.postgres(), group("cost", vec![words("words")]));
    spec.states[0].shards = argument(3, 32) as u16;
    database.create(&spec).await.unwrap();
    fresh.sql("create table plain (like words including all) with (fillfactor = 50)").await;
    let rows = counted((0..count).map(|i| (format!("word-{i:08}"), 1)));
    let mut session = session(&database, &spec).await;
    let location = raise(&mut *session, attempt(1, 1)).await.location;
    let mut connection = fresh.connect().await;
    let (mut tine, mut upsert) = (Vec::new(), Vec::new());
    for txid in 1..=rounds {
        let order = order(&spec, attempt(1, 1), txid, location, vec![rows.clone()]);
        let before = if txid % 2 == 0 { Some(plain(&mut connection, &rows).await) } else { None };
        let started = Instant::now();
        assert_eq!(run(Committer::new(order), &mut *session).await, CommitOutcome::Applied);
        let took = started.elapsed();
        let by_hand = match before {
            Some(before) => before,
            None => plain(&mut connection, &rows).await,
        };
        // The first two rounds fill the tables and prepare the statements.
        if txid > 2 {
            tine.push(took);
            upsert.push(by_hand);
        }
        if txid % 4 == 0 {
            fresh.sql("vacuum words").await;
            fresh.sql("vacuum plain").await;
        }
    }
    println!("{count} rows, {} shards, {} measured rounds", spec.states[0].shards, tine.len());
    let base = spread("plain upsert", count, 0.0, upsert);
    spread("tine: ledger and merge", count, base, tine);
    fresh.drop_database().await;
    ExitCode::SUCCESS
}
