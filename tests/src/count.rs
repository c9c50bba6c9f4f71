//! The independent answer: what a table must hold, counted in the plainest way.
//!
//! Nothing here comes from tine: no parser, no hash, no reader of its own. A mistake would have to be made twice.

use std::collections::{BTreeMap, HashMap};

/// How often each key was seen.
pub type Counts = HashMap<String, i64>;

/// Differences that are listed; there may be more.
const LISTED_MAX: usize = 10;

/// Counts whitespace-separated words.
pub fn words<L: AsRef<str>>(lines: impl IntoIterator<Item = L>) -> Counts {
    let mut counts = Counts::new();
    for line in lines {
        for word in line.as_ref().split_whitespace() {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Counts whole values.
pub fn values<V: AsRef<str>>(values: impl IntoIterator<Item = V>) -> Counts {
    let mut counts = Counts::new();
    for value in values {
        *counts.entry(value.as_ref().to_owned()).or_default() += 1;
    }
    counts
}

/// Adds `more` to `counts`.
pub fn add(counts: &mut Counts, more: &Counts) {
    for (key, n) in more {
        *counts.entry(key.clone()).or_default() += n;
    }
}

/// What differs, in words: `None` when both are equal.
pub fn difference(expected: &Counts, actual: &Counts) -> Option<String> {
    let mut wrong = BTreeMap::new();
    for (key, n) in expected {
        let found = actual.get(key);
        if found != Some(n) {
            wrong.insert(
                key,
                format!("{key:?}: expected {n}, found {}", found.map_or("none".to_owned(), i64::to_string)),
            );
        }
    }
    for (key, n) in actual.iter().filter(|(key, _)| !expected.contains_key(*key)) {
        wrong.insert(key, format!("{key:?}: expected none, found {n}"));
    }
    if wrong.is_empty() {
        return None;
    }
    let (want, have): (i64, i64) = (expected.values().sum(), actual.values().sum());
    let listed: Vec<String> = wrong.values().take(LISTED_MAX).cloned().collect();
    Some(format!("{} keys differ, sum {want} expected and {have} found: {}", wrong.len(), listed.join("; ")))
}

/// Panics with [`difference`] when there is one.
#[track_caller]
pub fn assert_equal(expected: &Counts, actual: &Counts) {
    if let Some(difference) = difference(expected, actual) {
        panic!("{difference}");
    }
}

/// Reads a two-column table (`text`, `bigint`) over a connection of its own.
pub async fn table(url: &str, query: &'static str) -> anyhow::Result<Counts> {
    use sqlx::Connection;
    let mut connection = sqlx::PgConnection::connect(url).await?;
    let rows: Vec<(String, i64)> = sqlx::query_as(query).fetch_all(&mut connection).await?;
    connection.close().await?;
    let read = rows.len();
    let counts: Counts = rows.into_iter().collect();
    anyhow::ensure!(counts.len() == read, "{query} returned {} keys twice", read - counts.len());
    Ok(counts)
}

/// Reads one number (`bigint`) over a connection of its own.
pub async fn number(url: &str, query: &'static str) -> anyhow::Result<i64> {
    use sqlx::Connection;
    let mut connection = sqlx::PgConnection::connect(url).await?;
    let number = sqlx::query_scalar(query).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(number)
}

/// Runs statements over a connection of its own.
pub async fn execute(url: &str, statements: &str) -> anyhow::Result<()> {
    use sqlx::Connection;
    let mut connection = sqlx::PgConnection::connect(url).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_values_are_counted() {
        assert_eq!(words(["a b  a", "\tb\u{a0}c\n"]), HashMap::from([("a", 2), ("b", 2), ("c", 1)].map(owned)));
        assert_eq!(values(["a b", "a b", ""]), HashMap::from([("a b", 2), ("", 1)].map(owned)));
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let expected = HashMap::from([("missing", 1), ("wrong", 2), ("right", 3)].map(owned));
        let actual = HashMap::from([("extra", 1), ("wrong", 3), ("right", 3)].map(owned));
        let told = difference(&expected, &actual).unwrap();
        assert!(told.starts_with("3 keys differ, sum 6 expected and 7 found"), "{told}");
        assert!(["missing", "wrong", "extra"].iter().all(|key| told.contains(key)) && !told.contains("right"));
        assert_eq!(difference(&expected, &expected), None);
    }

    fn owned((key, n): (&str, i64)) -> (String, i64) {
        (key.to_owned(), n)
    }
}
