//! The compressed forms of a batch's records, undone into a buffer that is used again and never grows beyond a limit.
//!
//! A few bytes can stand for gigabytes: every codec here stops at the limit, whatever its input claims.

use std::io::{self, Read};

use super::Limits;

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// What a batch's attributes say; `None` for a number that names nothing.
    pub(super) fn of(attributes: i16) -> Option<Codec> {
        match attributes & 0x07 {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// What a buffer may keep between batches: a large one is given back when smaller ones follow.
const KEPT_BYTES: usize = 4 << 20;

/// Undoes compression, batch after batch.
pub(super) struct Inflater {
    limit: usize,
    plain: Vec<u8>,
    /// Its tables are used again.
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    snappy: snap::raw::Decoder,
}

impl Inflater {
    pub(super) fn new(limits: &Limits) -> Inflater {
        Inflater { limit: limits.batch_bytes_max, plain: Vec::new(), zstd: None, snappy: snap::raw::Decoder::new() }
    }

    /// What was undone last.
    pub(super) fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// The memory that it takes.
    pub(super) fn held_bytes(&self) -> usize {
        self.plain.capacity()
    }

    /// Undoes `codec`; fails with words.
    pub(super) fn inflate(&mut self, codec: Codec, packed: &[u8]) -> Result<(), String> {
        if self.plain.capacity() > KEPT_BYTES && self.plain.len() <= KEPT_BYTES {
            self.plain = Vec::new();
        }
        self.plain.clear();
        let done = match codec {
            Codec::None => self.read(packed),
            Codec::Gzip => self.read(flate2::bufread::MultiGzDecoder::new(packed)),
            Codec::Lz4 => self.read(lz4_flex::frame::FrameDecoder::new(packed)),
            Codec::Zstd => self.zstd(packed),
            Codec::Snappy => self.snappy(packed),
        };
        done.map_err(|why| match why {
            Why::TooLarge => format!(
                "its records have more than {} bytes when they are no longer compressed ({codec:?}), which is the limit",
                self.limit
            ),
            Why::Broken(why) => format!("its compression ({codec:?}) cannot be undone: {why}"),
        })
    }

    fn read(&mut self, from: impl Read) -> Result<(), Why> {
        // One byte more than the limit tells a body at the limit from one beyond it.
        from.take(self.limit as u64 + 1).read_to_end(&mut self.plain)?;
        if self.plain.len() > self.limit { Err(Why::TooLarge) } else { Ok(()) }
    }

    /// In one step instead of a stream: the window that a frame asks for is then the buffer itself.
    fn zstd(&mut self, packed: &[u8]) -> Result<(), Why> {
        const TOO_SMALL: &str = "Destination buffer is too small";
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Decompressor::new()?),
        };
        let told = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
        let told = told.map_or(packed.len().saturating_mul(4), |told| usize::try_from(told).unwrap_or(usize::MAX));
        let mut room = told.max(self.plain.capacity()).min(self.limit);
        loop {
            self.plain.reserve_exact(room);
            match zstd.decompress_to_buffer(packed, &mut self.plain) {
                Ok(_) if self.plain.len() > self.limit => return Err(Why::TooLarge),
                Ok(_) => return Ok(()),
                Err(error) if error.to_string() != TOO_SMALL => return Err(error.into()),
                Err(_) if room >= self.limit => return Err(Why::TooLarge),
                Err(_) => room = room.saturating_mul(2).max(1024).min(self.limit),
            }
            self.plain.clear();
        }
    }

    /// One block, or the blocks of the framing that Java's clients write.
    fn snappy(&mut self, packed: &[u8]) -> Result<(), Why> {
        /// A name, and two versions that nobody looks at.
        const XERIAL: &[u8] = b"\x82SNAPPY\0";
        const XERIAL_HEAD: usize = 16;
        if !packed.starts_with(XERIAL) || packed.len() < XERIAL_HEAD {
            return self.snappy_block(packed);
        }
        let mut rest = &packed[XERIAL_HEAD..];
        while !rest.is_empty() {
            let (length, blocks) = rest.split_first_chunk::<4>().ok_or(Why::Broken("a block without length".into()))?;
            let length = u32::from_be_bytes(*length) as usize;
            let (block, after) = blocks.split_at_checked(length).ok_or(Why::Broken("a block without end".into()))?;
            self.snappy_block(block)?;
            rest = after;
        }
        Ok(())
    }

    fn snappy_block(&mut self, block: &[u8]) -> Result<(), Why> {
        let start = self.plain.len();
        let more = snap::raw::decompress_len(block)?;
        if more > self.limit - start {
            return Err(Why::TooLarge);
        }
        self.plain.resize(start + more, 0);
        let found = self.snappy.decompress(block, &mut self.plain[start..])?;
        self.plain.truncate(start + found);
        Ok(())
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("limit", &self.limit).field("plain", &self.plain.len()).finish_non_exhaustive()
    }
}

/// Why compression cannot be undone.
enum Why {
    TooLarge,
    Broken(String),
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Why {
        Why::Broken(error.to_string())
    }
}

impl From<snap::Error> for Why {
    fn from(error: snap::Error) -> Why {
        Why::Broken(error.to_string())
    }
}
