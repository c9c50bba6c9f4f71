//! What goes wrong, and when: a plan of typed faults that can be drawn, shrunk, read, written down and replayed.

mod words;

use proptest::prelude::*;

pub use self::words::NoFault;
use crate::{random::Draws, settings::Mode};

/// One end of a link: a worker process by its number, or a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A process.
    Node(u8),
    /// The coordination service.
    Coordination,
    /// The state database.
    Database,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A process dies, its memory with it, and is started again.
    Crash(u8),
    /// A process sleeps, keeps its memory, and wakes up: the zombie.
    Pause(u8),
    /// A process takes ten times as long for everything.
    Slow(u8),
    /// Nothing gets from one end to the other.
    CutOneWay(End, End),
    /// Nothing gets through in either direction.
    Cut(End, End),
    /// Messages between processes arrive twice.
    Duplicate,
    /// Messages between processes take long.
    Delay,
    /// Messages between processes overtake each other.
    Reorder,
    /// Coordination (embedded: the database) ends a process's leadership without reason.
    Expire(u8),
    /// News about elections and lost sessions comes late.
    LateNews,
    /// Coordination does not answer.
    CoordinationDown,
    /// Coordination loses everything.
    CoordinationWiped,
    /// Coordination is restored to what it held so many writes ago.
    CoordinationRestored(u8),
    /// Answers of coordination to a process get lost.
    LostCoordinationReply(u8),
    /// The answer to a process's SQL `COMMIT` gets lost.
    LostCommitReply(u8),
    /// The database aborts transactions of a process (deadlock, serialization, timeout).
    SqlAbort(u8),
    /// Statements of a process arrive very late, after their client has died or given up.
    LateStatement(u8),
    /// The database fails over to a copy that lacks the last so many transactions.
    LoseTail(u8),
    /// The database ends all connections.
    DatabaseRestart,
    /// A user's function fails once.
    UserError,
    /// A user's function panics once.
    UserPanic,
    /// A source gets one more partition.
    AddPartition,
    /// Retention deletes records that were not read yet: the group must halt.
    Truncate,
    /// A topic is deleted and made again: the group must halt.
    Recreate,
}

/// A fault at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, in virtual milliseconds.
    pub at_ms: u16,
    /// For how long, where that applies.
    pub for_ms: u16,
    /// What.
    pub kind: Kind,
}

/// All the faults of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// In any order.
    pub faults: Vec<Fault>,
}

/// How many kinds are drawn at random; those after it end a run and are for scenarios by hand.
pub(crate) const RANDOM_KINDS: u8 = 22;

/// The kinds that mean something to the embedded mode.
const EMBEDDED_KINDS: [u8; 14] = [0, 1, 2, 4, 8, 14, 15, 16, 17, 18, 19, 20, 21, 9];

/// When the last fault begins at the latest.
const LAST_MS: u16 = 420;

impl Kind {
    /// A kind by its number, with its target and size from two more.
    fn of(number: u8, a: u8, b: u8) -> Kind {
        let node = a % 2;
        let ends = [End::Node(0), End::Node(1), End::Coordination, End::Database];
        let (from, to) = (ends[usize::from(a % 4)], ends[usize::from((a % 4 + 1 + b % 3) % 4)]);
        match number {
            0 => Kind::Crash(node),
            1 => Kind::Pause(node),
            2 => Kind::Slow(node),
            3 => Kind::CutOneWay(from, to),
            4 => Kind::Cut(from, to),
            5 => Kind::Duplicate,
            6 => Kind::Delay,
            7 => Kind::Reorder,
            8 => Kind::Expire(node),
            9 => Kind::LateNews,
            10 => Kind::CoordinationDown,
            11 => Kind::CoordinationWiped,
            12 => Kind::CoordinationRestored(b % 12 + 1),
            13 => Kind::LostCoordinationReply(node),
            14 => Kind::LostCommitReply(node),
            15 => Kind::SqlAbort(node),
            16 => Kind::LateStatement(node),
            17 => Kind::LoseTail(b % 6 + 1),
            18 => Kind::DatabaseRestart,
            19 => Kind::UserError,
            20 => Kind::UserPanic,
            21 => Kind::AddPartition,
            22 => Kind::Truncate,
            _ => Kind::Recreate,
        }
    }

    /// Its number in the coverage table and in replay lines.
    pub(crate) fn number(self) -> u8 {
        match self {
            Kind::Crash(_) => 0,
            Kind::Pause(_) => 1,
            Kind::Slow(_) => 2,
            Kind::CutOneWay(..) => 3,
            Kind::Cut(..) => 4,
            Kind::Duplicate => 5,
            Kind::Delay => 6,
            Kind::Reorder => 7,
            Kind::Expire(_) => 8,
            Kind::LateNews => 9,
            Kind::CoordinationDown => 10,
            Kind::CoordinationWiped => 11,
            Kind::CoordinationRestored(_) => 12,
            Kind::LostCoordinationReply(_) => 13,
            Kind::LostCommitReply(_) => 14,
            Kind::SqlAbort(_) => 15,
            Kind::LateStatement(_) => 16,
            Kind::LoseTail(_) => 17,
            Kind::DatabaseRestart => 18,
            Kind::UserError => 19,
            Kind::UserPanic => 20,
            Kind::AddPartition => 21,
            Kind::Truncate => 22,
            Kind::Recreate => 23,
        }
    }

