//! How large the simulated world is, and its time constants.

/// How the topology runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// That many worker processes, each a candidate leader too; plans are prepared, coordination elects.
    Cluster(usize),
    /// One process does everything in whole transactions; a second one stands by on the database's lock.
    Embedded,
}

/// The world's size and time constants. All times are virtual.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the topology runs.
    pub mode: Mode,
    /// Partitions of each source at the start.
    pub partitions: usize,
    /// In how many steps a source grows to its whole length.
    pub steps: usize,
    /// How many of these steps wait for the healed world.
    pub held: usize,
    /// Until when faults may be in force, in milliseconds; then everything is healed.
    pub faults_until_ms: u64,
    /// How long the healed world may take to drain, in milliseconds.
    pub drained_within_ms: u64,
    /// How many attempts the healed world may take to drain.
    pub attempts_max: u64,
    /// After how long without a report a tuple tree is given up.
    pub message_timeout_ms: u64,
    /// After how long without a heartbeat coordination ends a session.
    pub session_timeout_ms: u64,
    /// After how long the database ends a transaction in which nothing happens.
    pub idle_timeout_ms: u64,
    /// After how long the database gives up waiting for a lock.
    pub lock_timeout_ms: u64,
    /// After how long a client gives up waiting for an answer.
    pub answer_timeout_ms: u64,
    /// Whether the acker tells nobody that a tree is complete: nothing may commit then.
    pub mute_acker: bool,
    /// Whether to keep a timeline in words.
    pub timeline: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode::Cluster(2),
            partitions: 3,
            steps: 18,
            held: 8,
            faults_until_ms: 600,
            drained_within_ms: 60_000,
            attempts_max: 60,
            message_timeout_ms: 400,
            session_timeout_ms: 150,
            idle_timeout_ms: 250,
            lock_timeout_ms: 120,
            answer_timeout_ms: 300,
            mute_acker: false,
            timeline: false,
        }
    }
}

impl Settings {
    /// Whether there is such a world.
    pub(crate) fn check(&self) -> Result<(), String> {
        match (self.mode, self.partitions, self.steps) {
            (Mode::Cluster(workers @ (0 | 17..)), ..) => Err(format!("Mode::Cluster({workers}): from 1 to 16 workers")),
            (_, 0, _) => Err("settings.partitions is 0: a source has one at least".to_owned()),
            (.., 0) => Err("settings.steps is 0: a source grows in one at least".to_owned()),
            _ => Ok(()),
        }
    }

    /// How many processes there are.
    pub fn nodes(&self) -> usize {
        match self.mode {
            Mode::Cluster(workers) => workers.max(1),
            Mode::Embedded => 2,
        }
    }
}
