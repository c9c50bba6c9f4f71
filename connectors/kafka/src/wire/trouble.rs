//! Why a broker gave no answer.

use tine_core::failure::Failure;

use super::codec::Malformed;

/// What went wrong with a connection or a question.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Nobody wants the answer any more.
    Cancelled,
    /// The broker is away or answered nonsense; another try, perhaps elsewhere, may help. In words.
    Away(String),
    /// No try will help.
    Refused(Failure),
}

impl From<Malformed> for Trouble {
    fn from(Malformed(what): Malformed) -> Trouble {
        Trouble::Away(format!("the answer is malformed: {what}"))
    }
}
