//! What a user may set of the native client, under librdkafka's names.
//!
//! A name that is not here is an error that says so: a setting that would be silently without effect may be one on which
//! somebody's security rests.

use std::{str::FromStr, sync::Arc, time::Duration};

use secrecy::SecretString;
use tine_core::failure::Failure;

use super::tls;
use crate::settings::checked;

/// Everything the native client is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `host:port` of the brokers asked first.
    pub(crate) bootstrap: Vec<String>,
    pub(crate) client_id: String,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) login: Option<Login>,
    /// How much one fetch brings of a partition, except that the first batch always comes whole.
    pub(crate) fetch_bytes: usize,
    /// How long the broker may hold a fetch back when there is nothing to bring.
    pub(crate) fetch_wait_ms: i32,
    /// How much a reader keeps of what it fetched.
    pub(crate) held_bytes_max: usize,
    /// The largest answer that is read, and the largest batch that is decompressed.
    pub(crate) answer_bytes_max: usize,
    /// The first pause after a failed connection, and the longest.
    pub(crate) backoff: (Duration, Duration),
    /// How long a connection may take to come about, login included.
    pub(crate) setup_timeout: Duration,
}

/// Who we are.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) mechanism: Mechanism,
    pub(crate) user: String,
    pub(crate) password: SecretString,
}

/// How a password is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    /// Its registered name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl Settings {
    /// Checks everything once; what is wrong is `Fatal` and named. Files of certificates are read here.
    pub(crate) fn new(brokers: &str, user: &[(String, String)]) -> Result<Settings, Failure> {
        checked(brokers, user)?;
        let given = Given(user);
        given.known()?;
        let protocol = given.text("security.protocol").unwrap_or("plaintext").to_ascii_lowercase();
        let (encrypted, login) = match protocol.as_str() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            _ => return Err(wrong("security.protocol", "plaintext, ssl, sasl_plaintext or sasl_ssl")),
        };
        let bootstrap = brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty());
        let backoff = given.number("reconnect.backoff.ms", 50, 1..=60_000)?;
        let backoff_max = given.number("reconnect.backoff.max.ms", 1_000, 1..=600_000)?;
        Ok(Settings {
            bootstrap: bootstrap.map(address).collect::<Result<_, _>>()?,
            client_id: given.text("client.id").unwrap_or("tine").to_string(),
            tls: if encrypted { Some(tls::config(&given)?) } else { None },
            login: if login { Some(given.login()?) } else { None },
            fetch_bytes: given.number("fetch.message.max.bytes", FETCH_BYTES, 1..=1_000_000_000)?,
            fetch_wait_ms: given.number("fetch.wait.max.ms", 10, 0..=300_000)?,
            held_bytes_max: given.number("queued.max.messages.kbytes", HELD_KBYTES_MAX, 1..=2_097_151)? << 10,
            answer_bytes_max: given.number("receive.message.max.bytes", 100_000_000, 1_000..=2_147_483_647)?,
            backoff: (Duration::from_millis(backoff), Duration::from_millis(backoff_max.max(backoff))),
            setup_timeout: Duration::from_millis(given.number(
                "socket.connection.setup.timeout.ms",
                4_000,
                1..=600_000,
            )?),
        })
    }
}

/// One MiB: large enough that a round trip costs little per record, small enough to stay in a cache.
const FETCH_BYTES: usize = 1 << 20;

/// 32 MiB for each reader.
const HELD_KBYTES_MAX: usize = 32 << 10;

/// Every name that is understood.
const KNOWN: &[&str] = &[
    "client.id",
    "enable.ssl.certificate.verification",
    "fetch.message.max.bytes",
    "fetch.wait.max.ms",
    "queued.max.messages.kbytes",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "sasl.mechanism",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
];

/// Other names of the same.
const ALIASES: &[(&str, &str)] =
    &[("sasl.mechanisms", "sasl.mechanism"), ("max.partition.fetch.bytes", "fetch.message.max.bytes")];

fn canonical(key: &str) -> &str {
    let key = key.trim();
    ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, name)| name)
}

/// What the user has set; of a name that comes twice, the last counts.
pub(crate) struct Given<'g>(&'g [(String, String)]);

