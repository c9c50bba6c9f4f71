//! Plans drawn for proptest, and how a plan that breaks something is made shorter.
//!
//! There is one idea of "simpler" ([`FaultPlan::simpler`]), and both ways of shrinking follow it: proptest's, through
//! [`PlanTree`], and the simulator's own, which runs after it and on plans that no strategy has drawn. So they cannot
//! undo each other's work, and a kind of fault never turns into another one.

use proptest::{
    prelude::Rng,
    strategy::{NewTree, Strategy, ValueTree},
    test_runner::TestRunner,
};

use super::{Fault, FaultPlan};
use crate::random::Draws;

impl FaultPlan {
    /// Plans a little simpler than this one, the boldest first: half of the faults gone, one gone, one of half the size
    /// or that lasts half as long, one at a rounder time.
    pub(crate) fn simpler(&self) -> Vec<FaultPlan> {
        let count = self.faults.len();
        let mut plans = Vec::new();
        if count > 3 {
            plans.extend([self.kept(count / 2..count), self.kept(0..count / 2)]);
        }
        plans.extend((0..count).map(|index| self.without(index)));
        for (index, fault) in self.faults.iter().enumerate() {
            if let Some(kind) = fault.kind.smaller() {
                plans.push(self.with(index, Fault { kind, ..*fault }));
            }
            if fault.for_ms > 10 {
                plans.push(self.with(index, Fault { for_ms: fault.for_ms / 2, ..*fault }));
            }
            for rounder in [fault.at_ms / 100 * 100, fault.at_ms / 10 * 10] {
                if rounder != fault.at_ms {
                    plans.push(self.with(index, Fault { at_ms: rounder, ..*fault }));
                }
            }
        }
        plans
    }

    fn kept(&self, places: std::ops::Range<usize>) -> FaultPlan {
        FaultPlan { faults: self.faults[places].to_vec() }
    }

    fn without(&self, index: usize) -> FaultPlan {
        let mut faults = self.faults.clone();
        faults.remove(index);
        FaultPlan { faults }
    }

    fn with(&self, index: usize, fault: Fault) -> FaultPlan {
        let mut faults = self.faults.clone();
        faults[index] = fault;
        FaultPlan { faults }
    }
}

/// The strategy behind `any::<FaultPlan>()`: up to eight faults of any kind that a topology must survive.
#[derive(Clone, Copy, Debug)]
pub struct AnyFaults;

impl Strategy for AnyFaults {
    type Tree = PlanTree;
    type Value = FaultPlan;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let mut draws = Draws::new(runner.rng().next_u64(), 0xFC);
        let count = draws.below(9);
        Ok(PlanTree::new(FaultPlan::drawn(&mut draws, count, false)))
    }
}

/// A plan while it is shrunk: proptest asks for simpler ones as long as they break what the first one broke.
#[derive(Clone, Debug)]
pub struct PlanTree {
    /// The simplest plan that is known to break something.
    breaks: FaultPlan,
    current: FaultPlan,
    /// Simpler ones that were not tried yet, the next one last.
    untried: Vec<FaultPlan>,
}

impl PlanTree {
    fn new(plan: FaultPlan) -> PlanTree {
        PlanTree { breaks: plan.clone(), current: plan, untried: Vec::new() }
    }

    fn next(&mut self) -> bool {
        match self.untried.pop() {
            Some(plan) => {
                self.current = plan;
                true
            }
            None => {
                self.current = self.breaks.clone();
                false
            }
        }
    }
}

impl ValueTree for PlanTree {
    type Value = FaultPlan;

    fn current(&self) -> FaultPlan {
        self.current.clone()
    }

    /// The current plan breaks something.
    fn simplify(&mut self) -> bool {
        self.breaks = self.current.clone();
        self.untried = self.breaks.simpler();
        self.untried.reverse();
        self.next()
    }

    /// The current plan breaks nothing.
    fn complicate(&mut self) -> bool {
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Kind, *};

    /// Shrinks as proptest does.
    fn shrunk(plan: FaultPlan, breaks: impl Fn(&FaultPlan) -> bool) -> FaultPlan {
        let mut tree = PlanTree::new(plan);
        assert!(breaks(&tree.current()));
        let mut more = tree.simplify();
        while more {
            more = if breaks(&tree.current()) { tree.simplify() } else { tree.complicate() };
        }
        assert!(breaks(&tree.current()), "what is left still breaks");
        tree.current()
    }

    #[test]
    fn a_plan_is_shrunk_to_the_two_faults_that_matter() {
        let mut runner = TestRunner::deterministic();
        let mut tried = 0;
        while tried < 50 {
            let mut plan = AnyFaults.new_tree(&mut runner).unwrap().current();
            plan.faults.truncate(6);
            plan.faults.insert(0, Fault::at(237, Kind::Pause(1)).lasting(160));
            plan.faults.push(Fault::at(41, Kind::LoseTail(2)));
            let both = |plan: &FaultPlan| {
                let has = |wanted: Kind| plan.faults.iter().any(|fault| fault.kind == wanted);
                has(Kind::Pause(1)) && has(Kind::LoseTail(2))
            };
            let least = shrunk(plan, both);
            assert_eq!(least.faults.len(), 2, "{least}");
            assert!(least.faults.iter().all(|fault| fault.for_ms <= 10 && fault.at_ms.is_multiple_of(100)), "{least}");
            tried += 1;
        }
    }
}
