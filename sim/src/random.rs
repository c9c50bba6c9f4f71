//! Randomness by counter: a draw depends on seed, channel and number, never on what else was drawn before.
//!
//! So that taking one fault out of a plan while it is shrunk leaves every other draw as it was.

/// The draws of one channel (a link, a session, a generator), in order.
#[derive(Clone, Debug)]
pub(crate) struct Draws {
    key: u64,
    count: u64,
}

/// Spreads 64 bits (SplitMix64's finalizer).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Draws {
    /// The draws of `channel` under `seed`.
    pub(crate) fn new(seed: u64, channel: u64) -> Draws {
        Draws { key: mix(seed ^ mix(channel.wrapping_add(0x9e37_79b9_7f4a_7c15))), count: 0 }
    }

    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.count += 1;
        mix(self.key.wrapping_add(self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.bits()) * u128::from(bound)) >> 64).unwrap_or_default()
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Whether an event of `percent` has come.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_do_not_disturb_each_other() {
        let (mut a, mut again) = (Draws::new(7, 1), Draws::new(7, 1));
        let mut other = Draws::new(7, 2);
        let first: Vec<u64> = (0..5).map(|_| a.bits()).collect();
        let second: Vec<u64> = (0..5).map(|_| (other.bits(), again.bits()).1).collect();
        assert_eq!(first, second);
        assert!((0..100).all(|_| (3..=5).contains(&a.between(3, 5))));
    }
}
