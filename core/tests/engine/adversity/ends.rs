//! The end.

use super::*;

/// Emits without end, and says how many trees it had under way when it was closed.
struct Dutiful {
    next: Arc<AtomicU64>,
    pending: BTreeSet<u64>,
    closed: Arc<Mutex<Vec<usize>>>,
    log: Log,
}

impl Spout for Dutiful {
    type Out = u64;
    type Id = u64;

    fn next(&mut self, out: &mut SpoutCollector<u64, u64>) -> Result<Next, Failure> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        self.pending.insert(number);
        out.emit(number, number);
        Ok(Next::More)
    }

    fn ack(&mut self, number: u64) {
        self.pending.remove(&number);
        self.log.0.acked.lock().unwrap().push(number);
    }

    fn fail(&mut self, number: u64, _: Failure) {
        self.pending.remove(&number);
    }

    fn close(&mut self) {
        self.closed.lock().unwrap().push(self.pending.len());
    }
}

#[test]
fn when_all_workers_leave_at_once_what_is_under_way_is_worked_off() {
    for round in 0..2 {
        let (registry, scene, next, closed) = (Registry::new(), Scene::default(), Arc::default(), Arc::default());
        let build = || {
            let mut topology = patient("all leave");
            topology.configure(|settings| settings.drain_timeout = Duration::from_secs(6));
            let (log, next, closed) = (scene.log.clone(), Arc::clone(&next), Arc::clone(&closed));
            let make = move || {
                let (next, closed, log) = (Arc::clone(&next), Arc::clone(&closed), log.clone());
                Dutiful { next, pending: BTreeSet::new(), closed, log }
            };
            see(&scene, &topology, &topology.spout("dutiful", make).max_pending(1000));
            topology
        };
        let workers: Vec<_> = (0..3).map(|_| join(build(), &registry)).collect();
        share(&workers.iter().collect::<Vec<_>>(), 3);
        until_within(SOON, "it runs", || scene.log.acked().len() > 2000);
        let start = Barrier::new(3);
        thread::scope(|scope| {
            workers.iter().for_each(|worker| drop(scope.spawn(|| (start.wait(), worker.leave()))));
        });
        let results = ended(Duration::from_secs(9), &format!("all leave, round {round}"), workers);
        results.into_iter().for_each(|result| drop(result.unwrap()));
        nothing_is_lost(&scene);
        let closed: std::sync::MutexGuard<'_, Vec<usize>> = closed.lock().unwrap();
        assert_eq!(closed.last(), Some(&0), "trees under way when the spouts were closed: {closed:?}, round {round}");
        assert_eq!(registry.members(), 0);
    }
}

#[test]
fn an_error_of_eight_megabytes_ends_all_workers() {
    let (registry, scene, first) = (Registry::new(), Scene::default(), Arc::new(AtomicBool::new(true)));
    let build = || {
        let topology = patient("loud");
        let first = Arc::clone(&first);
        topology
            .each("loud", move |number: u64, _: &mut Emit<'_, ()>| match number {
                1000 if first.swap(false, Ordering::SeqCst) => {
                    Err(Failure::fatal(format!("number 1000 is too much: {}", "x".repeat(8 << 20))))
                }
                _ => Ok(()),
            })
            .shuffle(&once(&scene, &topology))
            .tasks(3);
        topology
    };
    let workers: Vec<_> = (0..3).map(|_| join(build(), &registry)).collect();
    share(&workers.iter().collect::<Vec<_>>(), 3);
    scene.open();
    for result in ended(SOON, "an error of 8 MB", workers) {
        let Err(error) = result else { panic!("a worker ended without the error") };
        let (text, is_own) = (error.to_string(), matches!(error, RunError::Halted(_)));
        assert!(text.contains("number 1000 is too much"), "{}", text.chars().take(200).collect::<String>());
        assert!(text.contains("loud"), "{}", text.chars().take(200).collect::<String>());
        assert!(is_own || text.len() < 1 << 20, "{} bytes", text.len());
    }
    assert_eq!(registry.members(), 0);
}

