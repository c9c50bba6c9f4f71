//! Holds one Kafka, one ZooKeeper and one PostgreSQL until it is told to stop.
//!
//! `tests/run` starts it; people may too: `cargo run --release -p tine-tests --bin services`. It prints one
//! `NAME=address` line for each server, then `ready`, and stops them on SIGTERM or SIGINT. A server that is not installed
//! is left out with a line on stderr; one that does not start ends the program with exit code 1.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its lines are its interface")]

use std::process::ExitCode;
use std::thread;

use tine_tests::services::kafka::Kraft;
use tine_tests::services::postgres::Cluster;
use tine_tests::services::zookeeper::Standalone;
use tine_tests::services::{Error, Guard, Service};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        eprintln!("services takes no arguments: it starts Kafka, ZooKeeper and PostgreSQL and stops them on SIGTERM");
        return ExitCode::from(2);
    }
    match hold() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In one line and without a backtrace: what is wrong is in the server's log, which the message ends with.
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn hold() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Signals are caught from the start, so that one during a start-up still ends what was started.
    let stopped = runtime.spawn(asked_to_stop());
    let (kafka, zookeeper, postgres) = thread::scope(|scope| {
        let zookeeper = scope.spawn(start::<Standalone>);
        let postgres = scope.spawn(start::<Cluster>);
        (start::<Kraft>(), zookeeper.join(), postgres.join())
    });
    let crashed = |_| anyhow::anyhow!("a start-up thread panicked");
    let (kafka, zookeeper, postgres) = (kafka?, zookeeper.map_err(crashed)??, postgres.map_err(crashed)??);
    kafka.iter().for_each(|server| println!("TINE_TEST_KAFKA={}", server.address()));
    zookeeper.iter().for_each(|server| println!("TINE_TEST_ZOOKEEPER={}", server.address()));
    postgres.iter().for_each(|server| println!("TINE_TEST_POSTGRES={}", server.url()));
    println!("ready");
    runtime.block_on(stopped)??;
    Ok(())
}

/// A running server, or `None` when it is not installed.
fn start<S: Service>() -> Result<Option<Guard<S>>, Error> {
    match Guard::start() {
        Ok(guard) => Ok(Some(guard)),
        Err(error @ Error::NotInstalled { .. }) => {
            eprintln!("{error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn asked_to_stop() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
