//! LZ4 blocks unpacked front to back, as far as somebody wants to look.
//!
//! A block is a row of *sequences*, each some literal bytes and a *match*: bytes that stood before, and
//! how far. (LZ4's `lz4_Block_format.md`.) It is input: every length and offset is checked, and nothing
//! is written outside of the buffer, whatever it says.

/// What unpacks to more is not unpacked here.
pub const RAW_BYTES_MAX: usize = 64 << 10;

/// Bytes behind the unpacked ones that may be written to: copies have few sizes, not every length.
const SLACK_BYTES: usize = 64;

/// Where to unpack to.
pub type Raw = [u8; RAW_BYTES_MAX + SLACK_BYTES];

/// A position with this mask needs no check, with less than the slack behind it neither. It changes none
/// but that of a sequence behind what the block should unpack to, which is noticed at its end.
const MASK: usize = RAW_BYTES_MAX - 1;

/// What a token says is all there is to say up to these lengths.
const LITERALS_MAX: usize = 14;
const MATCH_MAX: usize = 18;

/// The shortest match.
const MATCH_MIN: usize = 4;

/// A sequence whose token says all is no longer, rounded up.
const SEQUENCE_BYTES: usize = 32;

/// The widest copy.
const WIDE: usize = 16;

/// Where unpacking stands.
pub struct Lz4<'a> {
    packed: &'a [u8],
    raw_len: usize,
    at: usize,
    filled: usize,
}

