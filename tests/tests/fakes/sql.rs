//! SQL: the simulator's fake against a real Postgres and a real SQLite, through the connectors.
//!
//! Three sessions of one group, their statements interleaved: procedures and parts of them, transactions left open,
//! statements out of order, connections that end on either side. Every answer is compared, and who waits for whom. One
//! statement waits at a time: when two locks become free at once, the order in which Postgres gives them is its own.

mod codes;
mod program;
mod server;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use tine_core::failure::FailureKind;
use tine_sim::{
    Cell,
    fakes::sql::{Answered, FakeSql},
};
use tine_state::{GroupSpec, Location, Reply, Session, ShardRef, StateIndex, Statement};
use tine_tests::services::unique;
use tokio::task::JoinHandle;

use crate::agree::{DEADLINE, RUNTIME, Transcript, scripts};
use program::{Ground, Program, Task, task};
use server::Server;
use words::ANIMALS;

/// How long a session may be seen waiting for a lock that the fake gives it, before that is a difference; more than
/// Postgres itself waits, also where others compile.
const PATIENCE: Duration = Duration::from_secs(20);

/// A second less than the databases wait for a lock: until then none can have given up, or ended those who hold it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(4);

/// A second less than Postgres lets a transaction lie open without a statement.
const IDLE_TIMEOUT: Duration = Duration::from_secs(9);

/// How often a script is played that took so long that these limits may be the difference: the fake has none of them.
const TRIES: usize = 4;

/// How often the server is looked at.
const POLL: Duration = Duration::from_millis(1);

/// How many sessions a script has.
const SESSIONS: usize = 3;

/// What failures must say in these words on both sides, or on neither.
const POSTGRES_WORDS: [&str; 12] = [
    "no transaction is open",
    "a failover or a restore lies between",
    "no state of number",
    "SQLSTATE 22003",
    "SQLSTATE 55P03",
    "SQLSTATE 22021",
    "counter overflow at key",
    "\"ape\"",
    "\"bee\"",
    "\"cat\"",
    "\"dög\"",
    "\"Eel\"",
];

/// The same for SQLite.
const SQLITE_WORDS: [&str; 6] = ["counter overflow", "\"ape\"", "\"bee\"", "\"cat\"", "\"dög\"", "\"Eel\""];

/// What SQLite does otherwise, and why that is right. Each must be met, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Inherent {
    /// There is one writer: `Begin` waits for another's transaction, where Postgres would wait for a row later, or never.
    OneWriter,
    /// A statement outside a transaction is the caller's mistake and fatal; with Postgres it may follow from a lost
    /// connection and is transient.
    OutsideIsFatal,
    /// A text with NUL is found when it is merged, so not where the compare-and-set has missed.
    NulIsFoundLate,
}

/// A step of a script.
#[derive(Clone, Debug)]
enum Op {
    /// A session begins a task, if it has none.
    Begin(usize, Task),
    /// A session goes on by one statement.
    Step(usize),
    /// A client is gone, whatever it was doing; another takes its place.
    HangUp(usize),
    /// The server ends a connection.
    Terminate(usize),
    /// A session's lock is not granted in time.
    TimeOut(usize),
}

#[derive(Clone, Debug)]
struct Script {
    /// Whether plans are committed with the data.
    whole: bool,
    /// Whether somebody else's row is in the table.
    foreign: bool,
    /// A ledger row that somebody has deleted.
    lost: Option<usize>,
    ops: Vec<Op>,
}

fn script() -> impl Strategy<Value = Script> {
    let op = |whole| {
        prop_oneof![
            6 => (0..SESSIONS, task(whole)).prop_map(|(session, task)| Op::Begin(session, task)),
            20 => (0..SESSIONS).prop_map(Op::Step),
            1 => (0..SESSIONS).prop_map(Op::HangUp),
            1 => (0..SESSIONS).prop_map(Op::Terminate),
        ]
    };
    let lost = prop_oneof![12 => Just(None), 1 => (0usize..6).prop_map(Some)];
    (any::<bool>(), any::<bool>(), lost)
        .prop_flat_map(move |(whole, foreign, lost)| {
            let ops = prop::collection::vec(op(whole), 40..90);
            (Just(whole), Just(foreign), Just(lost), ops)
        })
        .prop_map(|(whole, foreign, lost, ops)| Script { whole, foreign, lost, ops })
}

