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

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::services::free_port;

/// One read: large enough that load through the proxy is not about the proxy.
const CHUNK_BYTES: usize = 64 * 1024;
/// How many ports are tried.
const BIND_TRIES: u32 = 20;
/// How long the server may take to read what was forwarded before a cut.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

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

/// Accepts; while connections are refused there is no listener at all.
async fn listen(inside: Arc<Inside>, listener: TcpListener) {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Answers each line with `<line>!`, and remembers the lines.
    struct Echo {
        address: String,
        heard: Arc<Mutex<Vec<u8>>>,
    }

    impl Echo {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let heard = Arc::new(Mutex::new(Vec::new()));
            let memory = heard.clone();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let memory = memory.clone();
                    tokio::spawn(async move {
                        let mut buffer = [0; 1024];
                        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                            lock(&memory).extend_from_slice(&buffer[..length]);
                            if stream.write_all(&[&buffer[..length], b"!"].concat()).await.is_err() {
                                return;
                            }
                        }
                    });
                }
            });
            Self { address, heard }
        }

        async fn heard(&self, text: &str) -> bool {
            crate::eventually(DEADLINE, || async { lock(&self.heard).ends_with(text.as_bytes()) }).await
        }
    }

    async fn pair() -> (Echo, Proxy) {
        let echo = Echo::start().await;
        let proxy = Proxy::start(&echo.address).await.unwrap();
        (echo, proxy)
    }

    async fn ask(client: &mut TcpStream, text: &str) -> io::Result<String> {
        client.write_all(text.as_bytes()).await?;
        let mut answer = vec![0; text.len() + 1];
        timeout(DEADLINE, client.read_exact(&mut answer)).await??;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn stays_silent(client: &mut TcpStream) -> bool {
        timeout(Duration::from_millis(100), client.read_u8()).await.is_err()
    }

    #[tokio::test]
    async fn bytes_pass_and_url_names_the_proxy() {
        let (echo, proxy) = pair().await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut client, "hello").await.unwrap(), "hello!");
        assert_eq!(proxy.url(&format!("x://{}/y", echo.address)), format!("x://{}/y", proxy.address()));
        assert_eq!((proxy.open(), proxy.accepted()), (1, 1));
    }

    #[tokio::test]
    async fn a_cut_resets_what_is_open_and_lets_new_ones_in() {
        let (_echo, proxy) = pair().await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut client, "a").await.unwrap();
        proxy.cut();
        assert_eq!(client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut client, "b").await.unwrap(), "b!");
    }

    #[tokio::test]
    async fn refusal_keeps_open_ones_and_ends_with_pass() {
        let (_echo, proxy) = pair().await;
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut old, "a").await.unwrap();
        proxy.refuse();
        let refused = || async {
            TcpStream::connect(proxy.address()).await.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
        };
        assert!(crate::eventually(DEADLINE, refused).await);
        assert_eq!(ask(&mut old, "b").await.unwrap(), "b!");
        proxy.pass();
        let accepted = || async { TcpStream::connect(proxy.address()).await.is_ok() };
        assert!(crate::eventually(DEADLINE, accepted).await);
    }

    #[tokio::test]
    async fn swallowed_replies_leave_the_server_informed_and_the_client_mute() {
        let (echo, proxy) = pair().await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.swallow_replies();
        client.write_all(b"pay").await.unwrap();
        assert!(echo.heard("pay").await);
        assert!(stays_silent(&mut client).await);
        proxy.pass();
        client.write_all(b"again").await.unwrap();
        assert!(echo.heard("again").await);
        assert!(stays_silent(&mut client).await, "a connection with a hole in it stays mute");
    }

    #[tokio::test]
    async fn half_open_holds_everything_back_until_pass() {
        let (echo, proxy) = pair().await;
        proxy.half_open();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"x").await.unwrap();
        assert!(stays_silent(&mut client).await);
        assert!(lock(&echo.heard).is_empty());
        proxy.pass();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_delay_delays_both_ways() {
        let (_echo, proxy) = pair().await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut client, "a").await.unwrap();
        proxy.delay(Duration::from_millis(40));
        let start = std::time::Instant::now();
        ask(&mut client, "b").await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(80));
    }

    #[tokio::test]
    async fn a_needle_across_two_reads_cuts_once_before_its_reply() {
        let (echo, proxy) = pair().await;
        proxy.once(b"COMMIT", Verdict::CutBeforeReply);
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut client, "begin COM").await.unwrap(), "begin COM!");
        assert!(ask(&mut client, "MIT").await.is_err());
        assert!(proxy.await_hits(1, DEADLINE).await);
        assert!(echo.heard("COMMIT").await, "the server acted");
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut client, "COMMIT").await.unwrap(), "COMMIT!");
        assert_eq!(proxy.hits(), 1);
    }

    #[tokio::test]
    async fn bytes_cut_before_never_arrive_and_bytes_cut_after_do() {
        let (echo, proxy) = pair().await;
        for (verdict, heard) in [(Verdict::CutBefore, "begin"), (Verdict::CutAfter, "beginCOMMIT")] {
            lock(&echo.heard).clear();
            proxy.once(b"COMMIT", verdict);
            let mut client = TcpStream::connect(proxy.address()).await.unwrap();
            ask(&mut client, "begin").await.unwrap();
            assert!(ask(&mut client, "COMMIT").await.is_err());
            assert!(echo.heard(heard).await, "{verdict:?}");
            assert!(crate::eventually(DEADLINE, || async { proxy.open() == 0 }).await);
            assert_eq!(*lock(&echo.heard), heard.as_bytes(), "{verdict:?}");
        }
    }

    #[tokio::test]
    async fn an_end_of_the_server_reaches_the_client() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap().to_string()).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        drop(listener.accept().await.unwrap());
        let mut rest = Vec::new();
        assert_eq!(timeout(DEADLINE, client.read_to_end(&mut rest)).await.unwrap().unwrap(), 0);
    }
}
