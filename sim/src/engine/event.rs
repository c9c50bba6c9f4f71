//! What can happen in the world, and to whom.

use tine_core::{
    acker::{AckerEvent, TreeEnd},
    coordination::GroupRecord,
    failure::Failure,
    id::{Attempt, Nonce, TxId},
    tuple::{Root, Tuple},
};
use tine_state::{Reply, Statement};
use tine_trident::{
    committer::CommitterReply,
    emitter::ReadCall,
    message::{Message, Note},
    plan::Positions,
    stage_bolt::StageReply,
};

use crate::{coordination::Write, sql::BackendId};

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something arrives at a process, or a timer of it goes off.
    Node { node: usize, life: u32, what: Inbound },
    /// A statement arrives at the database.
    Sql { backend: BackendId, from: Address, statement: Statement },
    /// The server has noticed that a client is gone.
    BackendGone(BackendId),
    /// A statement has waited long enough for a lock.
    LockTimeout(BackendId, Address),
    /// Time to look whether a transaction lies idle.
    IdleCheck(BackendId),
    /// A candidate arrives at coordination (embedded: at the database's lock).
    Candidate { node: usize, life: u32, nonce: Nonce },
    /// A request of a session arrives at coordination.
    Ask { session: usize, asked: u64, request: Request },
    /// A candidate is to be told that it leads.
    News { session: usize },
    /// Time to look whether a session has been out of reach all the time since then.
    Expire { session: usize, since_us: u64 },
    /// A fault begins or ends.
    Fault(usize, bool),
    /// A process dies in the middle of what it does, by a fault.
    Die(usize, usize),
    /// A process that slept finds out that shards have moved meanwhile.
    CatchUp(usize),
    /// The sources grow.
    Grow,
    /// Everything is repaired.
    Heal,
}

/// What a session asks of coordination.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// The record.
    Read,
    /// A conditional write.
    Write(Write),
    /// Whether the last write, whose answer was lost, stands.
    Settle,
}

/// A process's session that waits for the answer to a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) node: usize,
    pub(crate) life: u32,
    pub(crate) lane: usize,
    pub(crate) sent: u64,
}

/// What goes over a link between two processes.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    ToEmitter(Tuple<Message>),
    /// To the stage task of a level.
    ToStage(usize, Tuple<Message>),
    ToCommitter(Tuple<Message>),
    Report(AckerEvent<Note>),
}

/// What arrives at a process.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// From another process or itself.
    Packet(Packet),
    /// A tree of its coordinator has ended.
    Ended(Root, TreeEnd<Note>),
    /// A quarter of the message timeout has passed.
    AckerTick,
    /// A read is done: the records are read and the operators run at this moment.
    Read(ReadCall),
    /// The stages of a level are done with a batch.
    Staged(usize, StageReply),
    /// A fold is done.
    Folded(CommitterReply),
    /// The answer to a statement; whether the client drops the connection.
    Sql { lane: usize, sent: u64, answer: Result<Reply, Failure>, drop: bool },
    /// A session was opened for a candidate.
    Opened { nonce: Nonce, session: usize },
    /// It leads.
    Elected { nonce: Nonce },
    /// Coordination's answer.
    Answered { asked: u64, answer: Answered },
    /// Leadership is gone.
    Lost(Nonce, Failure),
    /// Stand for election again, after the campaign of this nonce has failed.
    Campaign(Nonce),
    /// The sources' bounds were asked for; they are read at this moment.
    Bounds { attempt: Attempt, positions: std::sync::Arc<Positions> },
    /// A wish to be woken.
    Woke,
}

/// An answer of coordination.
#[derive(Debug)]
pub(crate) enum Answered {
    Record(Result<GroupRecord, Failure>),
    Written(Result<(), Failure>),
}

/// A job for the database, as the drivers queue them.
#[derive(Debug)]
pub(crate) enum Job {
    Commit(Box<tine_state::CommitOrder>),
    Raise(Attempt),
    Prepare(std::sync::Arc<tine_state::TransactionRow>, tine_state::Location),
    ReadGroup,
}

/// A job for coordination, as the leader's driver queues them.
#[derive(Debug)]
pub(crate) enum Errand {
    Campaign,
    Write { write: Write, plan: Option<(TxId, Attempt)> },
}

impl Event {
    /// For the trace's hash.
    pub(crate) fn tag(&self) -> u64 {
        match self {
            Event::Node { node, life, what } => {
                let kind = match what {
                    Inbound::Packet(Packet::ToEmitter(_)) => 1,
                    Inbound::Packet(Packet::ToCommitter(_)) => 2,
                    Inbound::Packet(Packet::Report(_)) => 3,
                    Inbound::Ended(..) => 4,
                    Inbound::AckerTick => 5,
                    Inbound::Read(_) => 6,
                    Inbound::Folded(_) => 7,
                    Inbound::Sql { lane, sent, .. } => 8 + (*lane as u64) * 32 + sent * 128,
                    Inbound::Opened { .. } => 9,
                    Inbound::Elected { nonce } => 10 ^ nonce.0,
                    Inbound::Answered { asked, .. } => 11 + asked * 32,
                    Inbound::Lost(..) => 12,
                    Inbound::Campaign(_) => 13,
                    Inbound::Bounds { .. } => 14,
                    Inbound::Woke => 15,
                    Inbound::Packet(Packet::ToStage(level, _)) => 16 + (*level as u64) * 32,
                    Inbound::Staged(level, _) => 17 + (*level as u64) * 32,
                };
                kind ^ ((*node as u64) << 56) ^ (u64::from(*life) << 48)
            }
            Event::Sql { backend, .. } => 100 ^ (u64::from(*backend) << 8),
            Event::BackendGone(backend) => 101 ^ (u64::from(*backend) << 8),
            Event::LockTimeout(backend, _) => 102 ^ (u64::from(*backend) << 8),
            Event::IdleCheck(backend) => 103 ^ (u64::from(*backend) << 8),
            Event::Candidate { nonce, .. } => 104 ^ nonce.0,
            Event::Ask { session, asked, .. } => 105 ^ ((*session as u64) << 8) ^ (asked << 24),
            Event::News { session } => 106 ^ ((*session as u64) << 8),
            Event::Expire { session, .. } => 107 ^ ((*session as u64) << 8),
            Event::Fault(index, begins) => 108 ^ ((*index as u64) << 8) ^ (u64::from(*begins) << 20),
            Event::Grow => 109,
            Event::Die(node, index) => 111 ^ ((*node as u64) << 8) ^ ((*index as u64) << 24),
            Event::CatchUp(node) => 112 ^ ((*node as u64) << 8),
            Event::Heal => 110,
        }
    }
}
