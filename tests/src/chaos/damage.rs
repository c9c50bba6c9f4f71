//! Damage that an audit must find: one row, by one, and put back.

use super::audited;
use crate::audit::Audit;
use crate::count;
use crate::job::Job;
use crate::services::kafka::Broker;

/// What is done, how it is undone, and which words the audit finds for it.
const DAMAGES: [(&str, &str, &str); 4] = [
    (
        "update counts set n = n + 1 where word = (select min(word) from counts)",
        "update counts set n = n - 1 where word = (select min(word) from counts)",
        "1 with other values",
    ),
    (
        "create table kept as select * from counts where word = (select max(word) from counts);
         delete from counts where word = (select max(word) from counts)",
        "insert into counts select * from kept; drop table kept",
        "1 missing",
    ),
    ("insert into counts values ('never written', 1)", "delete from counts where word = 'never written'", "1 too many"),
    ("update tine_ledger set txid = txid - 1", "update tine_ledger set txid = txid + 1", "the ledger stands at"),
];

/// How many there are.
pub(super) const COUNT: usize = DAMAGES.len();

/// What the audit did not find.
pub(super) async fn missed(job: &Job, broker: &Broker) -> anyhow::Result<Vec<&'static str>> {
    let mut missed = Vec::new();
    for (damage, undo, words) in DAMAGES {
        count::execute(job.database(), damage).await?;
        let verdict = audited(Audit::of(job, broker)).await;
        count::execute(job.database(), undo).await?;
        if !verdict?.differs(&[words]) {
            missed.push(damage);
        }
    }
    Ok(missed)
}
