//! Between workers: ordered links that carry frames, and say at once what was lost with them.
//!
//! ```text
//!  worker A                                             worker B
//!  task ─► Link to B ──── frames, in order ───────────► Receive::frame ─► B's tasks, B's acker
//!             ▲ ◄──────── credit: how far B has taken ────┘
//!             └─ breaks ─► A's Receive::lost(B, roots of all frames that B has not taken)
//! ```
//!
//! There is a [`Link`] for each ordered pair of workers. A frame arrives once or not at all: nothing is sent again, because
//! whoever started a tuple tree starts it again when it fails. So a break must never be silent. The sender keeps the
//! [roots](Roots) of each frame until the peer has *taken* it (handed it to its task or acker); when the connection breaks,
//! the roots of frames not taken go to [`Receive::lost`], whose owner fails these trees. Some of those frames may have
//! arrived: that is at-least-once delivery. What a peer has taken and not worked off when it dies is lost too: whoever
//! leads fails what that peer worked on, because both its directions end in `lost`.
//!
//! Credit is counted in bytes: a sender waits while [`WINDOW`] bytes are on their way or in front of the peer's full queues,
//! so backpressure crosses processes and nothing is queued without a bound.
//!
//! A frame is encoded once, by its sender's task; the transport looks at its head alone. Frames of another [`Era`] than the
//! receiver's are for tasks that are gone: the receiver drops them.

mod frame;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use smallvec::SmallVec;

pub use self::frame::{FRAME_BYTES_MAX, Frame, FrameError, HEAD_BYTES, Kind};
use crate::{
    failure::Failure,
    id::{Era, WorkerId},
    tuple::Root,
};

/// How many bytes may be on their way to one peer: a few chunks, so that the line is busy while the peer works one off.
pub const WINDOW: usize = 8 << 20;

/// The trees that the content of a frame belongs to: of its tuples, or of its reports to the acker.
pub type Roots = SmallVec<[Root; 4]>;

/// Sends frames to one peer, in the order of the calls. Cheap to call from many tasks.
#[async_trait]
pub trait Link: Send + Sync + fmt::Debug {
    /// The peer.
    fn peer(&self) -> WorkerId;

    /// Whether the connection stands now.
    fn is_up(&self) -> bool;

    /// Waits for credit and hands a frame over. `Ok`: it will be taken by the peer, or [`Receive::lost`] will name these
    /// roots. `Err`: it was not sent and nobody else will name them; what belongs to it has failed.
    ///
    /// A frame of more than [`FRAME_BYTES_MAX`] bytes is `Err` as well: cut chunks below that.
    async fn send(&self, frame: Frame, roots: Roots) -> Result<(), Failure>;
}

/// What a worker does with what its peers send. Implemented by whoever owns the tasks.
#[async_trait]
pub trait Receive: Send + Sync + 'static {
    /// A frame has come. Frames of one peer come one by one and in order; the frame counts as taken when this returns, so
    /// waiting here for room in a task's queue holds that peer back, and no other.
    async fn frame(&self, peer: WorkerId, frame: Frame);

    /// The connection to a peer stands: frames may be sent. Comes again after every `lost` that was not the last.
    async fn up(&self, peer: WorkerId);

    /// A connection to or from a peer broke. `roots` are those of the frames that the peer has not taken; empty when the
    /// direction that broke was the peer's. The transport connects again by itself.
    async fn lost(&self, peer: WorkerId, roots: Vec<Root>, failure: Failure);
}

/// Whom a worker talks to under an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The worker.
    pub id: WorkerId,
    /// Where it listens: `host:port`.
    pub address: String,
    /// Its secret, which only members of the topology can read.
    pub token: Token,
}

/// Links to the workers of an assignment.
pub trait Transport: Send + Sync {
    /// Connects to these peers and to no others: links to workers that are not named any more end, those to workers that
    /// stay, stay as they are. Incoming connections are admitted from these peers alone.
    fn follow(&self, era: Era, peers: Vec<Peer>);

    /// The link to a peer; `None` when it is not one.
    fn link(&self, peer: WorkerId) -> Option<Arc<dyn Link>>;
}

/// A worker's secret of one registration. Never printed.
#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Token(pub u128);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
