//! Cutting, growth, truncation and replacement of files, held against a plain `split`.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use tempfile::TempDir;
use tine_core::failure::{Failure, FailureKind};

use super::{Files, FilesSource, files};
use crate::{
    plan::{Position, Positions},
    source::{
        Bounds,
        Horizon::{self, Endless, Now},
        PartitionBounds, PartitionRange, Reached, Reader, Record, Sink, Source, SourceIndex,
    },
};

/// Collects lines with their positions; stops by itself when told to.
#[derive(Default)]
struct Lines {
    lines: Vec<(u64, Vec<u8>)>,
    largest_chunk: usize,
    cancelled: bool,
}

impl Sink for Lines {
    fn records(&mut self, chunk: &[Record<'_>]) -> Result<(), Failure> {
        self.largest_chunk = self.largest_chunk.max(chunk.len());
        self.lines.extend(chunk.iter().map(|record| (record.position, record.value.unwrap().to_vec())));
        Ok(())
    }

    fn cancelled(&self) -> bool {
        self.cancelled
    }
}

struct Scene {
    _folder: TempDir,
    path: PathBuf,
    source: FilesSource,
}

impl Scene {
    fn new(content: &[u8]) -> Scene {
        Scene::with(content, |files| files)
    }

    fn with(content: &[u8], tune: impl FnOnce(Files) -> Files) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        fs::write(&path, content).unwrap();
        let source = tune(files([&path])).source();
        Scene { _folder: folder, path, source }
    }

    fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn append(&self, bytes: &[u8]) {
        OpenOptions::new().append(true).open(&self.path).unwrap().write_all(bytes).unwrap();
    }

    fn bounds(&self) -> Box<dyn Bounds> {
        self.source.bounds().unwrap()
    }

    fn reader(&self) -> Box<dyn Reader> {
        self.source.reader().unwrap()
    }

    fn range(&self, from: u64, to: u64) -> PartitionRange {
        let incarnation = only(self.bounds().poll(Endless, &Reached::nothing())).unwrap().incarnation;
        let partition = self.name().to_owned();
        PartitionRange { source: SourceIndex(0), partition, incarnation, from, to, closed_at: None }
    }

    /// A process: new bounds, a new reader, and of those before it nothing but the positions.
    fn process(&self, positions: &Positions) -> Process {
        Process { bounds: self.bounds(), reader: self.reader(), positions: positions.clone() }
    }
}

struct Process {
    bounds: Box<dyn Bounds>,
    reader: Box<dyn Reader>,
    positions: Positions,
}

impl Process {
    fn poll(&mut self, horizon: Horizon) -> Result<PartitionBounds, Failure> {
        only(self.bounds.poll(horizon, &Reached::new(SourceIndex(0), &self.positions)))
    }

    /// Plans what is there, up to the place that `cut` chooses in it, as the coordinator does.
    fn plan(&mut self, horizon: Horizon, cut: impl FnOnce(u64) -> u64) -> Result<PartitionRange, Failure> {
        let PartitionBounds { partition, incarnation, start, end, closed_at, .. } = self.poll(horizon)?;
        let key = (SourceIndex(0), partition.clone());
        let from = self.positions.get(&key).map_or(start, |position| position.at);
        assert!(from <= end, "read up to {from} and ends at {end}");
        let to = from + cut(end - from);
        self.positions.insert(key, Position { at: to, incarnation: incarnation.clone(), closed_at });
        Ok(PartitionRange { source: SourceIndex(0), partition, incarnation, from, to, closed_at })
    }

    /// The lines of all that is there.
    fn run(&mut self, horizon: Horizon) -> Result<Vec<String>, Failure> {
        let range = self.plan(horizon, |whole| whole)?;
        Ok(read(&mut *self.reader, &range)?.into_iter().map(|(_, line)| line).collect())
    }
}

fn only(polled: Result<Vec<PartitionBounds>, Failure>) -> Result<PartitionBounds, Failure> {
    let mut all = polled?;
    assert_eq!(all.len(), 1);
    Ok(all.remove(0))
}

