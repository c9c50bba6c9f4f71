//! Moves that somebody missed.

use super::*;

/// `delay`: how long it is missing; with none at all some workers may never see that.
fn the_assignment_is_deleted(build: impl Fn(&Scene) -> Topology, delay: u64) {
    let (registry, scene) = (Registry::new(), Scene::default());
    let [first, second] = workers(&registry, || build(&scene));
    scene.open();
    for _ in 0..5 {
        scene.goes_on_within(SOON, "it goes on");
        forget_assignment(&registry, delay);
    }
    scene.goes_on_within(SOON, "it still goes on");
    first.drain();
    all_drain("trees that were under way have failed or been acked", [first, second]);
    nothing_is_lost(&scene);
}

#[test]
fn nothing_on_its_way_is_missing_when_the_assignment_is_deleted_again_and_again() {
    [0, 100].into_iter().for_each(|delay| the_assignment_is_deleted(pipeline, delay));
}

#[test]
fn nothing_that_bolts_hold_is_missing_when_the_assignment_is_deleted_again_and_again() {
    the_assignment_is_deleted(|scene| holding(scene, None), 100);
}

#[test]
fn nothing_is_missing_when_the_assignment_is_deleted_for_a_moment_again_and_again() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let build = || {
        let topology = patient("slow");
        let log = scene.log.clone();
        topology
            .each("see", move |number: u64, _: &mut Emit<'_, ()>| {
                log.see(0, number);
                if number.is_multiple_of(16) {
                    sleep(1);
                }
                Ok(())
            })
            .shuffle(&once(&scene, &topology))
            .tasks(4);
        topology
    };
    let [first, second] = workers(&registry, build);
    scene.open();
    for round in 0..30 {
        scene.goes_on_within(SOON, "it goes on");
        // Long enough that tasks end, short enough that hardly anybody notices.
        registry.slow_writes(Duration::from_millis(3 + round % 10));
        sleep(50);
        registry.forget_assignment();
        until_within(SOON, "another is made", || registry.assigned() == 2);
    }
    scene.goes_on_within(SOON, "it still goes on");
    first.drain();
    all_drain("nothing counts as under way that is not", [first, second]);
    nothing_is_lost(&scene);
}

#[test]
fn workers_show_who_runs_what_after_the_assignment_was_deleted() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let [first, second] = workers(&registry, || pipeline(&scene));
    forget_assignment(&registry, 100);
    share_within(SOON, "both share the work again", &[&first, &second], 2);
    first.drain();
    all_drain("it is told to drain", [first, second]);
}

fn tasks_move_to_nobody(build: impl Fn(&Scene) -> Topology) {
    let (registry, scene) = (Registry::new(), Scene::default());
    let [first, second] = workers(&registry, || build(&scene));
    scene.open();
    for _ in 0..5 {
        scene.goes_on_within(SOON, "it goes on");
        let phantom = registry.phantom();
        until_within(SOON, "tasks move to nobody", || registry.assigned() == 3);
        // Until some have been dropped.
        sleep(100);
        drop(phantom);
        until_within(SOON, "they move back", || registry.assigned() == 2);
    }
    scene.goes_on_within(SOON, "it still goes on");
    first.drain();
    all_drain("trees that were under way have failed or been acked", [first, second]);
    nothing_is_lost(&scene);
}

#[test]
fn nothing_on_its_way_is_missing_when_tasks_move_to_a_worker_that_never_comes_and_back() {
    tasks_move_to_nobody(pipeline);
}

#[test]
fn nothing_that_bolts_hold_is_missing_when_tasks_move_to_a_worker_that_never_comes_and_back() {
    tasks_move_to_nobody(|scene| holding(scene, None));
}

#[test]
fn nothing_is_missing_when_one_session_after_the_other_ends() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let [first, second] = workers(&registry, || pipeline(&scene));
    scene.open();
    for round in 0..4 {
        scene.goes_on_within(SOON, "it goes on");
        let workers = first.workers();
        registry.expire(&workers[round % 2].address);
        until_within(SOON, "somebody's tasks were dropped", || {
            registry.members() == 2 && (first.workers() != workers || second.workers().is_empty())
        });
        share_within(SOON, "both share the work again", &[&first, &second], 2);
    }
    scene.goes_on_within(SOON, "it still goes on");
    first.drain();
    all_drain("trees that were under way have failed or been acked", [first, second]);
    nothing_is_lost(&scene);
}
