//! Failed, lost and late tuples; panics; errors.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tine_core::{
    component::{Bolt, Collector, Context, Emit, Input, Next, Spout, SpoutCollector},
    engine::RunError,
    failure::{Failure, FailureKind},
    topology::Topology,
};

use crate::support::{Log, Numbers, until};

#[test]
fn a_failure_reaches_the_spout_at_once_and_with_its_reason() {
    let spout = Log::default();
    let of_spout = spout.clone();
    let seen = Mutex::new(HashSet::new());
    let seen = Arc::new(seen);
    let topology = Topology::new("failing");
    let numbers = topology.spout("numbers", move || Numbers::below(1000, &of_spout));
    topology
        .each("fail each once", move |number: u64, _: &mut Emit<'_, ()>| {
            if seen.lock().unwrap().insert(number) { Err(Failure::transient("first time")) } else { Ok(()) }
        })
        .shuffle(&numbers);
    let summary = topology.run().unwrap();
    assert_eq!((summary.acked(), summary.failed()), (1000, 1000));
    // Long before the message timeout of 30 s.
    assert!(
        spout
            .failed()
            .iter()
            .all(|(_, kind, after)| { *kind == FailureKind::Transient && *after < Duration::from_secs(20) })
    );
}

/// Loses what it gets: neither acks nor fails.
struct Lose {
    lost: HashSet<u64>,
    every: u64,
}

impl Bolt for Lose {
    type In = u64;
    type Out = ();

    fn execute(&mut self, input: Input<u64>, out: &mut Collector<()>) -> Result<(), Failure> {
        if !input.is_multiple_of(self.every) || !self.lost.insert(*input) {
            out.ack(input);
        }
        Ok(())
    }
}

#[test]
fn a_lost_tuple_times_out_between_one_and_a_quarter_more_timeouts() {
    let spout = Log::default();
    let of_spout = spout.clone();
    let timeout = Duration::from_millis(400);
    let mut topology = Topology::new("losing");
    topology.configure(|settings| settings.message_timeout = timeout);
    let numbers = topology.spout("numbers", move || Numbers::below(1000, &of_spout));
    topology.bolt("lose", || Lose { lost: HashSet::new(), every: 10 }).shuffle(&numbers);
    let summary = topology.run().unwrap();
    assert_eq!((summary.acked(), summary.failed()), (1000, 100), "what timed out was emitted again and acked");
    for (number, kind, after) in spout.failed() {
        assert_eq!((kind, number % 10), (FailureKind::TimedOut, 0));
        assert!(after >= timeout, "{number} timed out after {after:?} already");
    }
}

/// Acks the one tuple it gets long after its timeout, keeping it alive until then.
struct Patient {
    held: Option<Input<u64>>,
    ticks: u32,
}

impl Bolt for Patient {
    type In = u64;
    type Out = ();

    fn execute(&mut self, input: Input<u64>, _: &mut Collector<()>) -> Result<(), Failure> {
        self.held = Some(input);
        Ok(())
    }

    fn tick(&mut self, out: &mut Collector<()>) -> Result<(), Failure> {
        let Some(held) = self.held.take() else { return Ok(()) };
        self.ticks += 1;
        if self.ticks < 30 {
            out.keep_alive(&held);
            self.held = Some(held);
        } else {
            out.ack(held);
        }
        Ok(())
    }
}

#[test]
fn a_tuple_that_is_kept_alive_does_not_time_out() {
    let spout = Log::default();
    let of_spout = spout.clone();
    let mut topology = Topology::new("patient");
    topology.configure(|settings| settings.message_timeout = Duration::from_millis(800));
    let numbers = topology.spout("numbers", move || Numbers::below(1, &of_spout));
    topology
        .bolt("patient", || Patient { held: None, ticks: 0 })
        .shuffle(&numbers)
        .tick_every(Duration::from_millis(50));
    let summary = topology.run().unwrap();
    assert_eq!((summary.acked(), summary.failed()), (1, 0));
}

/// Fails, acks late, and acks again what others hold of the same trees.
#[derive(Default)]
struct Late(Vec<Input<u64>>);

impl Bolt for Late {
    type In = u64;
    type Out = u64;

    fn execute(&mut self, input: Input<u64>, out: &mut Collector<u64>) -> Result<(), Failure> {
        out.emit(&input, *input);
        if self.0.len() < 500 {
            // Kept until its tree is long gone.
            self.0.push(input);
        } else {
            out.ack(input);
        }
        Ok(())
    }

    fn tick(&mut self, out: &mut Collector<u64>) -> Result<(), Failure> {
        self.0.drain(..).for_each(|input| out.ack(input));
        Ok(())
    }
}

#[test]
fn late_acks_of_failed_trees_change_nothing_for_the_trees_after_them() {
    let spout = Log::default();
    let of_spout = spout.clone();
    let topology = Topology::new("late");
    let numbers = topology.spout("numbers", move || Numbers::below(5000, &of_spout)).max_pending(50);
    let late = topology.bolt("late", Late::default).shuffle(&numbers).tick_every(Duration::from_millis(20));
    let failed = Arc::new(Mutex::new(HashSet::new()));
    topology
        .each("fail each once", move |number: u64, _: &mut Emit<'_, ()>| {
            if failed.lock().unwrap().insert(number) { Err(Failure::transient("first time")) } else { Ok(()) }
        })
        .shuffle(&late);
    let summary = topology.run().unwrap();
    assert_eq!(spout.acked(), (0..5000).collect::<Vec<_>>());
    assert_eq!(summary.acked(), 5000);
}

