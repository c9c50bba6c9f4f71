//! Runs a built topology: the thin driver around the pure machines.
//!
//! One tokio task each for the coordinator, every emitter, stage task and committer, as core tasks; a thread for each
//! emitter's reader, for each stage task's work and for the leader's look at the sources, because clients may block and
//! folding is long. [`leader`] performs the coordinator's calls, [`reading`] the emitters', [`staging`] the stage tasks',
//! [`committing`] the committers'. [`placement`](crate::placement) says which tasks there are, [`crew`] starts those of this
//! process; with [`Options::listen`] it is one of several, which [`workers`] and [`ear`] see to.

mod committing;
mod crew;
mod ear;
mod leader;
mod reading;
mod staging;
mod watch;
mod workers;

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::Rng;
use tine_core::{
    coordination::Coordination,
    failure::{Failure, FailureKind},
    id::TxId,
    membership::{Common, record::Capacity},
    runtime::{INBOX, Inbound, Links, run_acker_clock, run_spout},
    task::SpoutTask,
    transport::{self, Identity},
};
use tokio::{
    sync::{mpsc, watch as watching},
    task::JoinSet,
    time::Instant,
};

pub use self::watch::{Meter, Rate};
use self::{
    crew::Crew,
    ear::{Ear, Presence},
    leader::{Leading, With},
    workers::{Workers, coordinate, relieved},
};
pub use crate::coordinator::event::{Phase, Progress};
use crate::{
    coordinator::{
        Coordinator,
        event::{CommitMode, Reply, Setup},
    },
    message::Batches,
    pipeline::Built,
    placement::{COORDINATOR, Placement},
    source::Horizon,
    topology::{BuildError, Topology},
};
pub use tine_core::transport::{Listen, Tls};
use tine_state::procedure;

/// What may wait for the membership's driver: words of peers, a few each.
const TOLD: usize = 256;

/// More transactions under way than help anybody; what their trees report fits into the coordinator's inbox.
const IN_FLIGHT_MAX: usize = INBOX / 2;

/// How long a leader with nothing to do goes without looking at the ledger. It costs a connection and a raise, and the table of a
/// database that has lost its last transactions stays behind for as long.
const LOOK_BACK: Duration = Duration::from_secs(30);

/// How long a worker that was asked to end waits for others to take its tasks.
const RELIEVED_WITHIN: Duration = Duration::from_secs(10);

/// How to run a topology. Each setting has a default that suits most.
#[derive(Clone)]
pub struct Options {
    /// Where leadership is decided; without it by the database's exclusive lock.
    pub coordination: Option<Arc<dyn Coordination>>,
    /// Where this process listens for others: with it, all copies that are started with the same coordination share the
    /// work, each with this many emitters and stage tasks and a part of the shards. Without it no port is opened; a copy
    /// stands by until it leads, and then runs everything itself. Needs `coordination`, and the feature `cluster`.
    pub listen: Option<Listen>,
    /// Whether the run ends when everything that the sources hold at its start is committed.
    pub until_end: bool,
    /// How many transactions are under way at once (default 3, at most 32): one is committed while the next ones are processed.
    pub in_flight_max: usize,
    /// The dial between latency and throughput: how long a batch of a backlog takes (default 800 ms), so about how far
    /// apart commits are while one is worked off: larger batches have fewer distinct rows per record. Without a backlog
    /// batches are cut at once and records are committed within milliseconds, whatever this says.
    pub commit_interval: Duration,
    /// The most positions of the sources that one transaction takes: records for Kafka, bytes for files (default: no
    /// limit but time and memory).
    pub batch_units_max: u64,
    /// How long to wait before asking an idle source again (default 3 ms): half of it is what a single record waits on
    /// average, and each look costs the source a question.
    pub poll: Duration,
    /// How many emitters read the sources (default: as many as cores).
    pub emitters: usize,
    /// How many tasks share the work of each level of stages after a repartition (default: half the cores).
    pub stage_tasks: usize,
    /// How long to try to reach database and sources at the start (default 30 s).
    pub start_timeout: Duration,
    /// How long a tuple tree may stay without any report before its attempt is given up (default 120 s).
    pub message_timeout: Duration,
    /// Called after each transaction.
    pub on_progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    /// Called when a transaction enters a phase; the same goes to `tracing` (target `tine::phase`, level debug).
    pub on_phase: Option<Arc<dyn Fn(TxId, Phase) + Send + Sync>>,
    /// For tests: an acker that never tells anyone that a tree is complete. Nothing can commit then.
    pub mute_acker: bool,
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            coordination: None,
            listen: None,
            until_end: false,
            in_flight_max: 3,
            commit_interval: Duration::from_millis(800),
            batch_units_max: u64::MAX,
            poll: Duration::from_millis(3),
            emitters: cores,
            stage_tasks: (cores / 2).max(1),
            start_timeout: Duration::from_secs(30),
            message_timeout: Duration::from_secs(120),
            on_progress: None,
            on_phase: None,
            mute_acker: false,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("coordination", &self.coordination.as_ref().map(|coordination| coordination.describe()))
            .field("until_end", &self.until_end)
            .field("in_flight_max", &self.in_flight_max)
            .finish_non_exhaustive()
    }
}

