//! Codecs: their numbers exist in every build, their code only where a feature brings it.

use crate::base::error::{Error, Result};

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
    zstd: Option<zstd_codec::Packer>,
    packed: Vec<u8>,
}

impl Compressor {
    /// `Unsupported` if this build does not have the codec.
    pub fn new(codec: Codec, zstd_level: i32) -> Result<Compressor> {
        codec.require()?;
        let zstd = match codec {
            Codec::Zstd => Some(zstd_codec::Packer::new(zstd_level)?),
            _ => None,
        };
        Ok(Compressor { codec, zstd, packed: Vec::new() })
    }

    /// The bytes to store for `raw`, and their codec: `raw` itself unless packing saves an eighth.
    pub fn compress<'a>(&'a mut self, raw: &'a [u8]) -> (Codec, &'a [u8]) {
        let worth = raw.len() - raw.len() / 8;
        let packed = match (self.codec, &mut self.zstd) {
            (Codec::Lz4, _) => lz4_codec::pack(raw, &mut self.packed),
            (Codec::Zstd, Some(packer)) => packer.pack(raw, &mut self.packed),
            _ => false,
        };
        if packed && self.packed.len() <= worth && self.packed.len() < raw.len() {
            (self.codec, &self.packed)
        } else {
            (Codec::None, raw)
        }
    }
}

/// Unpacks to exactly `raw_len` bytes, which the caller has checked against a limit.
///
/// # Errors
/// `Unsupported` if this build does not have the codec; `Corruption` if the bytes are not a packed
/// form of so many bytes.
pub fn decompress(codec: Codec, packed: &[u8], raw_len: usize) -> Result<Vec<u8>> {
    codec.require()?;
    let raw = match codec {
        Codec::None => Some(packed.to_vec()),
        Codec::Lz4 => lz4_codec::unpack(packed, raw_len),
        Codec::Zstd => zstd_codec::unpack(packed, raw_len),
    };
    match raw {
        Some(raw) if raw.len() == raw_len => Ok(raw),
        _ => Err(Error::corruption(format!("block does not unpack ({})", codec.name()))),
    }
}

#[cfg(feature = "lz4")]
mod lz4_codec {
    use lz4_flex::block;

    pub fn pack(raw: &[u8], out: &mut Vec<u8>) -> bool {
        out.resize(block::get_maximum_output_size(raw.len()), 0);
        match block::compress_into(raw, out) {
            Ok(len) => {
                out.truncate(len);
                true
            }
            Err(_) => false,
        }
    }

    pub fn unpack(packed: &[u8], raw_len: usize) -> Option<Vec<u8>> {
        let mut raw = vec![0; raw_len];
        let len = block::decompress_into(packed, &mut raw).ok()?;
        (len == raw_len).then_some(raw)
    }
}

#[cfg(not(feature = "lz4"))]
mod lz4_codec {
    pub fn pack(_: &[u8], _: &mut Vec<u8>) -> bool {
        false
    }

    pub fn unpack(_: &[u8], _: usize) -> Option<Vec<u8>> {
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

        pub fn pack(&mut self, raw: &[u8], out: &mut Vec<u8>) -> bool {
            out.clear();
            out.reserve(compress_bound(raw.len()));
            self.0.compress_to_buffer(raw, out).is_ok()
        }
    }

    thread_local! {
        // A context is some hundred kilobytes: kept by each thread rather than made for each block.
        static UNPACKER: RefCell<Option<bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }

    pub fn unpack(packed: &[u8], raw_len: usize) -> Option<Vec<u8>> {
        UNPACKER.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = bulk::Decompressor::new().ok();
            }
            let mut raw = Vec::with_capacity(raw_len);
            slot.as_mut()?.decompress_to_buffer(packed, &mut raw).ok()?;
            Some(raw)
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

        pub fn pack(&mut self, _: &[u8], _: &mut Vec<u8>) -> bool {
            match *self {}
        }
    }

    pub fn unpack(_: &[u8], _: usize) -> Option<Vec<u8>> {
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
                    && decompress(stored_as, bytes, raw.len()).unwrap() == raw
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
