//! Performs the coordinator's calls: coordination, the leader's database session, and the sources' bounds, each served in
//! order by a worker of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rand::Rng;
use tine_core::{
    coordination::{Coordination, GroupRecord, Reign},
    failure::{Failure, FailureKind},
    id::{Attempt, Nonce},
    membership::Event,
    runtime::{Inbound, Perform},
};
use tine_state::{Prepare, Procedure, Raise, Session, procedure};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use super::{Course, Options, ear::Told, reading::bug, watch::Watch, workers::Reigning};
use crate::{
    coordinator::event::{Call, Elected, Reply},
    message::Batches,
    pipeline::Built,
    plan::Positions,
    source::{Bounds, Horizon, PartitionBounds, Reached, SourceIndex},
};

type Inbox = mpsc::Sender<Inbound<Batches, Reply>>;

/// Calls that may wait for one worker: a handful per transaction in flight.
const WAITING: usize = 1024;

/// How often an embedded standby tries the lock.
const TRY_LOCK_EVERY: Duration = Duration::from_millis(250);

/// What a leader of several workers tells their driver.
pub(super) struct With {
    /// The reign whose claim stands.
    pub(super) reigns: watch::Sender<Reigning>,
    pub(super) told: mpsc::Sender<Told>,
}

/// The coordinator's side of its workers.
pub(super) struct Leading {
    coordination: mpsc::Sender<Call>,
    database: mpsc::Sender<Call>,
    sources: mpsc::Sender<(Attempt, Arc<Positions>)>,
    finished: mpsc::Sender<Result<(), Failure>>,
    course: Arc<Course>,
    watch: Watch,
    told: Option<mpsc::Sender<Told>>,
}

impl Leading {
    pub(super) fn start(
        built: Arc<Built>,
        options: &Options,
        finished: mpsc::Sender<Result<(), Failure>>,
        course: Arc<Course>,
        inbox: Inbox,
        with: Option<With>,
        tasks: &mut JoinSet<()>,
    ) -> Leading {
        let (reigns, told) = with.map_or((None, None), |with| (Some(with.reigns), Some(with.told)));
        let (coordination, calls) = mpsc::channel(WAITING);
        let worker = Coordinating {
            built: built.clone(),
            service: options.coordination.clone(),
            inbox: inbox.clone(),
            leadership: Leadership::None,
            nonce: Nonce(0),
            session: None,
            reigns,
        };
        tasks.spawn(worker.serve(calls));
        let (database, calls) = mpsc::channel(WAITING);
        tasks.spawn(serve_database(built.clone(), calls, inbox.clone()));
        let (sources, asked) = mpsc::channel(WAITING);
        let (horizon, start_timeout) =
            (if options.until_end { Horizon::Now } else { Horizon::Endless }, options.start_timeout);
        let thread = thread::Builder::new().name("tine-bounds".to_string());
        let begins = course.clone();
        let serve = move || serve_sources(&built, horizon, (start_timeout, &begins), asked, &inbox);
        if let Err(error) = thread.spawn(serve) {
            tracing::error!("cannot start the thread that asks the sources: {error}");
        }
        Leading { coordination, database, sources, finished, course, watch: options.watch(), told }
    }

    /// Ends the run; the first word counts, and the channel has room for it.
    fn tell(&self, result: Result<(), Failure>) {
        let _ = self.finished.try_send(result);
    }
}

impl Perform<Batches, Call, Reply> for Leading {
    fn perform(&mut self, call: Call, inbox: &Inbox) {
        let sent = match call {
            Call::Raise(_) | Call::Prepare { .. } => self.database.try_send(call).is_ok(),
            Call::Bounds { attempt, positions } => self.sources.try_send((attempt, positions)).is_ok(),
            Call::Wake { after_ms } => {
                let inbox = inbox.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(after_ms)).await;
                    inbox.send(Inbound::Reply(Reply::Woke)).await
                });
                true
            }
            Call::Entered(txid, phase) => {
                self.course.begins();
                self.watch.entered(txid, phase);
                true
            }
            Call::Progress(progress) => {
                self.watch.progress(progress);
                self.course.progress(progress);
                true
            }
            Call::Warn(message) => {
                tracing::warn!("{message}");
                true
            }
            Call::Drained => {
                let told = self.told.clone();
                tokio::spawn(async move {
                    if let Some(told) = told {
                        let _ = told.send(Told::Event(Event::Drained)).await;
                    }
                });
                true
            }
            Call::Finish(result) => {
                self.tell(result);
                true
            }
            _ => self.coordination.try_send(call).is_ok(),
        };
        if !sent {
            self.tell(Err(Failure::fatal("a worker of the coordinator has ended or is a thousand calls behind")));
        }
    }
}

