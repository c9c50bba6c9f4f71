//! Expectations of tables: exact, ordered, complete, never going back.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use tine_state::Merge;
use tine_trident::dead_letters;

use super::{IntoCells, Oracle, Seen};
use crate::sql::table::{Cell, Cells};

/// The state's table is exactly what the records contribute, merged as its columns are merged: sums and counts are added
/// up, of extremes the smallest or largest stays.
///
/// `contributions` says for one record which keys it touches, and what each value column gets.
///
/// ```
/// use tine_sim::oracle::exact;
///
/// // A table of count, sum and maximum of cents by user, of lines such as `ann 250`.
/// let sales = exact("sales", |line: &str| {
///     let (user, cents) = line.split_once(' ').unwrap_or((line, "0"));
///     let cents: i64 = cents.parse().unwrap_or(0);
///     vec![(user.to_owned(), (1_i64, cents, cents))]
/// });
/// # let _ = sales;
/// ```
pub fn exact<K: IntoCells, V: IntoCells>(
    state: impl Into<String>,
    contributions: impl Fn(&str) -> Vec<(K, V)> + Send + Sync + 'static,
) -> Oracle {
    let state = state.into();
    Oracle::seen("exact", move |seen| {
        let merges = seen.merges(&state)?;
        let mut expected = BTreeMap::new();
        for record in seen.records() {
            for (key, value) in contributions(&record.value) {
                let merged = merge(&merges, expected.entry(key.cells()), value.cells());
                merged.map_err(|error| format!("{state}: {error}"))?;
            }
        }
        same(&state, seen, &expected)
    })
}

fn merge(merges: &[Merge], row: Entry<'_, Cells, Cells>, value: Cells) -> Result<(), String> {
    let mut row = match row {
        Entry::Vacant(place) => {
            place.insert(value);
            return Ok(());
        }
        Entry::Occupied(row) => row,
    };
    for ((held, new), how) in row.get_mut().iter_mut().zip(value).zip(merges) {
        *held = match (how, &*held, new) {
            (Merge::Add, Cell::BigInt(held), Cell::BigInt(new)) => Cell::BigInt(held + new),
            (Merge::Min, held, new) => held.clone().min(new),
            (Merge::Max, held, new) => held.clone().max(new),
            (how, held, new) => {
                let (held, new) = (kind(held), kind(&new));
                return Err(format!(
                    "{new} cannot be merged into {held} by {how:?}: say an integer, or use exact_table"
                ));
            }
        };
    }
    Ok(())
}

/// The state's table is exactly what a function of all the committed records says: for aggregates of your own.
///
/// The records come partition by partition, in order.
///
/// ```
/// use std::collections::BTreeMap;
/// use tine_sim::oracle::exact_table;
///
/// let longest = exact_table("longest", |lines: &[&str]| {
///     let mut longest: BTreeMap<String, i64> = BTreeMap::new();
///     for line in lines {
///         let held = longest.entry(line[..1].to_owned()).or_default();
///         *held = (*held).max(line.len() as i64);
///     }
///     longest
/// });
/// # let _ = longest;
/// ```
pub fn exact_table<K: IntoCells, V: IntoCells, T: IntoIterator<Item = (K, V)>>(
    state: impl Into<String>,
    expected: impl Fn(&[&str]) -> T + Send + Sync + 'static,
) -> Oracle {
    let state = state.into();
    Oracle::seen("exact_table", move |seen| {
        let records = seen.records();
        let values: Vec<&str> = records.iter().map(|record| record.value.as_str()).collect();
        let rows = expected(&values).into_iter().map(|(key, value)| (key.cells(), value.cells()));
        same(&state, seen, &rows.collect())
    })
}

fn same(state: &str, seen: &Seen<'_>, expected: &BTreeMap<Cells, Cells>) -> Result<(), String> {
    let found = seen.table(state)?;
    if let (Some((key, values)), Some((said, worth))) = (found.first_key_value(), expected.first_key_value()) {
        for (what, is, said) in [("key", key, said), ("value", values, worth)] {
            let (is, said) = (kinds(is), kinds(said));
            if is != said {
                return Err(format!("{state}: its {what} columns are ({is}), and are expected to be ({said})"));
            }
        }
    }
    let keys: BTreeSet<&Cells> = found.keys().chain(expected.keys()).collect();
    for key in keys {
        let (is, should) = (found.get(key), expected.get(key));
        if is != should {
            let records = seen.records().len();
            return Err(format!(
                "{state}: {} is {} and should be {}, of {records} records up to transaction {}",
                shown(key),
                shown_or_nothing(is),
                shown_or_nothing(should),
                seen.txid()
            ));
        }
    }
    Ok(())
}

