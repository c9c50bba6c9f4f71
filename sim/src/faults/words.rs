//! Fault plans in words, and as the short form that a replay line holds.

use std::{fmt, str::FromStr};

use super::{End, Fault, FaultPlan, Kind};

/// A process in words.
struct Process(u8);

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::WHOEVER => f.write_str("that process"),
            node => write!(f, "process {node}"),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Node(node) => Process(*node).fmt(f),
            End::Coordination => f.write_str("coordination"),
            End::Database => f.write_str("the database"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Crash(n) => write!(f, "{} crashes", Process(*n)),
            Kind::Pause(n) => write!(f, "{} is paused", Process(*n)),
            Kind::Slow(n) => write!(f, "{} is slow", Process(*n)),
            Kind::CutOneWay(from, to) => write!(f, "nothing gets from {from} to {to}"),
            Kind::Cut(from, to) => write!(f, "{from} and {to} are cut off from each other"),
            Kind::Duplicate => f.write_str("messages come twice"),
            Kind::Delay => f.write_str("messages take long"),
            Kind::Reorder => f.write_str("messages overtake each other"),
            Kind::Expire(n) => write!(f, "the session of {} is ended", Process(*n)),
            Kind::LateNews => f.write_str("news of elections comes late"),
            Kind::CoordinationDown => f.write_str("coordination does not answer"),
            Kind::CoordinationWiped => f.write_str("coordination is wiped"),
            Kind::CoordinationRestored(n) => write!(f, "coordination goes back by {n} writes"),
            Kind::LostCoordinationReply(n) => write!(f, "coordination's answers to {} get lost", Process(*n)),
            Kind::LostCommitReply(n) => write!(f, "answers to COMMIT of {} get lost", Process(*n)),
            Kind::SqlAbort(n) => write!(f, "the database aborts transactions of {}", Process(*n)),
            Kind::LateStatement(n) => write!(f, "statements of {} arrive late", Process(*n)),
            Kind::LoseTail(n) => write!(f, "the database loses its last {n} transactions"),
            Kind::DatabaseRestart => f.write_str("the database restarts"),
            Kind::UserError => f.write_str("a user function fails once"),
            Kind::UserPanic => f.write_str("a user function panics once"),
            Kind::AddPartition => f.write_str("a partition is added"),
            Kind::Truncate => f.write_str("retention deletes unread records"),
            Kind::Recreate => f.write_str("the topic is deleted and made again"),
            Kind::Restart(n) => write!(f, "{} is restarted", Process(*n)),
            Kind::Leave(n) => write!(f, "{} leaves, and others take over its tasks", Process(*n)),
            Kind::Reassign => f.write_str("a worker loses its registration, and shards move"),
            Kind::LeaderChange => f.write_str("whoever leads loses the leadership"),
            Kind::LostNews => f.write_str("news of elections gets lost"),
            Kind::CrashInCommit(n) => write!(f, "{} dies once it has sent a COMMIT, which arrives late", Process(*n)),
            Kind::SqlState(n, state) => {
                write!(f, "the database answers {} with \"{}\" ({})", Process(*n), state.words(), state.code())
            }
            Kind::SourceDown => f.write_str("the sources do not answer"),
            Kind::ShortPolls => f.write_str("polls bring a record or none"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.when, self.at_ms) {
            (None, at_ms) => write!(f, "at {at_ms} ms {}", self.kind)?,
            (Some(point), 0) => write!(f, "when {point}, {}", self.kind)?,
            (Some(point), at_ms) => write!(f, "{at_ms} ms after {point}, {}", self.kind)?,
        }
        match self.for_ms {
            0 => Ok(()),
            for_ms => write!(f, " for {for_ms} ms"),
        }
    }
}

/// The form that a replay line holds: `kind:argument.argument@point+at~for`, joined by commas. `{:#}` reads in words.
impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if f.alternate() {
                writeln!(f, "  {fault}")?;
                continue;
            }
            if index > 0 {
                f.write_str(",")?;
            }
            short(fault, f)?;
        }
        Ok(())
    }
}

fn short(fault: &Fault, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(fault.kind.name())?;
    let arguments = fault.kind.arguments();
    if !arguments.is_empty() {
        write!(f, ":{}", arguments.join("."))?;
    }
    match (fault.when, fault.at_ms) {
        (None, at_ms) => write!(f, "@{at_ms}")?,
        (Some(point), 0) => write!(f, "@{}", point.short())?,
        (Some(point), at_ms) => write!(f, "@{}+{at_ms}", point.short())?,
    }
    match fault.for_ms {
        0 => Ok(()),
        for_ms => write!(f, "~{for_ms}"),
    }
}

/// A replay line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fault: it looks like \"pause:0@120~300\" or \"crash:1@commit-sent:7+2~50\"")]
pub struct NoFault(String);

impl FromStr for FaultPlan {
    type Err = NoFault;

    fn from_str(text: &str) -> Result<FaultPlan, NoFault> {
        let faults = text.split(',').filter(|part| !part.is_empty());
        faults.map(|part| parse(part).ok_or_else(|| NoFault(part.to_owned()))).collect()
    }
}

fn parse(text: &str) -> Option<Fault> {
    let (kind, rest) = text.split_once('@')?;
    let (name, arguments) = kind.split_once(':').unwrap_or((kind, ""));
    let arguments: Vec<&str> = arguments.split('.').filter(|argument| !argument.is_empty()).collect();
    let kind = Kind::parse(name, &arguments)?;
    let (time, for_ms) = match rest.split_once('~') {
        Some((time, for_ms)) => (time, for_ms.parse().ok()?),
        None => (rest, 0),
    };
    let (when, at_ms) = match (time.parse(), time.split_once('+')) {
        (Ok(at_ms), _) => (None, at_ms),
        (_, Some((point, at_ms))) => (Some(point.parse().ok()?), at_ms.parse().ok()?),
        (_, None) => (Some(time.parse().ok()?), 0),
    };
    Some(Fault { when, at_ms, for_ms, kind })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::faults::Point;

    proptest! {
        #[test]
        fn a_plan_survives_being_written_down(plan in any::<FaultPlan>()) {
            prop_assert_eq!(plan.to_string().parse::<FaultPlan>().unwrap(), plan);
        }
    }

    #[test]
    fn every_kind_can_be_written_down_and_is_named_once() {
        let mut names = std::collections::BTreeSet::new();
        for number in 0..u8::try_from(super::super::NAMES.len()).unwrap() {
            let fault = Fault::when(Point::Committed(3), Kind::drawn(number, 1, 0)).later(2).lasting(9);
            assert_eq!(fault.kind.number(), number, "{fault}");
            assert!(names.insert(fault.kind.name()));
            let plan = FaultPlan::from([fault]);
            assert_eq!(plan.to_string().parse(), Ok(plan));
        }
    }

    #[test]
    fn a_broken_replay_line_is_an_error() {
        for wrong in ["x", "crash:0", "crash@1", "crash:0.1@1", "sql-state:0.99999@1", "delay@1~x", "delay@no-such:1"] {
            assert!(wrong.parse::<FaultPlan>().is_err(), "{wrong}");
        }
    }
}
