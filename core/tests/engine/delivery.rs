//! What arrives where, and what the spout hears of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tine_core::{
    component::{Async, AsyncBolt, Basic, BasicBolt, Bolt, Collector, Context, Declaration, Emit, Input, Port},
    failure::Failure,
    named,
    topology::{Choose, Grouping, Topology},
};

use crate::support::{Log, Numbers};

/// Notes what arrives at which of its tasks.
pub(crate) struct See {
    index: usize,
    log: Log,
}

impl See {
    pub(crate) fn new(log: &Log) -> See {
        See { index: usize::MAX, log: log.clone() }
    }
}

impl BasicBolt for See {
    type In = u64;
    type Out = u64;

    fn prepare(&mut self, context: &Context) -> Result<(), Failure> {
        self.index = context.index();
        Ok(())
    }

    fn execute(&mut self, value: u64, out: &mut Emit<'_, u64>) -> Result<(), Failure> {
        self.log.see(self.index, value);
        out.emit(value);
        Ok(())
    }
}

fn see(log: &Log) -> impl Fn() -> Basic<See> + Send + 'static {
    let log = log.clone();
    move || Basic(See::new(&log))
}

/// Runs `count` numbers through a bolt with four tasks; which task saw which number.
fn through(grouping: Grouping<u64>, count: u64) -> Vec<(usize, u64)> {
    let (spout, seen) = (Log::default(), Log::default());
    let of_spout = spout.clone();
    let topology = Topology::new("through");
    let numbers = topology.spout("numbers", move || Numbers::below(count, &of_spout));
    topology.bolt("see", see(&seen)).input(&numbers, grouping).tasks(4).executors(2);
    let summary = topology.run().unwrap();
    assert!(summary.drained);
    assert_eq!(spout.acked(), (0..count).collect::<Vec<_>>(), "each tree is completed once");
    seen.seen()
}

fn tasks_of(seen: &[(usize, u64)], value: u64) -> Vec<usize> {
    let mut tasks: Vec<_> = seen.iter().filter(|(_, found)| *found == value).map(|(task, _)| *task).collect();
    tasks.sort_unstable();
    tasks
}

#[test]
fn every_grouping_delivers_each_tuple_to_whom_it_says() {
    let seen = through(Grouping::shuffle(), 4000);
    assert_eq!(seen.len(), 4000);
    for task in 0..4 {
        let share = seen.iter().filter(|(at, _)| *at == task).count();
        assert!(share > 500, "task {task} got {share} of 4000");
    }
    let seen = through(Grouping::fields_by(|value: &u64| value % 7), 700);
    assert_eq!(seen.len(), 700);
    for value in 7..700 {
        assert_eq!(tasks_of(&seen, value), tasks_of(&seen, value % 7), "equal keys meet");
    }
    let seen = through(Grouping::all(), 100);
    (0..100).for_each(|value| assert_eq!(tasks_of(&seen, value), [0, 1, 2, 3]));
    let seen = through(Grouping::global(), 100);
    (0..100).for_each(|value| assert_eq!(tasks_of(&seen, value), [0]));
    for grouping in [Grouping::none(), Grouping::local_or_shuffle(), Grouping::partial_key(|value: &u64| value)] {
        let seen = through(grouping, 1000);
        assert_eq!(seen.len(), 1000);
        (0..1000).for_each(|value| assert_eq!(tasks_of(&seen, value).len(), 1));
    }

    struct TwoOf;
    impl Choose<u64> for TwoOf {
        fn choose(&mut self, value: &u64, chosen: &mut Vec<usize>) {
            chosen.extend([*value as usize % 4, (*value as usize + 1) % 4, 99]);
        }
    }
    let seen = through(Grouping::custom(|| TwoOf), 100);
    assert_eq!(tasks_of(&seen, 5), [1, 2]);
    assert_eq!(seen.len(), 200, "an index beyond the last task is ignored");
}

#[derive(Clone)]
struct Sale {
    user: String,
    shop: u32,
}
named!(Sale { user, shop });

#[test]
fn fields_can_be_named() {
    let (spout, seen) = (Log::default(), Log::default());
    let (of_spout, of_bolt) = (spout.clone(), seen.clone());
    let topology = Topology::new("named");
    let numbers = topology.spout("numbers", move || Numbers::below(300, &of_spout));
    let sales = topology
        .each("sales", |number: u64, out: &mut Emit<'_, Sale>| {
            out.emit(Sale { user: format!("user{}", number % 10), shop: number as u32 });
            Ok(())
        })
        .shuffle(&numbers);
    let tasks = std::sync::atomic::AtomicUsize::new(0);
    topology
        .bolt("count", move || {
            let (task, log) = (tasks.fetch_add(1, std::sync::atomic::Ordering::SeqCst), of_bolt.clone());
            tine_core::component::each(move |sale: Sale, _: &mut Emit<'_, ()>| {
                log.see(task, u64::from(sale.shop % 10));
                Ok(())
            })
        })
        .input(&sales, Grouping::field_names(&["user"]))
        .tasks(4);
    topology.run().unwrap();
    for user in 0..10 {
        let mut tasks = tasks_of(&seen.seen(), user);
        assert_eq!(tasks.len(), 30);
        tasks.dedup();
        assert_eq!(tasks.len(), 1, "one user, one task");
    }
}