fn end(bounds: &mut dyn Bounds, horizon: Horizon) -> u64 {
    only(bounds.poll(horizon, &Reached::nothing())).unwrap().end
}

fn read(reader: &mut dyn Reader, range: &PartitionRange) -> Result<Vec<(u64, String)>, Failure> {
    let mut lines = Lines::default();
    reader.read(range, &mut lines)?;
    Ok(lines.lines.into_iter().map(|(at, line)| (at, String::from_utf8_lossy(&line).into_owned())).collect())
}

fn assert_fatal<T: std::fmt::Debug>(result: Result<T, Failure>, says: &[&str]) {
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fatal, "{failure}");
    for words in says {
        assert!(failure.message.contains(words), "{failure} does not say {words:?}");
    }
}

/// What a person would call the lines of `content`: no newline at the end makes no empty line.
fn expected(content: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut at = 0;
    let lines = content.split_inclusive(|&byte| byte == b'\n').map(|line| {
        let position = at;
        at += line.len() as u64;
        (position, line.strip_suffix(b"\n").unwrap_or(line).to_vec())
    });
    lines.collect()
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(b'\n'), 1 => Just(b'\r'), 8 => any::<u8>()];
    let long = (0usize..700_000).prop_map(|len| [vec![b'x'; len], vec![b'\n']].concat());
    prop_oneof![
        8 => prop::collection::vec(byte, 0..200),
        1 => prop::collection::vec(long, 0..3).prop_map(|lines| lines.concat()),
        1 => (0usize..3, 900usize..3000).prop_map(|(len, lines)| [vec![b'y'; len], vec![b'\n']].concat().repeat(lines)),
    ]
}

/// What a file grows by, what a run then takes of it, and whether another process does that.
fn step() -> impl Strategy<Value = (Vec<u8>, Horizon, prop::sample::Index, bool)> {
    let byte = prop_oneof![1 => Just(b'\n'), 1 => Just(b'x')];
    let growth = (prop::bool::weighted(0.7), prop::collection::vec(byte, 0..8)).prop_map(|(ended, mut growth)| {
        if ended {
            growth.insert(0, b'\n');
        }
        growth
    });
    (growth, prop_oneof![Just(Now), Just(Endless)], any::<prop::sample::Index>(), any::<bool>())
}

