//! A ZooKeeper ensemble: several servers that elect one of them, each a guard of its own.

use std::time::Duration;

use super::{Error, Service, ZooKeeper, free_port};
use crate::services::zookeeper::{MY_ID, Standalone, serves};
use crate::wait_until;

/// How long an election may take on a machine that compiles at the same time.
const ELECTION_DEADLINE: Duration = Duration::from_secs(120);

/// Where a server hears from its peers: what a follower gets from its leader, and votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The leader's, which followers connect to.
    pub quorum: u16,
    /// For elections.
    pub election: u16,
}

/// Free ports for `count` servers.
pub fn ports(count: usize) -> Result<Vec<Ports>, Error> {
    let io = |error| Error::io(Standalone::NAME, "find a free port", error);
    let ports = || Ok(Ports { quorum: free_port()?, election: free_port()? });
    (0..count).map(|_| ports()).collect::<Result<_, _>>().map_err(io)
}

/// Starts `count` servers and returns when most of them serve.
pub fn start(count: usize) -> Result<Vec<ZooKeeper>, Error> {
    let ports = ports(count)?;
    start_with(count, |_, to| ports[to])
}

/// The same with the ports at which the server of the first number, from 0 on, finds that of the second. A server finds
/// itself at its own ones; between two others there may be a proxy.
pub fn start_with(count: usize, ports: impl Fn(usize, usize) -> Ports) -> Result<Vec<ZooKeeper>, Error> {
    let server = |from: usize| {
        let id = (from + 1).to_string();
        let own = [(MY_ID, id.as_str()), ("initLimit", "40"), ("syncLimit", "10")];
        let member = |to: usize| {
            let Ports { quorum, election } = ports(from, to);
            (format!("server.{}", to + 1), format!("127.0.0.1:{quorum}:{election}"))
        };
        let members: Vec<(String, String)> = (0..count).map(member).collect();
        let all = members.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(own);
        ZooKeeper::start_with(&all.collect::<Vec<_>>())
    };
    let servers = (0..count).map(server).collect::<Result<Vec<_>, _>>()?;
    elected(servers)
}

fn elected(servers: Vec<ZooKeeper>) -> Result<Vec<ZooKeeper>, Error> {
    let count = servers.len();
    let elected = || servers.iter().filter(|server| serves(&server.address())).count() > count / 2;
    if wait_until(ELECTION_DEADLINE, elected) {
        return Ok(servers);
    }
    let why = format!("most of {count} servers do not serve after {ELECTION_DEADLINE:?}");
    Err(Error::io(Standalone::NAME, "elect a leader", std::io::Error::other(why)))
}
