//! Where each broken rule shows.

use tine_core::mutant::Mutant;
use tine_sim::{End, Fault, FaultPlan, Kind, Mode, Point, Report, Simulation};

use super::{Scenario, Way, coins, topologies};
use crate::{
    common,
    model::{self, Scene},
};

const CLUSTER: Mode = Mode::Cluster(2);

fn broke(report: &Report) -> Option<String> {
    report.broken.as_ref().map(|broken| format!("{}: {}", broken.invariant, broken.what))
}

/// Broke, and not because a replay was found to differ.
fn broke_unnoticed(report: &Report) -> Option<String> {
    let noticed = common::halted(report, "non-deterministic operator");
    broke(report).filter(|_| !noticed).or_else(|| coins::mixed(report))
}

/// The word count under faults of all kinds.
fn random(mode: Mode) -> Way {
    let name = if mode == Mode::Embedded { "any faults, embedded" } else { "any faults" };
    let plan = Box::new(move |seed| FaultPlan::from_seed(seed, mode));
    Way::Schedules(Scenario { name, simulation: common::simulation(mode), plan, wrong: broke })
}

/// A topology under a few faults of these kinds, which begin before `until_ms`.
fn among(name: &'static str, simulation: Simulation, kinds: &'static [Kind], until_ms: u16) -> Scenario {
    let plan = Box::new(move |seed| FaultPlan::among(seed, kinds, until_ms));
    Scenario { name, simulation, plan, wrong: broke }
}

/// The same for the word count.
fn words(name: &'static str, mode: Mode, kinds: &'static [Kind], until_ms: u16) -> Way {
    Way::Schedules(among(name, common::simulation(mode), kinds, until_ms))
}

/// A user's function that changes its mind, in transactions of which some shards are committed and others not.
fn fickle(name: &'static str, simulation: Simulation) -> Way {
    const KINDS: [Kind; 5] =
        [Kind::SqlAbort(0), Kind::SqlAbort(1), Kind::LostCommitReply(0), Kind::LostCommitReply(1), Kind::Crash(1)];
    Way::Schedules(Scenario { wrong: broke_unnoticed, ..among(name, simulation, &KINDS, 400) })
}

/// The database loses the first leader's raise while that one sleeps, the second one begins where the first had begun, and
/// is slow; the first wakes up, and the news that it leads no longer is late.
fn two_leaders_of_one_epoch() -> Way {
    const KINDS: [Kind; 7] = [
        Kind::LoseTail(1),
        Kind::LoseTail(2),
        Kind::Pause(0),
        Kind::Pause(1),
        Kind::Slow(0),
        Kind::Slow(1),
        Kind::LateNews,
    ];
    words("two leaders of one epoch", Mode::Embedded, &KINDS, 60)
}

/// The database loses a raise, and a commit of that attempt comes late; nobody can ask where the database is.
fn a_raise_is_lost() -> Way {
    const KINDS: [Kind; 5] =
        [Kind::LoseTail(1), Kind::LoseTail(4), Kind::LateStatement(0), Kind::LateStatement(1), Kind::Expire(0)];
    words("a raise is lost", Mode::Embedded, &KINDS, 250)
}

/// Another's commit falls between what a leader reads and its raise.
fn a_commit_before_the_raise() -> Way {
    const KINDS: [Kind; 6] =
        [Kind::Expire(0), Kind::Expire(1), Kind::Slow(0), Kind::Slow(1), Kind::LateNews, Kind::LateStatement(0)];
    words("a commit before the raise", Mode::Embedded, &KINDS, 400)
}

fn messages_twice_and_late() -> Way {
    const KINDS: [Kind; 3] = [Kind::Duplicate, Kind::Delay, Kind::Reorder];
    words("messages twice and late", CLUSTER, &KINDS, 420)
}

