//! Where output goes: results to standard output, progress and errors to standard error.

use std::fmt;
use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

/// Flags that every benchmark has.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Reporting {
    /// JSON objects on standard output instead of tables, one a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Runs of each; they take turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
}

/// One line of results.
pub(crate) fn print(line: fmt::Arguments<'_>) -> Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// One JSON object of results.
pub(crate) fn print_json(line: &impl Serialize) -> Result<()> {
    print(format_args!("{}", serde_json::to_string(line)?))
}

/// One line of progress; a closed standard error stops nothing.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The benchmarks with what each compares.
pub(crate) fn list(benchmarks: &[(&str, &str)]) -> Result<()> {
    benchmarks.iter().try_for_each(|(name, about)| print(format_args!("{name:<20} {about}")))
}

/// A table whose columns are as wide as what stands in them; the first is aligned left, the others right.
#[derive(Debug)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn with_head(head: &[&str]) -> Table {
        Table(vec![head.iter().map(|cell| (*cell).to_owned()).collect()])
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }

    pub(crate) fn print(&self) -> Result<()> {
        self.0.iter().try_for_each(|row| print(format_args!("{}", self.line(row).trim_end())))
    }

    fn line(&self, row: &[String]) -> String {
        let aligned = row.iter().enumerate().map(|(column, cell)| {
            let width = self.0.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        aligned.collect::<Vec<_>>().join("  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::with_head(&["system", "us"]);
        table.row(vec!["a".into(), "123".into()]);
        assert_eq!(table.line(&table.0[0]), "system   us");
        assert_eq!(table.line(&table.0[1]), "a       123");
    }
}
