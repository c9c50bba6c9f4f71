//! Calls that do not return.

use super::*;

/// Does not return from its first tuple before the gate opens.
struct Sticky {
    gate: Arc<Gate>,
    first: bool,
    log: Log,
}

impl Bolt for Sticky {
    type In = u64;
    type Out = ();

    fn execute(&mut self, input: Input<u64>, out: &mut Collector<()>) -> Result<(), Failure> {
        if std::mem::take(&mut self.first) && !self.gate.open.load(Ordering::SeqCst) && self.gate.stuck() < 4 {
            self.gate.wait();
        }
        self.log.see(1, *input);
        out.ack(input);
        Ok(())
    }

    fn cleanup(&mut self) {
        self.log.word("cleanup");
    }
}

/// Beside a pipeline, a few numbers for four tasks that do not return.
fn sticky(scene: &Scene, few: &Log, gate: &Arc<Gate>) -> Topology {
    let topology = pipeline(scene);
    let (log, open) = (few.clone(), Arc::clone(&scene.open));
    let numbers = topology.spout("few", move || Gated(Numbers::below(8, &log), Arc::clone(&open)));
    let (log, gate) = (few.clone(), Arc::clone(gate));
    topology
        .bolt("sticky", move || Sticky { gate: Arc::clone(&gate), first: true, log: log.clone() })
        .shuffle(&numbers)
        .tasks(4);
    topology
}

/// They are acked, too, once their tasks return.
fn the_few_come_to_their_end<const N: usize>(scene: &Scene, few: &Log, workers: [Running; N]) {
    until_within(SOON, "the few are acked", || few.acked().iter().collect::<BTreeSet<_>>().len() == 8);
    workers[0].drain();
    all_drain("it is told to drain", workers);
    nothing_is_lost(scene);
}

#[test]
fn a_bolt_that_does_not_return_holds_up_no_move_and_ends_by_itself_when_it_does() {
    let (registry, scene, few, gate) = (Registry::new(), Scene::default(), Log::default(), Arc::new(Gate::default()));
    let build = || sticky(&scene, &few, &gate);
    let [first, second] = workers(&registry, build);
    scene.open();
    until_within(SOON, "all four tasks are stuck", || gate.stuck() == 4);
    scene.goes_on_within(SOON, "the others go on beside those that are stuck");
    let began = Instant::now();
    let third = join(build(), &registry);
    share_within(SOON, "the move waits for no task that does not return", &[&first, &second, &third], 3);
    scene.goes_on_within(SOON, "the others go on after the move");
    // Longer than the engine waits for anything.
    let held = || began.elapsed() > Duration::from_secs(11);
    until_within(END, "time passes", || {
        assert!(![&first, &second, &third].iter().any(|one| one.has_ended()), "a worker has given up");
        held()
    });
    scene.goes_on_within(SOON, "the others still go on");
    gate.open();
    until_within(SOON, "the old instance is cleaned up", || few.words().contains(&"cleanup".to_owned()));
    the_few_come_to_their_end(&scene, &few, [first, second, third]);
}

#[test]
fn a_worker_leaves_while_its_bolt_does_not_return_and_the_others_do_not_wait() {
    let (registry, scene, few, gate) = (Registry::new(), Scene::default(), Log::default(), Arc::new(Gate::default()));
    let build = || sticky(&scene, &few, &gate);
    let [first, second, third] = workers(&registry, build);
    scene.open();
    until_within(SOON, "all four tasks are stuck", || gate.stuck() == 4);
    second.leave();
    share_within(SOON, "the others share the work", &[&first, &third], 2);
    scene.goes_on_within(SOON, "the others go on");
    gate.open();
    let [left] = &ended(END, "the one that leaves", [second])[..] else { panic!("one worker") };
    assert!(!left.as_ref().unwrap().drained);
    assert!(few.words().contains(&"cleanup".to_owned()));
    the_few_come_to_their_end(&scene, &few, [first, third]);
}

#[test]
fn a_worker_whose_session_ended_while_a_bolt_did_not_return_registers_again_and_works_on() {
    let (registry, scene, few, gate) = (Registry::new(), Scene::default(), Log::default(), Arc::new(Gate::default()));
    let build = || sticky(&scene, &few, &gate);
    let [first, second] = workers(&registry, build);
    scene.open();
    until_within(SOON, "all four tasks are stuck", || gate.stuck() == 4);
    registry.expire_all();
    // Not before they know.
    until_within(SOON, "they register again", || registry.members() == 2 && registry.is_led());
    until_within(SOON, "tasks have come to an end", || scene.log.words().contains(&"close".to_owned()));
    share_within(SOON, "both share the work again", &[&first, &second], 2);
    scene.goes_on_within(SOON, "they work on");
    gate.open();
    the_few_come_to_their_end(&scene, &few, [first, second]);
}

#[test]
fn a_bolt_that_waits_for_room_at_a_dead_worker_does_not_keep_its_tasks_from_moving() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let build = || {
        let mut topology = patient("fan");
        topology.configure(|settings| (settings.queue_tuples, settings.chunk_tuples) = (64, 16));
        let numbers = scene.spout(&topology, 40);
        let fanned = topology
            .each("fan", |number: u64, out: &mut Emit<'_, u64>| {
                (0..5000).for_each(|_| out.emit(number));
                Ok(())
            })
            .shuffle(&numbers)
            .tasks(2);
        let log = scene.log.clone();
        topology
            .each("see", move |number: u64, _: &mut Emit<'_, ()>| {
                log.see(0, number);
                if log.0.seen.lock().unwrap().len().is_multiple_of(100) {
                    sleep(1);
                }
                Ok(())
            })
            .shuffle(&fanned)
            .tasks(2);
        topology
    };
    let [first, second] = workers(&registry, build);
    scene.open();
    until_within(SOON, "it runs", || scene.log.0.seen.lock().unwrap().len() > 5000);
    drop(second);
    let results = ended(Duration::from_secs(20), "the one that is left works everything off", [first]);
    assert!(results.into_iter().next().unwrap().unwrap().drained);
    assert_eq!(scene.acked(), (0..40).collect());
}
