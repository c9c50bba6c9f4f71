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
//! A frame is encoded once, by its sender's task; the transport looks at its head alone. What frames of another
//! [era](crate::id::Era) than the receiver's are worth, the receiver decides: Trident's are for tasks that are gone.

mod frame;
#[cfg(feature = "cluster")]
mod grpc;
mod listen;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

pub use self::{
    frame::{FRAME_BYTES_MAX, Frame, FrameError, HEAD_BYTES, Kind},
    listen::{Listen, Tls},
};
use crate::{failure::Failure, hash::Hash128, id::WorkerId, tuple::Root};

/// How many bytes may be on their way to one peer: a few chunks, so that the line is busy while the peer works one off.
pub const WINDOW: usize = 8 << 20;

/// The trees that the content of a frame belongs to: of its tuples, or of its reports to the acker.
pub type Roots = SmallVec<[Root; 4]>;

/// Sends frames to one peer, in the order of the calls. Cheap to call from many tasks.
///
/// ```
/// use tine_core::transport::{Frame, Link, Roots};
/// use tine_core::{failure::Failure, id::WorkerId};
/// use tokio::sync::mpsc;
///
/// /// For tests: the peer is a channel in this process.
/// #[derive(Debug)]
/// struct Channel(WorkerId, mpsc::Sender<Frame>);
///
/// #[async_trait::async_trait]
/// impl Link for Channel {
///     fn peer(&self) -> WorkerId {
///         self.0
///     }
///
///     fn is_up(&self) -> bool {
///         !self.1.is_closed()
///     }
///
///     async fn send(&self, frame: Frame, _: Roots) -> Result<(), Failure> {
///         self.1.send(frame).await.map_err(|_| Failure::transient(format!("{} is gone", self.0)))
///     }
/// }
///
/// # use tine_core::{id::{Era, TaskId}, transport::Kind};
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (sender, receiver) = mpsc::channel(1);
/// let link = Channel(WorkerId(7), sender);
/// assert!(link.is_up());
/// drop(receiver);
/// let frame = Frame { era: Era(4), to: TaskId(1), from: TaskId(2), kind: Kind::Tuples, body: Default::default() };
/// let refused = link.send(frame, Roots::new()).await;
/// assert_eq!(refused, Err(Failure::transient("worker 0000000000000007 is gone")));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
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
///
/// ```
/// use std::sync::Mutex;
/// use tine_core::transport::{Frame, Receive};
/// use tine_core::{failure::Failure, id::WorkerId, tuple::Root};
///
/// /// Keeps what comes, and the trees that are to fail.
/// #[derive(Default)]
/// struct Desk {
///     frames: Mutex<Vec<Frame>>,
///     failed: Mutex<Vec<Root>>,
/// }
///
/// #[async_trait::async_trait]
/// impl Receive for Desk {
///     async fn frame(&self, _: WorkerId, frame: Frame) -> Result<(), Failure> {
///         self.frames.lock().unwrap().push(frame);
///         Ok(())
///     }
///
///     async fn up(&self, peer: WorkerId) {
///         tracing::info!("{peer} is reached");
///     }
///
///     async fn lost(&self, peer: WorkerId, roots: Vec<Root>, failure: Failure) {
///         tracing::warn!("{peer}: {failure}; {} trees fail", roots.len());
///         self.failed.lock().unwrap().extend(roots);
///     }
/// }
///
/// # let desk = Desk::default();
/// # let lost = desk.lost(WorkerId(7), vec![Root(1)], Failure::transient("no route to host"));
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(lost);
/// assert_eq!(*desk.failed.lock().unwrap(), [Root(1)]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[async_trait]
pub trait Receive: Send + Sync + 'static {
    /// A frame has come. Frames of one peer come one by one and in order; the frame counts as taken when this returns, so
    /// waiting here for room in a task's queue holds that peer back, and no other.
    ///
    /// `Err`: it was not taken. The connection is closed, and both sides' `lost` say why.
    async fn frame(&self, peer: WorkerId, frame: Frame) -> Result<(), Failure>;

    /// The connection to a peer stands: frames may be sent. Comes again after every `lost` that was not the last, whichever
    /// direction broke; and may come twice.
    async fn up(&self, peer: WorkerId);

    /// A connection to or from a peer broke. `roots` are those of the frames that the peer has not taken; empty when the
    /// direction that broke was the peer's. The transport connects again by itself.
    async fn lost(&self, peer: WorkerId, roots: Vec<Root>, failure: Failure);
}

