//! Runs a built topology in this process: the thin driver around the pure machines.
//!
//! One tokio task each for the coordinator, every emitter, stage task and committer, as core tasks; a thread for each
//! emitter's reader, for each stage task's work and for the leader's look at the sources, because clients may block and
//! folding is long. [`leader`] performs the coordinator's calls, [`reading`] the emitters', [`staging`] the stage tasks',
//! [`committing`] the committers'.

mod committing;
mod leader;
mod reading;
mod staging;
mod watch;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::Rng;
use tine_core::{
    coordination::Coordination,
    failure::{Failure, FailureKind},
    id::{TaskId, TxId},
    runtime::{Inbound, Inbox, Links, run_acker_clock, run_bolt, run_spout},
    task::{BoltTask, Grouping, Route, SpoutTask},
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

pub use self::watch::{Meter, Rate};
pub use crate::coordinator::event::{Phase, Progress};
use crate::{
    committer::CommitBolt,
    coordinator::{
        Coordinator,
        event::{CommitMode, Reply, Setup},
    },
    emitter::Emitter,
    message::Batches,
    outlet::{Outlet, Owners},
    pipeline::Built,
    source::Horizon,
    stage_bolt::StageBolt,
    topology::{BuildError, Topology},
};

/// How to run a topology. Each setting has a default that suits most.
#[derive(Clone)]
pub struct Options {
    /// Where leadership is decided; without it by the database's exclusive lock.
    pub coordination: Option<Arc<dyn Coordination>>,
    /// Whether the run ends when everything that the sources hold at its start is committed.
    pub until_end: bool,
    /// How many transactions are under way at once (default 3): one is committed while the next ones are processed.
    pub in_flight_max: usize,
    /// The dial between latency and throughput: how long a batch takes under load (default 800 ms), so about how far
    /// apart commits are. It is an eighth of this while the database keeps up, and grows to all of it while the database is
    /// the bottleneck: larger batches have fewer distinct rows per record. Without a backlog batches are cut at once and
    /// records are committed within milliseconds, whatever this says.
    pub commit_interval: Duration,
    /// The most positions of the sources that one transaction takes: records for Kafka, bytes for files (default: no
    /// limit but time and memory).
    pub batch_units_max: u64,
    /// How long to wait before asking an idle source again (default 3 ms): half of it is what a single record waits on
    /// average, and each look costs the source a question.
    pub poll: Duration,
    /// How many emitters read the sources (default: half the cores).
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
            until_end: false,
            in_flight_max: 3,
            commit_interval: Duration::from_millis(800),
            batch_units_max: u64::MAX,
            poll: Duration::from_millis(3),
            emitters: (cores / 2).max(1),
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
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The topology is wrong: the error names the operator and the fix.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The topology did not start: the failure names the address, table, topic or setting, and what to do.
    #[error("cannot start: {0}")]
    Start(Failure),
    /// The group halted. Everything committed stays exact; the failure says what is wrong and what to do.
    #[error("halted: {0}")]
    Halted(Failure),
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
    let (emitters, stage_tasks) = (options.emitters.max(1), options.stage_tasks.max(1));
    let options = Options { emitters, stage_tasks, ..options };
    create_tables(&built, &options, &shutdown).await.map_err(RunError::Start)?;
    if shutdown.is_stopped() {
        return Ok(Summary::default());
    }
    let built = Arc::new(built);
    let mut links: Links<Batches> = if options.mute_acker { Links::with_muted_acker() } else { Links::new() };
    let plan = Placement::new(&built, &options);
    let (coordinator_inbox, coordinator_arrivals) = links.add_spout::<Reply>(COORDINATOR);
    let emitters = add_bolts(&mut links, &plan.emitters);
    let stages: Vec<_> = plan.stages.iter().map(|level| add_bolts(&mut links, level)).collect();
    let committer = links.add_bolt(plan.committer);
    let (links, mut tasks, seed) = (Arc::new(links), JoinSet::new(), rand::rng().random::<u64>());

    for (index, (id, (inbox, arrivals))) in emitters.into_iter().enumerate() {
        let bolt = Emitter::new(index, options.emitters, plan.outlet(0));
        let calls = reading::Reading::start(built.clone(), plan.outlet(0), index);
        let task = BoltTask::new(id, plan.routes(0), seed, bolt);
        tasks.spawn(run_bolt(task, links.clone(), inbox, arrivals, calls));
    }
    for (level, stages) in stages.into_iter().enumerate() {
        for (index, (id, (inbox, arrivals))) in stages.into_iter().enumerate() {
            let bolt = StageBolt::new(plan.senders(level), plan.outlet(level + 1));
            let calls = staging::Staging::start(built.clone(), plan.outlet(level + 1), (level, index));
            let task = BoltTask::new(id, plan.routes(level + 1), seed, bolt);
            tasks.spawn(run_bolt(task, links.clone(), inbox, arrivals, calls));
        }
    }
    let bolt = CommitBolt::new(built.group.shard_refs().into(), plan.all_senders());
    let calls = committing::Committing::start(built.clone(), options.watch(), &mut tasks);
    tasks.spawn(run_bolt(
        BoltTask::new(plan.committer, vec![], seed, bolt),
        links.clone(),
        committer.0,
        committer.1,
        calls,
    ));

    let (finished, mut finish) = mpsc::channel(1);
    let summary = Arc::new(Mutex::new(Summary::default()));
    let spout = SpoutTask::new(COORDINATOR, plan.coordinator_routes(), seed, Coordinator::new(setup(&built, &options)));
    let calls = leader::Leading::start(
        built.clone(),
        &options,
        finished,
        summary.clone(),
        coordinator_inbox.clone(),
        &mut tasks,
    );
    tasks.spawn(run_spout(spout, links.clone(), coordinator_inbox.clone(), coordinator_arrivals, calls));
    tasks.spawn(run_acker_clock(links, options.message_timeout));
    supervise(&mut tasks, &mut finish, &shutdown, coordinator_inbox).await.map_err(RunError::Halted)?;
    let summary = *summary.lock().unwrap_or_else(PoisonError::into_inner);
    built.database.settle(&built.group, summary.last).await.map_err(RunError::Halted)?;
    Ok(summary)
}

/// Bolts with both ends of their inboxes.
fn add_bolts<R: Send + 'static>(links: &mut Links<Batches>, ids: &[TaskId]) -> Vec<(TaskId, Inbox<Batches, R>)> {
    ids.iter().map(|id| (*id, links.add_bolt(*id))).collect()
}

