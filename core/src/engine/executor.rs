//! An executor: a thread that gives its tasks their turns, all tasks of one component.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    shared::{Phase, Shared},
    task::{Step, Task, said},
};

/// Turns without work before a thread sleeps; in between it lets others run. Falling asleep and being woken costs some
/// microseconds of both sides, so a short lull is waited out.
const LULLS: u32 = 3;

// What an executor is told. Whether it retires or stays is settled by whoever changes `RETIRE` first.
const RUN: u8 = 0;
const RETIRE: u8 = 1;
const RETIRED: u8 = 2;

/// A running executor.
pub(crate) struct Executor {
    order: Arc<AtomicU8>,
    thread: JoinHandle<Vec<Box<dyn Task>>>,
}

impl Executor {
    /// Starts a thread for these tasks. It ends when all of them have moved to other workers.
    pub(crate) fn start(name: String, tasks: Vec<Box<dyn Task>>, shared: Arc<Shared>) -> std::io::Result<Executor> {
        let order = Arc::new(AtomicU8::new(RUN));
        let obeyed = Arc::clone(&order);
        let span = tracing::info_span!(target: "tine::core", "executor", topology = %shared.topology, name = %name);
        let run = move || span.in_scope(|| run(tasks, &shared, &obeyed));
        Ok(Executor { order, thread: thread::Builder::new().name(name).spawn(run)? })
    }

    /// Asks the thread to give its tasks back; their turn ends first.
    pub(crate) fn retire(&self) {
        self.order.store(RETIRE, Ordering::Release);
        self.thread.thread().unpark();
    }

    /// Takes that back; whether it does stay: otherwise it gives back its tasks.
    pub(crate) fn keep(&self) -> bool {
        !self.has_ended() && obey(&self.order, RETIRE, RUN)
    }

    /// Whether the thread has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread's end, and takes the tasks that it gives back.
    pub(crate) fn join(self) -> Vec<Box<dyn Task>> {
        self.thread.join().unwrap_or_default()
    }
}

/// A thread that sleeps for a time is to wake then: Linux may let it sleep 50 µs longer, to wake several threads at once. Refused,
/// nothing is wrong but the time.
fn sleep_exactly() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

fn run(mut tasks: Vec<Box<dyn Task>>, shared: &Shared, order: &AtomicU8) -> Vec<Box<dyn Task>> {
    sleep_exactly();
    tasks.iter().for_each(|task| task.attach());
    let mut lulls = 0;
    while shared.phase() != Phase::Stopped {
        if order.load(Ordering::Acquire) == RETIRE && obey(order, RETIRE, RETIRED) {
            return tasks;
        }
        while let Some(moved) = tasks.iter().position(|task| task.has_moved()) {
            leave(tasks.remove(moved));
        }
        if tasks.is_empty() {
            return tasks;
        }
        let mut worked = false;
        let mut wait: Option<Duration> = None;
        for task in &mut tasks {
            match catch_unwind(AssertUnwindSafe(|| task.step())) {
                Ok(Step::Worked) => worked = true,
                Ok(Step::Idle(pause)) => wait = wait.into_iter().chain(pause).min(),
                Err(panic) => task.broke(panic),
            }
        }
        lulls = if worked { 0 } else { lulls + 1 };
        match wait {
            _ if worked => {}
            _ if lulls <= LULLS => thread::yield_now(),
            Some(pause) => thread::park_timeout(pause),
            None => thread::park(),
        }
    }
    tasks.iter_mut().for_each(|task| task.close());
    Vec::new()
}

fn obey(order: &AtomicU8, told: u8, done: u8) -> bool {
    order.compare_exchange(told, done, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Ends an instance that has moved.
fn leave(mut task: Box<dyn Task>) {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        task.close();
        task.leave();
    }));
    if let Err(panic) = ended {
        task.broke(panic);
    }
    // `Drop` is the user's too, and others share this thread.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(task))) {
        tracing::error!(target: "tine::core", "a task that has moved panicked when it was dropped: {}", said(&*panic));
    }
}
