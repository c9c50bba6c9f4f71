//! What is written down about workers, with golden bytes.

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    hash::Hash128,
    id::{Era, Nonce, WorkerId},
    transport::Peer,
};

/// A registration takes about 100 bytes.
pub const MEMBER_BYTES_MAX: usize = 2048;

/// More workers than anybody starts for one topology.
pub const MEMBERS_MAX: usize = 1024;

/// What all workers of a topology have in common, or what they send one another would mean nothing.
///
/// ```
/// use tine_core::{hash::Hash128, membership::Common};
///
/// let mine = Common { fingerprint: Hash128::of(b"split, count"), lineage: 42 };
/// let theirs = Common { fingerprint: Hash128::of(b"split, sum"), ..mine };
/// assert_eq!(mine.difference(&mine, "the workers"), None);
/// let why = mine.difference(&theirs, "the workers").expect("another program");
/// assert!(why.ends_with("run the same program everywhere"), "{why}");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// The fingerprint of the topology's shape.
    pub fingerprint: Hash128,
    /// The lineage of the ledger that they write to: another one is another database.
    pub lineage: u128,
}

/// A registered worker.
///
/// ```
/// use tine_core::membership::{Common, Member, record::{Capacity, Intent}};
/// use tine_core::{hash::Hash128, id::WorkerId, transport::{Peer, Token}};
///
/// let member = Member {
///     peer: Peer { id: WorkerId(7), address: "worker-1.example:7100".to_owned(), token: Token(0x5eed) },
///     common: Common { fingerprint: Hash128::of(b"split, count"), lineage: 42 },
///     capacity: Capacity { readers: 1, stages: 2 },
///     intent: Intent::Stay,
///     rival: None,
/// };
/// assert_eq!(Member::decode(&member.encode())?, member);
/// # Ok::<(), tine_core::codec::CodecError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who it is, and where its peers reach it.
    pub peer: Peer,
    /// What it is a part of: a worker of another gets no tasks.
    pub common: Common,
    /// How much it takes.
    pub capacity: Capacity,
    /// What it wants of the others.
    pub intent: Intent,
    /// A worker that came later under the same address, said by this one, which is therefore not dead.
    pub rival: Option<WorkerId>,
}

/// What a worker wants of the others.
///
/// ```
/// use tine_core::membership::record::Intent;
///
/// /// What a person is told of a worker.
/// fn told(intent: &Intent) -> String {
///     match intent {
///         Intent::Stay => "works".to_owned(),
///         Intent::Leave => "gives its tasks away".to_owned(),
///         Intent::End { error: Some(error), .. } => format!("ends the topology: {error}"),
///         Intent::End { drained, .. } => format!("ends the topology{}", if *drained { "" } else { " at once" }),
///     }
/// }
///
/// assert_eq!(told(&Intent::End { drained: true, error: None }), "ends the topology");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// To work with them.
    Stay,
    /// That they take its tasks: it wants to end.
    Leave,
    /// That they end, too: the topology does.
    End {
        /// Whether everything was worked off.
        drained: bool,
        /// The error that ended it.
        error: Option<String>,
    },
}

/// How many tasks of each sort a worker takes.
///
/// ```
/// use tine_core::membership::record::Capacity;
///
/// let workers = [Capacity { readers: 1, stages: 2 }, Capacity { readers: 3, stages: 2 }];
/// assert_eq!(workers.iter().map(|worker| worker.readers).sum::<u16>(), 4);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Tasks that read sources.
    pub readers: u16,
    /// Tasks of each level of stages.
    pub stages: u16,
}

/// A worker's part of an assignment.
///
/// ```
/// use tine_core::membership::{Share, record::Capacity};
/// use tine_core::{id::WorkerId, transport::{Peer, Token}};
///
/// let peer = Peer { id: WorkerId(7), address: "worker-1.example:7100".to_owned(), token: Token(0x5eed) };
/// let share = Share { peer, capacity: Capacity { readers: 1, stages: 2 } };
/// assert_eq!(share.peer.id, WorkerId(7));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The worker.
    pub peer: Peer,
    /// What it takes.
    pub capacity: Capacity,
}

/// Who runs which tasks.
///
/// ```
/// use tine_core::membership::{Assignment, Common, Share, record::Capacity};
/// use tine_core::{hash::Hash128, id::{Era, Nonce, WorkerId}, transport::{Peer, Token}};
///
/// let share = |id| Share {
///     peer: Peer { id: WorkerId(id), address: format!("worker-{id}.example:7100"), token: Token(id.into()) },
///     capacity: Capacity { readers: 1, stages: 2 },
/// };
/// let assignment = Assignment {
///     era: Era(4),
///     nonce: Nonce(0x5eed),
///     leader: WorkerId(1),
///     common: Common { fingerprint: Hash128::of(b"split, count"), lineage: 42 },
///     shares: vec![share(1), share(2)],
///     places: vec![0, 1, 1], // the first task runs on worker 1, the two others on worker 2
/// };
/// assert_eq!((assignment.place(WorkerId(2)), assignment.place(WorkerId(3))), (Some(1), None));
/// assert_eq!(assignment.peers()[1].address, "worker-2.example:7100");
/// assert_eq!(Assignment::decode(&assignment.encode())?, assignment);
/// # Ok::<(), tine_core::codec::CodecError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Its name.
    pub era: Era,
    /// The leader that made it.
    pub nonce: Nonce,
    /// The worker that this leader is.
    pub leader: WorkerId,
    /// What the workers have in common.
    pub common: Common,
    /// The workers, in order.
    pub shares: Vec<Share>,
    /// For each task of the topology the place of its worker among the shares; empty when everything follows from their order.
    pub places: Vec<u16>,
}

