//! tine's side of the streaming jobs: the topologies a user writes, with no knob a user does not have.

use std::thread;

use anyhow::Result;
use tine::{Kafka, Options, Postgres, Shutdown, Topology};
use tine_kafka::Client;
use tine_postgres::Durability;

use crate::phases::Phases;
use crate::side::{Assignment, System, Until, until_dismissed};
use crate::workload::{Job, Sale, Second, first_letter};

tine::lend!(Sale as Sales);

/// Does the whole job. After `Ok` everything that was read is committed; a stream also says where its time went.
pub(crate) fn run(assignment: &Assignment) -> Result<String> {
    let shutdown = Shutdown::new();
    if assignment.until == Until::Dismissed {
        let shutdown = shutdown.clone();
        thread::spawn(move || {
            until_dismissed();
            shutdown.stop();
        });
    }
    let phases = Phases::default();
    let running = topology(assignment)?.run_with(options(assignment, &phases), shutdown);
    tokio::runtime::Runtime::new()?.block_on(running)?;
    Ok(phases.in_words())
}

fn topology(assignment: &Assignment) -> Result<Topology> {
    let topology = Topology::new("bench");
    let topic = kafka(assignment).topic(&*assignment.topic);
    let job = assignment.job;
    let durability = if assignment.relaxed { Durability::Relaxed } else { Durability::Synchronous };
    let database = Postgres::connect(&assignment.postgres_url)?.durability(durability);
    let table = database.table(job.table()).key(job.key_column()).value("n");
    let table = job.second().map(Second::column).into_iter().fold(table, |table, column| table.value(column));
    match job {
        Job::Values => {
            topology.source(topic.text()).stage(|values| values.group_by(|value| value).count()).persist(table)
        }
        Job::Words => topology
            .source(topic.text())
            .stage(|lines| lines.flat_map(|line| line.split_ascii_whitespace()).group_by(|word| word).count())
            .persist(table),
        Job::Letters => topology
            .source(topic.text())
            .stage(|lines| lines.flat_map(|line| line.split_ascii_whitespace()).group_by(|word| word).count())
            .stage(|words| words.group_by(|(word, _)| first_letter(word)).sum(|(_, n)| *n))
            .persist(table),
        Job::Json => topology
            .source(topic.json::<Sales>())
            .stage(|sales| {
                let by_user = sales.group_by(|sale| sale.user);
                by_user.aggregate(|sales| (sales.count(), sales.sum(|sale| sale.cents)))
            })
            .persist(table),
        Job::Live => topology
            .source(topic.records())
            .stage(|records| {
                let names = records.try_flat_map(|message| {
                    let value = message.record.value.ok_or("no value")?;
                    let (name, seq) = live(value).ok_or("not a name and a number")?;
                    Ok::<_, &str>([(name, 0), (message.partition, seq)])
                });
                names.group_by(|(name, _)| name).aggregate(|all| (all.count(), all.max(|(_, seq)| *seq)))
            })
            .persist(table),
    };
    Ok(topology)
}

/// Takes a record of [`Job::Live`] apart.
pub(crate) fn live(value: &[u8]) -> Option<(&str, i64)> {
    let (name, seq) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    Some((name, seq.parse().ok()?))
}

fn kafka(assignment: &Assignment) -> Kafka {
    let client = if assignment.system == System::TineRdkafka { Client::Rdkafka } else { Client::Native };
    Kafka::connect(&*assignment.brokers).client(client)
}

fn options(assignment: &Assignment, phases: &Phases) -> Options {
    let defaults = Options::default();
    match assignment.until {
        // What a stream does by itself is what is measured.
        Until::Dismissed => Options { on_phase: Some(phases.callback()), ..defaults },
        Until::End => {
            let age = assignment.commit_age();
            Options {
                until_end: true,
                // A record is planned, processed and begins to be committed within the age that all systems are told.
                commit_interval: age * 8 / 10,
                batch_units_max: assignment.commit_records,
                ..defaults
            }
        }
    }
}
