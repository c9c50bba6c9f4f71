//! Where rows of each stage go: straight to the committers, or to an exchange when a later stage needs them whole.

use std::collections::BTreeMap;

use super::{
    BuildError, index,
    node::{Origin, Plan, SlotSpec},
};
use crate::{
    exchange::{ExchangeSpec, LaterSpec},
    pipeline::{BuiltExchange, ExchangeIndex, Target},
};

/// The exchanges of a plan: one for each keyed stream that feeds a later stage, in an order in which each comes after the
/// one that feeds it.
pub(super) struct Flow(BTreeMap<Origin, ExchangeIndex>);

impl Flow {
    pub(super) fn new(plan: &Plan) -> Flow {
        let mut repartitioned: Vec<Origin> = plan.later.iter().map(|node| node.after).collect();
        repartitioned.sort_unstable();
        repartitioned.dedup();
        Flow((0..).map(ExchangeIndex).zip(repartitioned).map(|(index, origin)| (origin, index)).collect())
    }

    /// Where the rows of a stage go. States that keep a stream which is repartitioned get its rows from there.
    fn targets(&self, plan: &Plan, origin: Origin) -> Vec<Target> {
        match self.0.get(&origin) {
            Some(exchange) => vec![Target::Exchange(*exchange)],
            None => states_of(plan, origin),
        }
    }

    /// What a source feeds.
    pub(super) fn slots(&self, plan: &Plan, source: usize) -> Vec<SlotSpec> {
        let stages = 0..plan.sources[source].stages().len();
        let slot = |stage| SlotSpec { stage, targets: self.targets(plan, Origin::Source { source, stage }) };
        stages.map(slot).collect()
    }

    pub(super) fn exchanges(&self, plan: &Plan) -> Result<Vec<BuiltExchange>, BuildError> {
        self.0.keys().map(|origin| self.exchange(plan, *origin)).collect()
    }

    fn exchange(&self, plan: &Plan, origin: Origin) -> Result<BuiltExchange, BuildError> {
        let place = plan.stage_place(origin);
        let stages =
            plan.later.iter().enumerate().filter(|(_, node)| node.after == origin).map(|(at, node)| LaterSpec {
                closure: node.closure.clone(),
                place: plan.stage_place(Origin::Later(at)),
                targets: self.targets(plan, Origin::Later(at)),
            });
        let spec = ExchangeSpec { place: place.clone(), states: states_of(plan, origin), stages: stages.collect() };
        let exchange = plan.output(origin)?.exchange(spec).ok_or_else(|| BuildError::Stage {
            place,
            why: "it returns a `Partial` of another stage, with other types".to_string(),
        })?;
        Ok(BuiltExchange { level: plan.depth(origin), exchange })
    }
}

fn states_of(plan: &Plan, origin: Origin) -> Vec<Target> {
    let fed = plan.states.iter().enumerate().filter(|(_, node)| node.origin == origin);
    fed.map(|(at, _)| Target::State(index(at))).collect()
}
