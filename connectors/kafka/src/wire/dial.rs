//! From a name and a port to a TCP connection, without keeping anybody waiting.
//!
//! Name look-up and connecting block and cannot be given up, so each happens on a thread that lives as long as it takes
//! and no longer than the system's look-up and the timeout; who asked may leave at any time.

use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use super::trouble::Trouble;

/// How often it is asked whether the connection is still wanted.
const STEP: Duration = Duration::from_millis(50);

/// Connects to the first of the name's addresses that answers.
pub(crate) fn dial(address: &str, deadline: Instant, cancelled: &dyn Fn() -> bool) -> Result<TcpStream, Trouble> {
    let (sent, received) = sync_channel(1);
    let name = address.to_string();
    let connecting = move || drop(sent.send(connect(&name, deadline)));
    let thread = std::thread::Builder::new().name("kafka dial".into()).spawn(connecting);
    thread.map_err(|error| Trouble::Away(format!("cannot start a thread to connect with: {error}")))?;
    loop {
        match received.recv_timeout(STEP) {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => return Err(Trouble::Away(format!("cannot connect to {address}: {error}"))),
            Err(RecvTimeoutError::Disconnected) => return Err(Trouble::Away(format!("cannot connect to {address}"))),
            Err(RecvTimeoutError::Timeout) if cancelled() => return Err(Trouble::Cancelled),
            Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                return Err(Trouble::Away(format!("cannot connect to {address} in time")));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn connect(address: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
