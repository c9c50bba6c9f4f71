//! Two workers on loopback: order, backpressure, breaks, refusals, TLS.

use std::{path::Path, time::Instant};

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use smallvec::smallvec;
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::{
    hash::Hash128,
    id::{Era, TaskId},
    transport::{Frame, Kind, Tls, Token},
    tuple::Root,
};

/// More than any test hears without listening.
const HEARD_MAX: usize = 4096;

/// What a worker hears.
#[derive(Debug)]
enum Heard {
    Frame(WorkerId, Frame),
    Up,
    Lost(Vec<Root>, Failure),
}

/// A frame to this task is one that nobody can read.
const UNREADABLE: TaskId = TaskId(0xbad);

/// Tells the test; takes frames only while the gate is open.
struct Ear {
    heard: mpsc::Sender<Heard>,
    shut: Mutex<bool>,
    opened: Notify,
}

#[async_trait::async_trait]
impl Receive for Ear {
    async fn frame(&self, peer: WorkerId, frame: Frame) -> Result<(), Failure> {
        if frame.to == UNREADABLE {
            return Err(Failure::transient("a frame that nobody can read"));
        }
        loop {
            let opened = self.opened.notified();
            if !*self.shut.lock().unwrap() {
                break;
            }
            opened.await;
        }
        let _ = self.heard.send(Heard::Frame(peer, frame)).await;
        Ok(())
    }

    async fn up(&self, _: WorkerId) {
        let _ = self.heard.send(Heard::Up).await;
    }

    async fn lost(&self, _: WorkerId, roots: Vec<Root>, failure: Failure) {
        let _ = self.heard.send(Heard::Lost(roots, failure)).await;
    }
}

struct Worker {
    transport: Grpc,
    ear: Arc<Ear>,
    heard: mpsc::Receiver<Heard>,
    me: Peer,
}

impl Worker {
    async fn start(id: u64, fingerprint: u128, listen: Listen) -> Result<Worker, Failure> {
        let (tell, heard) = mpsc::channel(HEARD_MAX);
        let ear = Arc::new(Ear { heard: tell, shut: Mutex::new(false), opened: Notify::new() });
        let identity = Identity { topology: "t".to_owned(), fingerprint: Hash128(fingerprint) };
        let transport = Grpc::start(&listen, identity, ear.clone()).await?;
        let address = transport.address().to_owned();
        Ok(Worker { transport, ear, heard, me: Peer { id: WorkerId(id), address, token: Token(id.into()) } })
    }

    async fn plain(id: u64) -> Worker {
        Worker::start(id, 7, Listen::on("127.0.0.1:0").unwrap()).await.unwrap()
    }

    fn follow(&self, peers: &[&Worker]) {
        let peers: Vec<Peer> = peers.iter().map(|peer| peer.me.clone()).collect();
        self.transport.follow(&self.me, &peers);
    }

    async fn hears<T>(&mut self, mut wanted: impl FnMut(Heard) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = wanted(self.heard.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), found).await.expect("it did not come in time")
    }

    async fn hears_up(&mut self) {
        self.hears(|heard| matches!(heard, Heard::Up).then_some(())).await;
    }

    async fn send(&self, to: &Worker, frame: Frame, root: u64) -> Result<(), Failure> {
        self.transport.link(to.me.id).unwrap().send(frame, smallvec![Root(root)]).await
    }
}

fn frame(number: u32, bytes: usize) -> Frame {
    let body = Bytes::from(vec![7; bytes]);
    Frame { era: Era(3), to: TaskId(number), from: TaskId(2), kind: Kind::Tuples, body }
}

async fn pair() -> (Worker, Worker) {
    let (mut a, mut b) = (Worker::plain(1).await, Worker::plain(2).await);
    a.follow(&[&b]);
    b.follow(&[&a]);
    a.hears_up().await;
    b.hears_up().await;
    (a, b)
}

