//! What breaks when: drawn from a seed, for each target by itself, before anything is started. What the whole ensemble has in
//! common, its outages, is drawn once.
//!
//! The same seed gives the same plan; the moments at which a plan meets a running system are never quite the same.

use std::fmt;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::proxy::Verdict;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One of the copies of the job.
    Worker(usize),
    /// The database.
    Postgres,
    /// The broker.
    Kafka,
    /// A server of the ensemble.
    ZooKeeper(usize),
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a new start after a while.
    Killed,
    /// A stop in good order, and a new start.
    Restarted,
    /// SIGSTOP, SIGCONT after a while.
    Paused,
    /// Open connections are reset.
    Cut,
    /// Open connections are reset, new ones refused for a while.
    Refused,
    /// Every chunk comes late for a while, by so many milliseconds.
    Delayed(u64),
    /// Requests arrive, replies do not; such connections stay mute when it is over, unless they are `then_cut`.
    Swallowed {
        /// Whether the mute ones are reset at the end.
        then_cut: bool,
    },
    /// Nothing moves and nobody is told, for a while.
    HalfOpen,
    /// The connection of the nth next request is cut, before or after the server has it.
    CutAmid(u64, Verdict),
    /// The connection of the next COMMIT is cut, before or after the server has it.
    CutCommit(Verdict),
    /// No byte more fits on the disk of its tables, or of its log, for a while.
    DiskFull(Disk),
    /// What it says to its peers and they to it comes late, by so many milliseconds: a follower that lags.
    Lagging(u64),
    /// It does not reach its peers: a follower that serves what it knew.
    Apart,
    /// Every server of the ensemble is killed, and started again after a long while.
    AllAway,
    /// A worker does not reach ZooKeeper: nothing moves and nobody is told.
    CutOff,
    /// The clock of the day is another one, by so many seconds, and jumps back after a while.
    ClockJump(i64),
}

/// Which disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Where tables are.
    Tables,
    /// Where the log of writes is.
    Log,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// When, since the start.
    pub at: Duration,
    /// How.
    pub fault: Fault,
    /// How long it lasts.
    pub hold: Duration,
}

/// What cannot be broken on this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missing {
    /// Nothing may be mounted.
    pub disk: bool,
    /// There is no libfaketime.
    pub clock: bool,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Worker(nth) => write!(f, "worker {nth}"),
            Target::Postgres => write!(f, "postgres"),
            Target::Kafka => write!(f, "kafka"),
            Target::ZooKeeper(nth) => write!(f, "zookeeper {nth}"),
        }
    }
}

impl Target {
    /// Without its number: what a table counts by.
    pub fn kind(self) -> &'static str {
        match self {
            Target::Worker(_) => "worker",
            Target::Postgres => "postgres",
            Target::Kafka => "kafka",
            Target::ZooKeeper(_) => "zookeeper",
        }
    }

    /// Streams of random numbers do not depend on how many targets there are.
    fn stream(self) -> u64 {
        match self {
            Target::Postgres => 1,
            Target::Kafka => 2,
            Target::ZooKeeper(nth) => 100 + nth as u64,
            Target::Worker(nth) => 200 + nth as u64,
        }
    }

    /// Seconds of quiet between two faults.
    fn quiet(self) -> std::ops::Range<f64> {
        match self {
            Target::Worker(_) => 5.0..25.0,
            Target::Postgres => 4.0..20.0,
            Target::Kafka => 8.0..30.0,
            Target::ZooKeeper(_) => 8.0..35.0,
        }
    }

    fn draw(self, random: &mut SmallRng, missing: Missing) -> Fault {
        let mut besides: &[(u32, Kind)] = &[];
        let kinds: &[(u32, Kind)] = match self {
            Target::Worker(_) => &[(5, Kind::Killed), (4, Kind::Paused), (3, Kind::CutOff), (2, Kind::ClockJump)],
            Target::Postgres => &[
                (3, Kind::Killed),
                (1, Kind::Restarted),
                (1, Kind::Paused),
                (2, Kind::Cut),
                (1, Kind::Refused),
                (2, Kind::Delayed),
                (1, Kind::Swallowed),
                (2, Kind::HalfOpen),
                (2, Kind::CutAmid),
                (6, Kind::CutCommit),
                (2, Kind::DiskFull),
                (2, Kind::LogFull),
            ],
            Target::Kafka => &SERVER,
            Target::ZooKeeper(_) => {
                besides = &ENSEMBLE;
                &SERVER
            }
        };
        let here = |kind: Kind| match kind {
            Kind::DiskFull | Kind::LogFull => !missing.disk,
            Kind::ClockJump => !missing.clock,
            _ => true,
        };
        let kinds: Vec<_> = kinds.iter().chain(besides).filter(|(_, kind)| here(*kind)).collect();
        let mut left = random.random_range(0..kinds.iter().map(|(weight, _)| weight).sum());
        let kind = kinds.into_iter().find_map(|(weight, kind)| match left < *weight {
            true => Some(*kind),
            false => {
                left -= weight;
                None
            }
        });
        kind.unwrap_or(Kind::Cut).fault(self, random)
    }
}

