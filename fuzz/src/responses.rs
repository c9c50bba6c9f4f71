//! A broker's answers: any bytes are an answer or malformed.

use crate::{
    memory,
    wire::{
        codec::{Read, Take},
        message::{Api, answer, api_versions::Versions, fetch, list_offsets::Offsets, metadata::Metadata, sasl},
    },
};

const APIS: [Api; 6] =
    [Api::Fetch, Api::ListOffsets, Api::Metadata, Api::SaslHandshake, Api::Versions, Api::SaslAuthenticate];

/// What a byte of an answer may make us hold: the smallest element of an array becomes a structure with texts and arrays of its
/// own, in a vector that has just grown.
const HELD_PER_BYTE: usize = 16;
const HELD_ANYHOW: usize = 4 << 10;

/// The first byte says to which question the rest is the answer, the second in which version.
///
/// # Panics
/// When a rule is broken.
pub fn judge(input: &[u8]) {
    let Some((&[api, version], message)) = input.split_first_chunk() else { return };
    let api = APIS[usize::from(api) % APIS.len()];
    let (oldest, newest) = api.spoken();
    let version = oldest + i16::from(version) % (newest - oldest + 1);
    let _malformed = memory::at_most(HELD_ANYHOW + HELD_PER_BYTE * message.len(), || read(api, version, message));
}

fn read(api: Api, version: i16, message: &[u8]) -> Read<()> {
    let mut take = Take::new(message);
    answer(api, &mut take)?;
    match api {
        Api::Fetch => {
            let fetched = fetch::Fetched::read(&mut take, version)?;
            let lies_inside = |partition: &fetch::Partition| message.get(partition.records.clone()).is_some();
            assert!(fetched.partitions.iter().all(lies_inside), "records outside of their message: {fetched:?}");
        }
        Api::ListOffsets => drop(Offsets::read(&mut take)?),
        Api::Metadata => drop(Metadata::read(&mut take, version)?),
        Api::SaslHandshake => drop(sasl::Mechanisms::read(&mut take)?),
        Api::SaslAuthenticate => drop(sasl::Token::read(&mut take)?),
        Api::Versions => {
            let versions = Versions::read(&mut take)?;
            for api in APIS {
                let (oldest, newest) = api.spoken();
                let common = versions.common(api);
                assert!(common.is_none_or(|common| (oldest..=newest).contains(&common)), "{api:?}: {common:?}");
            }
        }
    }
    assert!(take.at() <= message.len());
    Ok(())
}
