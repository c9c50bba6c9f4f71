//! Two questions to the brokers: what topics are, and how far partitions reach.
//!
//! Both go through librdkafka's admin interface: asynchronous underneath, so the wait for the answer can be given up at
//! any time; a late answer is thrown away by librdkafka.

use std::{
    ffi::{CStr, CString},
    ptr::NonNull,
    slice,
    time::{Duration, Instant},
};

use rdkafka::consumer::Consumer;
use rdkafka_sys::bindings::{self, rd_kafka_admin_op_t as Api};

use crate::librdkafka::handle::Handle;

/// How often the wait for an answer asks whether it is still wanted.
const STEP: Duration = Duration::from_millis(50);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// Nobody wants it any more.
    Cancelled,
    /// librdkafka's words.
    Failed(String),
}

/// What the brokers say of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) topic: String,
    /// The topic's id in Kafka's own text form; empty when the broker knows no ids.
    pub(crate) id: String,
    pub(crate) partitions: i32,
    /// Empty, or the error's name in Kafka's protocol.
    pub(crate) error: String,
}

/// What the brokers say of a partition's offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetAnswer {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// -1 when there is none (a timestamp after the last record).
    pub(crate) offset: i64,
    /// 0, or the error's code.
    pub(crate) code: i32,
}

/// Asks for the ids and partition counts of `topics`: one request to one broker.
pub(crate) fn describe(
    client: &Handle,
    topics: &[&str],
    timeout: Duration,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Described>, Unanswered> {
    let names: Vec<CString> = topics.iter().map(|topic| c_string(topic)).collect::<Result<_, _>>()?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let question = Question::new(client, Api::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout);
    // SAFETY: the names live until the end of this function; librdkafka copies them into the collection and again into
    // the request, so the collection is freed at once. Options and queue live in `question`.
    unsafe {
        let collection = bindings::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        bindings::rd_kafka_DescribeTopics(question.rk, collection, question.options.as_ptr(), question.queue.as_ptr());
        bindings::rd_kafka_TopicCollection_destroy(collection);
    }
    let event = question.wait(timeout, cancelled)?;
    // SAFETY: the event is alive and of the kind asked for (null otherwise); everything read from it is copied.
    unsafe {
        let result = bindings::rd_kafka_event_DescribeTopics_result(event.0.as_ptr());
        if result.is_null() {
            return Err(Unanswered::Failed("librdkafka answered another question".into()));
        }
        let mut count = 0;
        let topics = bindings::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        Ok(list(topics, count).iter().map(|topic| described(*topic)).collect())
    }
}

/// Asks for one offset per partition: -2 the first that can be read, -1 the last stable one, otherwise that of the first
/// record at or after a timestamp in ms. One request per broker that leads some of them. A partition comes once.
pub(crate) fn offsets(
    client: &Handle,
    asked: &[(&str, i32, i64)],
    timeout: Duration,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<OffsetAnswer>, Unanswered> {
    let names: Vec<CString> = asked.iter().map(|(topic, ..)| c_string(topic)).collect::<Result<_, _>>()?;
    let question = Question::new(client, Api::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout);
    // SAFETY: the list and its entries are librdkafka's and freed after the request copied them; the names live until
    // the end of this function and are copied by `list_add`, which never returns null.
    unsafe {
        let committed = bindings::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED;
        let error = bindings::rd_kafka_AdminOptions_set_isolation_level(question.options.as_ptr(), committed);
        assert!(error.is_null(), "the isolation level is an option of ListOffsets");
        let partitions = bindings::rd_kafka_topic_partition_list_new(asked.len() as i32);
        for (name, (_, partition, spec)) in names.iter().zip(asked) {
            (*bindings::rd_kafka_topic_partition_list_add(partitions, name.as_ptr(), *partition)).offset = *spec;
        }
        bindings::rd_kafka_ListOffsets(question.rk, partitions, question.options.as_ptr(), question.queue.as_ptr());
        bindings::rd_kafka_topic_partition_list_destroy(partitions);
    }
    let event = question.wait(timeout, cancelled)?;
    // SAFETY: the event is alive and of the kind asked for (null otherwise); everything read from it is copied.
    unsafe {
        let result = bindings::rd_kafka_event_ListOffsets_result(event.0.as_ptr());
        if result.is_null() {
            return Err(Unanswered::Failed("librdkafka answered another question".into()));
        }
        let mut count = 0;
        let infos = bindings::rd_kafka_ListOffsets_result_infos(result, &mut count);
        Ok(list(infos, count)
            .iter()
            .map(|info| {
                let partition = bindings::rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
                OffsetAnswer {
                    topic: text((*partition).topic),
                    partition: (*partition).partition,
                    offset: (*partition).offset,
                    code: (&raw const (*partition).err).cast::<i32>().read(),
                }
            })
            .collect())
    }
}

/// # Safety
/// `topic` is a description that is alive.
unsafe fn described(topic: *const bindings::rd_kafka_TopicDescription_t) -> Described {
    // SAFETY: by this function's contract; ids, texts and counts belong to the description and are copied.
    unsafe {
        let error = bindings::rd_kafka_TopicDescription_error(topic);
        let id = bindings::rd_kafka_TopicDescription_topic_id(topic);
        let known = !id.is_null()
            && (bindings::rd_kafka_Uuid_most_significant_bits(id), bindings::rd_kafka_Uuid_least_significant_bits(id))
                != (0, 0);
        let mut partitions = 0;
        bindings::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        Described {
            topic: text(bindings::rd_kafka_TopicDescription_name(topic)),
            id: if known { text(bindings::rd_kafka_Uuid_base64str(id)) } else { String::new() },
            partitions: partitions as i32,
            // The name, because a broker may send codes that the enum of this version does not know.
            error: if error.is_null() { String::new() } else { text(bindings::rd_kafka_error_name(error)) },
        }
    }
}

/// What a request needs: options and a queue of its own for the answer.
struct Question<'c> {
    client: &'c Handle,
    rk: *mut bindings::rd_kafka_t,
    options: NonNull<bindings::rd_kafka_AdminOptions_t>,
    queue: NonNull<bindings::rd_kafka_queue_t>,
}

impl<'c> Question<'c> {
    fn new(client: &'c Handle, api: Api, timeout: Duration) -> Question<'c> {
        let rk = client.consumer.client().native_ptr();
        // SAFETY: `rk` is alive as long as `client`; both calls only allocate, and abort the process when memory is out.
        let (options, queue) =
            unsafe { (bindings::rd_kafka_AdminOptions_new(rk, api), bindings::rd_kafka_queue_new(rk)) };
        let options = NonNull::new(options).expect("the api is one that librdkafka has options for");
        let queue = NonNull::new(queue).expect("rd_kafka_queue_new aborts the process when memory is out");
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).min(3_600_000);
        let mut errors = [0; 256];
        // SAFETY: the options are alive, the buffer has the length said. A refused timeout leaves the default one.
        unsafe {
            let (start, len) = (errors.as_mut_ptr(), errors.len());
            bindings::rd_kafka_AdminOptions_set_request_timeout(options.as_ptr(), timeout_ms, start, len);
        }
        Question { client, rk, options, queue }
    }

    /// Waits for the answer, at most a little longer than librdkafka itself does.
    fn wait(&self, timeout: Duration, cancelled: &dyn Fn() -> bool) -> Result<Event, Unanswered> {
        let deadline = Instant::now() + timeout + Duration::from_secs(1);
        loop {
            // SAFETY: the queue is alive.
            let event = unsafe { bindings::rd_kafka_queue_poll(self.queue.as_ptr(), STEP.as_millis() as i32) };
            self.client.serve();
            match NonNull::new(event).map(Event) {
                Some(event) => return event.checked(),
                None if cancelled() => return Err(Unanswered::Cancelled),
                None if Instant::now() > deadline => return Err(Unanswered::Failed("no answer in time".into())),
                None => {}
            }
        }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        // SAFETY: both are ours and freed once; an answer that comes later is dropped with the disabled queue.
        unsafe {
            bindings::rd_kafka_AdminOptions_destroy(self.options.as_ptr());
            bindings::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

struct Event(NonNull<bindings::rd_kafka_event_t>);

impl Event {
    fn checked(self) -> Result<Event, Unanswered> {
        // SAFETY: the event is alive; its text is copied.
        unsafe {
            match bindings::rd_kafka_event_error(self.0.as_ptr()) as i32 {
                0 => Ok(self),
                _ => Err(Unanswered::Failed(text(bindings::rd_kafka_event_error_string(self.0.as_ptr())))),
            }
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is ours and freed once.
        unsafe { bindings::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

fn c_string(topic: &str) -> Result<CString, Unanswered> {
    CString::new(topic).map_err(|_| Unanswered::Failed(format!("topic name {topic:?} contains a NUL")))
}

/// # Safety
/// `start` points to `count` pointers that are alive, or `count` is 0.
unsafe fn list<'a, T>(start: *mut *const T, count: usize) -> &'a [*const T] {
    // SAFETY: by this function's contract.
    if count == 0 { &[] } else { unsafe { slice::from_raw_parts(start, count) } }
}

/// # Safety
/// `text` is null or a C string that is alive.
unsafe fn text(text: *const std::ffi::c_char) -> String {
    // SAFETY: by this function's contract.
    if text.is_null() { String::new() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() }
}
