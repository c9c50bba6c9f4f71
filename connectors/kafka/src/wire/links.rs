//! Connections to brokers by address, made when they are needed and made anew with growing pauses.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ring::rand::{SecureRandom, SystemRandom};

use super::{connection::Connection, settings::Settings, trouble::Trouble};

/// How often a pause asks whether it is still wanted.
const STEP: Duration = Duration::from_millis(50);

/// A connection to each broker that was needed.
#[derive(Debug)]
pub(crate) struct Links {
    settings: Arc<Settings>,
    links: HashMap<String, Link>,
}

#[derive(Debug, Default)]
struct Link {
    connection: Option<Connection>,
    /// Failed attempts since the last good one.
    failures: u32,
    /// No attempt before that.
    rest: Option<Instant>,
}

impl Links {
    /// No connection yet.
    pub(crate) fn new(settings: Arc<Settings>) -> Links {
        Links { settings, links: HashMap::new() }
    }

    /// The connection to `address` if there is one.
    pub(crate) fn existing(&mut self, address: &str) -> Option<&mut Connection> {
        self.links.get_mut(address)?.connection.as_mut()
    }

    /// The connection to `address`, made if there is none. After a failure the next attempt waits for its pause.
    pub(crate) fn connection(
        &mut self,
        address: &str,
        deadline: Instant,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<&mut Connection, Trouble> {
        if !self.links.contains_key(address) {
            self.links.insert(address.to_string(), Link::default());
        }
        let link = self.links.get_mut(address).expect("it is there or was inserted above");
        if link.connection.as_ref().is_none_or(Connection::is_stale) {
            link.connection = None;
            if let Some(rest) = link.rest {
                sleep(rest.min(deadline), cancelled)?;
            }
            match Connection::open(address, &self.settings, deadline, cancelled) {
                Ok(connection) => {
                    tracing::debug!(address, "connected to a kafka broker");
                    link.connection = Some(connection);
                    (link.failures, link.rest) = (0, None);
                }
                Err(trouble) => {
                    link.rest = Some(Instant::now() + pause(self.settings.backoff, link.failures));
                    link.failures = link.failures.saturating_add(1);
                    return Err(trouble);
                }
            }
        }
        Ok(link.connection.as_mut().expect("it was there, or was made above"))
    }

    /// Whether an attempt would be made at once.
    pub(crate) fn is_ready(&self, address: &str) -> bool {
        self.links
            .get(address)
            .is_none_or(|link| link.connection.is_some() || link.rest.is_none_or(|rest| rest <= Instant::now()))
    }

    /// Gives a connection up: it failed.
    pub(crate) fn drop(&mut self, address: &str) {
        if let Some(link) = self.links.get_mut(address) {
            link.connection = None;
            link.rest = Some(Instant::now() + pause(self.settings.backoff, link.failures));
            link.failures = link.failures.saturating_add(1);
        }
    }
}

/// Waits until `end`, unless nobody wants it any more.
pub(crate) fn sleep(end: Instant, cancelled: &dyn Fn() -> bool) -> Result<(), Trouble> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        if cancelled() {
            return Err(Trouble::Cancelled);
        }
        std::thread::sleep(left.min(STEP));
    }
}

/// The pause after a number of failures: doubling from the first to the longest, up to a quarter more or less, so that
/// many clients do not come back at once.
pub(crate) fn pause((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let mut random = [0; 1];
    // Without random numbers the pause is the plain one.
    let share = SystemRandom::new().fill(&mut random).map_or(1.0, |()| 0.75 + f64::from(random[0]) / 510.0);
    first.saturating_mul(1 << failures.min(16)).min(longest).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let range = (Duration::from_millis(50), Duration::from_secs(1));
        for (failures, plain) in [(0, 50), (1, 100), (4, 800), (5, 1000), (99, 1000)] {
            let pause = pause(range, failures).as_millis() as f64 / f64::from(plain);
            assert!((0.74..=1.26).contains(&pause), "{failures}: {pause}");
        }
    }
}
