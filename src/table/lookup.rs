//! One key looked up in a table's blocks, as far as it has come.

use crate::base::error::{Error, Result};
use crate::base::key::{InternalKey, SeqNo, ValueKind};
use crate::table::block::{Entry, entry_at, trailer_of};
use crate::table::block_builder::shared_prefix;
use crate::table::format::StoredBlock;
use crate::table::lz4;
use crate::table::lz4::Lz4;

/// So much is unpacked between two looks at it.
const UNPACKED_AT_ONCE: usize = if cfg!(test) { 8 } else { 256 };

/// Takes a version and says whether it wants older ones.
pub type Visit<'v> = dyn FnMut(SeqNo, ValueKind, &[u8]) -> bool + 'v;

/// The search for the versions of one key in entries that lie one behind the other, perhaps in several
/// blocks. Nothing has to be known of the entries: what is not in order is passed by.
///
/// No key is rebuilt: it is enough to know how many bytes the entry before has in common with the key.
/// An entry that shares more with it is below the key for the same reason, one that shares less is above.
pub struct Lookup<'k> {
    key: &'k [u8],
    /// What is newer is passed by. `None`: nothing can be left.
    at: Option<SeqNo>,
    next: usize,
    matched: usize,
    found: bool,
}

impl<'k> Lookup<'k> {
    /// Of the versions of `key` at or below `at`.
    pub fn new(key: &'k [u8], at: SeqNo) -> Lookup<'k> {
        Lookup { key, at: Some(at), next: 0, matched: 0, found: false }
    }

    /// What comes first of what is wanted.
    pub fn target(&self) -> InternalKey<'k> {
        InternalKey::seek(self.key, self.at.unwrap_or(0))
    }

    /// Begins a block at one of its restarts, or behind an entry that is below the key and has so many bytes in
    /// common with it.
    #[inline]
    pub fn begin(&mut self, at: usize, matched: usize) {
        (self.next, self.matched, self.found) = (at, matched, false);
    }

    /// Goes on through `entries`, of which more may be there than the last time. Lends versions, newest
    /// first, to `visit` until that says `false`. Tells whether the next block may have more, or `None`
    /// behind the last whole entry.
    ///
    /// # Errors
    /// `Corruption`.
    pub fn go_on(&mut self, entries: &[u8], visit: &mut Visit<'_>) -> Result<Option<bool>> {
        loop {
            let entry = match self.found {
                false => match reach(self.key, entries, &mut self.next, &mut self.matched) {
                    None => return Ok(None),
                    Some((_, false)) => return Ok(Some(false)),
                    Some((entry, true)) => entry,
                },
                true => match entry_at(entries, self.next) {
                    None => return Ok(None),
                    Some(entry) if entry.shared == 0 => {
                        self.found = false; // a restart, perhaps of the same key
                        continue;
                    }
                    Some(entry) if entry.shared == self.key.len() && entry.tail == entry.seqno => {
                        entry
                    }
                    Some(_) => return Ok(Some(false)),
                },
            };
            (self.next, self.found) = (entry.next, true);
            let unpacked = InternalKey::unpack(trailer_of(entries, entry));
            let (seqno, kind) = unpacked.ok_or_else(|| Error::corruption("no known kind"))?;
            if self.at.is_some_and(|at| seqno <= at) {
                self.at = seqno.checked_sub(1);
                let value = &entries[entry.value..entry.next];
                if !visit(seqno, kind, value) || self.at.is_none() {
                    return Ok(Some(false));
                }
            }
        }
    }

    /// Looks for the key in a block that LZ4 has packed, of which no more is unpacked, to `raw`, than leads
    /// there. Tells whether the next block may have more.
    ///
    /// # Errors
    /// `Corruption` at the block's offset; `Unsupported` if the codec is not part of this build.
    pub fn unpack(
        &mut self,
        block: StoredBlock<'_>,
        raw: &mut lz4::Raw,
        visit: &mut Visit<'_>,
    ) -> Result<bool> {
        block.codec.require()?;
        let wrong = |text: &str| Error::corruption(text).at(block.offset);
        // LZ4 packs the last five bytes as they are, so that the number of restarts is there to read.
        let restarts = block.packed.last_chunk().map_or(0, |count| u32::from_le_bytes(*count));
        let behind = 4 * u64::from(restarts) + 4;
        let entries_len = usize::try_from(behind).ok().and_then(|n| block.raw_len.checked_sub(n));
        let entries_len = entries_len.ok_or_else(|| wrong("block too short for its restarts"))?;
        let mut lz4 = Lz4::new(block.packed, block.raw_len);
        self.begin(0, 0);
        loop {
            let there = lz4.unpack(raw, UNPACKED_AT_ONCE);
            let there = there.ok_or_else(|| wrong("block does not unpack (lz4)"))?;
            let found = match there >= entries_len {
                true => self.finish(&raw[..entries_len], visit).map(Some),
                false => self.go_on(&raw[..there], visit),
            };
            if let Some(more) = found.map_err(|e| e.at(block.offset))? {
                return Ok(more);
            }
        }
    }

    /// Goes on through `entries`, which are all that the block has. Tells whether the next block may have
    /// more.
    ///
    /// # Errors
    /// `Corruption`.
    pub fn finish(&mut self, entries: &[u8], visit: &mut Visit<'_>) -> Result<bool> {
        match self.go_on(entries, visit)? {
            Some(more) => Ok(more),
            None if self.next == entries.len() => Ok(self.found),
            None => Err(Error::corruption("entry cut short")),
        }
    }
}

