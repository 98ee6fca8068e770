//! From a key to its newest entry: extendible hashing over cache lines.
//!
//! ```text
//! directory   2^depth segment numbers, by the top bits of the hash
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

use crate::base::sync::{AtomicU32, AtomicU64, OnceLock, Ordering};
use crate::memtable::arena::{Offset, Slot};

const BUCKETS: usize = 64;
const BUCKET_SLOTS: usize = 7;
const SLOTS: usize = BUCKETS * BUCKET_SLOTS;
/// A segment is split when this many slots are taken: lookups seldom need a second bucket.
const SPLIT_AT: u32 = if cfg!(test) { 48 } else { SLOTS as u32 * 3 / 4 };
/// What a segment holds on average.
const KEYS_PER_SEGMENT: usize = SLOTS * 9 / 16;
const DEPTH_MAX: u32 = 24;

/// Segments of the first page; each page has twice as many as the one before.
const PAGE_SEGMENTS: usize = 16;
const PAGES: usize = 15;

#[repr(C, align(64))]
struct Bucket {
    /// A byte for each slot, from the lowest: 0 while it is free.
    tags: AtomicU64,
    slots: [Slot; BUCKET_SLOTS],
}

struct Segment {
    buckets: [Bucket; BUCKETS],
    /// Where it goes on when it is full and splitting does not help: 0 nowhere, else a segment.
    next: AtomicU32,
}

/// Room for segments, which are allocated one by one.
type Page = Box<[OnceLock<Box<Segment>>]>;

/// Readers' half.
pub struct Index {
    depth: AtomicU32,
    directories: [OnceLock<Box<[AtomicU32]>>; DEPTH_MAX as usize + 1],
    pages: [OnceLock<Page>; PAGES],
}

/// Names a segment: they are counted from [`FIRST`]; 0 is none.
type Number = u32;

const FIRST: Number = PAGE_SEGMENTS as Number;

/// What only the writer knows.
pub struct IndexWriter {
    /// Keys and depth of each segment.
    states: Vec<State>,
    keys: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Default)]
struct State {
    keys: u32,
    depth: u32,
}

impl Index {
    /// An index that expects so many keys. No segment is allocated before it is needed.
    pub fn new(keys_hint: usize) -> (IndexWriter, Index) {
        let segments = keys_hint.div_ceil(KEYS_PER_SEGMENT).next_power_of_two();
        let depth = segments.ilog2().min(DEPTH_MAX - 8);
        let index = Index {
            depth: AtomicU32::new(depth),
            directories: [const { OnceLock::new() }; DEPTH_MAX as usize + 1],
            pages: [const { OnceLock::new() }; PAGES],
        };
        let directory = directory((0..1 << depth).map(|_| 0));
        let bytes = size_of_val(&*directory);
        assert!(index.directories[depth as usize].set(directory).is_ok(), "just made");
        (IndexWriter { states: Vec::new(), keys: 0, bytes }, index)
    }

    /// The newest entry of the key with this hash for which `same` holds.
    #[inline]
    pub fn find(&self, hash: u32, same: impl FnMut(Offset) -> bool) -> Option<Offset> {
        self.find_slot(hash, same).map(|(_, offset)| offset)
    }

    /// Likewise, with the slot it is in.
    #[inline(always)]
    pub fn find_slot(
        &self,
        hash: u32,
        mut same: impl FnMut(Offset) -> bool,
    ) -> Option<(&Slot, Offset)> {
        let mut number = self.number(hash);
        while number != 0 {
            let segment = self.segment(number);
            for i in 0..BUCKETS {
                let bucket = segment.bucket(hash, i);
                let tags = bucket.tags.load(Ordering::Relaxed);
                let mut matches = matches(tags, hash);
                while matches != 0 {
                    let slot = &bucket.slots[matches.trailing_zeros() as usize / 8];
                    if let Some(offset) = slot.load(hash)
                        && same(offset)
                    {
                        return Some((slot, offset));
                    }
                    matches &= matches - 1;
                }
                if !is_full(tags) {
                    return None;
                }
            }
            number = segment.next.load(Ordering::Acquire);
        }
        None
    }

    #[inline]
    fn directory(&self) -> (&[AtomicU32], u32) {
        let depth = self.depth.load(Ordering::Acquire);
        let directory = self.directories[depth as usize].get();
        (directory.expect("published before its depth"), depth)
    }

    #[inline]
    fn number(&self, hash: u32) -> Number {
        let (directory, depth) = self.directory();
        directory[prefix(hash, depth)].load(Ordering::Acquire)
    }