/// Cells for people: `"ant", 3`.
pub(crate) fn shown(cells: &Cells) -> String {
    let cell = |cell: &Cell| match cell {
        Cell::Text(text) => format!("{text:?}"),
        Cell::Bytes(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Cell::BigInt(number) => number.to_string(),
    };
    cells.iter().map(cell).collect::<Vec<_>>().join(", ")
}

fn kind(cell: &Cell) -> &'static str {
    match cell {
        Cell::Text(_) => "text",
        Cell::Bytes(_) => "bytes",
        Cell::BigInt(_) => "integer",
    }
}

fn kinds(cells: &Cells) -> String {
    cells.iter().map(kind).collect::<Vec<_>>().join(", ")
}

fn shown_or_nothing(cells: Option<&Cells>) -> String {
    cells.map_or_else(|| "not there".to_owned(), shown)
}

/// No number in the value columns of the state's table ever becomes smaller for whoever reads it, and no row goes away,
/// unless the database itself loses what it had committed.
///
/// That is what tine promises for counts, sums of what is not negative, and maxima.
pub fn never_goes_back(state: impl Into<String>) -> Oracle {
    let state = state.into();
    Oracle::seen("never_goes_back", move |seen| {
        for row in seen.changed(&state)? {
            let Some(before) = row.before else { continue };
            let numbers = before.iter().zip(row.after);
            let smaller =
                |pair: &(&Cell, &Cell)| matches!(pair, (Cell::BigInt(before), Cell::BigInt(after)) if after < before);
            if let Some((before, after)) = { numbers }.find(smaller) {
                let one = |cell: &Cell| shown(&Box::from([cell.clone()]));
                let (before, after) = (one(before), one(after));
                return Err(format!(
                    "{state}: {} went from {before} back to {after} in transaction {}",
                    shown(row.key),
                    seen.txid()
                ));
            }
        }
        Ok(())
    })
}

/// Each key of the state's table shows what the *last* of its records says, whenever a transaction is complete: records of
/// one key take effect in their order.
///
/// `latest` says for one record its key and the value columns that it asks for. All the records of a key must lie in one
/// partition, as Kafka places them ([`Topic::keyed`](crate::world::Topic::keyed)); where they do not, there is no order
/// and the run breaks.
pub fn order_per_key<K: IntoCells, V: IntoCells>(
    state: impl Into<String>,
    latest: impl Fn(&str) -> (K, V) + Send + Sync + 'static,
) -> Oracle {
    let state = state.into();
    Oracle::seen("order_per_key", move |seen| {
        let mut last: BTreeMap<Cells, (String, Cells)> = BTreeMap::new();
        for record in seen.records() {
            let (key, value) = latest(&record.value);
            let key = key.cells();
            let other = last.get(&key).filter(|(partition, _)| *partition != record.partition);
            if let Some((partition, _)) = other {
                return Err(format!(
                    "{} has records in {partition} and in {}: between partitions there is no order",
                    shown(&key),
                    record.partition
                ));
            }
            last.insert(key, (record.partition, value.cells()));
        }
        let expected = last.into_iter().map(|(key, (_, value))| (key, value)).collect();
        same(&state, seen, &expected)
    })
}

/// The dead letters are exactly the committed records that `is_bad` accepts, each once, with partition, position and value.
pub fn dead_letters_complete(is_bad: impl Fn(&str) -> bool + Send + Sync + 'static) -> Oracle {
    Oracle::seen("dead_letters_complete", move |seen| {
        let mut expected = BTreeMap::new();
        for record in seen.records().into_iter().filter(|record| is_bad(&record.value)) {
            expected.insert((record.partition, record.position), record.value.into_bytes());
        }
        let mut found = BTreeMap::new();
        for (key, value) in seen.table(dead_letters::NAME)? {
            let ([_, Cell::Text(partition), Cell::BigInt(position)], [_, Cell::Bytes(record)]) = (&key[..], &value[..])
            else {
                return Err(format!("a dead letter that is none: {}", shown(key)));
            };
            found.insert((partition.clone(), position.cast_unsigned()), record.clone());
        }
        let places: BTreeSet<&(String, u64)> = found.keys().chain(expected.keys()).collect();
        for place @ (partition, position) in places {
            let what = match (found.get(place), expected.get(place)) {
                (Some(found), Some(expected)) if found == expected => continue,
                (Some(_), Some(_)) => "is a dead letter with another value",
                (Some(_), None) => "is a dead letter and should be none",
                (None, _) => "is missing among the dead letters",
            };
            return Err(format!("{partition} position {position} {what}, in transaction {}", seen.txid()));
        }
        Ok(())
    })
}
