//! From a key to its newest entry: extendible hashing over cache lines.
//!
//! ```text
//! directory   2^depth segments, by the top bits of the hash
//! segment     64 buckets, by the low 6 bits of the hash; a full one overflows into the next
//! bucket      8 tags u8 (the last is unused) │ 7 slots: hash u32 │ offset u32; one cache line
//! ```
//!
//! A lookup reads the directory (near), one bucket (a miss) and one entry (a miss). All tags are
//! compared at once, in one word: what waits for a miss should be few instructions, so that the
//! processor gets on to the next lookup meanwhile. Slots carry the hash, so that splitting a segment
//! touches no entry.
//!
//! One writer, readers without a lock. Within a segment slots are only filled or pointed to a newer
//! version. A split builds two new segments, publishes them in the directory, and leaves the old one
//! as it was, for those who still read it, until the table is dropped; a directory that doubles
//! likewise. Who looks at something old misses only what was written after he got hold of it, and
//! thus after the sequence number that he reads at was published.
//!
//! # Claims
//!
//! 1. *Published when complete.* Addresses of segments and directories are made by
//!    [`IndexWriter::add_segment`] and [`IndexWriter::add_directory`] alone, of what is whole, and
//!    stored with Release; every other place of an address was given one of these, and is loaded with
//!    Acquire or by the writer itself. An address in a place is null or one of them.
//! 2. *Never freed early.* What was made is in a list of the index, and freed once, by its `drop`. What
//!    is lent from it borrows the index.
//! 3. *Shared only.* After it is made it is reached through shared references alone; what changes in
//!    it is atomic.
#![allow(unsafe_code)]

use std::ptr;

use crate::base::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::memtable::entry::prefetch;
use crate::memtable::offset::{Offset, Slot};

const BUCKETS: usize = 64;
const BUCKET_SLOTS: usize = 7;
const SLOTS: usize = BUCKETS * BUCKET_SLOTS;
/// A segment is split when this many slots are taken: lookups seldom need a second bucket.
const SPLIT_AT: u32 = if cfg!(test) { 48 } else { SLOTS as u32 * 3 / 4 };
/// What a segment holds on average.
const KEYS_PER_SEGMENT: usize = SLOTS * 9 / 16;
const DEPTH_MAX: u32 = 24;

#[repr(C, align(64))]
struct Bucket {
    /// A byte for each slot, from the lowest: 0 while it is free.
    tags: AtomicU64,
    slots: [Slot; BUCKET_SLOTS],
}

struct Segment {
    buckets: [Bucket; BUCKETS],
    /// Where it goes on when it is full and splitting does not help.
    next: AtomicPtr<Segment>,
    /// The one that was made before it.
    before: AtomicPtr<Segment>,
    /// Bits of the hash that its keys have in common.
    depth: u32,
    /// Keys in it and behind it. The writer's alone.
    keys: AtomicU32,
}

struct Directory {
    depth: u32,
    /// Null: no key has these bits yet.
    segments: Box<[AtomicPtr<Segment>]>,
    /// The one that it replaced.
    before: AtomicPtr<Directory>,
}

/// Readers' half.
pub struct Index {
    /// The current directory; never null.
    directory: AtomicPtr<Directory>,
    /// The segment made last.
    segments: AtomicPtr<Segment>,
}

/// What only the writer knows.
pub struct IndexWriter {
    keys: usize,
    bytes: usize,
}

impl Index {
    /// An index that expects so many keys. No segment is allocated before it is needed.
    pub fn new(keys_hint: usize) -> (IndexWriter, Index) {
        let segments = keys_hint.div_ceil(KEYS_PER_SEGMENT).next_power_of_two();
        let depth = segments.ilog2().min(DEPTH_MAX - 8);
        let index = Index {
            directory: AtomicPtr::new(ptr::null_mut()),
            segments: AtomicPtr::new(ptr::null_mut()),
        };
        let mut writer = IndexWriter { keys: 0, bytes: 0 };
        let nothing = (0..1 << depth).map(|_| AtomicPtr::new(ptr::null_mut()));
        writer.add_directory(&index, depth, nothing.collect());
        (writer, index)
    }

