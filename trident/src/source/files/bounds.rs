//! How far each file reaches, and whether it still is the file that was planned from.
//!
//! A line that was counted before a newline ended it is known by the plans: they say where it was closed. As long as the
//! file ends there, so do its bounds, in both horizons; what follows later must be a newline.
//!
//! A poll costs one `stat` per file that did not change. For one that did, the newline to plan up to is searched backwards
//! from the end, and never twice in the same bytes. While a process runs it also compares the last planned bytes with
//! what it saw before: that finds a file that was rewritten in place and has grown beyond its old length.

use std::{
    collections::HashMap,
    fs::{File, Metadata},
    time::SystemTime,
};

use tine_core::failure::Failure;

use super::{grew_inside, identity, reader};
use crate::{
    plan::Position,
    source::{Bounds, Horizon, PartitionBounds, Reached},
};

/// Searched at once for a newline.
const BLOCK_BYTES: u64 = 64 << 10;

/// Planned bytes that are remembered to notice a rewritten file.
const TAIL_BYTES: u64 = 64;

/// The leader's side of the files.
pub(super) struct FileBounds {
    files: Vec<Watched>,
    max_line_bytes: usize,
}

struct Watched {
    name: String,
    seen: Option<Seen>,
}

/// A file at the last poll.
struct Seen {
    incarnation: String,
    len: u64,
    modified: Option<SystemTime>,
    horizon: Horizon,
    /// After the last newline.
    complete: u64,
    /// What was answered: everything below may be planned.
    end: u64,
    /// `end`, when no newline stands before it.
    closed_at: Option<u64>,
    /// The bytes before `end`.
    tail: Vec<u8>,
}

impl Bounds for FileBounds {
    fn poll(&mut self, horizon: Horizon, reached: &Reached<'_>) -> Result<Vec<PartitionBounds>, Failure> {
        let fresh = self.files.iter().any(|file| file.seen.is_none());
        for file in &mut self.files {
            let planned = reached.position(&file.name);
            if let Some(seen) = look(&file.name, file.seen.as_ref(), horizon, planned, self.max_line_bytes)? {
                file.seen = Some(seen);
            }
        }
        if fresh {
            self.refuse_two_paths_of_one_file()?;
        }
        Ok(self.files.iter().filter_map(Watched::bounds).collect())
    }
}

impl FileBounds {
    pub(super) fn new(names: Vec<String>, max_line_bytes: usize) -> FileBounds {
        let files = names.into_iter().map(|name| Watched { name, seen: None }).collect();
        FileBounds { files, max_line_bytes }
    }

    fn refuse_two_paths_of_one_file(&self) -> Result<(), Failure> {
        let mut known = HashMap::new();
        for file in &self.files {
            let Some(seen) = &file.seen else { continue };
            if let Some(other) = known.insert(&seen.incarnation, &file.name) {
                return Err(Failure::fatal(format!(
                    "{other} and {} are one and the same file: its lines would count twice",
                    file.name
                )));
            }
        }
        Ok(())
    }
}

impl Watched {
    fn bounds(&self) -> Option<PartitionBounds> {
        let seen = self.seen.as_ref()?;
        Some(PartitionBounds {
            partition: self.name.clone(),
            incarnation: seen.incarnation.clone(),
            low: 0,
            end: seen.end,
            start: 0,
            closed_at: seen.closed_at,
        })
    }
}

