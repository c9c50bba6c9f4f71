//! The most frequent words of the last seconds, on the tuple engine alone: no database, no batches, at least once.
//!
//! ```text
//! cargo run --release --example rolling_words -- 10
//! ```
//!
//! A spout makes up lines for so many seconds; a closure splits them; counters, each with its share of the words, count in slots of a
//! second, keep the last five, and emit their best at every tick; one last bolt puts those together and prints them.

#![allow(clippy::print_stdout, reason = "a program that prints what it finds")]

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use tine::core::{
    component::{Basic, BasicBolt, Emit, Next, Spout, SpoutCollector},
    failure::Failure,
    topology::Topology,
};

const SLOT: Duration = Duration::from_secs(1);
const SLOTS: usize = 5;
const BEST: usize = 5;

/// Some words are much more frequent than others, and which ones changes all the time.
struct Lines {
    began: Instant,
    until: Duration,
    number: u64,
    again: Vec<String>,
}

impl Spout for Lines {
    type Out = String;
    type Id = String;

    fn next(&mut self, out: &mut SpoutCollector<String, String>) -> Result<Next, Failure> {
        let age = self.began.elapsed();
        let line = match self.again.pop() {
            Some(line) => line,
            None if age < self.until => {
                self.number += 1;
                let rare = self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
                format!("the word{} word{} number{rare}", age.as_secs(), rare % 10)
            }
            // What is under way may still fail, and then comes again.
            None if out.pending() > 0 => return Ok(Next::Idle),
            None => return Ok(Next::Done),
        };
        out.emit(line.clone(), line);
        Ok(Next::More)
    }

    fn fail(&mut self, line: String, _: Failure) {
        self.again.push(line);
    }
}

/// A word with its count in the window.
type Ranked = (String, u64);

/// Counts its share of the words in the last slots.
#[derive(Default)]
struct RollingCount {
    slots: VecDeque<HashMap<String, u64>>,
}

impl BasicBolt for RollingCount {
    type In = String;
    type Out = Vec<Ranked>;

    fn execute(&mut self, word: String, _: &mut Emit<'_, Vec<Ranked>>) -> Result<(), Failure> {
        if self.slots.is_empty() {
            self.slots.push_front(HashMap::new());
        }
        *self.slots[0].entry(word).or_default() += 1;
        Ok(())
    }

    fn tick(&mut self, out: &mut Emit<'_, Vec<Ranked>>) -> Result<(), Failure> {
        let mut window: HashMap<&str, u64> = HashMap::new();
        for (word, count) in self.slots.iter().flatten() {
            *window.entry(word).or_default() += count;
        }
        let words = window.into_iter().map(|(word, count)| (word.to_owned(), count)).collect();
        out.emit(best(words));
        self.slots.push_front(HashMap::new());
        self.slots.truncate(SLOTS);
        Ok(())
    }
}

fn best(mut words: Vec<Ranked>) -> Vec<Ranked> {
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    words.truncate(BEST);
    words
}

/// Puts the best of all counters together.
#[derive(Default)]
struct Ranking {
    words: BTreeMap<String, u64>,
}

impl BasicBolt for Ranking {
    type In = Vec<Ranked>;
    type Out = ();

    fn execute(&mut self, words: Vec<Ranked>, _: &mut Emit<'_, ()>) -> Result<(), Failure> {
        self.words.extend(words);
        Ok(())
    }

    fn tick(&mut self, _: &mut Emit<'_, ()>) -> Result<(), Failure> {
        let words = best(std::mem::take(&mut self.words).into_iter().collect());
        let shown: Vec<_> = words.iter().map(|(word, count)| format!("{word} {count}")).collect();
        println!("{}", shown.join("  "));
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).unwrap_or_else(|| "5".to_owned());
    let Ok(until) = seconds.parse().map(Duration::from_secs) else {
        println!("usage: rolling_words [SECONDS]    (5 if none are named; {seconds:?} is no number of seconds)");
        std::process::exit(if seconds == "--help" { 0 } else { 2 });
    };
    let topology = Topology::new("rolling_words");
    let lines = topology
        .spout("lines", move || Lines { began: Instant::now(), until, number: 0, again: Vec::new() })
        .max_pending(1000);
    let words = topology
        .each("split", |line: String, out: &mut Emit<'_, String>| {
            line.split(' ').for_each(|word| out.emit(word.to_owned()));
            Ok(())
        })
        .shuffle(&lines);
    let counts = topology
        .bolt("count", || Basic(RollingCount::default()))
        .fields(&words, |word| word.as_str())
        .tasks(4)
        .executors(2)
        .tick_every(SLOT);
    topology.bolt("rank", || Basic(Ranking::default())).global(&counts).tick_every(SLOT);
    let running = topology.start()?;
    running.drain_on_signals()?;
    let summary = running.wait()?;
    println!("{} lines, each worked off completely", summary.acked());
    Ok(())
}
