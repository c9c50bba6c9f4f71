//! Who leads, for how long, and what becomes of writes whose reply is lost: against a real ZooKeeper.

mod scene;

use std::time::{Duration, Instant};

use scene::*;
use tine_core::{
    coordination::{Coordination, GroupRecord},
    failure::FailureKind,
    id::{Nonce, TxId},
};
use tine_zookeeper::ZooKeeper;

#[tokio::test]
async fn a_standby_takes_over_at_once_when_the_leader_resigns() {
    let Some(scene) = Scene::new() else { return };
    // Its session would end long after the test has given up.
    let first = reign(&scene.with_session_timeout(&scene.server, 2 * SOON), 1, 1).await;
    first.write_plan(GROUP, TxId(1), &plan(1)).await.unwrap();
    let zookeeper = scene.zookeeper();
    let standby = tokio::spawn(async move { campaign(&zookeeper, 2).await });
    let client = scene.client().await;
    assert_eq!(client.get_data(LEADER).await.unwrap().0, [1, 1]);
    assert!(!standby.is_finished());
    drop(first);
    let second = soon("takeover", standby).await.unwrap();
    let record = second.read(GROUP).await.unwrap();
    assert_eq!((record.epoch.0, record.nonce, record.plans), (1, Nonce(1), plans([1])));
    second.claim(GROUP, &claim(2, 2)).await.unwrap();
    second.write_plan(GROUP, TxId(2), &plan(2)).await.unwrap();
    assert_eq!(client.get_data(LEADER).await.unwrap().0, [1, 2]);
}

#[tokio::test]
async fn z4_a_leader_that_is_cut_off_stops_before_the_standby_leads() {
    let Some(scene) = Scene::new() else { return };
    let proxy = Proxy::start(&scene.server).await;
    let first = reign(&scene.through(&proxy.address), 1, 1).await;
    let zookeeper = scene.zookeeper();
    let standby = tokio::spawn(async move { (campaign(&zookeeper, 2).await, Instant::now()) });
    proxy.down();
    let lost = soon("the end of the lease", first.lost()).await;
    let stopped = Instant::now();
    assert_eq!(lost.kind, FailureKind::Transient, "{lost}");
    let (second, began) = soon("takeover", standby).await.unwrap();
    assert!(stopped < began);
    second.read(GROUP).await.unwrap();
    second.claim(GROUP, &claim(2, 2)).await.unwrap();
    proxy.up();
    assert!(first.write_plan(GROUP, TxId(1), &plan(1)).await.is_err());
    assert!(second.read(GROUP).await.unwrap().plans.is_empty());
}

#[tokio::test]
async fn a_short_outage_is_bridged_by_the_same_reign() {
    let Some(scene) = Scene::new() else { return };
    let proxy = Proxy::start(&scene.server).await;
    let reign = reign(&scene.through(&proxy.address), 1, 1).await;
    let heal = proxy.clone();
    proxy.down();
    tokio::spawn(async move {
        heal.has_refused(2).await;
        heal.up();
    });
    reign.write_plan(GROUP, TxId(1), &plan(1)).await.unwrap();
    assert_eq!(reign.read(GROUP).await.unwrap().plans, plans([1]));
    assert!(tokio::time::timeout(Duration::ZERO, reign.lost()).await.is_err());
}

#[tokio::test]
async fn z1_a_write_whose_reply_was_lost_counts_once() {
    let Some(scene) = Scene::new() else { return };
    let proxy = Proxy::start(&scene.server).await;
    let reign = reign(&scene.through(&proxy.address), 1, 1).await;
    for (txid, cut) in [(1, Cut::BeforeReply), (2, Cut::Before)] {
        proxy.cut_once(&plan(txid), cut, false);
        reign.write_plan(GROUP, TxId(txid), &plan(txid)).await.unwrap();
        assert!(proxy.has_cut());
    }
    assert_eq!(reign.read(GROUP).await.unwrap().plans, plans([1, 2]));
    let version = scene.client().await.get_data(NODE).await.unwrap().1.version;
    assert_eq!(version, 2);
}

