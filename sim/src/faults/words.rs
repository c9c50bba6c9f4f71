//! Fault plans in words, and as the short form that a replay line holds.

use std::{fmt, str::FromStr};

use super::{End, Fault, FaultPlan, Kind};

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Node(node) => write!(f, "process {node}"),
            End::Coordination => f.write_str("coordination"),
            End::Database => f.write_str("the database"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Crash(n) => write!(f, "process {n} crashes"),
            Kind::Pause(n) => write!(f, "process {n} is paused"),
            Kind::Slow(n) => write!(f, "process {n} is slow"),
            Kind::CutOneWay(from, to) => write!(f, "nothing gets from {from} to {to}"),
            Kind::Cut(from, to) => write!(f, "{from} and {to} are cut off from each other"),
            Kind::Duplicate => f.write_str("messages come twice"),
            Kind::Delay => f.write_str("messages take long"),
            Kind::Reorder => f.write_str("messages overtake each other"),
            Kind::Expire(n) => write!(f, "the session of process {n} is ended"),
            Kind::LateNews => f.write_str("news of elections comes late"),
            Kind::CoordinationDown => f.write_str("coordination does not answer"),
            Kind::CoordinationWiped => f.write_str("coordination is wiped"),
            Kind::CoordinationRestored(n) => write!(f, "coordination goes back by {n} writes"),
            Kind::LostCoordinationReply(n) => write!(f, "coordination's answers to process {n} get lost"),
            Kind::LostCommitReply(n) => write!(f, "answers to COMMIT of process {n} get lost"),
            Kind::SqlAbort(n) => write!(f, "the database aborts transactions of process {n}"),
            Kind::LateStatement(n) => write!(f, "statements of process {n} arrive late"),
            Kind::LoseTail(n) => write!(f, "the database loses its last {n} transactions"),
            Kind::DatabaseRestart => f.write_str("the database restarts"),
            Kind::UserError => f.write_str("a user function fails once"),
            Kind::UserPanic => f.write_str("a user function panics once"),
            Kind::AddPartition => f.write_str("a partition is added"),
            Kind::Truncate => f.write_str("retention deletes unread records"),
            Kind::Recreate => f.write_str("the topic is deleted and made again"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ms {}", self.at_ms, self.kind)?;
        match self.for_ms {
            0 => Ok(()),
            for_ms => write!(f, " for {for_ms} ms"),
        }
    }
}

/// The form that a replay line holds: `number.at.for.a.b`, joined by commas. `{:#}` reads in words.
impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if f.alternate() {
                writeln!(f, "  {fault}")?;
                continue;
            }
            let (a, b) = fault.kind.operands();
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}.{}.{}.{a}.{b}", fault.kind.number(), fault.at_ms, fault.for_ms)?;
        }
        Ok(())
    }
}

/// A replay line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fault: expected five numbers, kind.at.for.a.b")]
pub struct NoFault(String);

impl FromStr for FaultPlan {
    type Err = NoFault;

    fn from_str(text: &str) -> Result<FaultPlan, NoFault> {
        let fault = |text: &str| {
            let wrong = || NoFault(text.to_owned());
            let numbers: Result<Vec<u16>, _> = text.split('.').map(str::parse::<u16>).collect();
            let numbers: Vec<u16> = numbers.map_err(|_| wrong())?;
            let [number, at_ms, for_ms, a, b] = numbers[..] else {
                return Err(wrong());
            };
            let small = |number: u16| u8::try_from(number).map_err(|_| wrong());
            Ok(Fault { at_ms, for_ms, kind: Kind::of(small(number)?, small(a)?, small(b)?) })
        };
        let faults = text.split(',').filter(|part| !part.is_empty()).map(fault);
        Ok(FaultPlan { faults: faults.collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_plan_survives_being_written_down(plan in any::<FaultPlan>()) {
            prop_assert_eq!(plan.to_string().parse::<FaultPlan>().unwrap(), plan);
        }
    }

    #[test]
    fn a_broken_replay_line_is_an_error() {
        for wrong in ["x", "1.2.3", "1.2.3.4.5.6", "1.2.3.4.999"] {
            assert!(wrong.parse::<FaultPlan>().is_err(), "{wrong}");
        }
    }
}
