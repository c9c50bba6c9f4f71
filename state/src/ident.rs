//! Names that may appear in SQL text: checked once, quoted always.

use std::fmt;

/// A table, column or schema name: `[a-z_][a-z0-9_]{0,62}`. Everything else in a statement is a bound value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ident(String);

/// A name that is not an [`Ident`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a valid name: use 1 to 63 lower-case letters, digits and underscores, not starting with a digit"
)]
pub struct IdentError {
    /// The name as given.
    pub name: String,
}

impl Ident {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Ident, IdentError> {
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        let holds = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if starts && holds && name.len() <= 63 {
            Ok(Ident(name.to_string()))
        } else {
            Err(IdentError { name: name.to_string() })
        }
    }

    /// The bare name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Writes the name in double quotes, as SQL wants it.
impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d13_only_plain_names_pass() {
        for good in ["word_counts", "_x", "a1"] {
            assert_eq!(Ident::new(good).unwrap().to_string(), format!("\"{good}\""));
        }
        for bad in ["", "1a", "Word", "a b", "a\"b", "a;drop table x", "ä", &"a".repeat(64)] {
            assert!(Ident::new(bad).is_err(), "{bad:?}");
        }
    }
}
