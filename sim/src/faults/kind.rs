//! The kinds of faults: their numbers, names and arguments, and which of them are drawn at random.

use tine_core::failure::FailureKind;

use super::{End, Kind, SqlState};

/// Their names, in the order of their numbers: rows of the coverage table and words of replay lines.
pub(crate) const NAMES: [&str; 33] = [
    "crash",
    "pause",
    "slow",
    "cut-one-way",
    "cut",
    "duplicate",
    "delay",
    "reorder",
    "expire",
    "late-news",
    "coordination-down",
    "coordination-wiped",
    "coordination-restored",
    "lost-coordination-reply",
    "lost-commit-reply",
    "sql-abort",
    "late-statement",
    "lose-tail",
    "database-restart",
    "user-error",
    "user-panic",
    "add-partition",
    "truncate",
    "recreate",
    "restart",
    "leave",
    "reassign",
    "leader-change",
    "lost-news",
    "crash-in-commit",
    "sql-state",
    "source-down",
    "short-polls",
];

/// How many kinds are drawn at random among the first ones; the two after them end a run, and are for plans by hand.
const FIRST: u8 = 22;

/// The kinds drawn at random after those two.
const LATER: std::ops::Range<u8> = 24..33;

/// Those that mean something to the embedded mode.
const EMBEDDED: [u8; 14] = [0, 1, 2, 4, 8, 14, 15, 16, 17, 18, 19, 20, 21, 9];
const EMBEDDED_LATER: [u8; 6] = [24, 27, 29, 30, 31, 32];

/// Which kinds are drawn for a mode: the many, and the few that one in four draws is for.
pub(crate) fn drawn(embedded: bool) -> (Vec<u8>, Vec<u8>) {
    match embedded {
        false => ((0..FIRST).collect(), LATER.collect()),
        true => (EMBEDDED.to_vec(), EMBEDDED_LATER.to_vec()),
    }
}

impl Kind {
    /// The process that reached the point at which a fault begins; where there is no point, the leader.
    pub const WHOEVER: u8 = u8::MAX;