/// From the entry at `next`, before which one has `matched` bytes in common with `key`: passes by what is
/// below the key, up to the first entry that is not; is it of the key? `None`: it is not there yet.
#[inline(always)]
pub(super) fn reach(
    key: &[u8],
    entries: &[u8],
    next: &mut usize,
    matched: &mut usize,
) -> Option<(Entry, bool)> {
    let (mut at, mut same) = (*next, *matched);
    let reached = loop {
        at = pass_by(entries, at, rank(same, key.get(same).copied()));
        let Some(entry) = entry_at(entries, at) else { break None };
        if entry.shared <= same {
            if entry.shared > 0 && entry.shared < same {
                break Some((entry, false));
            }
            let (tail, rest) = (&entries[entry.tail..entry.seqno], &key[entry.shared..]);
            let more = shared_prefix(tail, rest);
            same = entry.shared + more;
            match (tail.get(more), rest.get(more)) {
                (None, Some(_)) => {}
                (Some(a), Some(b)) if a < b => {}
                (a, b) => break Some((entry, a == b)), // both are at their ends, or it is above
            }
        }
        at = entry.next;
    };
    (*next, *matched) = (at, same);
    reached
}

/// Of keys that share so many bytes with one below them and go on with this byte: the greater, the less the
/// key, since what shares more with what is below is nearer to it. `None`: with nothing.
#[inline]
fn rank(shared: usize, byte: Option<u8>) -> isize {
    ((shared as isize) << 8) - isize::from(byte.unwrap_or(0))
}

/// Passes by short entries, as most are, that rank above a key: they are below it. Where there is no tail,
/// the byte is of something else; but then it is the key before, which is below, whatever the rank says.
#[inline]
fn pass_by(entries: &[u8], from: usize, wanted: isize) -> usize {
    let Some(mut rest) = entries.get(from..) else { return from };
    while let Some(&[shared, unshared, value_len, stamp, first]) = rest.first_chunk() {
        let is_short = (shared | unshared | value_len | stamp) < 0x80;
        if !is_short || rank(shared.into(), Some(first)) <= wanted {
            break;
        }
        let len = usize::from(unshared) + usize::from(value_len) + usize::from(stamp >> 4);
        let Some(behind) = rest.get(4 + len..) else { break };
        rest = behind;
    }
    entries.len() - rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;
    use crate::iter::Version;
    use crate::table::block::BlockParts;
    use crate::table::block_builder::BlockBuilder;
    use crate::table::compression::{Codec, packed_by_lz4};
    use crate::table::scratch::Scratch;
    use crate::table::tests::Versions;
    use quickcheck::quickcheck;

    fn build(versions: &[Version], restart_interval: usize) -> Vec<u8> {
        let mut builder = BlockBuilder::new(restart_interval);
        for (key, seqno, kind, value) in versions {
            builder.add(InternalKey::new(key, *seqno, *kind), value);
        }
        builder.finish().to_vec()
    }

    type Found = (Vec<(SeqNo, ValueKind, Vec<u8>)>, bool);

    /// Everything that `search` finds, of which it is told to stop behind so many.
    fn all(stop: usize, search: impl FnOnce(&mut Visit<'_>) -> Result<bool>) -> Result<Found> {
        let mut found = Vec::new();
        let more = search(&mut |seqno, kind, value| {
            found.push((seqno, kind, value.to_vec()));
            found.len() != stop
        })?;
        Ok((found, more))
    }

    quickcheck! {
        fn unpacked_on_the_way_or_before(
            versions: Versions, interval: u8, probe: Vec<u8>, at: u8, stop: usize,
            damage: (usize, u8)
        ) -> bool {
            let raw = build(&versions.0, usize::from(interval % 32) + 1);
            let Some(mut packed) = packed_by_lz4(&raw) else { return true };
            let mut scratch = Scratch::take();
            let mut in_packed = |packed: &[u8], key: &[u8], at: SeqNo| {
                let (codec, raw_len, offset) = (Codec::Lz4, raw.len(), 7);
                let block = StoredBlock { codec, packed, raw_len, offset };
                let lz4 = scratch.raw.first_of_lz4();
                all(stop % 4, |visit| Lookup::new(key, at).unpack(block, lz4, visit))
            };
            let own = versions.0.iter().map(|v| (v.0.clone(), v.1));
            let longer = versions.0.iter().map(|v| ([&v.0[..], b"a"].concat(), v.1));
            let probes: Vec<_> = own.chain(longer).chain([(probe, u64::from(at))]).collect();
            let mut same = probes.iter().all(|(key, at)| {
                let parts = BlockParts::split(&raw, 7).unwrap();
                let want = all(stop % 4, |visit| parts.get(&mut Lookup::new(key, *at), visit));
                in_packed(&packed, key, *at).unwrap() == want.unwrap()
            });
            let place = damage.0 % packed.len();
            packed[place] ^= damage.1;
            for (key, at) in &probes {
                if let Err(e) = in_packed(&packed, key, *at) {
                    same &= e.kind() == ErrorKind::Corruption && e.offset() == Some(7);
                }
            }
            same
        }
    }
}
