//! Coordination: the simulator's fake against a real ZooKeeper, through the connector.
//!
//! A script has one leader and at most one standby at a time (which of several standbys comes next is ZooKeeper's
//! choice; the fake takes the one that waits longest), and all former leaders, whose sessions the server has ended and who
//! try to write nevertheless. The nodes are wiped, come back from an older copy with the old versions, or are another
//! leader's all of a sudden. Everything that the leaders are told is compared, and the nodes themselves, with versions.

mod tree;
mod workers;

use proptest::prelude::*;
use tine_core::{
    coordination::{Claim, Coordination, GroupRecord, Reign},
    failure::{Failure, FailureKind},
    id::{Epoch, Era, Nonce, TxId},
    membership::{Assignment, Member, Share},
};
use tine_sim::fakes::coordination::FakeCoordination;
use tine_tests::services::{shared, unique};
use tine_zookeeper::{PLAN_BYTES_MAX, ZooKeeper};
use tokio::task::JoinHandle;
use zookeeper_client::Client;

use crate::agree::{RUNTIME, Transcript, scripts, soon};
use tree::Tree;
use workers::Worker;

const GROUP: &str = "g";

/// What a refusal must say in these words on both sides, or on neither.
const WORDS: [&str; 9] = [
    "is known already",
    "does not follow: complete is",
    "its claim is not this leader's",
    "written before it was read",
    "stands there",
    "it is gone",
    "a part of this leader's claim is gone",
    "with the nonce it was elected with",
    "bytes and",
];

/// One step of a script.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// Somebody stands for election, unless there is a standby already.
    Campaign,
    Read(Who),
    /// Claims an epoch so far above the one that stands there, with its own nonce or another.
    Claim(Who, i64, bool),
    /// Writes the plan so far beyond the next; a huge one, or not.
    Plan(Who, i64, bool),
    /// Forgets so many plans.
    Forget(Who, i64),
    /// Completes up to so far beyond what is complete.
    Complete(Who, i64),
    /// Says who runs which tasks, in an era of its own.
    Assign(Who),
    /// Another worker registers.
    Register,
    /// A worker says that it wants to leave, or to stay.
    Update(usize, bool),
    /// A worker's registration ends.
    Unregister(usize),
    /// A worker looks who is there, and at the assignment.
    Sight(usize),
    /// The leader resigns.
    Resign,
    /// The server ends the leader's session.
    Expire,
    /// The standby no longer wants to lead.
    Withdraw,
    /// Another leader has claimed the group and written so many plans, while the leader's session lives.
    Rival(u64),
    /// Everything is deleted: with the sessions, or under a living one.
    Wipe(bool),
    /// An older copy comes back, from so many writes ago: with the sessions ended, or under a living one.
    Restore(usize, bool),
    /// The nodes are compared.
    Look,
}

/// The leader, or the one that led so many reigns ago.
type Who = usize;

fn op() -> impl Strategy<Value = Op> {
    let who = || prop_oneof![8 => Just(0usize), 2 => 1usize..4];
    let mostly = |usual: i64| prop_oneof![5 => Just(usual), 1 => -2i64..4];
    prop_oneof![
        4 => Just(Op::Campaign),
        5 => who().prop_map(Op::Read),
        5 => (who(), mostly(1), prop::bool::weighted(0.95)).prop_map(|(who, above, own)| Op::Claim(who, above, own)),
        9 => (who(), mostly(0), prop::bool::weighted(0.03)).prop_map(|(who, off, huge)| Op::Plan(who, off, huge)),
        3 => (who(), -1i64..4).prop_map(|(who, back)| Op::Forget(who, back)),
        5 => (who(), mostly(1)).prop_map(|(who, on)| Op::Complete(who, on)),
        3 => who().prop_map(Op::Assign),
        2 => Just(Op::Register),
        2 => (0usize..4, any::<bool>()).prop_map(|(which, leaves)| Op::Update(which, leaves)),
        1 => (0usize..4).prop_map(Op::Unregister),
        3 => (0usize..4).prop_map(Op::Sight),
        1 => Just(Op::Resign),
        2 => Just(Op::Expire),
        1 => Just(Op::Withdraw),
        1 => (0u64..3).prop_map(Op::Rival),
        1 => any::<bool>().prop_map(Op::Wipe),
        2 => (1usize..6, any::<bool>()).prop_map(|(writes, sessions)| Op::Restore(writes, sessions)),
        1 => Just(Op::Look),
    ]
}

