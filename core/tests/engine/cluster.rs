//! Several workers: each of them a topology of this process, over real links. Coordination is in memory ([`Registry`]); with the
//! real one there are `tests/tests/core_workers.rs`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};
use tine_core::{
    cluster::Cluster,
    component::Emit,
    engine::{RunError, Running},
    failure::Failure,
    topology::{BuildError, Emits, Grouping, Topology},
    transport::Listen,
};

use crate::{
    registry::Registry,
    scene::{Gated, Scene, join, share, workers},
    support::{Numbers, until},
};

#[test]
fn workers_share_the_tasks_and_the_end_comes_when_everything_is_worked_off_everywhere() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let workers: Vec<_> = (0..3).map(|_| join(scene.pipeline(30_000), &registry)).collect();
    share(&workers.iter().collect::<Vec<_>>(), 3);
    let tasks: Vec<_> = workers[0].workers().iter().map(|worker| worker.tasks.len()).collect();
    assert_eq!(tasks, [3, 3, 2], "eight tasks, evenly");
    scene.open();
    for worker in workers {
        assert!(worker.wait().unwrap().drained);
    }
    assert_eq!(scene.log.values(), (0..30_000).collect::<Vec<_>>(), "nothing moved, so everything came once");
    assert_eq!(scene.log.acked(), (0..30_000).collect::<Vec<_>>());
    assert!(scene.log.failed().is_empty());
    assert_eq!(registry.members(), 0);
}

#[test]
fn a_dead_workers_tasks_move_and_nothing_is_missing() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let workers: Vec<_> = (0..3).map(|_| join(scene.pipeline(60_000), &registry)).collect();
    share(&workers.iter().collect::<Vec<_>>(), 3);
    scene.open();
    until("something is acked", || scene.log.acked().len() > 1000);
    let mut workers = workers.into_iter();
    let first = workers.next().unwrap();
    // The oldest one: it leads, and runs the spout.
    drop(first);
    for worker in workers {
        assert!(worker.wait().unwrap().drained);
    }
    assert_eq!(scene.seen(), (0..60_000).collect());
    assert_eq!(scene.acked(), (0..60_000).collect());
}

#[test]
fn workers_come_and_go_while_it_runs() {
    let (registry, scene) = (Registry::new(), Scene::default());
    scene.open();
    let first = join(scene.pipeline(0), &registry);
    scene.goes_on("one worker is enough");
    let second = join(scene.pipeline(0), &registry);
    share(&[&first, &second], 2);
    scene.goes_on("two share the work");
    let third = join(scene.pipeline(0), &registry);
    share(&[&first, &second, &third], 3);
    scene.goes_on("three share the work");
    // The leader, of all.
    first.leave();
    assert!(!first.wait().unwrap().drained);
    share(&[&second, &third], 2);
    scene.goes_on("the others go on");
    second.drain();
    assert!(second.wait().unwrap().drained && third.wait().unwrap().drained);
}

#[test]
fn the_data_flow_goes_on_while_coordination_is_away_and_while_nobody_leads() {
    let (registry, scene) = (Registry::new(), Scene::default());
    scene.open();
    let workers = workers::<2>(&registry, || scene.pipeline(0));
    scene.goes_on("it runs");
    let failed = scene.log.failed().len();
    registry.depose();
    scene.goes_on("another leads");
    registry.go_away(true);
    scene.goes_on("the service is away");
    scene.goes_on("and stays away");
    assert_eq!(scene.log.failed().len(), failed, "nobody has dropped a tree");
    registry.go_away(false);
    share(&[&workers[0], &workers[1]], 2);
    scene.goes_on("the service is back");
    registry.expire_all();
    until("tasks were dropped", || scene.log.words().contains(&"close".to_owned()));
    share(&[&workers[0], &workers[1]], 2);
    scene.goes_on("all sessions were ended");
    let [first, second] = workers;
    first.drain();
    assert!(first.wait().unwrap().drained && second.wait().unwrap().drained);
}

