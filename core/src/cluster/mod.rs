//! A topology on several workers: each process runs its share of the tasks, and tuples cross between them.
//!
//! ```text
//!  worker A                                                             worker B
//!  ┌───────────┐  chunks  ┌───────┐ ┌─────────┐   frames   ┌─────┐  ┌───────┐  ┌──────────┐
//!  │ task 1    │─────────►│ inbox │►│ courier │───────────►│ ear │─►│ inbox │─►│ task 2   │
//!  │           │          │ of 2  │ │ to B    │◄───────────│     │  │       │  │          │
//!  └────▲──────┘          └───────┘ └─────────┘   credit   └─────┘  └───────┘  └────┬─────┘
//!       │                 ┌───────┐   ┌─────┐    reports  ┌─────────┐ ┌───────┐     │
//!       └─────────────────│ box   │◄──│ ear │◄────────────│ courier │◄│ box   │◄────┘
//!                         │ of 1  │   └─────┘             │ to A    │ │ of 1  │
//!                         └───────┘                       └─────────┘ └───────┘
//! ```
//!
//! Every worker has an inbox (spouts: a box of reports) for *every* task. In front of a task that runs here the task takes from
//! it; in front of one that runs elsewhere a [`courier`] does, one for each peer. So tasks do not know where others run, and
//! when a task moves, what waits for it moves after it.
//!
//! **Taking in never waits.** A worker sends only what it has credit for, counted for each receiving queue, so a full queue
//! holds back its own senders and nobody else's: the circle-free edges of one process stay circle-free across several.
//!
//! **Nothing is lost in silence.** What a broken connection may have lost fails at once. When tasks have moved or a
//! worker is gone, every tree under way fails as soon as all workers have followed, because nobody can say what was in the hands of
//! whom; their spouts emit them again.
//!
//! Who runs what is decided by [`membership`](crate::membership): the same machine that Trident's workers have. Coordination
//! only says who is there. While it is away the data flow goes on; a worker whose registration is *known* to be gone drops
//! its tasks before it registers again.
//!
//! Read in this order: [`body`] (what frames carry), [`desk`] (credit for one peer), [`house`], [`courier`], [`ear`], [`ending`],
//! [`leadership`], [`driver`].

mod body;
mod courier;
mod desk;
mod driver;
mod ear;
mod ending;
mod house;
mod leadership;
mod part;
mod shape;

use std::sync::Arc;

pub(crate) use self::{body::Order, part::Part};
use crate::{
    coordination::Coordination,
    engine::{RunError, Running, shared::Worker},
    topology::{BuildError, build::Layout, node::Arena, settings::Settings},
    transport::Listen,
};

/// How a process finds the other workers of its topology.
///
/// ```no_run
/// use std::sync::Arc;
/// use tine_core::{cluster::Cluster, coordination::Coordination, topology::Topology, transport::Listen};
///
/// fn run(topology: Topology, zookeeper: Arc<dyn Coordination>) -> Result<(), Box<dyn std::error::Error>> {
///     let running = topology.join(Cluster::new(zookeeper, Listen::on("127.0.0.1:0")?))?;
///     running.drain_on_signals()?; // leaves the others to go on
///     running.wait()?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Cluster {
    pub(crate) coordination: Arc<dyn Coordination>,
    pub(crate) listen: Listen,
}

impl Cluster {
    /// Workers that register with this service and reach one another where each of them listens.
    pub fn new(coordination: Arc<dyn Coordination>, listen: Listen) -> Cluster {
        Cluster { coordination, listen }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({} through {})", self.listen, self.coordination.describe())
    }
}

/// A worker of a topology, as others see it.
///
/// ```
/// use tine_core::{cluster::WorkerFigures, id::TaskId};
///
/// /// As an operator wants to see them; the workers come from `Running::workers`.
/// fn show(workers: &[WorkerFigures]) -> String {
///     let line = |it: &WorkerFigures| format!("{}{} {:?}", it.address, if it.is_here { "*" } else { "" }, it.tasks);
///     workers.iter().map(line).collect::<Vec<_>>().join("\n")
/// }
///
/// let here = WorkerFigures { address: "a:7100".to_owned(), is_here: true, tasks: vec![TaskId(0), TaskId(2)] };
/// assert_eq!(show(&[here]), "a:7100* [TaskId(0), TaskId(2)]");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerFigures {
    /// Where its peers reach it.
    pub address: String,
    /// Whether it is this process.
    pub is_here: bool,
    /// The tasks that it runs.
    pub tasks: Vec<crate::id::TaskId>,
}

/// Starts this process as a worker.
pub(crate) fn start(arena: &Arc<Arena>, settings: &Settings, cluster: Cluster) -> Result<Running, RunError> {
    let layout = Layout::new(arena, settings, Worker::Member(Default::default()))?;
    encoded(arena)?;
    driver::start(arena, layout, cluster)
}

/// Every tuple that may have to travel can be encoded.
fn encoded(arena: &Arena) -> Result<(), BuildError> {
    let (nodes, encodings) = (arena.nodes(), arena.encodings());
    let edges = nodes.iter().flat_map(|node| node.inputs.iter().map(move |edge| (node, edge)));
    for (node, edge) in edges {
        if !encodings.contains_key(&edge.expected.id) {
            return Err(BuildError::NotRegistered { bolt: node.name.clone(), tuple: edge.expected.name });
        }
    }
    Ok(())
}
