//! Sources: the simulator's fake against files, which need no server.
//!
//! A file is a log whose positions are bytes, with a gap after each record as long as its line. It grows by lines and by
//! parts of lines, is truncated anywhere, and is replaced by another one; ranges are cut anywhere, also beyond its end.

use std::{fs, io::Write, path::PathBuf};

use proptest::prelude::*;
use tine_sim::fakes::source::FakeSource;
use tine_trident::source::{Horizon, PartitionBounds, PartitionRange, Reached, Source, SourceIndex, files::files};

use crate::{
    agree::{Transcript, scripts},
    source::read,
};

/// A step of a script. Places are thousandths of the file.
#[derive(Clone, Debug)]
enum Op {
    /// Bytes, some of them newlines.
    Append(String),
    Truncate(u64),
    /// Another file takes the name.
    Replace(String),
    Bounds,
    /// Reads between two places, and so far beyond; as of now, or of the first file.
    Read(u64, u64, u64, bool),
}

fn op() -> impl Strategy<Value = Op> {
    let beyond = prop_oneof![8 => Just(0u64), 1 => 1u64..9];
    prop_oneof![
        6 => "[ab\n]{0,20}".prop_map(Op::Append),
        1 => (0u64..=1000).prop_map(Op::Truncate),
        1 => "[ab\n]{0,30}".prop_map(Op::Replace),
        3 => Just(Op::Bounds),
        12 => (0u64..=1000, 0u64..=1000, beyond, prop::bool::weighted(0.1))
            .prop_map(|(from, to, beyond, first)| Op::Read(from, to, beyond, first)),
    ]
}

#[test]
fn the_fake_of_sources_answers_as_files_do() {
    let folder = tempfile::tempdir().unwrap();
    let script = || prop::collection::vec(op(), 20..60);
    scripts(file!(), 1, 400, script, |script| {
        let mut scene = Scene::new(folder.path().join("lines"))?;
        script.iter().try_for_each(|op| scene.step(op))
    });
}

struct Scene {
    path: PathBuf,
    content: String,
    source: std::sync::Arc<dyn Source>,
    fake: FakeSource,
    ids: Vec<String>,
    transcript: Transcript,
}

type Done = Result<(), String>;

impl Scene {
    fn new(path: PathBuf) -> Result<Scene, String> {
        let source = files([path.clone()]).bytes().source;
        let mut scene = Scene {
            fake: FakeSource::new("files", 2),
            source,
            path,
            content: String::new(),
            ids: Vec::new(),
            transcript: Transcript::default(),
        };
        scene.replace("")?;
        scene.fake.add_partition(&scene.path.display().to_string(), &scene.ids[0]);
        Ok(scene)
    }

    fn step(&mut self, op: &Op) -> Done {
        match op {
            Op::Append(more) => {
                self.transcript.note(format_args!("{more:?} is appended"));
                let mut file = fs::OpenOptions::new().append(true).open(&self.path).map_err(text)?;
                file.write_all(more.as_bytes()).map_err(text)?;
                self.content.push_str(more);
                self.tell_the_fake();
                Ok(())
            }
            Op::Truncate(place) => {
                self.content.truncate(self.content.len() * *place as usize / 1000);
                self.transcript.note(format_args!("truncated to {:?}", self.content));
                let file = fs::OpenOptions::new().write(true).open(&self.path).map_err(text)?;
                file.set_len(self.content.len() as u64).map_err(text)?;
                self.tell_the_fake();
                Ok(())
            }
            Op::Replace(content) => {
                self.replace(content)?;
                self.fake.recreate(self.ids.last().map_or("", String::as_str));
                self.tell_the_fake();
                Ok(())
            }
            Op::Bounds => {
                let (fake, real) = (bounds(&*self.fake.source()), bounds(&*self.source));
                self.transcript.agree("bounds", &fake, &real)
            }
            Op::Read(from, to, beyond, first) => {
                // Plans end where lines end; what is beyond the last one has never been planned.
                let (from, mut to) = (self.at(*from.min(to)), self.at(*from.max(to)));
                if *beyond > 0 {
                    to = self.content.len() as u64 + beyond;
                }
                self.read(from, to, *first)
            }
        }
    }

    /// Where the last line ends.
    fn end(&self) -> u64 {
        self.content.rfind('\n').map_or(0, |newline| newline as u64 + 1)
    }

    fn at(&self, place: u64) -> u64 {
        self.end() * place / 1000
    }

    /// Another file under the name; the one before stays, so that its identity is not given again.
    fn replace(&mut self, content: &str) -> Done {
        self.transcript.note(format_args!("another file holds {content:?}"));
        if self.path.exists() {
            fs::rename(&self.path, self.path.with_extension(self.ids.len().to_string())).map_err(text)?;
        }
        fs::write(&self.path, content).map_err(text)?;
        content.clone_into(&mut self.content);
        self.ids.push(bounds(&*self.source)?[0].incarnation.clone());
        Ok(())
    }

    /// Where the lines lie; the last one without its newline is not there yet.
    fn tell_the_fake(&self) {
        self.fake.compact(0, |_| true);
        let mut position = 0;
        for line in self.content.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            self.fake.put(0, position, line.trim_end_matches('\n'));
            position += line.len() as u64;
        }
        self.fake.reach(0, self.end());
    }

    fn read(&mut self, from: u64, to: u64, first: bool) -> Done {
        let id = if first { self.ids.first() } else { self.ids.last() };
        let range = PartitionRange {
            source: SourceIndex(0),
            partition: self.path.display().to_string(),
            incarnation: id.cloned().unwrap_or_default(),
            from,
            to,
            closed_at: None,
        };
        let reader = |source: &dyn Source| source.reader().map_err(|failure| failure.to_string());
        let fake = read(&mut *reader(&*self.fake.source())?, &range);
        let real = read(&mut *reader(&*self.source)?, &range);
        self.transcript.agree_in(&[], format_args!("{from}..{to} of {id:?}"), &fake, &real)
    }
}

fn bounds(source: &dyn Source) -> Result<Vec<PartitionBounds>, String> {
    let mut bounds = source.bounds().map_err(|failure| failure.to_string())?;
    bounds.poll(Horizon::Endless, &Reached::nothing()).map_err(|failure| failure.to_string())
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}
