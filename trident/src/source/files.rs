//! Files as a source: a file is a partition, its byte offsets are positions, its lines are records.
//!
//! ```
//! use tine_trident::source::files::files;
//!
//! let lines = files(["access.log", "access.log.1"]).text();
//! # let _ = lines;
//! ```
//!
//! A line ends before its `\n`; nothing else is taken away, so a `\r` before it belongs to the record, and an empty line
//! is an empty record. A record's position is the offset of its first byte. A file that grows goes on; one that was
//! truncated, replaced or (as far as a running process can see cheaply) rewritten in place is refused by name.
//!
//! A last line without its newline waits for it, except in a run that ends at what is there now: that one counts it. Plans
//! remember where such a line was closed, so that every later run knows: a newline may follow there, and then more lines;
//! anything else is refused, for half of a line was counted already.
//!
//! ```text
//!   plan:     [from ........... to)[from ............. to)      cut anywhere
//!   content:  a line\n another li ne\n the last\n
//!             ^------  ^------------   ^-------                 a line belongs where its first byte lies
//! ```
//!
//! [`bounds`] says how far each file reaches, [`reader`] reads ranges through a [`window`] on the file, and [`identity`]
//! tells a file from another one of the same name. Nothing here watches folders: the paths are given.

mod bounds;
mod identity;
mod reader;
#[cfg(test)]
mod tests;
mod window;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use tine_core::failure::Failure;

use crate::{
    input::{Bytes, Input, Json, Lend, Records, Text},
    source::{Bounds, Reader, Source},
};

/// Default of [`Files::max_line_bytes`].
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// The lines of some files. Each path is a partition under the name given here, which must stay the same from start to
/// start; the same path twice, or two paths of one file, are refused when the topology starts.
pub fn files<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Files {
    Files { paths: paths.into_iter().map(Into::into).collect(), max_line_bytes: MAX_LINE_BYTES }
}

/// Builder of a files source; see [`files`].
#[derive(Clone, Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    max_line_bytes: usize,
}

impl Files {
    /// The longest line that is read; a longer one halts the group with its path and offset. Default 16 MiB.
    pub fn max_line_bytes(mut self, bytes: usize) -> Files {
        self.max_line_bytes = bytes;
        self
    }

    /// Lines as `&str`: UTF-8 without NUL.
    pub fn text(self) -> Input<Text> {
        Input::transactional(Arc::new(self.source()))
    }

    /// Lines as `&[u8]`, as they are.
    pub fn bytes(self) -> Input<Bytes> {
        Input::transactional(Arc::new(self.source()))
    }

    /// Lines as JSON values, decoded into a type of yours that owns its fields or, named by [`lend!`](crate::lend), borrows
    /// them: see [`json`](crate::input::json).
    pub fn json<L: Lend>(self) -> Input<Json<L>> {
        Input::transactional(Arc::new(self.source()))
    }

    /// Lines with path and offset.
    pub fn records(self) -> Input<Records> {
        Input::transactional(Arc::new(self.source()))
    }

    fn source(self) -> FilesSource {
        FilesSource { files: self }
    }
}

struct FilesSource {
    files: Files,
}

impl FilesSource {
    /// The partitions' names, in the order given.
    fn names(&self) -> Result<Vec<String>, Failure> {
        let mut names = Vec::with_capacity(self.files.paths.len());
        let mut known = BTreeSet::new();
        for path in &self.files.paths {
            let name = path.to_str().ok_or_else(|| {
                Failure::fatal(format!(
                    "the path {path:?} is not UTF-8, so it cannot name a partition: rename the file"
                ))
            })?;
            if !known.insert(name) {
                return Err(Failure::fatal(format!("the file {name} is given twice: its lines would count twice")));
            }
            names.push(name.to_owned());
        }
        match names.is_empty() {
            true => Err(Failure::fatal("no files are given")),
            false => Ok(names),
        }
    }
}

impl Source for FilesSource {
    fn describe(&self) -> String {
        match self.files.paths.as_slice() {
            [one] => format!("file {}", one.display()),
            more => format!("{} files", more.len()),
        }
    }

    fn unit(&self) -> &'static str {
        "byte"
    }

    fn bounds(&self) -> Result<Box<dyn Bounds>, Failure> {
        let watched = bounds::FileBounds::new(self.names()?, self.files.max_line_bytes);
        Ok(Box::new(watched))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, Failure> {
        let names = self.names()?.into_iter().collect();
        Ok(Box::new(reader::FileReader::new(names, self.files.max_line_bytes)))
    }
}

fn grew_inside(name: &str, end: u64) -> Failure {
    Failure::fatal(format!(
        "the file {name} grew inside a line that was already counted: it ended at offset {end} without a newline, and goes \
         on there with something else than one; end that line with a newline there before more is appended"
    ))
}
