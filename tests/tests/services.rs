//! The ground under all other tests: the servers are real, break as told, and keep what they must.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::net::TcpStream;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tine_tests::produce::{Outcome, Record, Transactions};
use tine_tests::proxy::{Proxy, Verdict};
use tine_tests::services::{self, Error, Guard, Kafka, Postgres, Service, ZooKeeper, shared, unique};
use tine_tests::{count, eventually, produce, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

/// A server of the test's own, or `None` where it is not installed (the reason is printed; in CI that is a failure).
fn own<S: Service>() -> Option<Guard<S>> {
    match Guard::start() {
        Ok(server) => Some(server),
        Err(error @ Error::NotInstalled { .. }) => {
            shared::skip(error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_keeps_a_thousand_records_and_names_its_watermarks() {
    let Some(kafka) = shared::kafka() else { return };
    let topic = unique("thousand");
    kafka.create_topic(&topic, 2).await.unwrap();
    let lines = produce::text(1, 1_000, 5, 100);
    let records = lines.iter().enumerate().map(|(n, line)| Record::to((n % 2) as i32, line.as_str()));
    assert_eq!(produce::records(kafka.address(), &topic, records).unwrap(), 1_000);
    assert_eq!(kafka.watermarks(&topic, 0).await.unwrap(), (0, 500));
    assert_eq!(kafka.watermarks(&topic, 1).await.unwrap(), (0, 500));
    count::assert_equal(&count::words(&lines), &words_of(&produce::committed(kafka.address(), &topic).unwrap()));
    kafka.delete_records(&topic, 1, 200).await.unwrap();
    assert_eq!(kafka.watermarks(&topic, 1).await.unwrap(), (200, 500));
    kafka.delete_topic(&topic).await.unwrap();
    assert!(kafka.watermarks(&topic, 0).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_lie_in_the_log_and_are_not_read() {
    let Some(kafka) = shared::kafka() else { return };
    let topic = unique("aborts");
    kafka.create_topic(&topic, 1).await.unwrap();
    let transactions = Transactions::new(kafka.address(), &topic, &topic).unwrap();
    transactions.write([Record::value("kept"), Record::value("kept too")], Outcome::Commit).unwrap();
    transactions.write([Record::value("aborted")], Outcome::Abort).unwrap();
    // Three records and two markers.
    assert_eq!(kafka.watermarks(&topic, 0).await.unwrap(), (0, 5));
    let read = produce::committed(kafka.address(), &topic).unwrap();
    assert_eq!(words_of(&read), count::words(["kept", "kept too"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_comes_back_on_its_port_with_its_records() {
    let Some(mut kafka) = own() else { return };
    let kafka: &mut Kafka = &mut kafka;
    kafka.create_topic("kept", 1).await.unwrap();
    produce::lines(&kafka.address(), "kept", ["a", "b", "c"]).unwrap();
    let address = kafka.address();
    kafka.kill().unwrap();
    assert!(TcpStream::connect(&address).is_err());
    kafka.restart().unwrap();
    assert_eq!(kafka.address(), address);
    assert_eq!(words_of(&produce::committed(&address, "kept").unwrap()), count::words(["a b c"]));
}

#[test]
fn zookeeper_answers_survives_a_kill_and_forgets_after_a_wipe() {
    let Some(mut zookeeper) = own() else { return };
    let zookeeper: &mut ZooKeeper = &mut zookeeper;
    let address = zookeeper.address();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let is_there = |expected: bool| {
        runtime.block_on(async {
            let client = zookeeper_client::Client::connect(&address).await.unwrap();
            let found = client.check_stat("/kept").await.unwrap().is_some();
            assert_eq!(found, expected);
            if !found {
                let options = zookeeper_client::CreateMode::Persistent.with_acls(zookeeper_client::Acls::anyone_all());
                client.create("/kept", b"", &options).await.unwrap();
            }
        });
    };
    // A server that serves may be slow to say so on a busy machine.
    assert!(wait_until(DEADLINE, || services::zookeeper::is_ok(&address)));
    is_there(false);
    zookeeper.kill().unwrap();
    assert!(!services::zookeeper::is_ok(&address));
    zookeeper.restart().unwrap();
    is_there(true);
    zookeeper.wipe().unwrap();
    assert_eq!(zookeeper.address(), address);
    is_there(false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_zookeeper_is_silent_until_resumed() {
    let Some(zookeeper) = own() else { return };
    let zookeeper: ZooKeeper = zookeeper;
    zookeeper.pause().unwrap();
    assert!(!services::zookeeper::is_ok(&zookeeper.address()));
    zookeeper.resume().unwrap();
    assert!(eventually(DEADLINE, || async { services::zookeeper::is_ok(&zookeeper.address()) }).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_its_data_through_a_stop_and_a_kill() {
    let Some(mut postgres) = own() else { return };
    let postgres: &mut Postgres = &mut postgres;
    let url = postgres.url();
    run(&url, "create table kept (n bigint not null)").await;
    run(&url, "insert into kept values (1)").await;
    postgres.restart().unwrap();
    run(&url, "insert into kept values (2)").await;
    postgres.kill().unwrap();
    assert!(PgConnection::connect(&url).await.is_err());
    postgres.restart().unwrap();
    assert_eq!(number(&url, "select sum(n)::bigint from kept").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_test_gets_a_database_of_its_own() {
    let Some(first) = shared::postgres_database("mine").await.unwrap() else { return };
    let Some(second) = shared::postgres_database("mine").await.unwrap() else { return };
    run(&first, "create table t (n bigint)").await;
    assert_eq!(number(&first, "select count(*) from pg_tables where tablename = 't'").await, 1);
    assert_eq!(number(&second, "select count(*) from pg_tables where tablename = 't'").await, 0);
    assert_eq!(number(&second, "select 1::bigint").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_a_commit_cut_before_its_reply_is_applied_and_the_client_does_not_know() {
    let Some(url) = shared::postgres_database("cut").await.unwrap() else { return };
    let upstream = url.trim_start_matches("postgres://postgres@").split('/').next().unwrap();
    let proxy = Proxy::start(upstream).await.unwrap();
    run(&url, "create table t (n bigint)").await;
    for (n, verdict, applied) in
        [(1, Verdict::CutBefore, 0), (2, Verdict::CutBeforeReply, 1), (3, Verdict::CutAfter, 2)]
    {
        let mut connection = PgConnection::connect(&proxy.url(&url)).await.unwrap();
        let mut transaction = connection.begin().await.unwrap();
        let insert = format!("insert into t values ({n})");
        sqlx::query(AssertSqlSafe(insert)).execute(&mut *transaction).await.unwrap();
        proxy.once(b"COMMIT", verdict);
        assert!(transaction.commit().await.is_err(), "{verdict:?}");
        // Applied means: sooner or later, because the client was cut off while the server was still at it.
        let seen = eventually(DEADLINE, || async { number(&url, "select count(*) from t").await == applied }).await;
        assert!(seen, "{verdict:?}");
    }
    assert_eq!(proxy.hits(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_behind_a_proxy_is_reached_only_through_it() {
    let proxy = Proxy::start("127.0.0.1:9").await.unwrap();
    let advertised = format!("PLAINTEXT://{}", proxy.address());
    let kafka = match Kafka::start_with(&[("advertised.listeners", &advertised)]) {
        Err(error @ Error::NotInstalled { .. }) => return shared::skip(error),
        started => started.unwrap(),
    };
    proxy.forward_to(kafka.address());
    let before = proxy.accepted();
    kafka.create_topic("t", 1).await.unwrap();
    produce::lines(&kafka.address(), "t", ["through the proxy"]).unwrap();
    assert!(proxy.accepted() > before, "the producer was sent to the advertised address");
}

fn words_of(records: &[Record]) -> count::Counts {
    let texts = records.iter().map(|record| String::from_utf8(record.value.clone().unwrap()).unwrap());
    count::words(texts)
}

async fn run(url: &str, statement: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn number(url: &str, query: &'static str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let n = sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    n
}