const ODD: Port<String> = Port::new("odd");

/// Even numbers into the default stream, odd ones as text into another, and every tenth to a named task.
struct Sort;

impl Bolt for Sort {
    type In = u64;
    type Out = u64;

    fn declare(streams: &mut Declaration) {
        streams.stream(ODD);
    }

    fn prepare(&mut self, context: &Context) -> Result<(), Failure> {
        assert_eq!(context.targets("default").len(), 3);
        Ok(())
    }

    fn execute(&mut self, input: Input<u64>, out: &mut Collector<u64>) -> Result<(), Failure> {
        if *input % 2 == 1 {
            out.emit_to(ODD, &[input.as_ref()], input.to_string())?;
        } else if input.is_multiple_of(10) {
            out.emit_direct(2, &input, *input)?;
        } else {
            out.emit(&input, *input);
        }
        out.ack(input);
        Ok(())
    }
}

enum Either {
    Number(u64),
    Text(String),
}

impl From<u64> for Either {
    fn from(number: u64) -> Either {
        Either::Number(number)
    }
}

impl From<String> for Either {
    fn from(text: String) -> Either {
        Either::Text(text)
    }
}

#[test]
fn streams_have_types_of_their_own_and_a_bolt_may_take_several() {
    let (spout, seen, direct) = (Log::default(), Log::default(), Log::default());
    let (of_spout, of_bolt) = (spout.clone(), seen.clone());
    let topology = Topology::new("streams");
    let numbers = topology.spout("numbers", move || Numbers::below(100, &of_spout));
    let sorted = topology.bolt("sort", || Sort).shuffle(&numbers);
    let odd = sorted.port(ODD);
    topology.bolt("direct", see(&direct)).direct(&sorted).tasks(2);
    topology
        .each("both", move |either: Either, _: &mut Emit<'_, ()>| {
            match either {
                Either::Number(number) => of_bolt.see(0, number),
                Either::Text(text) => of_bolt.see(1, text.parse().unwrap()),
            }
            Ok(())
        })
        .shuffle(&sorted)
        .shuffle(&odd);
    topology.run().unwrap();
    assert_eq!(spout.acked().len(), 100);
    // The two direct tasks are targets 0 and 1; number 2 is the only task of `both`.
    assert_eq!(direct.seen(), []);
    assert_eq!(seen.values(), (0..100).collect::<Vec<_>>());
    assert!(seen.seen().iter().all(|(kind, value)| *kind as u64 == value % 2));
}

#[test]
fn with_acking_off_nothing_is_acked_and_everything_arrives() {
    let (spout, seen) = (Log::default(), Log::default());
    let of_spout = spout.clone();
    let mut topology = Topology::new("at most once");
    topology.configure(|settings| settings.acking = false);
    let numbers = topology.spout("numbers", move || Numbers::below(10_000, &of_spout).without_acks());
    topology.bolt("see", see(&seen)).shuffle(&numbers);
    let summary = topology.run().unwrap();
    assert!(summary.drained);
    assert_eq!((spout.acked().len(), summary.acked()), (0, 0), "no false ack");
    assert_eq!(seen.values(), (0..10_000).collect::<Vec<_>>());
}

/// Holds its inputs and emits their sum at a tick, anchored to all of them.
#[derive(Default)]
struct Sums(Vec<Input<u64>>);

impl Bolt for Sums {
    type In = u64;
    type Out = u64;

    fn execute(&mut self, input: Input<u64>, _: &mut Collector<u64>) -> Result<(), Failure> {
        self.0.push(input);
        Ok(())
    }

    fn tick(&mut self, out: &mut Collector<u64>) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let anchors: Vec<_> = self.0.iter().map(AsRef::as_ref).collect();
        out.emit_joined(&anchors, self.0.iter().map(|input| **input).sum());
        self.0.drain(..).for_each(|input| out.ack(input));
        Ok(())
    }
}

#[test]
fn a_joined_tuple_completes_the_trees_of_all_its_parents_and_ticks_come() {
    let (spout, seen) = (Log::default(), Log::default());
    let of_spout = spout.clone();
    let topology = Topology::new("sums");
    let numbers = topology.spout("numbers", move || Numbers::below(1000, &of_spout));
    let sums = topology.bolt("sums", Sums::default).shuffle(&numbers).tick_every(Duration::from_millis(5));
    topology.bolt("see", see(&seen)).shuffle(&sums);
    let summary = topology.run().unwrap();
    assert_eq!(spout.acked(), (0..1000).collect::<Vec<_>>());
    assert_eq!(spout.failed().len(), 0);
    assert_eq!(seen.values().iter().sum::<u64>(), 499_500);
    assert_eq!(summary.failed(), 0);
}

