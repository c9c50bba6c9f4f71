//! What must hold whenever tasks move to other workers.

use tine_core::id::{Attempt, Era, TaskId, TxId, WorkerId};

use super::{Broken, Held};

/// A coordinator is told of owners when each of them has said that its tasks run and that its links stand.
pub(crate) fn invariant_owners_are_ready(era: Era, ready: bool) -> Held {
    match ready {
        true => Ok(()),
        false => {
            let what =
                format!("a coordinator goes on under {era}, and not all of its workers have said that they are ready");
            Err(Broken::new("invariant_owners_are_ready", what))
        }
    }
}

/// A leader emits and commits when it was told of the owners of its own reign, and not since that it cannot rely on them.
pub(crate) fn invariant_nothing_begins_without_owners(attempt: Attempt, owned: bool) -> Held {
    match owned {
        true => Ok(()),
        false => {
            let what = format!("attempt {attempt} goes on, and its reign has no owners");
            Err(Broken::new("invariant_nothing_begins_without_owners", what))
        }
    }
}

/// Tasks take what was sent under their own era.
pub(crate) fn invariant_tasks_hear_their_own_era(frame: Era, own: Era) -> Held {
    match frame == own {
        true => Ok(()),
        false => {
            let what = format!("tasks of {own} took what was sent under {frame}");
            Err(Broken::new("invariant_tasks_hear_their_own_era", what))
        }
    }
}

/// A tuple comes to the worker that runs its task: all of an era place tasks alike.
pub(crate) fn invariant_tuples_find_their_task(task: TaskId, found: bool) -> Held {
    match found {
        true => Ok(()),
        false => {
            Err(Broken::new("invariant_tuples_find_their_task", format!("{task} does not run where its tuple came")))
        }
    }
}

/// What is emitted in one attempt goes to one crew: other tasks are another generation.
pub(crate) fn invariant_an_attempt_is_of_one_crew(attempt: Attempt, same: bool) -> Held {
    match same {
        true => Ok(()),
        false => {
            let what = format!("attempt {attempt} goes on with other tasks");
            Err(Broken::new("invariant_an_attempt_is_of_one_crew", what))
        }
    }
}

/// When a coordinator says that nothing is under way, what it has emitted in this attempt is complete.
pub(crate) fn invariant_tasks_move_at_a_boundary(emitted: TxId, complete: TxId) -> Held {
    match emitted <= complete {
        true => Ok(()),
        false => {
            let what = format!("tasks are to move, and transaction {emitted} is under way; {complete} is complete");
            Err(Broken::new("invariant_tasks_move_at_a_boundary", what))
        }
    }
}

/// A coordinator that goes on with a worker hears that the line to it broke.
pub(crate) fn invariant_a_break_is_told(peer: WorkerId, told: bool) -> Held {
    match told {
        true => Ok(()),
        false => {
            let what = format!("the line to {peer} broke, and the coordinator that relies on it was not told");
            Err(Broken::new("invariant_a_break_is_told", what))
        }
    }
}

/// Before a leader assigns anew its coordinator was told that it cannot rely on its owners, or has said that nothing is under way.
pub(crate) fn invariant_owners_are_let_go_first(era: Era, let_go: bool) -> Held {
    match let_go {
        true => Ok(()),
        false => {
            let what = format!("{era} is assigned, and the coordinator relies on the owners before it");
            Err(Broken::new("invariant_owners_are_let_go_first", what))
        }
    }
}
