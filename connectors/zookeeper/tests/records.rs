//! The records of a group in a real ZooKeeper: plans, claims, contents that somebody else wrote.

mod scene;

use scene::*;
use tine_core::{
    coordination::{Coordination, GroupRecord},
    failure::FailureKind,
    id::{Epoch, Nonce, TxId},
};
use tine_zookeeper::PLAN_BYTES_MAX;
use zookeeper_client::{Acls, CreateMode, Error};

#[tokio::test]
async fn plans_are_written_completed_and_forgotten() {
    let Some(scene) = Scene::new() else { return };
    let reign = campaign(&scene.zookeeper(), 7).await;
    assert_eq!(reign.read(GROUP).await.unwrap(), GroupRecord::default());
    assert_eq!(reign.write_plan(GROUP, TxId(1), b"").await.unwrap_err().kind, FailureKind::Fenced);
    reign.claim(GROUP, &claim(7, 3)).await.unwrap();
    for txid in 1..=5 {
        reign.write_plan(GROUP, TxId(txid), &plan(txid)).await.unwrap();
    }
    reign.complete(GROUP, TxId(3)).await.unwrap();
    reign.forget_from(GROUP, TxId(5)).await.unwrap();
    let record = reign.read(GROUP).await.unwrap();
    let expected =
        GroupRecord { epoch: Epoch(3), nonce: Nonce(7), lineage: Some(5), complete: TxId(3), plans: plans([3, 4]) };
    assert_eq!(record, expected);
    reign.write_plan(GROUP, TxId(5), &plan(5)).await.unwrap();
    reign.complete(GROUP, TxId(5)).await.unwrap();
    assert_eq!(reign.read(GROUP).await.unwrap().plans, plans([5]));
}

#[tokio::test]
async fn the_tree_is_as_documented() {
    let Some(scene) = Scene::new() else { return };
    let reign = reign(&scene.zookeeper(), 7, 3).await;
    reign.write_plan(GROUP, TxId(12), &plan(12)).await.unwrap();
    let client = scene.client().await;
    let (leader, stat) = client.get_data(LEADER).await.unwrap();
    assert_eq!((leader, stat.ephemeral_owner != 0), (vec![1, 7], true));
    let (group, stat) = client.get_data(NODE).await.unwrap();
    assert_eq!((group, stat.version), (vec![1, 3, 7, 1, 5, 0, 13], 1));
    let mut names = client.list_children(NODE).await.unwrap();
    names.sort();
    assert_eq!(names, ["plans", "reign-0000000000000007"]);
    let path = format!("{NODE}/plans/00000000000000000012");
    assert_eq!(client.get_data(&path).await.unwrap().0, plan(12));
}

#[tokio::test]
async fn a_gap_in_plans_is_refused() {
    let Some(scene) = Scene::new() else { return };
    let reign = reign(&scene.zookeeper(), 7, 1).await;
    reign.write_plan(GROUP, TxId(1), &plan(1)).await.unwrap();
    assert!(reign.write_plan(GROUP, TxId(3), &plan(3)).await.is_err());
    assert!(reign.write_plan(GROUP, TxId(1), &plan(1)).await.is_err());
    assert_eq!(reign.read(GROUP).await.unwrap().plans, plans([1]));
}

#[tokio::test]
async fn a4_a_stale_leader_is_fenced_by_anothers_claim() {
    let Some(scene) = Scene::new() else { return };
    let stale = reign(&scene.zookeeper(), 7, 1).await;
    stale.write_plan(GROUP, TxId(1), &plan(1)).await.unwrap();
    scene.client().await.set_data(NODE, &content(2, 8, 0, 2), None).await.unwrap();
    let failure = stale.write_plan(GROUP, TxId(2), &plan(2)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced);
    assert!(failure.message.contains("epoch 2 of leader 0000000000000008"), "{failure}");
    for failure in [stale.complete(GROUP, TxId(1)).await, stale.forget_from(GROUP, TxId(1)).await] {
        assert_eq!(failure.unwrap_err().kind, FailureKind::Fenced);
    }
    assert_eq!(stale.claim(GROUP, &claim(7, 9)).await.unwrap_err().kind, FailureKind::Fenced);
}

