//! Backpressure, bounds, loops.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tine_core::{
    component::{Emit, Next, Spout, SpoutCollector},
    failure::Failure,
    topology::{Emits, Grouping, Stream, Topology},
};

use crate::support::{Log, Numbers, until};

/// Waits in its first `execute` until it is released.
fn gate(open: &Arc<AtomicBool>) {
    while !open.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Numbers, each emitted so many times to three tasks behind a shuffle, of which one does not return at first.
fn one_of_three_is_stuck(count: u64, fan: u64, in_front: usize) {
    let (log, open) = (Log::default(), Arc::new(AtomicBool::new(false)));
    let (of_spout, of_bolt, of_log) = (log.clone(), Arc::clone(&open), log.clone());
    let stuck = Arc::new(AtomicBool::new(false));
    let mut topology = Topology::new("one is stuck");
    topology.configure(|settings| (settings.queue_tuples, settings.chunk_tuples) = (64, 16));
    let numbers = topology.spout("numbers", move || Numbers::below(count, &of_spout)).max_pending(2000).stream();
    let numbers = match fan {
        1 => numbers,
        fan => topology
            .each("fan", move |number: u64, out: &mut Emit<'_, u64>| {
                (0..fan).for_each(|_| out.emit(number));
                Ok(())
            })
            .shuffle(&numbers)
            .stream(),
    };
    topology
        .each("work", move |number: u64, _: &mut Emit<'_, ()>| {
            if !stuck.swap(true, Ordering::SeqCst) {
                gate(&of_bolt);
            }
            of_log.see(0, number);
            Ok(())
        })
        .shuffle(&numbers)
        .tasks(3);
    let running = topology.start().unwrap();
    until("the others work off everything else", || log.acked().len() >= count as usize - in_front);
    open.store(true, Ordering::SeqCst);
    assert!(running.wait().unwrap().drained);
    assert_eq!(log.acked(), (0..count).collect::<Vec<_>>());
}

#[test]
fn behind_a_shuffle_a_task_that_does_not_return_holds_up_nobody_else() {
    // What stands in front of the one: a queue, and a few chunks.
    one_of_three_is_stuck(20_000, 1, 64 + 12 * 16);
}

#[test]
fn behind_a_shuffle_bursts_pass_by_a_task_that_does_not_return() {
    one_of_three_is_stuck(3000, 200, 64 + 16 * 16);
}

#[test]
fn backpressure_reaches_the_spout_with_and_without_acking() {
    for acking in [true, false] {
        let (log, open) = (Log::default(), Arc::new(AtomicBool::new(false)));
        let (of_spout, of_bolt) = (log.clone(), Arc::clone(&open));
        let mut topology = Topology::new("slow");
        topology.configure(|settings| {
            settings.acking = acking;
            settings.queue_tuples = 1000;
            settings.chunk_tuples = 100;
        });
        let numbers = topology.spout("numbers", move || {
            let numbers = Numbers::endless(&of_spout);
            if acking { numbers } else { numbers.without_acks() }
        });
        let passed = topology
            .each("pass", |number: u64, out: &mut Emit<'_, u64>| {
                out.emit(number);
                Ok(())
            })
            .shuffle(&numbers)
            .tasks(2);
        topology
            .each("slow", move |_: u64, _: &mut Emit<'_, ()>| {
                gate(&of_bolt);
                Ok(())
            })
            .shuffle(&passed);
        let running = topology.start().unwrap();
        let mut last = 0;
        until("the spout stands still", || {
            std::thread::sleep(Duration::from_millis(100));
            std::mem::replace(&mut last, log.emitted()) == last && last > 0
        });
        // Three queues of 1000, one chunk beyond each, what is in hands and in unfinished chunks.
        assert!(last <= 3 * 1100 + 10 * 100 + 256, "{last} tuples are under way");
        open.store(true, Ordering::SeqCst);
        until("it goes on", || log.emitted() > last + 10_000);
        assert!(running.stop().unwrap().drained);
    }
}

#[test]
fn queues_are_bounded_in_bytes_too() {
    let (log, open) = (Log::default(), Arc::new(AtomicBool::new(false)));
    let (of_spout, of_bolt) = (log.clone(), Arc::clone(&open));
    let mut topology = Topology::new("large");
    topology.configure(|settings| settings.queue_bytes = 10 << 20);
    // Each weighs 1 MB: a chunk holds one, the queue ten.
    let numbers = topology.spout("numbers", move || Numbers::endless(&of_spout)).weigh(|_| 1 << 20);
    topology
        .each("slow", move |_: u64, _: &mut Emit<'_, ()>| {
            gate(&of_bolt);
            Ok(())
        })
        .shuffle(&numbers);
    let running = topology.start().unwrap();
    let mut last = 0;
    until("the spout stands still", || {
        std::thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut last, log.emitted()) == last && last > 0
    });
    assert!(last <= 25, "{last} MB are under way where 10 may wait");
    open.store(true, Ordering::SeqCst);
    assert!(running.stop().unwrap().drained);
}

