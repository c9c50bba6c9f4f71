//! The text of every statement, put together once for each session from checked names.
//!
//! A text never depends on the number of shards or rows (those are arrays), so the server prepares it once. What is said
//! about a user's table is in [`table`].

mod table;

use std::sync::Arc;

use tine_core::mutant::{self, Mutant};
use tine_state::{GroupSpec, Ident};

pub(crate) use table::TableSql;

/// A qualified name, quoted.
pub(crate) fn qualified(schema: &Ident, name: &str) -> String {
    format!("{schema}.\"{name}\"")
}

/// The statements of one group in one database.
#[derive(Debug)]
pub(crate) struct GroupSql {
    pub(crate) lock_group: Arc<str>,
    pub(crate) lock_rows: Arc<str>,
    pub(crate) lock_some_rows: Arc<str>,
    pub(crate) write_fence: Arc<str>,
    pub(crate) write_plan: Arc<str>,
    pub(crate) trim: Arc<str>,
    pub(crate) read_group: Arc<str>,
    pub(crate) read_rows: Arc<str>,
    pub(crate) read_transactions: Arc<str>,
    /// Compare-and-set without data.
    pub(crate) advance: Arc<str>,
    /// How many ledger rows the current transaction has written.
    pub(crate) moved: Arc<str>,
    /// The processes of the group's older connections that hold its tables' locks.
    pub(crate) older: Arc<str>,
    /// Ends one of them.
    pub(crate) evict: Arc<str>,
    pub(crate) tables: Vec<TableSql>,
}

const FENCE: &str = "fence_epoch, fence_nonce, fence_generation";
const ATTEMPT: &str = "attempt_epoch, attempt_nonce, attempt_generation";
/// How many parameters the compare-and-set has before those of the data.
const ADVANCE_PARAMETERS: usize = 12;

impl GroupSql {
    /// `schema` holds tine's own tables; `default_schema` those user tables that name none.
    pub(crate) fn new(group: &GroupSpec, schema: &Ident, default_schema: &Ident) -> GroupSql {
        let (groups, ledger) = (qualified(schema, "tine_groups"), qualified(schema, "tine_ledger"));
        let transactions = qualified(schema, "tine_transactions");
        let mine = "topology = $1 and grp = $2";
        let states = "array(select s ->> 'name' from jsonb_array_elements(states) s) as states, \
                      array(select (s ->> 'shards')::int4 from jsonb_array_elements(states) s) as shards";
        let group_row = format!("select lineage, fingerprint, {FENCE}, {states} from {groups} where {mine}");
        let row = format!("state, shard, {FENCE}, txid, chain, manifest, {ATTEMPT}");
        let text = |text: String| -> Arc<str> { text.into() };
        let advance = compare_and_set(&ledger);
        let older = |wanted: &str, and: &str| {
            text(format!(
                "select {wanted} from pg_stat_activity a \
                 where a.datname = current_database() and starts_with(a.application_name, $1) and a.pid <> pg_backend_pid() \
                 and a.xact_start < now() and exists (select 1 from pg_locks l where l.pid = a.pid and l.granted \
                 and l.relation in ('{groups}'::regclass, '{ledger}'::regclass)){and}"
            ))
        };
        GroupSql {
            lock_group: text(format!("{group_row} for update")),
            lock_rows: text(format!("select {row} from {ledger} where {mine} order by state, shard for update")),
            lock_some_rows: text(format!(
                "select {row} from {ledger} where {mine} and (state, shard) in (select * from unnest($3::text[], $4::int4[])) \
                 order by state, shard for update"
            )),
            write_fence: text(format!(
                "with g as (update {groups} set ({FENCE}) = ($3, $4, $5) where {mine}) \
                 update {ledger} set ({FENCE}) = ($3::int8, $4::int8, $5::int8) where {mine}"
            )),
            write_plan: text(format!(
                "with above as (delete from {transactions} where {mine} and txid > $3) \
                 insert into {transactions} as t (topology, grp, txid, previous, chain, manifest, {ATTEMPT}, plan, ranges, written_at) \
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::jsonb, now()) \
                 on conflict (topology, grp, txid) do update set previous = excluded.previous, chain = excluded.chain, \
                 manifest = excluded.manifest, attempt_epoch = excluded.attempt_epoch, attempt_nonce = excluded.attempt_nonce, \
                 attempt_generation = excluded.attempt_generation, plan = excluded.plan, ranges = excluded.ranges, \
                 written_at = excluded.written_at"
            )),
            trim: text(format!(
                "delete from {transactions} where {mine} and written_at < now() - interval '1 hour' and txid in \
                 (select txid from {transactions} where {mine} and txid < $3 order by txid limit $4)"
            )),
            read_group: text(group_row.clone()),
            read_rows: text(format!("select {row} from {ledger} where {mine} order by state, shard")),
            read_transactions: text(format!(
                "select txid, previous, chain, manifest, {ATTEMPT}, plan, ranges::text as ranges from {transactions} \
                 where {mine} and txid >= (select coalesce(min(txid), 0) from {ledger} where {mine}) order by txid"
            )),
            advance: text(advance.clone()),
            moved: text(format!(
                "select count(*) as moved from {ledger} where {mine} and xmin = pg_current_xact_id()::xid"
            )),
            older: older("a.pid as pid", ""),
            evict: older("pg_terminate_backend(a.pid) as ended", " and a.pid = $2"),
            tables: group.states.iter().map(|state| TableSql::new(&state.table, default_schema, &advance)).collect(),
        }
    }
}

/// The rules that the machines follow, as SQL; a mutant of one breaks it here, too.
fn compare_and_set(ledger: &str) -> String {
    let rule = |broken, condition| if mutant::on(broken) { "" } else { condition };
    let fence = rule(
        Mutant::NoFenceCheck,
        "and l.fence_epoch = $5::int8 and l.fence_nonce = $6::int8 and l.fence_generation = $7::int8",
    );
    let txid = rule(Mutant::TxidNotCompared, "and l.txid = $8::int8 - 1");
    let chain = rule(Mutant::ChainNotCompared, "and l.chain = $9");
    format!(
        "update {ledger} l set txid = $8, chain = $10, manifest = $11, ({ATTEMPT}) = ($5::int8, $6::int8, $7::int8), changed = null \
         from unnest($3::text[], $4::int4[]) u(state, shard) \
         where l.topology = $1 and l.grp = $2 and l.state = u.state and l.shard = u.shard \
         {fence} {txid} {chain} and $9::bytea is not null and $12::int8 > 0"
    )
}