/// A leader's prepare comes when another leads and has committed what it prepares.
fn a_prepare_that_comes_late() -> Way {
    const KINDS: [Kind; 4] = [Kind::LateStatement(0), Kind::LateStatement(1), Kind::Expire(0), Kind::Expire(1)];
    words("a prepare that comes late", CLUSTER, &KINDS, 420)
}

/// Database and coordination go back to different moments: plans remain that follow nothing.
fn both_go_back() -> Way {
    const KINDS: [Kind; 5] = [
        Kind::LoseTail(3),
        Kind::LoseTail(6),
        Kind::CoordinationRestored(6),
        Kind::CoordinationRestored(12),
        Kind::CoordinationWiped,
    ];
    words("database and coordination go back", CLUSTER, &KINDS, 420)
}

/// A former leader that sleeps, or is out of coordination's reach, and goes on.
fn a_zombie_leader() -> Way {
    const KINDS: [Kind; 7] = [
        Kind::Pause(0),
        Kind::Pause(1),
        Kind::Expire(0),
        Kind::Expire(1),
        Kind::LateNews,
        Kind::LateStatement(0),
        Kind::Cut(End::Node(0), End::Coordination),
    ];
    words("a zombie leader", CLUSTER, &KINDS, 420)
}

/// Attempts end, again and again.
fn aborts() -> Way {
    const KINDS: [Kind; 5] =
        [Kind::SqlAbort(0), Kind::SqlAbort(1), Kind::LostCommitReply(0), Kind::LostCommitReply(1), Kind::UserError];
    words("aborts", CLUSTER, &KINDS, 400)
}

/// The topic is deleted and made again: the group must halt.
fn recreated_topic() -> Way {
    let again = |seed: u64| FaultPlan::of([((seed % 300) as u16 + 60, 0, Kind::Recreate)]);
    let simulation = common::simulation(CLUSTER);
    let wrong = |report: &Report| {
        let halted = common::halted(report, "made again");
        (!halted).then(|| "it is read on, and the group does not halt".to_owned())
    };
    Way::Schedules(Scenario { name: "a topic made again", simulation, plan: Box::new(again), wrong })
}

/// Reads are cut short while dead letters are being gathered.
fn dead_letters() -> Way {
    const KINDS: [Kind; 6] = [
        Kind::SqlAbort(0),
        Kind::SqlAbort(1),
        Kind::LateStatement(0),
        Kind::LateStatement(1),
        Kind::Slow(0),
        Kind::DatabaseRestart,
    ];
    Way::Schedules(among("dead letters", topologies::dead_letters(CLUSTER), &KINDS, 420))
}

/// Stages work slowly on a transaction that is planned anew meanwhile, because the database has lost what it builds upon. By the same leader:
/// another one has other tasks.
fn stages() -> Way {
    let plan = |seed: u64| {
        let (txid, after_ms) = (2 + (seed % 9) as u16, (seed / 9 % 64) as u16);
        let slow = |node: u8| Fault::at(0, Kind::Slow(node)).lasting(600);
        let lost = Fault { at_ms: after_ms, ..Fault::when(Point::Emitting(txid), Kind::LoseTail(6)) };
        FaultPlan::from([slow(0), slow(1), lost])
    };
    let simulation = common::stages(CLUSTER);
    Way::Schedules(Scenario { name: "stages, planned anew", simulation, plan: Box::new(plan), wrong: broke })
}

/// A later stage sees the rows of a batch in the same order every time.
fn order_of_a_stage() -> Way {
    const KINDS: [Kind; 5] =
        [Kind::SqlAbort(0), Kind::SqlAbort(1), Kind::LostCommitReply(0), Kind::Delay, Kind::Reorder];
    Way::Schedules(among("the order that a stage sees", topologies::first_shown(CLUSTER), &KINDS, 400))
}

