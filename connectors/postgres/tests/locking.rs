//! The exclusive lock of the embedded mode: lost with its backend, and by a process that sleeps.

mod server;

use std::sync::mpsc;

use server::*;
use tine_core::failure::FailureKind;
use tine_state::Database;

#[tokio::test]
async fn a_lock_whose_backend_is_ended_is_lost_and_can_be_taken_again() {
    let Some(fresh) = Fresh::new().await else { return };
    let database = fresh.postgres();
    let mut lock = database.try_lock("t").await.unwrap().unwrap();
    assert!(database.try_lock("t").await.unwrap().is_none());
    fresh.sql("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())").await;
    let failure = lock.lost().await;
    assert_eq!(failure.kind, FailureKind::Transient, "{failure}");
    assert_eq!(lock.lost().await, failure, "asked again, it says the same");
    until("it can be taken again", || async { database.try_lock("t").await.unwrap().is_some() }).await;
    fresh.drop_database().await;
}

/// The thread stands for a process that is paused: its runtime does not run while it waits for the word to go on.
#[tokio::test]
async fn a3_a_paused_holder_loses_the_lock_to_a_standby_and_is_told_when_it_wakes() {
    let Some(fresh) = Fresh::new().await else { return };
    let database = fresh.postgres();
    let (taken, is_taken) = mpsc::sync_channel(1);
    let (wake, is_woken) = mpsc::sync_channel::<()>(1);
    let paused = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut lock = database.try_lock("t").await.unwrap().unwrap();
            taken.send(()).unwrap();
            is_woken.recv().unwrap();
            lock.lost().await
        })
    });
    is_taken.recv().unwrap();
    let standby = fresh.postgres();
    until("the standby has the lock", || async { standby.try_lock("t").await.unwrap().is_some() }).await;
    wake.send(()).unwrap();
    let failure = tokio::task::spawn_blocking(|| paused.join().unwrap()).await.unwrap();
    assert_eq!(failure.kind, FailureKind::Transient, "{failure}");
    fresh.drop_database().await;
}
