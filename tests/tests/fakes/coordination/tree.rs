//! ZooKeeper's side of what happens to coordination by other hands: the tree as a plain client sees it, nodes that are
//! deleted or come back from an older copy, and sessions that the server ends.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use tine_core::{
    codec,
    id::{Epoch, Nonce, TxId},
};
use tine_sim::fakes::coordination::Stood;
use tine_tests::eventually;
use zookeeper_client::{Acls, Client, CreateMode, Error};

/// How long the server may take to end a session.
const DEADLINE: Duration = Duration::from_secs(20);

/// One topology's nodes.
pub(crate) struct Tree {
    pub(crate) client: Client,
    pub(crate) server: String,
    topology: String,
}

type Done<T> = Result<T, String>;

impl Tree {
    pub(crate) fn new(client: Client, server: &str, topology: &str) -> Tree {
        Tree { client, server: server.to_owned(), topology: format!("/tine/{topology}") }
    }

    fn leader(&self) -> String {
        format!("{}/leader", self.topology)
    }

    fn group(&self) -> String {
        format!("{}/groups/g", self.topology)
    }

    fn assignment(&self) -> String {
        format!("{}/assignment", self.topology)
    }

    /// The nodes of the group as they lie there.
    pub(crate) async fn stood(&self) -> Done<Option<Stood>> {
        let group = self.group();
        let (content, stat) = match self.client.get_data(&group).await {
            Ok(found) => found,
            Err(Error::NoNode) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let decoded: (u64, u64, Option<u128>, u64, u64) = codec::decode(&content).map_err(|e| e.to_string())?;
        let (epoch, nonce, lineage, complete, next) = decoded;
        let names = self.client.list_children(&group).await.map_err(text)?;
        let mut reigns = names.iter().filter_map(|name| u64::from_str_radix(name.strip_prefix("reign-")?, 16).ok());
        let reign = reigns.next().map(Nonce);
        if let Some(another) = reigns.next() {
            return Err(format!("two reign nodes: {reign:?} and {another:x}"));
        }
        let mut plans = Vec::new();
        let mut names = self.client.list_children(&format!("{group}/plans")).await.map_err(text)?;
        names.sort();
        for name in names {
            let (plan, _) = self.client.get_data(&format!("{group}/plans/{name}")).await.map_err(text)?;
            plans.push((TxId(name.parse().map_err(|_| format!("plan {name}"))?), plan));
        }
        let assignment = match self.client.get_data(&self.assignment()).await {
            Ok((content, _)) => Some(content).filter(|content| !content.is_empty()),
            Err(Error::NoNode) => None,
            Err(error) => return Err(error.to_string()),
        };
        Ok(Some(Stood {
            version: stat.version.cast_unsigned(),
            epoch: Epoch(epoch),
            nonce: Nonce(nonce),
            lineage,
            complete: TxId(complete),
            next: TxId(next),
            plans,
            reign,
            assignment,
        }))
    }

    /// Makes the group's nodes what they are elsewhere, version and all: by another leader, or from an older copy.
    pub(crate) async fn impose(&self, stood: Option<&Stood>) -> Done<()> {
        self.delete(&self.group()).await?;
        self.delete(&self.assignment()).await?;
        let Some(stood) = stood else { return Ok(()) };
        let group = self.group();
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        self.client.mkdir(&format!("{}/groups", self.topology), &options).await.map_err(text)?;
        let content = codec::encode(&(stood.epoch.0, stood.nonce.0, stood.lineage, stood.complete.0, stood.next.0));
        let mut multi = self.client.new_multi_writer();
        multi.add_create(&group, &content, &options).map_err(text)?;
        for _ in 0..stood.version {
            multi.add_set_data(&group, &content, None).map_err(text)?;
        }
        multi.add_create(&format!("{group}/plans"), &[], &options).map_err(text)?;
        for (txid, plan) in &stood.plans {
            multi.add_create(&format!("{group}/plans/{:020}", txid.0), plan, &options).map_err(text)?;
        }
        if let Some(nonce) = stood.reign {
            multi.add_create(&format!("{group}/reign-{:016x}", nonce.0), &[], &options).map_err(text)?;
        }
        if let Some(assignment) = &stood.assignment {
            multi.add_create(&self.assignment(), assignment, &options).map_err(text)?;
        }
        multi.commit().await.map_err(|error| error.to_string()).map(drop)
    }

    /// Deletes everything of all groups, and the assignment.
    pub(crate) async fn wipe(&self) -> Done<()> {
        self.delete(&self.assignment()).await?;
        self.delete(&format!("{}/groups", self.topology)).await
    }

    async fn delete(&self, path: &str) -> Done<()> {
        let mut below = vec![path.to_owned()];
        let mut at = 0;
        while at < below.len() {
            let parent = below[at].clone();
            let names = self.client.list_children(&parent).await.unwrap_or_default();
            below.extend(names.iter().map(|name| format!("{parent}/{name}")));
            at += 1;
        }
        for path in below.iter().rev() {
            match self.client.delete(path, None).await {
                Ok(()) | Err(Error::NoNode) => {}
                Err(error) => return Err(format!("deleting {path}: {error}")),
            }
        }
        Ok(())
    }

    /// The session that leads.
    pub(crate) async fn leading(&self) -> Done<Option<i64>> {
        let stat = self.client.check_stat(&self.leader()).await.map_err(text)?;
        Ok(stat.map(|stat| stat.ephemeral_owner))
    }

    /// The server ends the session that leads, as when it had been silent for too long.
    pub(crate) async fn expire(&self) -> Done<()> {
        let Some(session) = self.leading().await? else { return Err("nobody leads".to_owned()) };
        let gone = eventually(DEADLINE, || async move {
            // Its client may come back before we have closed it: then it is closed again.
            let server = self.server.clone();
            let _ = tokio::task::spawn_blocking(move || close(&server, session)).await;
            self.leading().await != Ok(Some(session))
        });
        if gone.await { Ok(()) } else { Err(format!("session {session:#x} did not end")) }
    }
}

fn text(error: Error) -> String {
    error.to_string()
}

/// Takes over a session, whose password follows from its number, and closes it.
fn close(server: &str, session: i64) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut connect = Vec::new();
    connect.extend(0i32.to_be_bytes()); // protocol version
    connect.extend(0i64.to_be_bytes()); // last transaction seen
    connect.extend(4000i32.to_be_bytes()); // session timeout in ms
    connect.extend(session.to_be_bytes());
    connect.extend(16i32.to_be_bytes());
    connect.extend(password(session));
    connect.push(0); // not read-only
    frame(&mut stream, &connect)?;
    const CLOSE_SESSION: i32 = -11;
    frame(&mut stream, &[1i32.to_be_bytes(), CLOSE_SESSION.to_be_bytes()].concat())?;
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).map(drop)
}

fn frame(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = i32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat())
}

/// What ZooKeeper gives its clients for a password: sixteen bytes of Java's `Random` seeded with the session's number.
fn password(session: i64) -> [u8; 16] {
    const MASK: u64 = (1 << 48) - 1;
    let mut state = (session.cast_unsigned() ^ 0xB341_5C00 ^ 0x5_DEEC_E66D) & MASK;
    let mut password = [0; 16];
    for four in password.chunks_mut(4) {
        state = (state.wrapping_mul(0x5_DEEC_E66D) + 0xB) & MASK;
        four.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    password
}