/// A worker of an assignment, as its peers have to know it.
///
/// ```
/// use tine_core::{id::WorkerId, transport::{Peer, Token}};
///
/// let peer = Peer { id: WorkerId(0x5eed), address: "worker-1.example:7100".to_owned(), token: Token(1234567890) };
/// assert!(!format!("{peer:?}").contains("1234567890"), "its secret is not printed");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The worker.
    pub id: WorkerId,
    /// Where it listens: `host:port`.
    pub address: String,
    /// Its secret, which only members of the topology can read.
    pub token: Token,
}

/// Links to the workers of an assignment.
///
/// ```no_run
/// use tine_core::transport::{Frame, Peer, Roots, Transport};
/// use tine_core::failure::Failure;
///
/// async fn greet(transport: &dyn Transport, me: &Peer, other: &Peer, hello: Frame) -> Result<(), Failure> {
///     transport.follow(me, &[me.clone(), other.clone()]);
///     println!("{} is here, at {}", me.id, transport.address());
///     let Some(link) = transport.link(other.id) else { return Err(Failure::transient("it is no peer any more")) };
///     link.send(hello, Roots::new()).await
/// }
/// ```
pub trait Transport: Send + Sync {
    /// From now on this worker is `me` and talks to `peers` and to nobody else: links to others end, those to workers that
    /// stay, stay as they are. Incoming connections are admitted from these peers alone.
    fn follow(&self, me: &Peer, peers: &[Peer]);

    /// The link to a peer; `None` when it is not one.
    fn link(&self, peer: WorkerId) -> Option<Arc<dyn Link>>;

    /// Where peers reach this worker: `host:port`, with the port that was really opened.
    fn address(&self) -> &str;
}

/// A worker's secret of one registration. Never printed.
///
/// ```
/// use tine_core::transport::Token;
///
/// assert_eq!(format!("{:?}", Token(7)), "Token(…)");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub u128);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What all workers of a topology must agree on, or nothing that they send one another would mean the same.
///
/// ```
/// use tine_core::{hash::Hash128, transport::Identity};
///
/// let identity = |shape: &[u8]| Identity { topology: "words".to_owned(), fingerprint: Hash128::of(shape) };
/// assert_ne!(identity(b"split, count"), identity(b"split, count, sum"), "they would not understand each other");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The topology's name.
    pub topology: String,
    /// The fingerprint of its shape.
    pub fingerprint: Hash128,
}

/// Opens this worker's port, and answers with its transport. Nobody is talked to before [`Transport::follow`].
///
/// ```
/// # use std::sync::Arc;
/// # use tine_core::failure::{Failure, FailureKind};
/// # use tine_core::{hash::Hash128, id::WorkerId, tuple::Root};
/// # use tine_core::transport::{Frame, Identity, Listen, Receive, start};
/// # struct Desk;
/// # #[async_trait::async_trait]
/// # impl Receive for Desk {
/// #     async fn frame(&self, _: WorkerId, _: Frame) -> Result<(), Failure> { Ok(()) }
/// #     async fn up(&self, _: WorkerId) {}
/// #     async fn lost(&self, _: WorkerId, _: Vec<Root>, _: Failure) {}
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let identity = Identity { topology: "words".to_owned(), fingerprint: Hash128::of(b"split, count") };
/// let everywhere = Listen::on("0.0.0.0:7100")?; // and neither TLS nor `plaintext`
/// let refused = start(&everywhere, identity, Arc::new(Desk)).await.err().expect("nothing was opened");
/// assert_eq!(refused.kind, FailureKind::Fatal);
/// # Ok::<(), Failure>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `Fatal` when the port cannot be opened, when the PEM files are not what they should be, when the address lies beyond
/// loopback and neither TLS nor [`Listen::plaintext`] was asked for, and in a build without the feature `cluster`.
pub async fn start(
    listen: &Listen,
    identity: Identity,
    receive: Arc<dyn Receive>,
) -> Result<Arc<dyn Transport>, Failure> {
    #[cfg(feature = "cluster")]
    return Ok(Arc::new(grpc::Grpc::start(listen, identity, receive).await?));
    #[cfg(not(feature = "cluster"))]
    {
        let _ = (identity, receive);
        Err(Failure::fatal(format!("cannot listen on {listen}: this program was built without the feature `cluster`")))
    }
}
