//! The cache of rows: the newest versions of single keys of tables, apart from the blocks they are in.
//!
//! Where few of a block's entries are hot, the row takes a fraction of the memory that keeps it at
//! hand, and is found in two cache misses. A table never changes, so a row of it is true for ever, and
//! nothing has to be invalidated: rows of tables that are gone are never asked for and age out.
//!
//! Rows lie one behind the other in segments of one size, which age together: *FIFO with a second
//! chance*. A hit sets a row's bit; when room is needed, the rows of the oldest segment that have it are
//! moved to the newest, without it, and the others are gone.

use std::collections::VecDeque;

use crate::base::sync::{AtomicUsize, Mutex, Ordering};
use crate::cache::budget::{MemoryBudget, Reclaim, Reservation};

const SHARDS: usize = 16;

/// What is reserved and given back at once.
const SEGMENT_BYTES: usize = if cfg!(test) { 1 << 10 } else { 16 << 10 };

/// A row with its head and its key is no larger than this: what is larger fills a block by itself.
pub const ROW_BYTES_MAX: usize = 512;

/// Hash, lengths and the bit, owner, trailer.
const HEAD_BYTES: usize = 24;

/// A length takes 14 bits of a head.
const LEN_MASK: usize = (1 << 14) - 1;

/// Rows begin at multiples of this.
const ALIGN: usize = 8;

/// So many times as much memory may be rows as blocks: `reclaimable` says so little of it.
const WEIGHT: usize = 3;

/// A cache of rows by (open file, user key), charged to a [`MemoryBudget`].
pub struct RowCache {
    shards: [Mutex<Shard>; SHARDS],
    budget: MemoryBudget,
    capacity: usize,
    /// Bytes of all segments.
    bytes: AtomicUsize,
    /// The shard that gives way next.
    hand: AtomicUsize,
}

/// Whose row it is.
#[derive(Clone, Copy)]
pub struct RowKey<'a> {
    /// The open file, as [`BlockCache::next_owner`](super::block_cache::BlockCache::next_owner) has
    /// numbered it.
    pub owner: u64,
    /// The user key's hash, whose bits must all depend on all of the key.
    pub hash: u64,
    /// The user key.
    pub user_key: &'a [u8],
}

impl RowKey<'_> {
    fn mixed(&self) -> u64 {
        self.hash ^ self.owner.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn shard(&self) -> usize {
        (self.mixed() >> 60) as usize % SHARDS
    }

    /// What a shard knows of the hash.
    fn short(&self) -> u32 {
        (self.mixed() >> 28) as u32 // not the shard's bits
    }
}

/// Where a row's value is copied to: memory that is not written to before there is one.
pub struct RowCopy(Option<[u8; ROW_BYTES_MAX]>);

impl RowCopy {
    /// An empty one.
    #[inline]
    pub fn new() -> RowCopy {
        RowCopy(None)
    }
}

impl RowCache {
    /// An empty cache of at most `capacity_max` bytes. It gives way to others as `budget` asks it to,
    /// which whoever makes it has to [register](MemoryBudget::add_cache).
    pub fn new(budget: &MemoryBudget, capacity_max: usize) -> RowCache {
        RowCache {
            shards: std::array::from_fn(|_| Mutex::new(Shard::new(budget.reserve(0)))),
            budget: budget.clone(),
            capacity: capacity_max,
            bytes: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    /// Trailer and value of a row, if it is here. One short lock of one shard, under which the value
    /// is copied.
    #[inline]
    pub fn get<'c>(&self, key: RowKey<'_>, copy: &'c mut RowCopy) -> Option<(u64, &'c [u8])> {
        self.shards[key.shard()].lock().get(key, copy)
    }

    /// Enters a row, unless it is here or too large. The oldest rows may have to go, or what else the
    /// budget finds.
    pub fn insert(&self, key: RowKey<'_>, trailer: u64, value: &[u8]) {
        let size = size_of_row(key.user_key, value);
        if size > ROW_BYTES_MAX {
            return;
        }
        {
            let mut shard = self.shards[key.shard()].lock();
            if shard.find(key).is_some() {
                return;
            }
            if !shard.has_room(size) {
                if self.bytes() + SEGMENT_BYTES > self.capacity {
                    drop(shard);
                    self.reclaim_one();
                    return; // the next one has better luck
                }
                shard.begin_segment();
                self.bytes.fetch_add(SEGMENT_BYTES, Ordering::Relaxed);
            }
            shard.add(key, trailer, value);
        }
        self.budget.reclaim();
    }

    /// Is there no row?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Bytes of all segments.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reads that found their row.
    pub fn hits(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().hits).sum()
    }
}

impl Reclaim for RowCache {
    fn reclaimable(&self) -> usize {
        self.bytes().div_ceil(WEIGHT)
    }

    fn reclaim_one(&self) -> bool {
        // A round that gives second chances, and one that does not.
        for tries in 0..2 * SHARDS {
            let place = self.hand.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let mut shard = self.shards[place].lock();
            if !shard.order.is_empty() && shard.sweep(tries < SHARDS) {
                self.bytes.fetch_sub(SEGMENT_BYTES, Ordering::Relaxed);
                return true;
            }
        }
        false
    }
}