/// Ends runs from outside: finish what is under way, commit it, return.
#[derive(Clone, Debug)]
pub struct Shutdown(tokio::sync::watch::Sender<bool>);

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown(tokio::sync::watch::Sender::new(false))
    }
}

impl Shutdown {
    /// A handle that nobody has used yet.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Asks the run to end. Transactions under way are committed; nothing new is begun.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether the run was asked to end.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// A handle that stops at the first SIGINT or SIGTERM; a second one ends the process at once, which is safe too.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Shutdown> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let shutdown = Shutdown::new();
        let handle = shutdown.clone();
        tokio::spawn(async move {
            for again in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if again {
                    std::process::exit(130);
                }
                handle.stop();
            }
        });
        Ok(shutdown)
    }

    async fn asked(&self) {
        // Waiting fails only when the sender is gone, and this handle is one.
        let _ = self.0.subscribe().wait_for(|asked| *asked).await;
    }
}

/// What a finished run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The last transaction committed by this process; `TxId::NONE` if it committed none.
    pub last: TxId,
    /// How many transactions it committed.
    pub transactions: u64,
    /// Records in them.
    pub records: u64,
    /// Records left out by policy.
    pub skipped: u64,
    /// Records that became dead letters.
    pub dead_letters: u64,
}

/// Why a run ended other than asked.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The topology is wrong: the error names the operator and the fix.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The topology did not start, and nothing was begun: the failure names the address, table, topic, file or setting, and
    /// what to do.
    #[error("cannot start: {0}")]
    Start(Failure),
    /// The group halted after it had begun. Everything committed stays exact; the failure says what is wrong and what to do.
    #[error("halted: {0}")]
    Halted(Failure),
}

/// As people read it: a `main` that returns an error prints its `Debug`.
impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Topology {
    /// Runs this topology with the default [`Options`], until it halts; see [`run`].
    pub fn run(&self) -> impl Future<Output = Result<Summary, RunError>> + Send + 'static {
        self.run_with(Options::default(), Shutdown::new())
    }

    /// Runs this topology; see [`run`].
    pub fn run_with(
        &self,
        options: Options,
        shutdown: Shutdown,
    ) -> impl Future<Output = Result<Summary, RunError>> + Send + 'static {
        let built = self.build();
        async move { run(built?, options, shutdown).await }
    }
}