impl<'a> Lz4<'a> {
    /// Begins with a block that should unpack to `raw_len` bytes.
    ///
    /// # Panics
    /// If they are more than [`RAW_BYTES_MAX`].
    pub fn new(packed: &'a [u8], raw_len: usize) -> Lz4<'a> {
        assert!(raw_len <= RAW_BYTES_MAX, "a longer block");
        Lz4 { packed, raw_len, at: 0, filled: 0 }
    }

    /// Goes on until `more` bytes more are unpacked, or all, and at most a sequence more. Returns the number
    /// of bytes at the front of `raw` that are there then; `raw` must be as the last call left it.
    /// `None`: the block does not unpack to what it should.
    pub fn unpack(&mut self, raw: &mut Raw, more: usize) -> Option<usize> {
        let wanted = self.filled.saturating_add(more).min(self.raw_len);
        let (packed, raw_len) = (self.packed, self.raw_len);
        let (mut at, mut to) = (self.at, self.filled);
        while to < wanted {
            let next = packed.get(at..at + SEQUENCE_BYTES).and_then(<[u8]>::first_chunk);
            let lengths =
                next.map_or((usize::MAX, 0), |next: &[u8; SEQUENCE_BYTES]| lengths(next[0]));
            match (next, lengths) {
                (Some(next), (literals @ ..=LITERALS_MAX, matched @ ..=MATCH_MAX)) => {
                    to &= MASK;
                    short_sequence(next, literals, matched, raw, to)?;
                    at += 1 + literals + 2;
                    to += literals + matched;
                }
                _ => (at, to) = long_sequence(packed, at, raw, to, raw_len)?,
            }
        }
        (self.at, self.filled) = (at, to);
        (to <= self.raw_len).then_some(to)
    }
}

/// A sequence whose token says all, in few instructions. `None` if its offset is wrong.
#[inline(always)]
fn short_sequence(
    next: &[u8; SEQUENCE_BYTES],
    literals: usize,
    matched: usize,
    raw: &mut Raw,
    to: usize,
) -> Option<()> {
    raw[to..to + WIDE].copy_from_slice(&next[1..1 + WIDE]);
    let to = to + literals;
    let from = start(to, [next[1 + literals], next[2 + literals]])? & MASK;
    let offset = to - from;
    if offset < matched {
        repeat(&mut raw[from..to + matched + WIDE], offset);
    } else if matched <= 8 {
        // Most are so short, and four bytes are more likely than more to have been written by one store,
        // for which a load need not wait.
        raw.copy_within(from..from + 4, to);
        raw.copy_within(from + 4..from + 8, to + 4);
    } else {
        raw.copy_within(from..from + MATCH_MAX, to);
    }
    Some(())
}

/// Any sequence: where the next one begins, and where that goes.
#[inline(always)]
fn long_sequence(
    packed: &[u8],
    mut at: usize,
    raw: &mut Raw,
    to: usize,
    raw_len: usize,
) -> Option<(usize, usize)> {
    let (mut literals, mut matched) = lengths(*packed.get(at)?);
    at += 1;
    if literals > LITERALS_MAX {
        literals += rest_of_length(packed, &mut at)?;
    }
    let from = at;
    at = from.checked_add(literals).filter(|&end| end <= packed.len())?;
    let end = to.checked_add(literals).filter(|&end| end <= raw_len)?;
    copy_literals(&packed[from..], literals, &mut raw[to..end + WIDE]);
    if at == packed.len() {
        return (end == raw_len).then_some((at, end));
    }
    let from = start(end, *packed[at..].first_chunk()?)?;
    at += 2;
    if matched > MATCH_MAX {
        matched += rest_of_length(packed, &mut at)?;
    }
    let to = end;
    let end = to.checked_add(matched).filter(|&end| end <= raw_len)?;
    repeat(&mut raw[from..end + WIDE], to - from);
    Some((at, end))
}

/// What a token says: how many literals, how long a match.
#[inline]
fn lengths(token: u8) -> (usize, usize) {
    (usize::from(token >> 4), usize::from(token & 15) + MATCH_MIN)
}

/// What bytes say that a length goes on in, up to one that is not 255.
#[inline]
fn rest_of_length(packed: &[u8], at: &mut usize) -> Option<usize> {
    let mut sum = 0;
    loop {
        let &byte = packed.get(*at)?;
        *at += 1;
        sum += usize::from(byte);
        if byte != 255 {
            return Some(sum);
        }
    }
}

/// Where a match begins.
#[inline]
fn start(to: usize, offset: [u8; 2]) -> Option<usize> {
    let offset = usize::from(u16::from_le_bytes(offset));
    to.checked_sub(offset).filter(|_| offset > 0)
}

/// Copies the first `len` bytes, and others to where there is room behind them.
#[inline]
fn copy_literals(from: &[u8], len: usize, to: &mut [u8]) {
    match from.get(..len + WIDE) {
        Some(from) => {
            let pairs = from.chunks_exact(WIDE).zip(to.chunks_exact_mut(WIDE));
            pairs.for_each(|(from, to)| to.copy_from_slice(from));
        }
        None => to[..len].copy_from_slice(&from[..len]),
    }
}

/// Repeats the first `offset` bytes all over `bytes`, except for a copy's width at its end.
#[inline]
fn repeat(bytes: &mut [u8], offset: usize) {
    let end = bytes.len() - WIDE;
    let mut to = offset;
    if offset >= WIDE {
        while to < end {
            bytes.copy_within(to - offset..to - offset + WIDE, to);
            to += WIDE;
        }
    } else if offset >= 8 {
        while to < end {
            bytes.copy_within(to - offset..to - offset + 8, to);
            to += 8;
        }
    } else {
        // Eight bytes of the repetition; no copy waits for the one before.
        let first = u64::from_le_bytes(*bytes.first_chunk().expect("wider"));
        let bits = 8 * offset as u32;
        let mut eight = first & ((1 << bits) - 1);
        for times in [1, 2, 4] {
            eight |= eight.checked_shl(times * bits).unwrap_or(0);
        }
        while to < end {
            bytes[to..to + 8].copy_from_slice(&eight.to_le_bytes());
            to += WHOLE[offset];
        }
    }
}

/// The greatest multiple of each offset that is no more than 8.
const WHOLE: [usize; 8] = [8, 8, 8, 6, 8, 5, 6, 7];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::compression::packed_by_lz4;
    use quickcheck::quickcheck;

