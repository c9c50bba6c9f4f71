//! What [`Running`](crate::engine::Running) has of its membership: a way to tell the driver something, and a view of the workers.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::sync::mpsc;

use super::{WorkerFigures, body::Order, ear::Told};
use crate::{
    id::{TaskId, WorkerId},
    membership::Assignment,
    transport::Peer,
};

pub(crate) struct Part {
    ear: mpsc::Sender<Told>,
    view: Mutex<View>,
}

#[derive(Default)]
struct View {
    here: Vec<TaskId>,
    workers: Vec<WorkerFigures>,
}

impl Part {
    pub(super) fn new(ear: mpsc::Sender<Told>) -> Part {
        Part { ear, view: Mutex::default() }
    }

    pub(super) fn ear(&self) -> mpsc::Sender<Told> {
        self.ear.clone()
    }

    /// All workers do so.
    pub(crate) fn order(&self, order: Order) {
        self.tell(Told::Order(order));
    }

    /// The topology ends on all workers, at once.
    pub(crate) fn kill(&self) {
        self.tell(Told::Kill);
    }

    /// This worker gives its tasks to the others, and ends.
    pub(crate) fn leave(&self) {
        self.tell(Told::Leave);
    }

    /// Whether a task runs here.
    pub(crate) fn runs(&self, task: TaskId) -> bool {
        self.lock().here.contains(&task)
    }

    /// Who runs what, since all workers have been ready last.
    pub(crate) fn workers(&self) -> Vec<WorkerFigures> {
        self.lock().workers.clone()
    }

    /// These tasks run here from now on.
    pub(super) fn run(&self, here: Vec<TaskId>) {
        let mut view = self.lock();
        if here.is_empty() {
            view.workers.clear();
        }
        view.here = here;
    }

    /// All workers are ready.
    pub(super) fn show(&self, me: &Peer, assignment: &Assignment, homes: &[WorkerId]) {
        let figures = |peer: &Peer| {
            let tasks = homes.iter().enumerate().filter(|(_, home)| **home == peer.id);
            let tasks = tasks.map(|(task, _)| TaskId(task as u32)).collect();
            WorkerFigures { address: peer.address.clone(), is_here: peer.id == me.id, tasks }
        };
        self.lock().workers = assignment.shares.iter().map(|share| figures(&share.peer)).collect();
    }

    /// A driver that has ended needs no telling; one that is busy hears it a little later.
    fn tell(&self, mut told: Told) {
        while let Err(mpsc::error::TrySendError::Full(back)) = self.ear.try_send(told) {
            told = back;
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
