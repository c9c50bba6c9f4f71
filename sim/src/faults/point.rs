//! Named moments of the protocol: where a fault can begin, and up to where a script can drive.

use std::{fmt, str::FromStr};

/// A moment in the life of a transaction, by its number (from 1): the phases of `docs/architecture.md`, and what the
/// database itself does in between.
///
/// ```text
///  Planned ─► Emitting ─► Processed ─► Prepared ─► CommitSent ─► Committed ─► Acknowledged ─► Complete
///                                      (cluster)   by a process  in the        by a process
///                                                                database
/// ```
///
/// A replayed transaction passes its moments again; what waits for one takes the first that comes. Where several
/// processes commit a transaction, the first one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Point {
    /// The leader has fixed its plan.
    Planned(u16),
    /// The leader has told the emitters to read it.
    Emitting(u16),
    /// It is processed everywhere; nothing is written yet.
    Processed(u16),
    /// Plan and manifest stand in the database (not in the embedded mode).
    Prepared(u16),
    /// A process has sent its `COMMIT`; the database does not have it yet.
    CommitSent(u16),
    /// The database has executed a `COMMIT` of it; the answer is not on its way yet.
    Committed(u16),
    /// A process has the answer to its `COMMIT`.
    Acknowledged(u16),
    /// The leader knows that it is committed everywhere.
    Complete(u16),
    /// A process has been elected: for the first time in the run, the second, …
    Elected(u16),
}

/// Their names in replay lines, in the order of a transaction's life.
const NAMES: [&str; 9] =
    ["planned", "emitting", "processed", "prepared", "commit-sent", "committed", "acknowledged", "complete", "elected"];

/// How many of them there are.
pub(crate) const POINTS: u8 = 9;

impl Point {
    pub(crate) fn of(place: u8, number: u16) -> Point {
        match place {
            0 => Point::Planned(number),
            1 => Point::Emitting(number),
            2 => Point::Processed(number),
            3 => Point::Prepared(number),
            4 => Point::CommitSent(number),
            5 => Point::Committed(number),
            6 => Point::Acknowledged(number),
            7 => Point::Complete(number),
            _ => Point::Elected(number),
        }
    }

    fn parts(self) -> (usize, u16) {
        match self {
            Point::Planned(number) => (0, number),
            Point::Emitting(number) => (1, number),
            Point::Processed(number) => (2, number),
            Point::Prepared(number) => (3, number),
            Point::CommitSent(number) => (4, number),
            Point::Committed(number) => (5, number),
            Point::Acknowledged(number) => (6, number),
            Point::Complete(number) => (7, number),
            Point::Elected(number) => (8, number),
        }
    }

    /// As replay lines have it: `commit-sent:7`.
    pub(crate) fn short(self) -> String {
        let (place, number) = self.parts();
        format!("{}:{number}", NAMES[place])
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::Planned(n) => write!(f, "transaction {n} is planned"),
            Point::Emitting(n) => write!(f, "transaction {n} is being read"),
            Point::Processed(n) => write!(f, "transaction {n} is processed"),
            Point::Prepared(n) => write!(f, "transaction {n} is prepared"),
            Point::CommitSent(n) => write!(f, "the COMMIT of transaction {n} is sent"),
            Point::Committed(n) => write!(f, "the database has committed transaction {n} and not answered"),
            Point::Acknowledged(n) => write!(f, "the COMMIT of transaction {n} is answered"),
            Point::Complete(n) => write!(f, "transaction {n} is complete"),
            Point::Elected(n) => write!(f, "a leader is elected, number {n}"),
        }
    }
}

impl FromStr for Point {
    type Err = ();

    fn from_str(text: &str) -> Result<Point, ()> {
        let (name, number) = text.split_once(':').ok_or(())?;
        let place = (0..POINTS).zip(NAMES).find(|(_, known)| *known == name).ok_or(())?.0;
        Ok(Point::of(place, number.parse().map_err(drop)?))
    }
}
