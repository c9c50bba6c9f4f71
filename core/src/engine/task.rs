//! A task as its executor sees it, and how user code is called.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use super::links::Links;
use crate::failure::Failure;

/// What a task says after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It did something: another turn soon.
    Worked,
    /// Nothing to do until its bell rings, or for so long.
    Idle(Option<Duration>),
}

/// One spout or bolt with everything around it. It never waits: what finds no room is kept, and the bell rings.
pub(crate) trait Task: Send {
    /// Whether the task runs elsewhere by now: this instance is to be closed.
    fn has_moved(&self) -> bool;

    /// The calling thread runs the task from now on.
    fn attach(&self);

    /// One turn.
    fn step(&mut self) -> Step;

    /// The topology ends, or the task goes to another worker.
    fn close(&mut self);

    /// After `close`, when the topology goes on: whatever it had in its hands is nobody's any more.
    fn leave(&mut self);

    /// A turn ended in a panic that no call of user code is to blame for: the task cannot go on, nor can the topology.
    fn broke(&self, panic: Box<dyn Any + Send>);
}

/// Calls user code. A panic is an error of the component: counted, reported, and answered as a failure.
pub(crate) fn guarded<R>(links: &Links, what: &str, call: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(failure)) => {
            links.report(&failure);
            Err(failure)
        }
        Err(panic) => Err(panicked(links, what, panic)),
    }
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// Counts and reports a panic.
pub(crate) fn panicked(links: &Links, what: &str, panic: Box<dyn Any + Send>) -> Failure {
    let failure = Failure::poison(format!("{what} panicked: {}", said(&*panic)));
    links.shared.panicked(&links.meter, &failure);
    failure
}
