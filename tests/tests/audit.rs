//! `tine audit` against real tables: exact ones are certified, also while they grow, and every kind of damage is found and named.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::time::Duration;

use serde::Deserialize;
use tine::audit::{How, Part};
use tine::{Kafka, Options, Policy, Postgres, Shutdown, Topology};
use tine_tests::audit::{Audit, Verdict};
use tine_tests::count;
use tine_tests::job::{Job, Scene};
use tine_tests::produce::{self, Outcome, Record, Transactions};
use tine_tests::report;

/// A machine that compiles at the same time is slow.
const DEADLINE: Duration = Duration::from_secs(90);

/// A table that two transactions at least have made.
struct Counted {
    scene: Scene,
    job: Job,
}

impl Counted {
    async fn new(name: &str) -> Option<Self> {
        let scene = Scene::new(name).await.unwrap()?;
        let job = scene.job();
        for seed in 0..2 {
            let lines = produce::text(seed, 2_000, 10, 5_000);
            produce::lines(scene.broker.address(), &scene.topic, &lines).unwrap();
            job.run_to_end(DEADLINE).unwrap();
        }
        Some(Self { scene, job })
    }

    fn audit(&self) -> Audit {
        Audit::of(&self.job, &self.scene.broker)
    }

    fn verdict(&self) -> Verdict {
        self.audit().run(DEADLINE).unwrap()
    }

    async fn execute(&self, statements: &str) {
        count::execute(&self.scene.database, statements).await.unwrap();
    }

