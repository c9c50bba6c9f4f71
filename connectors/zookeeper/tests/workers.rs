//! Workers register, see one another and the assignment, and go: against a real ZooKeeper.

#![allow(clippy::unwrap_used, reason = "helper functions of tests fail like tests")]

mod scene;

use std::time::Duration;

use scene::*;
use tine_core::{
    hash::Hash128,
    id::{Era, Nonce, WorkerId},
    membership::{Assignment, Common, Intent, Member, Members, Registration, Share, record::Capacity},
    transport::{Peer, Token},
};
use tine_zookeeper::ZooKeeper;

fn member(id: u64) -> Member {
    let peer = Peer { id: WorkerId(id), address: format!("h:{id}"), token: Token(77) };
    let common = Common { fingerprint: Hash128(7), lineage: 70 };
    Member { peer, common, capacity: Capacity { readers: 1, stages: 1 }, intent: Intent::Stay, rival: None }
}

fn assignment(nonce: u64, era: u64) -> Assignment {
    let Member { peer, capacity, common, .. } = member(1);
    let (era, nonce, leader) = (Era(era), Nonce(nonce), peer.id);
    Assignment { era, nonce, leader, common, shares: vec![Share { peer, capacity }], places: vec![] }
}

async fn register(zookeeper: &ZooKeeper, id: u64) -> Box<dyn Registration> {
    soon("a registration", zookeeper.register(TOPOLOGY, &member(id))).await.unwrap()
}

async fn ids(registration: &dyn Registration) -> Vec<u64> {
    registration.look().await.unwrap().members.iter().map(|member| member.peer.id.0).collect()
}

#[tokio::test]
async fn workers_see_one_another_in_the_order_in_which_they_came() {
    let Some(scene) = Scene::new() else { return };
    let first = register(&scene.zookeeper(), 9).await;
    let second = register(&scene.zookeeper(), 3).await;
    assert_eq!(ids(&*first).await, [9, 3]);
    let hint = first.changed();
    second.update(&Member { intent: Intent::Leave, ..member(3) }).await.unwrap();
    let sight = second.look().await.unwrap();
    assert_eq!(sight.members.iter().map(|member| member.intent == Intent::Leave).collect::<Vec<_>>(), [false, true]);
    drop(second);
    soon("the hint", hint).await;
    until("the end of the second", || async { ids(&*first).await == [9] }).await;
    assert!(tokio::time::timeout(Duration::ZERO, first.lost()).await.is_err());
    assert_eq!(first.look().await.unwrap().assignment, None);
}

#[tokio::test]
async fn a_worker_that_ended_a_run_is_of_the_past_for_those_who_come_later() {
    let Some(scene) = Scene::new() else { return };
    let first = register(&scene.zookeeper(), 1).await;
    let second = register(&scene.zookeeper(), 2).await;
    let intent = Intent::End { drained: false, error: Some("enough".to_owned()) };
    first.update(&Member { intent: intent.clone(), ..member(1) }).await.unwrap();
    let third = register(&scene.zookeeper(), 3).await;
    let (present, later) = (second.look().await.unwrap(), third.look().await.unwrap());
    assert_eq!((&present.members[0].intent, present.past.len()), (&intent, 0));
    assert_eq!((&later.members[0].intent, later.past), (&intent, [WorkerId(1)].into()));
}

#[tokio::test]
async fn z4_an_assignment_is_written_under_the_reign_alone_and_its_readers_are_told() {
    let Some(scene) = Scene::new() else { return };
    let worker = register(&scene.zookeeper(), 1).await;
    worker.look().await.unwrap();
    let first = reign(&scene.zookeeper(), 1, 1).await;
    first.assign(GROUP, &assignment(1, 5)).await.unwrap();
    until("the assignment", || async { worker.look().await.unwrap().assignment == Some(assignment(1, 5)) }).await;
    first.write_plan(GROUP, tine_core::id::TxId(1), &plan(1)).await.unwrap();
    first.assign(GROUP, &assignment(1, 6)).await.unwrap();
    // Another leader claims: the first one's word counts no more.
    scene.wipe(LEADER).await;
    let second = reign(&scene.zookeeper(), 2, 2).await;
    assert!(first.assign(GROUP, &assignment(1, 7)).await.is_err());
    assert_eq!(worker.look().await.unwrap().assignment, Some(assignment(1, 6)));
    second.assign(GROUP, &assignment(2, 8)).await.unwrap();
    assert_eq!(worker.look().await.unwrap().assignment, Some(assignment(2, 8)));
}

#[tokio::test]
async fn z5_a_worker_that_is_cut_off_hears_it_before_the_others_miss_it() {
    let Some(scene) = Scene::new() else { return };
    let proxy = Proxy::start(&scene.server).await;
    let cut_off = register(&scene.through(&proxy.address), 1).await;
    let other = register(&scene.zookeeper(), 2).await;
    proxy.down();
    soon("the end of the lease", cut_off.lost()).await;
    assert_eq!(ids(&*other).await, [1, 2], "the server waits longer than the worker");
    until("the end of the session", || async { ids(&*other).await == [2] }).await;
}

#[tokio::test]
async fn x6_a_node_that_is_no_worker_is_left_out_and_a_strange_assignment_counts_for_nothing() {
    let Some(scene) = Scene::new() else { return };
    let worker = register(&scene.zookeeper(), 1).await;
    let client = scene.client().await;
    let options = zookeeper_client::CreateMode::Persistent.with_acls(zookeeper_client::Acls::anyone_all());
    client.create("/tine/counts/workers/0000000000000002", &[9, 9], &options).await.unwrap();
    client.create("/tine/counts/workers/0000000000000003", &member(4).encode(), &options).await.unwrap();
    assert_eq!(ids(&*worker).await, [1]);
    client.create("/tine/counts/assignment", &[1, 2, 3], &options).await.unwrap();
    assert_eq!(worker.look().await.unwrap().assignment, None, "a leader writes another over it");
}
