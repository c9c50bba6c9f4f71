//! Wrong addresses, rights, tables, names, records and flags: each ends with an exit code, one clear error, and nothing lost.
//!
//! The words that are looked for are those a person needs: which address, which table, which record, what to do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::time::Duration;

use tine_tests::count::{self, Counts, execute, number};
use tine_tests::job::{Job, Phase, Scene, address_of};
use tine_tests::process::{Program, Stream};
use tine_tests::produce::{self, Record};
use tine_tests::services::{free_port, unique};
use tine_tests::{eventually, report};

/// A machine that compiles at the same time is slow.
const DEADLINE: Duration = Duration::from_secs(90);
/// The start timeout that is given where nothing answers, and how long such a start may then take.
const START_TIMEOUT_S: &str = "3";
const GIVES_UP: Duration = Duration::from_secs(60);

/// Runs a program that must refuse: it ends by itself with this exit code and one error, which holds all of `words`.
fn refuses(program: Program, code: i32, deadline: Duration, words: &[&str]) -> String {
    let mut process = program.env("RUST_LOG", "warn,tine=info").start().unwrap();
    let status = process.wait(deadline).unwrap_or_else(|error| panic!("no end: {words:?}: {error:#}"));
    let lines = process.lines_of(Stream::Err);
    let all = lines.join("\n");
    assert!(!all.contains("panicked"), "{all}");
    assert_eq!(status.code(), Some(code), "{all}");
    let errors = lines.iter().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 1, "{all}");
    let first = lines.iter().position(|line| line.starts_with("error: ")).unwrap();
    let error = lines[first..].join("\n");
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
    // What comes before is said a few times, not a hundred times.
    assert!(first <= 15, "{all}");
    report(format_args!("  {error}"));
    error
}

fn job_refuses(job: &Job, words: &[&str]) -> String {
    refuses(job.program().unwrap(), 1, DEADLINE, words)
}

/// The scene with some lines in its topic, and what they come to.
async fn scene_with_lines(name: &str) -> Option<(Scene, Counts)> {
    let scene = Scene::new(name).await.unwrap()?;
    let lines = produce::text(3, 2_000, 6, 500);
    produce::lines(scene.broker.address(), &scene.topic, &lines).unwrap();
    let counts = count::words(&lines);
    Some((scene, counts))
}

fn nobody() -> String {
    format!("127.0.0.1:{}", free_port().unwrap())
}

