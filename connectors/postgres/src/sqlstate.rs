//! What an SQLSTATE means for the transaction that met it: one explicit table.
//!
//! The codes are those of the manual's appendix "PostgreSQL Error Codes". What is not listed is taken for a hiccup
//! before `COMMIT` (the transaction is rolled back and tried again) and for an unknown outcome at `COMMIT`.

/// What a server's error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The transaction failed by circumstance: deadlock, serialization, timeout, cancelled.
    Retry,
    /// A lock was not granted in time.
    Locked,
    /// The connection has ended or is about to.
    Lost,
    /// Disk, memory or connections are used up.
    Resources,
    /// A standby, or a server set to read only.
    ReadOnly,
    /// A value that no column can hold: a record is to blame.
    Value,
    /// A value larger than an index or a protocol limit allows.
    TooLong,
    /// A sum that no longer fits.
    Overflow,
    /// A constraint of the user's table.
    Constraint,
    /// A right is missing.
    Rights,
    /// The login was refused, or the database does not exist.
    Login,
    /// Prepared statements are missing or somebody else's: a pooler stands between and changes the connection.
    Pooled,
    /// The server disagrees with the statement or its tables: going on cannot help.
    Refused,
    /// Not in the table.
    Unlisted,
}

/// Looks a code up.
pub(crate) fn meaning(code: &str) -> Meaning {
    match code {
        "55P03" => return Meaning::Locked,
        "25006" => return Meaning::ReadOnly,
        "25P03" | "57P01" | "57P02" | "57P03" | "57P05" => return Meaning::Lost,
        "25P01" | "25P02" | "57014" | "55006" | "XX000" => return Meaning::Retry,
        "22021" | "22P05" | "22001" => return Meaning::Value,
        "22003" => return Meaning::Overflow,
        "42501" => return Meaning::Rights,
        "3D000" | "57P04" => return Meaning::Login,
        "54000" => return Meaning::TooLong,
        "26000" | "42P05" => return Meaning::Pooled,
        _ => {}
    }
    match code.get(..2).unwrap_or("") {
        "08" => Meaning::Lost,
        "40" => Meaning::Retry,
        "53" => Meaning::Resources,
        "58" => Meaning::Resources,
        "23" => Meaning::Constraint,
        "28" => Meaning::Login,
        "0A" | "21" | "22" | "3F" | "42" | "44" | "54" | "P0" | "XX" => Meaning::Refused,
        _ => Meaning::Unlisted,
    }
}

/// Whether an error in answer to `COMMIT` proves that nothing was committed: only where the server raises it before
/// the commit record is written. 40003 says itself that it does not know.
pub(crate) fn proves_rollback(code: &str) -> bool {
    match code {
        "40003" => false,
        "25P01" | "25P02" | "57014" | "55P03" => true,
        _ => matches!(code.get(..2), Some("23" | "40" | "P0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g3_each_class_of_sqlstate_has_its_meaning() {
        let table: &[(Meaning, &[&str])] = &[
            (Meaning::Retry, &["40001", "40P01", "40000", "40003", "57014", "25P02", "25P01", "XX000"]),
            (Meaning::Locked, &["55P03"]),
            (Meaning::Lost, &["08000", "08003", "08006", "08P01", "57P01", "57P02", "57P03", "57P05", "25P03"]),
            (Meaning::Resources, &["53000", "53100", "53200", "53300", "53400", "58000", "58030"]),
            (Meaning::ReadOnly, &["25006"]),
            (Meaning::Value, &["22021", "22P05", "22001"]),
            (Meaning::TooLong, &["54000"]),
            (Meaning::Overflow, &["22003"]),
            (Meaning::Constraint, &["23000", "23502", "23503", "23505", "23514", "23P01"]),
            (Meaning::Rights, &["42501"]),
            (Meaning::Pooled, &["26000", "42P05"]),
            (Meaning::Login, &["28000", "28P01", "3D000"]),
            (
                Meaning::Refused,
                &["42P01", "42703", "42804", "42P10", "0A000", "21000", "22012", "P0001", "XX001", "3F000"],
            ),
            (Meaning::Unlisted, &["", "1", "99999", "01000", "38000", "HV000", "F0000", "55000", "ÄÖ"]),
        ];
        for (wanted, codes) in table {
            for code in *codes {
                assert_eq!(meaning(code), *wanted, "{code}");
            }
        }
    }

    #[test]
    fn g3_only_errors_raised_before_the_commit_record_prove_a_rollback() {
        for code in ["40001", "40P01", "23503", "25P02", "25P01", "57014", "P0001"] {
            assert!(proves_rollback(code), "{code}");
        }
        for code in [
            "40003", "57P01", "57P02", "57P03", "08006", "08003", "53100", "58030", "XX000", "XX001", "25P03", "",
            "99999",
        ] {
            assert!(!proves_rollback(code), "{code}");
        }
    }
}
