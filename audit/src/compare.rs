//! Walks both sides in key order and says what differs.

use std::cmp::Ordering;
use std::fmt;

use crate::AuditError;
use crate::record::shown;
use crate::runs::{Merged, Run};

/// A row that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wrong {
    /// Its key columns, for people.
    pub key: String,
    /// The values that were recomputed; `None` when the row should not be there.
    pub expected: Option<Vec<i128>>,
    /// The values in the table; `None` when the row is missing.
    pub found: Option<Vec<i128>>,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wrong { key, expected, found } = self;
        match (expected, found) {
            (Some(expected), Some(found)) => write!(f, "{key}: is {}, expected {}", row(found), row(expected)),
            (Some(expected), None) => write!(f, "{key}: is missing, expected {}", row(expected)),
            (None, Some(found)) => write!(f, "{key}: is {}, expected none", row(found)),
            (None, None) => write!(f, "{key}"),
        }
    }
}

fn row(values: &[i128]) -> String {
    values.iter().map(i128::to_string).collect::<Vec<_>>().join(", ")
}

/// What an audit came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// `schema.table`.
    pub table: String,
    /// The last complete transaction in the snapshot.
    pub txid: u64,
    /// What was read of Kafka: partitions and offsets, for people.
    pub pieces: Vec<String>,
    /// Records that were read.
    pub records: u64,
    /// Records that are no rows, by the closure's word.
    pub left_out: u64,
    /// Rows that were recomputed.
    pub expected: u64,
    /// Rows in the table.
    pub found: u64,
    /// Rows that are not there.
    pub missing: u64,
    /// Rows that should not be there.
    pub extra: u64,
    /// Rows with other values.
    pub other: u64,
    /// The first rows that differ.
    pub rows: Vec<Wrong>,
    /// What of ledger and plans does not agree with the rest.
    pub ledger: Vec<String>,
    /// Whether rows were compared: not when the ledger does not even say up to where.
    pub compared: bool,
    /// What was taken for granted, for people.
    pub assumed: Vec<String>,
}

impl Report {
    /// Whether ledger, plans and every row are what they should be.
    pub fn is_exact(&self) -> bool {
        self.compared && self.ledger.is_empty() && self.differing() == 0
    }

    /// How many rows differ.
    pub fn differing(&self) -> u64 {
        self.missing + self.extra + self.other
    }

    /// Walks both sides; the first `keep` differing rows are kept.
    pub(crate) fn compare(&mut self, mut expected: Merged, mut table: Run, keep: usize) -> Result<(), AuditError> {
        let width = expected.width();
        let (mut want, mut have) = (expected.next()?, table.next(width)?);
        loop {
            let order = match (&want, &have) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((want, _)), Some((have, _))) => want.cmp(have),
            };
            let wanted = if order.is_le() { want.take() } else { None };
            let had = if order.is_ge() { have.take() } else { None };
            if wanted.is_some() {
                self.expected += 1;
                want = expected.next()?;
            }
            if had.is_some() {
                self.found += 1;
                have = table.next(width)?;
            }
            if wanted != had {
                self.differs(wanted, had, keep);
            }
        }
        self.compared = true;
        Ok(())
    }

    fn differs(&mut self, wanted: Option<crate::runs::Row>, had: Option<crate::runs::Row>, keep: usize) {
        match (&wanted, &had) {
            (Some(_), None) => self.missing += 1,
            (None, _) => self.extra += 1,
            (Some(_), Some(_)) => self.other += 1,
        }
        let Some((key, _)) = wanted.as_ref().or(had.as_ref()) else { return };
        if self.rows.len() < keep {
            let (expected, found) = (wanted.as_ref(), had.as_ref());
            self.rows.push(Wrong {
                key: shown(key),
                expected: expected.map(|(_, values)| values.clone()),
                found: found.map(|(_, values)| values.clone()),
            });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { table, txid, records, left_out, expected, found, missing, extra, other, .. } = self;
        self.ledger.iter().try_for_each(|finding| writeln!(f, "ledger: {finding}"))?;
        self.rows.iter().try_for_each(|wrong| writeln!(f, "row {wrong}"))?;
        let more = self.differing() - self.rows.len() as u64;
        if more > 0 {
            writeln!(f, "and {more} more rows")?;
        }
        self.assumed.iter().try_for_each(|assumed| writeln!(f, "assumed: {assumed}"))?;
        write!(f, "{table} at transaction {txid}: {records} records in {} partitions", self.pieces.len())?;
        if *left_out > 0 {
            write!(f, ", {left_out} of them left out")?;
        }
        match self.compared {
            true => writeln!(f, "; {found} rows, {expected} expected")?,
            false => writeln!(f)?,
        }
        match (self.is_exact(), self.compared) {
            (true, _) => write!(f, "exact"),
            (false, true) => write!(
                f,
                "NOT exact: {} rows differ ({other} with other values, {missing} missing, {extra} too many), {} findings in the ledger",
                self.differing(),
                self.ledger.len()
            ),
            (false, false) => write!(
                f,
                "NOT exact: {} findings in the ledger; rows were not compared, for it does not say up to where",
                self.ledger.len()
            ),
        }
    }
}