const COORDINATOR: TaskId = TaskId(0);

/// Which tasks there are: the coordinator, emitters, levels of stage tasks, one committer for all shards.
struct Placement {
    emitters: Vec<TaskId>,
    stages: Vec<Vec<TaskId>>,
    committer: TaskId,
    owners: Owners,
}

impl Placement {
    fn new(built: &Built, options: &Options) -> Placement {
        let mut ids = (COORDINATOR.0 + 1..).map(TaskId);
        let emitters = ids.by_ref().take(options.emitters).collect();
        let committer = ids.next().unwrap_or_default();
        let stages = (0..built.levels()).map(|_| ids.by_ref().take(options.stage_tasks).collect()).collect();
        let owners = built.group.states.iter().map(|state| vec![0; usize::from(state.shards)]).collect();
        Placement { emitters, stages, committer, owners }
    }

    /// How many tasks send to a level of stage tasks.
    fn senders(&self, level: usize) -> usize {
        match level.checked_sub(1) {
            None => self.emitters.len(),
            Some(before) => self.stages[before].len(),
        }
    }

    /// How many tasks send to the committer.
    fn all_senders(&self) -> usize {
        self.emitters.len() + self.stages.iter().map(Vec::len).sum::<usize>()
    }

    /// Where a task sends to that stands before this level of stage tasks.
    fn outlet(&self, level: usize) -> Outlet {
        Outlet::new(1, self.owners.clone(), self.stages.get(level).map_or(0, Vec::len))
    }

    fn routes(&self, level: usize) -> Vec<Route> {
        let direct = |targets: Vec<TaskId>| Route { grouping: Grouping::Direct, targets };
        let stages = self.stages.get(level).cloned().unwrap_or_default();
        vec![direct(vec![self.committer]), direct(stages)]
    }

    fn coordinator_routes(&self) -> Vec<Route> {
        let all = |targets: Vec<TaskId>| Route { grouping: Grouping::All, targets };
        vec![all(self.emitters.clone()), all(vec![self.committer])]
    }
}

fn setup(built: &Built, options: &Options) -> Setup {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Setup {
        shards: built.group.shard_refs().into(),
        committers: 1,
        mode: if options.coordination.is_some() { CommitMode::Prepared } else { CommitMode::Whole },
        horizon: if options.until_end { Horizon::Now } else { Horizon::Endless },
        in_flight_max: options.in_flight_max.max(1),
        batch_ms: (ms(options.commit_interval) / 8).max(1),
        batch_max_ms: ms(options.commit_interval).max(1),
        batch_units_max: options.batch_units_max.max(1),
        poll_ms: ms(options.poll).max(1),
        poison_retries: 2,
    }
}

/// Creates and checks the tables; a database that is away is tried again until the start timeout.
async fn create_tables(built: &Built, options: &Options, shutdown: &Shutdown) -> Result<(), Failure> {
    let deadline = Instant::now() + options.start_timeout;
    let mut warned = false;
    loop {
        let failure = match built.database.create(&built.group).await {
            Ok(()) => return Ok(()),
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
            () = shutdown.asked() => return Ok(()),
        }
    }
}

async fn supervise(
    tasks: &mut JoinSet<()>,
    finish: &mut mpsc::Receiver<Result<(), Failure>>,
    shutdown: &Shutdown,
    coordinator: mpsc::Sender<Inbound<Batches, Reply>>,
) -> Result<(), Failure> {
    let mut asked = false;
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
            () = shutdown.asked(), if !asked => {
                asked = true;
                // A full inbox empties by itself; a closed one means that the run is ending anyway.
                let _ = coordinator.send(Inbound::Reply(Reply::Stop)).await;
            }
        }
    };
    tasks.shutdown().await;
    result
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
