//! One partition's own queue of fetched messages, taken in batches and lent without a copy.
//!
//! A [`Queue`] starts fetching at an explicit offset into a librdkafka queue that nobody else uses, made for this start:
//! what an earlier start left behind cannot come out of it, and no seek takes part. Messages never leave it by value, so
//! they are freed before their partition is stopped and before their client goes away.

use std::{
    ffi::{CStr, CString},
    ptr::{self, NonNull},
    slice,
    sync::Arc,
    time::Duration,
};

use rdkafka::consumer::Consumer;
use rdkafka_sys::{self as sys, bindings};

use crate::librdkafka::handle::Handle;

/// How many messages are taken at a time: enough to spread the call's cost, few enough to stay in the cache.
pub(crate) const BATCH_MAX: usize = 512;

/// A partition being fetched.
pub(crate) struct Queue {
    /// Taken out of the queue and not yet freed; those before `head` are used up.
    messages: Vec<Message>,
    head: usize,
    queue: NonNull<bindings::rd_kafka_queue_t>,
    topic: NonNull<bindings::rd_kafka_topic_t>,
    partition: i32,
    /// Keeps librdkafka's handle alive until everything above is freed.
    _client: Arc<Handle>,
}

// SAFETY: librdkafka's handles and messages may be used from any thread; `&mut self` keeps it to one at a time, and
// `&Queue` gives only reads of message memory that nobody writes.
unsafe impl Send for Queue {}

impl Queue {
    /// Starts fetching `topic`/`partition` at `offset`.
    pub(crate) fn start(client: &Arc<Handle>, topic: &str, partition: i32, offset: i64) -> Result<Queue, String> {
        let name = CString::new(topic).map_err(|_| format!("topic name {topic:?} contains a NUL"))?;
        let rk = client.consumer.client().native_ptr();
        // SAFETY: `rk` is alive as long as `client`; a null configuration means the client's default one.
        let handle = unsafe { bindings::rd_kafka_topic_new(rk, name.as_ptr(), ptr::null_mut()) };
        let handle =
            NonNull::new(handle).ok_or_else(|| format!("librdkafka refuses topic {topic:?}: {}", last_error()))?;
        // SAFETY: as above; the call only allocates.
        let queue = unsafe { bindings::rd_kafka_queue_new(rk) };
        let queue = NonNull::new(queue).expect("rd_kafka_queue_new aborts the process when memory is out");
        // From here on `Drop` frees both; stopping what was not started is an error code that it ignores.
        let this =
            Queue { messages: Vec::new(), head: 0, queue, topic: handle, partition, _client: Arc::clone(client) };
        // SAFETY: both handles are alive until `Drop`.
        let code =
            unsafe { bindings::rd_kafka_consume_start_queue(handle.as_ptr(), partition, offset, queue.as_ptr()) };
        if code == 0 {
            Ok(this)
        } else {
            Err(format!("cannot fetch {topic}/{partition} from {offset}: {}", last_error()))
        }
    }

    /// The messages at hand, in the partition's order; fill again when it is empty.
    pub(crate) fn ready(&self) -> &[Message] {
        &self.messages[self.head..]
    }

    /// Marks the first `count` messages at hand as used up.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(self.head + count <= self.messages.len(), "only messages at hand can be used up");
        self.head += count;
    }

    /// Frees what was used up and takes what is there, waiting up to `wait` for a first message.
    pub(crate) fn fill(&mut self, wait: Duration) {
        assert!(self.ready().is_empty(), "messages at hand are used before new ones are taken");
        self.messages.clear();
        self.head = 0;
        self.take(Duration::ZERO, BATCH_MAX);
        if self.messages.is_empty() && !wait.is_zero() {
            // The call waits until *all* it was asked for are there, so it is asked for one.
            self.take(wait, 1);
        }
    }

    fn take(&mut self, wait: Duration, max: usize) {
        self.messages.reserve(max);
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let spare = self.messages.spare_capacity_mut().as_mut_ptr().cast::<*mut bindings::rd_kafka_message_t>();
        // SAFETY: `spare` has room for `max` pointers (reserved above; `Message` is a transparent `NonNull`), and the
        // queue is alive.
        let taken = unsafe { bindings::rd_kafka_consume_batch_queue(self.queue.as_ptr(), wait_ms, spare, max) };
        // -1 is an error of the call itself, which an own queue never gives; like a timeout it brings no messages.
        let taken = usize::try_from(taken).unwrap_or(0);
        assert!(taken <= max, "librdkafka writes at most what it was given room for");
        // SAFETY: librdkafka has written `taken` owned, non-null message pointers there.
        unsafe { self.messages.set_len(self.messages.len() + taken) };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.messages.clear();
        // SAFETY: both handles are alive and ours; messages are freed above, before the partition is stopped. The stop
        // waits for librdkafka's main thread only, never for a broker.
        unsafe {
            bindings::rd_kafka_consume_stop(self.topic.as_ptr(), self.partition);
            bindings::rd_kafka_queue_destroy(self.queue.as_ptr());
            bindings::rd_kafka_topic_destroy(self.topic.as_ptr());
        }
    }
}