#[test]
fn the_end_is_found_after_a_spout_has_moved_with_trees_under_way() {
    let (registry, scene, release) = (Registry::new(), Scene::default(), Arc::new(AtomicBool::new(false)));
    let build = || {
        let topology = patient("moving spout");
        // The bolt first, so that it stays, and the spout moves.
        let release = Arc::clone(&release);
        let held = topology
            .bolt("hold", move || Holder { held: Vec::new(), release: Arc::clone(&release), gate: None })
            .shuffle(&Stream::<u64>::named("numbers", "default"))
            .tick_every(Duration::from_millis(5));
        once(&scene, &topology);
        let log = scene.log.clone();
        topology
            .each("see", move |number: u64, _: &mut Emit<'_, ()>| {
                log.see(0, number);
                Ok(())
            })
            .shuffle(&held);
        topology
    };
    let first = join(build(), &registry);
    scene.open();
    until_within(SOON, "trees are under way", || scene.log.emitted() >= 2000);
    assert!(first.tasks().iter().any(|task| task.is_spout));
    let second = join(build(), &registry);
    share_within(SOON, "two share the work", &[&first, &second], 2);
    assert!(second.tasks().iter().any(|task| task.is_spout), "the spout has moved");
    assert!(!first.tasks().iter().any(|task| task.is_spout));
    until_within(SOON, "trees are under way again", || scene.log.emitted() >= 3000);
    release.store(true, Ordering::SeqCst);
    scene.goes_on_within(SOON, "they complete");
    first.drain();
    all_drain("nothing is left over", [first, second]);
    nothing_is_lost(&scene);
}

/// Two bolts hold every tuple until it is released.
fn held_until(scene: &Scene, release: &Arc<AtomicBool>) -> Topology {
    let (topology, release) = (patient("held"), Arc::clone(release));
    let held = topology
        .bolt("hold", move || Holder { held: Vec::new(), release: Arc::clone(&release), gate: None })
        .shuffle(&once(scene, &topology))
        .tick_every(Duration::from_millis(5))
        .tasks(2);
    see(scene, &topology, &held);
    topology
}

#[test]
fn a_worker_that_comes_while_the_topology_drains_does_not_keep_it_from_ending() {
    let (registry, scene, release) = (Registry::new(), Scene::default(), Arc::new(AtomicBool::new(false)));
    let build = || held_until(&scene, &release);
    let [first, second] = workers(&registry, build);
    scene.open();
    until_within(SOON, "trees are under way", || scene.log.emitted() >= 2000);
    first.drain();
    let third = join(build(), &registry);
    share_within(SOON, "the late one is there", &[&first, &second, &third], 3);
    release.store(true, Ordering::SeqCst);
    let emitted = scene.log.emitted();
    all_drain("it drains on all three", [first, second, third]);
    assert_eq!(scene.log.emitted(), emitted, "nobody emits any more");
    nothing_is_lost(&scene);
}

/// Something happens to coordination while tuples are held, and the topology has been told to drain.
fn drains_although(what: &str, happens: impl Fn(&Registry)) {
    let (registry, scene, release) = (Registry::new(), Scene::default(), Arc::new(AtomicBool::new(false)));
    let [first, second] = workers(&registry, || held_until(&scene, &release));
    scene.open();
    until_within(SOON, "trees are under way", || scene.log.emitted() >= 2000);
    first.drain();
    sleep(20);
    happens(&registry);
    sleep(100);
    let emitted = scene.log.emitted();
    release.store(true, Ordering::SeqCst);
    all_drain(what, [first, second]);
    assert_eq!(scene.log.emitted(), emitted, "{what}: nobody emits any more");
    nothing_is_lost(&scene);
}