    /// The newest entry of the key with this hash that `same` knows, as `same` returns it.
    #[inline(always)]
    pub fn find<T>(&self, hash: u32, same: impl FnMut(Offset) -> Option<T>) -> Option<T> {
        self.find_slot(hash, same).map(|(_, found)| found)
    }

    /// Likewise, with the slot it is in.
    #[inline(always)]
    fn find_slot<T>(
        &self,
        hash: u32,
        mut same: impl FnMut(Offset) -> Option<T>,
    ) -> Option<(&Slot, T)> {
        let mut next = self.place(hash);
        while let Some(segment) = self.segment(next) {
            for i in 0..BUCKETS {
                let bucket = segment.bucket(hash, i);
                let tags = bucket.tags.load(Ordering::Relaxed);
                let mut matches = matches(tags, hash);
                while matches != 0 {
                    let slot = &bucket.slots[matches.trailing_zeros() as usize / 8];
                    if let Some(offset) = slot.load(hash)
                        && let Some(found) = same(offset)
                    {
                        return Some((slot, found));
                    }
                    matches &= matches - 1;
                }
                if !is_full(tags) {
                    return None;
                }
            }
            next = &segment.next;
        }
        None
    }

    /// Points the key whose newest entry is `old` to a newer one.
    pub fn point(&self, hash: u32, old: Offset, new: Offset) {
        let same = |offset| (offset == old).then_some(());
        let (slot, ()) = self.find_slot(hash, same).expect("an entry that was found");
        slot.store(hash, new);
    }

    /// Asks for the line of the bucket where a hash would be, and does not wait for it.
    #[inline]
    pub fn prefetch(&self, hash: u32) {
        if let Some(segment) = self.segment(self.place(hash)) {
            prefetch(segment.bucket(hash, 0));
        }
    }

    #[inline]
    fn directory(&self) -> &Directory {
        // SAFETY: 1, 2, 3; there is one from the beginning.
        unsafe { &*self.directory.load(Ordering::Acquire) }
    }

    /// Where the directory says which segment has the keys of a hash.
    #[inline]
    fn place(&self, hash: u32) -> &AtomicPtr<Segment> {
        let directory = self.directory();
        &directory.segments[prefix(hash, directory.depth)]
    }

    #[inline]
    fn segment(&self, place: &AtomicPtr<Segment>) -> Option<&Segment> {
        // SAFETY: 1, 2, 3.
        unsafe { place.load(Ordering::Acquire).as_ref() }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let mut segment = self.segments.load(Ordering::Acquire);
        while !segment.is_null() {
            // SAFETY: made of a box (1), not freed yet, and nothing lent from it is alive (2).
            let freed = unsafe { Box::from_raw(segment) };
            segment = freed.before.load(Ordering::Relaxed);
        }
        let mut directory = self.directory.load(Ordering::Acquire);
        while !directory.is_null() {
            // SAFETY: as above (1, 2).
            let freed = unsafe { Box::from_raw(directory) };
            directory = freed.before.load(Ordering::Relaxed);
        }
    }
}

impl Segment {
    /// The `i`-th bucket where a hash may be.
    #[inline]
    fn bucket(&self, hash: u32, i: usize) -> &Bucket {
        &self.buckets[(hash as usize + i) % BUCKETS]
    }
}

impl Bucket {
    const fn new() -> Bucket {
        let slots = [const { Slot::empty() }; BUCKET_SLOTS];
        Bucket { tags: AtomicU64::new(0), slots }
    }

    /// Fills the first free slot, if there is one.
    fn fill(&self, hash: u32, offset: Offset) -> bool {
        let tags = self.tags.load(Ordering::Relaxed);
        if is_full(tags) {
            return false;
        }
        let at = (u64::BITS - tags.leading_zeros()).div_ceil(8);
        self.slots[at as usize].store(hash, offset);
        self.tags.store(tags | tag(hash) << (8 * at), Ordering::Release);
        true
    }
}

