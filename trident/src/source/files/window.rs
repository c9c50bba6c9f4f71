//! A window on a file: one reusable buffer that holds consecutive bytes from some offset on.
//!
//! It slides forward by moving the unfinished line to its front, and grows only for a line that does not fit.

use std::{fs::File, io, ops::Range};

use super::identity;

/// Large enough that a system call per filling costs nothing, small enough for a second-level cache.
const FIRST_BYTES: usize = 256 << 10;

/// Consecutive bytes of a file.
pub(super) struct Window {
    buffer: Vec<u8>,
    base: u64,
    filled: usize,
    max_bytes: usize,
}

impl Window {
    /// An empty window that may grow to hold a line of `max_line_bytes` with its newline.
    pub(super) fn new(max_line_bytes: usize) -> Window {
        let max_bytes = max_line_bytes.saturating_add(1);
        Window { buffer: vec![0; FIRST_BYTES.min(max_bytes)], base: 0, filled: 0, max_bytes }
    }

    /// Forgets everything: another file.
    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Makes the window reach to or begin at `offset`; what it holds from there on stays.
    pub(super) fn seek(&mut self, offset: u64) {
        if offset < self.base || offset > self.end() {
            self.base = offset;
            self.filled = 0;
        }
    }

    /// The offset after the last byte held.
    pub(super) fn end(&self) -> u64 {
        self.base + self.filled as u64
    }

    /// What is held of `range`.
    pub(super) fn bytes(&self, range: Range<u64>) -> &[u8] {
        let index = |offset: u64| (offset.clamp(self.base, self.end()) - self.base) as usize;
        &self.buffer[index(range.start)..index(range.end)]
    }

    /// Reads more behind what is held from `keep` on; `Ok(None)` when that already is a line of the greatest length, 0
    /// at the file's end.
    pub(super) fn fill(&mut self, file: &File, keep: u64) -> io::Result<Option<usize>> {
        let kept = (keep.clamp(self.base, self.end()) - self.base) as usize;
        self.buffer.copy_within(kept..self.filled, 0);
        self.base += kept as u64;
        self.filled -= kept;
        if self.filled == self.buffer.len() {
            if self.filled >= self.max_bytes {
                return Ok(None);
            }
            self.buffer.resize(self.filled.saturating_mul(2).min(self.max_bytes), 0);
        }
        let end = self.end();
        let got = loop {
            match identity::read_at(file, &mut self.buffer[self.filled..], end) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => break answer?,
            }
        };
        self.filled += got;
        Ok(Some(got))
    }
}
