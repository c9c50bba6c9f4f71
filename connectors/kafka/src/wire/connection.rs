//! A connection to one broker: requests in a row, answers in the same order.
//!
//! Nobody has to wait for an answer before sending the next request; answers that nobody wants any more are passed over.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tine_core::failure::Failure;

use super::{
    codec::{Put, Take},
    dial::dial,
    errors,
    frame::{Broken, Buffer, Incoming},
    login,
    message::{self, Api, api_versions, api_versions::Versions},
    settings::Settings,
    stream::Stream,
    trouble::Trouble,
};

/// How long an answer may stand still before the broker counts as away.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The largest answer before the broker has said what it is: another protocol's first bytes are not a length.
const GREETING_MAX: usize = 1 << 20;

/// Buffers kept for use again.
const SPARE_MAX: usize = 2;

/// A broker that has told its versions and accepted us.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    address: String,
    client_id: String,
    answer_bytes_max: usize,
    spare_bytes_max: usize,
    versions: Versions,
    correlation: i32,
    /// Sent and not yet answered, in order.
    open: VecDeque<Open>,
    incoming: Incoming,
    out: Vec<u8>,
    spare: Vec<Buffer>,
    /// When the last byte came, or the first request after all others were answered was sent.
    heard: Instant,
    /// A broker asked for a pause until then.
    pause: Option<Instant>,
    /// When the login ends.
    expires: Option<Instant>,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Open {
    correlation: i32,
    api: Api,
    version: i16,
    tag: u64,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) tag: u64,
    pub(crate) version: i16,
    pub(crate) buffer: Buffer,
    /// Where the body begins.
    body: usize,
}

impl Answer {
    /// Reads the body; places in it are places in the buffer.
    pub(crate) fn take(&self) -> Take<'_> {
        let mut take = Take::new(self.buffer.answer());
        // The header was read before.
        let _ = take.bytes(self.body);
        take
    }
}

impl Connection {
    /// Connects, asks for versions and logs in.
    pub(crate) fn open(
        address: &str,
        settings: &Settings,
        deadline: Instant,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Connection, Trouble> {
        let deadline = deadline.min(Instant::now() + settings.setup_timeout);
        let stream = Stream::new(dial(address, deadline, cancelled)?, address, settings.tls.as_ref())?;
        let mut connection = Connection {
            stream,
            address: address.to_string(),
            client_id: settings.client_id.clone(),
            answer_bytes_max: GREETING_MAX,
            spare_bytes_max: settings.fetch_bytes.saturating_mul(2).max(GREETING_MAX),
            versions: Versions::default(),
            correlation: 0,
            open: VecDeque::new(),
            incoming: Incoming::default(),
            out: Vec::new(),
            spare: Vec::new(),
            heard: Instant::now(),
            pause: None,
            expires: None,
        };
        connection.encrypt(deadline, cancelled)?;
        connection.greet(deadline, cancelled)?;
        if let Some(who) = &settings.login {
            let lifetime = login::login(&mut connection, who, deadline, cancelled)?;
            // A new one is made well before the broker ends this one.
            connection.expires = lifetime.map(|lifetime| Instant::now() + lifetime.mul_f64(0.8));
        }
        connection.answer_bytes_max = settings.answer_bytes_max;
        Ok(connection)
    }

    fn encrypt(&mut self, deadline: Instant, cancelled: &dyn Fn() -> bool) -> Result<(), Trouble> {
        while !self.stream.is_ready().map_err(|error| self.lost(&error))? {
            if cancelled() {
                return Err(Trouble::Cancelled);
            }
            if Instant::now() > deadline {
                return Err(Trouble::Away(format!("{} did not agree on TLS in time", self.address)));
            }
        }
        Ok(())
    }

    fn greet(&mut self, deadline: Instant, cancelled: &dyn Fn() -> bool) -> Result<(), Trouble> {
        let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let answer = self.ask(Api::Versions, |put, _| api_versions::ask(put, name, version), deadline, cancelled)?;
        let versions = Versions::read(&mut answer.take())?;
        self.recycle(answer.buffer);
        match versions.error {
            errors::NONE => self.versions = versions,
            errors::UNSUPPORTED_VERSION => return Err(self.too_old("says which versions it speaks")),
            code => return Err(Trouble::Away(format!("{} answers {}", self.address, errors::words(code)))),
        }
        Ok(())
    }

    fn too_old(&self, what: &str) -> Trouble {
        Trouble::Refused(Failure::fatal(format!(
            "kafka at {} does not know a request by which one {what}: brokers of Kafka 3.1 or newer are needed",
            self.address
        )))
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Whether it should be made anew before it is used again.
    pub(crate) fn is_stale(&self) -> bool {
        self.open.is_empty() && self.expires.is_some_and(|end| Instant::now() > end)
    }

    /// How long the broker wants to be left alone.
    pub(crate) fn pause(&self) -> Duration {
        self.pause.map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()))
    }