proptest! {
    #[test]
    fn any_cutting_yields_each_line_once(content in content(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let scene = Scene::new(&content);
        let PartitionBounds { end, closed_at, .. } = only(scene.bounds().poll(Now, &Reached::nothing())).unwrap();
        prop_assert_eq!(end, content.len() as u64);
        let mut cuts: Vec<u64> = cuts.iter().map(|cut| cut.index(content.len() + 1) as u64).chain([0, end]).collect();
        cuts.sort_unstable();
        let whole = PartitionRange { closed_at, ..scene.range(0, end) };
        let ranges: Vec<_> = cuts.windows(2).map(|ends| PartitionRange { from: ends[0], to: ends[1], ..whole.clone() }).collect();

        let (mut in_order, mut reader) = (Lines::default(), scene.reader());
        for range in &ranges {
            let before = in_order.lines.len();
            reader.read(range, &mut in_order).unwrap();
            for (position, _) in &in_order.lines[before..] {
                prop_assert!((range.from..range.to).contains(position));
            }
        }
        prop_assert!(in_order.largest_chunk <= 512);
        prop_assert_eq!(&in_order.lines, &expected(&content));

        let mut replayed = Vec::new();
        for range in ranges.iter().rev() {
            let mut lines = Lines::default();
            reader.read(range, &mut lines).unwrap();
            replayed.splice(0..0, lines.lines);
        }
        prop_assert_eq!(&replayed, &in_order.lines);
    }

    /// Runs of both kinds, cut anywhere, ended anywhere, on a file that grows between them: every line counts once, as it
    /// is now, and the only reason for a refusal is a line that was counted and went on.
    #[test]
    fn runs_on_a_growing_file_count_each_line_once_or_refuse(steps in prop::collection::vec(step(), 1..12)) {
        let (scene, mut whole) = (Scene::new(b""), Vec::new());
        let mut process = scene.process(&Positions::new());
        let (mut lines, mut ranges) = (Vec::new(), Vec::new());
        for (growth, horizon, cut, restarted) in steps {
            scene.append(&growth);
            whole.extend_from_slice(&growth);
            if restarted {
                process = scene.process(&process.positions);
            }
            let goes_on = |(at, line): &(u64, String)| whole.get(*at as usize + line.len()).is_some_and(|&byte| byte != b'\n');
            if lines.last().is_some_and(goes_on) {
                assert_fatal(process.poll(horizon), &[scene.name(), "already counted"]);
                return Ok(());
            }
            let range = process.plan(horizon, |whole| cut.index(whole as usize + 1) as u64).unwrap();
            lines.extend(read(&mut *process.reader, &range).unwrap());
            ranges.push(range);
        }
        let range = process.plan(Now, |whole| whole).unwrap();
        lines.extend(read(&mut *process.reader, &range).unwrap());
        ranges.push(range);
        let expected: Vec<_> = expected(&whole).into_iter().map(|(at, line)| (at, String::from_utf8(line).unwrap())).collect();
        prop_assert_eq!(&lines, &expected);

        let mut reader = scene.reader();
        let replayed: Vec<_> = ranges.iter().flat_map(|range| read(&mut *reader, range).unwrap()).collect();
        prop_assert_eq!(replayed, lines);
    }

    #[test]
    fn the_endless_end_is_after_the_last_newline(chunks in prop::collection::vec(content(), 1..5)) {
        let (scene, mut whole) = (Scene::new(b""), Vec::new());
        let mut bounds = scene.bounds();
        for chunk in chunks {
            scene.append(&chunk);
            whole.extend_from_slice(&chunk);
            let last = whole.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at as u64 + 1);
            prop_assert_eq!(end(&mut *bounds, Endless), last);
            prop_assert_eq!(end(&mut *scene.bounds(), Endless), last);
        }
    }
}

#[test]
fn a_last_line_without_newline_counts_now_and_waits_when_endless() {
    let scene = Scene::new(b"one\ntwo");
    assert_eq!(end(&mut *scene.bounds(), Endless), 4);
    assert_eq!(end(&mut *scene.bounds(), Now), 7);
    let range = PartitionRange { closed_at: Some(7), ..scene.range(0, 7) };
    let lines = read(&mut *scene.reader(), &range).unwrap();
    assert_eq!(lines, [(0, "one".to_owned()), (4, "two".to_owned())]);
}

#[test]
fn a_carriage_return_stays_and_an_empty_line_is_a_record() {
    let scene = Scene::new(b"one\r\n\nthree\n");
    let lines = read(&mut *scene.reader(), &scene.range(0, 12)).unwrap();
    assert_eq!(lines, [(0, "one\r".to_owned()), (5, String::new()), (6, "three".to_owned())]);
}

/// Runs `then` in the process that has counted the unended last line of `content`, and in one that knows its positions.
fn after_a_counted_line(content: &[u8], counts: usize, then: impl Fn(&Scene, &mut Process)) {
    for restarted in [false, true] {
        let scene = Scene::new(content);
        let mut process = scene.process(&Positions::new());
        assert_eq!(process.run(Now).unwrap().len(), counts);
        if restarted {
            process = scene.process(&process.positions);
        }
        then(&scene, &mut process);
    }
}

#[test]
fn a_counted_line_without_newline_is_not_counted_again() {
    after_a_counted_line(b"a\nb", 2, |_, process| {
        for horizon in [Now, Endless, Now] {
            assert_eq!(process.run(horizon).unwrap(), [""; 0]);
        }
    });
}