fn size_of_row(user_key: &[u8], value: &[u8]) -> usize {
    let size = HEAD_BYTES.saturating_add(user_key.len()).saturating_add(value.len());
    size.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX)
}

/// Rows, each behind the one before.
struct Segment {
    bytes: Box<[u8]>,
    len: usize,
}

/// What stands in front of a row's key.
#[derive(Clone, Copy)]
struct Head {
    hash: u32,
    owner: u64,
    trailer: u64,
    key_len: usize,
    value_len: usize,
    referenced: bool,
}

impl Head {
    fn size(&self) -> usize {
        (HEAD_BYTES + self.key_len + self.value_len).next_multiple_of(ALIGN)
    }
}

impl Segment {
    fn new() -> Segment {
        Segment { bytes: vec![0; SEGMENT_BYTES].into(), len: 0 }
    }

    #[inline]
    fn head(&self, at: usize) -> Head {
        let head: &[u8; HEAD_BYTES] = self.bytes[at..].first_chunk().expect("a row is there");
        let word = |i: usize| {
            u64::from_le_bytes(head[8 * i..8 * i + 8].try_into().expect("eight of them"))
        };
        let first = word(0);
        Head {
            hash: first as u32,
            key_len: (first >> 32) as usize & LEN_MASK,
            value_len: (first >> 46) as usize & LEN_MASK,
            referenced: first >> 63 != 0,
            owner: word(1),
            trailer: word(2),
        }
    }

    fn set_referenced(&mut self, at: usize, referenced: bool) {
        let byte = &mut self.bytes[at + 7];
        *byte = *byte & 0x7f | u8::from(referenced) << 7;
    }

    #[inline]
    fn key(&self, at: usize, head: &Head) -> &[u8] {
        &self.bytes[at + HEAD_BYTES..][..head.key_len]
    }

    #[inline]
    fn value(&self, at: usize, head: &Head) -> &[u8] {
        &self.bytes[at + HEAD_BYTES + head.key_len..][..head.value_len]
    }

    /// Appends a row and returns where it is.
    fn push(&mut self, key: RowKey<'_>, trailer: u64, value: &[u8]) -> usize {
        let at = self.len;
        let row = &mut self.bytes[at..];
        let lens = (key.user_key.len() as u64) << 32 | (value.len() as u64) << 46;
        row[..8].copy_from_slice(&(u64::from(key.short()) | lens).to_le_bytes());
        row[8..16].copy_from_slice(&key.owner.to_le_bytes());
        row[16..24].copy_from_slice(&trailer.to_le_bytes());
        let behind = HEAD_BYTES + key.user_key.len();
        row[HEAD_BYTES..behind].copy_from_slice(key.user_key);
        row[behind..behind + value.len()].copy_from_slice(value);
        self.len += size_of_row(key.user_key, value);
        at
    }
}

/// A part of the rows, and an index of it: open addressing with linear probing, at most two thirds full.
struct Shard {
    segments: Vec<Option<Segment>>,
    /// Empty places of `segments`.
    free: Vec<usize>,
    /// Places of segments, oldest first. The last one is being filled.
    order: VecDeque<usize>,
    /// The length is a power of two.
    index: Vec<Slot>,
    rows: usize,
    space: Reservation,
    hits: u64,
}

/// Where a row is, in units of [`ALIGN`], and its hash: another row is rarely looked at.
#[derive(Clone, Copy)]
struct Slot {
    place: u32,
    hash: u32,
}

const NOWHERE: u32 = u32::MAX;

const EMPTY: Slot = Slot { place: NOWHERE, hash: 0 };

fn place_of(segment: usize, at: usize) -> u32 {
    let place = segment * (SEGMENT_BYTES / ALIGN) + at / ALIGN;
    assert!(place < NOWHERE as usize, "a shard has less than 32 GiB of rows");
    place as u32
}

fn parts_of(place: u32) -> (usize, usize) {
    let each = SEGMENT_BYTES / ALIGN;
    (place as usize / each, place as usize % each * ALIGN)
}

impl Shard {
    fn new(space: Reservation) -> Shard {
        Shard {
            segments: Vec::new(),
            free: Vec::new(),
            order: VecDeque::new(),
            index: vec![EMPTY; 16],
            rows: 0,
            space,
            hits: 0,
        }
    }

    #[inline]
    fn segment(&self, i: usize) -> &Segment {
        self.segments[i].as_ref().expect("the index points at rows")
    }

