//! Follows the plans in txid order: whether each is what its hash says and begins where the one before has ended.

use std::collections::BTreeMap;

use super::plan::{self, Plan, Range};

/// A row of `tine_transactions`.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) txid: u64,
    pub(crate) previous: u128,
    pub(crate) chain: u128,
    pub(crate) manifest: u128,
    pub(crate) plan: Vec<u8>,
    /// The ranges for people, as JSON.
    pub(crate) ranges: String,
}

/// Where a partition was first read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The first plan that names it says so.
    At(u64),
    /// That plan is no longer kept; the oldest one that is begins here.
    Before(u64),
}

/// How far a partition was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) start: Start,
    pub(crate) end: u64,
    incarnation: String,
}

/// By source and partition.
pub(crate) type Reaches = BTreeMap<(u64, String), Reach>;

/// What the rows so far came to.
#[derive(Debug, Default)]
pub(crate) struct History {
    reaches: Reaches,
    last: Option<(u64, u128)>,
    first: Option<u64>,
}

impl History {
    /// The oldest transaction that is kept.
    pub(crate) fn first(&self) -> Option<u64> {
        self.first
    }

    /// How far the rows so far reach.
    pub(crate) fn reaches(&self) -> &Reaches {
        &self.reaches
    }

    /// The next row in txid order; returns what is wrong with it.
    pub(crate) fn follow(&mut self, entry: &Entry) -> Vec<String> {
        let txid = entry.txid;
        let mut wrong = self.links(entry);
        self.first.get_or_insert(txid);
        self.last = Some((txid, entry.chain));
        match Plan::read(&entry.plan) {
            Ok(plan) => wrong.extend(self.plan(entry, plan)),
            Err(why) => wrong.push(format!("the plan cannot be read: {why}")),
        }
        wrong.iter().map(|wrong| format!("transaction {txid}: {wrong}")).collect()
    }

    fn links(&self, entry: &Entry) -> Vec<String> {
        let mut wrong = Vec::new();
        let recomputed = plan::chain(entry.previous, &entry.plan);
        if recomputed != entry.chain {
            wrong.push(format!("chain {:032x} is stored, its plan makes {recomputed:032x}", entry.chain));
        }
        let before = match self.last {
            Some(last) => Some(last),
            None if entry.txid == 1 => Some((0, 0)),
            None => None,
        };
        if let Some((txid, chain)) = before {
            if entry.txid != txid + 1 {
                wrong.push(format!("it comes after transaction {txid}"));
            }
            if entry.previous != chain {
                wrong.push(format!("it follows chain {:032x}, the one before ends with {chain:032x}", entry.previous));
            }
        }
        wrong
    }

    fn plan(&mut self, entry: &Entry, plan: Plan) -> Vec<String> {
        let mut wrong = Vec::new();
        if plan.txid != entry.txid || plan.previous != entry.previous {
            wrong.push(format!("its plan is that of transaction {} after chain {:032x}", plan.txid, plan.previous));
        }
        if for_people(&entry.ranges) != Some(full(&plan.ranges)) {
            wrong.push(format!("column ranges is not what its plan says: {}", entry.ranges));
        }
        let named: Vec<_> = plan.ranges.iter().map(|range| (range.source, range.partition.clone())).collect();
        let missing = self.reaches.keys().filter(|key| !named.contains(key));
        wrong.extend(missing.map(|(_, partition)| format!("{partition} is missing")));
        wrong.extend(plan.ranges.into_iter().filter_map(|range| self.range(entry.txid, range)));
        wrong
    }

    fn range(&mut self, txid: u64, range: Range) -> Option<String> {
        let Range { source, partition, incarnation, from, to } = range;
        let mut wrong = (to < from).then(|| format!("{partition} goes from {from} back to {to}"));
        let start = if txid == 1 || self.first != Some(txid) { Start::At(from) } else { Start::Before(from) };
        let key = (source, partition);
        match self.reaches.get_mut(&key) {
            None => drop(self.reaches.insert(key, Reach { start, end: to, incarnation })),
            Some(reach) => {
                let (partition, end) = (&key.1, reach.end);
                if from != end {
                    wrong = wrong.or(Some(format!("{partition} begins at {from}, the one before ends at {end}")));
                }
                if incarnation != reach.incarnation {
                    let was = &reach.incarnation;
                    wrong = wrong.or(Some(format!("{partition} is of incarnation {incarnation}, it was of {was}")));
                }
                reach.end = to;
            }
        }
        wrong
    }
}

type Full = Vec<(u64, String, u64, u64)>;

fn full(ranges: &[Range]) -> Full {
    let full = ranges.iter().filter(|range| range.to > range.from);
    full.map(|range| (range.source, range.partition.clone(), range.from, range.to)).collect()
}

fn for_people(ranges: &str) -> Option<Full> {
    let ranges: serde_json::Value = serde_json::from_str(ranges).ok()?;
    let range = |range: &serde_json::Value| {
        let number = |name: &str| range.get(name)?.as_u64();
        let partition = range.get("partition")?.as_str()?.to_owned();
        Some((number("source")?, partition, number("from")?, number("to")?))
    };
    ranges.as_array()?.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(txid: u8, previous: u128, from: u8, to: u8) -> Entry {
        let head = [&[1, txid, 254][..], &previous.to_le_bytes(), &[0, 0, 1]].concat();
        let plan = [&head[..], &[0, 3, b't', b'/', b'0', 1, b'i', from, to, 0]].concat();
        let chain = plan::chain(previous, &plan);
        let ranges = format!(r#"[{{"source":0,"partition":"t/0","from":{from},"to":{to}}}]"#);
        Entry { txid: txid.into(), previous, chain, manifest: 0, plan, ranges }
    }

    fn two() -> [Entry; 2] {
        let first = entry(1, 0, 3, 9);
        let second = entry(2, first.chain, 9, 12);
        [first, second]
    }

    fn wrong(entries: &[Entry]) -> String {
        let mut history = History::default();
        entries.iter().flat_map(|entry| history.follow(entry)).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_history_from_its_beginning_knows_its_start_and_a_trimmed_one_does_not() {
        let key = (0, "t/0".to_owned());
        let mut history = History::default();
        assert!(two().iter().all(|entry| history.follow(entry).is_empty()));
        assert_eq!((history.reaches()[&key].start, history.reaches()[&key].end), (Start::At(3), 12));
        let mut history = History::default();
        assert!(history.follow(&two()[1]).is_empty());
        assert_eq!((history.reaches()[&key].start, history.reaches()[&key].end), (Start::Before(9), 12));
    }

    #[test]
    fn every_edit_by_hand_is_told() {
        assert_eq!(wrong(&two()), "");
        let [first, second] = two();
        let edits: [(Entry, &str); 7] = [
            (Entry { txid: 3, ..second.clone() }, "it comes after transaction 1"),
            (Entry { chain: 7, ..second.clone() }, "its plan makes"),
            (Entry { previous: 7, ..second.clone() }, "it follows chain"),
            (Entry { plan: entry(2, first.chain, 9, 13).plan, ..second.clone() }, "its plan makes"),
            (Entry { plan: vec![1], ..second.clone() }, "cannot be read"),
            (Entry { ranges: "[]".to_owned(), ..second.clone() }, "column ranges"),
            // A whole row, consistent in itself.
            (entry(2, first.chain, 8, 12), "t/0 begins at 8, the one before ends at 9"),
        ];
        for (edited, told) in edits {
            let wrong = wrong(&[first.clone(), edited]);
            assert!(wrong.contains(told), "{told:?} is not in {wrong:?}");
        }
    }
}
