//! Which versions a broker speaks (KIP-35, KIP-511).

use super::Api;
use crate::wire::codec::{Put, Read, Take};

/// Writes the question; `client` is who asks, for the broker's metrics.
pub(crate) fn ask(put: &mut Put<'_>, client: &str, version: &str) {
    put.text(client);
    put.text(version);
    put.no_tags();
}

/// A broker's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) error: i16,
    /// Key, oldest and newest version.
    apis: Vec<(i16, i16, i16)>,
}

impl Versions {
    /// Reads the body. A broker too old for this question answers in the oldest form, of which only the error is read.
    pub(crate) fn read(take: &mut Take<'_>) -> Read<Versions> {
        let error = take.i16()?;
        if error != 0 {
            return Ok(Versions { error, apis: Vec::new() });
        }
        let count = take.count(7)?;
        let mut apis = Vec::with_capacity(count);
        for _ in 0..count {
            apis.push((take.i16()?, take.i16()?, take.i16()?));
            take.skip_tags()?;
        }
        take.i32()?; // The throttle time.
        take.skip_tags()?;
        Ok(Versions { error, apis })
    }

    /// The newest version that both sides speak.
    pub(crate) fn common(&self, api: Api) -> Option<i16> {
        let (_, oldest, newest) = self.apis.iter().find(|(key, ..)| *key == api.key())?;
        let (our_oldest, our_newest) = api.spoken();
        let version = our_newest.min(*newest);
        (version >= our_oldest.max(*oldest)).then_some(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_taken_or_none() {
        let broker = |oldest, newest| Versions { error: 0, apis: vec![(1, oldest, newest)] };
        assert_eq!(broker(0, 13).common(Api::Fetch), Some(13));
        assert_eq!(broker(4, 99).common(Api::Fetch), Some(17));
        assert_eq!(broker(0, 11).common(Api::Fetch), None);
        assert_eq!(broker(18, 20).common(Api::Fetch), None);
        assert_eq!(broker(0, 13).common(Api::Metadata), None);
    }
}
