//! What happened: always as a hash, in words when somebody will read it.

use crate::random::mix;

/// The trace of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: Option<Vec<(u64, String)>>,
}

impl Trace {
    pub(crate) fn new(in_words: bool) -> Trace {
        Trace { hash: 0x7ace, lines: in_words.then(Vec::new) }
    }

    /// An event has happened.
    pub(crate) fn mix(&mut self, at_us: u64, tag: u64) {
        self.hash = mix(self.hash ^ tag).wrapping_add(at_us);
    }

    /// Something worth a line; put into words only if somebody reads it.
    pub(crate) fn say(&mut self, at_us: u64, words: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let line = (at_us, words());
            if lines.last() != Some(&line) {
                lines.push(line);
            }
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// The timeline, one line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |(at_us, words): &(u64, String)| format!("{:>6}.{:03} ms  {words}", at_us / 1000, at_us % 1000);
        self.lines.iter().flatten().map(line).collect()
    }
}
