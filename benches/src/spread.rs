//! Median, smallest and largest of a few runs: with so few, nothing finer would be honest.

use serde::Serialize;

/// What the runs said about one figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `median (min-max)`.
    pub(crate) fn show(spread: Option<Spread>, decimals: usize) -> String {
        spread.map_or_else(
            || "-".to_owned(),
            |Spread { median, min, max }| format!("{median:.decimals$} ({min:.decimals$}-{max:.decimals$})"),
        )
    }

    /// `None` when there is nothing to summarise.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([9.0, 1.0, 3.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of([]), None);
    }
}