/// A reign ends while its workers are getting ready, and its leader is elected again before it is told of other owners.
fn a_reign_that_ends_early() -> Way {
    const KINDS: [Kind; 6] = [
        Kind::Expire(0),
        Kind::Expire(1),
        Kind::LeaderChange,
        Kind::LostCoordinationReply(0),
        Kind::LostCoordinationReply(1),
        Kind::Crash(1),
    ];
    words("a reign that ends early", CLUSTER, &KINDS, 60)
}

/// Two rules of which each guards what the other one does: a replay of what is committed is merged again when both are broken.
fn neither_number_nor_chain() -> Way {
    let scene = Scene { records: 2, faults: 1, kinds: model::Kind::USUAL };
    Way::States("usual faults, neither number nor chain compared, all states", scene, &[Mutant::ChainNotCompared])
}

/// All states after one fault of a kind that no server of the simulator has.
fn states(name: &'static str, kinds: &'static [model::Kind]) -> Way {
    Way::States(name, Scene { records: 2, faults: 1, kinds }, &[])
}

/// The same of one transaction.
fn small(name: &'static str, kinds: &'static [model::Kind]) -> Way {
    Way::States(name, Scene { records: 1, faults: 1, kinds }, &[])
}

/// The ways in which a broken rule is hunted for, the best first.
pub(crate) fn ways(mutant: Mutant) -> Vec<Way> {
    match mutant {
        Mutant::NonceIgnored => vec![two_leaders_of_one_epoch()],
        Mutant::FenceAtLeast => vec![a_raise_is_lost()],
        Mutant::FenceRaisedAfterRead => vec![a_commit_before_the_raise()],
        // In the models tasks have no eras, which guard these rules, too: what was meant for tasks that are gone is dropped.
        Mutant::MissingBufferIsEmpty => vec![small("a committer without memory, all states", &[model::Kind::Crash])],
        Mutant::LowerEpochSilence => {
            vec![small("database and coordination go back, all states", &[model::Kind::GoBack])]
        }
        Mutant::NoDeduplication => vec![messages_twice_and_late()],
        Mutant::PrepareWithoutFence => vec![a_prepare_that_comes_late()],
        Mutant::PlanWithoutChain => vec![both_go_back()],
        Mutant::UnversionedCoordination | Mutant::UnconditionalRaise => vec![a_zombie_leader()],
        Mutant::AttemptRestarted => vec![aborts()],
        Mutant::RecreatedTopicReadOn => vec![recreated_topic()],
        Mutant::DoneWithoutManifest => vec![fickle("rows that move to another shard", coins::moving(CLUSTER))],
        Mutant::XorDigest => vec![fickle("row hashes that cancel", coins::cancelling(CLUSTER))],
        Mutant::ManifestOfOneShard => {
            vec![fickle("rows that differ beside the first shard", coins::beside_the_first_shard(CLUSTER))]
        }
        Mutant::DeadLetterOutsideOrder => vec![dead_letters()],
        Mutant::StageRunsEarly | Mutant::StageResultOfOldAttempt => vec![stages()],
        Mutant::StageArrivalOrder => vec![order_of_a_stage()],
        Mutant::ChainNotCompared => {
            vec![states("a ledger with another history, all states", &[model::Kind::ForeignHistory])]
        }
        Mutant::OwnersOfAnotherReign => vec![a_reign_that_ends_early()],
        Mutant::TxidNotCompared => vec![neither_number_nor_chain()],
        Mutant::MissingRowIsNew => vec![states("a lost ledger row, all states", &[model::Kind::LoseRow])],
        Mutant::LateDuplicateIsGap => vec![states("a commit done again, all states", &[model::Kind::Repeat])],
        _ => vec![random(CLUSTER), random(Mode::Embedded)],
    }
}

/// Every way, once.
pub(crate) fn all() -> Vec<Way> {
    let mut all: Vec<Way> = Vec::new();
    for way in Mutant::ALL.iter().flat_map(|mutant| ways(*mutant)) {
        if !all.iter().any(|other| other.name() == way.name()) {
            all.push(way);
        }
    }
    all
}
