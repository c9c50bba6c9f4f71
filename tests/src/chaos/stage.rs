//! What a chaos is played with: servers, each behind a proxy, and copies of a job on the other side.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

use super::Chaos;
use super::clock::Clock;
use super::crew::Cast;
use super::plan::{Missing, Target};
use super::victim::{Disks, Peer, Server, Worker};
use crate::disk::{self, Disk};
use crate::job::Job;
use crate::proxy::Proxy;
use crate::services::ensemble::{self, Ports};
use crate::services::kafka::{Broker, Kraft};
use crate::services::postgres::{Cluster, SEGMENT_SIZE};
use crate::services::zookeeper::Standalone;
use crate::services::{Error, Guard, Kafka, Postgres, Service, ZooKeeper, base_folder, shared, unique};
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

/// Servers, with what is between those of ZooKeeper.
struct Servers {
    kafka: Kafka,
    postgres: Postgres,
    disks: Disks,
    ensemble: Vec<(ZooKeeper, Vec<Peer>, Disks)>,
}

/// Where the servers of the ensemble find one another.
struct Between {
    own: Vec<Ports>,
    /// From each to the others, in order, without itself.
    peers: Vec<Vec<Peer>>,
}

impl Between {
    async fn new() -> anyhow::Result<Between> {
        let own = ensemble::ports(ENSEMBLE)?;
        let mut peers = Vec::new();
        for from in 0..ENSEMBLE {
            let mut ways = Vec::new();
            for Ports { quorum, election } in (0..ENSEMBLE).filter(|to| *to != from).map(|to| own[to]) {
                let quorum = Proxy::start(format!("127.0.0.1:{quorum}")).await?;
                let election = Proxy::start(format!("127.0.0.1:{election}")).await?;
                ways.push(Peer { quorum, election });
            }
            peers.push(ways);
        }
        Ok(Between { own, peers })
    }

    fn seen(&self, from: usize, to: usize) -> Ports {
        let nth = if to < from { to } else { to.saturating_sub(1) };
        match from == to {
            true => self.own[to],
            false => {
                Ports { quorum: self.peers[from][nth].quorum.port(), election: self.peers[from][nth].election.port() }
            }
        }
    }
}

