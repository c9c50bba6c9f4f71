//! Each thing the proxy does to a connection, against a server that echoes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