/// Looks at a file again, `before` being what the last poll saw; `None` when nothing changed.
fn look(
    name: &str,
    before: Option<&Seen>,
    horizon: Horizon,
    planned: Option<&Position>,
    max_line_bytes: usize,
) -> Result<Option<Seen>, Failure> {
    let metadata = identity::metadata(name)?;
    if let Some(seen) = before {
        refuse_another(name, seen, &metadata)?;
        let same = seen.len == metadata.len() && seen.modified == metadata.modified().ok();
        // Another leader may have planned more meanwhile.
        let answered = planned.is_none_or(|planned| planned.at <= seen.end);
        if same && answered && seen.horizon == horizon {
            return Ok(None);
        }
    }
    let file = identity::open(name)?;
    refuse_rewritten(name, before, &file)?;
    // Everything below comes from the opened file: the path may lead to another one by now, which the next poll sees.
    let metadata = file.metadata().map_err(|error| identity::failure(name, "looking at", &error))?;
    let len = metadata.len();
    let counted = match planned {
        Some(planned) => counted_end(name, &file, len, planned, max_line_bytes)?,
        None => None,
    };
    let complete = last_newline(name, &file, before, len, max_line_bytes)?;
    let closed_at = match horizon {
        Horizon::Now => (complete < len).then_some(len),
        Horizon::Endless => counted,
    };
    let end = closed_at.unwrap_or(complete);
    let mut tail = vec![0; end.min(TAIL_BYTES) as usize];
    identity::read_exact(name, &file, &mut tail, end - end.min(TAIL_BYTES))?;
    let incarnation = identity::incarnation(&metadata);
    let modified = metadata.modified().ok();
    Ok(Some(Seen { incarnation, len, modified, horizon, complete, end, closed_at, tail }))
}

fn refuse_another(name: &str, seen: &Seen, metadata: &Metadata) -> Result<(), Failure> {
    let found = identity::incarnation(metadata);
    if found != seen.incarnation {
        return Err(identity::replaced(name, &seen.incarnation, &found));
    }
    match metadata.len() < seen.end {
        true => Err(identity::truncated(name, metadata.len(), seen.end)),
        false => Ok(()),
    }
}

fn refuse_rewritten(name: &str, before: Option<&Seen>, file: &File) -> Result<(), Failure> {
    let Some(seen) = before else { return Ok(()) };
    let mut tail = vec![0; seen.tail.len()];
    let from = seen.end - tail.len() as u64;
    identity::read_exact(name, file, &mut tail, from)?;
    match tail == seen.tail {
        true => Ok(()),
        false => Err(Failure::fatal(format!(
            "the file {name} was rewritten in place: its bytes from {from} to {} are not those that were planned; put the \
             old content back, or give the new one another path",
            seen.end
        ))),
    }
}

/// Where the line ends that was counted before a newline ended it, as long as none does; an error when it has changed.
fn counted_end(
    name: &str,
    file: &File,
    len: u64,
    planned: &Position,
    max_line_bytes: usize,
) -> Result<Option<u64>, Failure> {
    let Some(end) = planned.closed_at else { return Ok(None) };
    if len < end {
        return Err(identity::truncated(name, len, end));
    }
    if len > end {
        let mut next = [0];
        identity::read_exact(name, file, &mut next, end)?;
        if next == *b"\n" {
            return Ok(None);
        }
    }
    // A line is counted when its first byte was planned: a plan may end inside it, or before.
    let counted = match planned.at {
        0 => false,
        at if at >= end => true,
        at => after_newline(name, file, at - 1, end, max_line_bytes)?.is_none(),
    };
    match counted {
        true if len > end => Err(grew_inside(name, end)),
        counted => Ok(counted.then_some(end)),
    }
}

/// The offset after the last newline of the first `len` bytes, 0 without one; what the last poll searched is not
/// searched again.
fn last_newline(
    name: &str,
    file: &File,
    before: Option<&Seen>,
    len: u64,
    max_line_bytes: usize,
) -> Result<u64, Failure> {
    let (floor, known) = before.filter(|seen| seen.len <= len).map_or((0, 0), |seen| (seen.len, seen.complete));
    Ok(after_newline(name, file, floor, len, max_line_bytes)?.unwrap_or(known))
}

/// The offset after the last newline of the bytes from `floor` to `to`, searched backwards.
fn after_newline(name: &str, file: &File, floor: u64, to: u64, max_line_bytes: usize) -> Result<Option<u64>, Failure> {
    let mut block = vec![0; BLOCK_BYTES.min(to - floor) as usize];
    let mut end = to;
    while end > floor {
        let from = end.saturating_sub(BLOCK_BYTES).max(floor);
        let bytes = &mut block[..(end - from) as usize];
        identity::read_exact(name, file, bytes, from)?;
        if let Some(newline) = memchr::memrchr(b'\n', bytes) {
            return Ok(Some(from + newline as u64 + 1));
        }
        end = from;
        if to - end > max_line_bytes as u64 + BLOCK_BYTES {
            return Err(reader::too_long(name, end, max_line_bytes));
        }
    }
    Ok(None)
}
