//! Failing cases, kept beside the test that met them, and run first from then on.
//!
//! The file lies beside the test's source, `tests/counts.rs` → `tests/counts.sim-regressions`, and is meant to be committed.
//! One line is one case, as in a replay line; what stands after `#` is for people. Every check of the source file runs all
//! of them: a case is cheap.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{faults::FaultPlan, report::Report};

/// What a new file begins with.
const HEADER: &str = "\
# Cases that a simulation in the test beside this file has broken: seed and faults. They run first, before new ones are
# drawn. Commit this file, so that whoever runs the test runs them.
";

/// Where failing cases are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Regressions {
    /// Beside the source of the test.
    #[default]
    BesideTheTest,
    /// In this file.
    At(PathBuf),
    /// Nowhere.
    Forgotten,
}

impl Regressions {
    /// The file for a test of this source, as the compiler named it.
    pub(crate) fn file(&self, source: &str) -> Option<PathBuf> {
        match self {
            Regressions::BesideTheTest => Some(found(source)?.with_extension("sim-regressions")),
            Regressions::At(file) => Some(file.clone()),
            Regressions::Forgotten => None,
        }
    }
}

/// The compiler names sources as seen from the workspace, and tests run in their package: looks upwards.
fn found(source: &str) -> Option<PathBuf> {
    let here = env::current_dir().ok()?;
    here.ancestors().map(|folder| folder.join(source)).find(|path| path.is_file())
}

/// The kept cases; none if there is no file. An error names the line that cannot be read.
pub(crate) fn kept(file: &Path) -> Result<Vec<(u64, FaultPlan)>, String> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    let cases = text.lines().enumerate().filter_map(|(number, line)| {
        let case = line.split('#').next().unwrap_or_default().trim();
        let wrong =
            || format!("{} line {}: {case:?} is no case: it looks like '7/crash:0@120~40'", file.display(), number + 1);
        (!case.is_empty()).then(|| parse_case(case).ok_or_else(wrong))
    });
    cases.collect()
}

/// A case as replay lines have it: `SEED/FAULTS`.
pub(crate) fn parse_case(case: &str) -> Option<(u64, FaultPlan)> {
    let (seed, plan) = case.split_once('/')?;
    Some((seed.parse().ok()?, plan.parse().ok()?))
}

/// Keeps a case, unless it is kept already.
pub(crate) fn keep(file: &Path, report: &Report, test: &str) -> io::Result<()> {
    let case = report.case();
    let before = fs::read_to_string(file).unwrap_or_default();
    if before.lines().any(|line| line.split('#').next().unwrap_or_default().trim() == case) {
        return Ok(());
    }
    let mut kept = fs::OpenOptions::new().create(true).append(true).open(file)?;
    let what = report.broken.as_ref().map_or("", |broken| broken.invariant);
    let header = if before.is_empty() { HEADER } else { "" };
    // In one piece: several tests of a file may fail at once.
    kept.write_all(format!("{header}{case}  # {test}: {what}\n").as_bytes())
}