#[tokio::test]
async fn frames_arrive_in_order_both_ways() {
    let (mut a, mut b) = pair().await;
    for number in 0..500 {
        a.send(&b, frame(number, number as usize), 1).await.unwrap();
        b.send(&a, frame(number, 10), 1).await.unwrap();
    }
    for number in 0..500 {
        let got = b.hears(|heard| if let Heard::Frame(from, got) = heard { Some((from, got)) } else { None }).await;
        assert_eq!(got, (WorkerId(1), frame(number, number as usize)));
        let got = a.hears(|heard| if let Heard::Frame(_, got) = heard { Some(got) } else { None }).await;
        assert_eq!(got, frame(number, 10));
    }
}

#[tokio::test]
async fn r1_a_peer_that_does_not_take_frames_holds_its_sender_back_and_then_goes_on() {
    let (a, mut b) = pair().await;
    *b.ear.shut.lock().unwrap() = true;
    let mut sent = 0;
    let full = async {
        while sent < 64 {
            a.send(&b, frame(sent, 1 << 20), u64::from(sent)).await.unwrap();
            sent += 1;
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(700), full).await.is_err(), "nothing holds the sender back");
    assert!((4..=8).contains(&sent), "{sent} MiB went out into a window of {WINDOW} bytes");
    *b.ear.shut.lock().unwrap() = false;
    b.ear.opened.notify_waiters();
    for number in sent..sent + 20 {
        tokio::time::timeout(Duration::from_secs(20), a.send(&b, frame(number, 1 << 20), 1)).await.unwrap().unwrap();
    }
    let last = sent + 19;
    b.hears(|heard| matches!(heard, Heard::Frame(_, got) if got.to == TaskId(last)).then_some(())).await;
}

#[tokio::test]
async fn a2_what_a_broken_link_lost_is_named_at_once_and_the_link_comes_back() {
    let (mut a, b) = pair().await;
    *b.ear.shut.lock().unwrap() = true;
    for root in 1..=5 {
        a.send(&b, frame(0, 10), root).await.unwrap();
    }
    let (address, me, began) = (b.me.address.clone(), b.me.clone(), Instant::now());
    drop(b);
    let roots = a.hears(|heard| if let Heard::Lost(roots, _) = heard { Some(roots) } else { None }).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // The first was being taken: whether it counts is not decided here.
    assert!(roots.ends_with(&[2, 3, 4, 5].map(Root)), "{roots:?}");
    assert!(!a.transport.link(WorkerId(2)).unwrap().is_up());
    let again = eventually(|| Worker::start(2, 7, Listen::on(&address).unwrap())).await;
    let mut again = Worker { me, ..again };
    again.follow(&[&a]);
    a.hears_up().await;
    a.send(&again, frame(9, 1), 9).await.unwrap();
    again.hears(|heard| matches!(heard, Heard::Frame(_, got) if got.to == TaskId(9)).then_some(())).await;
}

#[tokio::test]
async fn a2_whoever_lost_its_peers_direction_alone_hears_that_the_link_stands_again() {
    let (mut a, mut b) = pair().await;
    // From a to b; from b to a nothing happens.
    a.transport.shared.line(b.me.id).unwrap().end();
    for worker in [&mut a, &mut b] {
        worker.hears(|heard| matches!(heard, Heard::Lost(..)).then_some(())).await;
        worker.hears_up().await;
    }
    assert!(b.transport.link(a.me.id).unwrap().is_up());
}

#[tokio::test]
async fn x3_a_frame_that_is_not_taken_ends_the_connection_and_both_sides_hear_why() {
    let (mut a, mut b) = pair().await;
    a.send(&b, frame(1, 10), 1).await.unwrap();
    b.hears(|heard| matches!(heard, Heard::Frame(..)).then_some(())).await;
    a.send(&b, frame(UNREADABLE.0, 10), 2).await.unwrap();
    let why = |heard| if let Heard::Lost(roots, failure) = heard { Some((roots, failure.message)) } else { None };
    let (roots, sender) = a.hears(why).await;
    assert!(roots.ends_with(&[Root(2)]) && sender.contains("a frame that nobody can read"), "{roots:?} {sender}");
    let (roots, receiver) = b.hears(why).await;
    assert!(roots.is_empty() && receiver.contains("a frame that nobody can read"), "{receiver}");
    // The link comes back, and what follows is taken.
    a.hears_up().await;
    a.send(&b, frame(3, 10), 3).await.unwrap();
    b.hears(|heard| matches!(heard, Heard::Frame(_, got) if got.to == TaskId(3)).then_some(())).await;
}