impl<'g> Given<'g> {
    /// A setting's value.
    pub(crate) fn text(&self, name: &str) -> Option<&'g str> {
        self.0.iter().rev().find(|(key, _)| canonical(key) == name).map(|(_, value)| value.trim())
    }

    fn known(&self) -> Result<(), Failure> {
        let Some((key, _)) = self.0.iter().find(|(key, _)| !KNOWN.contains(&canonical(key))) else { return Ok(()) };
        Err(Failure::fatal(format!(
            "kafka setting {key} is not one that the native client knows: leave it out, or take librdkafka's client \
             (`Client::Rdkafka`); it knows {}",
            KNOWN.join(", ")
        )))
    }

    fn number<T: FromStr + PartialOrd + std::fmt::Display>(
        &self,
        name: &str,
        default: T,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<T, Failure> {
        let Some(text) = self.text(name) else { return Ok(default) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(Failure::fatal(format!(
                "kafka setting {name} is {text:?}: give a number from {} to {}",
                range.start(),
                range.end()
            ))),
        }
    }

    fn login(&self) -> Result<Login, Failure> {
        let mechanism = match self.text("sasl.mechanism").map(str::to_ascii_uppercase).as_deref() {
            Some("PLAIN") => Mechanism::Plain,
            Some("SCRAM-SHA-256") => Mechanism::ScramSha256,
            Some("SCRAM-SHA-512") => Mechanism::ScramSha512,
            _ => return Err(wrong("sasl.mechanism", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")),
        };
        let needed = |name| self.text(name).ok_or_else(|| wrong(name, "needed with security.protocol=sasl_…"));
        let (user, password) = (needed("sasl.username")?.to_string(), SecretString::from(needed("sasl.password")?));
        Ok(Login { mechanism, user, password })
    }
}

/// A setting with an impossible value, which is not repeated.
pub(crate) fn wrong(name: &str, wanted: &str) -> Failure {
    Failure::fatal(format!("kafka setting {name} has a wrong value or none: {wanted}"))
}

/// `host:port`, the port being 9092 when none is given.
fn address(broker: &str) -> Result<String, Failure> {
    let has_port = broker.rsplit_once(':').is_some_and(|(host, port)| {
        (!host.contains(':') || host.ends_with(']')) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    match broker {
        _ if has_port => Ok(broker.to_string()),
        _ if broker.contains(':') && !broker.ends_with(']') => {
            Err(Failure::fatal(format!("kafka broker address {broker:?} is not host:port (IPv6 as [::1]:9092)")))
        }
        _ => Ok(format!("{broker}:9092")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(set: &[(&str, &str)]) -> Result<Settings, Failure> {
        let set: Vec<_> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Settings::new("a:1, b ,[::1]:7", &set)
    }

    #[test]
    fn unknown_and_wrong_settings_are_named_without_their_secrets() {
        let says = |set: &[(&str, &str)], words: &str| {
            let failure = settings(set).expect_err("refused");
            assert!(failure.message.contains(words) && !failure.message.contains("hunter2"), "{failure}");
        };
        says(&[("ssl.key.password", "hunter2")], "ssl.key.password");
        says(&[("isolation.level", "read_uncommitted")], "isolation.level");
        says(&[("fetch.wait.max.ms", "soon")], "fetch.wait.max.ms");
        says(&[("security.protocol", "tls")], "sasl_ssl");
        says(&[("security.protocol", "sasl_plaintext"), ("sasl.password", "hunter2")], "sasl.mechanism");
        says(&[("security.protocol", "ssl"), ("enable.ssl.certificate.verification", "false")], "verification");
        says(&[("security.protocol", "ssl"), ("ssl.ca.location", "/nowhere.pem")], "/nowhere.pem");
    }

    #[test]
    fn names_and_addresses_have_their_other_forms() {
        let settings = settings(&[("max.partition.fetch.bytes", "5"), ("client.id", "x")]).expect("known");
        assert_eq!((settings.fetch_bytes, settings.client_id.as_str()), (5, "x"));
        assert_eq!(settings.bootstrap, ["a:1", "b:9092", "[::1]:7"]);
        assert!(Settings::new("host:port", &[]).is_err() && Settings::new("::1:9092", &[]).is_err());
    }

    #[test]
    fn a_password_is_not_in_debug() {
        let set = [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanisms", "scram-sha-256"),
            ("sasl.username", "me"),
            ("sasl.password", "hunter2"),
        ];
        let text = format!("{:?}", settings(&set).expect("a login"));
        assert!(text.contains("ScramSha256") && !text.contains("hunter2"), "{text}");
    }
}
