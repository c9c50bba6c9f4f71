//! SQL: the simulator's fake against a real Postgres and a real SQLite, through the connectors.
//!
//! Three sessions of one group, their statements interleaved: procedures and parts of them, transactions left open,
//! statements out of order, connections that end on either side. Every answer is compared, and who waits for whom. One
//! statement waits at a time: when two locks become free at once, the order in which Postgres gives them is its own.

mod answers;
mod codes;
mod leaving;
mod program;
mod scene;
mod server;
mod words;

use std::{collections::BTreeSet, sync::Mutex};

use proptest::prelude::*;

use crate::agree::{RUNTIME, scripts};
use program::{Task, task};
use scene::Scene;
use server::Server;

/// How often a script is played that took so long that these limits may be the difference: the fake has none of them.
const TRIES: usize = 4;

/// How many sessions a script has.
const SESSIONS: usize = 3;

/// What SQLite does otherwise, and why that is right. Each must be met, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Inherent {
    /// There is one writer: `Begin` waits for another's transaction, where Postgres would wait for a row later, or never.
    OneWriter,
    /// A statement outside a transaction is the caller's mistake and fatal; with Postgres it may follow from a lost
    /// connection and is transient.
    OutsideIsFatal,
    /// A text with NUL is found when it is merged, so not where the compare-and-set has missed.
    NulIsFoundLate,
}

/// A step of a script.
#[derive(Clone, Debug)]
enum Op {
    /// A session begins a task, if it has none.
    Begin(usize, Task),
    /// A session goes on by one statement.
    Step(usize),
    /// A client is gone, whatever it was doing; another takes its place.
    HangUp(usize),
    /// The server ends a connection.
    Terminate(usize),
    /// A session's lock is not granted in time.
    TimeOut(usize),
}

#[derive(Clone, Debug)]
struct Script {
    /// Whether plans are committed with the data.
    whole: bool,
    /// Whether somebody else's row is in the table.
    foreign: bool,
    /// A ledger row that somebody has deleted.
    lost: Option<usize>,
    ops: Vec<Op>,
}

fn script() -> impl Strategy<Value = Script> {
    let op = |whole| {
        prop_oneof![
            6 => (0..SESSIONS, task(whole)).prop_map(|(session, task)| Op::Begin(session, task)),
            20 => (0..SESSIONS).prop_map(Op::Step),
            1 => (0..SESSIONS).prop_map(Op::HangUp),
            1 => (0..SESSIONS).prop_map(Op::Terminate),
        ]
    };
    let lost = prop_oneof![12 => Just(None), 1 => (0usize..6).prop_map(Some)];
    (any::<bool>(), any::<bool>(), lost)
        .prop_flat_map(move |(whole, foreign, lost)| {
            let ops = prop::collection::vec(op(whole), 40..90);
            (Just(whole), Just(foreign), Just(lost), ops)
        })
        .prop_map(|(whole, foreign, lost, ops)| Script { whole, foreign, lost, ops })
}

#[test]
fn the_fake_of_sql_answers_as_postgres_does() {
    let servers = Mutex::new(Vec::new());
    for _ in 0..LANES {
        let Some(server) = RUNTIME.block_on(Server::postgres()) else { return };
        servers.lock().unwrap().push(server);
    }
    run(&servers, 120);
}

#[test]
fn the_fake_of_sql_answers_as_sqlite_does_but_for_what_is_inherent() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Mutex::new(Vec::new());
    for lane in 0..LANES {
        servers.lock().unwrap().push(RUNTIME.block_on(Server::sqlite(folder.path().join(format!("{lane}.db")))));
    }
    let mut met = run(&servers, 400);
    // Too rare to be left to chance.
    let rare = Script {
        whole: false,
        foreign: false,
        lost: None,
        ops: vec![Op::Begin(0, program::missing_with_nul()), Op::Step(0), Op::Step(0)],
    };
    met.extend(play(&mut servers.lock().unwrap()[0], &rare).unwrap());
    let declared = BTreeSet::from([Inherent::OneWriter, Inherent::OutsideIsFatal, Inherent::NulIsFoundLate]);
    assert_eq!(met, declared, "met, and declared");
}

#[test]
fn a_lock_that_is_not_granted_in_time_ends_the_wait_or_those_who_hold_it() {
    // Each takes the five seconds that Postgres waits.
    std::thread::scope(|scope| {
        let held =
            || program::look_and_stay().into_iter().map(|task| Op::Begin(0, task)).chain([Op::Step(0), Op::Step(0)]);
        let gives_up = [Op::Begin(1, program::prepare()), Op::Step(1), Op::TimeOut(1), Op::Step(1)];
        // A raise comes on the newest connection, and what it ends finds out at its commit.
        let ends_others = [
            vec![Op::Begin(2, program::raise()), Op::Step(2), Op::TimeOut(2)],
            (0..6).map(|_| Op::Step(2)).collect(),
            vec![Op::Begin(0, program::stray_commit())],
        ];
        for ops in [held().chain(gives_up).collect::<Vec<_>>(), held().chain(ends_others.concat()).collect()] {
            scope.spawn(move || {
                let Some(mut server) = RUNTIME.block_on(Server::postgres()) else { return };
                let script = Script { whole: false, foreign: false, lost: None, ops };
                play(&mut server, &script).unwrap();
            });
        }
    });
}

const LANES: u32 = 4;

/// Runs scripts, each on one of the servers; which inherent differences were met.
fn run(servers: &Mutex<Vec<Server>>, cases: u32) -> BTreeSet<Inherent> {
    let met = Mutex::new(BTreeSet::new());
    scripts(file!(), LANES, cases, script, |script| {
        let mut server = servers.lock().unwrap().pop().expect("a server for each lane");
        let result = play(&mut server, script);
        servers.lock().unwrap().push(server);
        result.map(|inherent| met.lock().unwrap().extend(inherent))
    });
    met.into_inner().unwrap()
}

/// Plays one script; which inherent differences were met.
fn play(server: &mut Server, script: &Script) -> Result<Vec<Inherent>, String> {
    let mut last = Ok(Vec::new());
    for _ in 0..TRIES {
        let (result, in_time) = RUNTIME.block_on(async {
            let mut scene = Scene::new(server, script).await?;
            let played = scene.play(&script.ops).await;
            let left = scene.end().await;
            let met = std::mem::take(&mut scene.met);
            Ok::<_, String>((played.and(left).map(|()| met), scene.is_in_time()))
        })?;
        last = result;
        if in_time || last.is_ok() {
            break;
        }
    }
    last
}
