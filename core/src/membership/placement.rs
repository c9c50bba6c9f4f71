//! Which worker runs which of a topology's tasks: evenly, and moving as little as that allows. Pure.

use crate::id::WorkerId;

/// What stood before: workers, and for each task the place of its worker among them.
pub(crate) type Before<'a> = (&'a [WorkerId], &'a [u16]);

/// For each task the place of its worker. `components` are numbers of tasks; tasks are numbered through.
///
/// Each worker gets as many tasks of each component as any other, give or take one, and as many in all. A task stays where
/// it is as long as that holds.
pub(crate) fn spread(components: &[usize], workers: &[WorkerId], before: Before<'_>) -> Vec<u16> {
    let (mut places, mut load) = (Vec::new(), vec![0; workers.len()]);
    let place_before = |task: usize| {
        let worker = before.0.get(usize::from(*before.1.get(task)?))?;
        workers.iter().position(|known| known == worker)
    };
    for tasks in components {
        let first = places.len();
        let home: Vec<Option<usize>> = (first..first + tasks).map(place_before).collect();
        let mut room = room(*tasks, &home, &load);
        room.iter().zip(&mut load).for_each(|(room, load)| *load += room);
        let mut stay = |place: &Option<usize>| place.filter(|place| take(&mut room[*place]));
        let stays: Vec<Option<usize>> = home.iter().map(&mut stay).collect();
        let mut free = room.iter().enumerate().flat_map(|(place, room)| std::iter::repeat_n(place, *room));
        places.extend(stays.into_iter().map(|stays| stays.or_else(|| free.next()).unwrap_or(0) as u16));
    }
    places
}

/// How many tasks of a component each worker gets, by what it has got of others (`load`) and where the tasks are.
fn room(tasks: usize, home: &[Option<usize>], load: &[usize]) -> Vec<usize> {
    let (each, more) = (tasks / load.len(), tasks % load.len());
    let has = |place: &usize| home.iter().flatten().filter(|home| *home == place).count();
    let mut order: Vec<usize> = (0..load.len()).collect();
    // Whoever has least of all gets one more; among equals who would have to give one away, then the first.
    order.sort_by_key(|place| (load[*place], has(place) <= each, *place));
    let mut room = vec![each; load.len()];
    order[..more].iter().for_each(|place| room[*place] += 1);
    room
}

fn take(room: &mut usize) -> bool {
    let takes = *room > 0;
    *room -= usize::from(takes);
    takes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<WorkerId> {
        numbers.into_iter().map(WorkerId).collect()
    }

    #[test]
    fn single_tasks_of_several_components_go_to_several_workers() {
        assert_eq!(spread(&[1, 1, 1, 1], &ids([7, 8]), (&[], &[])), [0, 1, 0, 1]);
        assert_eq!(spread(&[3, 2], &ids([7, 8]), (&[], &[])), [0, 0, 1, 0, 1]);
    }

    #[test]
    fn a_dead_workers_tasks_move_and_no_others() {
        let (before, now) = (ids([1, 2, 3]), ids([1, 3]));
        let places = spread(&[3, 3], &before, (&[], &[]));
        assert_eq!(places, [0, 1, 2, 0, 1, 2]);
        let moved = spread(&[3, 3], &now, (&before, &places));
        assert_eq!(moved, [0, 0, 1, 0, 1, 1]);
    }

    #[test]
    fn a_newcomer_takes_its_share_and_the_rest_stays() {
        let (before, now) = (ids([1, 2]), ids([1, 2, 3]));
        let places = spread(&[6], &before, (&[], &[]));
        let moved = spread(&[6], &now, (&before, &places));
        assert_eq!(places.iter().zip(&moved).filter(|(was, is)| was != is).count(), 2);
    }

    proptest! {
        #[test]
        fn every_spread_is_even_and_settled(
            components in prop::collection::vec(1usize..9, 1..6),
            before in prop::collection::vec(0u64..6, 1..6),
            now in prop::collection::vec(0u64..6, 1..6),
        ) {
            let unique = |mut numbers: Vec<u64>| { numbers.sort_unstable(); numbers.dedup(); ids(numbers) };
            let (before, now) = (unique(before), unique(now));
            let places = spread(&components, &before, (&[], &[]));
            let next = spread(&components, &now, (&before, &places));
            prop_assert_eq!(next.len(), components.iter().sum::<usize>());
            let even = |places: &[u16]| {
                let counts = (0..now.len()).map(|place| places.iter().filter(|at| usize::from(**at) == place).count());
                let counts: Vec<_> = counts.collect();
                counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1
            };
            prop_assert!(even(&next), "{:?}", next);
            let mut first = 0;
            for tasks in &components {
                prop_assert!(even(&next[first..first + tasks]), "{:?}", next);
                first += tasks;
            }
            prop_assert_eq!(&spread(&components, &now, (&now, &next)), &next, "the same workers: nothing moves");
        }
    }
}
