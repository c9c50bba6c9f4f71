//! Drives this process's part: registers, follows assignments, starts and stops tasks, passes on what the topology is told.
//!
//! Everything is decided by [`Membership`] and [`Ending`]; here it is done. The driver has a thread of its own, because waiting for
//! a task to end its turn blocks; links and couriers have the threads of a small runtime.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use rand::Rng;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    Cluster,
    body::{self, Control, Order, Standing},
    courier,
    ear::{Ear, Told},
    ending::Ending,
    house::House,
    leadership::{self, GROUP, Reigning},
    member::Member,
    refused, shape,
};
use crate::{
    coordination::Coordination,
    engine::{
        RunError, Running,
        crews::{Crew, Crews},
        shared::{Halted, Phase, Shared},
        task::Task,
    },
    failure::{Failure, FailureKind},
    id::{Era, TaskId, WorkerId},
    membership::{Assignment, Common, Effect, Event, Membership, Registration, Sight, record::Capacity},
    topology::{build::Layout, node::Arena},
    transport::{self, Frame, Identity, Kind, Peer, Roots, Token},
};

/// How often a worker looks by itself: watches are hints, and a dead worker's tasks are to move within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Pause before a registration or a write that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// How often the leader asks whether everything is worked off.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// How long a word to a peer may wait for its link.
const SAY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long whoever has told everybody of the end waits for their links to close: what it said must get there.
const FAREWELL: Duration = Duration::from_secs(2);

/// Words that wait for the driver: many times what comes while it waits for tasks to end their turns.
const TOLD_MAX: usize = 1024;

type Registered = (crate::membership::Member, Arc<dyn Registration>);

pub(super) struct Driver {
    house: Arc<House>,
    crews: Arc<Crews>,
    cluster: Cluster,
    common: Common,
    machine: Membership,
    ending: Ending,
    member: Arc<Member>,
    /// As which member this process was registered last.
    me: Option<Peer>,
    registration: Option<Arc<dyn Registration>>,
    registering: Option<JoinHandle<Result<Registered, Failure>>>,
    looking: Option<JoinHandle<()>>,
    campaigning: Option<JoinHandle<Failure>>,
    reigning: watch::Receiver<Reigning>,
    /// The assignment whose tasks run here.
    running: Option<Assignment>,
    /// While all its workers are ready, and this one leads.
    settled: bool,
    /// Where tasks were when all workers were ready last.
    settled_homes: Option<Arc<[WorkerId]>>,
    /// Who else is there.
    others: usize,
    leaving: Option<Instant>,
    /// What the topology was told last, and the how manieth word that was.
    wish: (u64, Order),
    told_the_end: bool,
}

/// Starts this process as a worker; answers when its port is open.
pub(super) fn start(arena: &Arc<Arena>, layout: Layout, cluster: Cluster) -> Result<Running, RunError> {
    let shared = Arc::clone(&layout.shared);
    let crews = Arc::new(Crews::new(Arc::clone(&shared)));
    let running = Running::new(Arc::clone(&shared), layout.meters(), Arc::clone(&crews))?;
    let (fingerprint, sizes) = (shape::fingerprint(arena), layout.components.iter().map(|it| it.tasks).collect());
    let (told, heard) = mpsc::channel(TOLD_MAX);
    let house = Arc::new(House::new(layout));
    let member = Arc::new(Member::new(told.clone()));
    let (of_driver, (opened, open)) = (Arc::clone(&member), std_mpsc::sync_channel(1));
    let drive = move || {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let runtime = match threads.worker_threads(2).thread_name("tine-links").enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(opened.send(Err(Failure::fatal(format!("cannot start threads: {error}"))))),
        };
        runtime.block_on(async move {
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
            let (reign, reigning) = watch::channel(None);
            let campaign = leadership::campaign(Arc::clone(&cluster.coordination), shared.topology.to_string(), reign);
            let driver = Driver {
                house,
                crews,
                cluster,
                common,
                machine: Membership::placing(common, sizes),
                ending: Ending::default(),
                member: of_driver,
                me: None,
                registration: None,
                registering: None,
                looking: None,
                campaigning: Some(tokio::spawn(campaign)),
                reigning,
                running: None,
                settled: false,
                settled_homes: None,
                others: 0,
                leaving: None,
                wish: (0, Order::Activate),
                told_the_end: false,
            };
            if opened.send(Ok(())).is_ok() {
                driver.serve(heard).await;
            }
        });
        // What still waits for the outside world must not hold up the end.
        runtime.shutdown_background();
    };
    let thread = thread::Builder::new().name("tine-worker".into()).spawn(drive);
    let thread = thread.map_err(|source| RunError::Thread { component: "the worker".into(), source })?;
    match open.recv() {
        Ok(Ok(())) => Ok(running.joined(member, thread)),
        Ok(Err(failure)) => Err(refused(failure)),
        Err(_) => Err(refused(Failure::fatal("the worker's thread has panicked, which is a bug in tine"))),
    }
}