#[test]
fn a_newline_after_a_counted_line_only_ends_it() {
    for horizon in [Now, Endless] {
        after_a_counted_line(b"a\nb", 2, |scene, process| {
            scene.append(b"\n");
            assert_eq!(process.run(horizon).unwrap(), [""; 0]);
            scene.append(b"c\n\nd\n");
            assert_eq!(process.run(horizon).unwrap(), ["c", "", "d"]);
        });
        after_a_counted_line(b"a\nb", 2, |scene, process| {
            scene.append(b"\nc\n");
            assert_eq!(process.run(horizon).unwrap(), ["c"]);
        });
    }
}

#[test]
fn growth_inside_a_counted_line_is_refused_also_after_a_restart() {
    let says = ["grew inside a line that was already counted", "offset 3"];
    for (horizon, growth) in [(Now, "x"), (Now, "x\n"), (Endless, "x"), (Endless, "x\n"), (Endless, "x\ny\n")] {
        after_a_counted_line(b"a\nb", 2, |scene, process| {
            scene.append(growth.as_bytes());
            assert_fatal(process.poll(horizon), &says);
            assert_fatal(scene.process(&process.positions).poll(horizon), &[scene.name()]);
        });
    }
}

#[test]
fn a_replay_of_a_counted_line_does_not_read_what_it_has_become() {
    for (growth, is_refused) in [("\nmore\n", false), ("o", true), ("o\n", true)] {
        let scene = Scene::new(b"one\ntw");
        let mut process = scene.process(&Positions::new());
        // Cut inside the line: it belongs to this range.
        let range = process.plan(Now, |whole| whole - 1).unwrap();
        let lines = read(&mut *process.reader, &range).unwrap();
        scene.append(growth.as_bytes());
        for mut reader in [process.reader, scene.reader()] {
            match (read(&mut *reader, &range), is_refused) {
                (Ok(replayed), false) => assert_eq!(replayed, lines),
                (replayed, _) => assert_fatal(replayed, &[scene.name(), "already counted", "offset 6"]),
            }
        }
    }
}

#[test]
fn a_line_that_was_seen_and_not_planned_may_grow() {
    let scene = Scene::new(b"one\ntw");
    let mut process = scene.process(&Positions::new());
    let range = process.plan(Now, |_| 4).unwrap();
    assert_eq!(read(&mut *process.reader, &range).unwrap(), [(0, "one".to_owned())]);
    scene.append(b"o\n");
    assert_eq!(read(&mut *scene.reader(), &range).unwrap().len(), 1, "replayed");
    assert_eq!(scene.process(&process.positions).run(Endless).unwrap(), ["two"]);
    assert_eq!(process.run(Now).unwrap(), ["two"]);
}

#[test]
fn a_plan_cut_inside_a_line_is_no_counted_line() {
    let scene = Scene::new(b"one\ntwo\nthree\n");
    let mut process = scene.process(&Positions::new());
    let range = process.plan(Endless, |_| 6).unwrap();
    assert_eq!(read(&mut *process.reader, &range).unwrap().len(), 2);
    for horizon in [Endless, Now] {
        assert_eq!(scene.process(&process.positions).run(horizon).unwrap(), ["three"]);
    }
}

#[test]
fn a_line_that_another_leader_has_counted_is_looked_for_in_an_unchanged_file() {
    let scene = Scene::new(b"a\nb");
    let (mut here, mut there) = (scene.process(&Positions::new()), scene.process(&Positions::new()));
    assert_eq!(here.poll(Endless).unwrap().end, 2);
    assert_eq!(there.run(Now).unwrap().len(), 2);
    here.positions = there.positions;
    assert_eq!(here.run(Endless).unwrap(), [""; 0]);
}

#[test]
fn a_counted_line_that_lost_bytes_is_refused() {
    for len in [2, 5] {
        let scene = Scene::new(b"one\ntwo");
        let mut process = scene.process(&Positions::new());
        let range = process.plan(Now, |whole| whole - 2).unwrap();
        OpenOptions::new().write(true).open(&scene.path).unwrap().set_len(len).unwrap();
        assert_fatal(read(&mut *process.reader, &range), &[scene.name(), "truncated"]);
        for horizon in [Endless, Now] {
            assert_fatal(scene.process(&process.positions).poll(horizon), &[scene.name(), "truncated"]);
        }
    }
}

