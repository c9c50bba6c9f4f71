//! What happens to one connection: accepted, joined to the server, its bytes moved both ways as mode and hook say, ended.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Inside, Mode, Order, Verdict, lock};

/// One read: large enough that load through the proxy is not about the proxy.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long the server may take to read what was forwarded before a cut.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

/// Accepts; while connections are refused there is no listener at all.
pub(super) async fn listen(inside: Arc<Inside>, listener: TcpListener) {
    let mut order = inside.order.subscribe();
    let mut listener = Some(listener);
    loop {
        let refuse = order.borrow_and_update().mode == Mode::Refuse;
        match (&listener, refuse) {
            (Some(_), true) => listener = None,
            (None, false) => {
                listener = TcpListener::bind(inside.address).await.ok();
                if listener.is_none() {
                    // Somebody took the port meanwhile: it is tried until they let go or the test gives up.
                    tokio::time::sleep(crate::POLL).await;
                }
            }
            (None, true) => {
                if order.changed().await.is_err() {
                    return;
                }
            }
            (Some(open), false) => tokio::select! {
                biased;
                changed = order.changed() => if changed.is_err() { return },
                client = open.accept() => if let Ok((client, _)) = client {
                    let nth = inside.accepted.fetch_add(1, Ordering::SeqCst);
                    let cuts = order.borrow().cuts;
                    tokio::spawn(serve(inside.clone(), client, nth, cuts));
                },
            },
        }
    }
}

/// How a connection ends.
enum End {
    /// Both sides are told with a reset.
    Reset,
    /// The client is told with a reset; the server reads all that was forwarded, then an orderly end.
    ClientCut,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Reset
    }
}

/// What happens to the server's next bytes on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replies {
    Pass,
    Swallow,
    Cut,
}

/// One connection, from accept to its end. `cuts` is how often everything had been cut when it was accepted.
async fn serve(inside: Arc<Inside>, client: TcpStream, nth: u64, cuts: u64) {
    inside.open.fetch_add(1, Ordering::SeqCst);
    // An error here means that a socket is already gone, which is what this connection came to.
    let _ = relay(&inside, client, nth, cuts).await;
    inside.open.fetch_sub(1, Ordering::SeqCst);
}

async fn relay(inside: &Inside, mut client: TcpStream, nth: u64, cuts: u64) -> io::Result<()> {
    let mut order = inside.order.subscribe();
    let cut = |order: &Order| order.cuts != cuts;
    let server = tokio::select! {
        server = connect(inside) => server,
        _ = order.wait_for(cut) => Err(io::ErrorKind::ConnectionAborted.into()),
    };
    let Ok(mut server) = server else { return client.set_zero_linger() };
    client.set_nodelay(true)?;
    let end = tokio::select! {
        end = exchange(inside, nth, &mut client, &mut server) => end,
        _ = order.wait_for(cut) => Err(End::Reset),
    };
    match end {
        Ok(()) => Ok(()),
        Err(End::Reset) => client.set_zero_linger().and(server.set_zero_linger()),
        Err(End::ClientCut) => {
            client.set_zero_linger()?;
            drop(client);
            let _ = timeout(DRAIN_DEADLINE, drain(&mut server)).await;
            Ok(())
        }
    }
}

async fn connect(inside: &Inside) -> io::Result<TcpStream> {
    gate(inside).await;
    let upstream = inside.upstream();
    let server = TcpStream::connect(upstream).await?;
    server.set_nodelay(true)?;
    Ok(server)
}

/// Moves bytes both ways until both sides have ended, or one of them fails or is cut.
async fn exchange(inside: &Inside, nth: u64, client: &mut TcpStream, server: &mut TcpStream) -> Result<(), End> {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let replies = Mutex::new(Replies::Pass);
    tokio::try_join!(
        requests(inside, nth, from_client, to_server, &replies),
        answers(inside, from_server, to_client, &replies),
    )?;
    Ok(())
}

async fn requests(
    inside: &Inside,
    nth: u64,
    mut client: ReadHalf<'_>,
    mut server: WriteHalf<'_>,
    replies: &Mutex<Replies>,
) -> Result<(), End> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = client.read(&mut buffer).await?;
        gate(inside).await;
        if length == 0 {
            return Ok(server.shutdown().await?);
        }
        let bytes = &buffer[..length];
        let verdict = inside.verdict(nth, bytes);
        match verdict {
            Verdict::Pass | Verdict::CutAfter => {}
            Verdict::CutBefore => return Err(End::ClientCut),
            Verdict::CutBeforeReply => set(replies, Replies::Cut),
            Verdict::SwallowReplies => set(replies, Replies::Swallow),
        }
        server.write_all(bytes).await?;
        if verdict == Verdict::CutAfter {
            return Err(End::ClientCut);
        }
    }
}

async fn answers(
    inside: &Inside,
    mut server: ReadHalf<'_>,
    mut client: WriteHalf<'_>,
    replies: &Mutex<Replies>,
) -> Result<(), End> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = server.read(&mut buffer).await?;
        gate(inside).await;
        if length == 0 {
            return Ok(client.shutdown().await?);
        }
        if inside.order.borrow().mode == Mode::SwallowReplies {
            set(replies, Replies::Swallow);
        }
        match *lock(replies) {
            Replies::Swallow => continue,
            Replies::Cut => return Err(End::ClientCut),
            Replies::Pass => {}
        }
        client.write_all(&buffer[..length]).await?;
    }
}

/// Holds bytes back while the mode says so.
async fn gate(inside: &Inside) {
    let mut order = inside.order.subscribe();
    // The sender lives in `inside`, so waiting cannot fail.
    let mode = order.wait_for(|order| order.mode != Mode::HalfOpen).await.map(|order| order.mode);
    if let Ok(Mode::Delay(time)) = mode {
        tokio::time::sleep(time).await;
    }
}

/// Ends the server's side in good order: what was forwarded is read there, what it answers is thrown away.
async fn drain(server: &mut TcpStream) -> io::Result<()> {
    server.shutdown().await?;
    let mut buffer = vec![0; CHUNK_BYTES];
    while server.read(&mut buffer).await? > 0 {}
    Ok(())
}

fn set(replies: &Mutex<Replies>, to: Replies) {
    *lock(replies) = to;
}
