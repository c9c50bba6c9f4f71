//! Aggregates within a memory limit: sorted runs in files, merged in key order at the end.
//!
//! A *run* is a file of rows in key order, each key once: `key length (4), key, values (16 each)`, all little endian. The
//! table is one run; what is counted becomes as many as memory asks for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::AuditError;

/// What a key's entry costs beside its bytes: the map's slot, two allocations and their heads, and its place among those
/// that are sorted.
const ENTRY_BYTES: usize = 192;
/// So many files are open at a time; more are merged into one.
const RUNS_MAX: usize = 200;

/// How the values of a key become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The number of rows; takes no value.
    Count,
    /// The sum.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

impl How {
    fn combine(self, held: &mut i128, other: i128) {
        match self {
            How::Count | How::Sum => *held += other,
            How::Min => *held = (*held).min(other),
            How::Max => *held = (*held).max(other),
        }
    }
}

/// A key with its values.
pub(crate) type Row = (Vec<u8>, Vec<i128>);

/// What was counted so far.
#[derive(Debug)]
pub(crate) struct Totals {
    hows: Vec<How>,
    held: HashMap<Vec<u8>, Vec<i128>>,
    held_bytes: usize,
    memory: usize,
    folder: PathBuf,
    runs: Vec<Run>,
}

impl Totals {
    pub(crate) fn new(hows: Vec<How>, memory: usize, folder: &Path) -> Totals {
        let held = HashMap::new();
        Totals { hows, held, held_bytes: 0, memory, folder: folder.to_owned(), runs: Vec::new() }
    }

    /// One row; `values` are those of the aggregates that take one.
    pub(crate) fn add(&mut self, key: &[u8], values: &[i64]) -> Result<(), AuditError> {
        let mut values = values.iter();
        let mut value = |how: &How| match how {
            How::Count => 1,
            _ => values.next().map_or(0, |value| i128::from(*value)),
        };
        if let Some(held) = self.held.get_mut(key) {
            self.hows.iter().zip(held).for_each(|(how, held)| how.combine(held, value(how)));
            return Ok(());
        }
        self.held.insert(key.to_vec(), self.hows.iter().map(value).collect());
        self.held_bytes += key.len() + 16 * self.hows.len() + ENTRY_BYTES;
        if self.held_bytes > self.memory { self.spill() } else { Ok(()) }
    }

    /// How many runs were written.
    pub(crate) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// All keys in order.
    pub(crate) fn finish(mut self) -> Result<Merged, AuditError> {
        if !self.held.is_empty() {
            self.spill()?;
        }
        Merged::new(self.hows, self.runs)
    }

    fn spill(&mut self) -> Result<(), AuditError> {
        let mut rows: Vec<Row> = self.held.drain().collect();
        rows.sort_unstable();
        self.held_bytes = 0;
        let mut run = RunWriter::new(&self.folder)?;
        rows.iter().try_for_each(|(key, values)| run.write(key, values))?;
        drop(rows);
        self.runs.push(run.finish()?);
        if self.runs.len() == RUNS_MAX {
            let mut merged = Merged::new(self.hows.clone(), std::mem::take(&mut self.runs))?;
            let mut run = RunWriter::new(&self.folder)?;
            while let Some((key, values)) = merged.next()? {
                run.write(&key, &values)?;
            }
            self.runs.push(run.finish()?);
        }
        Ok(())
    }
}

/// Writes a run into a file without a name: it is gone when this process is.
#[derive(Debug)]
pub(crate) struct RunWriter(BufWriter<File>);

impl RunWriter {
    pub(crate) fn new(folder: &Path) -> Result<RunWriter, AuditError> {
        let file = tempfile::tempfile_in(folder)
            .map_err(AuditError::file(format!("cannot make a temporary file in {}", folder.display())))?;
        Ok(RunWriter(BufWriter::new(file)))
    }

    /// The next row; its key is greater than the one before.
    pub(crate) fn write(&mut self, key: &[u8], values: &[i128]) -> Result<(), AuditError> {
        // A key has 1,024 bytes at most where it was counted, and a gigabyte where Postgres holds it.
        let mut head = (key.len() as u32).to_le_bytes().to_vec();
        head.extend_from_slice(key);
        values.iter().for_each(|value| head.extend_from_slice(&value.to_le_bytes()));
        self.0.write_all(&head).map_err(AuditError::file("cannot write a temporary file"))
    }