#[test]
fn the_fake_of_coordination_answers_as_zookeeper_does() {
    let Some(server) = shared::zookeeper() else { return };
    let client = RUNTIME.block_on(async { Client::connect(&server).await.unwrap() });
    let script = || prop::collection::vec(op(), 30..60);
    scripts(file!(), 8, 320, script, |script| {
        RUNTIME.block_on(async {
            let mut scene = Scene::new(&server, client.clone());
            for op in script {
                scene.step(*op).await?;
            }
            scene.look().await?;
            scene.tree.wipe().await
        })
    });
}

/// Leadership on both sides.
struct Held {
    session: usize,
    nonce: Nonce,
    reign: Box<dyn Reign>,
}

/// A candidacy on both sides.
struct Standby {
    session: usize,
    nonce: Nonce,
    campaign: JoinHandle<Result<Box<dyn Reign>, Failure>>,
}

struct Scene {
    fake: FakeCoordination,
    zookeeper: ZooKeeper,
    tree: Tree,
    topology: String,
    leader: Option<Held>,
    standby: Option<Standby>,
    /// The last first.
    former: Vec<Held>,
    workers: Vec<Worker>,
    nonces: u64,
    transcript: Transcript,
}

impl Scene {
    fn new(server: &str, client: Client) -> Scene {
        let topology = unique("fakes");
        Scene {
            fake: FakeCoordination::default(),
            zookeeper: ZooKeeper::connect(server).unwrap(),
            tree: Tree::new(client, server, &topology),
            topology,
            leader: None,
            standby: None,
            former: Vec::new(),
            workers: Vec::new(),
            nonces: 0,
            transcript: Transcript::default(),
        }
    }

