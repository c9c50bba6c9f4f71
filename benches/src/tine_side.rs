//! tine's side of `kafka-to-postgres`: the topology a user writes, with no knob a user does not have.

use std::time::Duration;

use anyhow::Result;
use tine::{Kafka, Options, Postgres, Shutdown, Topology};

use crate::{kafka_to_postgres::Job, side::Assignment};

/// Counts everything below the topic's end offsets of this moment. After `Ok` all of it is committed.
pub(crate) fn run(assignment: &Assignment) -> Result<()> {
    let topology = Topology::new("bench");
    let table = Postgres::connect(&assignment.postgres_url)?.table(&assignment.table).value("n");
    let records = topology.source(Kafka::connect(&*assignment.brokers).topic(&*assignment.topic).text());
    match assignment.job {
        Job::Values => records.stage(|values| values.group_by(|value| value).count()).persist(table.key("value")),
        Job::Words => records
            .stage(|lines| lines.flat_map(|line| line.split_ascii_whitespace()).group_by(|word| word).count())
            .persist(table.key("word")),
    };
    let age = Duration::from_millis(assignment.commit_age_ms);
    let options = Options {
        until_end: true,
        // A record is planned, processed and begins to be committed within the age that both systems are told.
        commit_interval: age * 8 / 10,
        batch_units_max: assignment.commit_records,
        ..Options::default()
    };
    tokio::runtime::Runtime::new()?.block_on(topology.run_with(options, Shutdown::new()))?;
    Ok(())
}