/// Emits a million tuples in one call.
struct Burst(bool);

impl Spout for Burst {
    type Out = u64;
    type Id = u64;

    fn next(&mut self, out: &mut SpoutCollector<u64, u64>) -> Result<Next, Failure> {
        if !std::mem::replace(&mut self.0, true) {
            (0..1_000_000).for_each(|number| out.emit_untracked(number));
        }
        Ok(Next::Done)
    }
}

#[test]
fn a_call_that_emits_a_million_tuples_waits_for_room_inside() {
    let topology = Topology::new("burst");
    let burst = topology.spout("burst", || Burst(false));
    topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&burst);
    let running = topology.start().unwrap();
    until("all is done", || {
        let tasks = running.tasks();
        assert!(tasks[1].depth <= 4096 + 256, "{} wait", tasks[1].depth);
        tasks[1].executed == 1_000_000
    });
    assert!(running.wait().unwrap().drained);
}

/// A number and how often it still has to go round.
type Lap = (u64, u32);

/// Numbers go round a loop of two bolts several times, with queues so small that they are full all the time.
fn loops(bound: usize, max_pending: usize, log: &Log) -> u64 {
    let of_spout = log.clone();
    let mut topology = Topology::new("loop");
    topology.configure(|settings| {
        settings.queue_tuples = 8;
        settings.chunk_tuples = 4;
        settings.max_pending = max_pending;
    });
    let numbers = topology.spout("numbers", move || Numbers::below(3000, &of_spout));
    let laps = topology
        .each("laps", |number: u64, out: &mut Emit<'_, Lap>| {
            out.emit((number, 5));
            Ok(())
        })
        .shuffle(&numbers);
    let first = topology
        .each("first", |lap: Lap, out: &mut Emit<'_, Lap>| {
            out.emit(lap);
            Ok(())
        })
        .shuffle(&laps)
        .feedback(&Stream::<Lap>::named("second", "default"), Grouping::shuffle(), bound)
        .tasks(2);
    let of_bolt = log.clone();
    topology
        .each("second", move |(number, left): Lap, out: &mut Emit<'_, Lap>| {
            if left == 0 {
                of_bolt.see(0, number);
            } else {
                out.emit((number, left - 1));
            }
            Ok(())
        })
        .shuffle(&first)
        .tasks(2);
    let summary = topology.run().unwrap();
    assert!(summary.drained);
    summary.failed()
}

#[test]
fn a_loop_with_all_queues_full_does_not_lock_up_and_nothing_fails_if_its_bound_is_large_enough() {
    let log = Log::default();
    assert_eq!(loops(4000, 2000, &log), 0);
    assert_eq!(log.acked(), (0..3000).collect::<Vec<_>>());
    assert_eq!(log.values(), (0..3000).collect::<Vec<_>>());
}

#[test]
fn a_loop_with_too_small_a_bound_fails_tuples_instead_of_locking_up() {
    let log = Log::default();
    loops(4, 500, &log);
    // What failed was emitted again until it got through: at least once.
    assert_eq!(log.acked(), (0..3000).collect::<Vec<_>>());
    let mut seen = log.values();
    seen.dedup();
    assert_eq!(seen, (0..3000).collect::<Vec<_>>());
}

#[test]
fn tasks_of_one_executor_take_turns() {
    let log = Log::default();
    let of_spout = log.clone();
    let topology = Topology::new("fair");
    let numbers = topology.spout("numbers", move || Numbers::endless(&of_spout));
    // One key in a hundred goes elsewhere than all the others.
    topology
        .each("count", |_: u64, _: &mut Emit<'_, ()>| Ok(()))
        .input(&numbers, Grouping::fields_by(|number: &u64| u8::from(number.is_multiple_of(100))))
        .tasks(8)
        .executors(1);
    let running = topology.start().unwrap();
    let busy = || running.tasks().iter().filter(|task| !task.is_spout && task.executed > 1000).count();
    until("the task with few tuples gets its turn while the other has always work", || busy() == 2);
    assert!(running.stop().unwrap().drained);
}
