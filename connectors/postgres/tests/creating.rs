//! Bad input at the start: each gets an error that says what is wrong and what to do.

mod server;

use server::*;
use tine_core::failure::{Failure, FailureKind};
use tine_postgres::Postgres;
use tine_state::{CommitOutcome, Committer, Database, GroupSpec, TableSpec, run};

async fn refused(database: &Postgres, spec: &GroupSpec, words: &[&str]) -> Failure {
    let failure = database.create(spec).await.expect_err("it was accepted");
    assert_eq!(failure.kind, FailureKind::Fatal, "{failure}");
    for word in words {
        assert!(failure.message.contains(word), "{word:?} is missing: {failure}");
    }
    failure
}

#[tokio::test]
async fn an_unreachable_server_is_named_without_its_password() {
    let database = Postgres::connect("postgres://counter:s3cret@127.0.0.1:1/shop").unwrap();
    let failure = database.create(&group("t", vec![words("words")])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Transient);
    assert!(failure.message.contains("127.0.0.1:1/shop"), "{failure}");
    assert!(!format!("{failure:?} {database:?} {}", database.describe()).contains("s3cret"));
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_fatal() {
    let Some(fresh) = Fresh::new().await else { return };
    let database = Postgres::connect(&fresh.url.replace(&fresh.name, "no_such_database")).unwrap();
    refused(&database, &group("t", vec![words("words")]), &["no_such_database"]).await;
    fresh.drop_database().await;
}

#[tokio::test]
async fn creators_at_the_same_moment_all_succeed() {
    let Some(fresh) = Fresh::new().await else { return };
    let creating = (0..6).map(|_| {
        let (database, spec) = (fresh.postgres(), group("t", vec![words("words")]));
        tokio::spawn(async move { database.create(&spec).await })
    });
    for created in creating.collect::<Vec<_>>() {
        created.await.unwrap().unwrap();
    }
    assert_eq!(fresh.number("select count(*) from tine_ledger").await, 4);
    fresh.drop_database().await;
}

#[tokio::test]
async fn hostile_names_are_values_and_never_text() {
    let Some(fresh) = Fresh::new().await else { return };
    let names = ["o'hara", "a\"; drop table tine_ledger; --", "$1 \\ %s", "топология 🦀", ""];
    for (index, name) in names.into_iter().enumerate() {
        let mut spec = group(name, vec![words(&format!("words_{index}"))]);
        (spec.group, spec.shape) = (format!("{name}'"), name.to_string());
        spec.states[0].name = format!("'{name}");
        let database = fresh.postgres();
        database.create(&spec).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let mut session = session(&database, &spec).await;
        let location = raise(&mut *session, attempt(1, 1)).await.location;
        let keys = counted([("'; drop table words; --", 1), ("{\"a\",NULL}", 2), ("NULL", 3)]);
        let outcome = run(Committer::new(order(&spec, attempt(1, 1), 1, location, vec![keys])), &mut *session).await;
        assert_eq!(outcome, CommitOutcome::Applied);
        assert!(database.try_lock(name).await.unwrap().is_some());
        assert_eq!(fresh.number(&format!("select sum(n)::int8 from words_{index}")).await, 6);
    }
    fresh.drop_database().await;
}

#[tokio::test]
async fn tables_that_cannot_keep_a_state_are_refused() {
    let Some(fresh) = Fresh::new().await else { return };
    let columns = "(word text primary key, n bigint not null)";
    fresh.sql(&format!("create unlogged table fleeting {columns}")).await;
    fresh.sql("create view seen as select 'a'::text as word, 1::bigint as n").await;
    fresh.sql("create table late (word text primary key deferrable, n bigint not null)").await;
    fresh.sql("create table partial (word text not null, n bigint not null)").await;
    fresh.sql("create unique index on partial (word) where n > 0").await;
    fresh.sql("create table generated (word text primary key, n bigint generated always as (1) stored not null)").await;
    fresh.sql("create table narrow (word varchar(10) primary key, n int)").await;
    let database = fresh.postgres();
    for (name, said) in [
        ("fleeting", &["unlogged"][..]),
        ("seen", &["view"]),
        ("late", &["key", "found none"]),
        ("partial", &["key", "found none"]),
        ("generated", &["generated"]),
        (
            "narrow",
            &[
                "expected text not null, found character varying(10)",
                "expected bigint not null, found integer nullable",
            ],
        ),
    ] {
        refused(&database, &group(name, vec![words(name)]), &[&[name][..], said].concat()).await;
    }
    fresh.sql("create table indexed (word text not null, n bigint not null)").await;
    fresh.sql("create unique index on indexed (word)").await;
    database.create(&group("indexed", vec![words("indexed")])).await.unwrap();
    fresh.drop_database().await;
}

/// Beside a right key too: `ON CONFLICT` would take both for arbiters, and `apple` and `Apple` for one key.
#[tokio::test]
async fn a_unique_index_that_takes_different_keys_for_one_is_refused() {
    let Some(fresh) = Fresh::new().await else { return };
    let folding = "create collation folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    fresh.sql(folding).await;
    let database = fresh.postgres();
    for (index, (key, on, by)) in [
        ("unique (word)", "(word collate folding)", "collation folding"),
        ("primary key (word)", "(word collate folding)", "collation folding"),
        ("primary key (word)", "(word collate folding) where n > 0", "collation folding"),
        ("primary key (word)", "(word collate folding, n)", "collation folding"),
        ("primary key (word)", "(n) include (word)", ""),
        ("primary key (word)", "(word text_pattern_ops)", ""),
        ("primary key (word)", "(word bpchar_ops)", "operator class bpchar_ops"),
    ]
    .into_iter()
    .enumerate()
    {
        let (name, stray) = (format!("folded_{index}"), format!("stray_{index}"));
        fresh.sql(&format!("create table {name} (word text collate \"C\" not null, n bigint not null, {key})")).await;
        fresh.sql(&format!("create unique index {stray} on {name} {on}")).await;
        let spec = group(&name, vec![words(&name)]);
        if !by.is_empty() {
            refused(&database, &spec, &[&name, &stray, by, "drop this index"]).await;
            fresh.sql(&format!("drop index {stray}")).await;
        }
        database.create(&spec).await.unwrap();
    }
    fresh.drop_database().await;
}

#[tokio::test]
async fn g9_a_table_that_is_gone_while_its_ledger_is_there_is_not_made_anew() {
    let Some(fresh) = Fresh::new().await else { return };
    let (database, spec) = (fresh.postgres(), group("t", vec![words("words")]));
    database.create(&spec).await.unwrap();
    fresh.sql("drop table words").await;
    refused(&database, &spec, &["words", "backup"]).await;
    fresh.drop_database().await;
}

#[tokio::test]
async fn a_table_in_a_schema_of_its_own_is_claimed_there_too() {
    let Some(fresh) = Fresh::new().await else { return };
    let database = fresh.postgres();
    let stats = |name: &str| TableSpec { schema: Some(ident("stats")), ..words(name) };
    refused(&database, &group("left", vec![stats("words")]), &["stats", "create schema"]).await;
    fresh.sql("create schema stats").await;
    database.create(&group("left", vec![words("left_words"), stats("words")])).await.unwrap();
    refused(&database, &group("right", vec![stats("words")]), &["left", "stats.words"]).await;
    fresh.drop_database().await;
}

#[tokio::test]
async fn missing_rights_say_what_to_grant() {
    let Some(fresh) = Fresh::new().await else { return };
    let role = fresh_name("tine_role");
    fresh.sql(&format!("create role {role} login password '{role}'")).await;
    fresh.sql("revoke all on schema public from public").await;
    let spec = group("t", vec![words("words")]);
    let database = Postgres::connect(&fresh.url_as(&role)).unwrap();
    let unqualified = database.create(&spec).await.unwrap_err();
    assert!(unqualified.message.contains("current_schema"), "{unqualified}");
    fresh.sql(&format!("grant usage on schema public to {role}")).await;
    refused(&database, &spec, &["grant usage, create on schema", &role]).await;
    fresh.postgres().create(&spec).await.unwrap();
    refused(&database, &spec, &["tine_groups", "grant select, insert, update, delete on", &role]).await;
    for table in ["tine_groups", "tine_ledger", "tine_transactions", "tine_claims"] {
        fresh.sql(&format!("grant select, insert, update, delete on {table} to {role}")).await;
    }
    fresh.sql(&format!("grant select, insert on words to {role}")).await;
    refused(&database, &spec, &["words", "grant update on", &role]).await;
    fresh.sql(&format!("grant update on words to {role}")).await;
    database.create(&spec).await.unwrap();

    let mut session = session(&database, &spec).await;
    let location = raise(&mut *session, attempt(1, 1)).await.location;
    assert!(location.system != 0, "a plain role sees the system identifier");
    fresh.sql(&format!("revoke insert on words from {role}")).await;
    let commit = || order(&spec, attempt(1, 1), 1, location, vec![counted([("a", 1)])]);
    match run(Committer::new(commit()), &mut *session).await {
        CommitOutcome::Failed(failure) => {
            assert_eq!(failure.kind, FailureKind::Fatal);
            assert!(failure.message.contains("grant select, insert, update on public.words"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
    fresh.sql(&format!("grant insert on words to {role}")).await;
    assert_eq!(run(Committer::new(commit()), &mut *session).await, CommitOutcome::Applied);

    fresh.sql("revoke execute on function pg_control_system() from public").await;
    let mut blind = server::session(&database, &spec).await;
    let location = raise(&mut *blind, attempt(1, 2)).await.location;
    assert!(location.system == 0 && location.timeline != 0, "{location}");
    let next = order(&spec, attempt(1, 2), 2, location, vec![counted([("a", 1)])]);
    assert_eq!(run(Committer::new(next), &mut *blind).await, CommitOutcome::Applied);
    drop((session, blind));
    fresh.sql(&format!("drop owned by {role}")).await;
    fresh.sql(&format!("drop role {role}")).await;
    fresh.drop_database().await;
}
