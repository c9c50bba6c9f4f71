//! Runs a topology on several workers: the thin driver around the [`Membership`] machine.
//!
//! This process registers, follows the assignments and starts and stops its tasks; its coordinator stands by until it is
//! elected, and then the same machine assigns. The coordinator outlives its tasks: with every change of owners it is wired to
//! new ones, under a new generation.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use rand::Rng;
use tine_core::{
    acker::AckerEvent,
    coordination::{Coordination, Reign},
    failure::{Failure, FailureKind},
    id::{Era, Nonce, TaskId, WorkerId},
    membership::{
        Assignment, Common, Effect, Event, Intent, Member, Membership, Registration,
        presence::{self, Registered},
        record::Capacity,
    },
    runtime::{Inbound, Links, Perform, run_acker_clock},
    task::{Route, SpoutTask},
    transport::{Frame, Kind, Roots, Transport},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use super::{
    Course, Options, capacity,
    crew::{self, Crew},
    ear::{Presence, Present, READY, Told},
};
use crate::{
    coordinator::{
        Coordinator,
        event::{Call, Reply},
    },
    message::Batches,
    pipeline::Built,
    placement::{COORDINATOR, Placement},
    wire,
};

/// Pause before a write that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// What a leader is known by to whoever writes assignments.
pub(super) type Reigning = Option<(Nonce, Arc<dyn Reign>)>;

type CoordinatorInbox = mpsc::Sender<Inbound<Batches, Reply>>;

/// Other tasks for the coordinator, which takes them with the `Owners` that it is told of.
pub(super) struct Rewire {
    links: Arc<Links<Batches>>,
    routes: Vec<Route>,
}

/// Drives this process's membership.
pub(super) struct Workers {
    pub(super) built: Arc<Built>,
    pub(super) common: Common,
    pub(super) options: Options,
    pub(super) coordination: Arc<dyn Coordination>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) presence: Presence,
    pub(super) coordinator: CoordinatorInbox,
    pub(super) rewire: mpsc::Sender<Rewire>,
    pub(super) reign: watch::Receiver<Reigning>,
    pub(super) finished: mpsc::Sender<Result<(), Failure>>,
    pub(super) course: Arc<Course>,
}

/// The driver at work.
struct Driver {
    workers: Workers,
    machine: Membership,
    /// What runs here, under which assignment.
    crew: Option<(Assignment, Placement, Crew)>,
    registration: Option<Arc<dyn Registration>>,
    /// Who waits until this process has no tasks any more.
    leaving: Option<oneshot::Sender<()>>,
}

/// A task that ends with this handle.
struct Ending(AbortHandle);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The transport knows the ear, which knows the tasks, which know the transport.
        self.set_present(None);
    }
}

impl Workers {
    /// Registers, again and again if need be, and does what the machine says.
    pub(super) async fn serve(self, mut heard: mpsc::Receiver<Told>) {
        let machine = Membership::new(self.common);
        let mut driver = Driver { workers: self, machine, crew: None, leaving: None, registration: None };
        while let Some((member, registration)) = driver.register().await {
            driver.workers.transport.follow(&member.peer, &[]);
            driver.step(Event::Registered(member)).await;
            let looking = tokio::spawn(presence::watch(registration.clone(), driver.workers.told.clone()));
            let _looking = Ending(looking.abort_handle());
            driver.registration = Some(registration.clone());
            driver.reigns().await;
            if !driver.go_on(&mut heard, &*registration).await {
                return;
            }
            driver.registration = None;
        }
    }
}

impl Driver {
    /// A new registration under a new name; `None` when there can never be one.
    async fn register(&self) -> Option<Registered> {
        let Workers { coordination, built, transport, common, options, .. } = &self.workers;
        let (topology, address) = (&built.group.topology, transport.address());
        let registered = presence::register(&**coordination, topology, address, *common, capacity(options)).await;
        registered.map_err(|failure| drop(self.workers.finished.try_send(Err(failure)))).ok()
    }

    /// Lives as a registered worker; whether another registration is to follow.
    async fn go_on(&mut self, heard: &mut mpsc::Receiver<Told>, registration: &dyn Registration) -> bool {
        loop {
            tokio::select! {
                told = heard.recv() => match told {
                    Some(Told::Event(event)) => self.step(event).await,
                    Some(Told::Leave(done)) => self.leave(done).await,
                    None => return false,
                },
                changed = self.workers.reign.changed() => match changed {
                    Ok(()) => self.reigns().await,
                    Err(_) => return false,
                },
                failure = registration.lost() => {
                    tracing::warn!("no worker any more: {failure}; registering again");
                    self.step(Event::Expired).await;
                    return true;
                }
                Some(ended) = ended(&mut self.crew) => {
                    if ended {
                        let bug = Failure::fatal("a task of tine panicked, which is a bug in tine");
                        let _ = self.workers.finished.try_send(Err(bug));
                    }
                }
            }
        }
    }

