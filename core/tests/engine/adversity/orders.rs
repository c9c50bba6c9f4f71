//! Orders.

use super::*;

/// Emits a number now and then, and counts them.
struct Steady(Arc<AtomicU64>);

impl Spout for Steady {
    type Out = u64;
    type Id = ();

    fn next(&mut self, out: &mut SpoutCollector<u64, ()>) -> Result<Next, Failure> {
        out.emit(self.0.fetch_add(1, Ordering::SeqCst), ());
        Ok(Next::In(Duration::from_millis(1)))
    }
}

/// A spout of so many tasks: one for each worker.
fn steady(count: &Arc<AtomicU64>, tasks: usize) -> Topology {
    let topology = patient("steady");
    let count = Arc::clone(count);
    let numbers = topology.spout("steady", move || Steady(Arc::clone(&count))).tasks(tasks);
    topology.each("see", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers).tasks(tasks);
    topology
}

/// Which workers' spouts emit: what has just been emitted is out.
fn emitting(counts: &[Arc<AtomicU64>]) -> Vec<bool> {
    let now = || -> Vec<u64> { counts.iter().map(|count| count.load(Ordering::SeqCst)).collect() };
    let before = now();
    sleep(40);
    before.iter().zip(now()).map(|(before, now)| now > *before).collect()
}

/// Waits until all workers do the same (what is expected, if anything is), and go on doing it.
fn agree(what: &str, counts: &[Arc<AtomicU64>], expected: Option<bool>) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut same = 0;
    while same < 3 {
        let now = emitting(counts);
        let agreed = now.iter().all(|one| *one == now[0]) && expected.is_none_or(|expected| expected == now[0]);
        same = if agreed { same + 1 } else { 0 };
        assert!(Instant::now() < deadline, "{what}: who emits: {now:?}, expected of all: {expected:?}");
    }
}

#[test]
fn opposite_orders_at_the_same_moment_leave_all_workers_in_one_phase() {
    let (registry, counts) = (Registry::new(), [Arc::default(), Arc::default()]);
    let (first, second) = (join(steady(&counts[0], 2), &registry), join(steady(&counts[1], 2), &registry));
    share(&[&first, &second], 2);
    agree("both emit at first", &counts, Some(true));
    for round in 0..12 {
        let (start, (yes, no)) = (Barrier::new(2), if round % 2 == 0 { (&first, &second) } else { (&second, &first) });
        thread::scope(|scope| {
            scope.spawn(|| (start.wait(), yes.activate()));
            scope.spawn(|| (start.wait(), no.deactivate()));
        });
        agree(&format!("opposite orders, round {round}"), &counts, None);
    }
    first.deactivate();
    agree("the last order is to pause", &counts, Some(false));
    second.activate();
    agree("the last order is to go on", &counts, Some(true));
    first.drain();
    all_drain("the last order is to drain", [first, second]);
}

#[test]
fn orders_given_while_links_break_are_obeyed_by_all() {
    let (registry, counts, proxy) = (Registry::new(), [Arc::default(), Arc::default()], Proxy::new());
    let first = join(steady(&counts[0], 2), &registry);
    let second = join_behind(steady(&counts[1], 2), &registry, &proxy);
    share(&[&first, &second], 2);
    for delay in [0, 1, 5, 20] {
        proxy.cut();
        sleep(delay);
        first.deactivate();
        agree(&format!("{delay} ms after a break it is told to pause"), &counts, Some(false));
        second.activate();
        proxy.cut();
        agree("just before a break it is told to go on", &counts, Some(true));
    }
    first.drain();
    all_drain("it is told to drain", [first, second]);
}

#[test]
fn an_order_given_before_a_worker_has_joined_is_obeyed_by_all_and_outvotes_no_later_one() {
    let (registry, counts) = (Registry::new(), [Arc::default(), Arc::default(), Arc::default()]);
    let (first, second) = (join(steady(&counts[0], 3), &registry), join(steady(&counts[1], 3), &registry));
    share(&[&first, &second], 2);
    for _ in 0..2 {
        first.deactivate();
        first.activate();
    }
    agree("the two emit", &counts[..2], Some(true));
    registry.slow(Duration::from_millis(300));
    let third = join(steady(&counts[2], 3), &registry);
    third.deactivate();
    share_within(SOON, "the third one joins", &[&first, &second, &third], 3);
    agree("the order of the third is obeyed", &counts, Some(false));
    second.activate();
    agree("and so is the next one, of another", &counts, Some(true));
    third.deactivate();
    agree("and the next one, of the third again", &counts, Some(false));
    first.drain();
    all_drain("and the last one", [first, second, third]);
}

#[test]
fn a_worker_told_to_leave_before_it_has_joined_does_not_end_the_topology() {
    let (registry, counts) = (Registry::new(), [Arc::default(), Arc::default()]);
    let (first, second) = (join(steady(&counts[0], 2), &registry), join(steady(&counts[1], 2), &registry));
    share(&[&first, &second], 2);
    registry.slow(Duration::from_millis(300));
    let third = join(steady(&Arc::default(), 2), &registry);
    third.leave();
    drop(ended(SOON, "the one that leaves at once", [third]));
    registry.slow(Duration::ZERO);
    sleep(300);
    share_within(SOON, "the others are there", &[&first, &second], 2);
    agree("the others go on", &counts, Some(true));
    first.drain();
    all_drain("it is told to drain", [first, second]);
}
