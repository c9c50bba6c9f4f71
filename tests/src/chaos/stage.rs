//! What a chaos is played with: servers, each behind a proxy, and copies of a job on the other side.

use std::path::{Path, PathBuf};

use super::Chaos;
use super::clock::Clock;
use super::crew::Cast;
use super::disk::{self, Disk};
use super::plan::{Missing, Target};
use super::victim::{Server, Worker};
use crate::job::Job;
use crate::proxy::Proxy;
use crate::services::kafka::{Broker, Kraft};
use crate::services::postgres::Cluster;
use crate::services::zookeeper::Standalone;
use crate::services::{Error, Guard, Kafka, Postgres, Service, ZooKeeper, base_folder, ensemble, shared, unique};
use crate::{count, report};

/// Servers of ZooKeeper: one may be away.
const ENSEMBLE: usize = 3;
/// What is counted.
pub(super) const TOPIC: &str = "lines";
const PARTITIONS: i32 = 6;
/// A worker waits that long for servers that are away when it starts.
const PATIENCE_S: &str = "600";

/// Everything that was started.
pub(super) struct Stage {
    /// Where the workers' words are kept.
    pub(super) folder: PathBuf,
    pub(super) servers: Vec<Cast>,
    pub(super) workers: Vec<Cast>,
    pub(super) job: Job,
    /// The broker's own address; it tells clients the proxy's.
    pub(super) broker: Broker,
    pub(super) missing: Missing,
}

/// Servers without proxies.
struct Servers {
    kafka: Kafka,
    postgres: Postgres,
    disk: Option<Disk>,
    ensemble: Vec<ZooKeeper>,
}

impl Stage {
    /// Starts everything; `None` when something is not installed.
    pub(super) async fn new(chaos: Chaos) -> anyhow::Result<Option<Stage>> {
        if !installed()? {
            return Ok(None);
        }
        disk::unmount_forgotten();
        let servers = tokio::task::spawn_blocking(Servers::start).await??;
        let links = Links::new(&servers).await?;
        let told = links.kafka.address();
        let servers = tokio::task::spawn_blocking(move || servers.tell(&told)).await??;
        let broker = Broker::at(servers.kafka.address());
        broker.create_topic(TOPIC, PARTITIONS).await?;
        let database = database(&servers.postgres, servers.disk.as_ref()).await?;
        let library = Clock::library();
        let missing = Missing { disk: servers.disk.is_none(), clock: library.is_none() };
        if missing.clock {
            report("  without clocks that jump: libfaketime is not installed");
        }
        let job = Job::words(&broker, TOPIC, &database)
            .with("--brokers", &links.kafka.address())
            .with("--postgres", &links.postgres.url(&database))
            .with("--commit-interval-ms", "100")
            .with("--start-timeout-s", PATIENCE_S)
            .zookeeper(&links.ensemble.iter().map(Proxy::address).collect::<Vec<_>>().join(","));
        let folder = base_folder().join(unique("chaos"));
        std::fs::create_dir_all(&folder)?;
        // What a failed run leaves for a look is removed by the next tests/run.
        std::fs::write(folder.join("kept"), "")?;
        let workers = workers(chaos.workers, &job, library.as_deref(), &folder)?;
        Ok(Some(Stage { folder, servers: servers.cast(links), workers, job, broker, missing }))
    }
}

/// Whether everything is; what is not was told.
fn installed() -> anyhow::Result<bool> {
    let missing = [Kraft::find().err(), Standalone::find().err(), Cluster::find().err()];
    match missing.into_iter().flatten().next() {
        None => Ok(true),
        Some(missing @ Error::NotInstalled { .. }) => {
            shared::skip(missing);
            Ok(false)
        }
        Some(other) => Err(other.into()),
    }
}

impl Servers {
    fn start() -> anyhow::Result<Servers> {
        let kafka: Kafka = Guard::start()?;
        let ensemble = ensemble::start(ENSEMBLE)?;
        let postgres: Postgres = Guard::start()?;
        let disk = Disk::mount(&postgres.place.folder);
        if let Err(error) = &disk {
            report(format_args!("  without a disk that fills up: {error:#}"));
        }
        Ok(Servers { kafka, postgres, disk: disk.ok(), ensemble })
    }

    /// The broker sends its clients to the proxy. That knew the broker's address first, so the broker starts once more.
    fn tell(mut self, proxy: &str) -> anyhow::Result<Servers> {
        self.kafka.place.settings.push(("advertised.listeners".to_owned(), format!("PLAINTEXT://{proxy}")));
        self.kafka.wipe()?;
        Ok(self)
    }

    fn cast(self, links: Links) -> Vec<Cast> {
        let kafka = Server { disk: None, guard: self.kafka, link: links.kafka };
        let postgres = Server { disk: self.disk, guard: self.postgres, link: links.postgres };
        let mut cast: Vec<Cast> = vec![(Target::Kafka, Box::new(kafka)), (Target::Postgres, Box::new(postgres))];
        for (nth, (guard, link)) in self.ensemble.into_iter().zip(links.ensemble).enumerate() {
            cast.push((Target::ZooKeeper(nth), Box::new(Server { disk: None, guard, link })));
        }
        cast
    }
}

/// The proxies.
struct Links {
    kafka: Proxy,
    postgres: Proxy,
    ensemble: Vec<Proxy>,
}

impl Links {
    async fn new(servers: &Servers) -> anyhow::Result<Links> {
        let kafka = Proxy::start(servers.kafka.address()).await?;
        let postgres = Proxy::start(servers.postgres.address()).await?;
        let mut ensemble = Vec::new();
        for server in &servers.ensemble {
            ensemble.push(Proxy::start(server.address()).await?);
        }
        Ok(Links { kafka, postgres, ensemble })
    }
}

/// A database, on the small disk if there is one.
async fn database(postgres: &Postgres, disk: Option<&Disk>) -> anyhow::Result<String> {
    let url = postgres.url();
    if let Some(disk) = disk {
        count::execute(&url, &format!("create tablespace small location '{}'", disk.folder().display())).await?;
    }
    let place = if disk.is_some() { " tablespace small" } else { "" };
    count::execute(&url, &format!("create database chaos{place}")).await?;
    Ok(url.strip_suffix("/postgres").map_or(url.clone(), |server| format!("{server}/chaos")))
}

fn workers(count: usize, job: &Job, library: Option<&Path>, folder: &Path) -> anyhow::Result<Vec<Cast>> {
    let worker = |nth: usize| {
        let clock = library.map(|library| Clock::new(library, folder.join(format!("clock-{nth}")))).transpose()?;
        let worker = Worker::start(job.clone(), clock, folder.join(format!("worker-{nth}.log")))?;
        Ok((Target::Worker(nth), Box::new(worker) as _))
    };
    (0..count).map(worker).collect()
}
