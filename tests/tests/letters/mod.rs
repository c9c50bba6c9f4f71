//! Words of three files, counted; their last letters, summed; and whether those are even or odd: stages after stages, three tables.

use std::path::Path;

use tine::{Table, Topology, files};
use tine_tests::count::Counts;

/// Keeps the tables `words`, `endings` and `parities` where `table` says.
pub(crate) fn topology(folder: &Path, table: impl Fn(&str) -> Table) -> Topology {
    let topology = Topology::new("stages");
    let words = topology
        .source(files([folder.join("a.txt"), folder.join("b.txt"), folder.join("c.txt")]).text())
        .stage(|lines| lines.flat_map(|line| line.split_ascii_whitespace()).group_by(|word| word).count());
    words.clone().persist(table("words").key("word").value("n"));
    let endings = words.stage(|words| words.group_by(|(word, _)| ending(word)).sum(|(_, n)| *n));
    endings.clone().persist(table("endings").key("ending").value("n"));
    endings
        .stage(|endings| endings.group_by(|(ending, _)| parity(ending)).sum(|(_, n)| *n))
        .persist(table("parities").key("parity").value("n"));
    topology
}

/// The last letter of a word.
pub(crate) fn ending(word: &str) -> &str {
    &word[word.len() - 1..]
}

/// Of a letter.
pub(crate) fn parity(ending: &str) -> &'static str {
    if ending.as_bytes()[0].is_multiple_of(2) { "even" } else { "odd" }
}

/// What counts of words come to by group.
pub(crate) fn regrouped(words: &Counts, group: impl Fn(&str) -> &str) -> Counts {
    let mut counts = Counts::new();
    words.iter().for_each(|(word, n)| *counts.entry(group(word).to_owned()).or_default() += n);
    counts
}
