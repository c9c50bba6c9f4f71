//! Writes a change of a group as one `multi`, and finds out what became of it when the reply is lost.
//!
//! ```text
//!   multi ---- answered ------------------------------------------------> Ok, or refused
//!     `------- lost, or refused -- sync -- read the group node --+-- as after  -> Ok
//!                                                                +-- as before -> once more, or the refusal
//!                                                                `-- otherwise -> Fenced
//! ```
//!
//! The group node's content carries the writer's nonce, so "as after" is nobody else's write.

use std::time::Duration;

use tine_core::failure::Failure;
use zookeeper_client::{Acls, Client, CreateMode, Error, MultiWriteError, MultiWriteResult};

use crate::{
    content::GroupNode,
    layout::GroupPaths,
    outcome::{Trouble, judge},
    session::Session,
    standing::{Change, Standing, Step, fenced},
};

/// Pause before a write that did not happen is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// A group of a reign: how it stands, and how it may stand.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// How it stands, once read.
    pub(crate) standing: Option<Standing>,
    /// How it stands if a write was done whose outcome nobody waited for.
    doubt: Option<Standing>,
}

/// What the group node shows after a write.
enum Sight {
    After,
    Before,
    Other(String),
}

impl Group {
    /// What is known after a fresh read.
    pub(crate) fn read(standing: Standing) -> Group {
        Group { standing: Some(standing), doubt: None }
    }

    /// How the group stands; an earlier write that nobody waited for is settled first.
    pub(crate) async fn stands(&mut self, session: &Session, paths: &GroupPaths) -> Result<Standing, Failure> {
        let Some(before) = self.standing.clone() else {
            return Err(Failure::fatal(format!("zookeeper node {}: written before it was read", paths.node)));
        };
        let Some(after) = self.doubt.clone() else { return Ok(before) };
        let stands = match sight(session, paths, &before, &after).await? {
            Sight::After => after,
            Sight::Before => before,
            Sight::Other(found) => return Err(fenced(paths, found)),
        };
        *self = Group::read(stands.clone());
        Ok(stands)
    }

    /// Makes `change` durable. `Ok`: it is, exactly once. `Fenced`: it is not and never will be. `Transient`: the
    /// session ended before that was known.
    pub(crate) async fn write(
        &mut self,
        session: &Session,
        paths: &GroupPaths,
        acls: Acls<'static>,
        change: Change,
    ) -> Result<(), Failure> {
        session.check()?;
        let before = self.stands(session, paths).await?;
        loop {
            // Remembered before sending: the caller may stop waiting at any await.
            self.doubt = Some(change.after.clone());
            let trouble = match session.call(|client| multi(client, paths, &before, &change, acls)).await {
                Ok(_) => break,
                Err(trouble) => trouble,
            };
            if let Trouble::Lost(failure) = trouble {
                return Err(unsettled(paths, &failure));
            }
            match sight(session, paths, &before, &change.after).await? {
                Sight::After => break,
                Sight::Other(found) => return Err(fenced(paths, found)),
                Sight::Before => self.doubt = None,
            }
            match trouble {
                Trouble::Refused(Error::NoNode) if before.version.is_none() => {
                    folders(session, paths, acls).await?;
                }
                Trouble::Refused(error @ (Error::NoNode | Error::BadVersion)) => {
                    return Err(fenced(paths, format!("a part of this leader's claim is gone ({error})")));
                }
                Trouble::Refused(error) => return Err(judge(&paths.node, &error)),
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
        *self = Group::read(change.after);
        Ok(())
    }
}

/// Sends the multi.
fn multi<'a>(
    client: &'a Client,
    paths: &GroupPaths,
    before: &Standing,
    change: &Change,
    acls: Acls<'static>,
) -> impl Future<Output = Result<Vec<MultiWriteResult>, MultiWriteError>> + use<'a> {
    let built = build(client, paths, before, change, acls);
    async move { built?.await }
}

fn build<'a>(
    client: &'a Client,
    paths: &GroupPaths,
    before: &Standing,
    change: &Change,
    acls: Acls<'static>,
) -> Result<impl Future<Output = Result<Vec<MultiWriteResult>, MultiWriteError>> + use<'a>, Error> {
    let persistent = CreateMode::Persistent.with_acls(acls);
    let mut writer = client.new_multi_writer();
    let content = change.after.node.encode();
    match before.version {
        Some(version) => writer.add_set_data(&paths.node, &content, Some(version))?,
        None => writer.add_create(&paths.node, &content, &persistent)?,
    }
    for step in &change.steps {
        match step {
            Step::Require(path) => writer.add_check_version(path, -1)?,
            Step::Create(path, data) => writer.add_create(path, data, &persistent)?,
            Step::Set(path, data) => writer.add_set_data(path, data, None)?,
            Step::Delete(path) => writer.add_delete(path, None)?,
        }
    }
    Ok(writer.commit())
}

/// Reads the group node, up to date, and compares version and content.
async fn sight(session: &Session, paths: &GroupPaths, before: &Standing, after: &Standing) -> Result<Sight, Failure> {
    let found = loop {
        match look(session, paths).await {
            Ok(found) => break found,
            Err(Trouble::Lost(failure)) => return Err(unsettled(paths, &failure)),
            Err(Trouble::Refused(error)) => return Err(judge(&paths.node, &error)),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let is = |standing: &Standing| {
        standing.version == found.as_ref().map(|(version, _)| *version)
            && found.as_ref().is_none_or(|(_, content)| *content == standing.node.encode())
    };
    Ok(match &found {
        _ if is(after) => Sight::After,
        _ if is(before) => Sight::Before,
        None => Sight::Other("it is gone".to_owned()),
        Some((version, content)) => Sight::Other(match GroupNode::decode(&paths.node, content) {
            Ok(node) => {
                format!("epoch {} of leader {:016x} stands there (version {version})", node.epoch.0, node.nonce.0)
            }
            Err(_) => format!("something else stands there (version {version})"),
        }),
    })
}

async fn look(session: &Session, paths: &GroupPaths) -> Result<Option<(i32, Vec<u8>)>, Trouble> {
    session.call(|client| client.sync(&paths.node)).await?;
    match session.call(|client| client.get_data(&paths.node)).await {
        Ok((content, stat)) => Ok(Some((stat.version, content))),
        Err(Trouble::Refused(Error::NoNode)) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

/// Makes the folders above a group that were wiped away.
async fn folders(session: &Session, paths: &GroupPaths, acls: Acls<'static>) -> Result<(), Failure> {
    let options = CreateMode::Persistent.with_acls(acls);
    let folder = paths.node.rsplit_once('/').map_or("/", |(folder, _)| folder);
    match session.call(|client| client.mkdir(folder, &options)).await {
        Ok(()) | Err(Trouble::Unknown(_)) => Ok(()),
        Err(Trouble::Lost(failure)) => Err(failure),
        Err(Trouble::Refused(error) | Trouble::Over(error)) => Err(judge(folder, &error)),
    }
}

fn unsettled(paths: &GroupPaths, lost: &Failure) -> Failure {
    Failure::transient(format!("zookeeper node {}: whether it was written is not known: {lost}", paths.node))
}