/// Numbers that nobody is told the fate of, for a slow bolt on the other worker; at the end all of them were seen.
fn untracked_ones_are_waited_for(change: fn(&mut Topology), acking: bool) {
    let (registry, scene) = (Registry::new(), Scene::default());
    let build = || {
        let mut topology = patient("untracked");
        topology.configure(|settings| (settings.queue_tuples, settings.chunk_tuples) = (64, 16));
        change(&mut topology);
        let (log, open) = (scene.log.clone(), Arc::clone(&scene.open));
        let numbers = topology.spout("numbers", move || {
            let numbers = Numbers::below(500, &log);
            Gated(if acking { numbers } else { numbers.without_acks() }, Arc::clone(&open))
        });
        let loose = topology.bolt("loosen", || Loosen).shuffle(&numbers).tasks(2);
        let log = scene.log.clone();
        topology
            .each("see", move |number: u64, _: &mut Emit<'_, ()>| {
                if number.is_multiple_of(10) {
                    sleep(1);
                }
                log.see(0, number);
                Ok(())
            })
            .shuffle(&loose)
            .tasks(2);
        topology
    };
    let workers = workers::<2>(&registry, build);
    scene.open();
    all_drain("untracked numbers", workers);
    assert_eq!(scene.log.values().len(), 5 * 500);
}

/// Emits five for one, and nobody waits for them.
struct Loosen;

impl Bolt for Loosen {
    type In = u64;
    type Out = u64;

    fn execute(&mut self, input: Input<u64>, out: &mut Collector<u64>) -> Result<(), Failure> {
        (0..5).for_each(|_| out.emit_unanchored(*input));
        out.ack(input);
        Ok(())
    }
}

#[test]
fn a_topology_does_not_end_before_tuples_that_no_tree_waits_for() {
    untracked_ones_are_waited_for(|_| {}, true);
}

#[test]
fn a_topology_without_acking_does_not_end_before_all_its_tuples_are_worked_off() {
    let without = |topology: &mut Topology| {
        topology.configure(|settings| settings.acking = false);
    };
    untracked_ones_are_waited_for(without, false);
}

#[test]
fn a_topology_drains_although_its_leader_is_deposed() {
    drains_although("the leader is deposed", Registry::depose);
}

#[test]
fn a_topology_drains_although_all_sessions_end() {
    drains_although("all sessions end", Registry::expire_all);
}

#[test]
fn a_topology_drains_although_coordination_is_away() {
    drains_although("coordination is away", |registry| registry.go_away(true));
}

#[test]
fn a_topology_drains_although_its_assignment_is_deleted() {
    drains_although("the assignment is deleted", |registry| forget_assignment(registry, 100));
}

/// What happens to the others at the very moment of the end.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Another has just registered, and has no tasks yet.
    Registers,
    /// Another's session has just ended: its links break.
    Expires,
    /// The link to another breaks, and stands again a moment later.
    Breaks,
}

/// The first worker ends the topology, by `end`; afterwards nobody works on it.
fn is_over(moment: Moment, delay: u64, end: impl Fn(Running, &AtomicBool)) {
    let (registry, scene, fatal) = (Registry::new(), Scene::default(), Arc::new(AtomicBool::new(false)));
    let build = |fatal: &Arc<AtomicBool>| {
        let topology = patient("over");
        let fatal = Arc::clone(fatal);
        let passed = topology
            .each("pass", move |number: u64, out: &mut Emit<'_, u64>| {
                if fatal.swap(false, Ordering::SeqCst) {
                    return Err(Failure::fatal("enough"));
                }
                out.emit(number);
                Ok(())
            })
            .shuffle(&once(&scene, &topology))
            .tasks(4);
        see(&scene, &topology, &passed);
        topology
    };
    // Only the first one fails.
    let first = join(build(&fatal), &registry);
    until_within(SOON, "the first one leads", || registry.is_led() && first.workers().len() == 1);
    let proxy = Proxy::new();
    let second = join_behind(build(&Arc::default()), &registry, &proxy);
    share(&[&first, &second], 2);
    scene.open();
    until_within(SOON, "it runs", || scene.log.acked().len() > 500);
    let mut others = vec![second];
    match moment {
        Moment::Registers => {
            others.push(join(build(&Arc::default()), &registry));
            until_within(SOON, "the third has registered", || registry.members() == 3);
        }
        Moment::Expires => {
            let all = first.workers();
            registry.expire(&all.iter().find(|worker| !worker.is_here).unwrap().address);
        }
        Moment::Breaks => proxy.cut(),
    }
    sleep(delay);
    end(first, &fatal);
    let what = format!("{moment:?}, and {delay} ms later the first one ends it");
    drop(ended(SOON, &what, others));
    let emitted = scene.log.emitted();
    sleep(100);
    assert_eq!(scene.log.emitted(), emitted, "{what}: somebody still emits");
    assert_eq!(registry.members(), 0, "{what}");
}

