//! Links that break.

use super::*;

/// Two workers, each behind a network of its own, under load.
fn with_networks(build: impl Fn(&Scene) -> Topology, happens: impl Fn(&Scene, &[Proxy; 2])) {
    let (registry, scene, proxies) = (Registry::new(), Scene::default(), [Proxy::new(), Proxy::new()]);
    let workers = [0, 1].map(|at| join_behind(build(&scene), &registry, &proxies[at]));
    share(&[&workers[0], &workers[1]], 2);
    scene.open();
    scene.goes_on_within(SOON, "it goes on");
    happens(&scene, &proxies);
    scene.goes_on_within(SOON, "it goes on at the end");
    workers[0].drain();
    all_drain("trees that were under way have failed or been acked", workers);
    nothing_is_lost(&scene);
}

fn links_break(scene: &Scene, proxies: &[Proxy; 2]) {
    for round in 0..10 {
        proxies[round % 2].cut();
        if round % 3 == 0 {
            proxies[(round + 1) % 2].cut();
        }
        scene.goes_on_within(SOON, "it goes on after a break");
    }
}

#[test]
fn nothing_on_its_way_is_missing_when_links_break_again_and_again() {
    with_networks(pipeline, links_break);
}

#[test]
fn nothing_that_bolts_hold_is_missing_when_links_break_again_and_again() {
    with_networks(|scene| holding(scene, None), links_break);
}

#[test]
fn nothing_is_missing_when_one_direction_is_down_for_a_while() {
    with_networks(pipeline, |scene, proxies| {
        for proxy in proxies {
            proxy.refuse(true);
            sleep(1000);
            proxy.refuse(false);
            scene.goes_on_within(SOON, "both directions stand again");
        }
    });
}

#[test]
fn nothing_is_missing_when_one_direction_stands_still_for_a_while() {
    with_networks(pipeline, |scene, proxies| {
        for proxy in proxies {
            proxy.stand_still(true);
            sleep(1500);
            proxy.stand_still(false);
            scene.goes_on_within(SOON, "both directions carry again");
        }
    });
}

#[test]
fn workers_that_come_and_leave_while_links_break_are_agreed_upon_all_the_same() {
    let (registry, scene, proxies) = (Registry::new(), Scene::default(), [Proxy::new(), Proxy::new(), Proxy::new()]);
    let come = |at: usize| join_behind(holding(&scene, None), &registry, &proxies[at]);
    let (first, second) = (come(0), come(1));
    share(&[&first, &second], 2);
    scene.open();
    for round in 0..6_usize {
        let third = join(holding(&scene, None), &registry);
        until_within(SOON, "the third one is given tasks", || registry.assigned() == 3);
        sleep([0, 5, 10, 20, 30, 50][round]);
        proxies[round % 2].cut();
        share_within(SOON, "three share the work", &[&first, &second, &third], 3);
        scene.goes_on_within(SOON, "three go on");
        third.leave();
        until_within(SOON, "its tasks are given to the others", || registry.assigned() == 2);
        sleep([50, 30, 20, 10, 5, 0][round]);
        proxies[round % 2].cut();
        share_within(SOON, "two share the work", &[&first, &second], 2);
        scene.goes_on_within(SOON, "two go on");
        drop(ended(END, "the one that leaves", [third]));
    }
    first.drain();
    all_drain("trees that were under way have failed or been acked", [first, second]);
    nothing_is_lost(&scene);
}

#[test]
fn a_topology_drains_while_links_break() {
    for delay in [0, 2, 5, 10, 20, 40] {
        let (registry, scene, proxies) = (Registry::new(), Scene::default(), [Proxy::new(), Proxy::new()]);
        let workers = [0, 1].map(|at| join_behind(holding(&scene, None), &registry, &proxies[at]));
        share(&[&workers[0], &workers[1]], 2);
        scene.open();
        scene.goes_on_within(SOON, "it goes on");
        workers[1].drain();
        sleep(delay);
        proxies[0].cut();
        sleep(5);
        proxies[1].cut();
        all_drain(&format!("links break {delay} ms after it was told to drain"), workers);
        nothing_is_lost(&scene);
    }
}

#[test]
fn a_topology_drains_although_a_link_broke_while_tasks_moved() {
    for delay in [0, 1, 2, 5, 10] {
        let (registry, scene, proxies) = (Registry::new(), Scene::default(), [Proxy::new(), Proxy::new()]);
        let workers = [0, 1].map(|at| join_behind(holding(&scene, None), &registry, &proxies[at]));
        let third = join(holding(&scene, None), &registry);
        share(&[&workers[0], &workers[1], &third], 3);
        scene.open();
        scene.goes_on_within(SOON, "it goes on");
        third.leave();
        until_within(SOON, "its tasks are given to the others", || registry.assigned() == 2);
        sleep(delay);
        proxies.iter().for_each(Proxy::cut);
        let what = format!("links broke {delay} ms after tasks began to move");
        drop(ended(END, &what, [third]));
        scene.goes_on_within(SOON, &what);
        workers[0].drain();
        all_drain(&what, workers);
        nothing_is_lost(&scene);
    }
}

#[test]
fn a_topology_that_has_worked_everything_off_is_not_begun_again_when_links_break_at_the_end() {
    for (delay, cut) in [(0, 0), (5, 1), (10, 0), (15, 1), (20, 0), (25, 1), (30, 0), (35, 1), (40, 0), (50, 1)] {
        let (registry, scene, proxies) = (Registry::new(), Scene::default(), [Proxy::new(), Proxy::new()]);
        let workers = [0, 1].map(|at| join_behind(scene.pipeline(500), &registry, &proxies[at]));
        share(&[&workers[0], &workers[1]], 2);
        scene.open();
        until_within(SOON, "everything is acked", || scene.log.acked().len() >= 500);
        sleep(delay);
        proxies[cut].refuse(true);
        sleep(300);
        proxies[cut].refuse(false);
        let what = format!("links broke {delay} ms after the last ack");
        all_drain(&what, workers);
        assert_eq!(scene.log.emitted(), 500, "{what}: numbers were emitted again");
    }
}
