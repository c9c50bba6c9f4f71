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
mod options;
mod outcome;
mod reading;
mod shutdown;
mod staging;
mod watch;
mod workers;

use std::{pin::pin, sync::Arc, time::Duration};

use rand::Rng;
use tine_core::{
    failure::{Failure, FailureKind},
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

use self::{
    crew::Crew,
    ear::{Ear, Presence},
    leader::{Leading, With},
    outcome::Course,
    workers::{Workers, coordinate, relieved},
};
pub use self::{
    options::Options,
    outcome::{RunError, Summary},
    shutdown::Shutdown,
    watch::{Meter, Rate},
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
    topology::Topology,
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