/// What befalls a server and its link, and how often.
const SERVER: [(u32, Kind); 9] = [
    (3, Kind::Killed),
    (1, Kind::Restarted),
    (2, Kind::Paused),
    (2, Kind::Cut),
    (1, Kind::Refused),
    (2, Kind::Delayed),
    (1, Kind::Swallowed),
    (2, Kind::HalfOpen),
    (2, Kind::CutAmid),
];

/// What befalls one of an ensemble besides.
const ENSEMBLE: [(u32, Kind); 3] = [(3, Kind::Lagging), (2, Kind::Apart), (2, Kind::LogFull)];

/// A fault without its numbers.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Killed,
    Restarted,
    Paused,
    Cut,
    Refused,
    Delayed,
    Swallowed,
    HalfOpen,
    CutAmid,
    CutCommit,
    DiskFull,
    LogFull,
    Lagging,
    Apart,
    CutOff,
    ClockJump,
}

impl Kind {
    fn fault(self, target: Target, random: &mut SmallRng) -> Fault {
        const VERDICTS: [Verdict; 3] = [Verdict::CutBefore, Verdict::CutAfter, Verdict::CutBeforeReply];
        const JUMPS: [i64; 6] = [-86_400, -3_600, -2, 2, 3_600, 400 * 86_400];
        match self {
            Kind::Killed => Fault::Killed,
            Kind::Restarted => Fault::Restarted,
            Kind::Paused => Fault::Paused,
            Kind::Cut => Fault::Cut,
            Kind::Refused => Fault::Refused,
            Kind::Delayed => Fault::Delayed(random.random_range(5..400)),
            // The producer shares the broker's link, and a mute connection of its costs a minute of quiet.
            Kind::Swallowed => Fault::Swallowed { then_cut: target == Target::Kafka || random.random() },
            Kind::HalfOpen => Fault::HalfOpen,
            Kind::CutAmid => {
                Fault::CutAmid(random.random_range(0..60), VERDICTS[random.random_range(0..VERDICTS.len())])
            }
            Kind::CutCommit => Fault::CutCommit(VERDICTS[random.random_range(0..VERDICTS.len())]),
            Kind::DiskFull => Fault::DiskFull(Disk::Tables),
            Kind::LogFull => Fault::DiskFull(Disk::Log),
            Kind::Lagging => Fault::Lagging(random.random_range(50..1_500)),
            Kind::Apart => Fault::Apart,
            Kind::CutOff => Fault::CutOff,
            Kind::ClockJump => Fault::ClockJump(JUMPS[random.random_range(0..JUMPS.len())]),
        }
    }
}

impl Fault {
    /// What a table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Killed => "killed",
            Fault::Restarted => "restarted",
            Fault::Paused => "paused",
            Fault::Cut => "connections cut",
            Fault::Refused => "connections refused",
            Fault::Delayed(_) => "slow",
            Fault::Swallowed { .. } => "replies swallowed",
            Fault::HalfOpen => "half open",
            Fault::CutAmid(..) => "cut amid a request",
            Fault::CutCommit(_) => "cut amid a COMMIT",
            Fault::DiskFull(Disk::Tables) => "disk of tables full",
            Fault::DiskFull(Disk::Log) => "disk of log full",
            Fault::Lagging(_) => "lags behind its peers",
            Fault::Apart => "apart from its peers",
            Fault::AllAway => "the whole ensemble away",
            Fault::CutOff => "cut off from zookeeper",
            Fault::ClockJump(_) => "clock jumps",
        }
    }

    /// Seconds it lasts at most.
    fn longest(self, target: Target) -> f64 {
        match (self, target) {
            (Fault::Restarted | Fault::Cut, _) => 0.01,
            (Fault::Killed, _) => 4.0,
            // Longer than a session of ZooKeeper's: somebody else leads by then.
            (Fault::Paused | Fault::CutOff, Target::Worker(_)) => 20.0,
            (Fault::ClockJump(_) | Fault::Lagging(_) | Fault::Apart | Fault::DiskFull(Disk::Log), _) => 20.0,
            (Fault::CutAmid(..), _) => 3.0,
            // Long enough that somebody commits.
            (Fault::CutCommit(_), _) => 15.0,
            _ => 10.0,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fault.name())?;
        match self.fault {
            Fault::Delayed(ms) | Fault::Lagging(ms) => write!(f, " by {ms} ms")?,
            Fault::Swallowed { then_cut: true } => write!(f, ", then cut")?,
            Fault::CutAmid(nth, verdict) => write!(f, " ({verdict:?}, the {nth}th)")?,
            Fault::CutCommit(verdict) => write!(f, " ({verdict:?})")?,
            Fault::ClockJump(seconds) => write!(f, " by {seconds} s")?,
            _ => {}
        }
        write!(f, " for {:.1} s", self.hold.as_secs_f64())
    }
}

