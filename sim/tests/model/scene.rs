//! What there is to count in a model, what may go wrong, and the steps.

use super::database::BackendId;

/// What there is to count, and what may go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) records: u64,
    pub(crate) faults: u8,
    pub(crate) kinds: &'static [Kind],
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Crash,
    Expire,
    LoseConnection,
    Fail,
    Restore,
    /// A driver runs a commit again, which was done before.
    Repeat,
    /// A ledger row is lost by hand.
    LoseRow,
    /// The ledger comes from a copy with another history.
    ForeignHistory,
    /// Database and coordination both go back to before the last raise.
    GoBack,
}

impl Kind {
    /// Crashes, takeovers, lost answers, aborts, wiped and restored coordination.
    pub(crate) const USUAL: &[Kind] = &[Kind::Crash, Kind::Expire, Kind::LoseConnection, Kind::Fail, Kind::Restore];

    /// Those, and what only hands do.
    pub(crate) const ALL: &[Kind] = &[
        Kind::Crash,
        Kind::Expire,
        Kind::LoseConnection,
        Kind::Fail,
        Kind::Restore,
        Kind::Repeat,
        Kind::LoseRow,
        Kind::ForeignHistory,
    ];
}

/// Something arrives, or goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A process is elected.
    Elect(usize),
    /// A process hears that it leads no longer.
    News(usize),
    /// Coordination ends the session of a life that is over.
    Forget,
    /// The next packet from a process to the other arrives.
    Deliver(usize),
    /// The database executes the statement of a backend.
    Execute(BackendId),
    /// A raise that waits ends those who hold what it waits for.
    EndHolders(BackendId),
    /// The server notices that a client is gone.
    Terminate(BackendId),
    /// Nothing else can happen: the oldest tree that a process waits for times out.
    TimeOut(usize),
    /// Fault: a process dies, and starts again without its memory.
    Crash(usize),
    /// Fault: coordination ends a leader's session without reason.
    Expire,
    /// Fault: a session's connection is lost; what it had sent may yet be executed.
    LoseConnection(usize, usize),
    /// Fault: the attempt of a leader fails.
    Fail(usize),
    /// Fault: coordination loses everything, or what it has got since the last claim.
    Restore(bool),
    /// Fault: the committer of a process runs the order before the last one again.
    Repeat(usize),
    /// Fault: somebody deletes a ledger row.
    LoseRow(usize),
    /// Fault: somebody puts a ledger with another history in the place of this one.
    ForeignHistory,
    /// Fault: database and coordination are restored from copies of the same moment; connections and sessions end.
    GoBack,
}

impl Action {
    /// Whether it is something that goes wrong.
    pub(crate) fn is_fault(self) -> bool {
        use Action::{Crash, Expire, Fail, ForeignHistory, GoBack, LoseConnection, LoseRow, Repeat, Restore};
        matches!(
            self,
            Crash(_)
                | Expire
                | LoseConnection(..)
                | Fail(_)
                | Restore(_)
                | Repeat(_)
                | LoseRow(_)
                | ForeignHistory
                | GoBack
        )
    }
}