#[tokio::test]
async fn z6_a_version_that_came_again_after_a_restore_does_not_let_a_stale_leader_write() {
    let Some(scene) = Scene::new() else { return };
    let stale = reign(&scene.zookeeper(), 7, 1).await;
    stale.write_plan(GROUP, TxId(1), &plan(1)).await.unwrap();
    scene.wipe(NODE).await;
    let (client, persistent) = (scene.client().await, CreateMode::Persistent.with_acls(Acls::anyone_all()));
    client.create(NODE, &content(1, 8, 0, 2), &persistent).await.unwrap();
    let reign_node = format!("{NODE}/reign-{:016x}", 8);
    client.mkdir(&reign_node, &persistent).await.unwrap();
    client.mkdir(&format!("{NODE}/plans"), &persistent).await.unwrap();
    // The same version that the stale leader knows.
    let again = client.set_data(NODE, &content(1, 8, 0, 2), None).await.unwrap();
    assert_eq!(again.version, 1);
    assert_eq!(stale.write_plan(GROUP, TxId(2), &plan(2)).await.unwrap_err().kind, FailureKind::Fenced);
    assert_eq!(client.get_data(NODE).await.unwrap().0, content(1, 8, 0, 2));
}

#[tokio::test]
async fn x6_corrupt_nodes_are_errors_that_name_them() {
    let Some(scene) = Scene::new() else { return };
    let reign = reign(&scene.zookeeper(), 7, 1).await;
    let client = scene.client().await;
    let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
    for wrong in [&b""[..], b"garbage", &[9, 1, 2, 3], &[1; 10_000]] {
        client.set_data(NODE, wrong, None).await.unwrap();
        let failure = reign.read(GROUP).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Fatal);
        assert!(failure.message.contains(NODE), "{failure}");
    }
    client.set_data(NODE, &content(1, 7, 0, 2), None).await.unwrap();
    client.create(&format!("{NODE}/plans/nonsense"), b"", &persistent).await.unwrap();
    let failure = reign.read(GROUP).await.unwrap_err();
    assert!(failure.message.contains("plans/nonsense"), "{failure}");
}

#[tokio::test]
async fn z7_a_plan_of_2000_partitions_fits_and_a_larger_one_is_refused_with_advice() {
    let Some(scene) = Scene::new() else { return };
    let reign = reign(&scene.zookeeper(), 7, 1).await;
    let range = |i: u64| (0u16, format!("some-topic-name/{i}"), "cMBpVjIpS_OChRo7rjEJCQ", i << 33, (i + 1) << 33);
    let plan = tine_core::codec::encode(&(0..2_000).map(range).collect::<Vec<_>>());
    assert!(plan.len() > 100_000 && plan.len() < 200_000, "{}", plan.len());
    reign.write_plan(GROUP, TxId(1), &plan).await.unwrap();
    reign.write_plan(GROUP, TxId(2), &vec![7; PLAN_BYTES_MAX]).await.unwrap();
    let failure = reign.write_plan(GROUP, TxId(3), &vec![7; PLAN_BYTES_MAX + 1]).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fatal);
    assert!(failure.message.contains("partitions"), "{failure}");
    assert_eq!(reign.read(GROUP).await.unwrap().plans[0].1, plan);
}

#[tokio::test]
async fn digest_auth_keeps_others_out_and_says_so() {
    let Some(scene) = Scene::new() else { return };
    let ours = scene.zookeeper().digest_auth("tine", "secret");
    let reign = reign(&ours, 7, 1).await;
    reign.write_plan(GROUP, TxId(1), &plan(1)).await.unwrap();
    let denied = scene.client().await.set_data(NODE, b"", None).await.unwrap_err();
    assert_eq!(denied, Error::NoAuth);
    let failure = scene.zookeeper().campaign(TOPOLOGY, Nonce(8)).await.map(|_| ()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fatal);
    assert!(failure.message.contains("rights") && !format!("{ours:?}{failure}").contains("secret"), "{failure}");
}
