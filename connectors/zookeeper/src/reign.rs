//! Leadership in ZooKeeper, as long as its session lasts.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tine_core::{
    coordination::{Claim, GroupRecord, Reign},
    failure::Failure,
    id::{Nonce, TxId},
    membership::Assignment,
};
use tokio::task::JoinHandle;
use zookeeper_client::{Acls, CreateMode, Error};

use crate::{
    PLAN_BYTES_MAX,
    content::{self, GroupNode, corrupt},
    layout::{GroupPaths, Layout, plan_of, reign_of},
    outcome::{Trouble, judge},
    session::Session,
    standing::{Change, Standing},
    write::Group,
};

/// More nodes than a leader leaves in one folder at any time: somebody else's.
const CHILDREN_MAX: usize = 10_000;

/// Pause before a group that changed under our eyes is read again.
const PAUSE: Duration = Duration::from_millis(20);

/// Leadership; dropping it closes the session, with which the leader node goes.
pub(crate) struct ZooKeeperReign {
    session: Arc<Session>,
    layout: Layout,
    nonce: Nonce,
    acls: Acls<'static>,
    groups: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Group>>>>,
    guard: JoinHandle<()>,
}

impl ZooKeeperReign {
    pub(crate) fn new(session: Arc<Session>, layout: Layout, nonce: Nonce, acls: Acls<'static>) -> ZooKeeperReign {
        let (guarded, leader) = (session.clone(), layout.leader());
        let guard = tokio::spawn(async move { guarded.guard(&leader, Some(&content::leader(nonce))).await });
        ZooKeeperReign { session, layout, nonce, acls, groups: Mutex::default(), guard }
    }

    fn group(&self, group: &str) -> Arc<tokio::sync::Mutex<Group>> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.entry(group.to_owned()).or_default().clone()
    }

    /// Writes what `change` makes of the group as it stands. Writes of one group come one after the other.
    async fn write(
        &self,
        group: &str,
        change: impl FnOnce(&Standing, &GroupPaths) -> Result<Change, Failure> + Send,
    ) -> Result<(), Failure> {
        let (paths, known) = (self.layout.group(group)?, self.group(group));
        let mut known = known.lock().await;
        let change = change(&known.stands(&self.session, &paths).await?, &paths)?;
        known.write(&self.session, &paths, self.acls, change).await
    }
}

impl Drop for ZooKeeperReign {
    fn drop(&mut self) {
        // With the guard goes the last handle on the client, which then closes the session by itself.
        self.guard.abort();
    }
}

#[async_trait]
impl Reign for ZooKeeperReign {
    async fn read(&self, group: &str) -> Result<GroupRecord, Failure> {
        let (paths, known) = (self.layout.group(group)?, self.group(group));
        let mut known = known.lock().await;
        loop {
            match read(&self.session, &paths).await {
                Ok(Some((standing, record))) => {
                    *known = Group::read(standing);
                    return Ok(record);
                }
                // Another leader wrote between two of our reads.
                Ok(None) | Err(Unread::Trouble(Trouble::Unknown(_))) => tokio::time::sleep(PAUSE).await,
                Err(Unread::Trouble(Trouble::Lost(failure)) | Unread::Corrupt(failure)) => return Err(failure),
                Err(Unread::Trouble(Trouble::Refused(error) | Trouble::Over(error))) => {
                    return Err(judge(&paths.node, &error));
                }
            }
        }
    }

    async fn claim(&self, group: &str, claim: &Claim) -> Result<(), Failure> {
        if claim.nonce != self.nonce {
            return Err(Failure::fatal("a leader claims with the nonce it was elected with"));
        }
        self.write(group, |standing, paths| standing.claim(paths, claim)).await
    }

    async fn write_plan(&self, group: &str, txid: TxId, plan: &[u8]) -> Result<(), Failure> {
        self.write(group, |standing, paths| standing.write_plan(paths, self.nonce, txid, plan)).await
    }

    async fn forget_from(&self, group: &str, txid: TxId) -> Result<(), Failure> {
        self.write(group, |standing, paths| standing.forget_from(paths, self.nonce, txid)).await
    }

    async fn complete(&self, group: &str, txid: TxId) -> Result<(), Failure> {
        self.write(group, |standing, paths| standing.complete(paths, self.nonce, txid)).await
    }

    async fn assign(&self, group: &str, assignment: &Assignment) -> Result<(), Failure> {
        let node = self.layout.assignment();
        let options = CreateMode::Persistent.with_acls(self.acls);
        // Empty until the write below: nobody takes that for an assignment.
        match self.session.call(|client| client.create(&node, b"", &options)).await {
            Ok(_) | Err(Trouble::Refused(Error::NodeExists) | Trouble::Unknown(_)) => {}
            Err(Trouble::Lost(failure)) => return Err(failure),
            Err(Trouble::Refused(error) | Trouble::Over(error)) => return Err(judge(&node, &error)),
        }
        let content = assignment.encode();
        self.write(group, |standing, paths| standing.assign(paths, self.nonce, (node, content))).await
    }