#[test]
fn the_fake_of_sql_answers_as_postgres_does() {
    let servers = Mutex::new(Vec::new());
    for _ in 0..LANES {
        let Some(server) = RUNTIME.block_on(Server::postgres()) else { return };
        servers.lock().unwrap().push(server);
    }
    run(&servers, 120);
}

#[test]
fn the_fake_of_sql_answers_as_sqlite_does_but_for_what_is_inherent() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Mutex::new(Vec::new());
    for lane in 0..LANES {
        servers.lock().unwrap().push(RUNTIME.block_on(Server::sqlite(folder.path().join(format!("{lane}.db")))));
    }
    let mut met = run(&servers, 400);
    // Too rare to be left to chance.
    let rare = Script {
        whole: false,
        foreign: false,
        lost: None,
        ops: vec![Op::Begin(0, program::missing_with_nul()), Op::Step(0), Op::Step(0)],
    };
    met.extend(play(&mut servers.lock().unwrap()[0], &rare).unwrap());
    let declared = BTreeSet::from([Inherent::OneWriter, Inherent::OutsideIsFatal, Inherent::NulIsFoundLate]);
    assert_eq!(met, declared, "met, and declared");
}

#[test]
fn a_lock_that_is_not_granted_in_time_ends_the_wait_or_those_who_hold_it() {
    // Each takes the five seconds that Postgres waits.
    std::thread::scope(|scope| {
        let held =
            || program::look_and_stay().into_iter().map(|task| Op::Begin(0, task)).chain([Op::Step(0), Op::Step(0)]);
        let gives_up = [Op::Begin(1, program::prepare()), Op::Step(1), Op::TimeOut(1), Op::Step(1)];
        // A raise comes on the newest connection, and what it ends finds out at its commit.
        let ends_others = [
            vec![Op::Begin(2, program::raise()), Op::Step(2), Op::TimeOut(2)],
            (0..6).map(|_| Op::Step(2)).collect(),
            vec![Op::Begin(0, program::stray_commit())],
        ];
        for ops in [held().chain(gives_up).collect::<Vec<_>>(), held().chain(ends_others.concat()).collect()] {
            scope.spawn(move || {
                let Some(mut server) = RUNTIME.block_on(Server::postgres()) else { return };
                let script = Script { whole: false, foreign: false, lost: None, ops };
                play(&mut server, &script).unwrap();
            });
        }
    });
}

const LANES: u32 = 4;

/// Runs scripts, each on one of the servers; which inherent differences were met.
fn run(servers: &Mutex<Vec<Server>>, cases: u32) -> BTreeSet<Inherent> {
    let met = Mutex::new(BTreeSet::new());
    scripts(file!(), LANES, cases, script, |script| {
        let mut server = servers.lock().unwrap().pop().expect("a server for each lane");
        let result = play(&mut server, script);
        servers.lock().unwrap().push(server);
        result.map(|inherent| met.lock().unwrap().extend(inherent))
    });
    met.into_inner().unwrap()
}

/// Plays one script; which inherent differences were met.
fn play(server: &mut Server, script: &Script) -> Result<Vec<Inherent>, String> {
    let mut last = Ok(Vec::new());
    for _ in 0..TRIES {
        let (result, in_time) = RUNTIME.block_on(async {
            let mut scene = Scene::new(server, script).await?;
            let played = scene.play(&script.ops).await;
            let left = scene.end().await;
            let met = std::mem::take(&mut scene.met);
            Ok::<_, String>((played.and(left).map(|()| met), scene.is_in_time()))
        })?;
        last = result;
        if in_time || last.is_ok() {
            break;
        }
    }
    last
}