// ----- addresses -----

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_broker_is_named() {
    let Some(scene) = Scene::new("no_broker").await.unwrap() else { return };
    let address = nobody();
    let job = scene.job().with("--brokers", &address).with("--start-timeout-s", START_TIMEOUT_S);
    refuses(
        job.program().unwrap(),
        1,
        GIVES_UP,
        &["cannot start", "kafka", &address, "check that the address is right"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_is_named() {
    let Some(scene) = Scene::new("no_database").await.unwrap() else { return };
    let address = nobody();
    let url = format!("postgres://someone:s3cret@{address}/nowhere");
    let job = scene.job().with("--postgres", &url).with("--start-timeout-s", START_TIMEOUT_S);
    let error = refuses(job.program().unwrap(), 1, GIVES_UP, &["cannot start", "postgres", &address]);
    assert!(!error.contains("s3cret"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_exist_is_named() {
    let Some(scene) = Scene::new("no_such_database").await.unwrap() else { return };
    let url = format!("postgres://postgres@{}/{}", scene.database_address(), unique("missing"));
    let job = scene.job().with("--postgres", &url).with("--start-timeout-s", START_TIMEOUT_S);
    refuses(job.program().unwrap(), 1, GIVES_UP, &["missing_", scene.database_address()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_zookeeper_is_named() {
    let Some(scene) = Scene::new("no_zookeeper").await.unwrap() else { return };
    let address = nobody();
    let job = scene.job().with("--zookeeper", &address).with("--start-timeout-s", START_TIMEOUT_S);
    refuses(job.program().unwrap(), 1, GIVES_UP, &["cannot start", "zookeeper", &address]);
}

#[tokio::test(flavor = "multi_thread")]
async fn k_a_missing_topic_is_named() {
    let Some(scene) = Scene::new("no_topic").await.unwrap() else { return };
    let topic = unique("never_made");
    job_refuses(&scene.job().with("--topic", &topic), &["cannot start", &topic, "does not exist", "create it"]);
}

// ----- tables and names -----

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_are_named_with_the_grants() {
    let Some((scene, expected)) = scene_with_lines("rights").await else { return };
    let role = unique("guest");
    execute(&scene.database, &format!("create role {role} login")).await.unwrap();
    let url = scene.database.replacen("postgres@", &format!("{role}@"), 1);
    let job = scene.job().with("--postgres", &url);
    job_refuses(&job, &["grant", "create", "on schema", &role]);

    execute(&scene.database, &format!("grant usage, create on schema public to {role}")).await.unwrap();
    let table = "create table counts (word text collate \"C\" not null primary key, n bigint not null)";
    execute(&scene.database, table).await.unwrap();
    job_refuses(&job, &["grant select, insert, update on", "counts", &role]);

    execute(&scene.database, &format!("grant select, insert, update on counts to {role}")).await.unwrap();
    job.run_to_end(DEADLINE).unwrap();
    scene.job().equals(&expected).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_other_columns_or_rows_is_refused() {
    let Some((scene, mut expected)) = scene_with_lines("columns").await else { return };
    execute(&scene.database, "create table counts (word varchar(9) primary key, m int)").await.unwrap();
    let differs =
        ["counts", "column word: expected text not null, found character varying(9)", "column n: expected bigint"];
    job_refuses(&scene.job(), &differs);
    let right = "drop table counts; create table counts (word text primary key, n bigint not null); insert into counts values ('before', 7), ('word0', 5)";
    execute(&scene.database, right).await.unwrap();
    job_refuses(&scene.job(), &["counts", "has rows before the first transaction", "adopt"]);
    count::add(&mut expected, &Counts::from([("before".to_owned(), 7), ("word0".to_owned(), 5)]));
    let job = scene.job().flag("--adopt");
    job.catch_up(&expected, DEADLINE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_a_name_with_another_shape_and_a_table_with_two_topologies_are_refused() {
    let Some((scene, expected)) = scene_with_lines("shapes").await else { return };
    let job = scene.job();
    job.run_to_end(DEADLINE).unwrap();
    let error = job_refuses(
        &job.clone().with("--count", "values").with("--table", "counts"),
        &["already used with another shape"],
    );
    assert!(error.contains("give this topology another name"), "{error}");
    // The table may lie elsewhere, the name stays taken.
    job_refuses(&job.clone().with("--table", "other_counts"), &["counts", "other_counts"]);
    let name = unique("second");
    for job in [job.clone().with("--name", &name), job.clone().with("--name", &name).flag("--adopt")] {
        job_refuses(&job, &["public.counts", "belongs to state counts of topology job_", "choose another table"]);
    }
    job.catch_up(&expected, DEADLINE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn d11_a_sum_that_overflows_halts_with_its_key() {
    let Some((scene, _)) = scene_with_lines("overflow").await else { return };
    let preset = format!(
        "create table counts (word text primary key, n bigint not null); insert into counts values ('word0', {})",
        i64::MAX - 3
    );
    execute(&scene.database, &preset).await.unwrap();
    job_refuses(&scene.job().flag("--adopt"), &["word0", "overflow"]);
    let kept = number(&scene.database, "select n from counts where word = 'word0'").await.unwrap();
    assert_eq!(kept, i64::MAX - 3);
    assert_eq!(number(&scene.database, "select count(*) from counts").await.unwrap(), 1, "all of a batch or nothing");
}

// ----- records -----

/// Good values of a topic with records between them that are no text: not UTF-8, with a NUL, null.
fn mixed(good: usize, bad_every: usize) -> (Vec<Record>, Counts, i64) {
    let (mut records, mut counts, mut bad) = (Vec::new(), Counts::new(), 0);
    for nth in 0..good {
        let value = format!("value{}", nth % 97);
        records.push(Record::to((nth % 4) as i32, value.clone()));
        *counts.entry(value).or_default() += 1;
        if nth % bad_every == 0 {
            let partition = Some((nth / bad_every % 4) as i32);
            let value = match nth / bad_every % 3 {
                0 => Some(vec![b'a', 0xff, b'b']),
                1 => Some(vec![b'a', 0, b'b']),
                _ => None,
            };
            records.push(Record { partition, value, ..Record::default() });
            bad += 1;
        }
    }
    (records, counts, bad)
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_d9_records_that_are_no_text_halt_by_default_and_are_named() {
    let cases = [
        ("not UTF-8", Some(vec![0xff]), "skip"),
        ("NUL", Some(vec![b'x', 0]), "dead-letter"),
        ("null", None, "dead-letter"),
    ];
    for (words, value, policy) in cases {
        let Some(scene) = Scene::new("no_text").await.unwrap() else { return };
        produce::records(scene.broker.address(), &scene.topic, (0..10).map(|_| Record::to(2, "good"))).unwrap();
        let bad = Record { partition: Some(2), value, ..Record::default() };
        produce::records(scene.broker.address(), &scene.topic, [bad]).unwrap();
        let job = Job::values(&scene.broker, &scene.topic, &scene.database);
        let partition = format!("{}/2", scene.topic);
        job_refuses(&job, &["halted", &partition, "position 10", words]);
        // Nothing is lost: with another policy it goes on.
        let good = Counts::from([("good".to_owned(), 10)]);
        job.clone().with("--on-invalid", policy).catch_up(&good, DEADLINE).await.unwrap();
        let letters = number(&scene.database, "select count(*) from tine_dead_letters").await.unwrap();
        assert_eq!(letters, i64::from(policy == "dead-letter"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_records_that_are_no_text_are_skipped_and_counted() {
    let Some(scene) = Scene::new("skipped").await.unwrap() else { return };
    let (records, expected, bad) = mixed(3_000, 10);
    produce::records(scene.broker.address(), &scene.topic, records).unwrap();
    let job = Job::values(&scene.broker, &scene.topic, &scene.database).with("--on-invalid", "skip");
    let life = job.catch_up(&expected, DEADLINE).await.unwrap();
    assert_eq!(life.times(&format!("{bad} records skipped")), 1, "{}", life.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_dead_letters_are_written_exactly_once_through_kills() {
    let Some(scene) = Scene::new("letters").await.unwrap() else { return };
    let job = Job::values(&scene.broker, &scene.topic, &scene.database)
        .with("--on-invalid", "dead-letter")
        .with("--commit-interval-ms", "100");
    let (records, mut expected, mut bad) = mixed(400, 5);
    produce::records(scene.broker.address(), &scene.topic, records).unwrap();
    for (nth, phase) in [Phase::Processed, Phase::CommitSent, Phase::Acknowledged].into_iter().enumerate() {
        let mut life = job.start().unwrap();
        life.kill_in(phase, DEADLINE).unwrap();
        let (records, counts, more) = mixed(400 + 100 * nth, 7);
        produce::records(scene.broker.address(), &scene.topic, records).unwrap();
        count::add(&mut expected, &counts);
        bad += more;
    }
    job.catch_up(&expected, DEADLINE).await.unwrap();
    let letters = number(&scene.database, "select count(*) from tine_dead_letters").await.unwrap();
    let distinct =
        number(&scene.database, "select count(*) from (select distinct partition, position from tine_dead_letters) d");
    assert_eq!((letters, distinct.await.unwrap()), (bad, bad));
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_records_that_were_deleted_before_they_were_read_halt_with_the_range() {
    let Some((scene, expected)) = scene_with_lines("retention").await else { return };
    let job = scene.job();
    job.catch_up(&expected, DEADLINE).await.unwrap();
    let (_, position) = scene.broker.watermarks(&scene.topic, 1).await.unwrap();
    let records = (0..300).map(|_| Record::to(1, "late"));
    produce::records(scene.broker.address(), &scene.topic, records).unwrap();
    scene.broker.delete_records(&scene.topic, 1, position + 100).await.unwrap();
    let (topic, from, to) = (format!("{}/1", scene.topic), position.to_string(), (position + 100).to_string());
    job_refuses(&job, &[&topic, &from, &to]);
    job.equals(&expected).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn k5_a_topic_that_was_made_anew_is_refused() {
    let Some((scene, expected)) = scene_with_lines("anew").await else { return };
    let job = scene.job();
    job.catch_up(&expected, DEADLINE).await.unwrap();
    scene.broker.delete_topic(&scene.topic).await.unwrap();
    let made = eventually(DEADLINE, || async { scene.broker.create_topic(&scene.topic, 4).await.is_ok() }).await;
    assert!(made);
    // Longer than the old one, so that no offset is out of range.
    produce::lines(scene.broker.address(), &scene.topic, produce::text(4, 5_000, 6, 500)).unwrap();
    job_refuses(&job, &[&scene.topic, "deleted and made again"]);
    job.equals(&expected).await.unwrap();
}

// ----- flags -----

#[tokio::test(flavor = "multi_thread")]
async fn wrong_flags_are_named() {
    let Some(scene) = Scene::new("flags").await.unwrap() else { return };
    let (job, database) = (scene.job(), address_of(&scene.database).to_owned());
    let usage: [(&'static str, &str); 4] = [
        ("--count", "lines"),
        ("--commit-interval-ms", "soon"),
        ("--on-invalid", "ignore"),
        ("--start-timeout-s", "x"),
    ];
    for (name, value) in usage {
        refuses(job.clone().with(name, value).program().unwrap(), 2, DEADLINE, &[name, value]);
    }
    refuses(job.clone().flag("--untilend").program().unwrap(), 2, DEADLINE, &["--untilend"]);
    let path = tine_tests::process::example_path("kafka_to_postgres");
    refuses(Program::at(&path), 2, DEADLINE, &["--brokers", "--topic", "--count", "--table"]);
    let (mysql, unknown) = (format!("mysql://x@{database}/y"), format!("postgres://x@{database}/y?pasword=s3cret"));
    let values: [(&'static str, &str, &str); 8] = [
        ("--postgres", &mysql, "postgres://"),
        ("--postgres", &unknown, "pasword"),
        ("--table", "Counts; drop table x", "Counts; drop table x"),
        ("--table", "", "persist \"\""),
        ("--name", "", "name"),
        ("--brokers", "", "broker"),
        ("--zookeeper", "127.0.0.1:2181/a//b", "a//b"),
        ("--zookeeper", "127.0.0.1:port", "127.0.0.1:port"),
    ];
    for (name, value, word) in values {
        let job = job.clone().with(name, value).with("--start-timeout-s", START_TIMEOUT_S);
        let error = refuses(job.program().unwrap(), 1, GIVES_UP, &[word]);
        assert!(!error.contains("s3cret"), "{error}");
    }
}