    /// The two numbers that [`Kind::of`] makes this kind from.
    fn operands(self) -> (u8, u8) {
        let place = |end: End| match end {
            End::Node(node) => node % 2,
            End::Coordination => 2,
            End::Database => 3,
        };
        match self {
            Kind::Crash(n) | Kind::Pause(n) | Kind::Slow(n) | Kind::Expire(n) | Kind::LostCoordinationReply(n) => {
                (n, 0)
            }
            Kind::LostCommitReply(n) | Kind::SqlAbort(n) | Kind::LateStatement(n) => (n, 0),
            Kind::CutOneWay(from, to) | Kind::Cut(from, to) => (place(from), (place(to) + 7 - place(from)) % 4),
            Kind::CoordinationRestored(n) | Kind::LoseTail(n) => (0, n.saturating_sub(1)),
            _ => (0, 0),
        }
    }

    /// Its name in the coverage table.
    pub(crate) fn name(number: u8) -> &'static str {
        const NAMES: [&str; 24] = [
            "crash",
            "pause",
            "slow",
            "cut one way",
            "cut",
            "duplicate",
            "delay",
            "reorder",
            "expire",
            "late news",
            "coordination down",
            "coordination wiped",
            "coordination restored",
            "lost coordination reply",
            "lost commit reply",
            "sql abort",
            "late statement",
            "lose tail",
            "database restart",
            "user error",
            "user panic",
            "add partition",
            "truncate",
            "recreate",
        ];
        NAMES[usize::from(number).min(NAMES.len() - 1)]
    }

    /// For how long it lasts at most; 0 when it is over at once.
    fn longest_ms(self) -> u16 {
        match self {
            Kind::Crash(_) | Kind::Slow(_) | Kind::CoordinationDown => 250,
            Kind::Pause(_) | Kind::LateNews | Kind::LateStatement(_) => 450,
            Kind::CutOneWay(..) | Kind::Cut(..) => 300,
            Kind::Duplicate | Kind::Delay | Kind::Reorder => 120,
            Kind::LostCoordinationReply(_) | Kind::LostCommitReply(_) | Kind::SqlAbort(_) => 60,
            _ => 0,
        }
    }
}

impl Fault {
    fn of(number: u8, at_ms: u16, long: u16, a: u8, b: u8) -> Fault {
        let kind = Kind::of(number, a, b);
        let longest = u32::from(kind.longest_ms());
        let for_ms = match longest {
            0 => 0,
            longest => 5 + u16::try_from((u32::from(long) * longest) >> 16).unwrap_or(0),
        };
        Fault { at_ms, for_ms, kind }
    }
}

impl FaultPlan {
    /// A plan of these faults.
    pub fn of(faults: impl IntoIterator<Item = (u16, u16, Kind)>) -> FaultPlan {
        let fault = |(at_ms, for_ms, kind)| Fault { at_ms, for_ms, kind };
        FaultPlan { faults: faults.into_iter().map(fault).collect() }
    }

    /// The plan of a seed: four to nine faults of the kinds that mean something to the mode.
    pub fn from_seed(seed: u64, mode: Mode) -> FaultPlan {
        let mut draws = Draws::new(seed, 0xFA);
        let kinds: Vec<u8> = match mode {
            Mode::Cluster(_) => (0..RANDOM_KINDS).collect(),
            Mode::Embedded => EMBEDDED_KINDS.to_vec(),
        };
        let count = draws.between(4, 9);
        let fault = |_| {
            let bits = draws.bits().to_le_bytes();
            let at_ms = u16::try_from(draws.below(u64::from(LAST_MS))).unwrap_or(0);
            let number = kinds[draws.below(kinds.len() as u64) as usize];
            Fault::of(number, at_ms, u16::from_le_bytes([bits[0], bits[1]]), bits[2], bits[3])
        };
        FaultPlan { faults: (0..count).map(fault).collect() }
    }

    /// Two to six faults of these kinds, as they are, at times up to `until_ms`: for what random plans hardly meet.
    pub fn among(seed: u64, kinds: &[Kind], until_ms: u16) -> FaultPlan {
        let mut draws = Draws::new(seed, 0xFB);
        let count = draws.between(2, 6);
        let fault = |_| {
            let kind = kinds[draws.below(kinds.len() as u64) as usize];
            let at_ms = u16::try_from(draws.below(u64::from(until_ms))).unwrap_or(0);
            let for_ms = u16::try_from(draws.below(u64::from(kind.longest_ms()))).unwrap_or(0);
            Fault { at_ms, for_ms: if kind.longest_ms() == 0 { 0 } else { for_ms + 5 }, kind }
        };
        FaultPlan { faults: (0..count).map(fault).collect() }
    }

    /// Whether coordination is to be restored, so that copies must be kept.
    pub(crate) fn restores(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.kind, Kind::CoordinationRestored(_)))
    }

    /// The plan without one of its faults.
    pub(crate) fn without(&self, index: usize) -> FaultPlan {
        let mut faults = self.faults.clone();
        faults.remove(index);
        FaultPlan { faults }
    }

    /// Plans a little simpler than this one, to try while shrinking.
    pub(crate) fn simpler(&self) -> Vec<FaultPlan> {
        let mut plans: Vec<FaultPlan> = (0..self.faults.len()).map(|index| self.without(index)).collect();
        for (index, fault) in self.faults.iter().enumerate() {
            if fault.for_ms > 10 {
                let mut faults = self.faults.clone();
                faults[index].for_ms /= 2;
                plans.push(FaultPlan { faults });
            }
        }
        plans
    }
}

impl Arbitrary for FaultPlan {
    type Parameters = ();
    type Strategy = BoxedStrategy<FaultPlan>;

    fn arbitrary_with(_: ()) -> Self::Strategy {
        let fault = (0..RANDOM_KINDS, 0..LAST_MS, any::<u16>(), any::<u8>(), any::<u8>());
        let fault = fault.prop_map(|(number, at_ms, long, a, b)| Fault::of(number, at_ms, long, a, b));
        prop::collection::vec(fault, 0..9).prop_map(|faults| FaultPlan { faults }).boxed()
    }
}