#[tokio::test]
async fn z1_a_claim_and_an_election_whose_replies_were_lost_stand() {
    let Some(scene) = Scene::new() else { return };
    let proxy = Proxy::start(&scene.server).await;
    proxy.cut_once(b"/leader", Cut::BeforeReply, false);
    let reign = campaign(&scene.through(&proxy.address), 1).await;
    assert!(proxy.has_cut());
    reign.read(GROUP).await.unwrap();
    proxy.cut_once(b"/reign-", Cut::BeforeReply, false);
    reign.claim(GROUP, &claim(1, 1)).await.unwrap();
    assert!(proxy.has_cut());
    reign.write_plan(GROUP, TxId(1), &plan(1)).await.unwrap();
}

#[tokio::test]
async fn z1_a_lost_reply_is_fenced_when_another_claim_stands_by_then() {
    let Some(scene) = Scene::new() else { return };
    let proxy = Proxy::start(&scene.server).await;
    let reign = reign(&scene.through(&proxy.address), 1, 1).await;
    proxy.cut_once(&plan(1), Cut::Before, true);
    let (other, heal) = (scene.client().await, proxy.clone());
    let meanwhile = async {
        until("the cut", || async { proxy.has_cut() }).await;
        other.set_data(NODE, &content(2, 8, 0, 0), None).await.unwrap();
        heal.up();
    };
    let plan = plan(1);
    let (written, ()) = tokio::join!(reign.write_plan(GROUP, TxId(1), &plan), meanwhile);
    let failure = written.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced, "{failure}");
}

#[tokio::test]
async fn a_write_that_nobody_waited_for_is_settled_by_the_next() {
    let Some(scene) = Scene::new() else { return };
    let proxy = Proxy::start(&scene.server).await;
    let reign = reign(&scene.through(&proxy.address), 1, 1).await;
    proxy.cut_once(b"plan of 1", Cut::BeforeReply, true);
    let first = plan(1);
    tokio::select! {
        _ = reign.write_plan(GROUP, TxId(1), &first) => panic!("it was cut"),
        () = until("the cut", || async { proxy.has_cut() }) => {}
    }
    proxy.up();
    reign.write_plan(GROUP, TxId(2), &plan(2)).await.unwrap();
    assert_eq!(reign.read(GROUP).await.unwrap().plans, plans([1, 2]));
}

#[tokio::test]
async fn z6_wiped_data_ends_the_reign_and_the_next_one_begins_anew() {
    let Some(scene) = Scene::new() else { return };
    let first = reign(&scene.zookeeper(), 1, 1).await;
    first.write_plan(GROUP, TxId(1), &plan(1)).await.unwrap();
    scene.wipe("/tine").await;
    let lost = soon("the loss", first.lost()).await;
    assert_eq!(lost.kind, FailureKind::Fenced, "{lost}");
    assert!(first.write_plan(GROUP, TxId(2), &plan(2)).await.is_err());
    let second = campaign(&scene.zookeeper(), 2).await;
    assert_eq!(second.read(GROUP).await.unwrap(), GroupRecord::default());
    second.claim(GROUP, &claim(2, 2)).await.unwrap();
    second.write_plan(GROUP, TxId(58), &plan(58)).await.unwrap();
}

#[tokio::test]
async fn groups_that_were_wiped_under_a_new_leader_are_made_again_by_its_claim() {
    let Some(scene) = Scene::new() else { return };
    let reign = campaign(&scene.zookeeper(), 1).await;
    reign.read(GROUP).await.unwrap();
    scene.wipe("/tine/counts/groups").await;
    reign.claim(GROUP, &claim(1, 1)).await.unwrap();
    reign.write_plan(GROUP, TxId(1), &plan(1)).await.unwrap();
}

#[tokio::test]
async fn z5_an_ensemble_that_is_not_there_at_the_start_is_named() {
    let zookeeper = ZooKeeper::connect("127.0.0.1:1/x").unwrap().start_timeout(Duration::from_millis(500));
    let failure = soon("giving up", zookeeper.campaign(TOPOLOGY, Nonce(1))).await.map(|_| ()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fatal);
    assert!(failure.message.contains("127.0.0.1:1/x"), "{failure}");
}

#[tokio::test]
async fn a_candidate_that_starts_before_the_ensemble_leads_once_it_is_there() {
    let Some(scene) = Scene::new() else { return };
    let proxy = Proxy::start(&scene.server).await;
    proxy.down();
    let zookeeper = scene.through(&proxy.address);
    let candidate = tokio::spawn(async move { campaign(&zookeeper, 1).await });
    proxy.has_refused(2).await;
    assert!(!candidate.is_finished());
    proxy.up();
    soon("leadership", candidate).await.unwrap();
}
