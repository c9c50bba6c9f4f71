//! Reads the lines of a range of a file, exactly those whose first byte lies in it.
//!
//! A range may begin and end inside a line: the line under `from` belongs to an earlier range and is passed over, the one
//! under `to` is finished past it. So any cutting of a file yields each line once. A line that a plan has closed ends there
//! at every replay, and one that no newline ends is read only where a plan has closed it.

use std::{collections::HashSet, fs::File};

use tine_core::failure::{Failure, FailureKind};

use super::{grew_inside, identity, window::Window};
use crate::source::{PartitionRange, Reader, Record, Sink};

/// Lines lent at once.
const CHUNK_RECORDS: usize = 512;

/// An emitter's side of the files.
pub(super) struct FileReader {
    names: HashSet<String>,
    max_line_bytes: usize,
    window: Window,
    open: Option<Open>,
}

struct Open {
    name: String,
    incarnation: String,
    file: File,
}

impl Reader for FileReader {
    fn read(&mut self, range: &PartitionRange, sink: &mut dyn Sink) -> Result<(), Failure> {
        self.open(range)?;
        if range.from < range.to {
            self.lines(range, sink)?;
            check(range)?;
        }
        Ok(())
    }
}

impl FileReader {
    pub(super) fn new(names: HashSet<String>, max_line_bytes: usize) -> FileReader {
        FileReader { names, max_line_bytes, window: Window::new(max_line_bytes), open: None }
    }

    /// Makes `self.open` the file that `range` means.
    fn open(&mut self, range: &PartitionRange) -> Result<(), Failure> {
        let name = &range.partition;
        check(range)?;
        if self.open.as_ref().is_some_and(|open| open.name == *name && open.incarnation == range.incarnation) {
            return Ok(());
        }
        if !self.names.contains(name) {
            return Err(Failure::fatal(format!("a plan names the file {name}, which this topology was not given")));
        }
        self.window.clear();
        let file = identity::open(name)?;
        let metadata = file.metadata().map_err(|error| identity::failure(name, "looking at", &error))?;
        let incarnation = identity::incarnation(&metadata);
        if incarnation != range.incarnation {
            return Err(identity::replaced(name, &range.incarnation, &incarnation));
        }
        self.open = Some(Open { name: name.clone(), incarnation, file });
        Ok(())
    }

    fn lines(&mut self, range: &PartitionRange, sink: &mut dyn Sink) -> Result<(), Failure> {
        let Some(mut start) = self.first_line(range, sink)? else { return Ok(()) };
        let mut searched = start;
        loop {
            start = lend(&self.window, start, searched, range.to, sink)?;
            if start >= range.to {
                return refuse_growth(range, start - 1);
            }
            searched = self.window.end().max(start);
            if self.fill(range, start, sink)? == 0 {
                return self.last_line(range, start, sink);
            }
        }
    }

    /// Where the first line begins whose first byte lies in the range, if one does.
    fn first_line(&mut self, range: &PartitionRange, sink: &mut dyn Sink) -> Result<Option<u64>, Failure> {
        if range.from == 0 {
            self.window.seek(0);
            return Ok(Some(0));
        }
        let (mut at, last) = (range.from - 1, range.to - 1);
        self.window.seek(at);
        loop {
            if let Some(newline) = memchr::memchr(b'\n', self.window.bytes(at..last)) {
                return Ok(Some(at + newline as u64 + 1));
            }
            at = self.window.end().max(at);
            if at >= last {
                return Ok(None);
            }
            if self.fill(range, at, sink)? == 0 {
                return Err(identity::truncated(&range.partition, at, range.to));
            }
        }
    }

    /// The line at the file's end, which no newline ends.
    fn last_line(&self, range: &PartitionRange, start: u64, sink: &mut dyn Sink) -> Result<(), Failure> {
        let (name, end) = (&range.partition, self.window.end());
        refuse_growth(range, end)?;
        if range.closed_at != Some(end) {
            return Err(identity::truncated(name, end, range.closed_at.unwrap_or(range.to.max(end + 1))));
        }
        sink.records(&[line(start, self.window.bytes(start..end))])
    }

    fn fill(&mut self, range: &PartitionRange, keep: u64, sink: &mut dyn Sink) -> Result<usize, Failure> {
        let name = &range.partition;
        if sink.cancelled() {
            return Err(Failure::new(FailureKind::Superseded, format!("reading {name} is no longer wanted")));
        }
        let Some(open) = &self.open else { return Err(Failure::fatal(format!("the file {name} is not open"))) };
        match self.window.fill(&open.file, keep).map_err(|error| identity::failure(name, "reading", &error))? {
            Some(bytes) => Ok(bytes),
            None => Err(too_long(name, keep, self.max_line_bytes)),
        }
    }
}

/// A line that the plan has closed does not reach further, `end` being where the last line of the range does.
fn refuse_growth(range: &PartitionRange, end: u64) -> Result<(), Failure> {
    match range.closed_at {
        Some(closed) if end > closed => Err(grew_inside(&range.partition, closed)),
        _ => Ok(()),
    }
}

/// Lends the lines that are complete in the window, from the one at `start` on, as far as they begin before `to`; the
/// bytes up to `searched` are known to hold no newline. Answers where the first line begins that was not lent.
fn lend(window: &Window, start: u64, searched: u64, to: u64, sink: &mut dyn Sink) -> Result<u64, Failure> {
    let bytes = window.bytes(start..u64::MAX);
    let skipped = window.bytes(start..searched).len();
    let limit = usize::try_from(to - start).unwrap_or(usize::MAX);
    let mut chunk = Vec::with_capacity(CHUNK_RECORDS);
    let mut begin = 0;
    for newline in memchr::memchr_iter(b'\n', &bytes[skipped..]) {
        let end = skipped + newline;
        chunk.push(line(start + begin as u64, &bytes[begin..end]));
        begin = end + 1;
        if chunk.len() == CHUNK_RECORDS {
            sink.records(&chunk)?;
            chunk.clear();
        }
        if begin >= limit {
            break;
        }
    }
    if !chunk.is_empty() {
        sink.records(&chunk)?;
    }
    Ok(start + begin as u64)
}

fn line(position: u64, value: &[u8]) -> Record<'_> {
    Record { position, timestamp_ms: -1, key: None, value: Some(value), headers: &[] }
}

/// The path still leads to the planned file, which still reaches as far as planned.
fn check(range: &PartitionRange) -> Result<(), Failure> {
    let metadata = identity::metadata(&range.partition)?;
    let found = identity::incarnation(&metadata);
    if found != range.incarnation {
        return Err(identity::replaced(&range.partition, &range.incarnation, &found));
    }
    match metadata.len() < range.to {
        true => Err(identity::truncated(&range.partition, metadata.len(), range.to)),
        false => Ok(()),
    }
}

pub(super) fn too_long(name: &str, start: u64, max_line_bytes: usize) -> Failure {
    Failure::fatal(format!(
        "the line of {name} at offset {start} is longer than {max_line_bytes} bytes: if it is meant to be so long, raise \
         max_line_bytes"
    ))
}