    /// What the description of the format says, and no more: as many bytes as can be made of it, up to
    /// the sequence that goes beyond `len_max`.
    fn plain(packed: &[u8], len_max: usize) -> Vec<u8> {
        fn length(bytes: &mut impl Iterator<Item = u8>, nibble: u8) -> Option<usize> {
            let mut n = usize::from(nibble);
            let mut more = nibble == 15;
            while more {
                let byte = bytes.next()?;
                n += usize::from(byte);
                more = byte == 255;
            }
            Some(n)
        }
        fn sequence(bytes: &mut impl Iterator<Item = u8>, raw: &mut Vec<u8>) -> Option<()> {
            let token = bytes.next()?;
            for _ in 0..length(bytes, token >> 4)? {
                raw.push(bytes.next()?);
            }
            let offset = usize::from(u16::from_le_bytes([bytes.next()?, bytes.next()?]));
            let start = raw.len().checked_sub(offset).filter(|_| offset > 0)?;
            let len = 4 + length(bytes, token & 15)?;
            (start..start + len).for_each(|i| raw.push(raw[i]));
            Some(())
        }
        let (mut raw, mut bytes) = (Vec::new(), packed.iter().copied());
        while raw.len() <= len_max && sequence(&mut bytes, &mut raw).is_some() {}
        raw
    }

    /// Unpacks in steps, and compares with what is plain. Did all of it unpack?
    fn agrees(packed: &[u8], raw_len: usize, step: usize) -> Option<bool> {
        let plain = plain(packed, raw_len);
        let mut raw = Box::new([0xa5; size_of::<Raw>()]);
        let mut lz4 = Lz4::new(packed, raw_len);
        let mut there = 0;
        while there < raw_len {
            let Some(n) = lz4.unpack(&mut raw, step) else { return Some(false) };
            if n < raw_len.min(there + step) || plain.get(..n) != Some(&raw[..n]) {
                return None;
            }
            there = n;
        }
        Some(true)
    }

    /// Bytes with runs and repetitions of all lengths and distances.
    fn mixed(parts: &[(u8, u8, u8)]) -> Vec<u8> {
        let mut raw: Vec<u8> = Vec::new();
        for &(kind, a, b) in parts {
            match (kind % 3, raw.len()) {
                (0, _) | (_, 0) => raw.extend((0..a % 40).map(|i| i.wrapping_mul(b | 1) ^ a)),
                (_, len) => {
                    let far = if kind < 128 { a % 24 } else { a };
                    let from = len.saturating_sub(usize::from(far) + 1);
                    (from..from + usize::from(b)).for_each(|i| raw.push(raw[i]));
                }
            }
        }
        raw.truncate(RAW_BYTES_MAX);
        raw
    }

    quickcheck! {
        fn unpacks_what_was_packed(parts: Vec<(u8, u8, u8)>, step: u8) -> bool {
            let raw = mixed(&parts);
            let Some(packed) = packed_by_lz4(&raw) else { return true };
            let plain = plain(&packed, raw.len());
            plain == raw
                && agrees(&packed, raw.len(), usize::from(step) + 1) == Some(true)
        }

        fn damaged_it_unpacks_to_what_it_says_or_not_at_all(
            parts: Vec<(u8, u8, u8)>, step: u8, damage: Vec<(usize, u8)>, cut: u8, longer: i8
        ) -> bool {
            let raw = mixed(&parts);
            let Some(mut packed) = packed_by_lz4(&raw) else { return true };
            for (at, xor) in damage.into_iter().take(3) {
                let at = at % packed.len();
                packed[at] ^= xor;
            }
            packed.truncate(packed.len().saturating_sub(usize::from(cut % 4)));
            let len = raw.len().saturating_add_signed(isize::from(longer) / 16).min(RAW_BYTES_MAX);
            agrees(&packed, len, usize::from(step) + 1).is_some()
        }
    }

    #[test]
    fn the_longest_block_is_unpacked() {
        let raw = mixed(
            &(0..=255).cycle().take(9000).map(|i: u8| (i / 2, i, 255 - i)).collect::<Vec<_>>(),
        );
        assert_eq!(raw.len(), RAW_BYTES_MAX);
        let Some(packed) = packed_by_lz4(&raw) else { return };
        for step in [1, 100, RAW_BYTES_MAX] {
            assert_eq!(agrees(&packed, raw.len(), step), Some(true));
        }
    }
}
