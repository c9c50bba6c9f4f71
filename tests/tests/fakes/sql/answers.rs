//! What both sides answer, and whether it is the same: replies, who waits, who goes on.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tine_core::failure::{Failure, FailureKind};
use tine_sim::fakes::sql::Answered;
use tine_state::{Location, Reply, Statement};

use super::{
    Inherent, SESSIONS,
    scene::{Scene, Slot},
};
use crate::agree::DEADLINE;

/// How long a session may be seen waiting for a lock that the fake gives it, before that is a difference; more than
/// Postgres itself waits, also where others compile.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often the server is looked at.
pub(super) const POLL: Duration = Duration::from_millis(1);

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

impl Scene<'_> {
    pub(super) async fn settle(
        &mut self,
        session: usize,
        statement: &Statement,
        answer: Option<Answered>,
    ) -> Result<(), String> {
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
    pub(super) async fn await_the_same(
        &mut self,
        operation: &str,
        answers: &mut BTreeMap<usize, Answered>,
    ) -> Result<(), String> {
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
    pub(super) async fn answered(&mut self, session: usize, fake: Answered) -> Result<(), String> {
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

    pub(super) async fn pids(&mut self) -> Result<Vec<i32>, String> {
        Ok(self.server.backends().await?.iter().map(|backend| backend.pid).collect())
    }

    /// Finds the process of a session that has connected anew. One that was there before may be that of a client that is gone.
    async fn note_process(&mut self, session: usize) -> Result<(), String> {
        let pids = self.pids().await?;
        for client in &mut self.clients {
            client.pid = client.pid.filter(|pid| pids.contains(pid));
        }
        let known: Vec<i32> = self.clients.iter().filter_map(|client| client.pid).collect();
        if let Some(client) = self.clients.get_mut(session)
            && client.pid.is_none()
        {
            client.pid = pids.into_iter().find(|pid| !known.contains(pid) && !client.before.contains(pid));
        }
        Ok(())
    }
}

/// What of an answer is compared: everything but the place in the database's history.
pub(super) fn shown(answer: &Answered) -> Result<String, Failure> {
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
