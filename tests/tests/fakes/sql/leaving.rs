//! Sessions that end, by the client, by the server or by a limit of time, and what is left when all have gone.

use std::{collections::BTreeMap, time::Instant};

use tine_sim::fakes::sql::Answered;
use tine_state::{StateIndex, Statement};

use super::{
    answers::{POLL, shown},
    scene::{Scene, Slot},
};
use crate::agree::DEADLINE;

impl Scene<'_> {
    pub(super) async fn hang_up(&mut self, session: usize) -> Result<(), String> {
        self.transcript.note(format_args!("client {session} hangs up"));
        self.leave(session).await?;
        let new = self.connect().await?;
        self.clients[session] = new;
        self.others_go_on(session, "after it").await
    }

    /// A client goes; what it had sent stays.
    pub(super) async fn leave(&mut self, session: usize) -> Result<(), String> {
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

    pub(super) async fn until_gone(&mut self, pid: i32) -> Result<(), String> {
        let deadline = Instant::now() + DEADLINE;
        while self.server.backends().await?.iter().any(|backend| backend.pid == pid) {
            if Instant::now() > deadline {
                return Err(format!("process {pid} of a client that is gone stays"));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    pub(super) async fn others_go_on(&mut self, session: usize, why: &str) -> Result<(), String> {
        let mut answers = BTreeMap::new();
        self.await_the_same(&format!("session {session} {why}"), &mut answers).await?;
        for (session, fake) in answers {
            self.answered(session, fake).await?;
        }
        Ok(())
    }

    pub(super) async fn terminate(&mut self, session: usize) -> Result<(), String> {
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

    pub(super) async fn time_out(&mut self, session: usize) -> Result<(), String> {
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
    pub(super) async fn end(&mut self) -> Result<(), String> {
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
