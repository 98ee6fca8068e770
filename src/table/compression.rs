//! Codecs: their numbers exist in every build, their code only where a feature brings it.

use crate::base::bytes::Bytes;
use crate::base::error::{Error, Result};
use crate::table::scratch::{KEPT_BYTES, Scratch};

/// How a block's bytes are packed. The number is stored in the block's trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    None = 1,
    /// An LZ4 block (feature `lz4`).
    Lz4 = 2,
    /// A Zstandard frame (feature `zstd`).
    Zstd = 3,
}

impl Codec {
    /// All codecs, in this build or not.
    pub const ALL: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

    /// The codec with this number, if there is one.
    pub fn from_byte(byte: u8) -> Option<Codec> {
        Codec::ALL.into_iter().find(|&codec| codec as u8 == byte)
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// Can this build read and write it?
    pub fn is_compiled_in(self) -> bool {
        match self {
            Codec::None => true,
            Codec::Lz4 => cfg!(feature = "lz4"),
            Codec::Zstd => cfg!(feature = "zstd"),
        }
    }

    /// `Unsupported`, naming the codec, unless this build has it.
    pub fn require(self) -> Result<()> {
        if self.is_compiled_in() {
            return Ok(());
        }
        Err(Error::unsupported(format!("codec {} is not part of this build", self.name())))
    }
}

/// Packs blocks, one after the other, with one codec.
pub struct Compressor {
    codec: Codec,
    lz4: Option<lz4_codec::Packer>,
    zstd: Option<zstd_codec::Packer>,
    /// What is behind the packed form is left over from earlier ones.
    packed: Vec<u8>,
}

impl Compressor {
    /// `Unsupported` if this build does not have the codec.
    pub fn new(codec: Codec, zstd_level: i32) -> Result<Compressor> {
        codec.require()?;
        let (mut lz4, mut zstd) = (None, None);
        match codec {
            Codec::None => {}
            Codec::Lz4 => lz4 = Some(lz4_codec::Packer::new()?),
            Codec::Zstd => zstd = Some(zstd_codec::Packer::new(zstd_level)?),
        }
        Ok(Compressor { codec, lz4, zstd, packed: Vec::new() })
    }

    /// The bytes to store for `raw`, and their codec: `raw` itself unless packing saves an eighth.
    pub fn compress<'a>(&'a mut self, raw: &'a [u8]) -> (Codec, &'a [u8]) {
        let worth = raw.len() - raw.len() / 8;
        let packed = match (&mut self.lz4, &mut self.zstd) {
            (Some(packer), _) => packer.pack(raw, &mut self.packed),
            (_, Some(packer)) => packer.pack(raw, &mut self.packed),
            _ => None,
        };
        match packed {
            Some(len) if len <= worth && len < raw.len() => (self.codec, &self.packed[..len]),
            _ => (Codec::None, raw),
        }
    }
}

/// Unpacks to exactly `raw_len` bytes, which the caller has checked against a limit. One allocation.
///
/// # Errors
/// `Unsupported` if this build does not have the codec; `Corruption` if the bytes are not a packed
/// form of so many bytes.
pub fn decompress(codec: Codec, packed: &[u8], raw_len: usize) -> Result<Bytes> {
    if raw_len > KEPT_BYTES {
        return Bytes::filled(raw_len, |raw| unpack(codec, packed, raw));
    }
    // By way of a buffer that is in the processor's cache, while memory for a block of its own was just
    // given up by one that nobody wanted.
    let mut scratch = Scratch::take();
    let raw = scratch.raw.first(raw_len);
    unpack(codec, packed, raw)?;
    Ok(Bytes::from(&*raw))
}

/// Fills `raw`, all of it.
///
/// # Errors
/// Those of [`decompress`].
pub fn unpack(codec: Codec, packed: &[u8], raw: &mut [u8]) -> Result<()> {
    codec.require()?;
    let unpacked = match codec {
        Codec::None if packed.len() == raw.len() => {
            raw.copy_from_slice(packed);
            Some(raw.len())
        }
        Codec::None => None,
        Codec::Lz4 => lz4_codec::unpack(packed, raw),
        Codec::Zstd => zstd_codec::unpack(packed, raw),
    };
    match unpacked {
        Some(len) if len == raw.len() => Ok(()),
        _ => Err(Error::corruption(format!("block does not unpack ({})", codec.name()))),
    }
}

