//! When transactions were committed: the ledger, looked at again and again past all proxies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How often.
const LOOK: Duration = Duration::from_millis(50);
/// A server that is paused is asked again after this.
const PATIENCE: Duration = Duration::from_secs(1);

/// The moments at which another transaction was there, in seconds since the start.
#[derive(Debug)]
pub(super) struct Pulse {
    over: Arc<AtomicBool>,
    task: JoinHandle<Vec<f64>>,
}

impl Pulse {
    /// Looks at the ledger of `database` from now on.
    pub(super) fn start(database: String, start: Instant) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let task = tokio::spawn(async move {
            let (mut beats, mut last, mut connection) = (Vec::new(), 0, None);
            while !stop.load(Ordering::Acquire) {
                // Away, or not there yet: the next look connects anew.
                if let Ok(Ok((txid, open))) = timeout(PATIENCE, look(&database, connection.take())).await {
                    if std::mem::replace(&mut last, txid) < txid {
                        beats.push(start.elapsed().as_secs_f64());
                    }
                    connection = Some(open);
                }
                sleep(LOOK).await;
            }
            beats
        });
        Self { over, task }
    }

    pub(super) async fn end(self) -> anyhow::Result<Vec<f64>> {
        self.over.store(true, Ordering::Release);
        Ok(self.task.await?)
    }
}

async fn look(database: &str, connection: Option<PgConnection>) -> sqlx::Result<(i64, PgConnection)> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => PgConnection::connect(database).await?,
    };
    let txid = sqlx::query_scalar("select coalesce(min(txid), 0) from tine_ledger").fetch_one(&mut connection).await?;
    Ok((txid, connection))
}
