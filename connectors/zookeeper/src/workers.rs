//! Registers a worker, and shows it the others and the assignment.
//!
//! A registration is a session of its own with an ephemeral node under a random name, so a process that begins again is
//! another worker, and nothing that an older session left behind is mistaken for it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tine_core::{
    coordination::Coordination,
    failure::Failure,
    id::WorkerId,
    membership::{Assignment, Intent, Member, Registration, Sight, record::MEMBERS_MAX},
};
use tokio::task::JoinHandle;
use zookeeper_client::{Client, CreateMode, Error, OneshotWatcher, Stat};

use crate::{
    ZooKeeper,
    candidacy::{folders, reach},
    content::corrupt,
    layout::Layout,
    outcome::{Trouble, judge},
    session::Session,
};

/// Pause before a session that ended while it was being set up is begun again.
const PAUSE: Duration = Duration::from_millis(100);

/// A worker's session and node.
struct Worker {
    session: Arc<Session>,
    layout: Layout,
    id: WorkerId,
    guard: JoinHandle<()>,
    /// What the last look left behind to be told of changes.
    watches: Mutex<Vec<OneshotWatcher>>,
    /// Nodes that could not be read, said once each.
    strange: Mutex<BTreeSet<String>>,
}

/// Registers a worker; tries for as long as it takes.
pub(crate) async fn register(
    zookeeper: &ZooKeeper,
    layout: Layout,
    member: &Member,
) -> Result<Box<dyn Registration>, Failure> {
    loop {
        let client = reach(zookeeper).await?;
        match create(zookeeper, &client, &layout, member).await {
            Ok(contact) => {
                let session = Arc::new(Session::new(client, zookeeper.describe(), contact));
                let (guarded, node) = (session.clone(), layout.worker(member.peer.id));
                let guard = tokio::spawn(async move { guarded.guard(&node, None).await });
                let (watches, strange) = (Mutex::default(), Mutex::default());
                return Ok(Box::new(Worker { session, layout, id: member.peer.id, guard, watches, strange }));
            }
            Err(Trouble::Refused(error)) => return Err(judge(&layout.workers(), &error)),
            Err(Trouble::Lost(failure)) => return Err(failure),
            Err(Trouble::Over(_) | Trouble::Unknown(_)) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Creates the node; answers when the request was sent that proved it.
async fn create(zookeeper: &ZooKeeper, client: &Client, layout: &Layout, member: &Member) -> Result<Instant, Trouble> {
    let (node, content) = (layout.worker(member.peer.id), member.encode());
    let options = CreateMode::Ephemeral.with_acls(zookeeper.acls());
    folders(zookeeper, client, &layout.workers()).await?;
    loop {
        let sent = Instant::now();
        match client.create(&node, &content, &options).await.map_err(Trouble::from) {
            // Ids are random: a node of this name is this request's, whose first reply was lost. (One of an earlier session
            // of ours would end with it; the guard sees that.)
            Ok(_) | Err(Trouble::Refused(Error::NodeExists)) => return Ok(sent),
            Err(Trouble::Refused(Error::NoNode)) => folders(zookeeper, client, &layout.workers()).await?,
            Err(Trouble::Unknown(_)) => tokio::time::sleep(PAUSE).await,
            Err(trouble) => return Err(trouble),
        }
    }
}

impl Worker {
    /// The registered workers, the oldest first, and which of them ended a run before this registration began.
    async fn members(&self) -> Result<(Vec<Member>, BTreeSet<WorkerId>), Failure> {
        let folder = self.layout.workers();
        let (names, watch) = match self.session.call(|client| client.list_and_watch_children(&folder)).await {
            Ok(found) => found,
            Err(Trouble::Refused(Error::NoNode)) => return Ok(Default::default()),
            Err(trouble) => return Err(failed(&folder, trouble)),
        };
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).push(watch);
        if names.len() > MEMBERS_MAX {
            return Err(corrupt(&folder, format!("{} workers stand there, and {MEMBERS_MAX} are enough", names.len())));
        }
        let mut found = Vec::new();
        for name in names {
            let node = format!("{folder}/{name}");
            match self.session.call(|client| client.get_data(&node)).await {
                Ok((content, stat)) => match Member::decode(&content) {
                    Ok(member) if self.layout.worker(member.peer.id) == node => found.push((stat, member)),
                    Ok(member) => self.say_strange(&node, &format!("it names {}", member.peer.id)),
                    Err(error) => self.say_strange(&node, &error.to_string()),
                },
                // Gone meanwhile.
                Err(Trouble::Refused(Error::NoNode)) => {}
                Err(trouble) => return Err(failed(&node, trouble)),
            }
        }
        found.sort_by_key(|(stat, _)| stat.czxid);
        let mine = found.iter().find(|(_, member)| member.peer.id == self.id).map(|(stat, _)| stat.czxid);
        let has_ended = |(stat, member): &&(Stat, Member)| {
            matches!(member.intent, Intent::End { .. }) && mine.is_some_and(|mine| stat.mzxid < mine)
        };
        let past = found.iter().filter(has_ended).map(|(_, member)| member.peer.id).collect();
        Ok((found.into_iter().map(|(_, member)| member).collect(), past))
    }

    fn say_strange(&self, node: &str, why: &str) {
        if self.strange.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned()) {
            tracing::warn!("zookeeper node {node} is nothing that this version reads, and counts for nothing: {why}");
        }
    }

    async fn assignment(&self) -> Result<Option<Assignment>, Failure> {
        let node = self.layout.assignment();
        match self.session.call(|client| client.get_and_watch_data(&node)).await {
            Ok((content, _, watch)) => {
                self.watches.lock().unwrap_or_else(PoisonError::into_inner).push(watch);
                match content.is_empty() {
                    true => Ok(None),
                    // A leader writes another over it: nothing may wait for somebody to delete it.
                    false => {
                        let read = Assignment::decode(&content);
                        Ok(read.inspect_err(|error| self.say_strange(&node, &error.to_string())).ok())
                    }
                }
            }
            Err(Trouble::Refused(Error::NoNode)) => Ok(None),
            Err(trouble) => Err(failed(&node, trouble)),
        }
    }
}

#[async_trait]
impl Registration for Worker {
    async fn look(&self) -> Result<Sight, Failure> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let (members, past) = self.members().await?;
        Ok(Sight { members, past, assignment: self.assignment().await? })
    }

    async fn changed(&self) {
        let watches = std::mem::take(&mut *self.watches.lock().unwrap_or_else(PoisonError::into_inner));
        let waiting: Vec<_> = watches.into_iter().map(|watch| Box::pin(watch.changed())).collect();
        match waiting.is_empty() {
            true => std::future::pending().await,
            false => drop(futures_util::future::select_all(waiting).await),
        }
    }

    async fn update(&self, member: &Member) -> Result<(), Failure> {
        let (node, content) = (self.layout.worker(self.id), member.encode());
        match self.session.call(|client| client.set_data(&node, &content, None)).await {
            Ok(_) => Ok(()),
            Err(trouble) => Err(failed(&node, trouble)),
        }
    }

    async fn lost(&self) -> Failure {
        self.session.ended().await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // With the guard goes the last handle on the client, which then closes the session by itself.
        self.guard.abort();
    }
}

fn failed(node: &str, trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Lost(failure) => failure,
        Trouble::Refused(error) => judge(node, &error),
        Trouble::Unknown(error) | Trouble::Over(error) => Failure::transient(format!("zookeeper node {node}: {error}")),
    }
}