    async fn lost(&self) -> Failure {
        self.session.ended().await
    }
}

/// Why a group could not be read.
enum Unread {
    Trouble(Trouble),
    Corrupt(Failure),
}

impl From<Trouble> for Unread {
    fn from(trouble: Trouble) -> Unread {
        Unread::Trouble(trouble)
    }
}

/// Reads a group up to date; `None` when it changed meanwhile.
async fn read(session: &Session, paths: &GroupPaths) -> Result<Option<(Standing, GroupRecord)>, Unread> {
    session.call(|client| client.sync(&paths.node)).await?;
    let (content, stat) = match session.call(|client| client.get_data(&paths.node)).await {
        Ok(found) => found,
        Err(Trouble::Refused(Error::NoNode)) => return Ok(Some(Default::default())),
        Err(trouble) => return Err(trouble.into()),
    };
    let node = GroupNode::decode(&paths.node, &content).map_err(Unread::Corrupt)?;
    let reigns = children(session, &paths.node).await?.iter().filter_map(|name| reign_of(name)).collect();
    let mut plans = Vec::new();
    for txid in plan_names(&paths.plans, &node, children(session, &paths.plans).await?).map_err(Unread::Corrupt)? {
        let path = paths.plan(txid);
        match session.call(|client| client.get_data(&path)).await {
            Ok((plan, _)) if plan.len() <= PLAN_BYTES_MAX => plans.push((txid, plan)),
            Ok((plan, _)) => return Err(Unread::Corrupt(corrupt(&path, format!("{} bytes are no plan", plan.len())))),
            Err(Trouble::Refused(Error::NoNode)) => return Ok(None),
            Err(trouble) => return Err(trouble.into()),
        }
    }
    match session.call(|client| client.check_stat(&paths.node)).await? {
        Some(again) if (again.version, again.mzxid, again.czxid) == (stat.version, stat.mzxid, stat.czxid) => {}
        _ => return Ok(None),
    }
    let GroupNode { epoch, nonce, lineage, complete, .. } = node;
    let known = plans.iter().map(|(txid, _)| *txid).collect();
    let record = GroupRecord { epoch, nonce, lineage, complete, plans };
    Ok(Some((Standing { version: Some(stat.version), node, plans: known, reigns }, record)))
}

async fn children(session: &Session, path: &str) -> Result<Vec<String>, Unread> {
    match session.call(|client| client.list_children(path)).await {
        Ok(names) if names.len() <= CHILDREN_MAX => Ok(names),
        Ok(names) => Err(Unread::Corrupt(corrupt(path, format!("{} nodes stand below it", names.len())))),
        Err(Trouble::Refused(Error::NoNode)) => Ok(Vec::new()),
        Err(trouble) => Err(trouble.into()),
    }
}

/// The plans that a folder holds: consecutive, and up to the next txid of the group node.
fn plan_names(folder: &str, node: &GroupNode, names: Vec<String>) -> Result<BTreeSet<TxId>, Failure> {
    let parse =
        |name: &String| plan_of(name).ok_or_else(|| corrupt(&format!("{folder}/{name}"), "that is no plan's name"));
    let plans = names.iter().map(parse).collect::<Result<BTreeSet<TxId>, Failure>>()?;
    let (Some(first), Some(last)) = (plans.first(), plans.last()) else { return Ok(plans) };
    match last.0 - first.0 == plans.len() as u64 - 1 && last.0.checked_add(1) == Some(node.next.0) {
        true => Ok(plans),
        false => Err(corrupt(
            folder,
            format!("{} plans from {first} to {last} do not lead up to the next txid {}", plans.len(), node.next),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x6_plans_with_gaps_or_strange_names_are_refused_by_name() {
        let names = |txids: &[u64]| txids.iter().map(|txid| format!("{txid:020}")).collect::<Vec<_>>();
        let node = GroupNode { next: TxId(9), ..GroupNode::default() };
        assert_eq!(plan_names("/p", &node, names(&[8, 7])).unwrap().len(), 2);
        assert!(plan_names("/p", &node, Vec::new()).unwrap().is_empty());
        for wrong in [names(&[6, 8]), names(&[7]), names(&[9]), vec!["x".into()], names(&[u64::MAX])] {
            assert!(plan_names("/p", &node, wrong).unwrap_err().message.contains("/p"));
        }
    }
}