impl Common {
    /// What makes others something else, in words that name both and say what to do; `None` when they are the same.
    pub fn difference(&self, others: &Common, whose: &str) -> Option<String> {
        if others.fingerprint != self.fingerprint {
            let (theirs, mine) = (others.fingerprint, self.fingerprint);
            return Some(format!(
                "{whose} run fingerprint {theirs} and this program has {mine}: run the same program everywhere"
            ));
        }
        (others.lineage != self.lineage).then(|| {
            format!(
                "{whose} write to a ledger of lineage {:032x} and this one to {:032x}, which is another database: open the \
                 same one everywhere",
                others.lineage, self.lineage
            )
        })
    }
}

impl Member {
    /// Its durable form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads it back; strictly.
    pub fn decode(bytes: &[u8]) -> Result<Member, CodecError> {
        if bytes.len() > MEMBER_BYTES_MAX {
            return Err(CodecError::Corrupt(format!("{} bytes, and a worker takes {MEMBER_BYTES_MAX}", bytes.len())));
        }
        codec::decode(bytes)
    }
}

impl Assignment {
    /// Its durable form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads it back; strictly.
    pub fn decode(bytes: &[u8]) -> Result<Assignment, CodecError> {
        let most = MEMBERS_MAX * MEMBER_BYTES_MAX;
        if bytes.len() > most {
            return Err(CodecError::Corrupt(format!("{} bytes, and an assignment takes {most}", bytes.len())));
        }
        let assignment: Assignment = codec::decode(bytes)?;
        match assignment.shares.len() {
            shares @ 1..=MEMBERS_MAX => match assignment.places.iter().find(|place| usize::from(**place) >= shares) {
                None => Ok(assignment),
                Some(place) => Err(CodecError::Corrupt(format!("a task at worker {place} of {shares}"))),
            },
            other => Err(CodecError::Corrupt(format!("{other} workers, and there are 1 to {MEMBERS_MAX}"))),
        }
    }

    /// The place of a worker in it.
    pub fn place(&self, worker: WorkerId) -> Option<usize> {
        self.shares.iter().position(|share| share.peer.id == worker)
    }

    /// Its workers as peers.
    pub fn peers(&self) -> Vec<Peer> {
        self.shares.iter().map(|share| share.peer.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transport::Token;

    fn member() -> Member {
        let peer = Peer { id: WorkerId(0x0102_0304_0506_0708), address: "h:7".to_owned(), token: Token(9) };
        let common = Common { fingerprint: Hash128(5), lineage: 6 };
        Member { peer, common, capacity: Capacity { readers: 1, stages: 2 }, intent: Intent::Stay, rival: None }
    }

    fn assignment() -> Assignment {
        let Member { peer, common, capacity, .. } = member();
        let (era, nonce, leader) = (Era(4), Nonce(3), WorkerId(2));
        Assignment { era, nonce, leader, common, shares: vec![Share { peer, capacity }], places: vec![0, 0] }
    }

    /// Golden bytes: if this fails, workers of two builds misread one another; raise the codec's version instead.
    #[test]
    fn the_encodings_are_the_documented_ones() {
        let peer = [253, 8, 7, 6, 5, 4, 3, 2, 1, 3, b'h', b':', b'7', 9];
        assert_eq!(member().encode(), [&[1][..], &peer, &[5, 6, 1, 2, 0, 0]].concat());
        let insisting = Member { rival: Some(WorkerId(7)), ..member() };
        assert_eq!(insisting.encode(), [&[1][..], &peer, &[5, 6, 1, 2, 0, 1, 7]].concat());
        assert_eq!(
            Member { intent: Intent::Leave, ..member() }.encode(),
            [&[1][..], &peer, &[5, 6, 1, 2, 1, 0]].concat()
        );
        let ending = Member { intent: Intent::End { drained: false, error: Some("x".to_owned()) }, ..member() };
        assert_eq!(ending.encode(), [&[1][..], &peer, &[5, 6, 1, 2, 2, 0, 1, 1, b'x', 0]].concat());
        assert_eq!(assignment().encode(), [&[1, 4, 3, 2, 5, 6, 1][..], &peer, &[1, 2, 2, 0, 0]].concat());
        assert_eq!(Member::decode(&member().encode()).unwrap(), member());
        assert_eq!(Assignment::decode(&assignment().encode()).unwrap(), assignment());
    }

    #[test]
    fn x6_records_without_workers_or_beyond_all_measure_are_refused() {
        assert!(Assignment::decode(&Assignment { shares: vec![], ..assignment() }.encode()).is_err());
        let many = Assignment { shares: vec![assignment().shares[0].clone(); MEMBERS_MAX + 1], ..assignment() };
        assert!(Assignment::decode(&many.encode()).is_err());
        assert!(Assignment::decode(&Assignment { places: vec![0, 1], ..assignment() }.encode()).is_err());
        let mut long = member();
        long.peer.address = "h".repeat(MEMBER_BYTES_MAX);
        assert!(Member::decode(&long.encode()).is_err());
    }

    #[test]
    fn x5_a_token_is_not_printed() {
        let mut secret = member();
        secret.peer.token = Token(1_234_567_890);
        assert!(!format!("{secret:?}").contains("1234567890"));
    }

    proptest! {
        #[test]
        fn x6_hostile_records_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..60), flip in any::<(usize, u8)>()) {
            let _ = (Member::decode(&bytes), Assignment::decode(&bytes));
            bytes = assignment().encode();
            let at = flip.0 % bytes.len();
            bytes[at] = flip.1;
            let _ = Assignment::decode(&bytes);
        }
    }
}
