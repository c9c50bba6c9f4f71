//! What must hold whenever tasks move to other workers.

use tine_core::id::{Attempt, Era, TaskId, TxId, WorkerId};

use super::{Held, rules::rule};

/// A coordinator is told of owners when each of them has said that its tasks run and that its links stand.
pub(crate) fn invariant_owners_are_ready(era: Era, ready: bool) -> Held {
    rule(ready, "invariant_owners_are_ready", || {
        format!("a coordinator goes on under {era}, and not all of its workers have said that they are ready")
    })
}

/// A leader emits and commits when it was told of the owners of its own reign, and not since that it cannot rely on them.
pub(crate) fn invariant_nothing_begins_without_owners(attempt: Attempt, owned: bool) -> Held {
    rule(owned, "invariant_nothing_begins_without_owners", || {
        format!("attempt {attempt} goes on, and its reign has no owners")
    })
}

/// Tasks take what was sent under their own era.
pub(crate) fn invariant_tasks_hear_their_own_era(frame: Era, own: Era) -> Held {
    rule(frame == own, "invariant_tasks_hear_their_own_era", || {
        format!("tasks of {own} took what was sent under {frame}")
    })
}

/// A tuple comes to the worker that runs its task: all of an era place tasks alike.
pub(crate) fn invariant_tuples_find_their_task(task: TaskId, found: bool) -> Held {
    rule(found, "invariant_tuples_find_their_task", || format!("{task} does not run where its tuple came"))
}

/// What is emitted in one attempt goes to one crew: other tasks are another generation.
pub(crate) fn invariant_an_attempt_is_of_one_crew(attempt: Attempt, same: bool) -> Held {
    rule(same, "invariant_an_attempt_is_of_one_crew", || format!("attempt {attempt} goes on with other tasks"))
}

/// When a coordinator says that nothing is under way, what it has emitted in this attempt is complete.
pub(crate) fn invariant_tasks_move_at_a_boundary(emitted: TxId, complete: TxId) -> Held {
    rule(emitted <= complete, "invariant_tasks_move_at_a_boundary", || {
        format!("tasks are to move, and transaction {emitted} is under way; {complete} is complete")
    })
}

/// A coordinator that goes on with a worker hears that the line to it broke.
pub(crate) fn invariant_a_break_is_told(peer: WorkerId, told: bool) -> Held {
    rule(told, "invariant_a_break_is_told", || {
        format!("the line to {peer} broke, and the coordinator that relies on it was not told")
    })
}

/// Before a leader assigns anew its coordinator was told that it cannot rely on its owners, or has said that nothing is under way.
pub(crate) fn invariant_owners_are_let_go_first(era: Era, let_go: bool) -> Held {
    rule(let_go, "invariant_owners_are_let_go_first", || {
        format!("{era} is assigned, and the coordinator relies on the owners before it")
    })
}
