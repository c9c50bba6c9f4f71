//! The brokers' error codes: their names, and which of them a look at newer metadata may mend.

/// No error.
pub(crate) const NONE: i16 = 0;
/// The topic or partition is not there, as far as this broker knows.
pub(crate) const UNKNOWN_TOPIC: i16 = 3;
/// The topic's name is impossible.
pub(crate) const INVALID_TOPIC: i16 = 17;
/// The user may not read the topic.
pub(crate) const NOT_ALLOWED: i16 = 29;
/// The broker does not speak this version.
pub(crate) const UNSUPPORTED_VERSION: i16 = 35;

/// Whether somebody else leads, or nobody does for a moment: newer metadata and another try may help.
pub(crate) fn has_moved(code: i16) -> bool {
    // UNKNOWN_TOPIC_ID and INCONSISTENT_TOPIC_ID too: a broker may not have heard of a new topic yet.
    matches!(code, 3 | 5 | 6 | 7 | 8 | 9 | 13 | 41 | 56 | 72 | 74 | 75 | 78 | 89 | 100 | 103)
}

/// An error's name in Kafka's protocol.
pub(crate) fn words(code: i16) -> String {
    let name = match code {
        -1 => "UNKNOWN_SERVER_ERROR",
        0 => "NONE",
        1 => "OFFSET_OUT_OF_RANGE",
        2 => "CORRUPT_MESSAGE",
        3 => "UNKNOWN_TOPIC_OR_PARTITION",
        5 => "LEADER_NOT_AVAILABLE",
        6 => "NOT_LEADER_OR_FOLLOWER",
        7 => "REQUEST_TIMED_OUT",
        8 => "BROKER_NOT_AVAILABLE",
        9 => "REPLICA_NOT_AVAILABLE",
        13 => "NETWORK_EXCEPTION",
        17 => "INVALID_TOPIC_EXCEPTION",
        29 => "TOPIC_AUTHORIZATION_FAILED",
        31 => "CLUSTER_AUTHORIZATION_FAILED",
        33 => "UNSUPPORTED_SASL_MECHANISM",
        34 => "ILLEGAL_SASL_STATE",
        35 => "UNSUPPORTED_VERSION",
        41 => "NOT_CONTROLLER",
        42 => "INVALID_REQUEST",
        56 => "KAFKA_STORAGE_ERROR",
        58 => "SASL_AUTHENTICATION_FAILED",
        72 => "LISTENER_NOT_FOUND",
        74 => "FENCED_LEADER_EPOCH",
        75 => "UNKNOWN_LEADER_EPOCH",
        76 => "UNSUPPORTED_COMPRESSION_TYPE",
        78 => "OFFSET_NOT_AVAILABLE",
        89 => "THROTTLING_QUOTA_EXCEEDED",
        100 => "UNKNOWN_TOPIC_ID",
        103 => "INCONSISTENT_TOPIC_ID",
        _ => return format!("error code {code}"),
    };
    name.to_string()
}