#[test]
fn what_the_topology_is_told_all_workers_do() {
    let (registry, scene) = (Registry::new(), Scene::default());
    scene.open();
    let [first, second] = workers(&registry, || scene.pipeline(0));
    let runs_spout = |worker: &Running| worker.tasks().iter().any(|task| task.is_spout);
    // Whoever does not run the spout tells it.
    let (other, spout) = if runs_spout(&first) { (second, first) } else { (first, second) };
    until("it runs", || !scene.log.acked().is_empty());
    other.deactivate();
    let still = || spout.tasks().iter().filter(|task| task.is_spout).all(|task| task.depth == 0);
    until("nothing is under way", still);
    let before = scene.log.emitted();
    let third = join(scene.pipeline(0), &registry);
    share(&[&other, &spout, &third], 3);
    assert_eq!(scene.log.emitted(), before, "whoever comes while it pauses pauses too");
    spout.activate();
    until("it runs again", || scene.log.emitted() > before);
    assert!(!other.kill().unwrap().drained);
    assert!(!spout.wait().unwrap().drained && !third.wait().unwrap().drained);
}

#[test]
fn an_error_that_ends_one_worker_ends_all_with_its_words() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let build = || {
        let topology = Topology::new("fatal");
        let numbers = scene.spout(&topology, 0);
        topology
            .each("halt", |number: u64, _: &mut Emit<'_, ()>| match number {
                100 => Err(Failure::fatal("number 100 is more than enough")),
                _ => Ok(()),
            })
            .shuffle(&numbers);
        topology
    };
    let workers = workers::<2>(&registry, build);
    scene.open();
    for worker in workers {
        let error = worker.wait().unwrap_err().to_string();
        assert!(error.contains("number 100 is more than enough") && error.contains("\"halt\""), "{error}");
    }
}

#[test]
fn full_queues_on_links_that_several_edges_share_do_not_lock_up() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let finished = Arc::new(AtomicU64::new(0));
    let build = || {
        let mut topology = Topology::new("crossing");
        topology.configure(|settings| {
            (settings.queue_tuples, settings.chunk_tuples, settings.max_pending) = (16, 8, 2000);
        });
        // Every step fans out threefold and goes to the other worker and back; all share two links.
        let mut before = scene.spout(&topology, 3000).stream();
        for step in 0..5 {
            let fan = if step < 2 { 3 } else { 1 };
            before = topology
                .each(format!("step {step}"), move |number: u64, out: &mut Emit<'_, u64>| {
                    (0..fan).for_each(|_| out.emit(number));
                    Ok(())
                })
                .shuffle(&before)
                .tasks(2)
                .stream();
        }
        let counted = Arc::clone(&finished);
        topology
            .each("slow", move |_: u64, _: &mut Emit<'_, ()>| {
                if counted.fetch_add(1, Ordering::Relaxed).is_multiple_of(64) {
                    std::thread::yield_now();
                }
                Ok(())
            })
            .shuffle(&before)
            .tasks(2);
        topology
    };
    let workers = workers::<2>(&registry, build);
    scene.open();
    for worker in workers {
        assert!(worker.wait().unwrap().drained);
    }
    assert_eq!(finished.load(Ordering::Relaxed), 9 * 3000);
    assert_eq!(scene.log.acked().len(), 3000);
}

#[test]
fn other_programs_are_refused_with_both_fingerprints() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let first = join(scene.pipeline(0), &registry);
    until("the first one runs", || first.workers().len() == 1);
    let topology = scene.pipeline(0);
    topology
        .each("more", |_: u64, _: &mut Emit<'_, ()>| Ok(()))
        .shuffle(&tine_core::topology::Stream::<u64>::named("pass", "default"));
    let error = join(topology, &registry).wait().unwrap_err();
    let RunError::Worker(failure) = &error else { panic!("{error}") };
    let hex = |word: &&str| word.trim_matches(':').len() == 32;
    assert_eq!(failure.message.split(' ').filter(hex).count(), 2, "{failure}");
    assert_eq!(first.workers().len(), 1);
    first.kill().unwrap();
}

