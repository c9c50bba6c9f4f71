//! The numbers that bound how long a statement, a lock or a sleeping process can hold up anybody else.
//!
//! All of them are set for each transaction alone (`set_config(…, true)`), so that nothing depends on what a pooler or
//! an administrator left in the session.

use std::time::Duration;

/// How long to wait for a connection, login included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a statement waits for one lock (`lock_timeout`). A raise that waits longer ends the older connections of
/// its own group and tries once more.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one statement may run (`statement_timeout`); a million new rows take about ten seconds. `COMMIT` is
/// exempt: cancelling it while it waits for a synchronous standby would make it succeed without the standby.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a transaction may lie open without a statement (`idle_in_transaction_session_timeout`): a process that
/// sleeps inside its transaction holds up a raise no longer than this.
pub const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the answer to what waits for nobody (`begin`, `rollback`): so a server that has vanished from
/// the network is noticed at the next transaction.
pub const PROMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the answer to a statement before the connection is given up; longer than the server's own
/// [`STATEMENT_TIMEOUT`], which is the better answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(135);

/// How long to wait for the answer to `COMMIT`; then its outcome is unknown, and a raise settles it.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the lock of a process that stopped speaking is kept (`idle_session_timeout`; before PostgreSQL 14
/// `idle_in_transaction_session_timeout` on a transaction that reads nothing): then the server ends its session, and
/// a standby takes over.
pub const LOCK_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the holder of a lock speaks.
pub const LOCK_HEARTBEAT: Duration = Duration::from_secs(2);

/// How many rows one statement merges at most; more are sent in several statements of the same transaction, so that no
/// message comes near the protocol's limit of 1 GB.
pub const ROWS_PER_STATEMENT: usize = 200_000;

/// How many bytes of keys and values one statement carries at most, unless a single row is larger.
pub const BYTES_PER_STATEMENT: usize = 64 << 20;

/// How many keys of a table are remembered as having a row, so that they are updated; the others are upserted. Takes up
/// to 18 MB a table.
pub const KNOWN_KEYS_MAX: usize = 1 << 20;

/// From how many known keys on an update of their own pays beside the upsert of the new ones.
pub const KNOWN_KEYS_MIN: usize = 256;

/// From how many rows on it pays to ask whether the whole table is small enough to be swept.
pub const SWEEP_ROWS_MIN: usize = 4_096;

/// How many times as large as the rows that are sent a table may be to be swept: at `fillfactor = 50` two and a half
/// times as many rows. Measured: equally dear at four, half the time at one.
pub const SWEEP_FACTOR: usize = 5;

/// What the server adds to a row: its header, its place in the page's index, padding.
pub const ROW_OVERHEAD_BYTES: usize = 30;

/// How much memory a statement that merges may use before it spills to a file (`work_mem`): the rows that it is sent
/// wait there.
pub const MERGE_MEMORY: &str = "64MB";

/// How many transactions `tine_transactions` keeps at least; older ones go when they are an hour old.
pub const HISTORY_TRANSACTIONS: u64 = 1_000;

/// How full pages of a table of counters are filled, in percent: half costs a third less than full at each update, and
/// half the log.
pub const FILLFACTOR: i32 = 50;

/// The oldest server that is supported, as `server_version_num` says it.
pub const SERVER_VERSION_MIN: i32 = 130_000;

/// The version of the tables' format that this binary reads and writes (`tine_groups.format`).
pub const FORMAT: i32 = 1;

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Commits or prepares under a fence.
    Commit,
    /// Raises the fence; has a savepoint to come back to when a lock is not granted.
    Raise,
    /// Reads everything in one snapshot.
    Read,
    /// Makes and checks tables.
    Create,
}

impl Mode {
    /// How its connection calls itself meanwhile.
    pub(crate) fn role(self) -> &'static str {
        match self {
            Mode::Commit => "commit",
            Mode::Raise => "raise",
            Mode::Read => "read",
            Mode::Create => "create",
        }
    }
}

/// Rows are found through indexes. Plans are kept, and one made while a table was small would read all of it for ever.
const PROBING: &str = "set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), \
     set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true)";

/// Rows are found by reading the whole table, with those that are sent in a hash table.
pub(crate) const SWEEPING: &str = "set_config('enable_nestloop', 'off', true), set_config('enable_hashjoin', 'on', true), \
     set_config('enable_seqscan', 'on', true)";

/// Back from sweeping to probing.
pub(crate) fn probing_text() -> String {
    format!("select {PROBING}")
}

/// `begin` and all settings in one message; one row comes back: what the connection can see, for the check of its
/// location. `control` says whether the role may call `pg_control_system()`.
pub(crate) fn begin_text(mode: Mode, application_name: &str, control: bool) -> String {
    let isolation = if mode == Mode::Read { "repeatable read read only" } else { "read committed" };
    let savepoint = if mode == Mode::Raise { "; savepoint tine_lock" } else { "" };
    let system = match control {
        true => "(select system_identifier::text from pg_control_system())",
        false => "'0'",
    };
    let merging = match mode {
        Mode::Commit => format!("{PROBING}, set_config('work_mem', '{MERGE_MEMORY}', true), "),
        Mode::Raise | Mode::Read | Mode::Create => String::new(),
    };
    let ms = |duration: Duration| duration.as_millis();
    format!(
        "begin isolation level {isolation}; \
         select set_config('synchronous_commit', \
             case current_setting('synchronous_commit') when 'remote_apply' then 'remote_apply' else 'on' end, true), \
           set_config('lock_timeout', '{}', true), set_config('statement_timeout', '{}', true), \
           set_config('idle_in_transaction_session_timeout', '{}', true), \
           set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true), \
           {merging}set_config('application_name', '{application_name}', true), \
           pg_is_in_recovery()::text as standby, {system} as system, {LOCATION}{savepoint}",
        ms(LOCK_TIMEOUT),
        ms(STATEMENT_TIMEOUT),
        ms(IDLE_IN_TRANSACTION_TIMEOUT),
    )
}

/// Timeline of the current WAL file (the control file lags after a promotion) and the position up to which the log is
/// on disk; null on a standby.
const LOCATION: &str = "case when not pg_is_in_recovery() \
     then substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end as timeline, \
     case when not pg_is_in_recovery() then pg_current_wal_flush_lsn()::text end as lsn";

/// Ends a transaction so that success means committed. The server answers `COMMIT` of a failed transaction with
/// `ROLLBACK` and no error; but `SAVEPOINT` fails in a failed transaction and outside one, and then the rest of the
/// message is not run.
pub const COMMIT_TEXT: &str = "savepoint tine_commit; set local statement_timeout = 0; commit";

/// The same, without waiting until the log is on disk.
const RELAXED_COMMIT_TEXT: &str =
    "savepoint tine_commit; set local statement_timeout = 0; set local synchronous_commit = off; commit";

/// What ends a transaction.
pub(crate) fn commit_text(relaxed: bool) -> &'static str {
    if relaxed { RELAXED_COMMIT_TEXT } else { COMMIT_TEXT }
}