    /// A kind by its number, with its target and size from two random bytes.
    pub(crate) fn drawn(number: u8, a: u8, b: u8) -> Kind {
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
            23 => Kind::Recreate,
            24 => Kind::Restart(node),
            25 => Kind::Leave(node),
            26 => Kind::Reassign,
            27 => Kind::LeaderChange,
            28 => Kind::LostNews,
            29 => Kind::CrashInCommit(node),
            30 => Kind::SqlState(node, SqlState::PASSING[usize::from(b) % SqlState::PASSING.len()]),
            31 => Kind::SourceDown,
            _ => Kind::ShortPolls,
        }
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Crash(_) => "crash",
            Kind::Pause(_) => "pause",
            Kind::Slow(_) => "slow",
            Kind::CutOneWay(..) => "cut-one-way",
            Kind::Cut(..) => "cut",
            Kind::Duplicate => "duplicate",
            Kind::Delay => "delay",
            Kind::Reorder => "reorder",
            Kind::Expire(_) => "expire",
            Kind::LateNews => "late-news",
            Kind::CoordinationDown => "coordination-down",
            Kind::CoordinationWiped => "coordination-wiped",
            Kind::CoordinationRestored(_) => "coordination-restored",
            Kind::LostCoordinationReply(_) => "lost-coordination-reply",
            Kind::LostCommitReply(_) => "lost-commit-reply",
            Kind::SqlAbort(_) => "sql-abort",
            Kind::LateStatement(_) => "late-statement",
            Kind::LoseTail(_) => "lose-tail",
            Kind::DatabaseRestart => "database-restart",
            Kind::UserError => "user-error",
            Kind::UserPanic => "user-panic",
            Kind::AddPartition => "add-partition",
            Kind::Truncate => "truncate",
            Kind::Recreate => "recreate",
            Kind::Restart(_) => "restart",
            Kind::Leave(_) => "leave",
            Kind::Reassign => "reassign",
            Kind::LeaderChange => "leader-change",
            Kind::LostNews => "lost-news",
            Kind::CrashInCommit(_) => "crash-in-commit",
            Kind::SqlState(..) => "sql-state",
            Kind::SourceDown => "source-down",
            Kind::ShortPolls => "short-polls",
        }
    }

    /// Its row in the coverage table.
    pub(crate) fn number(self) -> u8 {
        let name = self.name();
        (0..).zip(NAMES).find(|(_, known)| *known == name).map_or(0, |(number, _)| number)
    }

    /// Its arguments as replay lines hold them.
    pub(crate) fn arguments(self) -> Vec<String> {
        match self {
            Kind::Crash(n) | Kind::Pause(n) | Kind::Slow(n) | Kind::Expire(n) | Kind::LostCoordinationReply(n) => {
                vec![node(n)]
            }
            Kind::LostCommitReply(n) | Kind::SqlAbort(n) | Kind::LateStatement(n) => vec![node(n)],
            Kind::Restart(n) | Kind::Leave(n) | Kind::CrashInCommit(n) => vec![node(n)],
            Kind::CutOneWay(from, to) | Kind::Cut(from, to) => vec![end(from), end(to)],
            Kind::CoordinationRestored(count) | Kind::LoseTail(count) => vec![count.to_string()],
            Kind::SqlState(n, state) => vec![node(n), state.code().to_owned()],
            _ => Vec::new(),
        }
    }

    /// The kind of a name and arguments.
    pub(crate) fn parse(name: &str, arguments: &[&str]) -> Option<Kind> {
        let node = |place: usize| arguments.get(place).and_then(|text| parse_node(text));
        let end = |place: usize| arguments.get(place).and_then(|text| parse_end(text));
        let count = || arguments.first().and_then(|text| text.parse().ok());
        let kind = match name {
            "crash" => Kind::Crash(node(0)?),
            "pause" => Kind::Pause(node(0)?),
            "slow" => Kind::Slow(node(0)?),
            "cut-one-way" => Kind::CutOneWay(end(0)?, end(1)?),
            "cut" => Kind::Cut(end(0)?, end(1)?),
            "expire" => Kind::Expire(node(0)?),
            "coordination-restored" => Kind::CoordinationRestored(count()?),
            "lost-coordination-reply" => Kind::LostCoordinationReply(node(0)?),
            "lost-commit-reply" => Kind::LostCommitReply(node(0)?),
            "sql-abort" => Kind::SqlAbort(node(0)?),
            "late-statement" => Kind::LateStatement(node(0)?),
            "lose-tail" => Kind::LoseTail(count()?),
            "restart" => Kind::Restart(node(0)?),
            "leave" => Kind::Leave(node(0)?),
            "crash-in-commit" => Kind::CrashInCommit(node(0)?),
            "sql-state" => Kind::SqlState(node(0)?, SqlState::of(arguments.get(1)?)?),
            _ => (0..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| Kind::drawn(number, 0, 0))?,
        };
        (kind.arguments().len() == arguments.len()).then_some(kind)
    }

    /// For how long it lasts at most when it is drawn; 0 when it is over at once.
    pub(crate) fn longest_ms(self) -> u16 {
        match self {
            Kind::Crash(_) | Kind::Slow(_) | Kind::CoordinationDown => 250,
            Kind::Pause(_) | Kind::LateNews | Kind::LateStatement(_) | Kind::LostNews => 450,
            Kind::CutOneWay(..) | Kind::Cut(..) | Kind::Leave(_) | Kind::CrashInCommit(_) => 300,
            Kind::Duplicate | Kind::Delay | Kind::Reorder | Kind::SourceDown | Kind::ShortPolls => 120,
            Kind::LostCoordinationReply(_) | Kind::LostCommitReply(_) | Kind::SqlAbort(_) => 60,
            Kind::SqlState(..) | Kind::Restart(_) => 60,
            _ => 0,
        }
    }

    /// The same of half the size, if it has a size.
    pub(crate) fn smaller(self) -> Option<Kind> {
        match self {
            Kind::LoseTail(count) if count > 1 => Some(Kind::LoseTail(count / 2)),
            Kind::CoordinationRestored(count) if count > 1 => Some(Kind::CoordinationRestored(count / 2)),
            _ => None,
        }
    }

    /// Whether it only opens a window in which things go wrong: then it may begin in the middle of a step.
    pub(crate) fn is_window(self) -> bool {
        !matches!(
            self,
            Kind::Crash(_)
                | Kind::Pause(_)
                | Kind::Restart(_)
                | Kind::Leave(_)
                | Kind::Reassign
                | Kind::Expire(_)
                | Kind::LeaderChange
                | Kind::CoordinationWiped
                | Kind::CoordinationRestored(_)
                | Kind::LoseTail(_)
                | Kind::DatabaseRestart
                | Kind::AddPartition
                | Kind::Truncate
                | Kind::Recreate
        )
    }
}