/// Packed by LZ4, whether that saves anything or not; `None` if this build does not have it.
#[cfg(test)]
pub fn packed_by_lz4(raw: &[u8]) -> Option<Vec<u8>> {
    let mut packed = Vec::new();
    let len = lz4_codec::Packer::new().ok()?.pack(raw, &mut packed)?;
    packed.truncate(len);
    Some(packed)
}

#[cfg(feature = "lz4")]
mod lz4_codec {
    use lz4_flex::block;

    use crate::base::error::Result;

    /// Keeps the table of what was seen, which is cleared for each block.
    pub struct Packer(block::CompressTable);

    impl Packer {
        pub fn new() -> Result<Packer> {
            Ok(Packer(block::CompressTable::small()))
        }

        /// The length of the packed form, with which `out` begins.
        pub fn pack(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Option<usize> {
            let most = block::get_maximum_output_size(raw.len());
            if out.len() < most {
                out.resize(most, 0);
            }
            // The table would be exchanged for good, and packed forms depend on what came before.
            if raw.len() >= usize::from(u16::MAX) {
                return block::compress_into(raw, out).ok();
            }
            block::compress_into_with_table(raw, out, &mut self.0).ok()
        }
    }

    /// The decoder checks every length and offset against both buffers. It does so in unsafe code: the
    /// crate's other one, feature `safe-decode`, takes half as long again.
    pub fn unpack(packed: &[u8], raw: &mut [u8]) -> Option<usize> {
        block::decompress_into(packed, raw).ok()
    }
}

#[cfg(not(feature = "lz4"))]
mod lz4_codec {
    use crate::base::error::Result;

    pub enum Packer {}

    impl Packer {
        pub fn new() -> Result<Packer> {
            Err(super::Codec::Lz4.require().expect_err("not compiled in"))
        }

        pub fn pack(&mut self, _: &[u8], _: &mut Vec<u8>) -> Option<usize> {
            match *self {}
        }
    }

    pub fn unpack(_: &[u8], _: &mut [u8]) -> Option<usize> {
        None
    }
}

#[cfg(feature = "zstd")]
mod zstd_codec {
    use std::cell::RefCell;

    use zstd::bulk;
    use zstd::zstd_safe::compress_bound;

    use crate::base::error::{Error, ErrorKind, Result};

    pub struct Packer(bulk::Compressor<'static>);

    impl Packer {
        pub fn new(level: i32) -> Result<Packer> {
            match bulk::Compressor::new(level) {
                Ok(compressor) => Ok(Packer(compressor)),
                Err(e) => Err(Error::new(ErrorKind::InvalidArgument, format!("zstd level: {e}"))),
            }
        }

        pub fn pack(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Option<usize> {
            out.clear();
            out.reserve(compress_bound(raw.len()));
            self.0.compress_to_buffer(raw, out).ok()
        }
    }

    thread_local! {
        // A context is some hundred kilobytes: kept by each thread rather than made for each block.
        static UNPACKER: RefCell<Option<bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }

    pub fn unpack(packed: &[u8], raw: &mut [u8]) -> Option<usize> {
        UNPACKER.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = bulk::Decompressor::new().ok();
            }
            slot.as_mut()?.decompress_to_buffer(packed, raw).ok()
        })
    }
}

#[cfg(not(feature = "zstd"))]
mod zstd_codec {
    use crate::base::error::Result;

    pub enum Packer {}

    impl Packer {
        pub fn new(_: i32) -> Result<Packer> {
            Err(super::Codec::Zstd.require().expect_err("not compiled in"))
        }

        pub fn pack(&mut self, _: &[u8], _: &mut Vec<u8>) -> Option<usize> {
            match *self {}
        }
    }

    pub fn unpack(_: &[u8], _: &mut [u8]) -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;
    use quickcheck::quickcheck;

