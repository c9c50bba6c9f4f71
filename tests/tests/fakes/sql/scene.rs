//! A script under way on both sides: sessions, what each does next, and what it sends.

use std::time::{Duration, Instant};

use tine_sim::{
    Cell,
    fakes::sql::{Answered, FakeSql},
};
use tine_state::{GroupSpec, Location, Reply, Session, ShardRef, StateIndex, Statement};
use tine_tests::services::unique;
use tokio::task::JoinHandle;

use super::{
    Inherent, Op, SESSIONS, Script,
    program::{Ground, Program, Task},
    server::Server,
    words::{self, ANIMALS},
};
use crate::agree::{RUNTIME, Transcript};

/// A second less than the databases wait for a lock: until then none can have given up, or ended those who hold it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(4);

/// A second less than Postgres lets a transaction lie open without a statement.
const IDLE_TIMEOUT: Duration = Duration::from_secs(9);

/// A session on the real side.
pub(super) enum Slot {
    Idle(Box<dyn Session>),
    Busy(JoinHandle<(Box<dyn Session>, Answered)>),
}

/// A session: what it does on both sides.
pub(super) struct Client {
    pub(super) fake: usize,
    pub(super) slot: Option<Slot>,
    /// Its process, as far as it has a connection.
    pub(super) pid: Option<i32>,
    /// The processes that were there before it was last asked something: none of them is one that it has started since.
    pub(super) before: Vec<i32>,
    pub(super) under_way: Option<UnderWay>,
}

pub(super) struct UnderWay {
    pub(super) fake: Program,
    pub(super) real: Program,
    /// What each sends next.
    pub(super) next: (Statement, Statement),
    pub(super) sent: bool,
}

pub(super) struct Scene<'a> {
    pub(super) server: &'a mut Server,
    pub(super) group: GroupSpec,
    pub(super) whole: bool,
    pub(super) fake: FakeSql,
    pub(super) clients: Vec<Client>,
    /// Where both databases were when they were last read.
    pub(super) seen: (Location, Location),
    pub(super) began: Instant,
    /// When the last statement was sent.
    pub(super) sent: Instant,
    /// Since when some statement has waited, on both sides.
    pub(super) waiting_since: Option<Instant>,
    /// The longest of these waits that is over.
    pub(super) waited: Duration,
    /// SQLite: whose `Begin` waits for another's transaction.
    pub(super) queued: Option<usize>,
    pub(super) met: Vec<Inherent>,
    pub(super) transcript: Transcript,
}

impl<'a> Scene<'a> {
    pub(super) async fn new(server: &'a mut Server, script: &Script) -> Result<Scene<'a>, String> {
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

    pub(super) async fn connect(&mut self) -> Result<Client, String> {
        let before = self.server.backends().await?;
        let session = self.server.database().session(&self.group).await.map_err(|failure| failure.to_string())?;
        let after = self.server.backends().await?;
        let new = after.iter().find(|backend| before.iter().all(|known| known.pid != backend.pid));
        let pid = new.map(|backend| backend.pid);
        Ok(Client {
            fake: self.fake.session(),
            slot: Some(Slot::Idle(session)),
            pid,
            before: Vec::new(),
            under_way: None,
        })
    }

    /// Whether no wait was so long, and no transaction lay open for so long, that a database may have ended it.
    pub(super) fn is_in_time(&self) -> bool {
        let waits = self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        self.waited.max(waits) < LOCK_TIMEOUT && self.began.elapsed() < IDLE_TIMEOUT
    }

    /// Notes whether somebody waits, on both sides.
    pub(super) fn note_waits(&mut self) {
        let waits = self.fake.waiting() > 0 || self.queued.is_some();
        if let Some(since) = self.waiting_since.take() {
            self.waited = self.waited.max(since.elapsed());
            self.waiting_since = waits.then_some(since);
        } else if waits {
            self.waiting_since = Some(self.sent);
        }
    }

    pub(super) async fn play(&mut self, ops: &[Op]) -> Result<(), String> {
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

    pub(super) fn send(&mut self, session: usize, statement: Statement) {
        self.sent = Instant::now();
        let client = &mut self.clients[session];
        if let Some(Slot::Idle(mut session)) = client.slot.take() {
            client.slot = Some(Slot::Busy(RUNTIME.spawn(async move {
                let answer = session.execute(&statement).await;
                (session, answer)
            })));
        }
    }

    pub(super) fn finished(&self, session: usize) -> bool {
        matches!(&self.clients[session].slot, Some(Slot::Busy(task)) if task.is_finished())
    }

    /// Sends a statement on both sides and compares what comes of it, to this session and to those that waited.
    pub(super) async fn exchange(&mut self, session: usize, first: Statement, second: Statement) -> Result<(), String> {
        if let Some(under_way) = &mut self.clients[session].under_way {
            under_way.sent = true;
        }
        self.clients[session].before = self.pids().await?;
        self.send(session, second);
        let answer = self.fake.execute(self.clients[session].fake, &first);
        self.settle(session, &first, answer).await
    }
}
