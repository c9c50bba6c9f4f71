//! Serves the port: judges callers, takes in their frames one by one, and answers how far it has come.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, PoisonError},
};

use futures_util::{Stream, StreamExt, stream};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Service},
    server::{Grpc, StreamingService},
    transport::{Server, ServerTlsConfig, server::TcpIncoming},
};

use super::{
    CONNECT_TIMEOUT, HELLO, HTTP_WINDOW, PATH, PING_EVERY, PING_TIMEOUT, Shared,
    codec::{Called, TAKEN_BYTES},
    hello::{Hello, Refusal, Roster},
};
use crate::{
    failure::Failure,
    id::WorkerId,
    transport::{FRAME_BYTES_MAX, Frame, FrameError, Link},
};

/// Streams of one connection: a worker opens one.
const STREAMS_MAX: u32 = 4;

/// Bytes of a request's headers: a hello, and what HTTP/2 needs.
const HEADERS_MAX: u32 = 16 << 10;

/// Serves the port until `closed` resolves.
pub(super) fn serve(shared: Arc<Shared>, port: TcpListener, closed: oneshot::Receiver<()>) -> Result<(), Failure> {
    let mut server = Server::builder()
        .initial_stream_window_size(HTTP_WINDOW)
        .initial_connection_window_size(HTTP_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADERS_MAX)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT));
    if let Some((authority, pem)) = &shared.pem {
        let tls =
            ServerTlsConfig::new().identity(pem.clone()).client_ca_root(authority.clone()).timeout(CONNECT_TIMEOUT);
        let wrong = |error| Failure::fatal(format!("the TLS files of {}: {error}", shared.listen));
        server = server.tls_config(tls).map_err(wrong)?;
    }
    let incoming = TcpIncoming::from(port).with_nodelay(Some(true));
    let (listen, entrance) = (shared.listen.to_string(), Entrance(shared));
    tokio::spawn(async move {
        let closed = async { drop(closed.await) };
        if let Err(error) = server.serve_with_incoming_shutdown(entrance, incoming, closed).await {
            tracing::error!("serving {listen}: {error}");
        }
    });
    Ok(())
}

/// The port as an HTTP service.
#[derive(Clone)]
struct Entrance(Arc<Shared>);

impl Service<http::Request<Body>> for Entrance {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("this port is for the workers of a topology").into_http());
            }
            let mut grpc =
                Grpc::new(Called).max_decoding_message_size(FRAME_BYTES_MAX).max_encoding_message_size(TAKEN_BYTES);
            Ok(grpc.streaming(Calls(shared), request).await)
        })
    }
}

/// Answers calls.
struct Calls(Arc<Shared>);

/// The number of the last frame taken; or why the next one was not, which ends the call.
type Taken = Result<u64, String>;

type Answers = Pin<Box<dyn Stream<Item = Result<u64, Status>> + Send>>;

impl StreamingService<(u64, Frame)> for Calls {
    type Response = u64;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<Streaming<(u64, Frame)>>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let from = admit(&shared, &request)?;
            let (taken, answers) = watch::channel(Ok(0));
            let mut callers = shared.callers.lock().unwrap_or_else(PoisonError::into_inner);
            // Workers that registered anew call under other names.
            callers.retain(|caller, taking| caller == &from || !taking.is_finished());
            let before = callers.remove(&from).filter(|before| !before.is_finished());
            let taking = tokio::spawn(take_in(shared.clone(), (from, before), request.into_inner(), taken));
            callers.insert(from, taking);
            drop(callers);
            let next = |answers: Option<watch::Receiver<Taken>>| async move {
                let mut answers = answers?;
                answers.changed().await.ok()?;
                let taken = answers.borrow_and_update().clone();
                match taken {
                    Ok(number) => Some((Ok(number), Some(answers))),
                    Err(why) => Some((Err(Status::aborted(why)), None)),
                }
            };
            Ok(Response::new(stream::unfold(Some(answers), next).boxed()))
        })
    }
}

/// Who calls, if it is let in.
fn admit(shared: &Shared, request: &Request<Streaming<(u64, Frame)>>) -> Result<WorkerId, Status> {
    let address = request.remote_addr().map_or_else(|| "somewhere".to_owned(), |address| address.to_string());
    let hello = request.metadata().get_bin(HELLO).ok_or_else(|| Status::unauthenticated("no hello"))?;
    let bytes = hello.to_bytes().map_err(|_| Status::unauthenticated("no hello"))?;
    let hello = Hello::decode(&bytes).map_err(|error| Status::failed_precondition(error.to_string()))?;
    let admitted = hello.admitted(&shared.identity, &shared.roster.borrow());
    admitted.map(|()| hello.from).map_err(|refusal| match refusal {
        Refusal::Stranger(why) => {
            tracing::debug!("a caller from {address} is refused: {why}");
            Status::permission_denied(why)
        }
        Refusal::Different(why) => {
            tracing::warn!("a worker at {address} is refused: {why}");
            Status::failed_precondition(why)
        }
    })
}

/// Hands on a caller's frames until the connection breaks, or the caller is no peer any more. Who called `before` knows that
/// this line broke; frames of the new one do not come among those of the old.
async fn take_in(
    shared: Arc<Shared>,
    (from, before): (WorkerId, Option<JoinHandle<()>>),
    mut frames: Streaming<(u64, Frame)>,
    taken: watch::Sender<Taken>,
) {
    if let Some(before) = before {
        before.abort();
        // What it says of its end is said before this one's beginning.
        let _ = before.await;
        shared.receive.lost(from, Vec::new(), Failure::transient("the peer has called again")).await;
    }
    // Its direction stands again, and ours may never have broken: whoever dialled last says that both do.
    if shared.line(from).is_some_and(|line| line.is_up()) {
        shared.receive.up(from).await;
    }
    let mut roster = shared.roster.subscribe();
    let me = roster.borrow().me.as_ref().map(|me| me.id);
    let mut expected = 1;
    let failure = loop {
        let next = tokio::select! {
            next = frames.message() => next,
            gone = roster.wait_for(|now| !is_peer(now, me, from)) => {
                drop(gone);
                return;
            }
        };
        match next {
            Ok(Some((found, _))) if found != expected => {
                break Failure::transient(FrameError::Number { expected, found }.to_string());
            }
            Ok(Some((number, frame))) => match shared.receive.frame(from, frame).await {
                Ok(()) => {
                    expected += 1;
                    drop(taken.send_replace(Ok(number)));
                }
                Err(failure) => break failure,
            },
            Ok(None) => break Failure::transient("the peer has closed it"),
            Err(status) => break Failure::transient(status.message().to_owned()),
        }
    };
    tracing::info!("the link from {from} broke: {failure}");
    drop(taken.send_replace(Err(failure.message.clone())));
    shared.receive.lost(from, Vec::new(), failure).await;
}

fn is_peer(now: &Roster, me: Option<WorkerId>, from: WorkerId) -> bool {
    now.me.as_ref().map(|me| me.id) == me && now.peers.contains(&from)
}
