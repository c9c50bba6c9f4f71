//! Random forests of tuples, some with several parents of several trees; their reports in random order, some lost, some twice,
//! some of trees that were never there. Every tree ends once: completed, failed or timed out; and nothing is left.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::Index};
use tine_core::{hash::hash64, trees::Trees, tuple::Root};

/// What happens to a report on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Arrives,
    IsLost,
    ComesTwice,
    IsAFailure,
}

#[derive(Clone, Debug)]
struct Tuple {
    /// Tuples or, below the number of trees, the spout's own emissions.
    parents: Vec<Index>,
    fate: Fate,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        30 => Just(Fate::Arrives),
        1 => Just(Fate::IsLost),
        1 => Just(Fate::ComesTwice),
        1 => Just(Fate::IsAFailure),
    ]
}

fn tuple() -> impl Strategy<Value = Tuple> {
    (prop::collection::vec(any::<Index>(), 1..3), fate()).prop_map(|(parents, fate)| Tuple { parents, fate })
}

/// A report of one tuple about one tree.
#[derive(Clone, Copy, Debug)]
enum Report {
    Ack(Root, u64),
    Fail(Root),
}

type Reports = Vec<(Report, Fate)>;

/// The reports of a forest, and the trees that cannot complete: those with a failure, those with a lost report; and those with
/// one that comes twice, which complete only if it comes last.
fn reports(roots: &[Root], tuples: &[Tuple]) -> (Vec<u64>, Reports, [BTreeSet<Root>; 3]) {
    let mut fresh = 0u64;
    let mut edge = || {
        fresh += 1;
        hash64(&fresh.to_le_bytes())
    };
    // By tuple and tree: the XOR of its edge and its children's edges. The first tuple of each tree comes from the spout.
    let mut held: Vec<BTreeMap<Root, u64>> = Vec::new();
    let mut seals = Vec::new();
    for root in roots {
        let first = edge();
        seals.push(first);
        held.push(BTreeMap::from([(*root, first)]));
    }
    for tuple in tuples {
        let mut anchors: BTreeMap<Root, u64> = BTreeMap::new();
        for parent in &tuple.parents {
            let known = held.len();
            for (root, value) in &mut held[parent.index(known)] {
                let edge = edge();
                *value ^= edge;
                *anchors.entry(*root).or_default() ^= edge;
            }
        }
        held.push(anchors);
    }
    let mut reports = Vec::new();
    let [mut failed, mut lost, mut doubled]: [BTreeSet<Root>; 3] = Default::default();
    for (index, anchors) in held.into_iter().enumerate() {
        let fate = index.checked_sub(roots.len()).map_or(Fate::Arrives, |index| tuples[index].fate);
        for (root, value) in anchors {
            match fate {
                Fate::Arrives => {}
                Fate::IsLost => drop(lost.insert(root)),
                Fate::ComesTwice => drop(doubled.insert(root)),
                Fate::IsAFailure => drop(failed.insert(root)),
            }
            let report = if fate == Fate::IsAFailure { Report::Fail(root) } else { Report::Ack(root, value) };
            reports.push((report, fate));
        }
    }
    (seals, reports, [failed, lost, doubled])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_tree_ends_once_and_nothing_is_left(
        count in 1usize..5,
        tuples in prop::collection::vec(tuple(), 0..40),
        order in prop::collection::vec(any::<Index>(), 200),
        strangers in prop::collection::vec(any::<u64>(), 0..5),
        seed in any::<u64>(),
    ) {
        let mut trees = Trees::new(3, seed);
        // Slots that were used before.
        let used: Vec<_> = (0..count).map(|_| trees.plant(u64::MAX, 0).unwrap()).collect();
        used.iter().for_each(|root| assert!(trees.fail(*root).is_some()));
        let roots: Vec<_> = (0..count as u64).map(|id| trees.plant(id, 0).unwrap()).collect();
        let (seals, mut reports, [failed, lost, doubled]) = reports(&roots, &tuples);
        for (root, seal) in roots.iter().zip(seals) {
            prop_assert_eq!(trees.seal(*root, seal), None);
        }
        let mut twice: Vec<_> = reports.iter().filter(|(_, fate)| *fate == Fate::ComesTwice).copied().collect();
        reports.append(&mut twice);
        reports.retain(|(_, fate)| *fate != Fate::IsLost);
        let mut left: BTreeMap<Root, usize> = BTreeMap::new();
        for (report, _) in &reports {
            let (Report::Ack(root, _) | Report::Fail(root)) = report;
            *left.entry(*root).or_default() += 1;
        }
        let mut ended: BTreeMap<u64, Report> = BTreeMap::new();
        let mut picks = order.iter().cycle();
        while !reports.is_empty() {
            let at = picks.next().unwrap().index(reports.len());
            let (report, _) = reports.swap_remove(at);
            let settled = match report {
                Report::Ack(root, value) => trees.ack(root, value),
                Report::Fail(root) => trees.fail(root),
            };
            let (Report::Ack(root, _) | Report::Fail(root)) = report;
            *left.get_mut(&root).unwrap() -= 1;
            if let Some(settled) = settled {
                prop_assert_eq!(roots[settled.id as usize], root);
                prop_assert!(ended.insert(settled.id, report).is_none(), "a tree ended twice");
                if matches!(report, Report::Ack(..)) {
                    prop_assert!(!lost.contains(&root));
                    let rest = left[&root];
                    prop_assert!(rest == 0 || doubled.contains(&root), "completed with {rest} reports under way");
                    let copy = |(other, fate): &(Report, Fate)| match other {
                        Report::Ack(of, _) | Report::Fail(of) if *of == root => *fate == Fate::ComesTwice,
                        _ => true,
                    };
                    prop_assert!(reports.iter().all(copy), "completed with a first report under way");
                }
            }
            // Reports about earlier trees of the same slots, and about trees that never were.
            for stranger in strangers.iter().copied().chain(used.iter().map(|root| root.0)) {
                if !roots.contains(&Root(stranger)) {
                    prop_assert_eq!(trees.ack(Root(stranger), stranger), None);
                    prop_assert_eq!(trees.fail(Root(stranger)), None);
                }
            }
        }
        for _ in 0..4 {
            trees.tick(|settled| panic!("{settled:?} expired before its timeout"));
        }
        let mut expired = BTreeSet::new();
        trees.tick(|settled| assert!(expired.insert(settled.id)));
        for (id, root) in roots.iter().enumerate() {
            let id = id as u64;
            match ended.get(&id) {
                Some(Report::Fail(_)) => prop_assert!(failed.contains(root)),
                Some(Report::Ack(..)) => prop_assert!(!failed.contains(root) && !lost.contains(root)),
                None => {
                    prop_assert!(lost.contains(root) || doubled.contains(root));
                    prop_assert!(expired.contains(&id));
                }
            }
            prop_assert!(!(ended.contains_key(&id) && expired.contains(&id)));
        }
        prop_assert!(trees.is_empty(), "memory returns to zero");
    }
}

#[test]
fn a_slot_is_used_again_under_another_name_and_places_are_bounded() {
    let mut trees = Trees::new(0, 1);
    let first = trees.plant(1, 0).unwrap();
    assert!(trees.seal(first, 0).is_some(), "a tree without tuples is complete");
    let second = trees.plant(2, 0).unwrap();
    assert_ne!(first, second);
    assert_eq!(trees.fail(first), None, "a late failure of the first does not meet the second");
    assert_eq!(trees.fail(second).unwrap().id, 2);
    let planted = (0..2_000_000).map_while(|id| trees.plant(id, 0)).count();
    assert_eq!(planted, tine_core::trees::TREES_MAX);
}

#[test]
fn a_tree_that_is_spoken_of_does_not_time_out() {
    let mut trees = Trees::new(0, 1);
    let root = trees.plant((), 0).unwrap();
    assert!(trees.seal(root, 1).is_none());
    for _ in 0..20 {
        (0..4).for_each(|_| trees.tick(|_| panic!("expired although somebody spoke of it")));
        trees.alive(root);
    }
    let mut expired = 0;
    (0..5).for_each(|_| trees.tick(|_| expired += 1));
    assert_eq!(expired, 1);
}