fn kill(first: Running, _: &AtomicBool) {
    within(SOON, "killing it", move || first.kill()).unwrap();
}

fn fail(first: Running, fatal: &AtomicBool) {
    fatal.store(true, Ordering::SeqCst);
    let [result] = &ended(SOON, "the one with the error", [first])[..] else { panic!("one worker") };
    assert!(result.as_ref().unwrap_err().to_string().contains("enough"));
}

/// Each of them, with so many milliseconds in between.
macro_rules! nobody_works_on {
    ($($name:ident: $moment:ident, $end:ident;)*) => {$(
        #[test]
        fn $name() {
            [0, 3, 20].into_iter().for_each(|delay| is_over(Moment::$moment, delay, $end));
        }
    )*};
}

nobody_works_on! {
    nobody_works_on_a_topology_that_was_killed_while_a_worker_registered: Registers, kill;
    nobody_works_on_a_topology_that_was_killed_while_a_session_ended: Expires, kill;
    nobody_works_on_a_topology_that_was_killed_while_a_link_broke: Breaks, kill;
    nobody_works_on_a_topology_that_an_error_ended_while_a_worker_registered: Registers, fail;
    nobody_works_on_a_topology_that_an_error_ended_while_a_session_ended: Expires, fail;
    nobody_works_on_a_topology_that_an_error_ended_while_a_link_broke: Breaks, fail;
}

#[test]
fn a_worker_whose_task_cannot_be_made_ends_by_that_error_and_the_others_go_on() {
    let (registry, scene, bad) = (Registry::new(), Scene::default(), Arc::new(AtomicBool::new(false)));
    let build = |bad: &Arc<AtomicBool>| {
        let topology = patient("factory");
        let bad = Arc::clone(bad);
        let passed = topology
            .bolt("made", move || {
                assert!(!bad.load(Ordering::SeqCst), "out of order");
                Holder { held: Vec::new(), release: Arc::new(AtomicBool::new(true)), gate: None }
            })
            .shuffle(&once(&scene, &topology))
            .tick_every(Duration::from_millis(5))
            .tasks(4);
        see(&scene, &topology, &passed);
        topology
    };
    let first = join(build(&Arc::default()), &registry);
    share(&[&first], 1);
    scene.open();
    bad.store(true, Ordering::SeqCst);
    let second = join(build(&bad), &registry);
    let [result] = &ended(SOON, "the one that cannot make a task", [second])[..] else { panic!("one worker") };
    let error = result.as_ref().unwrap_err().to_string();
    assert!(error.contains("\"made\"") && error.contains("out of order"), "{error}");
    scene.goes_on_within(SOON, "the other one has the work again");
    first.drain();
    all_drain("it drains", [first]);
    nothing_is_lost(&scene);
}

#[test]
fn another_program_of_the_same_name_ends_nobody() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let first = join(pipeline(&scene), &registry);
    share(&[&first], 1);
    scene.open();
    let other = pipeline(&scene);
    other.each("more", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&Stream::<u64>::named("pass", "default"));
    let other = join(other, &registry);
    let _ = within(SOON, "killing it", move || other.kill());
    scene.goes_on_within(SOON, "it goes on");
    first.drain();
    all_drain("it drains", [first]);
    nothing_is_lost(&scene);
}

#[test]
fn the_next_run_does_not_end_by_the_word_of_one_that_was_killed_while_it_said_the_end_of_the_last() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let [first, second] = workers(&registry, || pipeline(&scene));
    registry.keep_enders();
    within(SOON, "killing it", move || first.kill()).unwrap();
    drop(ended(SOON, "the other one hears it", [second]));
    assert_eq!(registry.members(), 1, "the one that was killed");
    let next = join(pipeline(&scene), &registry);
    scene.open();
    scene.goes_on_within(SOON, "the next run runs");
    next.drain();
    all_drain("and drains", [next]);
    nothing_is_lost(&scene);
}
