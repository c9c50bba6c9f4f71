//! Bytes to and from a broker, encrypted or not. Reads wait a moment only, so that who waits can look up.

use std::{
    fmt,
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use super::trouble::Trouble;

/// How long a read waits for a first byte.
pub(crate) const WAIT: Duration = Duration::from_millis(50);

/// How long a write may stand still. Requests are small: this is a broker that reads no more.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection's bytes.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Takes over a connection to `address`; the encryption is agreed on with the first bytes.
    pub(crate) fn new(tcp: TcpStream, address: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Stream, Trouble> {
        let away = |error: io::Error| Trouble::Away(format!("cannot set up the connection to {address}: {error}"));
        tcp.set_nodelay(true).map_err(away)?;
        tcp.set_read_timeout(Some(WAIT)).map_err(away)?;
        tcp.set_write_timeout(Some(WRITE_TIMEOUT)).map_err(away)?;
        let Some(tls) = tls else { return Ok(Stream::Plain(tcp)) };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_string())
            .map_err(|_| Trouble::Away(format!("{host:?} is no name that a certificate can have")))?;
        let session = ClientConnection::new(Arc::clone(tls), name)
            .map_err(|error| Trouble::Away(format!("cannot speak TLS with {address}: {error}")))?;
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, tcp))))
    }

    /// Goes on agreeing on the encryption for a moment; whether that is done.
    pub(crate) fn is_ready(&mut self) -> io::Result<bool> {
        let Stream::Tls(stream) = self else { return Ok(true) };
        if !stream.conn.is_handshaking() {
            return Ok(true);
        }
        match stream.conn.complete_io(&mut stream.sock) {
            Ok((0, 0)) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection")),
            Err(error) if !is_early(&error) => Err(error),
            _ => Ok(!stream.conn.is_handshaking()),
        }
    }

    /// Reads what is there, at most `into`; `None` when nothing came within [`WAIT`]. An end is an error.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let read = match self {
            Stream::Plain(stream) => stream.read(into),
            Stream::Tls(stream) => stream.read(into),
        };
        match read {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection")),
            Ok(count) => Ok(Some(count)),
            Err(error) if is_early(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes all of it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => write_tls(stream, bytes),
        }
    }
}

/// As `write_all` and `flush`, over the pauses that a read's timeout puts into them.
fn write_tls(stream: &mut StreamOwned<ClientConnection, TcpStream>, mut bytes: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + WRITE_TIMEOUT;
    loop {
        let written = if bytes.is_empty() { stream.flush().map(|()| 0) } else { stream.write(bytes) };
        match written {
            Ok(0) if bytes.is_empty() => return Ok(()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if is_early(&error) && Instant::now() < deadline => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Stream::Plain(_)) { "Plain" } else { "Tls" })
    }
}
