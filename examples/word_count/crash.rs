//! Kills the job with SIGKILL, each time in another phase of a transaction.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use tine::{Phase, Shutdown, core::id::TxId};

use super::Args;

/// Where a job stands still to be killed: in a phase, in its n-th transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    phase: Phase,
    transactions: u64,
}

const PHASES: [(&str, Phase); 5] = [
    ("processed", Phase::Processed),
    ("commit-sent", Phase::CommitSent),
    ("emitting", Phase::Emitting),
    ("acknowledged", Phase::Acknowledged),
    ("planned", Phase::Planned),
];

impl FromStr for Mark {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Mark> {
        let (name, transactions) = text.split_once(':').context("expected PHASE:N")?;
        let Some((_, phase)) = PHASES.iter().find(|(known, _)| *known == name) else { bail!("no phase {name}") };
        Ok(Mark { phase: *phase, transactions: transactions.parse()? })
    }
}

/// In the child: says each phase from the mark on, and stands still there. Not once COMMIT is on its way: then the kill races
/// the database, which is the point.
pub(crate) fn stand_still_at(mark: Mark) -> Arc<dyn Fn(TxId, Phase) + Send + Sync> {
    let seen = AtomicU64::new(0);
    Arc::new(move |txid, phase| {
        if phase == mark.phase {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        if seen.load(Ordering::Relaxed) >= mark.transactions {
            eprintln!("phase {phase} of txid {txid}");
            if phase == mark.phase && phase != Phase::CommitSent {
                std::thread::sleep(Duration::from_secs(10));
            }
        }
    })
}

/// Starts the job as a child process and kills it, so many times. Returns how often it was killed in the middle of its
/// work: a job that is done before cannot be killed any more.
pub(crate) fn kill_on_the_way(args: &Args, crashes: u32, shutdown: &Shutdown) -> anyhow::Result<u32> {
    let transactions = (40 / u64::from(crashes)).clamp(1, 8);
    for kill in 0..crashes {
        let (name, _) = PHASES[kill as usize % PHASES.len()];
        let mut child = start(args, &format!("{name}:{transactions}"))?;
        let hit = kill_at_mark(&mut child)?;
        let status = child.wait().context("waiting for the child")?;
        if shutdown.is_stopped() {
            return Ok(kill);
        }
        match hit {
            Some(phase) => eprintln!("kill {} with SIGKILL in {phase}", kill + 1),
            None if status.success() => {
                eprintln!("the job is done after {kill} kills: the text is too short for {crashes}");
                return Ok(kill);
            }
            None => bail!("the job ended with {status} before it was killed"),
        }
    }
    Ok(crashes)
}

fn start(args: &Args, mark: &str) -> anyhow::Result<Child> {
    let database = args.database.as_ref().context("a database is given or made up before")?;
    let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
    command.arg("--database").arg(database).args(["--stand-still", mark, "--batch-ms", &args.batch_ms.to_string()]);
    command.args(&args.paths).stderr(Stdio::piped()).spawn().context("cannot start the child")
}

/// Kills the child at its first word about a phase, where it stands still. Answers with that phase, or with
/// `acknowledged` when the database was faster than the kill in the race for a COMMIT that was sent.
fn kill_at_mark(child: &mut Child) -> anyhow::Result<Option<String>> {
    let stderr = child.stderr.take().context("the child's stderr is piped")?;
    let mut hit: Option<String> = None;
    for line in BufReader::new(stderr).lines() {
        let line = line.context("reading the child's stderr")?;
        match (line.strip_prefix("phase "), &hit) {
            (Some(phase), None) => {
                child.kill().context("cannot kill the child")?;
                hit = Some(phase.to_string());
            }
            (Some(phase), Some(sent)) if *phase == sent.replace("COMMIT sent", "acknowledged") => {
                hit = Some(phase.to_string());
            }
            (Some(_), _) => {}
            (None, _) => eprintln!("{line}"),
        }
    }
    Ok(hit)
}
