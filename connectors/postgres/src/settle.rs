//! Makes relaxed commits durable when a run ends: nobody would read the records again if they were lost then.
//!
//! The log is written in order, so that one synchronous commit of anything brings all of it to the disk. A server that
//! has crashed before may have nothing left to bring there, and answers just as well: so the ledger is looked at, too.

use std::sync::Arc;

use sqlx::Row;
use tine_core::{
    failure::{Failure, FailureKind},
    id::TxId,
};
use tine_state::GroupSpec;

use crate::{
    create, errors,
    link::{Link, statement},
    settings::{self, COMMIT_TEXT, COMMIT_TIMEOUT, Mode, PROMPT_TIMEOUT},
    sql::qualified,
};

/// After `Ok` everything that was committed up to `last` is on disk.
pub(crate) async fn settle(link: &mut Link, group: &GroupSpec, last: TxId) -> Result<(), Failure> {
    link.connect("settle").await?;
    let schemas = create::schemas(link, group).await?;
    let (groups, ledger) = (qualified(&schemas.own, "tine_groups"), qualified(&schemas.own, "tine_ledger"));
    match write(link, group, &groups, &ledger).await {
        Ok(there) if there >= last => Ok(()),
        Ok(there) => Err(Failure::new(
            FailureKind::Behind,
            format!(
                "{} acknowledged transaction {last} and holds no more than {there}: it has crashed since, and lost what \
                 relaxed commits may lose; start again, and those records are read again and counted once",
                link.address
            ),
        )),
        Err(error) => Err(errors::before_commit("bringing the last commits to the disk", &link.address, &error)),
    }
}

/// Answers up to which transaction everything is there.
async fn write(link: &mut Link, group: &GroupSpec, groups: &str, ledger: &str) -> Result<TxId, sqlx::Error> {
    let begin = settings::begin_text(Mode::Create, &link.names.of("settle"), link.control);
    link.message(&begin.into(), PROMPT_TIMEOUT).await?;
    let text: Arc<str> = format!("update {groups} set format = format where topology = $1 and grp = $2").into();
    link.touched(statement(&text).bind(group.topology.clone()).bind(group.group.clone())).await?;
    let text: Arc<str> = format!("select coalesce(min(txid), 0) from {ledger} where topology = $1 and grp = $2").into();
    let rows = link.rows(statement(&text).bind(group.topology.clone()).bind(group.group.clone())).await?;
    let there = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>(0))?;
    link.message(&COMMIT_TEXT.into(), COMMIT_TIMEOUT).await?;
    Ok(TxId(there.cast_unsigned()))
}
