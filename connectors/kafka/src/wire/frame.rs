//! Answers as they come from a socket: a length, and that many bytes, in a buffer that is used again.
//!
//! A length is a claim: one above the limit is refused before anything is allocated, and memory grows with the bytes that
//! really come. An answer may come in pieces; what was read stays here until the rest is there.

use std::{io, time::Instant};

use super::stream::{Stream, WAIT};

/// The first size of a buffer; it doubles as bytes come.
const FIRST: usize = 16 << 10;

/// Bytes of an answer. The memory behind them is set to zero once and then used again and again.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// The answer.
    pub(crate) fn answer(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The memory it takes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// Why no answer can be read.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection.
    Io(io::Error),
    /// A length above the limit, or below zero.
    Length(i32),
}

/// An answer on its way.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    head: [u8; 4],
    head_len: usize,
    body: Buffer,
}

impl Incoming {
    /// How many bytes of it are there.
    pub(crate) fn so_far(&self) -> usize {
        self.head_len + self.body.len
    }

    /// Goes on reading for a moment; the answer when all of it is there. `spare` is where the next one goes.
    pub(crate) fn read(
        &mut self,
        stream: &mut Stream,
        limit: usize,
        spare: impl FnOnce() -> Buffer,
    ) -> Result<Option<Buffer>, Broken> {
        let started = Instant::now();
        while self.head_len < 4 {
            let Some(count) = stream.read(&mut self.head[self.head_len..]).map_err(Broken::Io)? else {
                return Ok(None);
            };
            self.head_len += count;
        }
        let claimed = i32::from_be_bytes(self.head);
        let wanted = usize::try_from(claimed).ok().filter(|len| *len <= limit).ok_or(Broken::Length(claimed))?;
        while self.body.len < wanted {
            self.body.make_room(wanted);
            let room = self.body.bytes.len().min(wanted);
            let Some(count) = stream.read(&mut self.body.bytes[self.body.len..room]).map_err(Broken::Io)? else {
                return Ok(None);
            };
            self.body.len += count;
            if self.body.len < wanted && started.elapsed() > WAIT {
                return Ok(None);
            }
        }
        self.head_len = 0;
        let next = Buffer { len: 0, ..spare() };
        Ok(Some(std::mem::replace(&mut self.body, next)))
    }
}

impl Buffer {
    fn make_room(&mut self, wanted: usize) {
        if self.len == self.bytes.len() {
            let size = wanted.min((self.len * 2).max(FIRST));
            self.bytes.resize(size, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, address) = listener.accept().unwrap();
        (theirs, Stream::new(ours, &address.to_string(), None).unwrap())
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32).to_be_bytes()[..], body].concat()
    }

    #[test]
    fn an_answer_in_pieces_is_put_together_and_the_buffer_is_used_again() {
        let (mut broker, mut stream) = pair();
        let body: Vec<u8> = (0..200_000).map(|n| n as u8).collect();
        let bytes = [framed(&body), framed(b"second"), framed(b"")].concat();
        let sender = std::thread::spawn(move || {
            for piece in bytes.chunks(77_777) {
                broker.write_all(piece).unwrap();
                std::thread::yield_now();
            }
            broker
        });
        let mut incoming = Incoming::default();
        let mut spare = Some(Buffer::default());
        let mut answers = Vec::new();
        while answers.len() < 3 {
            if let Some(answer) = incoming.read(&mut stream, 1 << 20, || spare.take().unwrap_or_default()).unwrap() {
                answers.push(answer.answer().to_vec());
                spare = Some(answer);
            }
        }
        assert!(answers[0] == body && answers[1] == b"second" && answers[2].is_empty());
        drop(sender.join().unwrap());
        let ended = loop {
            match incoming.read(&mut stream, 1 << 20, Buffer::default) {
                Ok(_) => {}
                Err(Broken::Io(error)) => break error,
                Err(other) => panic!("{other:?}"),
            }
        };
        assert!(ended.to_string().contains("closed"), "{ended}");
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_memory_is_taken() {
        for length in [[0x7f, 0xff, 0xff, 0xff], [0xff, 0xff, 0xff, 0xff]] {
            let (mut broker, mut stream) = pair();
            broker.write_all(&length).unwrap();
            let mut incoming = Incoming::default();
            let refused = incoming.read(&mut stream, 1 << 20, Buffer::default);
            assert!(matches!(refused, Err(Broken::Length(_))), "{refused:?}");
            assert_eq!(incoming.body.size(), 0);
        }
    }

    #[test]
    fn memory_grows_with_what_comes_and_not_with_what_is_claimed() {
        let (mut broker, mut stream) = pair();
        broker.write_all(&(900_000_000u32).to_be_bytes()).unwrap();
        broker.write_all(&[1; 1000]).unwrap();
        let mut incoming = Incoming::default();
        while incoming.body.len < 1000 {
            assert!(incoming.read(&mut stream, 1 << 30, Buffer::default).unwrap().is_none());
        }
        assert!(incoming.body.size() <= FIRST);
    }
}
