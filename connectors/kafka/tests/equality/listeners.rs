//! The native client through TLS and SASL: what it reads there is what was produced on the open listener.

use std::{path::PathBuf, process::Command, time::Instant};

use tine_core::failure::{Failure, FailureKind};
use tine_kafka::{Client, Kafka};
use tine_tests::services::{Kafka as Broker, base_folder, free_port, shared, unique};

use crate::{
    both::{bounds_at, range, read, reader, source},
    brokers::{Admin, NewOne, start},
    writers::{Content, Writer},
};

const TOPIC: &str = "behind-doors";
const RECORDS: usize = 3_000;
/// How long a login counts: the broker closes connections that do not log in again.
const LOGIN_MS: u64 = 1_000;

/// Certificates and a broker with a listener of each kind.
struct Doors {
    broker: Broker,
    folder: Folder,
    tls: u16,
    mutual: u16,
    login: u16,
    login_tls: u16,
    records: Vec<Content>,
}

#[test]
fn every_listener_gives_the_same_records_to_those_it_lets_in() {
    let Some(doors) = Doors::open() else { return };
    let ca = [("ssl.ca.location", doors.folder.file("ca.pem"))];
    let mine = [
        ("ssl.certificate.location", doors.folder.file("client.pem")),
        ("ssl.key.location", doors.folder.file("client.key")),
    ];
    doors.admit(doors.tls, "ssl", &[&ca[..]].concat());
    doors.admit(doors.mutual, "ssl", &[&ca[..], &mine].concat());
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let login = login(mechanism, "alice", "secret of alice");
        doors.admit(doors.login, "sasl_plaintext", &login);
        doors.admit(doors.login_tls, "sasl_ssl", &[&ca[..], &login].concat());
        for wrong in [self::login(mechanism, "alice", "guessed"), self::login(mechanism, "mallory", "secret of alice")]
        {
            let failure = doors.refuse(doors.login, "sasl_plaintext", &wrong);
            assert_eq!(failure.kind, FailureKind::Fatal, "no other try will help: {failure}");
            assert!(failure.message.contains(&wrong[1].1) && failure.message.contains(mechanism), "{failure}");
            assert!(!failure.message.contains("guessed") && !failure.message.contains("secret of"), "{failure}");
        }
    }
    let others = [("ssl.ca.location", doors.folder.file("other.pem"))];
    let failure = doors.refuse(doors.tls, "ssl", &others);
    assert!(failure.message.contains("certificate"), "{failure}");
    doors.refuse(doors.mutual, "ssl", &ca);
    doors.refuse(doors.tls, "plaintext", &[]);
    doors.refuse(doors.login, "plaintext", &[]);
    doors.refuse(doors.login_tls, "sasl_plaintext", &login("PLAIN", "alice", "secret of alice"));
}

#[test]
fn a_login_that_ends_is_renewed_without_a_word() {
    let Some(doors) = Doors::open() else { return };
    let login = login("SCRAM-SHA-256", "alice", "secret of alice");
    let source = source(doors.kafka(doors.login, "sasl_plaintext", &login).topic(TOPIC));
    let bounds = bounds_at(&*source).remove(0);
    let mut reader = reader(&*source);
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed().as_millis() < 4 * u128::from(LOGIN_MS) || rounds < 3 {
        let from = rounds * 7 % RECORDS as u64;
        let records = read(&mut *reader, &range(&bounds, from, bounds.end)).expect("records");
        assert_eq!(records.len(), RECORDS - from as usize);
        assert_eq!(bounds_at(&*source).remove(0), bounds);
        rounds += 1;
    }
}