#[test]
fn a_panicking_bolt_fails_its_tuple_and_goes_on() {
    let spout = Log::default();
    let of_spout = spout.clone();
    let panicked = Arc::new(AtomicU64::new(0));
    let mut topology = Topology::new("panicking");
    topology.configure(|settings| settings.panics_max = 100);
    let numbers = topology.spout("numbers", move || Numbers::below(1000, &of_spout));
    let count = Arc::clone(&panicked);
    topology
        .each("panic", move |number: u64, _: &mut Emit<'_, ()>| {
            if number % 100 == 7 && count.fetch_add(1, Ordering::SeqCst) < 20 {
                panic!("number {number} is not to my liking");
            }
            Ok(())
        })
        .shuffle(&numbers);
    let running = topology.start().unwrap();
    until("a panic is reported", || !running.errors().is_empty());
    let error = running.errors().remove(0);
    assert_eq!(&*error.component, "panic");
    assert!(error.failure.message.contains("panicked: number"), "{}", error.failure);
    let summary = running.wait().unwrap();
    assert_eq!(spout.acked(), (0..1000).collect::<Vec<_>>());
    assert_eq!((summary.acked(), summary.failed()), (1000, 20));
}

#[test]
fn too_many_panics_end_the_topology_with_that_error() {
    let topology = Topology::new("hopeless");
    let log = Log::default();
    let numbers = topology.spout("numbers", move || Numbers::endless(&log));
    topology.each("hopeless", |_: u64, _: &mut Emit<'_, ()>| panic!("always")).shuffle(&numbers);
    match topology.run() {
        Err(RunError::Halted(error)) => {
            assert_eq!(&*error.component, "hopeless");
            assert_eq!(error.failure.message, "execute panicked: always");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fatal_error_ends_the_topology_and_so_does_a_bolt_that_cannot_be_prepared() {
    let topology = Topology::new("fatal");
    let log = Log::default();
    let numbers = topology.spout("numbers", move || Numbers::endless(&log));
    topology.each("fatal", |_: u64, _: &mut Emit<'_, ()>| Err(Failure::fatal("disk is gone"))).shuffle(&numbers);
    let error = topology.run().unwrap_err();
    assert!(error.to_string().contains("\"fatal\" ended the topology: disk is gone"), "{error}");

    struct Unprepared;
    impl Bolt for Unprepared {
        type In = u64;
        type Out = ();
        fn prepare(&mut self, _: &Context) -> Result<(), Failure> {
            Err(Failure::transient("no connection"))
        }
        fn execute(&mut self, _: Input<u64>, _: &mut Collector<()>) -> Result<(), Failure> {
            unreachable!("it was never prepared")
        }
    }
    let (topology, log) = (Topology::new("unprepared"), Log::default());
    let of_spout = log.clone();
    let numbers = topology.spout("numbers", move || Numbers::endless(&of_spout));
    topology.bolt("unprepared", || Unprepared).shuffle(&numbers);
    let error = topology.run().unwrap_err();
    assert!(error.to_string().contains("cannot be prepared: no connection"), "{error}");
    assert_eq!(log.emitted(), 0, "no spout began before the bolts were prepared");
}

struct Hanging(Arc<AtomicBool>);

impl Spout for Hanging {
    type Out = u64;
    type Id = ();

    fn next(&mut self, _: &mut SpoutCollector<u64, ()>) -> Result<Next, Failure> {
        while !self.0.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Next::Done)
    }
}

#[test]
fn a_spout_that_does_not_return_is_reported() {
    let release = Arc::new(AtomicBool::new(false));
    let mut topology = Topology::new("hanging");
    topology.configure(|settings| settings.stuck_after = Duration::from_millis(100));
    let of_spout = Arc::clone(&release);
    let hanging = topology.spout("hanging", move || Hanging(Arc::clone(&of_spout)));
    topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&hanging);
    let running = topology.start().unwrap();
    until("it is reported", || !running.errors().is_empty());
    let error = running.errors().remove(0);
    assert_eq!(&*error.component, "hanging");
    assert!(error.failure.message.starts_with("has not returned from next"), "{}", error.failure);
    release.store(true, Ordering::SeqCst);
    running.wait().unwrap();
}

struct Odd;

impl From<u64> for Odd {
    fn from(number: u64) -> Odd {
        assert_ne!(number, 500, "not odd");
        Odd
    }
}

#[test]
fn a_conversion_that_panics_fails_its_chunk_and_the_task_goes_on() {
    let (spout, seen) = (Log::default(), Arc::new(AtomicU64::new(0)));
    let (of_spout, of_bolt) = (spout.clone(), Arc::clone(&seen));
    let topology = Topology::new("conversion");
    let numbers = topology.spout("numbers", move || Numbers::below(1000, &of_spout).once()).max_pending(10);
    topology
        .each("odd", move |_: Odd, _: &mut Emit<'_, ()>| {
            of_bolt.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
        .shuffle(&numbers);
    let summary = topology.run().unwrap();
    assert!((1..=10).contains(&summary.failed()), "{} failed", summary.failed());
    assert_eq!(summary.acked() + summary.failed(), 1000);
    assert_eq!(seen.load(Ordering::SeqCst), summary.acked());
}
