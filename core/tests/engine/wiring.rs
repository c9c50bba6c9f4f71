//! Topologies that make no sense are refused when they are built, with both ends named.

use tine_core::{
    component::{Bolt, Collector, Declaration, Emit, Input, Port},
    failure::Failure,
    named,
    topology::{BuildError, Grouping, Stream, Topology},
};

use crate::support::{Log, Numbers};

fn topology() -> (Topology, tine_core::topology::SpoutHandle<Numbers>) {
    let topology = Topology::new("t");
    let numbers = topology.spout("numbers", || Numbers::below(1, &Log::default()));
    (topology, numbers)
}

fn sink(topology: &Topology, name: &str) -> tine_core::topology::BoltHandle<impl Bolt<In = u64, Out = u64>> {
    topology.each(name, |number: u64, out: &mut Emit<'_, u64>| {
        out.emit(number);
        Ok(())
    })
}

fn refusal(topology: &Topology) -> (BuildError, String) {
    let error = topology.check().unwrap_err();
    let said = error.to_string();
    (error, said)
}

#[test]
fn names_must_be_there_and_must_be_unique() {
    let (t, numbers) = topology();
    sink(&t, "a").shuffle(&numbers);
    assert_eq!(t.check(), Ok(()));
    sink(&t, "a").shuffle(&numbers);
    assert_eq!(refusal(&t).0, BuildError::DuplicateName { name: "a".into() });

    let (t, _) = topology();
    sink(&t, "a").shuffle(&Stream::<u64>::named("nubmers", "default"));
    assert_eq!(refusal(&t).1, r#"bolt "a" subscribes to component "nubmers", which topology "t" does not have"#);

    let (t, _) = topology();
    sink(&t, "a").shuffle(&Stream::<u64>::named("numbers", "odd"));
    let said = r#"bolt "a" subscribes to stream "odd" of "numbers", which has ["default"]: declare the stream"#;
    assert_eq!(refusal(&t).1, said);

    let (t, numbers) = topology();
    sink(&t, "a").shuffle(&numbers.port(Port::<u64>::new("odd")));
    assert_eq!(refusal(&t).1, said, "a port that is not declared is no stream either");
}

#[test]
fn an_error_that_main_returns_is_printed_in_words() {
    let topology = Topology::new("t");
    let said = "topology \"t\" has no spout: nothing would ever happen";
    assert_eq!(format!("{:?}", topology.check().unwrap_err()), said);
    assert_eq!(format!("{:?}", topology.start().unwrap_err()), said);
}

#[test]
fn a_wrong_type_by_name_names_both_ends() {
    let (t, _) = topology();
    t.each("text", |_: String, _: &mut Emit<'_, ()>| Ok(())).shuffle(&Stream::<String>::named("numbers", "default"));
    let said = r#"stream "default" of "numbers" carries u64, but bolt "text" takes it for alloc::string::String"#;
    assert_eq!(refusal(&t).1, said);
}

#[derive(Clone)]
struct Sale {
    user: u64,
}
named!(Sale { user });

#[test]
fn a_grouping_on_a_field_that_is_not_there_names_the_fields_that_are() {
    let (t, numbers) = topology();
    let sales = t
        .each("sales", |user: u64, out: &mut Emit<'_, Sale>| {
            out.emit(Sale { user });
            Ok(())
        })
        .shuffle(&numbers);
    t.each("count", |_: Sale, _: &mut Emit<'_, ()>| Ok(())).input(&sales, Grouping::field_names(&["user", "shop"]));
    let (error, said) = refusal(&t);
    assert!(matches!(error, BuildError::NoSuchField { ref field, .. } if &**field == "shop"));
    assert!(said.starts_with(r#"bolt "count" groups stream "default" of "sales" by field "shop", but "#), "{said}");
    assert!(said.ends_with(r#"Sale has only ["user"]"#), "{said}");
}

#[test]
fn a_circle_needs_a_bound() {
    let (t, numbers) = topology();
    let a = sink(&t, "a").shuffle(&numbers).shuffle(&Stream::<u64>::named("c", "default"));
    let b = sink(&t, "b").shuffle(&a);
    sink(&t, "c").shuffle(&b);
    let (error, said) = refusal(&t);
    let BuildError::Cycle { components } = error else { panic!("{said}") };
    assert_eq!((components.len(), components.first()), (4, components.last()));
    assert!(said.ends_with("make one of the edges a feedback edge with a bound"), "{said}");

    let (t, numbers) = topology();
    let back = Stream::<u64>::named("c", "default");
    let a = sink(&t, "a").shuffle(&numbers).feedback(&back, Grouping::shuffle(), 100);
    let b = sink(&t, "b").shuffle(&a);
    sink(&t, "c").shuffle(&b);
    assert_eq!(t.check(), Ok(()));
}

#[test]
fn a_bolt_without_input_a_topology_without_spout_and_senseless_numbers() {
    let (t, _) = topology();
    sink(&t, "a");
    assert_eq!(refusal(&t).0, BuildError::NoInput { bolt: "a".into() });
    assert_eq!(refusal(&Topology::new("t")).0, BuildError::NoSpout { topology: "t".into() });
    let (t, numbers) = topology();
    sink(&t, "a").shuffle(&numbers).tasks(2).executors(3);
    assert_eq!(refusal(&t).1, r#"component "a" is to have executors = 3: not more than tasks"#);
    let (t, numbers) = topology();
    sink(&t, "a").shuffle(&numbers).tasks(0);
    assert_eq!(refusal(&t).1, r#"component "a" is to have tasks = 0: at least 1"#);
    let (t, numbers) = topology();
    numbers.max_pending(0);
    assert_eq!(refusal(&t).1, r#"component "numbers" is to have max_pending = 0: at least 1"#);
}

#[test]
fn a_stream_of_another_topology_is_refused() {
    let (_one, foreign) = topology();
    let (t, _) = topology();
    sink(&t, "a").shuffle(&foreign);
    assert!(matches!(refusal(&t).0, BuildError::ForeignStream { .. }));
}

const TWICE: Port<u64> = Port::new("default");

struct Twice;

impl Bolt for Twice {
    type In = u64;
    type Out = u64;

    fn declare(streams: &mut Declaration) {
        streams.stream(TWICE);
    }

    fn execute(&mut self, _: Input<u64>, _: &mut Collector<u64>) -> Result<(), Failure> {
        Ok(())
    }
}

#[test]
fn a_stream_declared_twice_is_refused() {
    let (t, numbers) = topology();
    t.bolt("twice", || Twice).shuffle(&numbers);
    assert_eq!(refusal(&t).1, r#"component "twice" declares stream "default" twice"#);
}
