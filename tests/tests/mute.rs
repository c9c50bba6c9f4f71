//! Transactions commit because core's acker says that their tuple trees are complete: one that never says so stops all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tine::{Options, Phase, Shutdown, Sqlite, Topology, files};
use tine_tests::{eventually, produce};

const DEADLINE: Duration = Duration::from_secs(60);

/// How long a muted run is listened to once it has begun to emit; far more than one over these files takes.
const SILENCE: Duration = Duration::from_secs(3);

/// Counts three thousand lines until this phase, and longer if nothing more is to follow; the phases it went through.
async fn phases(folder: &Path, mute_acker: bool, until: Phase) -> Vec<Phase> {
    let (text, database) = (folder.join("text.txt"), folder.join("words.db"));
    if !text.exists() {
        fs::write(&text, produce::text(1, 3_000, 10, 500).join("\n")).unwrap();
    }
    let topology = Topology::new("mute");
    topology
        .source(files([text]).text())
        .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
        .persist(Sqlite::open(database).table("word_counts").key("word").value("n"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    let on_phase = move |_, phase| notes.lock().unwrap().push(phase);
    let options = Options { mute_acker, on_phase: Some(Arc::new(on_phase)), ..Options::default() };
    let run = tokio::spawn(topology.run_with(options, Shutdown::new()));
    eventually(DEADLINE, || async { seen.lock().unwrap().contains(&until) }).await;
    if mute_acker {
        eventually(SILENCE, || async { seen.lock().unwrap().contains(&Phase::Processed) }).await;
    }
    // Dropping a run is like a crash: safe.
    run.abort();
    let _ = run.await;
    seen.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_commits_while_the_acker_is_mute() {
    let folder = tempfile::tempdir().unwrap();
    let told = phases(folder.path(), true, Phase::Emitting).await;
    assert_eq!(told[..2], [Phase::Planned, Phase::Emitting]);
    assert!(told.iter().all(|phase| matches!(phase, Phase::Planned | Phase::Emitting)), "{told:?}");
    // The same files and the same database, heard: they were waiting for nothing but the acker.
    let told = phases(folder.path(), false, Phase::Complete).await;
    assert!(told.contains(&Phase::Acknowledged) && told.contains(&Phase::Complete), "{told:?}");
}