/// The byte of a hash that is kept in the tags: from its middle, since the bits at its ends say where
/// it is. Never 0.
#[inline]
fn tag(hash: u32) -> u64 {
    u64::from(hash >> 6 & 0xff).max(1)
}

/// The top bit of each byte that is the tag of this hash; perhaps of some above such a byte.
#[inline]
fn matches(tags: u64, hash: u32) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = LOW << 7 >> 8; // not the unused one
    let other = tags ^ (tag(hash) * LOW);
    other.wrapping_sub(LOW) & !other & HIGH
}

/// Slots are filled from the first to the last.
#[inline]
fn is_full(tags: u64) -> bool {
    tags >> (8 * (BUCKET_SLOTS - 1)) != 0
}

impl IndexWriter {
    /// Adds a key that is not there yet. Splits first where it has become tight.
    pub fn insert(&mut self, index: &Index, hash: u32, offset: Offset) {
        loop {
            let place = index.place(hash);
            let segment = match index.segment(place) {
                Some(segment) => segment,
                None => self.add_segment(index, place, index.directory().depth),
            };
            let keys = segment.keys.load(Ordering::Relaxed);
            if keys < SPLIT_AT || segment.depth >= self.depth_limit() {
                self.fill(index, segment, hash, offset);
                self.keys += 1;
                return;
            }
            self.split(index, hash, segment);
        }
    }

    /// Keys in the index.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Splitting deeper than this does not help: the hashes are alike (on purpose, perhaps). Keeps
    /// the directory within a fixed multiple of the segments; the segment becomes a list instead.
    fn depth_limit(&self) -> u32 {
        ((self.keys / SPLIT_AT as usize + 1).ilog2() + 5).min(DEPTH_MAX)
    }

    /// Puts hash and offset into the first free slot of a segment, or of one of those behind it.
    fn fill(&mut self, index: &Index, first: &Segment, hash: u32, offset: Offset) {
        first.keys.store(first.keys.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let mut segment = first;
        loop {
            if (0..BUCKETS).any(|i| segment.bucket(hash, i).fill(hash, offset)) {
                return;
            }
            segment = match index.segment(&segment.next) {
                Some(next) => next,
                None => self.add_segment(index, &segment.next, segment.depth),
            };
        }
    }

    #[cold]
    fn split(&mut self, index: &Index, hash: u32, segment: &Segment) {
        let depth = segment.depth;
        if depth == index.directory().depth {
            self.double(index);
        }
        let halves = [const { AtomicPtr::new(ptr::null_mut()) }; 2];
        let new = [0, 1].map(|half| self.add_segment(index, &halves[half], depth + 1));
        let mut old = Some(segment);
        while let Some(segment) = old {
            for slot in segment.buckets.iter().flat_map(|bucket| &bucket.slots) {
                if let Some((hash, offset)) = slot.both() {
                    let half = prefix(hash, depth + 1) & 1;
                    self.fill(index, new[half], hash, offset);
                }
            }
            old = index.segment(&segment.next);
        }
        let directory = index.directory();
        let each = 1 << (directory.depth - depth - 1);
        let from = prefix(hash, depth) * 2 * each;
        for (i, place) in directory.segments[from..from + 2 * each].iter().enumerate() {
            place.store(halves[i / each].load(Ordering::Relaxed), Ordering::Release);
        }
    }

    fn double(&mut self, index: &Index) {
        let old = index.directory();
        let both = |place: &AtomicPtr<Segment>| {
            [(); 2].map(|()| AtomicPtr::new(place.load(Ordering::Relaxed)))
        };
        self.add_directory(index, old.depth + 1, old.segments.iter().flat_map(both).collect());
    }

    /// Makes `segments` the directory.
    fn add_directory(&mut self, index: &Index, depth: u32, segments: Box<[AtomicPtr<Segment>]>) {
        assert!(segments.len() == 1 << depth, "a place for every prefix");
        self.bytes += size_of::<Directory>() + size_of_val(&*segments);
        let before = AtomicPtr::new(index.directory.load(Ordering::Relaxed));
        let directory = Box::into_raw(Box::new(Directory { depth, segments, before }));
        index.directory.store(directory, Ordering::Release);
    }

    /// Makes an empty segment and puts its address into `place`, which has none.
    fn add_segment<'a>(
        &mut self,
        index: &'a Index,
        place: &AtomicPtr<Segment>,
        depth: u32,
    ) -> &'a Segment {
        self.bytes += size_of::<Segment>();
        let segment = Box::into_raw(Box::new(Segment {
            buckets: [const { Bucket::new() }; BUCKETS],
            next: AtomicPtr::new(ptr::null_mut()),
            before: AtomicPtr::new(index.segments.load(Ordering::Relaxed)),
            depth,
            keys: AtomicU32::new(0),
        }));
        index.segments.store(segment, Ordering::Release);
        place.store(segment, Ordering::Release);
        // SAFETY: 1, 2, 3: it is in the list since just now.
        unsafe { &*segment }
    }
}