    async fn reigns(&mut self) {
        let nonce = self.workers.reign.borrow_and_update().as_ref().map(|(nonce, _)| *nonce);
        self.step(nonce.map_or(Event::Deposed, Event::Led)).await;
    }

    /// Whoever leads finishes what is under way by itself; a worker is relieved first.
    async fn leave(&mut self, done: oneshot::Sender<()>) {
        let leads = self.workers.reign.borrow().is_some();
        if leads || self.crew.is_none() {
            let _ = done.send(());
            return;
        }
        self.leaving = Some(done);
        if let Some(me) = self.machine.me().cloned() {
            self.update(me).await;
        }
    }

    async fn update(&self, member: Member) {
        let intent = if self.leaving.is_some() { Intent::Leave } else { Intent::Stay };
        let member = Member { intent, ..member };
        if let Some(registration) = &self.registration {
            presence::tell(&**registration, &member).await;
        }
    }

    async fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.machine.step(event) {
                match effect {
                    Effect::Start(assignment) => self.start(assignment),
                    Effect::Stop => self.stop(),
                    Effect::TellReady(leader, era) if self.is_me(leader) => events.push_back(Event::Ready(leader, era)),
                    Effect::TellReady(leader, era) => self.tell_ready(leader, era),
                    Effect::Write(assignment) => self.write(assignment),
                    Effect::Drain => self.tell(Reply::Drain).await,
                    Effect::Owners(assignment) => self.owners(&assignment).await,
                    Effect::Disband(failure) => self.tell(Reply::Disbanded(failure)).await,
                    Effect::Update(member) => self.update(member).await,
                    Effect::Warn(text) => tracing::warn!("{text}"),
                    Effect::Refused(failure) => drop(self.workers.finished.try_send(Err(failure))),
                }
            }
        }
    }

    fn is_me(&self, worker: WorkerId) -> bool {
        self.machine.me().is_some_and(|me| me.peer.id == worker)
    }

    async fn tell(&self, reply: Reply) {
        // A closed inbox means that the run is over.
        let _ = self.workers.coordinator.send(Inbound::Reply(reply)).await;
    }

    fn start(&mut self, assignment: Assignment) {
        let Some(me) = self.machine.me().map(|me| me.peer.clone()) else { return };
        let Some(place) = assignment.place(me.id) else { return };
        self.set_present(None);
        self.crew = None;
        let workers: Vec<Capacity> = assignment.shares.iter().map(|share| share.capacity).collect();
        let placement = Placement::new(&self.workers.built, &workers, place);
        let leads = assignment.leader == me.id;
        let links = self.links(&assignment, &placement, leads);
        let mut crew = crew::start(&self.workers.built, &self.workers.options, &placement, links);
        if leads {
            crew.tasks.spawn(run_acker_clock(crew.links.clone(), self.workers.options.message_timeout));
        }
        let tasks = placement.tasks().filter(|task| !placement.is_remote(*task)).collect();
        let (era, links) = (assignment.era, crew.links.clone());
        self.set_present(Some(Present { era, links, tasks: Arc::new(tasks), leads }));
        self.workers.transport.follow(&me, &assignment.peers());
        let count = assignment.shares.len();
        if !leads {
            self.workers.course.begins();
        }
        tracing::info!("worker {} of {count}: {} ({})", place + 1, placement.describe(), assignment.era);
        self.crew = Some((assignment, placement, crew));
    }

    /// The coordinator, and the tasks of other workers.
    fn links(&self, assignment: &Assignment, placement: &Placement, leads: bool) -> Links<Batches> {
        let mute = self.workers.options.mute_acker;
        let mut links = if mute { Links::with_muted_acker() } else { Links::new() };
        let era = assignment.era;
        if leads {
            links.notify(COORDINATOR, self.workers.coordinator.clone());
        } else {
            let (transport, leader) = (self.workers.transport.clone(), assignment.leader);
            links.report_to(move |event| {
                let link = transport.link(leader);
                Box::pin(async move { report(era, link, &event).await.is_ok() })
            });
        }
        for task in placement.tasks().filter(|task| placement.is_remote(*task)) {
            let share = placement.home(task).and_then(|home| assignment.shares.get(home));
            let Some(worker) = share.map(|share| share.peer.id) else { continue };
            let transport = self.workers.transport.clone();
            links.add_remote(task, move |tuple| {
                let (link, framed) = (transport.link(worker), wire::tuple(era, task, tuple));
                Box::pin(async move {
                    let sent = async {
                        let (frame, roots) = framed?;
                        link.ok_or_else(|| Failure::transient("no peer"))?.send(frame, roots).await
                    };
                    sent.await.inspect_err(|failure| tracing::debug!("to {task} at {worker}: {failure}")).is_ok()
                })
            });
        }
        links
    }

    fn set_present(&self, present: Option<Present>) {
        *self.workers.presence.lock().unwrap_or_else(PoisonError::into_inner) = present;
    }

    fn stop(&mut self) {
        self.set_present(None);
        if let Some((assignment, ..)) = self.crew.take() {
            tracing::info!("no tasks here any more ({})", assignment.era);
            if let Some(me) =
                assignment.shares.iter().find(|share| self.workers.transport.address() == share.peer.address)
            {
                self.workers.transport.follow(&me.peer, &[]);
            }
        }
        if let Some(done) = self.leaving.take() {
            let _ = done.send(());
        }
    }

    fn tell_ready(&self, leader: WorkerId, era: Era) {
        let Some(link) = self.workers.transport.link(leader) else { return };
        let body = bytes::Bytes::from_static(READY);
        let frame = Frame { era, to: TaskId(0), from: TaskId(0), kind: Kind::Control, body };
        // When it does not get there the link has broken, and it is said again when that stands.
        tokio::spawn(async move { link.send(frame, Roots::new()).await });
    }

    fn write(&self, assignment: Assignment) {
        let reign = self.workers.reign.borrow().clone();
        let (told, group) = (self.workers.told.clone(), self.workers.built.group.group.clone());
        tokio::spawn(async move {
            let result = match reign {
                Some((nonce, reign)) if nonce == assignment.nonce => reign.assign(&group, &assignment).await,
                _ => Err(Failure::new(FailureKind::Fenced, "the reign is over")),
            };
            if result.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            let _ = told.send(Told::Event(Event::Written(assignment.era, result))).await;
        });
    }

    async fn owners(&self, assignment: &Assignment) {
        let Some((running, placement, crew)) = &self.crew else { return };
        if running.era != assignment.era {
            return;
        }
        let (routes, committers) = (placement.coordinator_routes(), placement.committers.len());
        tracing::info!("{} workers share the work ({})", assignment.shares.len(), assignment.era);
        let _ = self.workers.rewire.send(Rewire { links: crew.links.clone(), routes }).await;
        // By the same way as `Drain` and `Disbanded`: what was said before must be heard before.
        self.tell(Reply::Owners { nonce: assignment.nonce, committers }).await;
    }
}

