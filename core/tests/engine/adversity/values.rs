//! Values that cannot travel.

use super::*;

fn ends_in_three(number: u64) -> bool {
    number % 10 == 3
}

#[derive(Clone, Serialize, Deserialize)]
struct Unreadable(#[serde(deserialize_with = "no_threes")] u64);

fn no_threes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match u64::deserialize(from)? {
        number if ends_in_three(number) => Err(serde::de::Error::custom(format!("{number} ends in three"))),
        number => Ok(number),
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct PanicsWhenRead(#[serde(deserialize_with = "panics_at_threes")] u64);

fn panics_at_threes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(from)?;
    assert!(!ends_in_three(number), "{number} ends in three");
    Ok(number)
}

#[derive(Clone, Serialize, Deserialize)]
struct PanicsWhenWritten(#[serde(serialize_with = "panics_before_threes")] u64);

fn panics_before_threes<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
    assert!(!ends_in_three(*number), "{number} ends in three");
    to.serialize_u64(*number)
}

/// Forty numbers go to another worker and back; those that end in three do not get there.
fn only_bad_ones_fail<T: Data + Serialize + DeserializeOwned>(wrap: fn(u64) -> T, unwrap: fn(T) -> u64) {
    let (registry, scene) = (Registry::new(), Scene::default());
    let build = || {
        let topology = patient("picky");
        topology.register_type::<T>();
        let (log, open) = (scene.log.clone(), Arc::clone(&scene.open));
        let numbers = topology.spout("numbers", move || Gated(Numbers::below(40, &log).once(), Arc::clone(&open)));
        let wrapped = topology
            .each("wrap", move |number: u64, out: &mut Emit<'_, T>| {
                out.emit(wrap(number));
                Ok(())
            })
            .shuffle(&numbers);
        let log = scene.log.clone();
        topology
            .each("unwrap", move |value: T, _: &mut Emit<'_, ()>| {
                log.see(0, unwrap(value));
                Ok(())
            })
            .shuffle(&wrapped);
        topology
    };
    let [first, second] = workers(&registry, build);
    scene.open();
    until_within(SOON, "all numbers have come to an end", || scene.log.acked().len() + scene.log.failed().len() == 40);
    let mut failed: Vec<_> = scene.log.failed().into_iter().map(|(number, ..)| number).collect();
    failed.sort_unstable();
    let errors: Vec<_> = first.errors().into_iter().chain(second.errors()).collect();
    assert_eq!(failed, [3, 13, 23, 33], "{errors:?}");
    assert_eq!(scene.acked(), (0..40).filter(|number| !ends_in_three(*number)).collect());
    assert_eq!(scene.acked(), scene.seen());
    let names = |text: &str| text.contains("wrap");
    let named = errors.iter().filter(|error| error.failure.message.contains("ends in three"));
    let named = named.filter(|error| names(&error.component) || names(&error.failure.message));
    assert!(named.count() >= 4, "{errors:?}");
    all_drain("it ends", [first, second]);
}

#[test]
fn a_value_that_cannot_be_read_fails_its_own_tree_and_no_other() {
    only_bad_ones_fail(Unreadable, |Unreadable(number)| number);
}

#[test]
fn a_value_that_panics_when_it_is_read_fails_its_own_tree_and_no_other() {
    only_bad_ones_fail(PanicsWhenRead, |PanicsWhenRead(number)| number);
}

#[test]
fn a_value_that_panics_when_it_is_written_fails_its_own_tree_and_no_other() {
    only_bad_ones_fail(PanicsWhenWritten, |PanicsWhenWritten(number)| number);
}

#[test]
fn a_chunk_of_more_tuples_than_a_frame_has_travels_in_several() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let build = || {
        let mut topology = patient("large chunks");
        topology.configure(|settings| (settings.chunk_tuples, settings.queue_tuples) = (70_000, 300_000));
        let (log, open) = (scene.log.clone(), Arc::clone(&scene.open));
        let numbers = topology.spout("numbers", move || Gated(Numbers::below(3, &log).once(), Arc::clone(&open)));
        let fanned = topology
            .each("fan", |number: u64, out: &mut Emit<'_, u64>| {
                (0..70_000).for_each(|_| out.emit(number));
                Ok(())
            })
            .shuffle(&numbers);
        let log = scene.log.clone();
        topology
            .each("see", move |number: u64, _: &mut Emit<'_, ()>| {
                log.see(0, number);
                Ok(())
            })
            .shuffle(&fanned);
        topology
    };
    let [first, second] = workers(&registry, build);
    scene.open();
    until_within(SOON, "all have come to an end", || scene.log.acked().len() + scene.log.failed().len() == 3);
    assert_eq!(scene.log.acked(), [0, 1, 2]);
    assert_eq!(scene.log.values().len(), 3 * 70_000);
    all_drain("it ends", [first, second]);
}

#[test]
fn large_values_travel_and_those_beyond_all_measure_fail_alone() {
    let (registry, scene) = (Registry::new(), Scene::default());
    let build = || {
        let topology = patient("large values");
        let (log, open) = (scene.log.clone(), Arc::clone(&scene.open));
        let numbers = topology.spout("numbers", move || Gated(Numbers::below(40, &log).once(), Arc::clone(&open)));
        let grown = topology
            .each("grow", |number: u64, out: &mut Emit<'_, Vec<u8>>| {
                let len = match number % 10 {
                    3 => 5 << 20,
                    4 | 5 => 3 << 20,
                    6 => 600 << 10,
                    _ => 0,
                };
                let mut grown = vec![number as u8];
                grown.resize(1 + len, 0);
                out.emit(grown);
                Ok(())
            })
            .shuffle(&numbers);
        let log = scene.log.clone();
        topology
            .each("see", move |grown: Vec<u8>, _: &mut Emit<'_, ()>| {
                log.see(0, u64::from(grown[0]));
                Ok(())
            })
            .shuffle(&grown);
        topology
    };
    let [first, second] = workers(&registry, build);
    scene.open();
    until_within(SOON, "all numbers have come to an end", || scene.log.acked().len() + scene.log.failed().len() == 40);
    assert_eq!(scene.acked(), (0..40).filter(|number| !ends_in_three(*number)).collect());
    assert_eq!(scene.acked(), scene.seen());
    all_drain("it ends", [first, second]);
}