impl Doors {
    fn open() -> Option<Doors> {
        if Command::new("openssl").arg("version").output().is_err() {
            shared::skip("openssl is not installed, which makes certificates: apt-get install openssl");
            return None;
        }
        let folder = Folder::new();
        certificates(&folder);
        let port = || free_port().expect("a port");
        let (tls, mutual, login, login_tls) = (port(), port(), port(), port());
        let outer = format!(
            "PLAINTEXT://127.0.0.1:{{port}},TLS://127.0.0.1:{tls},MUTUAL://127.0.0.1:{mutual},\
             LOGIN://127.0.0.1:{login},LOGINTLS://127.0.0.1:{login_tls}"
        );
        let mut settings = vec![
            ("listeners".to_string(), format!("{outer},CONTROLLER://127.0.0.1:{{inner}}")),
            ("advertised.listeners".into(), outer),
            ("connections.max.reauth.ms".into(), LOGIN_MS.to_string()),
            ("ssl.keystore.location".into(), folder.file("server-key-and-chain.pem")),
            ("ssl.truststore.location".into(), folder.file("ca.pem")),
        ];
        settings.extend(FIXED.map(|(name, value)| (name.to_string(), value.to_string())));
        for listener in ["login", "logintls"] {
            let module = |mechanism: &str, module: &str| {
                let name = format!("listener.name.{listener}.{mechanism}.sasl.jaas.config");
                (name, format!("org.apache.kafka.common.security.{module};"))
            };
            settings.push(module("plain", "plain.PlainLoginModule required user_alice=\"secret of alice\""));
            settings.push(module("scram-sha-256", "scram.ScramLoginModule required"));
            settings.push(module("scram-sha-512", "scram.ScramLoginModule required"));
        }
        let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let broker = start(&settings)?;
        let open = broker.address();
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let user = format!("{mechanism}=[password=secret of alice]");
            let arguments = ["--alter", "--add-config", &user, "--entity-type", "users", "--entity-name", "alice"];
            let arguments = [&["--bootstrap-server", &open][..], &arguments].concat();
            broker.tool("kafka.admin.ConfigCommand", &arguments).expect("a user");
        }
        let records = fill(&open);
        Some(Doors { broker, folder, tls, mutual, login, login_tls, records })
    }

    fn kafka(&self, port: u16, protocol: &str, settings: &[(&str, String)]) -> Kafka {
        let kafka = Kafka::connect(format!("127.0.0.1:{port}")).client(Client::Native);
        settings.iter().fold(kafka.set("security.protocol", protocol), |kafka, (key, value)| kafka.set(*key, value))
    }

    fn admit(&self, port: u16, protocol: &str, settings: &[(&str, String)]) {
        let source = source(self.kafka(port, protocol, settings).topic(TOPIC));
        let bounds = bounds_at(&*source).remove(0);
        let records = read(&mut *reader(&*source), &range(&bounds, 0, bounds.end)).expect("records");
        let found: Vec<Content> = records.into_iter().map(|record| record.content).collect();
        assert!(found == self.records, "{} records by {protocol} {settings:?}", found.len());
    }

    fn refuse(&self, port: u16, protocol: &str, settings: &[(&str, String)]) -> Failure {
        let asked = source(self.kafka(port, protocol, settings).topic(TOPIC)).bounds().err();
        asked.unwrap_or_else(|| panic!("{protocol} {settings:?} was let in at {}", self.broker.address()))
    }
}

const FIXED: [(&str, &str); 6] = [
    (
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,MUTUAL:SSL,LOGIN:SASL_PLAINTEXT,LOGINTLS:SASL_SSL",
    ),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("ssl.keystore.type", "PEM"),
    ("ssl.truststore.type", "PEM"),
    ("listener.name.mutual.ssl.client.auth", "required"),
    ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"),
];

fn login<'s>(mechanism: &str, user: &str, password: &str) -> Vec<(&'s str, String)> {
    let settings = [("sasl.mechanism", mechanism), ("sasl.username", user), ("sasl.password", password)];
    settings.map(|(key, value)| (key, value.to_string())).to_vec()
}

fn fill(broker: &str) -> Vec<Content> {
    Admin::new(broker).create(&[NewOne { name: TOPIC.into(), partitions: 1, settings: Vec::new() }], 1);
    let writer = Writer::new(broker, &[("compression.type", "zstd")]);
    let content = |n| Content {
        timestamp_ms: 1_700_000_000_000 + n as i64,
        value: Some(format!("record {n} {}", "of many ".repeat(n % 50)).into_bytes()),
        ..Content::default()
    };
    let records: Vec<Content> = (0..RECORDS).map(content).collect();
    records.iter().for_each(|record| writer.send(TOPIC, 0, record));
    writer.flush();
    records
}

/// An authority that signs the server and a client, and another one that nobody asked.
fn certificates(folder: &Folder) {
    let make = |name: &str, own: &[&str]| {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", "2", "-subj", &subject, "-keyout", &key, "-out", &certificate]).args(own);
        let out = command.current_dir(&folder.0).output().expect("openssl runs");
        assert!(out.status.success(), "openssl: {}", String::from_utf8_lossy(&out.stderr));
    };
    let leaf = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE", "-addext"];
    make("ca", &[]);
    make("other", &[]);
    make("server", &[&leaf[..], &["subjectAltName=IP:127.0.0.1"]].concat());
    make("client", &[&leaf[..], &["extendedKeyUsage=clientAuth"]].concat());
    let parts = ["server.key", "server.pem", "ca.pem"].map(|part| folder.read(part));
    std::fs::write(folder.file("server-key-and-chain.pem"), parts.concat()).expect("written");
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let folder = base_folder().join(unique("certificates"));
        std::fs::create_dir_all(&folder).expect("a folder");
        Folder(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).expect("text")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