    /// Damages a copy of the tables, so to speak: audits after `damage`, and puts everything back.
    async fn damaged(&self, damage: &str) -> Verdict {
        const TABLES: [&str; 3] = ["counts", "tine_ledger", "tine_transactions"];
        for table in TABLES {
            self.execute(&format!("drop table if exists kept_{table}; create table kept_{table} as table {table}"))
                .await;
        }
        self.execute(damage).await;
        let verdict = self.verdict();
        for table in TABLES {
            self.execute(&format!("truncate {table}; insert into {table} table kept_{table}")).await;
        }
        verdict
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exact_table_is_certified_whatever_the_memory() {
    let Some(counted) = Counted::new("audit").await else { return };
    let verdict = counted.verdict();
    assert!(verdict.is_exact() && verdict.said.contains("4000 records in 4 partitions"), "{verdict}");
    report(format_args!("  {}", verdict.said.replace('\n', "\n  ")));
    // Words enough for several runs of a mebibyte.
    let lines = produce::text(9, 20_000, 10, 100_000);
    produce::lines(counted.scene.broker.address(), &counted.scene.topic, &lines).unwrap();
    counted.job.run_to_end(DEADLINE).unwrap();
    let small = counted.audit().with("--memory", "1").run(DEADLINE).unwrap();
    assert!(small.is_exact() && small.said.contains("24000 records"), "{small}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_topology_is_certified_again_and_again() {
    let Some(scene) = Scene::new("audit_running").await.unwrap() else { return };
    let job = scene.job().with("--commit-interval-ms", "100");
    let feed = scene.feed();
    let mut life = job.start().unwrap();
    let mut txids = Vec::new();
    for _ in 0..4 {
        life.completes(10, DEADLINE).unwrap();
        let verdict = Audit::of(&job, &scene.broker).run(DEADLINE).unwrap();
        assert!(verdict.is_exact(), "{verdict}");
        let (_, txid) = verdict.said.split_once("at transaction ").unwrap();
        txids.push(txid.split(':').next().unwrap().parse::<u64>().unwrap());
    }
    assert!(txids.is_sorted_by(|a, b| a < b), "{txids:?}");
    report(format_args!("  certified under load at transactions {txids:?}"));
    life.process.kill().unwrap();
    drop(feed.end().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_off_by_one_missing_or_too_many_is_found() {
    let Some(counted) = Counted::new("audit_rows").await else { return };
    let n = count::number(&counted.scene.database, "select n from counts where word = 'word7'").await.unwrap();
    let verdict = counted.damaged("update counts set n = n + 1 where word = 'word7'").await;
    let told = format!("row \"word7\": is {}, expected {n}", n + 1);
    assert!(verdict.differs(&[&told, "1 rows differ (1 with other values, 0 missing, 0 too many)"]), "{verdict}");
    let verdict = counted.damaged("delete from counts where word = 'word7'").await;
    let told = format!("row \"word7\": is missing, expected {n}");
    assert!(verdict.differs(&[&told, "0 with other values, 1 missing, 0 too many"]), "{verdict}");
    let verdict = counted.damaged("insert into counts values ('never written', 1)").await;
    assert!(verdict.differs(&["row \"never written\": is 1, expected none", "0 missing, 1 too many"]), "{verdict}");
    // One more here and one less there: the sum is right.
    let verdict = counted
        .damaged("update counts set n = n + 1 where word = 'word7'; update counts set n = n - 1 where word = 'word8'")
        .await;
    assert!(verdict.differs(&["row \"word7\"", "row \"word8\"", "2 rows differ"]), "{verdict}");
    assert!(counted.verdict().is_exact());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_moved_by_hand_is_found() {
    const LAST: &str = "(select max(txid) from tine_ledger)";
    let Some(counted) = Counted::new("audit_ledger").await else { return };
    let damages: [(String, &[&str]); 8] = [
        (
            "update tine_ledger set txid = txid - 1".into(),
            &["ledger: the ledger stands at transaction", "its plan has"],
        ),
        ("update tine_ledger set txid = txid + 1".into(), &["whose plan is missing"]),
        (
            "update tine_ledger set txid = txid - 1 where shard = 3 and state = 'counts'".into(),
            &["shard 3", "the others"],
        ),
        (
            "delete from tine_ledger where shard = 3 and state = 'counts'".into(),
            &["shard 3", "is missing in the ledger"],
        ),
        ("update tine_ledger set manifest = set_byte(manifest, 0, get_byte(manifest, 0) # 1)".into(), &["manifest"]),
        // The same moment for the ledger and for nobody else: the rows tell.
        (
            format!(
                "update tine_ledger l set txid = t.txid, chain = t.chain, manifest = t.manifest from tine_transactions t \
                 where t.txid = {LAST} - 1"
            ),
            &["row ", "with other values", "0 findings in the ledger"],
        ),
        // A position moved inside the plan: its last byte but one belongs to the last range.
        (
            format!("update tine_transactions set plan = set_byte(plan, length(plan) - 2, 5) where txid = {LAST}"),
            &["its plan makes"],
        ),
        (format!("update tine_transactions set ranges = '[]' where txid = {LAST}"), &["column ranges"]),
    ];
    for (damage, told) in damages {
        let verdict = counted.damaged(&damage).await;
        assert!(verdict.differs(told), "{damage}\n{verdict}");
    }
    assert!(counted.verdict().is_exact());
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_and_the_end_of_a_log_in_a_marker_are_read_as_the_topology_reads_them() {
    let Some(scene) = Scene::new("audit_aborts").await.unwrap() else { return };
    let producer = Transactions::new(scene.broker.address(), &scene.topic, &scene.topic).unwrap();
    for nth in 0..20_usize {
        let outcome = if nth % 3 == 1 { Outcome::Abort } else { Outcome::Commit };
        let lines = produce::text(nth as u64, 50, 5, 100);
        producer.write(lines.into_iter().map(Record::value), outcome).unwrap();
    }
    // Open, so that the last stable offset is below the end.
    producer.begin([Record::value("never committed")]).unwrap();
    let job = scene.job();
    job.run_to_end(DEADLINE).unwrap();
    let verdict = Audit::of(&job, &scene.broker).run(DEADLINE).unwrap();
    assert!(verdict.is_exact() && verdict.said.contains(" 650 records"), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_no_text_are_left_out_here_too() {
    let Some(scene) = Scene::new("audit_skipped").await.unwrap() else { return };
    let values: [&[u8]; 4] = [b"a b", b"\xff", b"a\0", b"b"];
    let records = values.iter().map(|value| Record::value(*value)).chain([Record::default()]);
    produce::records(scene.broker.address(), &scene.topic, records).unwrap();
    let job = scene.job().with("--on-invalid", "skip");
    job.run_to_end(DEADLINE).unwrap();
    let verdict = Audit::of(&job, &scene.broker).run(DEADLINE).unwrap();
    assert!(verdict.is_exact() && verdict.said.contains("3 of them left out"), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_plans_do_not_matter_and_deleted_records_are_told() {
    let Some(counted) = Counted::new("audit_trimmed").await else { return };
    let (broker, topic) = (&counted.scene.broker, &counted.scene.topic);
    let from_beginning = (0..4).fold(counted.audit(), |audit, n| audit.with("--start", &format!("{topic}/{n}=0")));
    // As when more than a thousand transactions have followed.
    counted.execute("delete from tine_transactions where txid < (select max(txid) from tine_transactions)").await;
    let verdict = counted.verdict();
    assert!(verdict.is_exact() && verdict.said.contains("no longer kept"), "{verdict}");
    let told = from_beginning.run(DEADLINE).unwrap();
    assert!(told.is_exact() && !told.said.contains("assumed"), "{told}");

    broker.delete_records(topic, 1, 10).await.unwrap();
    let partition = format!("{topic}/1");
    let verdict = counted.verdict();
    assert!(verdict.gave_up(&["is not known", &partition, "begins at 10 today", "--start"]), "{verdict}");
    let verdict = from_beginning.run(DEADLINE).unwrap();
    assert!(verdict.gave_up(&[&partition, "has deleted what is below 10"]), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_audited_is_told_with_what_to_do() {
    let Some(counted) = Counted::new("audit_wrong").await else { return };
    let audit = || Audit::at(&counted.scene.database, &counted.scene.broker).with("--key", "words");
    let verdict = audit().with("--topology", "nobody").with("--count", "n").run(DEADLINE).unwrap();
    assert!(verdict.gave_up(&["knows no topology nobody", counted.job.name(), "--topology"]), "{verdict}");
    let mine = || audit().with("--topology", counted.job.name());
    let verdict = mine().with("--count", "total").run(DEADLINE).unwrap();
    assert!(verdict.gave_up(&["has no column total"]), "{verdict}");
    let verdict = mine().with("--count", "n").with("--table", "others").run(DEADLINE).unwrap();
    assert!(verdict.gave_up(&["keeps no table others", "counts"]), "{verdict}");
    let verdict = counted.audit().with("--folder", "/nonexistent").run(DEADLINE).unwrap();
    assert!(verdict.gave_up(&["/nonexistent", "--folder"]), "{verdict}");
    let verdict = counted.audit().with("--start", "others/0=3").run(DEADLINE).unwrap();
    assert!(verdict.gave_up(&["no plan names partition others/0"]), "{verdict}");
    counted.execute("update tine_groups set format = 9").await;
    assert!(counted.verdict().gave_up(&["format 9", "newer"]));
}

#[derive(Deserialize)]
struct Sale {
    user: String,
    day: i64,
    cents: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_and_extremes_by_two_keys_are_recomputed_by_flags_and_by_a_closure() {
    let Some(scene) = Scene::new("audit_sales").await.unwrap() else { return };
    let sale = |n: i64| match n % 50 {
        // What is no sale is left out.
        0 => "{}".to_owned(),
        _ => format!(r#"{{"user":"u{}","day":{},"cents":{}}}"#, n % 97, n % 7 - 3, (n * 7_919) % 2_001 - 1_000),
    };
    produce::lines(scene.broker.address(), &scene.topic, (1..=5_000).map(sale)).unwrap();
    let topology = Topology::new("sales");
    let sales = Kafka::connect(scene.broker.address()).topic(&*scene.topic).json::<Sale>().on_invalid(Policy::Skip);
    topology
        .source(sales)
        .stage(|sales| {
            sales.group_by(|sale| (sale.day, sale.user)).aggregate(|sales| {
                (
                    sales.count(),
                    sales.sum(|sale| sale.cents),
                    sales.min(|sale| sale.cents),
                    sales.max(|sale| sale.cents),
                )
            })
        })
        .persist(
            Postgres::connect(&scene.database)
                .unwrap()
                .table("sales")
                .key("day")
                .key("customer")
                .value("sales")
                .value("cents")
                .value("least")
                .value("most"),
        );
    topology.run_with(Options { until_end: true, ..Options::default() }, Shutdown::new()).await.unwrap();

    let audit =
        Audit::at(&scene.database, &scene.broker).with("--topology", "sales").with("--key", "json:/day,json:/user");
    let audit = audit.with("--count", "sales").with("--sum", "cents=json:/cents");
    let audit = audit.with("--min", "least=json:/cents").with("--max", "most=json:/cents");
    let verdict = audit.run(DEADLINE).unwrap();
    assert!(verdict.is_exact() && verdict.said.contains("100 of them left out"), "{verdict}");

    let by_closure = move |scene: &Scene| {
        let audit = tine::audit::Audit::new("sales", &*scene.database, scene.broker.address());
        let audit = audit.value("sales", How::Count).value("cents", How::Sum);
        audit.value("least", How::Min).value("most", How::Max).rows(3).run(|record, emit| {
            let fields = record.text().and_then(|text| {
                let mut fields = text.strip_prefix(r#"{"user":""#)?.strip_suffix('}')?.split(['"', ':', ',']);
                let user = fields.next()?;
                let mut numbers = fields.filter_map(|field| field.parse().ok());
                Some((user, numbers.next()?, numbers.next()?))
            });
            match fields {
                Some((user, day, cents)) => emit.row(&[Part::Int(day), Part::Text(user)], &[cents, cents, cents]),
                None => emit.leave_out(),
            }
        })
    };
    let of = scene.clone();
    let exact = tokio::task::spawn_blocking(move || by_closure(&of)).await.unwrap().unwrap();
    assert!(exact.is_exact() && exact.left_out == 100, "{exact}");
    count::execute(&scene.database, "update sales set most = most + 1 where day = 2").await.unwrap();
    let of = scene.clone();
    let wrong = tokio::task::spawn_blocking(move || by_closure(&of)).await.unwrap().unwrap();
    assert!(!wrong.is_exact() && wrong.other == 97 && wrong.rows.len() == 3, "{wrong}");
}
