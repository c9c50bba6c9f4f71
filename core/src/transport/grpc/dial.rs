//! Keeps a link up: connects, introduces itself, carries frames out and answers in, and begins again when it breaks.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::stream;
use rand::Rng;
use tonic::{
    Code, Request, Streaming,
    client::Grpc,
    metadata::MetadataValue,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use super::{
    CONNECT_TIMEOUT, HELLO, HTTP_WINDOW, PATH, PING_EVERY, PING_TIMEOUT, Shared,
    codec::{Caller, TAKEN_BYTES},
    hello::Hello,
    line::Line,
};
use crate::{
    failure::Failure,
    transport::{FRAME_BYTES_MAX, Peer},
};

/// First pause before connecting again; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(20);

/// Longest pause: a peer that comes back is found within a second.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Keeps the link to a peer up until this future is dropped.
pub(super) async fn keep_up(shared: Arc<Shared>, peer: Peer, line: Arc<Line>) {
    let (mut pause, mut told) = (PAUSE_FIRST, String::new());
    loop {
        let failure = match connect(&shared, &peer, &line).await {
            Ok(answers) => {
                (pause, told) = (PAUSE_FIRST, String::new());
                line.stands();
                shared.receive.up(peer.id).await;
                let failure = carry(answers, &line).await;
                tracing::warn!("the link to {} at {} broke: {failure}", peer.id, peer.address);
                shared.receive.lost(peer.id, line.end(), failure.clone()).await;
                failure
            }
            Err(failure) => {
                let tries = line.not_let_in();
                tracing::debug!("try {tries} to connect to {} at {} failed: {failure}", peer.id, peer.address);
                failure
            }
        };
        if told != failure.message {
            tracing::info!("connecting to {} at {} again: {failure}", peer.id, peer.address);
            told = failure.message;
        }
        let jitter = rand::rng().random_range(0..=pause.as_millis() as u64 / 4);
        tokio::time::sleep(pause + Duration::from_millis(jitter)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Connects and is let in.
async fn connect(shared: &Shared, peer: &Peer, line: &Line) -> Result<Streaming<u64>, Failure> {
    let lost = |error: &dyn std::fmt::Display| Failure::transient(format!("{error}"));
    let attempt = async {
        let channel = channel(shared, peer).await?;
        let mut client =
            Grpc::new(channel).max_decoding_message_size(TAKEN_BYTES).max_encoding_message_size(FRAME_BYTES_MAX);
        client.ready().await.map_err(|error| lost(&chain(&error)))?;
        let frames = stream::unfold(line.open(), |mut frames| async { frames.recv().await.map(|next| (next, frames)) });
        let mut request = Request::new(frames);
        let hello = Hello::new(&shared.identity, line.caller(), peer);
        let mut hello = MetadataValue::from_bytes(&hello.encode());
        hello.set_sensitive(true);
        request.metadata_mut().insert_bin(HELLO, hello);
        let path = http::uri::PathAndQuery::from_static(PATH);
        client.streaming(request, path, Caller).await.map(tonic::Response::into_inner).map_err(|status| {
            match status.code() {
                Code::FailedPrecondition | Code::PermissionDenied => {
                    lost(&format_args!("refused: {}", status.message()))
                }
                _ => lost(&chain(&status)),
            }
        })
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(connected) => connected,
        Err(_) => Err(Failure::transient(format!("no answer within {CONNECT_TIMEOUT:?}"))),
    }
}

async fn channel(shared: &Shared, peer: &Peer) -> Result<Channel, Failure> {
    let mut failure = Failure::transient(format!("{} has no address", peer.address));
    for target in targets(shared, &peer.address).await? {
        match connect_to(shared, &target).await {
            Ok(channel) => return Ok(channel),
            Err(why) => failure = why,
        }
    }
    Err(failure)
}

/// Where a peer is: with TLS its name, which its certificate must show; in plaintext the addresses that were checked, because
/// the name may mean another one a moment later.
pub(super) async fn targets(shared: &Shared, address: &str) -> Result<Vec<String>, Failure> {
    if shared.pem.is_some() {
        return Ok(vec![address.to_owned()]);
    }
    let found = tokio::net::lookup_host(address).await;
    let found: Vec<_> = found.map_err(|error| Failure::transient(format!("{address}: {error}")))?.collect();
    match found.iter().find(|address| !shared.listen.admits(address.ip())) {
        None => Ok(found.iter().map(ToString::to_string).collect()),
        Some(beyond) => Err(Failure::transient(format!(
            "{beyond} lies beyond loopback, and plaintext is not safe there: give TLS files, or ask for plaintext by name"
        ))),
    }
}

async fn connect_to(shared: &Shared, target: &str) -> Result<Channel, Failure> {
    let lost = |error: &dyn std::fmt::Display| Failure::transient(format!("{error}"));
    let scheme = if shared.pem.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{target}"))
        .map_err(|error| lost(&error))?
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(HTTP_WINDOW)
        .initial_connection_window_size(HTTP_WINDOW)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    if let Some((authority, pem)) = &shared.pem {
        let tls = ClientTlsConfig::new().ca_certificate(authority.clone()).identity(pem.clone());
        endpoint = endpoint.tls_config(tls).map_err(|error| lost(&chain(&error)))?;
    }
    endpoint.connect().await.map_err(|error| lost(&chain(&error)))
}

/// Takes in answers until the connection breaks.
async fn carry(answers: Streaming<u64>, line: &Line) -> Failure {
    let mut answers = pin!(answers);
    loop {
        let failure = match answers.message().await {
            Ok(Some(number)) => match line.taken(number) {
                Ok(()) => continue,
                Err(failure) => failure,
            },
            Ok(None) => Failure::transient("the peer has closed it"),
            Err(status) if status.code() == Code::Aborted => {
                Failure::transient(format!("the peer has ended it: {}", status.message()))
            }
            Err(status) => Failure::transient(chain(&status)),
        };
        return failure;
    }
}

/// An error with its causes: tonic's own words are "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if words.last() != Some(&text) {
            words.push(text);
        }
        next = cause.source();
    }
    words.join(": ")
}
