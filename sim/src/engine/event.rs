//! What can happen in the world, and to whom.

use tine_core::{
    acker::{AckerEvent, TreeEnd},
    coordination::GroupRecord,
    failure::Failure,
    id::{Attempt, Era, Nonce, TaskId, TxId, WorkerId},
    membership::{self, Member},
    task::Route,
    tuple::{Root, Tuple},
};
use tine_state::{Reply, Statement};
use tine_trident::{
    committer::CommitterReply,
    coordinator::event::Reply as CoordinatorReply,
    emitter::ReadCall,
    message::{Message, Note},
    plan::Positions,
    stage_bolt::StageReply,
};

use super::crew::CrewId;
use crate::{
    coordination::{SessionId, Write},
    sql::BackendId,
};

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
    /// A worker's wish to be registered arrives at coordination.
    Register { node: usize, life: u32, worker: WorkerId },
    /// A worker's look at the others arrives at coordination.
    Look(SessionId),
    /// What a worker says of itself arrives at coordination.
    Update(SessionId, Box<Member>),
    /// A worker tries to connect to another one.
    Dial { node: usize, life: u32, me: WorkerId, peer: WorkerId },
    /// Time to look whether a process has slept all the time since this fault.
    Unheard(usize, usize),
    /// A process that was asked to leave has finished.
    Left { node: usize, life: u32 },
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
    Tuple(TaskId, Tuple<Message>),
    Report(AckerEvent<Note>),
    /// The sender's tasks run, and its links stand.
    Ready,
}

/// What arrives at a process.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// From another process or itself, under an era.
    Packet(WorkerId, Era, Packet),
    /// A tree of its coordinator has ended.
    Ended(Root, TreeEnd<Note>),
    /// A quarter of the message timeout has passed.
    AckerTick,
    /// An emitter's read is done: the records are read and the operators run at this moment.
    Read(CrewId, usize, ReadCall),
    /// A stage task is done with a batch.
    Staged(CrewId, usize, StageReply),
    /// A fold is done.
    Folded(CrewId, CommitterReply),
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
    /// Its membership is told something.
    Member(Box<membership::Event>),
    /// The same, of what a registration's look has shown.
    Saw(SessionId, Box<membership::Event>),
    /// Its membership is to look whether it reigns.
    Reigns,
    /// Its membership tells its coordinator; with owners come other tasks.
    Told(Box<CoordinatorReply>, Option<Rewire>),
    /// It is registered under a name.
    Registered(WorkerId, SessionId),
    /// A registration is gone.
    Unregistered(SessionId),
    /// Something has changed since a registration looked.
    Changed(SessionId),
    /// A line of it broke: to whom, and the how-manyth.
    Broke(WorkerId, u32),
    /// It has waited long enough for others to take its tasks.
    Relieved,
}

/// Other tasks for a coordinator.
#[derive(Debug)]
pub(crate) struct Rewire {
    pub(crate) crew: CrewId,
    /// The reign that they are of.
    pub(crate) nonce: Nonce,
    pub(crate) routes: Vec<Route>,
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

impl Packet {
    /// The trees that it belongs to.
    pub(crate) fn roots(&self) -> Vec<Root> {
        match self {
            Packet::Tuple(_, tuple) => tuple.anchors.iter().map(|anchor| anchor.root).collect(),
            Packet::Report(
                AckerEvent::Start { root, .. }
                | AckerEvent::Ack { root, .. }
                | AckerEvent::Fail { root, .. }
                | AckerEvent::Alive { root },
            ) => vec![*root],
            Packet::Report(AckerEvent::Tick) | Packet::Ready => Vec::new(),
        }
    }
}

impl Event {
    /// For the trace's hash.
    pub(crate) fn tag(&self) -> u64 {
        match self {
            Event::Node { node, life, what } => {
                let kind = match what {
                    Inbound::Packet(_, _, Packet::Tuple(to, _)) => 1 + (u64::from(to.0) << 8),
                    Inbound::Packet(_, _, Packet::Ready) => 2,
                    Inbound::Packet(_, _, Packet::Report(_)) => 3,
                    Inbound::Ended(..) => 4,
                    Inbound::AckerTick => 5,
                    Inbound::Read(_, emitter, _) => 6 + (*emitter as u64) * 32,
                    Inbound::Folded(..) => 7,
                    Inbound::Sql { lane, sent, .. } => 8 + (*lane as u64) * 32 + sent * 128,
                    Inbound::Opened { .. } => 9,
                    Inbound::Elected { nonce } => 10 ^ nonce.0,
                    Inbound::Answered { asked, .. } => 11 + asked * 32,
                    Inbound::Lost(..) => 12,
                    Inbound::Campaign(_) => 13,
                    Inbound::Bounds { .. } => 14,
                    Inbound::Woke => 15,
                    Inbound::Staged(_, stage, _) => 17 + (*stage as u64) * 32,
                    Inbound::Member(_) => 18,
                    Inbound::Saw(session, _) => 19 + ((*session as u64) << 8),
                    Inbound::Reigns => 20,
                    Inbound::Told(..) => 21,
                    Inbound::Registered(worker, _) => 22 ^ (worker.0 << 8),
                    Inbound::Unregistered(session) => 23 + ((*session as u64) << 8),
                    Inbound::Changed(session) => 24 + ((*session as u64) << 8),
                    Inbound::Broke(worker, _) => 25 ^ (worker.0 << 8),
                    Inbound::Relieved => 26,
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
            Event::Register { worker, .. } => 112 ^ (worker.0 << 8),
            Event::Look(session) => 113 ^ ((*session as u64) << 8),
            Event::Update(session, _) => 114 ^ ((*session as u64) << 8),
            Event::Dial { me, peer, .. } => 115 ^ (me.0 << 8) ^ (peer.0 << 32),
            Event::Unheard(node, _) => 116 ^ ((*node as u64) << 8),
            Event::Left { node, .. } => 117 ^ ((*node as u64) << 8),
            Event::Heal => 110,
        }
    }
}