/// A message, or an event about its partition, owned by a [`Queue`].
#[repr(transparent)]
pub(crate) struct Message(NonNull<bindings::rd_kafka_message_t>);

impl Message {
    /// 0 for a record, otherwise librdkafka's error code. Read as a number, because a broker may send codes that the
    /// enum of this version does not know.
    pub(crate) fn code(&self) -> i32 {
        // SAFETY: the message is alive; the enum is `repr(i32)`, and any bits are an `i32`.
        unsafe { (&raw const (*self.0.as_ptr()).err).cast::<i32>().read() }
    }

    /// The error's words.
    pub(crate) fn error(&self) -> String {
        // SAFETY: the message is alive; the text is static or its payload, and copied here.
        let text = unsafe { bindings::rd_kafka_message_errstr(self.0.as_ptr()) };
        // SAFETY: as above.
        if text.is_null() { String::new() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() }
    }

    /// A record's offset; of the end-of-partition event, the offset that comes next.
    pub(crate) fn offset(&self) -> i64 {
        // SAFETY: the message is alive.
        unsafe { (*self.0.as_ptr()).offset }
    }

    /// Milliseconds since 1970, -1 when there is none.
    pub(crate) fn timestamp_ms(&self) -> i64 {
        let mut kind = bindings::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive; librdkafka writes one of its own enum's values.
        unsafe { bindings::rd_kafka_message_timestamp(self.0.as_ptr(), &mut kind) }
    }

    /// The record's key.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        // SAFETY: the message is alive; `key` is null or points to `key_len` bytes that live as long as it.
        unsafe { bytes((*self.0.as_ptr()).key, (*self.0.as_ptr()).key_len) }
    }

    /// The record's value; `None` is a tombstone.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        // SAFETY: the message is alive; `payload` is null or points to `len` bytes that live as long as it.
        unsafe { bytes((*self.0.as_ptr()).payload, (*self.0.as_ptr()).len) }
    }

    /// Appends the record's headers to `into`; fails with words when they cannot be read as Kafka's protocol says.
    pub(crate) fn headers<'m>(&'m self, into: &mut Vec<(&'m str, Option<&'m [u8]>)>) -> Result<(), String> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive and used by this thread alone; it keeps owning the headers it parses here.
        let code = unsafe { bindings::rd_kafka_message_headers(self.0.as_ptr(), &mut headers) };
        match code {
            bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__NOENT => return Ok(()),
            code => return Err(sys::RDKafkaErrorCode::from(code).to_string()),
        }
        for index in 0.. {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: `headers` came from the call above and lives as long as the message.
            let code = unsafe { bindings::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size) };
            if code != bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                break;
            }
            // SAFETY: `name` is a C string and `value` null or `size` bytes, both owned by the message.
            let (name, value) = unsafe { (CStr::from_ptr(name), bytes(value, size)) };
            into.push((name.to_str().map_err(|_| format!("the name of header {index} is not UTF-8"))?, value));
        }
        Ok(())
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: the pointer is ours and freed once.
        unsafe { bindings::rd_kafka_message_destroy(self.0.as_ptr()) };
    }
}

/// The bytes at `start`, or `None` for a null pointer.
///
/// # Safety
/// A non-null `start` points to `len` bytes that stay valid and unchanged for `'m`.
unsafe fn bytes<'m>(start: *const std::ffi::c_void, len: usize) -> Option<&'m [u8]> {
    // SAFETY: by this function's contract.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast::<u8>(), len) })
}

fn last_error() -> String {
    // SAFETY: reads a thread-local of librdkafka.
    sys::RDKafkaErrorCode::from(unsafe { bindings::rd_kafka_last_error() }).to_string()
}
