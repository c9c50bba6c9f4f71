//! The README's first command: the example `word_count`, killed on the way, gone on with, and given what it must refuse.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tine_tests::process::{Program, Running, Stream, example_path};
use tine_tests::{produce, report};

/// A machine that compiles at the same time is slow.
const DEADLINE: Duration = Duration::from_secs(120);

fn word_count() -> Program {
    let path = example_path("word_count");
    assert!(
        path.is_file(),
        "{} is missing: cargo build --release -p tine --examples --all-features (tests/run does it)",
        path.display()
    );
    Program::at(path)
}

/// Files and a database of a job that is run again and again.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        Desk { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Counts the files into this desk's database, without kills unless `crashes` says so.
    fn count(&self, crashes: u32, paths: &[&Path]) -> Running {
        let program = word_count().arg("--database").arg(self.path("words.db"));
        program.args(["--crashes", &crashes.to_string()]).args(paths).start().unwrap()
    }

    /// Counts and returns the last line.
    fn counts(&self, paths: &[&Path]) -> String {
        let mut run = self.count(0, paths);
        let status = run.wait(DEADLINE).unwrap();
        assert!(status.success(), "{:?}", run.lines());
        run.lines_of(Stream::Out).last().unwrap().clone()
    }

    /// Counts, which must be refused; returns the error.
    fn refuses(&self, paths: &[&Path]) -> String {
        let mut run = self.count(0, paths);
        let status = run.wait(DEADLINE).unwrap();
        let lines = run.lines_of(Stream::Err);
        assert_eq!(status.code(), Some(1), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("panicked")), "{lines:?}");
        let error = lines.iter().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{lines:?}"));
        report(format_args!("  {error}"));
        error.clone()
    }
}

#[test]
fn the_first_command_survives_three_kills_and_ends_with_exact() {
    let mut run = word_count().start().unwrap();
    let status = run.wait(DEADLINE).unwrap();
    assert_eq!(status.code(), Some(0), "{:?}", run.lines());
    let out = run.lines_of(Stream::Out);
    assert_eq!(out.len(), 11, "ten words and the verdict: {out:?}");
    let last = out.last().unwrap();
    assert!(last.starts_with("exact: 6000000 words, ") && last.ends_with(" distinct, 3 kills survived"), "{last}");
    let kills: Vec<String> = run.lines_of(Stream::Err).into_iter().filter(|line| line.contains("SIGKILL in")).collect();
    let phase = |line: &String| line.split(" in ").nth(1).unwrap().split(" of ").next().unwrap().to_owned();
    let phases: std::collections::BTreeSet<String> = kills.iter().map(phase).collect();
    assert_eq!((kills.len(), phases.len()), (3, 3), "each kill in another phase: {kills:?}");
}

#[test]
fn ten_kills_on_two_given_files_are_survived() {
    let desk = Desk::new();
    let (first, second) = (desk.path("first.txt"), desk.path("second.txt"));
    fs::write(&first, produce::text(1, 200_000, 10, 5_000).join("\n")).unwrap();
    fs::write(&second, produce::text(2, 200_000, 10, 5_000).join("\n") + "\n").unwrap();
    let mut run = desk.count(10, &[&first, &second]);
    assert!(run.wait(DEADLINE).unwrap().success(), "{:?}", run.lines());
    let last = run.lines_of(Stream::Out).last().unwrap().clone();
    assert!(last.starts_with("exact: 4000000 words, ") && last.ends_with(" 10 kills survived"), "{last}");
}

#[test]
fn a_file_that_grows_between_runs_goes_on() {
    let desk = Desk::new();
    let path = desk.path("growing.txt");
    fs::write(&path, "one two\ntwo\n").unwrap();
    assert!(desk.counts(&[&path]).starts_with("exact: 3 words, 2 distinct"));
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"two three\nlast line without newline").unwrap();
    assert!(desk.counts(&[&path]).starts_with("exact: 9 words, 7 distinct"));
    // The newline that was missing, and more.
    file.write_all(b"\nfour\n").unwrap();
    assert!(desk.counts(&[&path]).starts_with("exact: 10 words, 8 distinct"));
    assert!(desk.counts(&[&path]).starts_with("exact: 10 words, 8 distinct"));
}

#[test]
fn a_line_that_was_counted_without_its_newline_must_not_grow() {
    let desk = Desk::new();
    let path = desk.path("growing.txt");
    fs::write(&path, "one hel").unwrap();
    assert!(desk.counts(&[&path]).starts_with("exact: 2 words"));
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"lo\n").unwrap();
    let error = desk.refuses(&[&path]);
    assert!(error.contains("growing.txt") && error.contains("grew inside a line"), "{error}");
}

#[test]
fn a_truncated_and_a_replaced_file_are_refused() {
    let desk = Desk::new();
    let path = desk.path("text.txt");
    fs::write(&path, "one two three\n").unwrap();
    desk.counts(&[&path]);
    File::options().write(true).open(&path).unwrap().set_len(4).unwrap();
    let error = desk.refuses(&[&path]);
    assert!(error.contains("text.txt") && error.contains("truncated"), "{error}");
    // Another file of the same length under the same name.
    fs::write(desk.path("other.txt"), "six seven ten\n").unwrap();
    fs::rename(desk.path("other.txt"), &path).unwrap();
    let error = desk.refuses(&[&path]);
    assert!(error.contains("text.txt") && (error.contains("replaced") || error.contains("made again")), "{error}");
}

#[test]
fn a_missing_file_and_a_folder_are_named_and_help_helps() {
    let desk = Desk::new();
    let missing = desk.path("nowhere.txt");
    let error = desk.refuses(&[&missing]);
    assert!(["cannot start", "nowhere.txt", "does not exist"].iter().all(|word| error.contains(word)), "{error}");
    let error = desk.refuses(&[desk.folder.path()]);
    assert!(error.contains("folder"), "{error}");
    for (name, flags) in
        [("word_count", ["--database", "--crashes"]), ("kafka_to_postgres", ["--brokers", "--until-end"])]
    {
        let mut help = Program::at(example_path(name)).arg("--help").start().unwrap();
        assert!(help.wait(DEADLINE).unwrap().success());
        let text = help.lines_of(Stream::Out).join("\n");
        assert!(flags.iter().all(|flag| text.contains(flag)), "{text}");
    }
    let mut wrong = word_count().args(["--crashes", "many"]).start().unwrap();
    assert_eq!(wrong.wait(DEADLINE).unwrap().code(), Some(2));
}

#[test]
fn r6_a_stopped_count_goes_on_from_there() {
    let desk = Desk::new();
    let path = desk.path("long.txt");
    fs::write(&path, produce::text(5, 400_000, 10, 5_000).join("\n") + "\n").unwrap();
    let mut stopped = 0;
    for _ in 0..3 {
        let mut run = desk.count(0, &[&path]);
        // Its ledger is there: it has begun.
        tine_tests::wait_until(DEADLINE, || desk.path("words.db").exists());
        if run.interrupt().is_ok() && run.wait(DEADLINE).unwrap().success() {
            stopped += run.lines().iter().filter(|line| line.starts_with("stopped; ")).count();
        }
    }
    assert!(stopped > 0, "no run was stopped on the way");
    assert!(desk.counts(&[&path]).starts_with("exact: 4000000 words, "));
}
