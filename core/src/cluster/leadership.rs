//! Campaigns for leadership, again and again, and says while it lasts.

use std::{sync::Arc, time::Duration};

use rand::Rng;
use tokio::sync::watch;

use crate::{
    coordination::{Claim, Coordination, Reign},
    failure::{Failure, FailureKind},
    id::{Epoch, Nonce},
};

/// The name under which coordination keeps a topology of tuples; Trident's groups have others.
pub(super) const GROUP: &str = "tuples";

/// Pause before the next campaign when one has failed.
const PAUSE: Duration = Duration::from_millis(500);

/// What a leader is known by.
pub(super) type Reigning = Option<(Nonce, Arc<dyn Reign>)>;

/// Ends only with an error that trying again cannot help.
pub(super) async fn campaign(
    coordination: Arc<dyn Coordination>,
    topology: String,
    reigning: watch::Sender<Reigning>,
) -> Failure {
    loop {
        let nonce = Nonce(rand::rng().random());
        let failure = match reign(&*coordination, &topology, nonce).await {
            Ok(reign) => {
                reigning.send_replace(Some((nonce, Arc::clone(&reign))));
                let failure = reign.lost().await;
                reigning.send_replace(None);
                failure
            }
            Err(failure) => failure,
        };
        if failure.kind == FailureKind::Fatal {
            return failure;
        }
        tracing::info!(target: "tine::core", "leads {topology} no longer, or not yet: {failure}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until this process leads, and makes its claim.
async fn reign(coordination: &dyn Coordination, topology: &str, nonce: Nonce) -> Result<Arc<dyn Reign>, Failure> {
    let reign: Arc<dyn Reign> = coordination.campaign(topology, nonce).await?.into();
    let record = reign.read(GROUP).await?;
    let lineage = record.lineage.unwrap_or_else(|| rand::rng().random());
    reign.claim(GROUP, &Claim { epoch: Epoch(record.epoch.0 + 1), nonce, lineage }).await?;
    Ok(reign)
}
