//! What of a client's settings a user may not change, whichever client it is.

use tine_core::failure::Failure;

/// What exactness rests on, with the reason why a user may not change it.
pub(crate) const FIXED: &[(&str, &str, &str)] = &[
    ("isolation.level", "read_committed", "only committed records are read"),
    ("auto.offset.reset", "error", "a lost position is an error and never another position"),
    ("enable.partition.eof", "true", "the end of a range is proved by it"),
    ("check.crcs", "true", "a damaged record must not be counted"),
    ("enable.auto.commit", "false", "positions are kept with the results, not in Kafka"),
    ("enable.auto.offset.store", "false", "positions are kept with the results, not in Kafka"),
    ("allow.auto.create.topics", "false", "a mistyped topic must not come into being"),
];

/// What must not be set at all, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("bootstrap.servers", "name the brokers in Kafka::connect"),
    ("metadata.broker.list", "name the brokers in Kafka::connect"),
    ("group.id", "no consumer group takes part"),
    ("group.instance.id", "no consumer group takes part"),
    ("group.protocol", "no consumer group takes part"),
    ("partition.assignment.strategy", "no consumer group takes part"),
    ("auto.commit.enable", "positions are kept with the results, not in Kafka"),
    ("auto.commit.interval.ms", "positions are kept with the results, not in Kafka"),
    ("offset.store.method", "positions are kept with the results, not in Kafka"),
    ("offset.store.path", "positions are kept with the results, not in Kafka"),
    ("api.version.request", "old protocol versions know no committed records"),
    ("api.version.fallback.ms", "old protocol versions know no committed records"),
    ("broker.version.fallback", "old protocol versions know no committed records"),
    ("topic.blacklist", "a hidden topic would never be read"),
    ("statistics.interval.ms", "nobody reads the statistics"),
    ("log.queue", "the log goes to tracing"),
];

/// Why `key` may not be set by a user, if so.
fn refused(key: &str) -> Option<&'static str> {
    let key = key.trim();
    let fixed = FIXED.iter().find(|(name, ..)| *name == key).map(|(_, _, why)| *why);
    fixed.or_else(|| REFUSED.iter().find(|(name, _)| *name == key).map(|(_, why)| *why))
}

/// Whether a value under this key is one to keep to oneself.
pub(crate) fn is_secret(key: &str) -> bool {
    ["password", "secret", "jaas", "pem", "token", "sasl.oauthbearer", "ssl.key"].iter().any(|part| key.contains(part))
}

/// Refuses a missing broker, and settings that nobody may change, by name.
pub(crate) fn checked(brokers: &str, user: &[(String, String)]) -> Result<(), Failure> {
    if brokers.split(',').all(|broker| broker.trim().is_empty()) {
        return Err(Failure::fatal("kafka has no broker address: name at least one as host:port in Kafka::connect"));
    }
    match user.iter().find_map(|(key, _)| Some((key, refused(key)?))) {
        Some((key, why)) => Err(Failure::fatal(format!("kafka setting {key} cannot be changed: {why}; leave it out"))),
        None => Ok(()),
    }
}