    quickcheck! {
        fn round_trips(raw: Vec<u8>, repeat: u8) -> bool {
            let raw = raw.repeat(usize::from(repeat % 50));
            Codec::ALL.into_iter().filter(|c| c.is_compiled_in()).all(|codec| {
                let mut compressor = Compressor::new(codec, 3).unwrap();
                let (stored_as, bytes) = compressor.compress(&raw);
                (stored_as == Codec::None || bytes.len() <= raw.len() - raw.len() / 8)
                    && *decompress(stored_as, bytes, raw.len()).unwrap() == *raw
            })
        }

        fn unpacking_anything_returns(bytes: Vec<u8>, len: u16) -> bool {
            Codec::ALL.into_iter().filter(|c| c.is_compiled_in()).all(|codec| {
                match decompress(codec, &bytes, usize::from(len)) {
                    Ok(raw) => raw.len() == usize::from(len),
                    Err(e) => e.kind() == ErrorKind::Corruption,
                }
            })
        }
    }

    /// What LZ4's description of the block format says, and no more.
    #[cfg(feature = "lz4")]
    fn plain_lz4(mut packed: &[u8], len_max: usize) -> Option<Vec<u8>> {
        fn number(packed: &mut &[u8], nibble: u8) -> Option<usize> {
            let mut n = usize::from(nibble);
            let mut more = nibble == 15;
            while more {
                let (&byte, rest) = packed.split_first()?;
                *packed = rest;
                n += usize::from(byte);
                more = byte == 255;
            }
            Some(n)
        }
        let mut raw = Vec::new();
        loop {
            let (&token, rest) = packed.split_first()?;
            packed = rest;
            let literals = number(&mut packed, token >> 4)?;
            let (literals, rest) = packed.split_at_checked(literals)?;
            raw.extend_from_slice(literals);
            packed = rest;
            if packed.is_empty() {
                return (raw.len() <= len_max).then_some(raw);
            }
            let (offset, rest) = packed.split_first_chunk::<2>()?;
            packed = rest;
            let offset = usize::from(u16::from_le_bytes(*offset));
            let start = raw.len().checked_sub(offset).filter(|_| offset > 0)?;
            let len = 4 + number(&mut packed, token & 15)?;
            if raw.len() + len > len_max {
                return None;
            }
            (start..start + len).for_each(|i| raw.push(raw[i]));
        }
    }

    #[cfg(feature = "lz4")]
    quickcheck! {
        fn damaged_lz4_unpacks_to_what_it_says_or_not_at_all(
            raw: Vec<u8>, repeat: u8, damage: Vec<(usize, u8)>, cut: u8
        ) -> bool {
            let raw = raw.repeat(usize::from(repeat % 20) + 1);
            let mut packed = Vec::new();
            let len = lz4_codec::Packer::new().unwrap().pack(&raw, &mut packed);
            packed.truncate(len.unwrap());
            let agree = |packed: &[u8]| {
                let said = plain_lz4(packed, raw.len()).filter(|said| said.len() == raw.len());
                decompress(Codec::Lz4, packed, raw.len()).ok().map(|raw| raw.to_vec()) == said
            };
            let sound = plain_lz4(&packed, raw.len()) == Some(raw.clone()) && agree(&packed);
            for (at, xor) in damage.into_iter().take(3) {
                let at = at % packed.len();
                packed[at] ^= xor;
            }
            let shorter = packed.len().saturating_sub(usize::from(cut % 4));
            sound && agree(&packed) && agree(&packed[..shorter])
        }
    }

    #[test]
    fn a_codec_that_is_not_there_is_named() {
        for codec in Codec::ALL {
            assert_eq!(Codec::from_byte(codec as u8), Some(codec));
            if !codec.is_compiled_in() {
                let e = Compressor::new(codec, 1).err().unwrap();
                assert_eq!(e.kind(), ErrorKind::Unsupported);
                assert!(e.to_string().contains(codec.name()));
                assert_eq!(decompress(codec, b"", 0).unwrap_err().kind(), ErrorKind::Unsupported);
            }
        }
        assert_eq!(Codec::from_byte(0), None);
    }

    #[test]
    fn a_wrong_length_is_refused() {
        for codec in Codec::ALL.into_iter().filter(|c| c.is_compiled_in()) {
            let raw = vec![7; 1000];
            let mut compressor = Compressor::new(codec, 1).unwrap();
            let (codec, packed) = compressor.compress(&raw);
            for len in [0, 999, 1001, 5000] {
                assert_eq!(
                    decompress(codec, packed, len).unwrap_err().kind(),
                    ErrorKind::Corruption
                );
            }
        }
    }
}
