//! How a caller introduces itself, and who is let in. Pure.
//!
//! A caller shows the *called* worker's token: it stands in coordination, where only members can read it, so showing it
//! tells the called worker nothing that it does not know, and proves that the caller is a member.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    hash::Hash128,
    id::WorkerId,
    transport::{Identity, Peer, Token},
};

/// What is spoken over a link; raised when frames, answers or their meaning change.
const PROTOCOL: u16 = 1;

/// A hello takes under 400 bytes: names of topologies are no longer than that.
const HELLO_BYTES_MAX: usize = 4096;

/// Who calls whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    protocol: u16,
    topology: String,
    fingerprint: Hash128,
    pub(super) from: WorkerId,
    to: WorkerId,
    token: Token,
}

/// Whom this worker admits, and as whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster {
    /// This worker, once it is registered.
    pub(super) me: Option<Peer>,
    pub(super) peers: BTreeSet<WorkerId>,
}

/// Why a caller is not let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is no member, or not one yet: what the called worker knows may be older.
    Stranger(String),
    /// It is another program.
    Different(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Stranger(why) | Refusal::Different(why) => f.write_str(why),
        }
    }
}

impl Hello {
    pub(super) fn new(identity: &Identity, from: WorkerId, to: &Peer) -> Hello {
        let Identity { topology, fingerprint } = identity.clone();
        Hello { protocol: PROTOCOL, topology, fingerprint, from, to: to.id, token: to.token }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Hello, CodecError> {
        match bytes.len() {
            long if long > HELLO_BYTES_MAX => Err(CodecError::Corrupt(format!("a hello of {long} bytes"))),
            _ => codec::decode(bytes),
        }
    }

    /// Whether the called worker lets the caller in.
    pub(super) fn admitted(&self, identity: &Identity, roster: &Roster) -> Result<(), Refusal> {
        let different = |what: &str, theirs: &dyn fmt::Display, mine: &dyn fmt::Display| {
            let why = format!("{what} {theirs} was sent to a worker of {what} {mine}");
            Err(Refusal::Different(format!("{why}: run the same program everywhere")))
        };
        if self.protocol != PROTOCOL {
            return different("link protocol", &self.protocol, &PROTOCOL);
        }
        if self.topology != identity.topology {
            return different("topology", &self.topology, &identity.topology);
        }
        if self.fingerprint != identity.fingerprint {
            return different("fingerprint", &self.fingerprint, &identity.fingerprint);
        }
        let Some(me) = &roster.me else {
            return Err(Refusal::Stranger("this worker is not registered yet".to_owned()));
        };
        if self.to != me.id || self.token != me.token {
            let why = format!("{} was called and this is {}, or the token is not its own", self.to, me.id);
            return Err(Refusal::Stranger(why));
        }
        match roster.peers.contains(&self.from) {
            true => Ok(()),
            false => Err(Refusal::Stranger(format!("{} is no member that this worker knows of", self.from))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(fingerprint: u128) -> Identity {
        Identity { topology: "words".to_owned(), fingerprint: Hash128(fingerprint) }
    }

    fn peer(id: u64) -> Peer {
        Peer { id: WorkerId(id), address: "h:1".to_owned(), token: Token(u128::from(id) << 40) }
    }

    fn roster() -> Roster {
        Roster { me: Some(peer(1)), peers: [WorkerId(2)].into() }
    }

    #[test]
    fn x1_only_members_of_the_same_topology_and_version_are_let_in() {
        let (here, hello) = (identity(7), Hello::new(&identity(7), WorkerId(2), &peer(1)));
        assert_eq!(hello.admitted(&here, &roster()), Ok(()));
        let refused = |hello: &Hello| hello.admitted(&here, &roster()).unwrap_err();
        let other = refused(&Hello::new(&identity(8), WorkerId(2), &peer(1)));
        assert!(
            matches!(&other, Refusal::Different(why)
            if why.contains(&Hash128(8).to_string()) && why.contains(&Hash128(7).to_string())),
            "{other}"
        );
        assert!(matches!(refused(&Hello { topology: "x".to_owned(), ..hello.clone() }), Refusal::Different(_)));
        assert!(matches!(refused(&Hello { protocol: 2, ..hello.clone() }), Refusal::Different(_)));
        assert!(matches!(refused(&Hello { from: WorkerId(3), ..hello.clone() }), Refusal::Stranger(_)));
        assert!(matches!(refused(&Hello { to: WorkerId(3), ..hello.clone() }), Refusal::Stranger(_)));
        let forged = refused(&Hello { token: Token(9), ..hello.clone() });
        assert!(matches!(&forged, Refusal::Stranger(why) if !why.contains('9')), "{forged}");
        assert!(matches!(hello.admitted(&here, &Roster::default()), Err(Refusal::Stranger(_))));
    }

    /// Golden bytes: workers of two builds must be able to tell one another that they differ.
    #[test]
    fn the_encoding_is_the_documented_one() {
        let hello = Hello::new(&identity(7), WorkerId(2), &peer(1));
        let token = [254, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let golden = [&[1, 1, 5][..], b"words", &[7, 2, 1, 253], &token[1..9]].concat();
        assert_eq!(hello.encode(), golden);
        assert_eq!(Hello::decode(&golden).unwrap(), hello);
    }

    proptest! {
        #[test]
        fn x3_a_hostile_hello_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(hello) = Hello::decode(&bytes) {
                prop_assert!(hello.admitted(&identity(7), &roster()).is_err() || hello.from == WorkerId(2));
            }
        }
    }
}
