//! Drives this process's part: registers, follows assignments, starts and stops tasks, passes on what the topology is told.
//!
//! Everything is decided by [`Membership`] and [`Ending`]; here it is done: who this worker is in [`registering`], what runs here
//! in [`moving`], what workers say to one another in [`words`], how this one goes in [`leaving`]. Links and couriers have the
//! threads of a small runtime; nothing here waits for a task.

mod leaving;
mod moving;
mod registering;
mod words;

use std::{
    collections::VecDeque,
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    Cluster,
    body::{Control, Order},
    ear::{Ear, Told},
    ending::Ending,
    house::House,
    leadership::{GROUP, Reigning},
    part::Part,
    shape,
};
use crate::{
    engine::{
        self, RunError,
        crews::Crews,
        shared::{Phase, Shared},
        task::said,
    },
    failure::Failure,
    id::WorkerId,
    membership::{Assignment, Common, Effect, Event, Membership, Registration, presence::Registered},
    topology::{build::Layout, node::Arena},
    transport::{self, Identity, Peer},
};

/// Pause before a write that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// How often the leader asks whether everything is worked off.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// When not everybody has answered after so long, a question or an answer was lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a word to a peer may wait for its link.
const SAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Words that wait for the driver: many times what comes while it talks to coordination.
const TOLD_MAX: usize = 1024;

/// What runs here.
struct Running {
    assignment: Assignment,
    /// As whom.
    me: Peer,
}

pub(super) struct Driver {
    house: Arc<House>,
    crews: Arc<Crews>,
    cluster: Cluster,
    common: Common,
    machine: Membership,
    ending: Ending,
    part: Arc<Part>,
    /// As which member this process was registered last.
    me: Option<Peer>,
    registration: Option<Arc<dyn Registration>>,
    registering: Option<JoinHandle<Result<Registered, Failure>>>,
    looking: Option<JoinHandle<()>>,
    campaigning: Option<JoinHandle<Failure>>,
    reigning: watch::Receiver<Reigning>,
    /// The assignment whose tasks run here.
    running: Option<Running>,
    /// While all its workers are ready, and this one leads.
    settled: bool,
    /// Under which number all workers were ready last.
    token: Option<u64>,
    /// Whether tasks have come or left since; and whether they have at any other worker, as far as it has told this one.
    moved: bool,
    moved_elsewhere: bool,
    /// Whether there were ever others.
    was_met: bool,
    leaving: Option<Instant>,
    /// What the topology was told last, and the how manieth word that was.
    wish: (u64, Order),
    /// What this worker wants to tell it as soon as it has heard that.
    unsaid: Option<Order>,
    /// When this worker says again in coordination what it could not say.
    update_at: Option<Instant>,
    /// When everybody was asked last how far it is.
    asked: Instant,
    told_the_end: bool,
}

/// Starts this process as a worker; answers when its port is open.
pub(super) fn start(arena: &Arc<Arena>, layout: Layout, cluster: Cluster) -> Result<engine::Running, RunError> {
    let shared = Arc::clone(&layout.shared);
    let crews = Arc::new(Crews::new(Arc::clone(&shared)));
    let running = engine::Running::new(Arc::clone(&shared), layout.meters(), Arc::clone(&crews))?;
    let (fingerprint, sizes) = (shape::fingerprint(arena), layout.components.iter().map(|it| it.tasks).collect());
    let (told, heard) = mpsc::channel(TOLD_MAX);
    let house = Arc::new(House::new(layout));
    let part = Arc::new(Part::new(told.clone()));
    let (of_driver, (opened, open)) = (Arc::clone(&part), std_mpsc::sync_channel(1));
    let drive = move || {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let runtime = match threads.worker_threads(2).thread_name("tine-links").enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(opened.send(Err(Failure::fatal(format!("cannot start threads: {error}"))))),
        };
        let worker = Arc::clone(&shared);
        let work = async move {
            let ear = Arc::new(Ear { house: Arc::clone(&house), told });
            let identity = Identity { topology: shared.topology.to_string(), fingerprint };
            // No ledger: tuples are delivered at least once, and state is the user's.
            let common = Common { fingerprint, lineage: 0 };
            let transport = match transport::start(&cluster.listen, identity, ear).await {
                Ok(transport) => transport,
                Err(failure) => return drop(opened.send(Err(failure))),
            };
            shared.worker.is_at(transport.address());
            let _ = house.transport.set(transport);
            let driver = Driver {
                house,
                crews,
                cluster,
                common,
                machine: Membership::placing(common, sizes),
                ending: Ending::default(),
                part: of_driver,
                me: None,
                registration: None,
                registering: None,
                looking: None,
                campaigning: None,
                reigning: watch::channel(None).1,
                running: None,
                settled: false,
                token: None,
                moved: false,
                moved_elsewhere: false,
                was_met: false,
                leaving: None,
                wish: (0, Order::Activate),
                unsaid: None,
                update_at: None,
                asked: Instant::now(),
                told_the_end: false,
            };
            if opened.send(Ok(())).is_ok() {
                driver.serve(heard).await;
            }
        };
        // A worker that nobody drives must not go on, nor be waited for.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work))) {
            worker.refuse(Failure::fatal(format!("the worker has panicked: {}", said(&*panic))));
        }
        // What still waits for the outside world must not hold up the end.
        runtime.shutdown_background();
    };
    let thread = thread::Builder::new().name("tine-worker".into()).spawn(drive);
    let thread = thread.map_err(|source| RunError::Thread { component: "the worker".into(), source })?;
    match open.recv() {
        Ok(Ok(())) => Ok(running.joined(part, thread)),
        Ok(Err(failure)) => Err(RunError::Worker(failure)),
        Err(_) => Err(RunError::Worker(Failure::fatal("the worker's thread has panicked, which is a bug in tine"))),
    }
}