impl Stage {
    /// Starts everything; `None` when something is not installed.
    pub(super) async fn new(chaos: &Chaos) -> anyhow::Result<Option<Stage>> {
        if !installed()? {
            return Ok(None);
        }
        disk::unmount_forgotten();
        let between = Between::new().await?;
        let servers = tokio::task::spawn_blocking(move || Servers::start(between)).await??;
        let links = Links::new(&servers).await?;
        let told = links.kafka.address();
        let servers = tokio::task::spawn_blocking(move || servers.tell(&told)).await??;
        let broker = Broker::at(servers.kafka.address());
        broker.create_topic(TOPIC, PARTITIONS).await?;
        let database = database(&servers.postgres, servers.disks.tables.as_ref()).await?;
        let library = Clock::library();
        let missing = Missing { disk: servers.disks.tables.is_none(), clock: library.is_none() };
        if missing.clock {
            report("  without clocks that jump: libfaketime is not installed");
        }
        let job = Job::words(&broker, TOPIC, &database)
            .with("--brokers", &links.kafka.address())
            .with("--postgres", &links.postgres.url(&database))
            .with("--commit-interval-ms", "100")
            .with("--start-timeout-s", PATIENCE_S)
            .breaking(&chaos.broken);
        let folder = base_folder().join(unique("chaos"));
        std::fs::create_dir_all(&folder)?;
        // What a failed run leaves for a look is removed by the next tests/run.
        std::fs::write(folder.join("kept"), "")?;
        let workers = workers(chaos.workers, &job, &links.ensemble, library.as_deref(), &folder).await?;
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
    fn start(between: Between) -> anyhow::Result<Servers> {
        let kafka: Kafka = Guard::start()?;
        let ensemble = ensemble::start_with(ENSEMBLE, |from, to| between.seen(from, to))?;
        // A log that fits its disk and needs another piece of it every second.
        let log = [(SEGMENT_SIZE, "1"), ("max_wal_size", "64MB"), ("min_wal_size", "2MB"), ("wal_recycle", "off")];
        let mut postgres: Postgres = Guard::start_with(&log)?;
        let disks = match small_disks(&mut postgres) {
            Ok(disks) => disks,
            Err(error) => {
                report(format_args!("  without disks that fill up: {error:#}"));
                Disks::default()
            }
        };
        let mut members = Vec::new();
        for (mut server, peers) in ensemble.into_iter().zip(between.peers) {
            let log = if disks.log.is_some() { Some(disk::of_log(&mut server)?) } else { None };
            members.push((server, peers, Disks { tables: None, log }));
        }
        Ok(Servers { kafka, postgres, disks, ensemble: members })
    }

    /// The broker sends its clients to the proxy. That knew the broker's address first, so the broker starts once more.
    fn tell(mut self, proxy: &str) -> anyhow::Result<Servers> {
        self.kafka.place.settings.push(("advertised.listeners".to_owned(), format!("PLAINTEXT://{proxy}")));
        self.kafka.wipe()?;
        Ok(self)
    }

    fn cast(self, links: Links) -> Vec<Cast> {
        let kafka = Server::new(self.kafka, links.kafka, Vec::new(), Disks::default());
        let postgres = Server::new(self.postgres, links.postgres, Vec::new(), self.disks);
        let mut cast: Vec<Cast> = vec![(Target::Kafka, Box::new(kafka)), (Target::Postgres, Box::new(postgres))];
        for (nth, ((guard, peers, disks), link)) in self.ensemble.into_iter().zip(links.ensemble).enumerate() {
            cast.push((Target::ZooKeeper(nth), Box::new(Server::new(guard, link, peers, disks))));
        }
        cast
    }
}

/// Disks for the tables and for the log of a database; its log moves there.
fn small_disks(postgres: &mut Postgres) -> anyhow::Result<Disks> {
    let folder = postgres.place.folder.clone();
    let (tables, log) = (Disk::mount(&folder, "tables")?, Disk::mount(&folder, "log")?);
    postgres.stop()?;
    let (here, there) = (postgres.place.data().join("pg_wal"), log.folder().join("pg_wal"));
    let copied = Command::new("cp").arg("-a").args([&here, &there]).output()?;
    ensure!(copied.status.success(), "cp: {}", String::from_utf8_lossy(&copied.stderr).trim());
    std::fs::remove_dir_all(&here)?;
    std::os::unix::fs::symlink(&there, &here)?;
    postgres.restart()?;
    Ok(Disks { tables: Some(tables), log: Some(log) })
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
            ensemble.push(Proxy::start(server.0.address()).await?);
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

/// Each reaches ZooKeeper over links of its own, behind which are those of the servers.
async fn workers(
    count: usize,
    job: &Job,
    ensemble: &[Proxy],
    library: Option<&Path>,
    folder: &Path,
) -> anyhow::Result<Vec<Cast>> {
    let chroot = unique("tine");
    let mut workers = Vec::new();
    for nth in 0..count {
        let mut links = Vec::new();
        for server in ensemble {
            links.push(Proxy::start(server.address()).await?);
        }
        let addresses: Vec<_> = links.iter().map(Proxy::address).collect();
        let job = job.clone().with("--zookeeper", &format!("{}/{chroot}", addresses.join(",")));
        let clock = library.map(|library| Clock::new(library, folder.join(format!("clock-{nth}")))).transpose()?;
        let log = folder.join(format!("worker-{nth}.log"));
        let worker = Worker::start(job, clock, log, links)?;
        workers.push((Target::Worker(nth), Box::new(worker) as _));
    }
    Ok(workers)
}
