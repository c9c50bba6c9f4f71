//! Watches a topology that runs: it ends when everything is worked off, and calls that do not return are reported.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::super::shared::{Phase, Shared, Worker};
use crate::{failure::Failure, metrics::TaskMeter};

/// How often stuck tasks are looked for.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often is looked whether everything is worked off, while a topology drains.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(2);

/// Watches until the topology has stopped, and stops it when everything is worked off.
pub(super) fn supervise(shared: &Shared, meters: &[Arc<TaskMeter>]) {
    let mut reported: HashMap<u32, u64> = HashMap::new();
    let mut deadline = None;
    loop {
        let (phase, live) = (shared.phase(), shared.live_spouts());
        if phase == Phase::Stopped {
            return;
        }
        // Pending trees first: one that ends in between leaves tuples, if anything, that are counted after it.
        let idle = live == 0 && meters.iter().all(|meter| meter.pending_now() == 0);
        let alone = matches!(shared.worker, Worker::Alone);
        if alone && idle && shared.in_flight() == 0 {
            return shared.end(true);
        }
        if phase == Phase::Draining {
            let until = *deadline.get_or_insert_with(|| Instant::now() + shared.settings.drain_timeout);
            if Instant::now() >= until {
                return shared.end(false);
            }
        }
        look_for_stuck(shared, meters, &mut reported);
        let ending = phase == Phase::Draining || alone && live == 0;
        shared.wait((phase, live), if ending { DRAIN_LOOK_EVERY } else { LOOK_EVERY });
    }
}

/// Reports each call of user code that takes too long, once.
fn look_for_stuck(shared: &Shared, meters: &[Arc<TaskMeter>], reported: &mut HashMap<u32, u64>) {
    let stuck_after = shared.settings.stuck_after;
    for meter in meters {
        let Some(since) = meter.busy_since() else { continue };
        let busy = Duration::from_micros(shared.now_us().saturating_sub(since));
        if busy > stuck_after && reported.insert(meter.task().0, since) != Some(since) {
            let of = if meter.is_spout() { "next, ack or fail" } else { "execute, tick or woken" };
            let secs = busy.as_secs_f32();
            let message = format!("has not returned from {of} for {secs:.1} s: it must not wait that long");
            shared.report(meter, &Failure::poison(message));
        }
    }
}
