//! Tuples that are held while tasks move.

use super::*;

#[test]
fn tuples_that_a_bolt_holds_while_its_task_moves_away_and_back_are_acked_or_fail() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let [first, second] = workers(&registry, || holding(&scene, None));
    scene.open();
    for _ in 0..3 {
        scene.goes_on_within(SOON, "two go on");
        let third = join(holding(&scene, None), &registry);
        share_within(SOON, "tasks move away", &[&first, &second, &third], 3);
        scene.goes_on_within(SOON, "three go on");
        third.leave();
        share_within(SOON, "tasks move back", &[&first, &second], 2);
        drop(ended(END, "the one that leaves", [third]));
    }
    scene.goes_on_within(SOON, "two go on again");
    first.drain();
    all_drain("what was held has failed", [first, second]);
    nothing_is_lost(&scene);
}

#[test]
fn acks_by_an_instance_whose_task_has_moved_away_and_back_meanwhile_complete_nothing_of_later() {
    let (registry, scene, gate) = (Registry::new(), Scene::default(), Arc::new(Gate::default()));
    let build = || holding(&scene, Some(&gate));
    let [first, second] = workers(&registry, build);
    scene.open();
    until_within(SOON, "all four instances are stuck, with tuples in their hands", || gate.stuck() == 4);
    let third = join(build(), &registry);
    share_within(SOON, "a task moves away", &[&first, &second, &third], 3);
    third.leave();
    share_within(SOON, "and back", &[&first, &second], 2);
    drop(ended(END, "the one that leaves", [third]));
    gate.open();
    scene.goes_on_within(SOON, "everything goes on");
    first.drain();
    all_drain("old and new instances", [first, second]);
    nothing_is_lost(&scene);
}