/// Waits for the end of a task; whether it was a panic.
async fn ended(crew: &mut Option<(Assignment, Placement, Crew)>) -> Option<bool> {
    match crew {
        Some((.., crew)) => match crew.tasks.join_next().await {
            Some(ended) => Some(ended.is_err_and(|error| error.is_panic())),
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn report(
    era: Era,
    link: Option<Arc<dyn tine_core::transport::Link>>,
    event: &AckerEvent<crate::message::Note>,
) -> Result<(), Failure> {
    let (frame, roots) = wire::report(era, event)?;
    link.ok_or_else(|| Failure::transient("no peer"))?.send(frame, roots).await
}

/// Runs the coordinator, wired to whatever tasks there are.
pub(super) async fn coordinate(
    coordinator: Coordinator,
    inbox: CoordinatorInbox,
    mut arrivals: mpsc::Receiver<Inbound<Batches, Reply>>,
    mut rewires: mpsc::Receiver<Rewire>,
    mut calls: impl Perform<Batches, Call, Reply>,
) {
    let (started, mut links) = (Instant::now(), Arc::new(Links::new()));
    let task = |routes, coordinator| SpoutTask::new(COORDINATOR, routes, rand::rng().random(), coordinator);
    let mut spout = task(Vec::new(), coordinator);
    let mut effects = spout.open(0);
    loop {
        for effect in effects {
            if let Some(call) = links.perform(effect).await {
                calls.perform(call, &inbox);
            }
        }
        let now_ms = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        effects = match arrivals.recv().await {
            Some(Inbound::Reply(reply)) => {
                if matches!(reply, Reply::Owners { .. })
                    && let Ok(rewire) = rewires.try_recv()
                {
                    links = rewire.links;
                    spout = task(rewire.routes, spout.into_spout());
                }
                spout.reply(now_ms(), reply)
            }
            Some(Inbound::Ended(root, end)) => spout.ended(now_ms(), root, end),
            Some(Inbound::Tuple(_)) => Vec::new(),
            None => return,
        };
    }
}

/// Gives this process's tasks to others before it ends, if somebody takes them in time.
pub(super) async fn relieved(told: &mpsc::Sender<Told>, within: Duration) {
    let (done, relieved) = oneshot::channel();
    if told.send(Told::Leave(done)).await.is_ok() && tokio::time::timeout(within, relieved).await.is_err() {
        tracing::warn!("nobody took over this worker's tasks within {within:?}");
    }
}
