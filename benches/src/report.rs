//! Where output goes: results to standard output, progress and errors to standard error.

use std::fmt;
use std::io::{self, Write};

use anyhow::Result;

/// One line of results.
pub(crate) fn print(line: fmt::Arguments<'_>) -> Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// One line of progress; a closed standard error stops nothing.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The benchmarks with what each compares.
pub(crate) fn list(benchmarks: &[(&str, &str)]) -> Result<()> {
    benchmarks.iter().try_for_each(|(name, about)| print(format_args!("{name:<20} {about}")))
}
