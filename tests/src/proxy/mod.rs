//! A TCP proxy on loopback that breaks on request: the network between tine and a real server.
//!
//! ```text
//!   client ---- Proxy::address() ---- [mode, hook] ---- the server
//! ```
//!
//! The *mode* holds for all connections: [`pass`](Proxy::pass), [`refuse`](Proxy::refuse), [`delay`](Proxy::delay),
//! [`swallow_replies`](Proxy::swallow_replies), [`half_open`](Proxy::half_open). [`cut`](Proxy::cut) resets those that are open
//! now. A *hook* looks at what clients send and answers with a [`Verdict`]: with
//! [`once`](Proxy::once)`(b"COMMIT", Verdict::CutBeforeReply)` the server commits and the client never learns of it.
//!
//! A needle is searched in the bytes as they travel: TLS and compression hide it.

mod connection;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::connection::listen;
use crate::services::free_port;

/// How many ports are tried.
const BIND_TRIES: u32 = 20;

/// What happens to bytes a hook has seen. The connection it concerns is the one that sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are forwarded.
    Pass,
    /// They are not forwarded and the connection is cut: the server certainly did not get them.
    CutBefore,
    /// They are forwarded and the client is cut off at once; the server reads them and then an orderly end.
    CutAfter,
    /// They are forwarded, the server's answer is awaited and thrown away, then the connection is cut: the server
    /// certainly acted, the client does not know.
    CutBeforeReply,
    /// They are forwarded, and no reply on this connection passes any more.
    SwallowReplies,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Refuse,
    Delay(Duration),
    SwallowReplies,
    HalfOpen,
}

/// What every connection watches: the mode, and how many times everything was cut.
#[derive(Debug, Clone, Copy)]
struct Order {
    mode: Mode,
    cuts: u64,
}

type Hook = Box<dyn FnMut(u64, &[u8]) -> Verdict + Send>;

struct Inside {
    upstream: Mutex<String>,
    address: SocketAddr,
    order: watch::Sender<Order>,
    hook: Mutex<Option<Hook>>,
    hits: watch::Sender<u64>,
    open: AtomicUsize,
    accepted: AtomicU64,
}

/// A proxy in front of one address. It ends, with its connections, when it is dropped.
pub struct Proxy {
    inside: Arc<Inside>,
    task: JoinHandle<()>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, upstream) = (self.inside.address, self.inside.upstream());
        f.debug_struct("Proxy").field("address", &address).field("upstream", &upstream).finish_non_exhaustive()
    }
}

/// A port that was free may be another's a moment later.
async fn bind() -> io::Result<(SocketAddr, TcpListener)> {
    let mut tries = 0;
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok((address, listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

impl Proxy {
    /// Listens on a free loopback port in front of `upstream` (`host:port`), which need not run yet.
    pub async fn start(upstream: impl Into<String>) -> io::Result<Self> {
        let (address, listener) = bind().await?;
        let inside = Arc::new(Inside {
            upstream: Mutex::new(upstream.into()),
            address,
            order: watch::Sender::new(Order { mode: Mode::Pass, cuts: 0 }),
            hook: Mutex::new(None),
            hits: watch::Sender::new(0),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
        });
        let task = tokio::spawn(listen(inside.clone(), listener));
        Ok(Self { inside, task })
    }

    /// Where clients connect: `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.inside.address.to_string()
    }

    /// The port of [`address`](Self::address).
    pub fn port(&self) -> u16 {
        self.inside.address.port()
    }

    /// `url` with the proxy in the place of the server's address.
    pub fn url(&self, url: &str) -> String {
        url.replacen(&self.inside.upstream(), &self.address(), 1)
    }

    /// Sends new connections to `upstream` from now on: for a server that has to know the proxy's address before it starts,
    /// such as a broker that advertises it.
    pub fn forward_to(&self, upstream: impl Into<String>) {
        *lock(&self.inside.upstream) = upstream.into();
    }

    /// Everything passes again. Connections whose replies were swallowed stay mute: a protocol with a hole is no protocol.
    pub fn pass(&self) {
        self.set(Mode::Pass);
    }

    /// New connections are refused, as if nothing listened. Open ones go on: [`cut`](Self::cut) them too for a dead server.
    pub fn refuse(&self) {
        self.set(Mode::Refuse);
    }

    /// Every chunk, either way, waits for `time` before it is forwarded.
    pub fn delay(&self, time: Duration) {
        self.set(Mode::Delay(time));
    }

    /// Requests reach the server, replies are thrown away.
    pub fn swallow_replies(&self) {
        self.set(Mode::SwallowReplies);
    }

    /// Nothing moves either way, and nobody is told: a pulled cable. New connections are accepted and hang.
    pub fn half_open(&self) {
        self.set(Mode::HalfOpen);
    }

    /// Resets all open connections now; the mode stays.
    pub fn cut(&self) {
        self.inside.order.send_modify(|order| order.cuts += 1);
    }

    /// Shows everything clients send to `hook`, with a number for the connection, and does what it says.
    pub fn hook(&self, hook: impl FnMut(u64, &[u8]) -> Verdict + Send + 'static) {
        *lock(&self.inside.hook) = Some(Box::new(hook));
    }

    /// The next time a client sends `needle`, gives `verdict` on the bytes that complete it; everything else passes.
    pub fn once(&self, needle: &[u8], verdict: Verdict) {
        let (needle, mut tails, mut armed) = (needle.to_vec(), HashMap::<u64, Vec<u8>>::new(), true);
        self.hook(move |connection, bytes| {
            if !armed || needle.is_empty() {
                return Verdict::Pass;
            }
            // The needle may lie across two reads.
            let seen = tails.entry(connection).or_default();
            seen.extend_from_slice(bytes);
            if seen.windows(needle.len()).any(|window| window == needle) {
                armed = false;
                return verdict;
            }
            seen.drain(..seen.len().saturating_sub(needle.len() - 1));
            Verdict::Pass
        });
    }

    /// How many times a hook gave another verdict than `Pass`.
    pub fn hits(&self) -> u64 {
        *self.inside.hits.borrow()
    }

    /// Waits until hooks have hit at least `count` times; `false` after `deadline`.
    pub async fn await_hits(&self, count: u64, deadline: Duration) -> bool {
        let mut hits = self.inside.hits.subscribe();
        timeout(deadline, hits.wait_for(|seen| *seen >= count)).await.is_ok_and(|seen| seen.is_ok())
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.inside.open.load(Ordering::SeqCst)
    }

    /// How many connections were accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.inside.accepted.load(Ordering::SeqCst)
    }

    fn set(&self, mode: Mode) {
        self.inside.order.send_modify(|order| order.mode = mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

impl Inside {
    fn upstream(&self) -> String {
        lock(&self.upstream).clone()
    }

    fn verdict(&self, connection: u64, bytes: &[u8]) -> Verdict {
        let verdict = lock(&self.hook).as_mut().map_or(Verdict::Pass, |hook| hook(connection, bytes));
        if verdict != Verdict::Pass {
            self.hits.send_modify(|hits| *hits += 1);
        }
        verdict
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