    pub(crate) fn finish(self) -> Result<Run, AuditError> {
        let mut file = self.0.into_inner().map_err(|error| error.into_error()).map_err(unfinished())?;
        file.rewind().map_err(unfinished())?;
        Ok(Run(BufReader::new(file)))
    }
}

fn unfinished() -> impl FnOnce(std::io::Error) -> AuditError {
    AuditError::file("cannot finish a temporary file")
}

/// A run that is read.
#[derive(Debug)]
pub(crate) struct Run(BufReader<File>);

impl Run {
    /// The next row with `values` values, or `None` at the end.
    pub(crate) fn next(&mut self, values: usize) -> Result<Option<Row>, AuditError> {
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            Ok(()) => self.row(u32::from_le_bytes(length) as usize, values).map(Some).map_err(unreadable()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(unreadable()(error)),
        }
    }

    fn row(&mut self, length: usize, values: usize) -> std::io::Result<Row> {
        let mut key = vec![0; length];
        self.0.read_exact(&mut key)?;
        let mut read = Vec::with_capacity(values);
        for _ in 0..values {
            let mut value = [0; 16];
            self.0.read_exact(&mut value)?;
            read.push(i128::from_le_bytes(value));
        }
        Ok((key, read))
    }
}

fn unreadable() -> impl FnOnce(std::io::Error) -> AuditError {
    AuditError::file("cannot read a temporary file back")
}

/// Several runs as one: keys in order, each once.
#[derive(Debug)]
pub(crate) struct Merged {
    hows: Vec<How>,
    runs: Vec<Run>,
    heads: BinaryHeap<Reverse<(Row, usize)>>,
}

impl Merged {
    fn new(hows: Vec<How>, runs: Vec<Run>) -> Result<Merged, AuditError> {
        let count = runs.len();
        let mut merged = Merged { hows, runs, heads: BinaryHeap::new() };
        (0..count).try_for_each(|nth| merged.refill(nth))?;
        Ok(merged)
    }

    /// How many values a row has.
    pub(crate) fn width(&self) -> usize {
        self.hows.len()
    }

    /// The next key with its values.
    pub(crate) fn next(&mut self) -> Result<Option<Row>, AuditError> {
        let Some(Reverse(((key, mut values), nth))) = self.heads.pop() else { return Ok(None) };
        self.refill(nth)?;
        while self.heads.peek().is_some_and(|Reverse(((other, _), _))| *other == key) {
            let Some(Reverse(((_, more), nth))) = self.heads.pop() else { break };
            self.hows.iter().zip(&mut values).zip(more).for_each(|((how, held), other)| how.combine(held, other));
            self.refill(nth)?;
        }
        Ok(Some((key, values)))
    }

    fn refill(&mut self, nth: usize) -> Result<(), AuditError> {
        let row = self.runs[nth].next(self.hows.len())?;
        self.heads.extend(row.map(|row| Reverse((row, nth))));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_tiny_memory_and_a_large_one_come_to_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let hows = vec![How::Count, How::Sum, How::Min, How::Max];
        let mut expected = BTreeMap::<Vec<u8>, Vec<i128>>::new();
        let mut small = Totals::new(hows.clone(), 2_000, folder.path());
        let mut large = Totals::new(hows, usize::MAX, folder.path());
        for n in 0..20_000_i64 {
            let (key, value) = (format!("key{}", n * n % 701).into_bytes(), n * 37 % 1_000 - 500);
            small.add(&key, &[value, value, value]).unwrap();
            large.add(&key, &[value, value, value]).unwrap();
            let value = i128::from(value);
            let held = expected.entry(key).or_insert_with(|| vec![0, 0, value, value]);
            *held = vec![held[0] + 1, held[1] + value, held[2].min(value), held[3].max(value)];
        }
        assert!(small.runs() > 1 && small.runs() <= RUNS_MAX, "{} runs", small.runs());
        assert_eq!(large.runs(), 0);
        for totals in [small, large] {
            let mut merged = totals.finish().unwrap();
            let mut rows = Vec::new();
            while let Some(row) = merged.next().unwrap() {
                rows.push(row);
            }
            assert!(rows.is_sorted());
            assert_eq!(rows.into_iter().collect::<BTreeMap<_, _>>(), expected);
        }
    }
}
