//! How tasks come to this worker and leave it. Nothing here waits for a task: an instance that is in the hands of user code ends
//! by itself when that returns.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{Driver, GROUP, PAUSE, Running, Told};
use crate::{
    cluster::{body::Control, courier},
    engine::{
        crews::Crew,
        shared::Phase,
        task::{Task, said},
    },
    failure::{Failure, FailureKind},
    id::{TaskId, WorkerId},
    membership::{Assignment, Event},
};

impl Driver {
    pub(super) fn start(&mut self, assignment: Assignment) {
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
        // Whoever is gone may have taken in what is nobody's now, even where no task had its home there any more.
        let mut were_of_it = self.running.iter().flat_map(|running| &running.assignment.shares);
        let one_is_gone = were_of_it.any(|share| assignment.place(share.peer.id).is_none());
        self.moved |= one_is_gone || before.as_ref() != Some(&homes);
        // First those that leave, so that nobody reads the queues of two tasks with one number.
        self.leave_tasks(|task| was_here(task) && !is_here(task));
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
        let here: Vec<TaskId> =
            (0..homes.len()).filter(|task| is_here(*task)).map(|task| TaskId(task as u32)).collect();
        self.start_tasks(&here, |task| !was_here(task));
        let (all, workers) = (homes.len(), assignment.shares.len());
        tracing::info!(
            target: "tine::core", "{} of {all} tasks run here, on one of {workers} workers ({})", here.len(), assignment.era
        );
        self.part.run(here);
        self.running = Some(Running { assignment, me });
    }

    pub(super) fn stop(&mut self) {
        if let (Some(before), Some(Running { assignment, me })) = (self.house.homes(), self.running.take()) {
            self.leave_tasks(|task| before[task] == me.id);
            if let Some(transport) = self.house.transport() {
                transport.follow(&me, &[]);
            }
            self.part.run(Vec::new());
            tracing::info!(target: "tine::core", "no tasks here any more ({})", assignment.era);
        }
        (self.settled, self.moved) = (false, true);
        for peer in self.house.vacate() {
            self.house.close_desk(peer);
        }
        if self.leaving.is_some() {
            self.shared().enter(Phase::Stopped);
        }
    }

    /// Tells the instances of these tasks that they run elsewhere.
    fn leave_tasks(&self, leaves: impl Fn(usize) -> bool) {
        let leaving = self.house.layout.seats.iter().enumerate().filter(|(task, _)| leaves(*task));
        leaving.for_each(|(_, seat)| seat.bell.move_away());
    }

    /// Makes those of the tasks here that are new, and starts them.
    fn start_tasks(&self, here: &[TaskId], is_new: impl Fn(usize) -> bool) {
        let layout = &self.house.layout;
        for (component, of) in layout.components.iter().enumerate() {
            let all = here.iter().filter(|task| layout.seats[task.0 as usize].component == component);
            // What makes them is the user's.
            let made = catch_unwind(AssertUnwindSafe(|| {
                all.filter(|task| is_new(task.0 as usize)).map(|task| layout.make(*task)).collect::<Vec<_>>()
            }));
            let tasks: Vec<Box<dyn Task>> = match made {
                Ok(tasks) => tasks,
                Err(panic) => {
                    let what = format!("a task of {:?} cannot be made: it panicked: {}", of.name, said(&*panic));
                    return layout.shared.refuse(Failure::fatal(what));
                }
            };
            if tasks.is_empty() {
                continue;
            }
            layout.shared.expect(of.is_spout, tasks.len());
            let executors = (of.executors * tasks.len()).div_ceil(of.tasks);
            if let Err(error) = self.crews.add(&of.name, Crew { tasks, executors }) {
                layout.shared.refuse(Failure::fatal(error.to_string()));
            }
        }
    }

    pub(super) fn write(&self, assignment: Assignment) {
        let (reign, ear) = (self.reigning.borrow().clone(), self.part.ear());
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

    /// All workers run their tasks of this assignment, and none sends to where tasks were before. Said under the number of before
    /// only if tasks have moved nowhere.
    pub(super) async fn settle(&mut self, assignment: &Assignment) {
        let workers = assignment.shares.len();
        tracing::info!(target: "tine::core", "{workers} workers share the work ({})", assignment.era);
        let moved = std::mem::take(&mut self.moved_elsewhere) || self.moved;
        let token = self.token.filter(|_| !moved).unwrap_or_else(rand::random);
        self.settled = true;
        self.ending.begin();
        for peer in self.peers() {
            self.say_later(peer, assignment.era, &Control::Settled(token));
        }
        self.settled_under(token).await;
    }

    /// Until everybody had followed, tuples may have gone to tasks that had moved, or to a worker that is gone: every tree
    /// fails that may have had such a one. Earlier would be too early, for trees that were planted meanwhile.
    pub(super) async fn settled_under(&mut self, token: u64) {
        let Some(Running { assignment, me }) = &self.running else { return };
        if self.token.replace(token) != Some(token) {
            self.house.fail_all(me.id, &Failure::transient("tasks have moved to other workers"));
        }
        self.moved = false;
        if let Some(homes) = self.house.homes() {
            self.part.show(me, assignment, &homes);
        }
        if let Some(order) = self.unsaid.take() {
            self.command(order).await;
        }
    }
}
