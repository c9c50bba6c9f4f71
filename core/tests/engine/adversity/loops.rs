//! Loops.

use super::*;

/// A number and how often it still has to go round.
type Lap = (u64, u32);

/// Numbers go round a loop: so many times, in so many tasks of each bolt.
fn looping(
    scene: &Scene,
    count: u64,
    (laps, tasks): (u32, usize),
    (queue, bound, pending): (usize, usize, usize),
) -> Topology {
    let mut topology = patient("loop");
    topology.configure(|settings| {
        (settings.queue_tuples, settings.chunk_tuples, settings.max_pending) = (queue, 8, pending);
    });
    topology.register_type::<Lap>();
    let laps = topology
        .each("laps", move |number: u64, out: &mut Emit<'_, Lap>| {
            out.emit((number, laps));
            Ok(())
        })
        .shuffle(&scene.spout(&topology, count));
    let first = topology
        .each("first", |lap: Lap, out: &mut Emit<'_, Lap>| {
            out.emit(lap);
            Ok(())
        })
        .shuffle(&laps)
        .feedback(&Stream::<Lap>::named("second", "default"), Grouping::shuffle(), bound)
        .tasks(tasks);
    let log = scene.log.clone();
    topology
        .each("second", move |(number, left): Lap, out: &mut Emit<'_, Lap>| {
            match left {
                0 => log.see(0, number),
                _ => out.emit((number, left - 1)),
            }
            Ok(())
        })
        .shuffle(&first)
        .tasks(tasks);
    topology
}

/// On two workers; answers with how many trees failed.
fn goes_round(count: u64, shape: (u32, usize), bounds: (usize, usize, usize)) -> usize {
    let (registry, scene) = (Registry::new(), Scene::default());
    let workers = [0, 1].map(|_| join(looping(&scene, count, shape, bounds), &registry));
    share(&[&workers[0], &workers[1]], 2);
    scene.open();
    all_drain("the loop drains", workers);
    assert_eq!(scene.acked(), (0..count).collect());
    assert_eq!(scene.seen(), (0..count).collect());
    scene.log.failed().len()
}

#[test]
fn a_loop_whose_tasks_move_drains() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let build = || looping(&scene, 0, (5, 3), (64, 2000, 1000));
    let [first, second] = workers(&registry, build);
    scene.open();
    for _ in 0..3 {
        let third = join(build(), &registry);
        share_within(SOON, "three share the work", &[&first, &second, &third], 3);
        scene.goes_on_within(SOON, "three go on");
        third.leave();
        share_within(SOON, "two share the work", &[&first, &second], 2);
        scene.goes_on_within(SOON, "two go on");
        drop(ended(END, "the one that leaves", [third]));
    }
    first.drain();
    all_drain("the loop drains", [first, second]);
    nothing_is_lost(&scene);
}

#[test]
fn a_loop_over_two_workers_with_small_queues_drains_and_nothing_fails() {
    assert_eq!(goes_round(3000, (5, 2), (16, 2000, 1000)), 0);
    assert_eq!(goes_round(3000, (5, 1), (16, 2000, 1000)), 0);
}

#[test]
fn a_loop_over_two_workers_whose_way_back_is_shorter_than_its_way_in_drains_and_nothing_fails() {
    assert_eq!(goes_round(3000, (5, 2), (4096, 600, 300)), 0);
    assert_eq!(goes_round(3000, (5, 1), (4096, 600, 300)), 0);
}

#[test]
fn a_loop_over_two_workers_with_too_small_a_bound_fails_tuples_instead_of_locking_up() {
    goes_round(1000, (3, 2), (4096, 32, 500));
    goes_round(1000, (3, 1), (4096, 32, 500));
}