/// Serves the calls to coordination, in order.
struct Coordinating {
    built: Arc<Built>,
    service: Option<Arc<dyn Coordination>>,
    inbox: Inbox,
    leadership: Leadership,
    nonce: Nonce,
    session: Option<Box<dyn Session>>,
    /// Where workers are to be assigned by this leader: the reign, once its claim stands.
    reigns: Option<watch::Sender<Reigning>>,
}

/// What this process holds as long as it leads, and the task that watches over it.
enum Leadership {
    None,
    /// The watcher owns the database's lock; ending it gives the lock back.
    Lock(AbortHandle),
    Reign(Arc<dyn Reign>, AbortHandle),
}

impl Drop for Leadership {
    fn drop(&mut self) {
        match self {
            Leadership::None => {}
            Leadership::Lock(watcher) | Leadership::Reign(_, watcher) => watcher.abort(),
        }
    }
}

impl Coordinating {
    async fn serve(mut self, mut calls: mpsc::Receiver<Call>) {
        while let Some(call) = calls.recv().await {
            if let Some(reply) = self.serve_one(call).await
                && self.inbox.send(Inbound::Reply(reply)).await.is_err()
            {
                return;
            }
        }
    }

    async fn serve_one(&mut self, call: Call) -> Option<Reply> {
        let nonce = self.nonce;
        let group = self.built.group.group.clone();
        if let Call::Campaign = call {
            return Some(self.campaign().await);
        }
        let reign = match &self.leadership {
            Leadership::Reign(reign, _) => reign.clone(),
            // The embedded mode writes nothing down: the claim is the lock itself.
            _ => return matches!(call, Call::Claim(_)).then_some(Reply::Claimed(nonce, Ok(()))),
        };
        let note = |result: Result<(), Failure>| result.err().map(|failure| Reply::NoteFailed(nonce, failure));
        match call {
            Call::Claim(claim) => {
                let claimed = reign.claim(&group, &claim).await;
                if claimed.is_ok() {
                    self.tell_reign(Some((nonce, reign)));
                }
                Some(Reply::Claimed(nonce, claimed))
            }
            Call::WritePlan { txid, attempt, plan } => {
                let result = reign.write_plan(&group, txid, &plan).await;
                Some(Reply::PlanWritten { attempt, txid, result })
            }
            Call::ForgetFrom(txid) => note(reign.forget_from(&group, txid).await),
            Call::Complete(txid) => note(reign.complete(&group, txid).await),
            _ => None,
        }
    }

    fn tell_reign(&self, reign: Reigning) {
        if let Some(reigns) = &self.reigns {
            reigns.send_replace(reign);
        }
    }

    async fn campaign(&mut self) -> Reply {
        self.tell_reign(None);
        self.leadership = Leadership::None;
        let mut wait = Duration::from_millis(100);
        loop {
            let nonce = Nonce(rand::rng().random());
            match self.try_campaign(nonce).await {
                Ok(elected) => return Reply::Elected(Box::new(elected)),
                Err(failure) if failure.kind == FailureKind::Fatal => return Reply::Unelectable(failure),
                Err(failure) => tracing::warn!("{failure}; standing by"),
            }
            self.leadership = Leadership::None;
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    async fn try_campaign(&mut self, nonce: Nonce) -> Result<Elected, Failure> {
        let topology = self.built.group.topology.clone();
        let record = match self.service.clone() {
            Some(service) => {
                let reign: Arc<dyn Reign> = service.campaign(&topology, nonce).await?.into();
                let record = reign.read(&self.built.group.group).await?;
                let (watched, inbox) = (reign.clone(), self.inbox.clone());
                let watcher = tokio::spawn(async move {
                    let failure = watched.lost().await;
                    let _ = inbox.send(Inbound::Reply(Reply::Lost(nonce, failure))).await;
                });
                self.leadership = Leadership::Reign(reign, watcher.abort_handle());
                record
            }
            None => {
                self.lock(&topology, nonce).await?;
                GroupRecord::default()
            }
        };
        let group = self.read_group().await?;
        self.nonce = nonce;
        Ok(Elected { nonce, record, lineage: group.lineage, fence: group.fence })
    }

    async fn lock(&mut self, topology: &str, nonce: Nonce) -> Result<(), Failure> {
        let mut waited = false;
        let mut lock = loop {
            match self.built.database.try_lock(topology).await? {
                Some(lock) => break lock,
                None if !std::mem::replace(&mut waited, true) => {
                    tracing::info!("another process runs {topology}: standing by");
                }
                None => {}
            }
            tokio::time::sleep(TRY_LOCK_EVERY).await;
        };
        let inbox = self.inbox.clone();
        let watcher = tokio::spawn(async move {
            let failure = lock.lost().await;
            let _ = inbox.send(Inbound::Reply(Reply::Lost(nonce, failure))).await;
        });
        self.leadership = Leadership::Lock(watcher.abort_handle());
        Ok(())
    }

    async fn read_group(&mut self) -> Result<tine_state::GroupRow, Failure> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(self.built.database.session(&self.built.group).await?),
        };
        Ok(procedure::read(session.as_mut()).await?.group)
    }
}

