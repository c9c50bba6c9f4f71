//! Counts the records or the words of a Kafka topic into a Postgres table, exactly, through kill -9, pauses and takeovers.
//!
//! ```text
//! cargo run --release --features cluster,kafka,postgres,zookeeper --example kafka_to_postgres -- \
//!     --brokers 127.0.0.1:9092 --topic lines --count words \
//!     --postgres postgres://user@127.0.0.1/db --table word_counts
//! ```
//!
//! It prints records per second, lag and the last transaction on stderr once a second. Kill it at any moment and start it
//! again with the same arguments: it goes on. Start it twice: the second one stands by and takes over. With `--zookeeper` and
//! `--listen` all copies share the work.

#![allow(clippy::print_stderr, reason = "a program that talks to people")]

use std::{io::IsTerminal, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use tine::{
    Durability, Kafka, Listen, Meter, Options, Policy, Postgres, Shutdown, Tls, Topology, ZooKeeper,
    core::coordination::Coordination,
};

/// Counts the records or the words of a Kafka topic into a Postgres table, exactly.
#[derive(Parser)]
struct Args {
    /// Kafka's brokers, separated by commas.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: String,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// What to count: the words of each record, or whole values.
    #[arg(long, value_enum)]
    count: Count,
    /// The database, as a URL.
    #[arg(long, value_name = "URL", env = "TINE_POSTGRES", hide_env_values = true)]
    postgres: String,
    /// What commits wait for: `synchronous` for the disk, `relaxed` for nothing; exact either way.
    #[arg(long, default_value = "synchronous")]
    durability: Durability,
    /// The table, `name` or `schema.name`; made when missing. Columns: `word` or `value` (text, the key), `n` (bigint).
    #[arg(long)]
    table: String,
    /// Decide leadership and keep open plans in ZooKeeper; without it by a lock in the database.
    #[arg(long, value_name = "HOST:PORT/CHROOT")]
    zookeeper: Option<String>,
    /// Share the work with all other copies that listen: where this one does. Port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", env = "TINE_LISTEN", requires = "zookeeper")]
    listen: Option<String>,
    /// What the other copies connect to, where that is another address than the one listened on.
    #[arg(long, value_name = "HOST:PORT", requires = "listen")]
    advertise: Option<String>,
    /// Talk to the other copies over TLS: a folder with ca.pem, worker.pem and worker.key.
    #[arg(long, value_name = "FOLDER", requires = "listen")]
    tls: Option<std::path::PathBuf>,
    /// Talk to the other copies in plaintext beyond loopback: only where nobody else reads or writes the network.
    #[arg(long, requires = "listen", conflicts_with = "tls")]
    plaintext: bool,
    /// The topology's name: copies of one name are one job.
    #[arg(long, default_value = "kafka_to_postgres")]
    name: String,
    /// End when everything below the last stable offsets at this start is committed.
    #[arg(long)]
    until_end: bool,
    /// What happens to records that are not UTF-8 text, or null.
    #[arg(long, value_enum, default_value = "fail")]
    on_invalid: Invalid,
    /// Take a table that has rows already as the starting point.
    #[arg(long)]
    adopt: bool,
    /// About how far apart commits may be under load, in milliseconds: the dial between latency and throughput.
    #[arg(long, value_name = "MS", default_value_t = 800)]
    commit_interval_ms: u64,
    /// How long to try to reach brokers, database and ZooKeeper at the start, in seconds.
    #[arg(long, value_name = "S", default_value_t = 30)]
    start_timeout_s: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Count {
    Words,
    Values,
}

#[derive(Clone, Copy, ValueEnum)]
enum Invalid {
    /// Halt and name the record: nothing is lost.
    Fail,
    /// Leave it out and count it.
    Skip,
    /// Put it into the table tine_dead_letters.
    DeadLetter,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn,tine=info".into());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .without_time()
        .with_target(false)
        .init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot listen for SIGINT and SIGTERM")?;
    let topology = topology(&args)?;
    let start_timeout = Duration::from_secs(args.start_timeout_s);
    let coordination = match &args.zookeeper {
        Some(address) => {
            Some(Arc::new(ZooKeeper::connect(address)?.start_timeout(start_timeout)) as Arc<dyn Coordination>)
        }
        None => None,
    };
    let options = Options {
        coordination,
        listen: listen(&args)?,
        until_end: args.until_end,
        commit_interval: Duration::from_millis(args.commit_interval_ms),
        start_timeout,
        on_progress: Some(Meter::default().into_callback(|rate| eprintln!("{rate}"))),
        ..Options::default()
    };
    let summary = topology.run_with(options, shutdown).await?;
    // Of this run: whoever finds everything counted commits nothing.
    let last = if summary.transactions == 0 { "none".to_owned() } else { summary.last.to_string() };
    eprintln!("{} records in {} transactions, last txid {last}", summary.records, summary.transactions);
    if summary.skipped + summary.dead_letters > 0 {
        eprintln!("{} records skipped, {} dead letters", summary.skipped, summary.dead_letters);
    }
    Ok(())
}

/// Where this copy listens for the others.
fn listen(args: &Args) -> anyhow::Result<Option<Listen>> {
    let Some(address) = &args.listen else { return Ok(None) };
    let mut listen = Listen::on(address)?;
    if let Some(address) = &args.advertise {
        listen = listen.advertise(address)?;
    }
    if let Some(folder) = &args.tls {
        let [authority, certificate, key] = ["ca.pem", "worker.pem", "worker.key"].map(|file| folder.join(file));
        listen = listen.tls(Tls { authority, certificate, key });
    }
    Ok(Some(if args.plaintext { listen.plaintext() } else { listen }))
}

/// The job itself.
fn topology(args: &Args) -> anyhow::Result<Topology> {
    let policy = match args.on_invalid {
        Invalid::Fail => Policy::Fail,
        Invalid::Skip => Policy::Skip,
        Invalid::DeadLetter => Policy::DeadLetter,
    };
    let mut table = Postgres::connect(&args.postgres)?.durability(args.durability).table(&args.table).value("n");
    if args.adopt {
        table = table.adopt();
    }
    let topology = Topology::new(&*args.name);
    let records = Kafka::connect(&*args.brokers).topic(&*args.topic).text().on_invalid(policy).on_null(policy);
    let records = topology.source(records);
    match args.count {
        Count::Words => records
            .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
            .persist(table.key("word")),
        Count::Values => records.stage(|values| values.group_by(|value| value).count()).persist(table.key("value")),
    };
    Ok(topology)
}