#[test]
fn a_joined_tuple_that_fails_fails_the_trees_of_all_its_parents() {
    let spout = Log::default();
    let of_spout = spout.clone();
    let topology = Topology::new("sums");
    let numbers = topology.spout("numbers", move || Numbers::below(100, &of_spout).once());
    let sums = topology.bolt("sums", Sums::default).shuffle(&numbers).tick_every(Duration::from_millis(5));
    topology.each("refuse", |_: u64, _: &mut Emit<'_, ()>| Err(Failure::transient("no"))).shuffle(&sums);
    topology.run().unwrap();
    assert_eq!(spout.acked(), [] as [u64; 0]);
    assert_eq!(spout.failed().len(), 100);
}

/// Answers after a while, and knows how many calls are under way.
struct Slowly {
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl AsyncBolt for Slowly {
    type In = u64;
    type Out = u64;

    fn call(&mut self, value: u64) -> impl Future<Output = Result<Vec<u64>, Failure>> + Send + 'static {
        let (under_way, most) = (Arc::clone(&self.under_way), Arc::clone(&self.most));
        async move {
            most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
            under_way.fetch_sub(1, Ordering::SeqCst);
            match value % 100 {
                50 if value < 1000 => Err(Failure::transient("unavailable")),
                51 if value < 1000 => panic!("a call panics"),
                _ => Ok(vec![value, value]),
            }
        }
    }
}

#[test]
fn an_async_bolt_has_as_many_calls_under_way_as_it_may() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    for acking in [true, false] {
        let (spout, seen, most) = (Log::default(), Log::default(), Arc::new(AtomicUsize::new(0)));
        let (of_spout, of_bolt, handle) = (spout.clone(), Arc::clone(&most), runtime.handle().clone());
        let mut topology = Topology::new("async");
        topology.configure(|settings| settings.acking = acking);
        let numbers = topology.spout("numbers", move || {
            let numbers = Numbers::below(1000, &of_spout).once();
            if acking { numbers } else { numbers.without_acks() }
        });
        let slowly = topology
            .bolt("slowly", move || {
                let (under_way, most) = (Arc::default(), Arc::clone(&of_bolt));
                Async::new(Slowly { under_way, most }, 20, handle.clone())
            })
            .shuffle(&numbers);
        topology.bolt("see", see(&seen)).shuffle(&slowly);
        let running = topology.start().unwrap();
        let summary = running.wait().unwrap();
        assert!(summary.drained);
        assert_eq!(most.load(Ordering::SeqCst), 20);
        assert_eq!(seen.seen().len(), 2 * 980, "two for each that did not fail, and acking off waits for them too");
        assert_eq!((spout.acked().len(), spout.failed().len()), if acking { (980, 20) } else { (0, 0) });
    }
}

/// Emits several tuples for each: the last one takes the place of the input in its trees.
#[test]
fn a_basic_bolt_may_emit_any_number_of_tuples_to_any_number_of_subscribers() {
    let (spout, one, two) = (Log::default(), Log::default(), Log::default());
    let of_spout = spout.clone();
    let topology = Topology::new("several");
    let numbers = topology.spout("numbers", move || Numbers::below(1000, &of_spout));
    let several = topology
        .each("several", |number: u64, out: &mut Emit<'_, u64>| {
            (0..number % 4).for_each(|_| out.emit(number));
            Ok(())
        })
        .shuffle(&numbers);
    let seen = topology.bolt("one", see(&one)).all(&several).tasks(3);
    topology.bolt("two", see(&two)).shuffle(&seen);
    topology.bolt("three", see(&two)).shuffle(&seen);
    let summary = topology.run().unwrap();
    assert_eq!((summary.acked(), summary.failed()), (1000, 0));
    assert_eq!(spout.acked(), (0..1000).collect::<Vec<_>>());
    assert_eq!(one.seen().len(), 1500 * 3);
    assert_eq!(two.seen().len(), 1500 * 3 * 2);
}

/// The tuple that takes its parent's place is lost: the tree must not complete.
#[test]
fn a_tuple_that_took_its_parents_place_and_was_lost_times_out() {
    struct Keep(Vec<Input<u64>>);
    impl Bolt for Keep {
        type In = u64;
        type Out = ();
        fn execute(&mut self, input: Input<u64>, _: &mut Collector<()>) -> Result<(), Failure> {
            self.0.push(input);
            Ok(())
        }
    }
    let spout = Log::default();
    let of_spout = spout.clone();
    let mut topology = Topology::new("lost");
    topology.configure(|settings| settings.message_timeout = Duration::from_millis(100));
    let numbers = topology.spout("numbers", move || Numbers::below(100, &of_spout).once());
    let passed = topology.bolt("see", see(&Log::default())).shuffle(&numbers);
    topology.bolt("keep", || Keep(Vec::new())).shuffle(&passed);
    topology.run().unwrap();
    assert_eq!((spout.acked().len(), spout.failed().len()), (0, 100));
}