impl Driver {
    async fn serve(mut self, mut heard: mpsc::Receiver<Told>) {
        self.campaign();
        self.register();
        let mut clock = tokio::time::interval(ASK_EVERY);
        while self.shared().phase() != Phase::Stopped {
            tokio::select! {
                told = heard.recv() => match told {
                    Some(told) => self.hear(told).await,
                    None => break,
                },
                Ok(()) = self.reigning.changed() => self.reigns().await,
                registered = ended(&mut self.registering) => self.registered(registered).await,
                failure = lost(self.registration.clone()) => self.unregistered(failure).await,
                failure = ended(&mut self.campaigning) => self.shared().refuse(failure),
                _ = clock.tick() => self.tick().await,
            }
        }
        self.farewell(&mut heard).await;
    }

    fn shared(&self) -> &Shared {
        &self.house.layout.shared
    }

    async fn hear(&mut self, told: Told) {
        match told {
            Told::Event(event) => {
                let (seen, up) = match &event {
                    Event::Seen(_) => (true, None),
                    Event::Up(peer) => (false, Some(*peer)),
                    _ => (false, None),
                };
                self.step(event).await;
                if seen {
                    self.look_around().await;
                }
                if let Some(peer) = up {
                    self.say_again(peer).await;
                }
            }
            Told::Control(peer, era, control) => self.control(peer, era, control).await,
            Told::Order(order) => self.command(order).await,
            Told::Kill => self.end(false, None).await,
            Told::Leave => self.leave().await,
        }
    }

    async fn tick(&mut self) {
        if self.leaving.is_some_and(|until| Instant::now() >= until) {
            return self.shared().enter(Phase::Stopped);
        }
        if self.update_at.is_some_and(|at| Instant::now() >= at)
            && let Some(me) = self.machine.me().cloned()
        {
            self.update(me).await;
        }
        self.ask().await;
    }

    // ----- what the membership says -----

    async fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.machine.step(event) {
                match effect {
                    Effect::Start(assignment) => self.start(assignment),
                    Effect::Stop => self.stop(),
                    Effect::TellReady(leader, era) if self.is_me(leader) => events.push_back(Event::Ready(leader, era)),
                    Effect::TellReady(leader, era) => {
                        self.say_later(leader, era, &Control::Ready { moved: self.moved });
                    }
                    Effect::Write(assignment) => self.write(assignment),
                    // Tasks move while everything runs: what is in their hands fails, and comes again.
                    Effect::Drain => events.push_back(Event::Drained),
                    Effect::Owners(assignment) => self.settle(&assignment).await,
                    Effect::Disband(_) => self.settled = false,
                    Effect::Update(member) => self.update(member).await,
                    Effect::Warn(text) => tracing::warn!(target: "tine::core", "{text}"),
                    // Whoever wants to go has nothing against others that come.
                    Effect::Refused(_) if self.leaving.is_some() => self.shared().enter(Phase::Stopped),
                    Effect::Refused(failure) => self.shared().refuse(failure),
                }
            }
        }
    }

    fn is_me(&self, worker: WorkerId) -> bool {
        self.me.as_ref().is_some_and(|me| me.id == worker)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.looking.take().inspect(JoinHandle::abort);
        self.registering.take().inspect(JoinHandle::abort);
        self.campaigning.take().inspect(JoinHandle::abort);
    }
}

/// Waits for a task of the runtime, if there is one.
async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> T {
    let Some(running) = task else { return pending().await };
    let ended = running.await;
    *task = None;
    match ended {
        Ok(ended) => ended,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // Only this driver ends it, and then it does not wait for it.
        Err(_) => pending().await,
    }
}

async fn lost(registration: Option<Arc<dyn Registration>>) -> Failure {
    match registration {
        Some(registration) => registration.lost().await,
        None => pending().await,
    }
}
