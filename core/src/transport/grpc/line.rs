//! The sender's end of a link: credit, and what was sent and not taken yet. It outlives its connections.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    failure::Failure,
    id::WorkerId,
    transport::{FRAME_BYTES_MAX, Frame, Link, Roots, WINDOW},
    tuple::Root,
};

/// What the smallest frame costs: so that the window bounds frames as well as bytes.
const COST_MIN: usize = 1024;

/// More frames than the window has room for, so that a frame with credit finds a place.
const FRAMES_MAX: usize = WINDOW / COST_MIN + 1;

/// The link to one peer.
pub(super) struct Line {
    caller: WorkerId,
    peer: WorkerId,
    connection: Mutex<Option<Arc<Connection>>>,
    /// Tries to connect that have failed since it stood last.
    failed: AtomicU64,
}

/// One connection, while it stands.
struct Connection {
    credit: Semaphore,
    flight: Mutex<Flight>,
}

/// Frames that the peer has not taken yet, in order.
struct Flight {
    /// `None` when the connection is gone.
    out: Option<mpsc::Sender<(u64, Frame)>>,
    /// Whether the peer has let us in.
    stands: bool,
    sent: u64,
    waiting: VecDeque<(u64, u32, Roots)>,
}

impl Line {
    pub(super) fn new(caller: WorkerId, peer: WorkerId) -> Line {
        Line { caller, peer, connection: Mutex::new(None), failed: AtomicU64::new(0) }
    }

    pub(super) fn caller(&self) -> WorkerId {
        self.caller
    }

    /// A connection is about to be made; answers with the frames that will go out on it.
    pub(super) fn open(&self) -> mpsc::Receiver<(u64, Frame)> {
        let (out, frames) = mpsc::channel(FRAMES_MAX);
        let flight = Mutex::new(Flight { out: Some(out), stands: false, sent: 0, waiting: VecDeque::new() });
        let connection = Arc::new(Connection { credit: Semaphore::new(WINDOW), flight });
        *self.lock() = Some(connection);
        frames
    }

    /// The peer has let us in: frames may be sent.
    pub(super) fn stands(&self) {
        self.failed.store(0, Ordering::Relaxed);
        if let Some(connection) = self.lock().as_ref() {
            connection.lock().stands = true;
        }
    }

    /// The peer could not be reached or has not let us in; answers how often that was so since the link stood last.
    pub(super) fn not_let_in(&self) -> u64 {
        self.end();
        self.failed.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Tries to connect that have failed since it stood last.
    #[cfg(test)]
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The peer has taken all frames up to this number.
    pub(super) fn taken(&self, number: u64) -> Result<(), Failure> {
        let Some(connection) = self.lock().clone() else { return Ok(()) };
        let mut flight = connection.lock();
        if number > flight.sent {
            let sent = flight.sent;
            return Err(Failure::transient(format!("{} took frame {number} of {sent}", self.peer)));
        }
        while let Some((first, cost, _)) = flight.waiting.front()
            && *first <= number
        {
            connection.credit.add_permits(*cost as usize);
            flight.waiting.pop_front();
        }
        Ok(())
    }

    /// The connection is gone: the roots of all frames that were not taken.
    pub(super) fn end(&self) -> Vec<Root> {
        let Some(connection) = self.lock().take() else { return Vec::new() };
        let mut flight = connection.lock();
        flight.out = None;
        connection.credit.close();
        flight.waiting.drain(..).flat_map(|(_, _, roots)| roots).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Connection>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn down(&self) -> Failure {
        Failure::transient(format!("{} is not connected", self.peer))
    }
}

impl Connection {
    fn lock(&self) -> std::sync::MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Link for Line {
    fn peer(&self) -> WorkerId {
        self.peer
    }

    fn is_up(&self) -> bool {
        self.lock().as_ref().is_some_and(|connection| connection.lock().stands)
    }

    async fn send(&self, frame: Frame, roots: Roots) -> Result<(), Failure> {
        let bytes = frame.len();
        if bytes > FRAME_BYTES_MAX {
            return Err(Failure::fatal(format!("a frame of {bytes} bytes, and frames have at most {FRAME_BYTES_MAX}")));
        }
        let connection = self.lock().clone().ok_or_else(|| self.down())?;
        let cost = u32::try_from(bytes.max(COST_MIN)).unwrap_or(u32::MAX);
        let credit = connection.credit.acquire_many(cost).await.map_err(|_| self.down())?;
        let mut flight = connection.lock();
        let number = flight.sent + 1;
        // Where there is credit there is a place; the number and the place are taken together, so frames stay in order.
        let out = flight.out.as_ref().filter(|_| flight.stands);
        if out.is_none_or(|out| out.try_send((number, frame)).is_err()) {
            return Err(self.down());
        }
        credit.forget();
        flight.sent = number;
        flight.waiting.push_back((number, cost, roots));
        Ok(())
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line(to {})", self.peer)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;
    use smallvec::smallvec;

    use super::*;
    use crate::{
        id::{Era, TaskId},
        transport::Kind,
    };

    fn frame(bytes: usize) -> Frame {
        let body = Bytes::from(vec![0; bytes]);
        Frame { era: Era(1), to: TaskId(1), from: TaskId(2), kind: Kind::Tuples, body }
    }

    fn send(line: &Line, bytes: usize, root: u64) -> Option<Result<(), Failure>> {
        line.send(frame(bytes), smallvec![Root(root)]).now_or_never()
    }

    #[test]
    fn r1_a_sender_without_credit_waits_until_frames_are_taken() {
        let line = Line::new(WorkerId(1), WorkerId(2));
        let mut frames = line.open();
        assert!(send(&line, 1, 0).unwrap().is_err() && !line.is_up(), "nobody has let it in yet");
        line.stands();
        for root in 1..=2 {
            send(&line, 3 << 20, root).unwrap().unwrap();
        }
        assert!(send(&line, 3 << 20, 3).is_none(), "there is no credit for a third");
        assert_eq!(frames.try_recv().unwrap().0, 1);
        line.taken(1).unwrap();
        send(&line, 3 << 20, 4).unwrap().unwrap();
        line.taken(1).unwrap();
        assert!(send(&line, 3 << 20, 5).is_none(), "an answer that comes twice gives no credit twice");
        assert!(line.taken(9).is_err(), "nobody takes what was not sent");
    }

    #[test]
    fn what_was_not_taken_is_named_once_when_the_connection_breaks() {
        let line = Line::new(WorkerId(1), WorkerId(2));
        assert!(send(&line, 1, 0).unwrap().is_err());
        let _frames = line.open();
        line.stands();
        for root in 1..=4 {
            send(&line, 1, root).unwrap().unwrap();
        }
        line.taken(2).unwrap();
        assert_eq!(line.end(), [Root(3), Root(4)]);
        assert!(line.end().is_empty());
        assert!(send(&line, 1, 5).unwrap().is_err());
        assert!(send(&line, FRAME_BYTES_MAX, 5).unwrap().unwrap_err().message.contains("at most"));
    }

    #[tokio::test]
    async fn whoever_waits_for_credit_hears_of_the_break() {
        let line = Arc::new(Line::new(WorkerId(1), WorkerId(2)));
        let _frames = line.open();
        line.stands();
        for root in 1..=2 {
            send(&line, 3 << 20, root).unwrap().unwrap();
        }
        let waiting = tokio::spawn({
            let line = line.clone();
            async move { line.send(frame(3 << 20), smallvec![Root(3)]).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(line.end(), [Root(1), Root(2)]);
        assert!(waiting.await.unwrap().is_err());
    }
}