impl Driver {
    async fn serve(mut self, mut heard: mpsc::Receiver<Told>) {
        self.register();
        let mut clock = tokio::time::interval(ASK_EVERY);
        while self.shared().phase() != Phase::Stopped {
            tokio::select! {
                told = heard.recv() => match told {
                    Some(told) => self.hear(told).await,
                    None => break,
                },
                changed = self.reigning.changed(), if self.campaigning.is_some() => match changed {
                    Ok(()) => self.reigns().await,
                    Err(_) => self.campaigning = None,
                },
                registered = ended(&mut self.registering) => self.registered(registered).await,
                failure = lost(self.registration.clone()) => self.unregistered(failure).await,
                failure = ended(&mut self.campaigning) => {
                    self.campaigning = None;
                    self.shared().refuse(failure);
                }
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
                if let Event::Seen(sight) = &event {
                    self.others = sight.members.len().saturating_sub(1);
                }
                let up = if let Event::Up(peer) = &event { Some(*peer) } else { None };
                self.step(event).await;
                // Whoever comes late, or was away, does as everybody does.
                if let (Some(peer), (1.., order)) = (up, self.wish) {
                    self.say(peer, &Control::Order(self.wish.0, order)).await;
                }
            }
            Told::Control(peer, era, control) => self.control(peer, era, control).await,
            Told::Order(order) => {
                self.obey(self.wish.0 + 1, order);
                self.broadcast(&Control::Order(self.wish.0, order)).await;
            }
            Told::Kill => self.end(Control::End { drained: false, halted: None }).await,
            Told::Leave => self.leave().await,
        }
    }

    // ----- registration and leadership -----

    /// Begins to register, under a new name.
    fn register(&mut self) {
        let address = self.house.transport().map_or(String::new(), |transport| transport.address().to_owned());
        let peer = Peer { id: WorkerId(rand::rng().random()), address, token: Token(rand::rng().random()) };
        let capacity = Capacity { readers: 1, stages: 1 };
        let member = crate::membership::Member {
            peer,
            common: self.common,
            capacity,
            leaving: self.leaving.is_some(),
            rival: None,
        };
        let (coordination, topology) = (Arc::clone(&self.cluster.coordination), self.shared().topology.to_string());
        self.registering = Some(tokio::spawn(register(coordination, topology, member)));
    }

    async fn registered(&mut self, registered: Result<Registered, Failure>) {
        self.registering = None;
        let (member, registration) = match registered {
            Ok(registered) => registered,
            Err(failure) => return self.shared().refuse(failure),
        };
        // Under another name, whatever ran here until now belongs to nobody.
        if self.me.replace(member.peer.clone()).is_some() {
            self.step(Event::Expired).await;
        }
        if let Some(transport) = self.house.transport() {
            transport.follow(&member.peer, &[]);
        }
        self.registration = Some(Arc::clone(&registration));
        self.looking = Some(tokio::spawn(look(registration, self.member.ear())));
        self.step(Event::Registered(member)).await;
        self.reigns().await;
    }