/// Runs a topology until it ends, is asked to end, or halts.
///
/// `Ok`: the run ended as it was asked to. What was begun is committed, durably, unless the database or coordination failed
/// while it was stopping; then a later run goes on from there. `Err`: what is committed stays exact, and a later run goes on
/// from there, too. Dropping the future is like a crash: safe.
pub async fn run(built: Built, options: Options, shutdown: Shutdown) -> Result<Summary, RunError> {
    tine_core::mutant::announce();
    let (emitters, stage_tasks) = (options.emitters.max(1), options.stage_tasks.max(1));
    let options = Options { emitters, stage_tasks, ..options };
    if options.in_flight_max > IN_FLIGHT_MAX {
        return Err(RunError::Start(Failure::fatal(format!(
            "in_flight_max is {}, and at most {IN_FLIGHT_MAX} transactions are under way at once: a batch grows with the load, \
             so 2 or 3 are enough",
            options.in_flight_max
        ))));
    }
    let Some(lineage) = open_ledger(&built, &options, &shutdown).await.map_err(RunError::Start)? else {
        return Ok(Summary::default());
    };
    let (built, course) = (Arc::new(built), Arc::new(Course::default()));
    let ran = match options.listen.clone() {
        Some(listen) => run_with_others(&built, options, &listen, &shutdown, (course.clone(), lineage)).await,
        None => run_alone(&built, &options, &shutdown, course.clone()).await,
    };
    ran.map_err(|failure| if course.has_begun() { RunError::Halted(failure) } else { RunError::Start(failure) })?;
    let summary = course.summary();
    built.database.settle(&built.group, summary.last).await.map_err(RunError::Halted)?;
    Ok(summary)
}

/// All tasks in this process.
async fn run_alone(
    built: &Arc<Built>,
    options: &Options,
    shutdown: &Shutdown,
    course: Arc<Course>,
) -> Result<(), Failure> {
    let mut links: Links<Batches> = if options.mute_acker { Links::with_muted_acker() } else { Links::new() };
    let place = Placement::new(built, &[capacity(options)], 0);
    let (inbox, arrivals) = links.add_spout::<Reply>(COORDINATOR);
    let Crew { links, mut tasks } = crew::start(built, options, &place, links);
    let (finished, mut finish) = mpsc::channel(1);
    let coordinator = Coordinator::new(setup(built, options, place.committers.len()));
    let spout = SpoutTask::new(COORDINATOR, place.coordinator_routes(), rand::rng().random(), coordinator);
    let calls = Leading::start(built.clone(), options, finished, course, inbox.clone(), None, &mut tasks);
    tasks.spawn(run_spout(spout, links.clone(), inbox.clone(), arrivals, calls));
    tasks.spawn(run_acker_clock(links, options.message_timeout));
    supervise(&mut tasks, &mut finish, shutdown.asked(), inbox).await
}

/// As one of several workers.
async fn run_with_others(
    built: &Arc<Built>,
    options: Options,
    listen: &Listen,
    shutdown: &Shutdown,
    (course, lineage): (Arc<Course>, u128),
) -> Result<(), Failure> {
    let Some(coordination) = options.coordination.clone() else {
        let what = format!("listening on {listen} needs coordination: workers find one another in ZooKeeper");
        return Err(Failure::fatal(what));
    };
    let (told, heard) = mpsc::channel(TOLD);
    let presence = Presence::default();
    let ear = Arc::new(Ear { presence: presence.clone(), told: told.clone() });
    let fingerprint = built.group.fingerprint;
    let identity = Identity { topology: built.group.topology.clone(), fingerprint };
    let transport = transport::start(listen, identity, ear).await?;
    let (inbox, arrivals) = mpsc::channel(INBOX);
    let (finished, mut finish) = mpsc::channel(1);
    let (rewire, rewires) = mpsc::channel(1);
    let (reigns, reign) = watching::channel(None);
    let mut tasks = JoinSet::new();
    let with = Some(With { reigns, told: told.clone() });
    let calls =
        Leading::start(built.clone(), &options, finished.clone(), course.clone(), inbox.clone(), with, &mut tasks);
    let coordinator = Coordinator::new(setup(built, &options, 0));
    tasks.spawn(coordinate(coordinator, inbox.clone(), arrivals, rewires, calls));
    let (built, coordinator) = (built.clone(), inbox.clone());
    let (leave, common) = (told.clone(), Common { fingerprint, lineage });
    let workers = Workers {
        built,
        common,
        options,
        coordination,
        transport,
        told,
        presence,
        coordinator,
        rewire,
        reign,
        finished,
        course,
    };
    tasks.spawn(workers.serve(heard));
    let asked = async {
        shutdown.asked().await;
        relieved(&leave, RELIEVED_WITHIN).await;
    };
    supervise(&mut tasks, &mut finish, asked, inbox).await
}