/// What happens to one target within `length`.
pub fn plan(seed: u64, target: Target, length: Duration, missing: Missing) -> Vec<Step> {
    let mut steps = own(seed, target, length, missing);
    if matches!(target, Target::ZooKeeper(_)) {
        for outage in outages(seed, length) {
            steps.retain(|step| step.at + step.hold < outage.at || outage.at + outage.hold < step.at);
            steps.push(outage);
        }
        steps.sort_by_key(|step| step.at);
    }
    steps
}

/// What happens to this target, whatever happens to others.
fn own(seed: u64, target: Target, length: Duration, missing: Missing) -> Vec<Step> {
    let mut random = stream(seed, target.stream());
    let (mut steps, mut at) = (Vec::new(), Duration::ZERO);
    loop {
        at += Duration::from_secs_f64(random.random_range(target.quiet()));
        let fault = target.draw(&mut random, missing);
        let hold = Duration::from_secs_f64(random.random_range(0.0..fault.longest(target)));
        if at + hold > length {
            return steps;
        }
        steps.push(Step { at, fault, hold });
        at += hold;
    }
}

/// When the whole ensemble is away: once in each ten minutes, for a minute; in a shorter chaos for a tenth of it.
fn outages(seed: u64, length: Duration) -> impl Iterator<Item = Step> {
    const EVERY: Duration = Duration::from_secs(600);
    const HOLD: Duration = Duration::from_secs(60);
    let count = (length.as_secs_f64() / EVERY.as_secs_f64()).floor().max(1.0);
    let (every, hold) = (length.div_f64(count), HOLD.min(length / 10));
    let mut random = stream(seed, 3);
    (0..count as u32).map(move |nth| {
        let at = every * nth + every.mul_f64(random.random_range(0.3..0.7));
        Step { at, fault: Fault::AllAway, hold }
    })
}

fn stream(seed: u64, stream: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_seed_is_a_plan_and_another_seed_another_one() {
        let plan = |seed, target| plan(seed, target, HOUR, Missing::default());
        assert_eq!(plan(1, Target::Kafka), plan(1, Target::Kafka));
        assert_ne!(plan(1, Target::Kafka), plan(2, Target::Kafka));
        assert_ne!(plan(1, Target::Worker(0)), plan(1, Target::Worker(1)));
    }

    #[test]
    fn steps_follow_one_another_and_every_fault_comes_unless_it_is_missing() {
        let steps = plan(3, Target::Postgres, HOUR, Missing::default());
        assert!(steps.windows(2).all(|two| two[0].at + two[0].hold < two[1].at));
        let names = |steps: &[Step]| {
            let mut names: Vec<_> = steps.iter().map(|step| step.fault.name()).collect();
            names.sort_unstable();
            names.dedup();
            names.len()
        };
        assert_eq!(names(&steps), 12);
        let missing = Missing { disk: true, clock: true };
        assert_eq!(names(&plan(3, Target::Postgres, HOUR, missing)), 10);
        assert_eq!(names(&plan(3, Target::Worker(0), HOUR, missing)), 3);
    }

    #[test]
    fn the_ensemble_is_away_as_a_whole_at_the_same_time() {
        let away = |nth| {
            let steps = plan(5, Target::ZooKeeper(nth), HOUR, Missing::default());
            assert!(steps.windows(2).all(|two| two[0].at + two[0].hold < two[1].at));
            steps.into_iter().filter(|step| step.fault == Fault::AllAway).collect::<Vec<_>>()
        };
        assert_eq!(away(0).len(), 6);
        assert!(away(0) == away(1) && away(1) == away(2));
        assert!(away(0).iter().all(|step| step.hold.as_secs() == 60));
    }
}