    /// The registration is gone, or may be. As long as nobody knows, the data flow goes on: whoever cannot reach coordination
    /// learns of nothing better to do.
    async fn unregistered(&mut self, failure: Failure) {
        tracing::warn!(target: "tine::core", "no worker any more, as far as coordination goes: {failure}; registering again");
        self.registration = None;
        self.looking.take().inspect(JoinHandle::abort);
        if failure.kind == FailureKind::Fenced {
            self.me = None;
            self.step(Event::Expired).await;
        }
        self.register();
    }

    async fn reigns(&mut self) {
        let nonce = self.reigning.borrow_and_update().as_ref().map(|(nonce, _)| *nonce);
        self.step(nonce.map_or(Event::Deposed, Event::Led)).await;
    }

    // ----- what the membership says -----

    async fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.machine.step(event) {
                match effect {
                    Effect::Start(assignment) => self.start(assignment).await,
                    Effect::Stop => self.stop(),
                    Effect::TellReady(leader, era) if self.is_me(leader) => events.push_back(Event::Ready(leader, era)),
                    Effect::TellReady(leader, era) => self.say_later(leader, era, &Control::Ready),
                    Effect::Write(assignment) => self.write(assignment),
                    // Tasks move while everything runs: what is in their hands fails, and comes again.
                    Effect::Drain => events.push_back(Event::Drained),
                    Effect::Owners(assignment) => self.settle(&assignment).await,
                    Effect::Disband(_) => self.settled = false,
                    Effect::Update(member) => self.update(member).await,
                    Effect::Warn(text) => tracing::warn!(target: "tine::core", "{text}"),
                    Effect::Refused(failure) => self.shared().refuse(failure),
                }
            }
        }
    }

    fn is_me(&self, worker: WorkerId) -> bool {
        self.me.as_ref().is_some_and(|me| me.id == worker)
    }

    async fn start(&mut self, assignment: Assignment) {
        let Some(me) = self.me.clone() else { return };
        let at = |place: &u16| assignment.shares.get(usize::from(*place)).map(|share| share.peer.id);
        let homes: Option<Arc<[WorkerId]>> = assignment.places.iter().map(at).collect();
        let Some(homes) = homes.filter(|homes| homes.len() == self.house.layout.seats.len()) else {
            let (has, all) = (assignment.places.len(), self.house.layout.seats.len());
            let what = format!(
                "an assignment places {has} tasks, and the topology has {all}: run the same program everywhere"
            );
            return self.shared().refuse(Failure::fatal(what));
        };
        let before = self.house.homes();
        let was_here = |task: usize| before.as_ref().is_some_and(|before| before[task] == me.id);
        let is_here = |task: usize| homes[task] == me.id;
        self.settled = false;
        // First those that leave, so that nobody reads the queues of two tasks with one number.
        self.change(|task| was_here(task) && !is_here(task), |_| false);
        let gone = self.house.furnish(me.id, &assignment, &homes);
        if let Some(transport) = self.house.transport() {
            transport.follow(&me, &assignment.peers());
        }
        // After their links have ended: what was sent until then is counted, and nothing is sent any more.
        gone.into_iter().for_each(|gone| self.house.close_desk(gone));
        for peer in assignment.peers().into_iter().filter(|peer| peer.id != me.id) {
            let desk = self.house.desk(peer.id);
            if desk.is_new() {
                tokio::spawn(courier::carry(Arc::clone(&self.house), peer.id, desk));
            }
        }
        self.change(|_| false, |task| !was_here(task) && is_here(task));
        let here = homes.iter().filter(|home| **home == me.id).count();
        let (all, workers) = (homes.len(), assignment.shares.len());
        tracing::info!(target: "tine::core", "{here} of {all} tasks run here, on one of {workers} workers ({})", assignment.era);
        let here = homes.iter().enumerate().filter(|(_, home)| **home == me.id);
        self.member.run(here.map(|(task, _)| TaskId(task as u32)).collect());
        self.running = Some(assignment);
    }

    /// All workers run their tasks of this assignment, and none sends to where tasks were before.
    async fn settle(&mut self, assignment: &Assignment) {
        tracing::info!(
            target: "tine::core", "{} workers share the work ({})", assignment.shares.len(), assignment.era
        );
        self.settled = true;
        self.ending.begin();
        self.broadcast(&Control::Settled).await;
        self.forget_the_past();
    }

    /// Until everybody had followed, tuples may have gone to tasks that had moved, or to a worker that is gone: every tree
    /// fails that may have had such a one. Earlier would be too early, for trees that were planted meanwhile.
    fn forget_the_past(&mut self) {
        let homes = self.house.homes();
        if let (Some(me), true) = (&self.me, homes != self.settled_homes) {
            self.house.fail_all(me.id, &Failure::transient("tasks have moved to other workers"));
            if let (Some(assignment), Some(homes)) = (&self.running, &homes) {
                self.member.show(me, assignment, homes);
            }
            self.settled_homes = homes;
        }
    }

    fn stop(&mut self) {
        if let (Some(before), Some(assignment)) = (self.house.homes(), self.running.take()) {
            // By its address: the name may be another one by now.
            let address = self.house.transport().map(|transport| transport.address());
            let me = assignment.shares.iter().find(|share| Some(share.peer.address.as_str()) == address);
            if let Some(me) = me.map(|share| &share.peer) {
                self.change(|task| before[task] == me.id, |_| false);
                if let Some(transport) = self.house.transport() {
                    transport.follow(me, &[]);
                }
                self.member.run(Vec::new());
            }
            tracing::info!(target: "tine::core", "no tasks here any more ({})", assignment.era);
        }
        self.settled = false;
        for peer in self.house.vacate() {
            self.house.close_desk(peer);
        }
        if self.leaving.is_some() {
            self.shared().enter(Phase::Stopped);
        }
    }

    /// Takes tasks out of their executors and puts new ones in.
    fn change(&self, leaves: impl Fn(usize) -> bool, comes: impl Fn(usize) -> bool) {
        let layout = &self.house.layout;
        let mut first = 0;
        for component in &layout.components {
            let tasks = first..first + component.tasks;
            first = tasks.end;
            let new: Vec<TaskId> = tasks.clone().filter(|task| comes(*task)).map(|task| TaskId(task as u32)).collect();
            if new.is_empty() && !tasks.clone().any(&leaves) {
                continue;
            }
            layout.shared.expect(component.is_spout, new.len());
            let mut new: Vec<Box<dyn Task>> = new.into_iter().map(|task| layout.make(task)).collect();
            let changed = self.crews.change(&component.name, |tasks| {
                let (mut gone, mut tasks): (Vec<_>, Vec<_>) =
                    tasks.into_iter().partition(|task| leaves(task.id().0 as usize));
                for task in &mut gone {
                    task.close();
                    task.leave();
                }
                tasks.append(&mut new);
                let executors = (component.executors * tasks.len()).div_ceil(component.tasks);
                Crew { tasks, executors }
            });
            if let Err(error) = changed {
                // It cannot be taken from its thread: what it does from now on is done twice, which is at least once.
                layout.shared.refuse(Failure::fatal(format!("tasks cannot move: {error}")));
            }
        }
    }

    fn write(&self, assignment: Assignment) {
        let (reign, ear) = (self.reigning.borrow().clone(), self.member.ear());
        tokio::spawn(async move {
            let result = match reign {
                Some((nonce, reign)) if nonce == assignment.nonce => reign.assign(GROUP, &assignment).await,
                _ => Err(Failure::new(FailureKind::Fenced, "the reign is over")),
            };
            if result.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            let _ = ear.send(Told::Event(Event::Written(assignment.era, result))).await;
        });
    }

    // ----- what workers say to one another -----

    async fn control(&mut self, peer: WorkerId, era: Era, control: Control) {
        match control {
            Control::Ready => {
                self.step(Event::Ready(peer, era)).await;
            }
            Control::Settled if era == self.house.era() => self.forget_the_past(),
            Control::Order(number, order) => self.obey(number, order),
            Control::Ask(round) => self.say_later(peer, era, &Control::Answer(round, self.standing())),
            Control::Answer(round, standing) => self.answered(peer, round, standing).await,
            Control::End { drained, halted } => match halted {
                Some(failure) => self.shared().refuse(failure),
                None => self.shared().end(drained),
            },
            // Of another assignment; and what the ear has dealt with.
            Control::Settled | Control::Credit(_) => {}
        }
    }

    /// Does what the topology is told, unless it was told something else since.
    fn obey(&mut self, number: u64, order: Order) {
        if number <= self.wish.0 {
            return;
        }
        self.wish = (number, order);
        self.shared().enter(match order {
            Order::Activate => Phase::Active,
            Order::Deactivate => Phase::Inactive,
            Order::Drain => Phase::Draining,
        });
    }

    fn peers(&self) -> Vec<WorkerId> {
        let shares = self.running.iter().flat_map(|assignment| &assignment.shares);
        shares.map(|share| share.peer.id).filter(|peer| !self.is_me(*peer)).collect()
    }

    async fn broadcast(&self, control: &Control) {
        for peer in self.peers() {
            self.say(peer, control).await;
        }
    }

    /// In the order of the calls. A peer that cannot be told learns nothing: it is about to be one no longer.
    async fn say(&self, peer: WorkerId, control: &Control) {
        let Some(link) = self.house.transport().and_then(|transport| transport.link(peer)) else { return };
        let _ = tokio::time::timeout(SAY_TIMEOUT, link.send(self.frame(self.house.era(), control), Roots::new())).await;
    }

    /// What is said again when it gets lost.
    fn say_later(&self, peer: WorkerId, era: Era, control: &Control) {
        let Some(link) = self.house.transport().and_then(|transport| transport.link(peer)) else { return };
        let frame = self.frame(era, control);
        tokio::spawn(async move { link.send(frame, Roots::new()).await });
    }

    fn frame(&self, era: Era, control: &Control) -> Frame {
        let body = bytes::Bytes::from(body::control(control));
        Frame { era, to: TaskId(0), from: TaskId(0), kind: Kind::Control, body }
    }

    // ----- the end -----

    fn standing(&self) -> Standing {
        let shared = self.shared();
        let begun = shared.begun();
        let pending = self.house.layout.seats.iter().any(|seat| seat.meter.pending_now() != 0);
        Standing { idle: shared.live_spouts() == 0 && !pending && shared.in_flight() == 0, begun }
    }

    async fn tick(&mut self) {
        if self.leaving.is_some_and(|until| Instant::now() >= until) {
            return self.shared().enter(Phase::Stopped);
        }
        if !self.settled || !self.standing().idle {
            return;
        }
        let peers = self.peers();
        let Some(round) = self.ending.ask(peers.len() + 1) else { return };
        for peer in peers {
            self.say_later(peer, self.house.era(), &Control::Ask(round));
        }
        if let Some(me) = self.me.as_ref().map(|me| me.id) {
            self.answered(me, round, self.standing()).await;
        }
    }

    async fn answered(&mut self, worker: WorkerId, round: u64, standing: Standing) {
        let workers = self.peers().len() + 1;
        if self.settled && self.ending.answer(worker, round, standing, workers) {
            self.end(Control::End { drained: true, halted: None }).await;
        }
    }

    /// Ends the topology on all workers.
    async fn end(&mut self, end: Control) {
        self.broadcast(&end).await;
        self.told_the_end = true;
        if let Control::End { drained, .. } = end {
            self.shared().end(drained);
        }
    }

    /// Says something else of this worker in coordination.
    async fn update(&self, member: crate::membership::Member) {
        let member = crate::membership::Member { leaving: self.leaving.is_some(), ..member };
        if let Some(registration) = self.registration.clone()
            && let Err(failure) = registration.update(&member).await
        {
            tracing::warn!(target: "tine::core", "telling the other workers of this one: {failure}");
        }
    }

    /// Wants to end, while the topology goes on elsewhere; the last worker works off what there is.
    async fn leave(&mut self) {
        if self.others == 0 {
            return self.obey(self.wish.0 + 1, Order::Drain);
        }
        self.leaving = Some(Instant::now() + self.shared().settings.drain_timeout);
        if let Some(me) = self.machine.me().cloned() {
            self.update(me).await;
        }
        // Somebody else leads, and makes an assignment without this worker.
        self.campaigning.take().inspect(JoinHandle::abort);
        self.reigning = watch::channel(None).1;
        self.step(Event::Deposed).await;
        if self.running.is_none() {
            self.shared().enter(Phase::Stopped);
        }
    }

    /// Tells the others why, if it was an error of a component; and lets them close their links before the port closes.
    async fn farewell(&mut self, heard: &mut mpsc::Receiver<Told>) {
        if let Some(Halted::Component(error)) = self.shared().halted() {
            let what = format!(
                "{} of {:?} at {} ended the topology: {}",
                error.task, error.component, error.worker, error.failure
            );
            self.end(Control::End { drained: false, halted: Some(Failure::fatal(what)) }).await;
        }
        self.registration = None;
        let mut left = self.peers();
        let closed = async {
            while !left.is_empty() {
                match heard.recv().await {
                    Some(Told::Event(Event::Broke(peer, _))) => left.retain(|known| *known != peer),
                    Some(_) => {}
                    None => return,
                }
            }
        };
        if self.told_the_end {
            let _ = tokio::time::timeout(FAREWELL, closed).await;
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.looking.take().inspect(JoinHandle::abort);
        self.registering.take().inspect(JoinHandle::abort);
        self.campaigning.take().inspect(JoinHandle::abort);
    }
}