    #[inline]
    fn segment(&self, number: Number) -> &Segment {
        let (page, place) = place(number);
        let page = self.pages[page].get().expect("published before the number");
        page[place].get().expect("published before the number")
    }
}

impl Segment {
    fn new() -> Segment {
        Segment { buckets: [const { Bucket::new() }; BUCKETS], next: AtomicU32::new(0) }
    }

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
            let mut number = index.number(hash);
            if number == 0 {
                let depth = index.depth.load(Ordering::Relaxed);
                number = self.add_segment(index, depth);
                index.directory().0[prefix(hash, depth)].store(number, Ordering::Release);
            }
            let state = self.state(number);
            if state.keys < SPLIT_AT || state.depth >= self.depth_limit() {
                self.place(index, number, hash, offset);
                self.keys += 1;
                return;
            }
            self.split(index, hash, number);
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

    fn state(&mut self, number: Number) -> &mut State {
        &mut self.states[(number - FIRST) as usize]
    }

    /// Puts hash and offset into the first free slot of a segment, or of one of those behind it.
    fn place(&mut self, index: &Index, number: Number, hash: u32, offset: Offset) {
        self.state(number).keys += 1;
        let mut number = number;
        loop {
            let segment = index.segment(number);
            for i in 0..BUCKETS {
                if segment.bucket(hash, i).fill(hash, offset) {
                    return;
                }
            }
            number = segment.next.load(Ordering::Relaxed);
            if number == 0 {
                number = self.add_segment(index, 0);
                segment.next.store(number, Ordering::Release);
            }
        }
    }

    #[cold]
    fn split(&mut self, index: &Index, hash: u32, number: Number) {
        let depth = self.state(number).depth;
        if depth == index.depth.load(Ordering::Relaxed) {
            self.double(index);
        }
        let halves = [self.add_segment(index, depth + 1), self.add_segment(index, depth + 1)];
        let mut old = number;
        while old != 0 {
            let segment = index.segment(old);
            for slot in segment.buckets.iter().flat_map(|bucket| &bucket.slots) {
                if let Some((hash, offset)) = slot.both() {
                    let half = prefix(hash, depth + 1) & 1;
                    self.place(index, halves[half], hash, offset);
                }
            }
            old = segment.next.load(Ordering::Relaxed);
        }
        let (directory, directory_depth) = index.directory();
        let each = 1 << (directory_depth - depth - 1);
        let from = prefix(hash, depth) * 2 * each;
        for (i, entry) in directory[from..from + 2 * each].iter().enumerate() {
            entry.store(halves[i / each], Ordering::Release);
        }
    }

    fn double(&mut self, index: &Index) {
        let (old, depth) = index.directory();
        let both = |entry: &AtomicU32| [entry.load(Ordering::Relaxed); 2];
        let new = directory(old.iter().flat_map(both));
        self.bytes += size_of_val(&*new);
        assert!(index.directories[depth as usize + 1].set(new).is_ok(), "directories only grow");
        index.depth.store(depth + 1, Ordering::Release);
    }

    fn add_segment(&mut self, index: &Index, depth: u32) -> Number {
        let number = FIRST + self.states.len() as Number;
        self.states.push(State { keys: 0, depth });
        let (page, place) = place(number);
        assert!(page < PAGES, "the index of {} keys is full", self.keys);
        let page = index.pages[page].get_or_init(|| {
            let page: Page = (0..PAGE_SEGMENTS << page).map(|_| OnceLock::new()).collect();
            self.bytes += size_of_val(&*page);
            page
        });
        assert!(page[place].set(Box::new(Segment::new())).is_ok(), "segments are added once");
        self.bytes += size_of::<Segment>() + size_of::<State>();
        number
    }
}

fn directory(numbers: impl Iterator<Item = Number>) -> Box<[AtomicU32]> {
    numbers.map(AtomicU32::new).collect()
}

/// The top bits of a hash.
#[inline]
fn prefix(hash: u32, bits: u32) -> usize {
    (u64::from(hash) << bits >> 32) as usize
}

/// Page and place in it.
#[inline]
fn place(number: Number) -> (usize, usize) {
    let top = number.ilog2();
    ((top - FIRST.ilog2()) as usize, (number - (1 << top)) as usize)
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
            index.find(hash(key), |offset| arena.entry(offset).key() == key.to_le_bytes())
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
        assert!(cfg!(miri) || grown.states.len() > 300);
        let hinted = check(many as usize * 8, many, mix);
        assert!(hinted.bytes() < grown.bytes() * 2);
    }

    #[test]
    fn alike_hashes_make_lists_not_directories() {
        let many = if cfg!(miri) { 100 } else { 3000 };
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
