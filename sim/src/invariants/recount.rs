//! The recount that the tables are held against: a walk over the sources that shares no code with the operators.

use std::collections::BTreeMap;

use tine_trident::source::PartitionRange;

use super::{Broken, rules::invariant_counts_never_go_back};
use crate::{
    oracle::{Counting, shown},
    source::SimSource,
    sql::table::{Cell, Cells, Change},
};

pub(super) fn count_of(cells: &Cells) -> Result<i64, Broken> {
    match &cells[..] {
        [Cell::BigInt(count)] => Ok(*count),
        _ => Err(Broken::new(
            "invariant_the_table_is_exact",
            format!("no count of one column, which exact_counts is for, but {}: use exact", shown(cells)),
        )),
    }
}

pub(super) fn key_of(cells: &Cells) -> Result<&str, Broken> {
    match &cells[..] {
        [Cell::Text(key)] => Ok(key),
        _ => Err(Broken::new(
            "invariant_the_table_is_exact",
            format!("no key of one text, which exact_counts is for, but {}: use exact", shown(cells)),
        )),
    }
}

/// The key of a change and what it adds; counts never go back for whoever reads them.
pub(super) fn delta_of(change: &Change) -> Result<(&str, i64), Broken> {
    let before = change.before.as_ref().map_or(Ok(0), count_of)?;
    let (key, after) = (key_of(&change.key)?, count_of(&change.after)?);
    invariant_counts_never_go_back(key, before, after)?;
    Ok((key, after - before))
}

pub(super) fn recount(ranges: &[PartitionRange], sources: &[SimSource], how: &Counting) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for range in ranges.iter().filter(|range| range.to > range.from) {
        for source in sources {
            let log = source.log();
            let Some(partition) = log.partitions.iter().find(|partition| partition.name == range.partition) else {
                continue;
            };
            let within = partition.records.iter().filter(|record| (range.from..range.to).contains(&record.position));
            within.for_each(|record| how.count(&record.value, &mut counts));
        }
    }
    counts
}

pub(super) fn recount_all(sources: &[SimSource], how: &Counting) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for source in sources {
        let log = source.log();
        for partition in log.partitions.iter().filter(|partition| partition.exists) {
            let there = partition.records.iter().filter(|record| record.position < partition.end);
            there.for_each(|record| how.count(&record.value, &mut counts));
        }
    }
    counts
}