    /// Heeds a broker's throttling (KIP-219), within reason.
    pub(crate) fn throttle(&mut self, ms: i32) {
        if let Ok(ms @ 1..) = u64::try_from(ms) {
            self.pause = Some(Instant::now() + Duration::from_millis(ms.min(30_000)));
        }
    }

    /// Sends a request; the answer comes with its `tag`. Says the request's number.
    pub(crate) fn send(&mut self, api: Api, tag: u64, body: impl FnOnce(&mut Put<'_>, i16)) -> Result<i32, Trouble> {
        let version = match api {
            Api::Versions => api.spoken().1,
            _ => self.versions.common(api).ok_or_else(|| self.too_old(&format!("asks for {api:?}")))?,
        };
        self.correlation = self.correlation.wrapping_add(1);
        let correlation = self.correlation;
        message::request(&mut self.out, (api, version), correlation, &self.client_id, |put| body(put, version));
        self.stream.write(&self.out).map_err(|error| self.lost(&error))?;
        if self.open.is_empty() {
            self.heard = Instant::now();
        }
        self.open.push_back(Open { correlation, api, version, tag });
        Ok(correlation)
    }

    /// The next answer; `None` when none is there within a moment. After an error the connection is of no use any more.
    pub(crate) fn receive(&mut self) -> Result<Option<Answer>, Trouble> {
        let Some(open) = self.open.front().copied() else { return Ok(None) };
        let (spare, limit, so_far) = (&mut self.spare, self.answer_bytes_max, self.incoming.so_far());
        let read = self.incoming.read(&mut self.stream, limit, || spare.pop().unwrap_or_default());
        if self.incoming.so_far() != so_far {
            self.heard = Instant::now();
        }
        let Some(buffer) = read.map_err(|broken| self.broken(broken, open.api))? else {
            // While a broker throttles us it does not even read what we send.
            let quiet_since = self.pause.map_or(self.heard, |end| end.max(self.heard));
            return match quiet_since.elapsed() > SILENCE_MAX {
                true => Err(Trouble::Away(format!("{} did not answer in {} s", self.address, SILENCE_MAX.as_secs()))),
                false => Ok(None),
            };
        };
        self.heard = Instant::now();
        self.open.pop_front();
        let mut take = Take::new(buffer.answer());
        if message::answer(open.api, &mut take)? != open.correlation {
            return Err(Trouble::Away(format!("{} answers another request than the one asked", self.address)));
        }
        let body = take.at();
        Ok(Some(Answer { tag: open.tag, version: open.version, buffer, body }))
    }

    /// Sends a request and waits for its answer; earlier answers are passed over.
    pub(crate) fn ask(
        &mut self,
        api: Api,
        body: impl FnOnce(&mut Put<'_>, i16),
        deadline: Instant,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Answer, Trouble> {
        let correlation = self.send(api, 0, body)?;
        self.wait(correlation, deadline, cancelled)
    }

    /// Waits for the answer to the request of this number; earlier answers are passed over.
    pub(crate) fn wait(
        &mut self,
        correlation: i32,
        deadline: Instant,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Answer, Trouble> {
        loop {
            let next = self.open.front().map(|open| open.correlation);
            match self.receive()? {
                Some(answer) if next == Some(correlation) => return Ok(answer),
                Some(other) => self.recycle(other.buffer),
                None if next.is_none() => return Err(Trouble::Away("the answer was passed over".into())),
                None if cancelled() => return Err(Trouble::Cancelled),
                None if Instant::now() > deadline => {
                    return Err(Trouble::Away(format!("{} did not answer in time", self.address)));
                }
                None => {}
            }
        }
    }

    /// Takes back a buffer that is not needed any more, for a later answer.
    pub(crate) fn recycle(&mut self, buffer: Buffer) {
        // One that grew for a huge batch is not kept for small ones.
        if self.spare.len() < SPARE_MAX && buffer.size() <= self.spare_bytes_max {
            self.spare.push(buffer);
        }
    }

    fn lost(&self, error: &std::io::Error) -> Trouble {
        Trouble::Away(format!("the connection to {} is lost: {error}", self.address))
    }

    fn broken(&self, broken: Broken, api: Api) -> Trouble {
        match broken {
            Broken::Io(error) => self.lost(&error),
            Broken::Length(length) if api == Api::Fetch && length > 0 => Trouble::Refused(Failure::fatal(format!(
                "kafka at {} answers a fetch with {length} bytes, more than receive.message.max.bytes={} allows: raise it \
                 above the largest record batch",
                self.address, self.answer_bytes_max
            ))),
            Broken::Length(length) => Trouble::Away(format!(
                "{} answers {api:?} with {length} bytes, which is not Kafka's protocol: is security.protocol right for \
                 this listener?",
                self.address
            )),
        }
    }
}