    async fn step(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Campaign if self.standby.is_none() => self.campaign().await,
            Op::Read(who) => self.read(who).await,
            Op::Claim(who, above, own) => self.claim(who, above, own).await,
            Op::Plan(who, off, huge) => self.plan(who, off, huge).await,
            Op::Forget(who, back) => self.forget(who, back).await,
            Op::Complete(who, on) => self.complete(who, on).await,
            Op::Assign(who) => self.assign(who).await,
            Op::Register => self.register().await,
            Op::Update(which, leaves) => self.update(which, leaves).await,
            Op::Unregister(which) => self.unregister(which).await,
            Op::Sight(which) => self.sight(which).await,
            Op::Resign => self.resign().await,
            Op::Expire => self.expire().await,
            Op::Withdraw => self.withdraw().await,
            Op::Rival(plans) => self.rival(plans).await,
            Op::Wipe(sessions) => {
                if sessions {
                    self.expire().await?;
                }
                self.fake.wipe();
                self.transcript.note("wiped");
                self.tree.wipe().await
            }
            Op::Restore(writes, sessions) => {
                if sessions {
                    self.expire().await?;
                }
                match self.fake.restore(writes) {
                    true => self.impose("an older copy is back").await,
                    false => Ok(()),
                }
            }
            Op::Look => self.look().await,
            Op::Campaign => Ok(()),
        }
    }

    fn nonce(&mut self) -> Nonce {
        self.nonces += 1;
        Nonce(self.nonces)
    }

    async fn campaign(&mut self) -> Result<(), String> {
        let nonce = self.nonce();
        let (zookeeper, topology) = (self.zookeeper.clone(), self.topology.clone());
        let campaign = tokio::spawn(async move { zookeeper.campaign(&topology, nonce).await });
        self.standby = Some(Standby { session: self.fake.open(nonce), nonce, campaign });
        self.transcript.note(format_args!("candidate {} stands for election", nonce.0));
        self.elect().await
    }

    /// Who waits comes to lead, on both sides, if nobody leads; otherwise on neither.
    async fn elect(&mut self) -> Result<(), String> {
        let elected = self.fake.elect();
        if let Some(leader) = &self.leader {
            let stands_by = self.standby.as_ref().is_none_or(|standby| !standby.campaign.is_finished());
            return match elected == Some(leader.session) && stands_by {
                true => Ok(()),
                false => Err(self.transcript.differ("an election under a leader", elected, stands_by)),
            };
        }
        let Some(Standby { session, nonce, campaign }) = self.standby.take() else { return Ok(()) };
        let reign = soon("leadership", campaign).await?.map_err(|error| error.to_string())?;
        let reign = reign.map_err(|failure| failure.to_string())?;
        self.transcript.agree(format_args!("candidate {} leads", nonce.0), &elected, &Some(session))?;
        self.leader = Some(Held { session, nonce, reign });
        Ok(())
    }

    fn held(&self, who: Who) -> Option<&Held> {
        match who.checked_sub(1) {
            None => self.leader.as_ref(),
            Some(ago) => self.former.get(ago),
        }
    }

    async fn read(&mut self, who: Who) -> Result<(), String> {
        let Some(held) = self.held(who) else { return Ok(()) };
        let (session, nonce) = (held.session, held.nonce);
        let real: Result<GroupRecord, Failure> = soon("a read", held.reign.read(GROUP)).await?;
        let fake = self.fake.read(session);
        self.transcript.agree_in(&WORDS, format_args!("{} reads", nonce.0), &fake, &real)
    }

    async fn claim(&mut self, who: Who, above: i64, own: bool) -> Result<(), String> {
        let epoch = self.fake.stood().map_or(0, |stood| stood.epoch.0).saturating_add_signed(above);
        let Some(held) = self.held(who) else { return Ok(()) };
        let nonce = if own { held.nonce } else { Nonce(77) };
        let claim = Claim { epoch: Epoch(epoch), nonce, lineage: 5 };
        let real = soon("a claim", held.reign.claim(GROUP, &claim)).await?;
        let (session, nonce) = (held.session, held.nonce);
        let fake = self.fake.claim(session, &claim);
        self.written(format_args!("{} claims {claim:?}", nonce.0), fake, real)
    }

    async fn plan(&mut self, who: Who, off: i64, huge: bool) -> Result<(), String> {
        let txid = self.fake.stood().map_or(1, |stood| stood.next.0.max(1)).saturating_add_signed(off);
        let plan = vec![b'p'; if huge { PLAN_BYTES_MAX + 1 } else { usize::try_from(self.nonces).unwrap_or(1) }];
        let Some(held) = self.held(who) else { return Ok(()) };
        let real = soon("a plan", held.reign.write_plan(GROUP, TxId(txid), &plan)).await?;
        let (session, nonce) = (held.session, held.nonce);
        let fake = self.fake.write_plan(session, TxId(txid), &plan);
        self.written(format_args!("{} writes plan {txid} ({} bytes)", nonce.0, plan.len()), fake, real)
    }

    async fn forget(&mut self, who: Who, back: i64) -> Result<(), String> {
        let txid = TxId(self.fake.stood().map_or(1, |stood| stood.next.0).saturating_add_signed(-back));
        let Some(held) = self.held(who) else { return Ok(()) };
        let real = soon("forgetting", held.reign.forget_from(GROUP, txid)).await?;
        let (session, nonce) = (held.session, held.nonce);
        let fake = self.fake.forget_from(session, txid);
        self.written(format_args!("{} forgets from {txid}", nonce.0), fake, real)
    }

    async fn complete(&mut self, who: Who, on: i64) -> Result<(), String> {
        let txid = TxId(self.fake.stood().map_or(0, |stood| stood.complete.0).saturating_add_signed(on));
        let Some(held) = self.held(who) else { return Ok(()) };
        let real = soon("completing", held.reign.complete(GROUP, txid)).await?;
        let (session, nonce) = (held.session, held.nonce);
        let fake = self.fake.complete(session, txid);
        self.written(format_args!("{} completes {txid}", nonce.0), fake, real)
    }

    async fn assign(&mut self, who: Who) -> Result<(), String> {
        let era = Era(self.nonce().0);
        let Some(held) = self.held(who) else { return Ok(()) };
        let (nonce, Member { peer, common, capacity, .. }) = (held.nonce, workers::member(7));
        let (leader, shares) = (peer.id, vec![Share { peer, capacity }]);
        let assignment = Assignment { era, nonce, leader, common, shares, places: Vec::new() };
        let real = soon("an assignment", held.reign.assign(GROUP, &assignment)).await?;
        let session = held.session;
        let fake = self.fake.assign(session, &assignment);
        self.written(format_args!("{} assigns {era}", nonce.0), fake, real)
    }

    fn written(
        &mut self,
        operation: std::fmt::Arguments<'_>,
        fake: Result<(), Failure>,
        real: Result<(), Failure>,
    ) -> Result<(), String> {
        self.transcript.agree_in(&WORDS, operation, &fake, &real)
    }

    async fn resign(&mut self) -> Result<(), String> {
        let Some(held) = self.leader.take() else { return Ok(()) };
        self.fake.end(held.session);
        drop(held.reign);
        self.transcript.note(format_args!("{} resigns", held.nonce.0));
        self.elect().await
    }

    async fn expire(&mut self) -> Result<(), String> {
        let Some(held) = self.leader.take() else { return Ok(()) };
        self.tree.expire().await?;
        self.fake.end(held.session);
        // The simulator tells its leaders so.
        let lost = soon("the loss", held.reign.lost()).await?.kind;
        self.transcript.agree(format_args!("the session of {} ends", held.nonce.0), &FailureKind::Transient, &lost)?;
        self.former.insert(0, held);
        self.elect().await
    }

    async fn withdraw(&mut self) -> Result<(), String> {
        let Some(standby) = self.standby.take() else { return Ok(()) };
        self.fake.end(standby.session);
        standby.campaign.abort();
        let _ = standby.campaign.await;
        self.transcript.note(format_args!("candidate {} withdraws", standby.nonce.0));
        Ok(())
    }

    async fn rival(&mut self, plans: u64) -> Result<(), String> {
        let nonce = self.nonce();
        let session = self.fake.open(nonce);
        let record = self.fake.read(session).map_err(|failure| failure.to_string())?;
        let claim = Claim { epoch: Epoch(record.epoch.0 + 1), nonce, lineage: 5 };
        self.fake.claim(session, &claim).map_err(|failure| failure.to_string())?;
        for _ in 0..plans {
            let next = self.fake.stood().map_or(1, |stood| stood.next.0.max(stood.complete.0 + 1));
            self.fake.write_plan(session, TxId(next), b"rival").map_err(|failure| failure.to_string())?;
        }
        self.fake.end(session);
        self.impose(&format!("rival {} has claimed and written {plans} plans", nonce.0)).await
    }

    /// The service's nodes become what the fake's are, by other hands.
    async fn impose(&mut self, why: &str) -> Result<(), String> {
        self.transcript.note(why);
        self.tree.impose(self.fake.stood().as_ref()).await
    }

    async fn look(&mut self) -> Result<(), String> {
        let real = self.tree.stood().await?;
        self.transcript.agree("the nodes", &self.fake.stood(), &real)
    }
}