/// Serves raises and prepares, in order, on the leader's own connection.
async fn serve_database(built: Arc<Built>, mut calls: mpsc::Receiver<Call>, inbox: Inbox) {
    let mut session: Option<Box<dyn Session>> = None;
    while let Some(call) = calls.recv().await {
        let reply = match call {
            Call::Raise(attempt) => Reply::Raised(attempt, raise(&built, &mut session, attempt).await),
            Call::Prepare { row, location } => {
                let (attempt, txid) = (row.attempt, row.txid);
                let prepared = run_on(&built, &mut session, Prepare::new(row, location)).await;
                let outcome = prepared.unwrap_or_else(tine_state::PrepareOutcome::Failed);
                Reply::Prepared { attempt, txid, outcome }
            }
            _ => continue,
        };
        if inbox.send(Inbound::Reply(reply)).await.is_err() {
            return;
        }
    }
}

async fn raise(built: &Built, session: &mut Option<Box<dyn Session>>, attempt: Attempt) -> tine_state::RaiseOutcome {
    // On a new connection: nothing that an older one holds or has forgotten can stand in the way.
    *session = None;
    run_on(built, session, Raise::new(attempt)).await.unwrap_or_else(tine_state::RaiseOutcome::Failed)
}

async fn run_on<P: Procedure + Send>(
    built: &Built,
    session: &mut Option<Box<dyn Session>>,
    procedure: P,
) -> Result<P::Outcome, Failure> {
    let open = match session {
        Some(open) => open,
        none => none.insert(built.database.session(&built.group).await?),
    };
    Ok(tine_state::run(procedure, open.as_mut()).await)
}

/// Serves the leader's look at the sources, on a thread of its own. Sources of a topology without a plan are given up after
/// the start timeout; once there is one, they may be away for any time.
fn serve_sources(
    built: &Built,
    horizon: Horizon,
    (start_timeout, course): (Duration, &Course),
    mut asked: mpsc::Receiver<(Attempt, Arc<Positions>)>,
    inbox: &Inbox,
) {
    let mut sides: Vec<Option<Box<dyn Bounds>>> = built.sources.iter().map(|_| None).collect();
    let (mut began, mut reign) = (Instant::now(), Nonce(0));
    while let Some((attempt, positions)) = asked.blocking_recv() {
        if std::mem::replace(&mut reign, attempt.nonce) != attempt.nonce {
            began = Instant::now();
        }
        let polled = catch_unwind(AssertUnwindSafe(|| poll_all(built, &mut sides, horizon, &positions)));
        let mut result = polled.unwrap_or_else(|panic| Err(bug("a source's bounds", &*panic)));
        if result.is_ok() {
            course.begins();
        }
        if let Err(failure) = &mut result
            && positions.is_empty()
            && began.elapsed() >= start_timeout
        {
            failure.kind = FailureKind::Fatal;
        }
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let (time_ms, seed) = (u64::try_from(time_ms).unwrap_or(u64::MAX), rand::rng().random());
        if inbox.blocking_send(Inbound::Reply(Reply::Bounds { attempt, result, time_ms, seed })).is_err() {
            return;
        }
    }
}

fn poll_all(
    built: &Built,
    sides: &mut [Option<Box<dyn Bounds>>],
    horizon: Horizon,
    positions: &Positions,
) -> Result<Vec<Vec<PartitionBounds>>, Failure> {
    let mut all = Vec::with_capacity(sides.len());
    for ((side, built), source) in sides.iter_mut().zip(&built.sources).zip((0..).map(SourceIndex)) {
        let bounds = match side {
            Some(bounds) => bounds,
            none => none.insert(built.source.bounds()?),
        };
        all.push(bounds.poll(horizon, &Reached::new(source, positions))?);
    }
    Ok(all)
}