#[tokio::test]
async fn x1_in_plaintext_the_addresses_that_were_checked_are_the_ones_that_are_connected_to() {
    let plain = Worker::plain(1).await;
    let found = dial::targets(&plain.transport.shared, "localhost:7100").await.unwrap();
    assert!(!found.is_empty() && found.iter().all(|target| target.parse::<SocketAddr>().is_ok()), "{found:?}");
    let refused = dial::targets(&plain.transport.shared, "192.0.2.1:7100").await.unwrap_err();
    assert!(refused.message.contains("192.0.2.1:7100 lies beyond loopback"), "{refused}");
    let authority = Authority::new();
    let tls = secured(2, authority.files("localhost", false)).await;
    assert_eq!(dial::targets(&tls.transport.shared, "localhost:7100").await.unwrap(), ["localhost:7100"]);
}

/// The port of a worker that was dropped is free a moment later.
async fn eventually<F: Future<Output = Result<Worker, Failure>>>(mut start: impl FnMut() -> F) -> Worker {
    let began = Instant::now();
    loop {
        match start().await {
            Ok(worker) => return worker,
            Err(failure) => assert!(began.elapsed() < Duration::from_secs(20), "{failure}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a caller has tried to connect several times in vain.
async fn tries_in_vain(caller: &Worker, called: &Worker) {
    let line = caller.transport.shared.line(called.me.id).expect("it tries");
    let began = Instant::now();
    while line.failed() < 5 {
        assert!(began.elapsed() < Duration::from_secs(20), "only {} tries have failed", line.failed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a caller that has tried several times was never let in.
async fn refused(caller: &Worker, called: &Worker) -> bool {
    tries_in_vain(caller, called).await;
    !called.transport.shared.callers.lock().unwrap().contains_key(&caller.me.id)
}

#[tokio::test]
async fn x1_strangers_and_other_versions_are_refused() {
    let member = Worker::plain(1).await;
    let other = Worker::start(2, 8, Listen::on("127.0.0.1:0").unwrap()).await.unwrap();
    let stranger = Worker::plain(3).await;
    member.follow(&[&other]);
    other.follow(&[&member]);
    stranger.follow(&[&member]);
    assert!(refused(&other, &member).await, "another fingerprint");
    assert!(refused(&stranger, &member).await, "not a member");
    // The same caller, once it is a member: what refused it was the rule.
    let mut late = stranger;
    member.follow(&[&late]);
    late.hears_up().await;
}

#[tokio::test]
async fn x1_a_worker_that_is_no_peer_any_more_is_cut_off() {
    let (mut a, mut b) = pair().await;
    b.follow(&[]);
    a.hears(|heard| matches!(heard, Heard::Lost(..)).then_some(())).await;
    tries_in_vain(&a, &b).await;
    assert!(a.send(&b, frame(66, 1), 66).await.is_err() && !a.transport.link(WorkerId(2)).unwrap().is_up());
    a.follow(&[&b]);
    b.follow(&[&a]);
    b.hears_up().await;
}

/// An authority of its own in a folder.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, folder }
    }

    fn path(&self, name: &str) -> &Path {
        Box::leak(self.folder.path().join(name).into_boxed_path())
    }

    /// The files of a worker with a certificate for `host`.
    fn files(&self, host: &str, expired: bool) -> Tls {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let name = format!("{host}-{expired}");
        let (at, secret) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(at, certificate.pem()).unwrap();
        std::fs::write(secret, key.serialize_pem()).unwrap();
        Tls { authority: self.path("ca.pem").into(), certificate: at.into(), key: secret.into() }
    }
}

async fn secured(id: u64, tls: Tls) -> Worker {
    Worker::start(id, 7, Listen::on("127.0.0.1:0").unwrap().tls(tls)).await.unwrap()
}

#[tokio::test]
async fn x1_workers_of_one_authority_talk_over_tls() {
    let authority = Authority::new();
    let mut a = secured(1, authority.files("127.0.0.1", false)).await;
    let mut b = secured(2, authority.files("127.0.0.1", false)).await;
    a.follow(&[&b]);
    b.follow(&[&a]);
    a.hears_up().await;
    a.send(&b, frame(5, 100_000), 1).await.unwrap();
    b.hears(|heard| matches!(heard, Heard::Frame(_, got) if got.to == TaskId(5)).then_some(())).await;
}

#[tokio::test]
async fn x1_a_wrong_authority_a_wrong_name_an_expired_certificate_and_plaintext_are_refused() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let member = secured(1, authority.files("127.0.0.1", false)).await;
    let mixed = Tls { authority: authority.path("ca.pem").into(), ..foreign.files("127.0.0.1", false) };
    let callers = [
        ("a certificate of another authority", secured(2, mixed).await),
        ("an expired certificate", secured(3, authority.files("127.0.0.1", true)).await),
        ("plaintext", Worker::plain(4).await),
    ];
    member.follow(&callers.iter().map(|(_, caller)| caller).collect::<Vec<_>>());
    for (what, caller) in &callers {
        caller.follow(&[&member]);
        assert!(refused(caller, &member).await, "{what}");
    }
    // The other way round: a caller does not talk to a server that cannot show its name.
    let misnamed = secured(5, authority.files("elsewhere.example", false)).await;
    let caller = secured(6, authority.files("127.0.0.1", false)).await;
    misnamed.follow(&[&caller]);
    caller.follow(&[&misnamed]);
    assert!(refused(&caller, &misnamed).await, "a server under another name");
}

#[tokio::test]
async fn x1_a_port_for_everybody_is_not_opened_in_plaintext_and_files_must_be_pem() {
    let refused = Worker::start(1, 7, Listen::on("0.0.0.0:0").unwrap()).await.err().unwrap();
    assert!(refused.message.contains("beyond loopback"), "{refused}");
    let authority = Authority::new();
    let files = authority.files("127.0.0.1", false);
    std::fs::write(&files.key, "SECRET-CANARY").unwrap();
    let refused = Worker::start(1, 7, Listen::on("127.0.0.1:0").unwrap().tls(files)).await.err().unwrap();
    assert!(refused.message.contains(".key is no PEM file") && !refused.message.contains("CANARY"), "{refused}");
}

#[tokio::test]
async fn x3_a_claimed_length_beyond_the_limit_ends_the_call_before_memory_is_set_aside() {
    use tonic::{Request, client::Grpc as Client, metadata::MetadataValue, transport::Endpoint};
    let (member, peer) = (Worker::plain(1).await, Worker::plain(2).await);
    member.follow(&[&peer]);
    let channel = Endpoint::from_shared(format!("http://{}", member.me.address)).unwrap().connect().await.unwrap();
    // The client's own limits are off: this is what a hostile one would send.
    let mut client = Client::new(channel);
    client.ready().await.unwrap();
    let large = frame(1, crate::transport::FRAME_BYTES_MAX);
    let frames = futures_util::stream::iter([(1, large)]);
    let mut request = Request::new(frames);
    let hello = hello::Hello::new(&member.transport.shared.identity, WorkerId(2), &member.me).encode();
    request.metadata_mut().insert_bin(HELLO, MetadataValue::from_bytes(&hello));
    let mut answers = client
        .streaming(request, http::uri::PathAndQuery::from_static(PATH), codec::Caller)
        .await
        .unwrap()
        .into_inner();
    assert!(!matches!(answers.message().await, Ok(Some(_))), "it was taken");
}