fn node(node: u8) -> String {
    if node == Kind::WHOEVER { "w".to_owned() } else { node.to_string() }
}

fn parse_node(text: &str) -> Option<u8> {
    if text == "w" { Some(Kind::WHOEVER) } else { text.parse().ok() }
}

fn end(end: End) -> String {
    match end {
        End::Node(number) => node(number),
        End::Coordination => "coordination".to_owned(),
        End::Database => "database".to_owned(),
    }
}

fn parse_end(text: &str) -> Option<End> {
    match text {
        "coordination" => Some(End::Coordination),
        "database" => Some(End::Database),
        number => parse_node(number).map(End::Node),
    }
}

impl SqlState {
    /// Those after which it is worth trying again: all but the last two.
    pub(crate) const PASSING: &[SqlState] = SqlState::ALL.split_at(8).0;

    /// All of them.
    pub const ALL: [SqlState; 10] = [
        SqlState::Deadlock,
        SqlState::Serialization,
        SqlState::StatementTimeout,
        SqlState::LockTimeout,
        SqlState::AdminShutdown,
        SqlState::TooManyConnections,
        SqlState::DiskFull,
        SqlState::ReadOnly,
        SqlState::CheckViolation,
        SqlState::InsufficientPrivilege,
    ];

    /// Its five characters.
    pub fn code(self) -> &'static str {
        match self {
            SqlState::Deadlock => "40P01",
            SqlState::Serialization => "40001",
            SqlState::StatementTimeout => "57014",
            SqlState::LockTimeout => "55P03",
            SqlState::AdminShutdown => "57P01",
            SqlState::TooManyConnections => "53300",
            SqlState::DiskFull => "53100",
            SqlState::ReadOnly => "25006",
            SqlState::CheckViolation => "23514",
            SqlState::InsufficientPrivilege => "42501",
        }
    }

    /// What it says.
    pub fn words(self) -> &'static str {
        match self {
            SqlState::Deadlock => "deadlock detected",
            SqlState::Serialization => "could not serialize access",
            SqlState::StatementTimeout => "canceling statement due to statement timeout",
            SqlState::LockTimeout => "canceling statement due to lock timeout",
            SqlState::AdminShutdown => "terminating connection due to administrator command",
            SqlState::TooManyConnections => "too many connections",
            SqlState::DiskFull => "could not extend file: no space left on device",
            SqlState::ReadOnly => "cannot execute in a read-only transaction",
            SqlState::CheckViolation => "new row violates a check constraint",
            SqlState::InsufficientPrivilege => "permission denied for table",
        }
    }

    /// What it means for a transaction: in answer to `COMMIT` only some prove that nothing was committed. That the connector for
    /// Postgres takes them the same way is what `tests/tests/fakes` looks at.
    pub fn kind(self, at_commit: bool) -> FailureKind {
        use SqlState::{CheckViolation, Deadlock, LockTimeout, Serialization, StatementTimeout};
        let certain = matches!(self, CheckViolation | Deadlock | LockTimeout | Serialization | StatementTimeout);
        match (at_commit && !certain, self.passes()) {
            (true, _) => FailureKind::Unknown,
            (false, true) => FailureKind::Transient,
            (false, false) => FailureKind::Fatal,
        }
    }

    /// Whether it is worth trying again; the others halt the group.
    pub fn passes(self) -> bool {
        SqlState::PASSING.contains(&self)
    }

    pub(crate) fn of(code: &str) -> Option<SqlState> {
        SqlState::ALL.into_iter().find(|state| state.code() == code)
    }
}
