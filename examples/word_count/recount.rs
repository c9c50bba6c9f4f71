//! Counts again, by a way that shares no parser, hash or reader with tine, and compares.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

/// Writes a text of some 40 MB: 6 million words, 50,000 distinct, a few of them very frequent.
pub(crate) fn generate(folder: &Path) -> anyhow::Result<PathBuf> {
    let (path, mut text, mut random) = (folder.join("text.txt"), String::new(), 88_172_645_463_325_252_u64);
    for word in 0..6_000_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // A quotient of two uniform numbers has a long tail, as words have.
        let rank = (50_000 / (random % 50_000 + 1)) * (1 + (random >> 32) % 50) % 50_000;
        write!(text, "word{rank}").context("a string takes everything")?;
        text.push(if word % 12 == 11 { '\n' } else { ' ' });
    }
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Compares the table with a recount of the files; says how it went, and what differs.
pub(crate) async fn compare(database: &Path, paths: &[PathBuf], kills: u32) -> anyhow::Result<ExitCode> {
    let expected = recount(paths)?;
    let found = read_table(database).await.with_context(|| format!("cannot read {}", database.display()))?;
    let mut most: Vec<_> = found.iter().collect();
    most.sort_by_key(|(word, n)| (-**n, word.as_str()));
    for (word, n) in most.iter().take(10) {
        println!("{n:>10} {word}");
    }
    let words: i64 = expected.values().sum();
    let keys: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differing: Vec<_> = keys.into_iter().filter(|word| expected.get(*word) != found.get(*word)).collect();
    if differing.is_empty() {
        println!("exact: {words} words, {} distinct, {kills} kills survived", expected.len());
        return Ok(ExitCode::SUCCESS);
    }
    for word in differing.iter().take(10) {
        println!("{word:?}: counted {:?}, expected {:?}", found.get(*word), expected.get(*word));
    }
    println!("NOT exact: {} of {} words differ", differing.len(), expected.len());
    Ok(ExitCode::FAILURE)
}

fn recount(paths: &[PathBuf]) -> anyhow::Result<BTreeMap<String, i64>> {
    let mut counts = BTreeMap::new();
    for path in paths {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut word = String::new();
        for character in text.chars().chain([' ']) {
            if !character.is_whitespace() {
                word.push(character);
            } else if !word.is_empty() {
                match counts.get_mut(&word) {
                    Some(n) => *n += 1,
                    None => drop(counts.insert(word.clone(), 1)),
                }
                word.clear();
            }
        }
    }
    Ok(counts)
}

async fn read_table(database: &Path) -> anyhow::Result<BTreeMap<String, i64>> {
    let options = SqliteConnectOptions::new().filename(database).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let rows = sqlx::query("SELECT word, n FROM word_counts").fetch_all(&mut connection).await?;
    rows.iter().map(|row| Ok((row.try_get("word")?, row.try_get("n")?))).collect()
}
