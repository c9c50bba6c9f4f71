//! What a commit costs the server: tine, with ledger and known keys, against one plain upsert, interleaved.
//!
//! ```text
//! TINE_TEST_POSTGRES=postgres://… cargo run --release -p tine-postgres --example advance_cost [-- ROWS TABLE ROUNDS SHARDS]
//! ```
//!
//! Both sides merge the same ROWS sorted words into tables of TABLE rows and one definition (`fillfactor = 50`); the words
//! of a batch are spread evenly over the table, and each round takes others. Prints medians of the CPU time of the
//! backend (`/proc/PID/schedstat`, so the server must run on this machine), of the client's, and of the time that the
//! client waits, all for the whole transaction, begin to commit, by row.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program with a printed ratio; what fails ends it")]

#[path = "../tests/server/mod.rs"]
mod server;

use std::{process::ExitCode, sync::Arc, time::Instant};

use server::*;
use sqlx::{Executor, PgConnection};
use tine_state::{Column, CommitOutcome, Committer, Database, TableRows, run};

const UPSERT: &str = "insert into plain as t (word, n) select * from unnest($1::text[], $2::int8[]) \
                      on conflict (word) do update set n = t.n + excluded.n";

/// Microseconds of the server's CPU, of the client's, and of waiting, once a round.
#[derive(Default)]
struct Cost(Vec<[f64; 3]>);

/// CPU time that the first thread of a process has used, in microseconds.
fn cpu_us(pid: i64) -> f64 {
    let used = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    used.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e3
}

impl Cost {
    async fn of<T>(&mut self, server: i64, measured: bool, work: impl Future<Output = T>) -> T {
        let client = i64::from(std::process::id());
        let (began, started) = ([server, client].map(cpu_us), Instant::now());
        let done = work.await;
        if measured {
            let waited = started.elapsed().as_secs_f64() * 1e6;
            self.0.push([cpu_us(server) - began[0], cpu_us(client) - began[1], waited]);
        }
        done
    }

    /// Prints all three by row and returns the median of the server's CPU.
    fn print(&self, name: &str, rows: usize) -> f64 {
        let sorted = |which: usize| {
            let mut all: Vec<f64> = self.0.iter().map(|round| round[which] / rows as f64).collect();
            all.sort_by(f64::total_cmp);
            (all[all.len() / 2], all[0], all[all.len() - 1])
        };
        let [(server, low, high), (client, ..), (wait, ..)] = [0, 1, 2].map(sorted);
        println!(
            "{name:<22} us/row: server CPU {server:>6.2} ({low:.2} .. {high:.2}), client CPU {client:>6.3}, wait {wait:>6.2}"
        );
        server
    }
}

async fn plain(connection: &mut PgConnection, rows: &TableRows) {
    let ([Column::Text(words)], [Column::BigInt(counts)]) = (rows.keys.as_slice(), rows.values.as_slice()) else {
        unreachable!("rows of the other shape")
    };
    connection.execute("begin").await.unwrap();
    sqlx::query(UPSERT).bind(words).bind(counts).execute(&mut *connection).await.unwrap();
    connection.execute("commit").await.unwrap();
}

/// Every `table / count`th word, beginning with another one each round.
fn batch(count: usize, table: usize, round: u64) -> Arc<TableRows> {
    let stride = (table / count).max(1);
    counted((0..count).map(|i| (format!("word-{:08}", i * stride + round as usize % stride), 1)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let argument = |at: usize, default| std::env::args().nth(at).map_or(default, |text| text.parse().unwrap());
    let (count, table, rounds): (usize, usize, usize) = (argument(1, 100_000), argument(2, 100_000), argument(3, 11));
    let Some(fresh) = Fresh::new().await else { return ExitCode::FAILURE };
    let (database, mut spec) = (fresh.postgres(), group("cost", vec![words("words")]));
    spec.states[0].shards = argument(4, 32) as u16;
    database.create(&spec).await.unwrap();
    fresh.sql("create table plain (like words including all) with (fillfactor = 50)").await;
    let fill = |name| {
        format!("insert into {name} select 'word-' || lpad(i::text, 8, '0'), 1 from generate_series(0, {table} - 1) i")
    };
    for name in ["words", "plain"] {
        fresh.sql(&fill(name)).await;
        fresh.sql(&format!("vacuum analyze {name}")).await;
    }
    fresh.sql("checkpoint").await;
    let mut session = session(&database, &spec).await;
    let location = raise(&mut *session, attempt(1, 1)).await.location;
    let ours = fresh.number("select pid::int8 from pg_stat_activity where datname = current_database() and application_name like 'tine.%'").await;
    let mut connection = fresh.connect().await;
    let theirs = sqlx::query_scalar("select pg_backend_pid()::int8").fetch_one(&mut connection).await.unwrap();
    let (mut tine, mut upsert) = (Cost::default(), Cost::default());
    // Before the first measured round every key was seen once, and the statements are prepared.
    let warming = (table / count).max(1) as u64 + 1;
    for txid in 1..=warming + rounds as u64 {
        let (rows, measured) = (batch(count, table, txid), txid > warming);
        if txid % 2 == 0 {
            upsert.of(theirs, measured, plain(&mut connection, &rows)).await;
        }
        let order = order(&spec, attempt(1, 1), txid, location, vec![rows.clone()]);
        let outcome = tine.of(ours, measured, run(Committer::new(order), &mut *session)).await;
        assert_eq!(outcome, CommitOutcome::Applied);
        if txid % 2 == 1 {
            upsert.of(theirs, measured, plain(&mut connection, &rows)).await;
        }
    }
    println!("{count} rows into {table}, {} shards, {rounds} measured rounds", spec.states[0].shards);
    let base = upsert.print("plain upsert", count);
    let ratio = tine.print("tine: ledger and merge", count) / base;
    println!("{:<24} {ratio:.3}", "ratio of server CPU");
    drop(session);
    fresh.drop_database().await;
    ExitCode::SUCCESS
}