/// Not registered, or not encodable.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Odd(#[serde(serialize_with = "even_alone")] u64);

fn even_alone<S: serde::Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
    match number % 2 {
        0 => to.serialize_u64(*number),
        _ => Err(serde::ser::Error::custom(format!("{number} is odd"))),
    }
}

fn odd_ones(scene: &Scene) -> Topology {
    let topology = Topology::new("odd");
    let (log, open) = (scene.log.clone(), Arc::clone(&scene.open));
    let numbers = topology.spout("numbers", move || Gated(Numbers::below(10, &log).once(), Arc::clone(&open)));
    // On the spout's worker, with one task of each component: their numbers are even.
    let wrapped = topology
        .each("wrap", |number: u64, out: &mut Emit<'_, Odd>| {
            out.emit(Odd(number));
            Ok(())
        })
        .shuffle(&numbers);
    let log = scene.log.clone();
    topology
        .each("see", move |Odd(number): Odd, _: &mut Emit<'_, ()>| {
            log.see(0, number);
            Ok(())
        })
        .shuffle(&wrapped);
    topology
}

#[test]
fn tuples_that_cannot_travel_are_refused_or_fail_by_name() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let cluster = Cluster::new(Arc::new(registry.clone()), Listen::on("127.0.0.1:0").unwrap());
    let error = odd_ones(&scene).join(cluster).unwrap_err();
    let RunError::Build(BuildError::NotRegistered { bolt, tuple }) = &error else { panic!("{error}") };
    assert!(bolt == "see" && tuple.ends_with("Odd") && error.to_string().contains("register_type"), "{error}");

    let build = || {
        let topology = odd_ones(&scene);
        topology.register_type::<Odd>();
        topology
    };
    let workers = workers::<2>(&registry, build);
    scene.open();
    let [first, second] = workers;
    until("all numbers have come to an end", || scene.log.acked().len() + scene.log.failed().len() == 10);
    let errors: Vec<_> = first.errors().into_iter().chain(second.errors()).map(|error| error.failure.message).collect();
    assert!(errors.iter().any(|error| error.contains("\"see\"") || error.contains("is odd")), "{errors:?}");
    assert_eq!(scene.log.values(), [0, 2, 4, 6, 8]);
    assert_eq!(scene.log.acked(), [0, 2, 4, 6, 8]);
    assert!(first.wait().unwrap().drained && second.wait().unwrap().drained);
}

#[test]
fn local_or_shuffle_keeps_tuples_on_their_worker() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let crossed = Arc::new(AtomicU64::new(0));
    let build = |name: &'static str| {
        let topology = Topology::new("near");
        let numbers = scene.spout(&topology, 2000);
        let named = topology
            .each("name", move |_: u64, out: &mut Emit<'_, String>| {
                out.emit(name.to_owned());
                Ok(())
            })
            .shuffle(&numbers)
            .tasks(2);
        let crossed = Arc::clone(&crossed);
        topology
            .each("near", move |from: String, _: &mut Emit<'_, ()>| {
                crossed.fetch_add(u64::from(from != name), Ordering::Relaxed);
                Ok(())
            })
            .input(&named, Grouping::local_or_shuffle())
            .tasks(2);
        topology
    };
    let workers = [join(build("one"), &registry), join(build("two"), &registry)];
    share(&[&workers[0], &workers[1]], 2);
    scene.open();
    for worker in workers {
        assert!(worker.wait().unwrap().drained);
    }
    // Each queue has room for all of them.
    assert_eq!(crossed.load(Ordering::Relaxed), 0);
}