/// Registers a worker; tries for as long as it takes.
async fn register(
    coordination: Arc<dyn Coordination>,
    topology: String,
    member: crate::membership::Member,
) -> Result<Registered, Failure> {
    loop {
        let failure = match coordination.members() {
            Some(members) => match members.register(&topology, &member).await {
                Ok(registration) => return Ok((member, registration.into())),
                Err(failure) => failure,
            },
            None => Failure::fatal(format!("{} knows no workers", coordination.describe())),
        };
        if failure.kind == FailureKind::Fatal {
            return Err(failure);
        }
        tracing::warn!(target: "tine::core", "registering as a worker: {failure}; trying again");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Looks again and again, for as long as the registration lasts.
async fn look(registration: Arc<dyn Registration>, ear: mpsc::Sender<Told>) {
    let mut before = None::<Sight>;
    loop {
        match registration.look().await {
            Ok(sight) => {
                if before.as_ref() != Some(&sight) {
                    before = Some(sight.clone());
                    let _ = ear.send(Told::Event(Event::Seen(sight))).await;
                }
            }
            Err(failure) => tracing::warn!(target: "tine::core", "looking at the workers: {failure}"),
        }
        tokio::select! {
            () = registration.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Waits for a task of the runtime, if there is one.
async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> T {
    match task {
        Some(task) => match task.await {
            Ok(ended) => ended,
            // Only this driver ends it, and then it does not wait for it.
            Err(_) => pending().await,
        },
        None => pending().await,
    }
}

async fn lost(registration: Option<Arc<dyn Registration>>) -> Failure {
    match registration {
        Some(registration) => registration.lost().await,
        None => pending().await,
    }
}