/// A session on the real side.
enum Slot {
    Idle(Box<dyn Session>),
    Busy(JoinHandle<(Box<dyn Session>, Answered)>),
}

/// A session: what it does on both sides.
struct Client {
    fake: usize,
    slot: Option<Slot>,
    /// Its process, as far as it has a connection.
    pid: Option<i32>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    fake: Program,
    real: Program,
    /// What each sends next.
    next: (Statement, Statement),
    sent: bool,
}

struct Scene<'a> {
    server: &'a mut Server,
    group: GroupSpec,
    whole: bool,
    fake: FakeSql,
    clients: Vec<Client>,
    /// Where both databases were when they were last read.
    seen: (Location, Location),
    began: Instant,
    /// When the last statement was sent.
    sent: Instant,
    /// Since when some statement has waited, on both sides.
    waiting_since: Option<Instant>,
    /// The longest of these waits that is over.
    waited: Duration,
    /// SQLite: whose `Begin` waits for another's transaction.
    queued: Option<usize>,
    met: Vec<Inherent>,
    transcript: Transcript,
}

impl<'a> Scene<'a> {
    async fn new(server: &'a mut Server, script: &Script) -> Result<Scene<'a>, String> {
        let group = words::group(&unique("f"));
        server.database().create(&group).await.map_err(|failure| failure.to_string())?;
        let fake = FakeSql::new(&group, server.is_postgres());
        let mut scene = Scene {
            server,
            group,
            whole: script.whole,
            fake,
            clients: Vec::new(),
            seen: Default::default(),
            began: Instant::now(),
            sent: Instant::now(),
            waiting_since: None,
            waited: Duration::ZERO,
            queued: None,
            met: Vec::new(),
            transcript: Transcript::default(),
        };
        if script.foreign {
            scene.server.put(&scene.group, ANIMALS[0], 5).await?;
            let (key, value) = ([Cell::Text(ANIMALS[0].to_owned())].into(), [Cell::BigInt(5)].into());
            scene.fake.put(StateIndex(0), &key, &value);
        }
        if let Some(lost) = script.lost {
            let at: ShardRef = scene.group.shard_refs()[lost];
            scene.server.lose_row(&scene.group, at).await?;
            scene.fake.lose_row(at);
        }
        for _ in 0..SESSIONS {
            let client = scene.connect().await?;
            scene.clients.push(client);
        }
        scene.exchange(0, Statement::Read, Statement::Read).await?;
        scene.transcript = Transcript::default();
        Ok(scene)
    }

    async fn connect(&mut self) -> Result<Client, String> {
        let before = self.server.backends().await?;
        let session = self.server.database().session(&self.group).await.map_err(|failure| failure.to_string())?;
        let after = self.server.backends().await?;
        let new = after.iter().find(|backend| before.iter().all(|known| known.pid != backend.pid));
        let pid = new.map(|backend| backend.pid);
        Ok(Client { fake: self.fake.session(), slot: Some(Slot::Idle(session)), pid, under_way: None })
    }

    /// Whether no wait was so long, and no transaction lay open for so long, that a database may have ended it.
    fn is_in_time(&self) -> bool {
        let waits = self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        self.waited.max(waits) < LOCK_TIMEOUT && self.began.elapsed() < IDLE_TIMEOUT
    }

    /// Notes whether somebody waits, on both sides.
    fn note_waits(&mut self) {
        let waits = self.fake.waiting() > 0 || self.queued.is_some();
        if let Some(since) = self.waiting_since.take() {
            self.waited = self.waited.max(since.elapsed());
            self.waiting_since = waits.then_some(since);
        } else if waits {
            self.waiting_since = Some(self.sent);
        }
    }

    async fn play(&mut self, ops: &[Op]) -> Result<(), String> {
        for op in ops {
            match op {
                Op::Begin(session, task) => self.begin(*session, task).await?,
                Op::Step(session) => self.step(*session).await?,
                Op::HangUp(session) => self.hang_up(*session).await?,
                Op::Terminate(session) => self.terminate(*session).await?,
                Op::TimeOut(session) => self.time_out(*session).await?,
            }
            self.let_the_queued_begin().await?;
        }
        Ok(())
    }

    /// Starts a task on a session that has none.
    async fn begin(&mut self, session: usize, task: &Task) -> Result<(), String> {
        let in_transaction = self.fake.in_transaction(self.clients[session].fake);
        if self.clients[session].under_way.is_some() || (matches!(task, Task::Stray(_)) && in_transaction) {
            return self.step(session).await;
        }
        let mut world = self.fake.clone();
        let peek = world.session();
        let Some(Ok(Reply::Snapshot(snapshot))) = world.execute(peek, &Statement::Read) else {
            return Err("the fake cannot be read".to_owned());
        };
        let ground = |location| Ground { snapshot: &snapshot, location, whole: self.whole };
        let (mut fake, mut real) = (ground(self.seen.0).program(task), ground(self.seen.1).program(task));
        if let (Some(first), Some(second)) = (fake.start(), real.start()) {
            self.transcript.note(format_args!("session {session} begins {task:?}"));
            self.clients[session].under_way = Some(UnderWay { fake, real, next: (first, second), sent: false });
        }
        self.step(session).await
    }

    /// Sends a session's next statement, unless it waits, or would be the second one to wait.
    async fn step(&mut self, session: usize) -> Result<(), String> {
        let Some(under_way) = self.clients[session].under_way.as_ref().filter(|under_way| !under_way.sent) else {
            return Ok(());
        };
        let (first, second) = under_way.next.clone();
        let mut world = self.fake.clone();
        let answer = world.execute(self.clients[session].fake, &first);
        // A promise that does not hold is refused before anybody's turn.
        if !self.server.is_postgres() && matches!((&first, &answer), (Statement::Begin(_), Some(Ok(_)))) {
            if self.another_writes(session) {
                return self.queue(session, second);
            }
            if self.queued.is_some() {
                return self.make_way(session).await;
            }
        }
        if answer.is_none() && self.fake.waiting() > 0 {
            return Ok(());
        }
        self.exchange(session, first, second).await
    }

    fn another_writes(&self, session: usize) -> bool {
        (0..SESSIONS).any(|other| other != session && self.fake.in_transaction(self.clients[other].fake))
    }

    /// SQLite: a `Begin` that must wait until another's transaction has ended.
    fn queue(&mut self, session: usize, statement: Statement) -> Result<(), String> {
        if self.queued.is_some() {
            return Ok(());
        }
        self.transcript.note(format_args!("session {session} waits with {statement:?} for its turn to write"));
        self.met.push(Inherent::OneWriter);
        self.send(session, statement);
        self.queued = Some(session);
        self.note_waits();
        if let Some(under_way) = &mut self.clients[session].under_way {
            under_way.sent = true;
        }
        Ok(())
    }

    /// SQLite: who begins anew while another one waits ends its transaction first; the other one comes next.
    async fn make_way(&mut self, session: usize) -> Result<(), String> {
        let under_way = self.clients[session].under_way.take();
        self.exchange(session, Statement::Rollback, Statement::Rollback).await?;
        self.clients[session].under_way = under_way;
        Ok(())
    }

    async fn let_the_queued_begin(&mut self) -> Result<(), String> {
        let Some(session) = self.queued else { return Ok(()) };
        if self.another_writes(session) {
            return match self.finished(session) {
                true => Err(self.transcript.differ("a second writer", "one at a time", "its transaction has begun")),
                false => Ok(()),
            };
        }
        self.queued = None;
        self.note_waits();
        let Some(under_way) = &self.clients[session].under_way else { return Ok(()) };
        let first = under_way.next.0.clone();
        let answer = self.fake.execute(self.clients[session].fake, &first);
        self.settle(session, &first, answer).await
    }

    fn send(&mut self, session: usize, statement: Statement) {
        self.sent = Instant::now();
        let client = &mut self.clients[session];
        if let Some(Slot::Idle(mut session)) = client.slot.take() {
            client.slot = Some(Slot::Busy(RUNTIME.spawn(async move {
                let answer = session.execute(&statement).await;
                (session, answer)
            })));
        }
    }

    fn finished(&self, session: usize) -> bool {
        matches!(&self.clients[session].slot, Some(Slot::Busy(task)) if task.is_finished())
    }

    /// Sends a statement on both sides and compares what comes of it, to this session and to those that waited.
    async fn exchange(&mut self, session: usize, first: Statement, second: Statement) -> Result<(), String> {
        if let Some(under_way) = &mut self.clients[session].under_way {
            under_way.sent = true;
        }
        self.send(session, second);
        let answer = self.fake.execute(self.clients[session].fake, &first);
        self.settle(session, &first, answer).await
    }

    async fn settle(&mut self, session: usize, statement: &Statement, answer: Option<Answered>) -> Result<(), String> {
        let operation = format!("session {session}: {statement:?}");
        if answer.is_none() {
            self.transcript.note(format_args!("{operation}: waits"));
        }
        let mut answers: BTreeMap<usize, Answered> = answer.map(|answer| (session, answer)).into_iter().collect();
        self.await_the_same(&operation, &mut answers).await?;
        for (session, fake) in answers {
            self.answered(session, fake).await?;
        }
        Ok(())
    }

    /// Adds what is released, and waits until the service has come as far as the fake.
    async fn await_the_same(&mut self, operation: &str, answers: &mut BTreeMap<usize, Answered>) -> Result<(), String> {
        for (fake, answer) in self.fake.released() {
            let session = self.clients.iter().position(|client| client.fake == fake);
            answers.insert(session.ok_or("nobody's answer")?, answer);
        }
        let deadline = Instant::now() + DEADLINE;
        let mut waits_in_vain = None;
        self.note_waits();
        loop {
            let come = answers.keys().all(|session| self.finished(*session));
            let backends = self.server.backends().await?;
            let waiting = backends.iter().filter(|backend| backend.waits).count();
            if come && (waiting == self.fake.waiting() || !self.server.is_postgres()) {
                return Ok(());
            }
            self.nobody_else_is_answered(operation, answers).await?;
            if waiting < self.fake.waiting() && !self.is_in_time() {
                return Err(self.transcript.differ(operation, "somebody waits", backends));
            }
            let since = *waits_in_vain.get_or_insert_with(Instant::now);
            if waiting <= self.fake.waiting() {
                waits_in_vain = None;
            }
            if Instant::now() > deadline || (waits_in_vain.is_some() && since.elapsed() > PATIENCE) {
                let fake = format!("{} wait, and these are answered: {answers:?}", self.fake.waiting());
                return Err(self.transcript.differ(operation, fake, backends));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Who waits on the fake waits on the service.
    async fn nobody_else_is_answered(
        &mut self,
        operation: &str,
        answers: &BTreeMap<usize, Answered>,
    ) -> Result<(), String> {
        let early = |session: &usize| {
            self.finished(*session) && !answers.contains_key(session) && self.queued != Some(*session)
        };
        let Some(session) = (0..SESSIONS).find(early) else { return Ok(()) };
        let Some(Slot::Busy(task)) = self.clients[session].slot.take() else { return Err("no task".to_owned()) };
        let answer = task.await.map_err(|error| error.to_string())?.1;
        Err(self.transcript.differ(operation, format!("session {session} waits"), answer))
    }

    /// Compares two answers to a session and lets its task go on.
    async fn answered(&mut self, session: usize, fake: Answered) -> Result<(), String> {
        let Some(Slot::Busy(task)) = self.clients[session].slot.take() else {
            return Err(format!("session {session} was asked nothing"));
        };
        let (idle, real) = task.await.map_err(|error| error.to_string())?;
        self.clients[session].slot = Some(Slot::Idle(idle));
        self.compare(session, &fake, &real).await?;
        self.note_locations(&fake, &real)?;
        if let (Err(failure), Some(pid)) = (&real, self.clients[session].pid)
            && failure.kind == FailureKind::Behind
        {
            // Postgres's session looks for another server then.
            self.until_gone(pid).await?;
        }
        self.note_process(session).await?;
        let Some(mut under_way) = self.clients[session].under_way.take() else { return Ok(()) };
        match (under_way.fake.step(fake), under_way.real.step(real)) {
            (Ok(first), Ok(second)) => {
                under_way.next = (first, second);
                under_way.sent = false;
                self.clients[session].under_way = Some(under_way);
                Ok(())
            }
            (Err(fake), Err(real)) => self.transcript.agree(format_args!("session {session} has ended"), &fake, &real),
            (fake, real) => Err(self.transcript.differ("going on", fake, real)),
        }
    }

    async fn compare(&mut self, session: usize, fake: &Answered, real: &Answered) -> Result<(), String> {
        let words: &[&'static str] = if self.server.is_postgres() { &POSTGRES_WORDS } else { &SQLITE_WORDS };
        let operation = format!("session {session} is answered");
        let result = self.transcript.agree_in(words, operation, &shown(fake), &shown(real));
        let (Err(difference), false) = (&result, self.server.is_postgres()) else { return result };
        let inherent = match (fake, real) {
            (Err(fake), Err(real))
                if (fake.kind, real.kind) == (FailureKind::Transient, FailureKind::Fatal)
                    && fake.message.contains("no transaction is open")
                    && real.message.contains("no transaction is open") =>
            {
                Inherent::OutsideIsFatal
            }
            (Err(fake), Ok(Reply::Advanced { merged: 0, .. })) if fake.kind == FailureKind::Poison => {
                Inherent::NulIsFoundLate
            }
            _ => return Err(difference.clone()),
        };
        self.met.push(inherent);
        self.transcript.note(format_args!("{inherent:?}: {real:?}"));
        if inherent == Inherent::NulIsFoundLate {
            self.give_up(session).await?;
        }
        Ok(())
    }

    /// Ends what only one side still has: a transaction and its task.
    async fn give_up(&mut self, session: usize) -> Result<(), String> {
        self.clients[session].under_way = None;
        if let Some(Slot::Idle(idle)) = &mut self.clients[session].slot {
            idle.execute(&Statement::Rollback).await.map_err(|failure| failure.to_string())?;
        }
        Ok(())
    }

    fn note_locations(&mut self, fake: &Answered, real: &Answered) -> Result<(), String> {
        if let (Ok(Reply::Snapshot(fake)), Ok(Reply::Snapshot(real))) = (fake, real) {
            let now = (fake.location, real.location);
            let on = |then: &Location, now: &Location| *then == Location::default() || now.includes(then);
            if !on(&self.seen.0, &now.0) || !on(&self.seen.1, &now.1) {
                return Err(self.transcript.differ("a place in history that went back", now.0, now.1));
            }
            self.seen = now;
        }
        Ok(())
    }

    /// Finds the process of a session that has connected anew.
    async fn note_process(&mut self, session: usize) -> Result<(), String> {
        let pids: Vec<i32> = self.server.backends().await?.iter().map(|backend| backend.pid).collect();
        for client in &mut self.clients {
            client.pid = client.pid.filter(|pid| pids.contains(pid));
        }
        let known: Vec<i32> = self.clients.iter().filter_map(|client| client.pid).collect();
        if let Some(client) = self.clients.get_mut(session)
            && client.pid.is_none()
        {
            client.pid = pids.into_iter().find(|pid| !known.contains(pid));
        }
        Ok(())
    }

    async fn hang_up(&mut self, session: usize) -> Result<(), String> {
        self.transcript.note(format_args!("client {session} hangs up"));
        self.leave(session).await?;
        let new = self.connect().await?;
        self.clients[session] = new;
        self.others_go_on(session, "after it").await
    }

    /// A client goes; what it had sent stays.
    async fn leave(&mut self, session: usize) -> Result<(), String> {
        if self.queued == Some(session) {
            self.queued = None;
        }
        let waits = self.fake.waits(self.clients[session].fake);
        self.fake.hang_up(self.clients[session].fake);
        match self.clients[session].slot.take() {
            Some(Slot::Busy(task)) => {
                task.abort();
                let _ = task.await;
            }
            idle => drop(idle),
        }
        match self.clients[session].pid.filter(|_| !waits) {
            Some(pid) => self.until_gone(pid).await,
            None => Ok(()),
        }
    }

    async fn until_gone(&mut self, pid: i32) -> Result<(), String> {
        let deadline = Instant::now() + DEADLINE;
        while self.server.backends().await?.iter().any(|backend| backend.pid == pid) {
            if Instant::now() > deadline {
                return Err(format!("process {pid} of a client that is gone stays"));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn others_go_on(&mut self, session: usize, why: &str) -> Result<(), String> {
        let mut answers = BTreeMap::new();
        self.await_the_same(&format!("session {session} {why}"), &mut answers).await?;
        for (session, fake) in answers {
            self.answered(session, fake).await?;
        }
        Ok(())
    }

    async fn terminate(&mut self, session: usize) -> Result<(), String> {
        let Some(pid) = self.clients[session].pid else { return Ok(()) };
        // A statement that finds no transaction is not asked of a server that is gone.
        if !self.fake.in_transaction(self.clients[session].fake) {
            return Ok(());
        }
        self.transcript.note(format_args!("the server ends the connection of {session}"));
        self.server.terminate(pid).await?;
        self.clients[session].pid = None;
        let lost = self.fake.terminate(self.clients[session].fake);
        let mut answers: BTreeMap<usize, Answered> = lost.map(|answer| (session, answer)).into_iter().collect();
        self.await_the_same(&format!("session {session} was ended"), &mut answers).await?;
        for (session, fake) in answers {
            self.answered(session, fake).await?;
        }
        Ok(())
    }

    async fn time_out(&mut self, session: usize) -> Result<(), String> {
        if !self.fake.waits(self.clients[session].fake) {
            return Err(self.transcript.differ("a wait that ends", "it does not wait", session));
        }
        self.transcript.note(format_args!("session {session} has waited too long"));
        let told = self.fake.time_out(self.clients[session].fake);
        let of = |fake: usize| self.clients.iter().position(|client| client.fake == fake);
        let told = told.into_iter().filter_map(|(fake, answer)| Some((of(fake)?, answer)));
        let mut answers: BTreeMap<usize, Answered> = told.collect();
        self.await_the_same(&format!("session {session} has waited too long"), &mut answers).await?;
        for (session, fake) in answers {
            self.answered(session, fake).await?;
        }
        Ok(())
    }

    /// Everybody leaves; what is left behind is compared.
    async fn end(&mut self) -> Result<(), String> {
        for session in 0..self.clients.len() {
            self.leave(session).await?;
            let _ = self.fake.released();
        }
        let deadline = Instant::now() + DEADLINE;
        while !self.server.backends().await?.is_empty() {
            if Instant::now() > deadline {
                return Err("connections stay".to_owned());
            }
            tokio::time::sleep(POLL).await;
        }
        let mut session = self.server.database().session(&self.group).await.map_err(|failure| failure.to_string())?;
        let client = self.fake.session();
        let fake = self.fake.execute(client, &Statement::Read).ok_or("a read waits")?;
        let real = session.execute(&Statement::Read).await;
        self.transcript.agree("what is left", &shown(&fake), &shown(&real))?;
        for (index, state) in (0u16..).zip(&self.group.states) {
            let (fake, real) = (self.fake.table(StateIndex(index)), self.server.table(&state.table).await?);
            self.transcript.agree(format_args!("table {index}"), &fake, &real)?;
        }
        Ok(())
    }
}

/// What of an answer is compared: everything but the place in the database's history.
fn shown(answer: &Answered) -> Result<String, tine_core::failure::Failure> {
    match answer {
        Ok(Reply::Snapshot(snapshot)) => {
            let mut snapshot = snapshot.clone();
            snapshot.location = Location::default();
            Ok(format!("{snapshot:?}"))
        }
        Ok(reply) => Ok(format!("{reply:?}")),
        Err(failure) => Err(failure.clone()),
    }
}