    /// The place of a row.
    #[inline]
    fn find(&self, key: RowKey<'_>) -> Option<u32> {
        let hash = key.short();
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.index[at];
            if slot.place == NOWHERE {
                return None;
            }
            if slot.hash == hash {
                let (segment, at) = parts_of(slot.place);
                let segment = self.segment(segment);
                let head = segment.head(at);
                if head.owner == key.owner && segment.key(at, &head) == key.user_key {
                    return Some(slot.place);
                }
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn get<'c>(&mut self, key: RowKey<'_>, copy: &'c mut RowCopy) -> Option<(u64, &'c [u8])> {
        let (i, at) = parts_of(self.find(key)?);
        let segment = self.segments[i].as_mut().expect("the index points at rows");
        let head = segment.head(at);
        if !head.referenced {
            segment.set_referenced(at, true);
        }
        let value = &mut copy.0.insert([0; ROW_BYTES_MAX])[..head.value_len];
        value.copy_from_slice(segment.value(at, &head));
        self.hits += 1;
        Some((head.trailer, value))
    }

    fn has_room(&self, size: usize) -> bool {
        self.order.back().is_some_and(|&last| self.segment(last).len + size <= SEGMENT_BYTES)
    }

    fn begin_segment(&mut self) {
        let place = self.free.pop().unwrap_or(self.segments.len());
        if place == self.segments.len() {
            self.segments.push(None);
        }
        self.segments[place] = Some(Segment::new());
        self.order.push_back(place);
        // Quietly: the budget would come back for this shard's lock.
        self.space.grow_quietly(SEGMENT_BYTES);
    }

    /// Adds a row that is not here, for which there is room.
    fn add(&mut self, key: RowKey<'_>, trailer: u64, value: &[u8]) {
        let last = *self.order.back().expect("a segment that has room");
        let segment = self.segments[last].as_mut().expect("a segment that has room");
        let at = segment.push(key, trailer, value);
        self.rows += 1;
        if self.rows * 3 > self.index.len() * 2 {
            self.rebuild_index(self.index.len() * 2);
        } else {
            self.enter(key.short(), place_of(last, at));
        }
    }

    fn rebuild_index(&mut self, len: usize) {
        let bytes = |slots: usize| slots * size_of::<Slot>();
        self.space.grow_quietly(bytes(len).saturating_sub(bytes(self.index.len())));
        self.space.shrink(bytes(self.index.len()).saturating_sub(bytes(len)));
        self.index = vec![EMPTY; len];
        for i in self.order.clone() {
            let mut at = 0;
            while at < self.segment(i).len {
                let head = self.segment(i).head(at);
                self.enter(head.hash, place_of(i, at));
                at += head.size();
            }
        }
    }

    fn enter(&mut self, hash: u32, place: u32) {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        while self.index[at].place != NOWHERE {
            at = (at + 1) & mask;
        }
        self.index[at] = Slot { place, hash };
    }

    /// The slot that points at a row.
    fn slot_of(&self, hash: u32, place: u32) -> usize {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        while self.index[at].place != place {
            assert!(self.index[at].place != NOWHERE, "every row is in the index");
            at = (at + 1) & mask;
        }
        at
    }

    /// Takes a row out of the index, and closes the gap: what probed past the hole moves into it.
    fn forget(&mut self, hash: u32, place: u32) {
        let mask = self.index.len() - 1;
        let mut hole = self.slot_of(hash, place);
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let other = self.index[at];
            if other.place == NOWHERE {
                break;
            }
            let home = other.hash as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.index[hole] = other;
                hole = at;
            }
        }
        self.index[hole] = EMPTY;
        self.rows -= 1;
    }

    /// Lets the rows of the oldest segment go, but for those that have their bit if `again`; these
    /// lose it, and are moved to the newest segment if they find room there. False: they did not, and
    /// the segment is the newest now.
    fn sweep(&mut self, again: bool) -> bool {
        let oldest = self.order.pop_front().expect("there is a segment");
        let (mut at, mut kept) = (0, 0);
        while at < self.segment(oldest).len {
            let head = self.segment(oldest).head(at);
            let size = head.size();
            if again && head.referenced {
                let slot = self.slot_of(head.hash, place_of(oldest, at));
                self.index[slot].place = place_of(oldest, kept);
                let segment = self.segments[oldest].as_mut().expect("it is there");
                segment.set_referenced(at, false);
                segment.bytes.copy_within(at..at + size, kept);
                kept += size;
            } else {
                self.forget(head.hash, place_of(oldest, at));
            }
            at += size;
        }
        let fits = kept == 0 || self.has_room(kept);
        if !fits {
            self.segments[oldest].as_mut().expect("it is there").len = kept;
            self.order.push_back(oldest);
            return false;
        }
        let segment = self.segments[oldest].take().expect("it is there");
        if kept > 0 {
            self.move_to_last(oldest, &segment.bytes[..kept]);
        }
        self.free.push(oldest);
        self.space.shrink(SEGMENT_BYTES);
        if self.order.is_empty() {
            self.rebuild_index(16);
        }
        true
    }

    /// Appends rows, which the index has in segment `from`, to the last segment.
    fn move_to_last(&mut self, from: usize, rows: &[u8]) {
        let last = *self.order.back().expect("it has room");
        let segment = self.segments[last].as_mut().expect("it has room");
        let start = segment.len;
        segment.bytes[start..start + rows.len()].copy_from_slice(rows);
        segment.len += rows.len();
        let mut at = 0;
        while at < rows.len() {
            let head = self.segment(last).head(start + at);
            let slot = self.slot_of(head.hash, place_of(from, at));
            self.index[slot].place = place_of(last, start + at);
            at += head.size();
        }
    }
}

#[cfg(test)]
mod tests;
