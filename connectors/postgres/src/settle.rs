//! Makes relaxed commits durable when a run ends: nobody would read the records again if they were lost then.
//!
//! The log is written in order, so that one synchronous commit of anything brings all of it to the disk.

use std::sync::Arc;

use tine_core::failure::Failure;
use tine_state::GroupSpec;

use crate::{
    create, errors,
    link::{Link, statement},
    settings::{self, COMMIT_TEXT, COMMIT_TIMEOUT, Mode, PROMPT_TIMEOUT},
    sql::qualified,
};

/// After `Ok` everything that was committed before is on disk.
pub(crate) async fn settle(link: &mut Link, group: &GroupSpec) -> Result<(), Failure> {
    link.connect("settle").await?;
    let schemas = create::schemas(link, group).await?;
    match write(link, group, &qualified(&schemas.own, "tine_groups")).await {
        Ok(()) => Ok(()),
        Err(error) => Err(errors::before_commit("bringing the last commits to the disk", &link.address, &error)),
    }
}

async fn write(link: &mut Link, group: &GroupSpec, groups: &str) -> Result<(), sqlx::Error> {
    let begin = settings::begin_text(Mode::Create, &link.names.of("settle"), link.control);
    link.message(&begin.into(), PROMPT_TIMEOUT).await?;
    let text: Arc<str> = format!("update {groups} set format = format where topology = $1 and grp = $2").into();
    link.touched(statement(&text).bind(group.topology.clone()).bind(group.group.clone())).await?;
    link.message(&COMMIT_TEXT.into(), COMMIT_TIMEOUT).await.map(drop)
}