/// What this process takes.
fn capacity(options: &Options) -> Capacity {
    let narrow = |tasks: usize| u16::try_from(tasks).unwrap_or(u16::MAX);
    Capacity { readers: narrow(options.emitters), stages: narrow(options.stage_tasks) }
}

fn setup(built: &Built, options: &Options, committers: usize) -> Setup {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Setup {
        shards: built.group.shard_refs().into(),
        committers,
        mode: if options.coordination.is_some() { CommitMode::Prepared } else { CommitMode::Whole },
        horizon: if options.until_end { Horizon::Now } else { Horizon::Endless },
        in_flight_max: options.in_flight_max.max(1),
        batch_ms: ms(options.commit_interval).max(1),
        batch_units_max: options.batch_units_max.max(1),
        poll_ms: ms(options.poll).max(1),
        look_back_ms: ms(LOOK_BACK),
        poison_retries: 2,
    }
}

/// Creates and checks the tables, and answers with the ledger's lineage; `None` when the run was asked to end. A database that
/// is away is tried again until the start timeout.
async fn open_ledger(built: &Built, options: &Options, shutdown: &Shutdown) -> Result<Option<u128>, Failure> {
    let open = async || -> Result<u128, Failure> {
        built.database.create(&built.group).await?;
        if options.listen.is_none() {
            return Ok(0);
        }
        let mut session = built.database.session(&built.group).await?;
        Ok(procedure::read(session.as_mut()).await?.group.lineage)
    };
    let deadline = Instant::now() + options.start_timeout;
    let mut warned = false;
    loop {
        let failure = match open().await {
            Ok(_) if shutdown.is_stopped() => return Ok(None),
            Ok(lineage) => return Ok(Some(lineage)),
            Err(failure) => failure,
        };
        let may_help = matches!(failure.kind, FailureKind::Transient | FailureKind::Unknown);
        if !may_help || Instant::now() >= deadline {
            return Err(failure);
        }
        if !std::mem::replace(&mut warned, true) {
            tracing::warn!("{failure}; trying for {} s", options.start_timeout.as_secs());
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
            () = shutdown.asked() => return Ok(None),
        }
    }
}

async fn supervise(
    tasks: &mut JoinSet<()>,
    finish: &mut mpsc::Receiver<Result<(), Failure>>,
    stop: impl Future<Output = ()>,
    coordinator: mpsc::Sender<Inbound<Batches, Reply>>,
) -> Result<(), Failure> {
    let mut asked = false;
    let mut stop = pin!(stop);
    let result = loop {
        tokio::select! {
            biased;
            finished = finish.recv() => {
                break finished.unwrap_or_else(|| Err(Failure::fatal("the coordinator's driver ended without a word")));
            }
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    break Err(Failure::fatal(format!("a task of tine panicked, which is a bug in tine: {error}")));
                }
            }
            () = &mut stop, if !asked => {
                asked = true;
                // A full inbox empties by itself; a closed one means that the run is ending anyway.
                let _ = coordinator.send(Inbound::Reply(Reply::Stop)).await;
            }
        }
    };
    tasks.shutdown().await;
    result
}

/// What is known of a run while it runs.
#[derive(Debug, Default)]
struct Course {
    summary: Mutex<Summary>,
    begun: AtomicBool,
}

impl Course {
    /// The sources have answered, or this worker has tasks: from here on a run can halt, and before it could not start.
    fn begins(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    fn progress(&self, progress: Progress) {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner).add(progress);
    }

    fn summary(&self) -> Summary {
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Summary {
    fn add(&mut self, progress: Progress) {
        self.last = progress.txid;
        self.transactions += 1;
        self.records += progress.counts.records;
        self.skipped += progress.counts.skipped;
        self.dead_letters += progress.counts.dead_letters;
    }
}
