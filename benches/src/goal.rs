//! What a benchmark is to reach, printed beside what it reached.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use crate::report;
use crate::spread::Spread;

/// A bound that a figure's median is to keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn is_kept_by(self, figure: f64) -> bool {
        match self {
            Bound::AtLeast(least) => figure >= least,
            Bound::AtMost(most) => figure <= most,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtLeast(least) => write!(f, ">= {least}"),
            Bound::AtMost(most) => write!(f, "<= {most}"),
        }
    }
}

/// A goal, and the runs' figure; `None` when there is none.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    benchmark: &'static str,
    goal: String,
    bound: Bound,
    figure: Option<Spread>,
    met: Option<bool>,
}

impl Goal {
    pub(crate) fn new(benchmark: &'static str, goal: impl Into<String>, bound: Bound, figure: Option<Spread>) -> Goal {
        let met = figure.map(|spread| bound.is_kept_by(spread.median));
        Goal { benchmark, goal: goal.into(), bound, figure, met }
    }

    /// One line, with as many decimals as the bound's size asks for.
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            return report::print_json(self);
        }
        report::print(format_args!("{self}"))
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Bound::AtLeast(size) | Bound::AtMost(size)) = self.bound;
        let decimals = if size < 10.0 { 2 } else { 0 };
        let verdict = match self.met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "not measured",
        };
        write!(f, "goal: {} {}: {}  {verdict}", self.goal, self.bound, Spread::show(self.figure, decimals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_decides() {
        let figure = Spread::of([0.9, 0.96, 2.0]);
        let said = |bound| Goal::new("b", "tine to hand", bound, figure).to_string();
        assert_eq!(said(Bound::AtLeast(0.95)), "goal: tine to hand >= 0.95: 0.96 (0.90-2.00)  met");
        assert_eq!(said(Bound::AtMost(0.95)), "goal: tine to hand <= 0.95: 0.96 (0.90-2.00)  NOT MET");
        assert_eq!(Goal::new("b", "x", Bound::AtMost(256.0), None).to_string(), "goal: x <= 256: -  not measured");
    }
}
