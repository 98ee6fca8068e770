//! Bytes ↔ numbers. Little-endian fixed widths, LEB128 varints, length-prefixed strings.
//!
//! Encoders append to a `Vec<u8>`. A [`Decoder`] reads bytes that anybody may have written: it never
//! panics, never trusts a length before checking what remains, and says where it stopped.

use crate::base::error::{Error, Result};

/// Most bytes of a 64-bit varint.
pub const VARINT_BYTES_MAX: usize = 10;

/// Appends `value` as a varint: seven bits a byte, least significant first.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a little-endian `u16`.
pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a little-endian `u32`.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a little-endian `u64`.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends the length of `bytes` as a varint, then the bytes.
#[inline]
pub fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a varint from the front of `bytes`: the value and the bytes it took. `None` if it is cut
/// short, too long, or not in its shortest form (one value, one encoding).
#[inline]
pub fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte < 0x80 {
            return if byte == 0 && i > 0 { None } else { Some((value, i + 1)) };
        }
    }
    None
}

/// One tag-length-value field: `tag << 1 | must_understand` and the length, both varints, then the
/// payload. A reader skips unknown tags, unless the bit says that it must understand them.
pub fn put_field(out: &mut Vec<u8>, tag: u32, must_understand: bool, payload: &[u8]) {
    debug_assert!(tag > 0, "tag 0 is never valid");
    put_varint(out, u64::from(tag) << 1 | u64::from(must_understand));
    put_prefixed(out, payload);
}

/// A field that holds one varint.
pub fn put_number(out: &mut Vec<u8>, tag: u32, must_understand: bool, value: u64) {
    let mut payload = Vec::with_capacity(10);
    put_varint(&mut payload, value);
    put_field(out, tag, must_understand, &payload);
}

/// A cursor over untrusted bytes. Every error is `Corruption` and carries an offset.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    position: usize,
    base: u64,
}

impl<'a> Decoder<'a> {
    /// Reads `bytes` from their front; offsets in errors count from there.
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { bytes, position: 0, base: 0 }
    }

    /// Reads `bytes`, which begin at offset `base` of their file.
    pub fn with_base(bytes: &'a [u8], base: u64) -> Decoder<'a> {
        Decoder { bytes, position: 0, base }
    }

    /// The offset of the next byte, in the file if a base was given.
    pub fn offset(&self) -> u64 {
        self.base.saturating_add(self.position as u64)
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }

    /// Has everything been read?
    pub fn is_empty(&self) -> bool {
        self.position == self.bytes.len()
    }

    /// A `Corruption` at the current offset.
    #[cold]
    #[track_caller]
    pub fn error(&self, text: &str) -> Error {
        Error::corruption(text).at(self.offset())
    }

    /// The next `len` bytes.
    #[inline]
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let rest = self.rest();
        if len > rest.len() {
            return Err(self.error("cut short"));
        }
        self.position += len;
        Ok(&rest[..len])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.rest().first_chunk::<N>() {
            Some(chunk) => {
                self.position += N;
                Ok(*chunk)
            }
            None => Err(self.error("cut short")),
        }
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A little-endian `u16`.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A little-endian `u32`.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A little-endian `u64`.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// `N` bytes as an array.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.array()
    }

    /// A varint.
    #[inline]
    pub fn varint(&mut self) -> Result<u64> {
        match read_varint(self.rest()) {
            Some((value, len)) => {
                self.position += len;
                Ok(value)
            }
            None => Err(self.error("bad varint")),
        }
    }

    /// A varint that fits 32 bits.
    pub fn varint32(&mut self) -> Result<u32> {
        let before = self.clone();
        u32::try_from(self.varint()?).map_err(|_| before.error("varint exceeds 32 bits"))
    }

    /// A varint length, then that many bytes.
    #[inline]
    pub fn prefixed(&mut self) -> Result<&'a [u8]> {
        let before = self.clone();
        let len = self.varint()?;
        match usize::try_from(len) {
            Ok(len) if len <= self.rest().len() => self.bytes(len),
            _ => Err(before.error("length exceeds what remains")),
        }
    }

    /// A length-prefixed UTF-8 string.
    pub fn string(&mut self) -> Result<&'a str> {
        let before = self.clone();
        std::str::from_utf8(self.prefixed()?).map_err(|_| before.error("not UTF-8"))
    }

    /// One tag-length-value field: tag, must-understand bit, payload (as a decoder with file offsets).
    pub fn field(&mut self) -> Result<(u32, bool, Decoder<'a>)> {
        let before = self.clone();
        let head = self.varint()?;
        let tag = u32::try_from(head >> 1).map_err(|_| before.error("tag exceeds 32 bits"))?;
        if tag == 0 {
            return Err(before.error("tag 0"));
        }
        let payload = self.prefixed()?;
        let base = self.offset() - payload.len() as u64;
        Ok((tag, head & 1 == 1, Decoder::with_base(payload, base)))
    }

    /// `Corruption` unless everything has been read.
    pub fn finish(&self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(self.error("bytes left over")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;
    use quickcheck::quickcheck;

    quickcheck! {
        fn varints_round_trip(value: u64, shift: u8) -> bool {
            let value = value >> (shift % 64);
            let mut out = Vec::new();
            put_varint(&mut out, value);
            read_varint(&out) == Some((value, out.len()))
        }

        fn one_value_one_encoding(bytes: Vec<u8>) -> bool {
            match read_varint(&bytes) {
                None => true,
                Some((value, len)) => {
                    let mut out = Vec::new();
                    put_varint(&mut out, value);
                    out == bytes[..len]
                }
            }
        }

        fn strings_and_fields_round_trip(a: Vec<u8>, tag: u32, must: bool, n: u64) -> bool {
            let tag = tag.max(1);
            let mut out = Vec::new();
            put_prefixed(&mut out, &a);
            put_field(&mut out, tag, must, &a);
            put_u64(&mut out, n);
            put_u32(&mut out, n as u32);
            put_u16(&mut out, n as u16);
            let mut d = Decoder::with_base(&out, 100);
            let same = d.prefixed().unwrap() == a;
            let (t, m, payload) = d.field().unwrap();
            same && t == tag && m == must && payload.rest() == a
                && d.u64().unwrap() == n && d.u32().unwrap() == n as u32
                && d.u16().unwrap() == n as u16 && d.finish().is_ok()
        }

        fn decoding_anything_returns(bytes: Vec<u8>) -> bool {
            let mut d = Decoder::new(&bytes);
            while d.field().is_ok() {}
            let mut d = Decoder::new(&bytes);
            while d.prefixed().is_ok() {}
            true
        }
    }

    #[test]
    fn hostile_lengths_are_refused_with_their_offset() {
        let mut out = vec![0; 3];
        put_varint(&mut out, u64::MAX);
        let mut d = Decoder::with_base(&out, 10);
        d.bytes(3).unwrap();
        let e = d.prefixed().unwrap_err();
        assert_eq!((e.kind(), e.offset()), (ErrorKind::Corruption, Some(13)));
        assert_eq!(read_varint(&[0x80, 0x00]), None, "not the shortest form");
        assert_eq!(read_varint(&[0xff; 10]), None, "more than 64 bits");
    }
}
