//! A ZooKeeper ensemble: several servers that elect one of them, each a guard of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::zookeeper::MY_ID;
use super::{Error, Service, ZooKeeper, free_port};
use crate::services::zookeeper::Standalone;
use crate::wait_until;

/// How long an election may take on a machine that compiles at the same time.
const ELECTION_DEADLINE: Duration = Duration::from_secs(120);
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Starts `count` servers and returns when most of them serve.
pub fn start(count: usize) -> Result<Vec<ZooKeeper>, Error> {
    let io = |error| Error::io(Standalone::NAME, "find a free port", error);
    let ports = (0..2 * count).map(|_| free_port()).collect::<Result<Vec<_>, _>>().map_err(io)?;
    let members: Vec<(String, String)> = (ports.chunks(2).zip(1..))
        .map(|(ports, id)| (format!("server.{id}"), format!("127.0.0.1:{}:{}", ports[0], ports[1])))
        .collect();
    let server = |id: usize| {
        let id = id.to_string();
        let own = [(MY_ID, id.as_str()), ("initLimit", "40"), ("syncLimit", "10")];
        let all = members.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(own);
        ZooKeeper::start_with(&all.collect::<Vec<_>>())
    };
    let servers = (1..=count).map(server).collect::<Result<Vec<_>, _>>()?;
    let elected = || servers.iter().filter(|server| serves(&server.address())).count() > count / 2;
    if wait_until(ELECTION_DEADLINE, elected) {
        return Ok(servers);
    }
    let why = format!("most of {count} servers do not serve after {ELECTION_DEADLINE:?}");
    Err(Error::io(Standalone::NAME, "elect a leader", std::io::Error::other(why)))
}

/// Whether a server has joined those that serve: `ruok` is answered with `imok` also by one that stands alone.
fn serves(address: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        stream.write_all(b"srvr")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("Mode: "))
}
