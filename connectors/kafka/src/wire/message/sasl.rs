//! The two messages of a login: which mechanism, and its tokens back and forth.

use crate::wire::codec::{Put, Read, Take};

/// Writes the question for a mechanism.
pub(crate) fn ask_mechanism(put: &mut Put<'_>, mechanism: &str) {
    put.old_text(mechanism);
}

/// What the broker offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mechanisms {
    pub(crate) error: i16,
    pub(crate) offered: Vec<String>,
}

impl Mechanisms {
    /// Reads the body.
    pub(crate) fn read(take: &mut Take<'_>) -> Read<Mechanisms> {
        let error = take.i16()?;
        let count = take.old_count(2)?;
        let offered = (0..count).map(|_| Ok(take.old_text()?.to_string())).collect::<Read<_>>()?;
        Ok(Mechanisms { error, offered })
    }
}

/// Writes a token.
pub(crate) fn ask_token(put: &mut Put<'_>, token: &[u8]) {
    put.blob(token);
    put.no_tags();
}

/// The broker's token, or its refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) error: i16,
    pub(crate) message: String,
    pub(crate) token: Vec<u8>,
    /// How long the login holds (KIP-368); 0 for ever.
    pub(crate) lifetime_ms: i64,
}

impl Token {
    /// Reads the body.
    pub(crate) fn read(take: &mut Take<'_>) -> Read<Token> {
        let error = take.i16()?;
        let message = take.text()?.unwrap_or_default().to_string();
        let token = take.blob()?.unwrap_or_default().to_vec();
        let lifetime_ms = take.i64()?;
        take.skip_tags()?;
        Ok(Token { error, message, token, lifetime_ms })
    }
}