#[test]
fn a_line_that_is_read_without_newline_and_was_not_closed_is_refused() {
    let scene = Scene::new(b"one\ntwo\n");
    let range = scene.range(0, 5);
    OpenOptions::new().write(true).open(&scene.path).unwrap().set_len(6).unwrap();
    assert_fatal(read(&mut *scene.reader(), &range), &[scene.name(), "truncated"]);
}

#[test]
fn a_truncated_file_is_refused() {
    let scene = Scene::new(b"one\ntwo\n");
    let (mut bounds, mut reader) = (scene.bounds(), scene.reader());
    let range = scene.range(0, 8);
    end(&mut *bounds, Endless);
    OpenOptions::new().write(true).open(&scene.path).unwrap().set_len(4).unwrap();
    assert_fatal(bounds.poll(Endless, &Reached::nothing()), &[scene.name(), "truncated", "4 bytes"]);
    assert_fatal(read(&mut *reader, &range), &[scene.name(), "truncated"]);
}

#[test]
fn a_replaced_file_is_refused_also_under_an_open_reader() {
    let scene = Scene::new(b"one\ntwo\n");
    let (mut bounds, mut reader) = (scene.bounds(), scene.reader());
    let range = scene.range(0, 8);
    end(&mut *bounds, Endless);
    read(&mut *reader, &range).unwrap();
    let other = scene.path.with_extension("new");
    fs::write(&other, "one\ntwo\nmore\n").unwrap();
    fs::rename(other, &scene.path).unwrap();
    assert_fatal(bounds.poll(Endless, &Reached::nothing()), &[scene.name(), "replaced"]);
    assert_fatal(read(&mut *reader, &range), &[scene.name(), "replaced", &range.incarnation]);
    assert_fatal(read(&mut *scene.reader(), &range), &["replaced"]);
}

#[test]
fn a_file_rewritten_in_place_is_refused() {
    let scene = Scene::new(b"one\ntwo\n");
    let mut bounds = scene.bounds();
    end(&mut *bounds, Endless);
    fs::write(&scene.path, "one\nTWO\nand more\n").unwrap();
    assert_fatal(bounds.poll(Endless, &Reached::nothing()), &[scene.name(), "rewritten in place"]);
}

#[test]
fn a_line_beyond_the_limit_is_refused_with_its_offset() {
    let content = [b"short\n".to_vec(), vec![b'x'; 1001], b"\n".to_vec()].concat();
    let scene = Scene::with(&content, |files| files.max_line_bytes(1000));
    assert_fatal(read(&mut *scene.reader(), &scene.range(0, 1008)), &[scene.name(), "offset 6", "1000 bytes"]);
    let scene = Scene::with(&content, |files| files.max_line_bytes(1001));
    assert_eq!(read(&mut *scene.reader(), &scene.range(0, 1008)).unwrap().len(), 2);
}

#[test]
fn a_cancelled_read_stops() {
    let scene = Scene::new(b"one\n");
    let mut lines = Lines { cancelled: true, ..Lines::default() };
    let failure = scene.reader().read(&scene.range(0, 4), &mut lines).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Superseded);
}

#[test]
fn paths_that_are_no_readable_file_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let poll = |paths: &[&Path]| {
        files(paths.iter().copied()).source().bounds().and_then(|mut it| it.poll(Now, &Reached::nothing()))
    };
    fs::write(path("a"), "x\n").unwrap();
    assert_fatal(poll(&[&path("missing")]), &["missing does not exist"]);
    assert_fatal(poll(&[&path("a"), &path("a")]), &["given twice"]);
    assert_fatal(poll(&[folder.path()]), &["is a folder"]);
    assert_fatal(poll(&[]), &["no files"]);
    fs::hard_link(path("a"), path("b")).unwrap();
    assert_fatal(poll(&[&path("a"), &path("b")]), &["one and the same file"]);
}