/// The top bits of a hash.
#[inline]
fn prefix(hash: u32, bits: u32) -> usize {
    (u64::from(hash) << bits >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::key::{InternalKey, ValueKind};
    use crate::memtable::arena::{Arena, ArenaWriter};
    use quickcheck::quickcheck;

    fn push(writer: &mut ArenaWriter, key: u64) -> Offset {
        writer.push(InternalKey::new(&key.to_le_bytes(), 1, ValueKind::Put), b"", None, None)
    }

    /// Inserts keys `0..many` under the given hashes, and finds exactly them.
    fn check(hint: usize, many: u64, hash: impl Fn(u64) -> u32) -> IndexWriter {
        let (mut arena_writer, arena) = Arena::new();
        let (mut writer, index) = Index::new(hint);
        let find = |key: u64| {
            index.find(hash(key), |offset| {
                (arena.entry(offset).key() == key.to_le_bytes()).then_some(offset)
            })
        };
        let mut offsets = Vec::new();
        for key in 0..many {
            assert_eq!(find(key), None);
            let offset = push(&mut arena_writer, key);
            writer.insert(&index, hash(key), offset);
            offsets.push(offset);
            if key.is_power_of_two() || key + 1 == many {
                assert!((0..=key).all(|k| find(k) == Some(offsets[k as usize])));
            }
        }
        assert!(writer.bytes() > 0 && writer.keys() == many as usize);
        writer
    }

    fn mix(key: u64) -> u32 {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29) as u32
    }

    #[test]
    fn splits_lose_nothing() {
        let many = if cfg!(miri) { 200 } else { 20_000 };
        let grown = check(0, many, mix);
        assert!(cfg!(miri) || grown.bytes() > 300 * size_of::<Segment>());
        let hinted = check(many as usize * 8, many, mix);
        assert!(hinted.bytes() < grown.bytes() * 2);
    }

    #[test]
    fn alike_hashes_make_lists_not_directories() {
        let many = if cfg!(miri) { 20 } else { 3000 };
        for same in [0, 7 << 20, u32::MAX] {
            let writer = check(0, many, |_| same);
            assert!(writer.bytes() < 2 << 20, "{}", writer.bytes());
            check(0, many, |key| same ^ (key as u32 & 3));
            check(0, many, |key| same ^ (key as u32 & 3) << 30);
        }
    }

    quickcheck! {
        fn any_hashes(hashes: Vec<u32>, mask: u8) -> bool {
            if !hashes.is_empty() {
                let hash = |key: u64| {
                    hashes[key as usize % hashes.len()] & (u32::MAX << (mask % 32))
                };
                check(0, hashes.len() as u64 * 3, hash);
            }
            true
        }
    }
}
