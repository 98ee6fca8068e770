//! The cache of blocks read from files: 16 shards, and one clock over all of them.
//!
//! *CLOCK* (second chance) approximates least-recently-used without moving anything on a hit: a hit
//! sets a bit; the clock's hand, when room is needed, clears bits until it finds an entry without one,
//! and evicts that. New entries begin without the bit, so that a scan, which touches its blocks once,
//! evicts its own blocks first.
//!
//! Values are handles, cheap to clone. One that is still in use elsewhere when it is evicted stays
//! alive, but is no longer counted: the memory of readers in flight is bounded by their number, not by the budget.

use crate::base::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering, Weak};
use crate::cache::budget::{MemoryBudget, Reclaim, Reservation};
use crate::cache::row_cache::RowCache;

const SHARDS: usize = 16;

/// What is cached: a handle, cheap to clone.
pub trait Cached: Clone + Send + Sync + 'static {
    /// Looks at what whoever gets it will look at first, and at what a clone changes. A clone is a locked
    /// instruction, which waits for memory alone: so it waits for all of them at once.
    fn look_ahead(&self) {}
}

impl<T: Send + Sync + 'static> Cached for Arc<T> {}

/// A cache of immutable values by (open file, offset), charged to a [`MemoryBudget`].
///
/// The bytes charged never exceed the cache's capacity. When the budget's limit is exceeded, by
/// whatever, the cache gives entries back, down to none.
pub struct BlockCache<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
    budget: MemoryBudget,
    capacity: usize,
    /// Bytes of all entries, and of those about to be entered. Never above `capacity`.
    bytes: AtomicUsize,
    /// The shard where the clock's hand is.
    hand: AtomicUsize,
    owners: AtomicU64,
    /// Hashes of keys that had to be read a moment ago, each where its own bits say.
    missed: Box<[AtomicU64]>,
    rows: Arc<RowCache>,
}

/// How many keys are remembered that were not entered.
const MISSED: usize = 512;

/// What a cache has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Calls of `get` that found something, and rows that were found.
    pub hits: u64,
    /// Calls of `get` that did not.
    pub misses: u64,
    /// Bytes charged for the entries, rows apart.
    pub bytes: usize,
    /// Number of entries.
    pub entries: usize,
}

impl<V: Cached> BlockCache<V> {
    /// An empty cache of at most `capacity_max` bytes of blocks, which takes part in `budget`, as its
    /// rows do.
    pub fn new(budget: &MemoryBudget, capacity_max: usize) -> Arc<BlockCache<V>> {
        let cache = Arc::new(BlockCache {
            shards: std::array::from_fn(|_| Mutex::new(Shard::new(budget.reserve(0)))),
            budget: budget.clone(),
            capacity: capacity_max,
            bytes: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            owners: AtomicU64::new(1),
            missed: (0..MISSED).map(|_| AtomicU64::new(0)).collect(),
            rows: Arc::new(RowCache::new(budget, budget.limit())),
        });
        let (weak, rows): (Weak<BlockCache<V>>, Weak<RowCache>) =
            (Arc::downgrade(&cache), Arc::downgrade(&cache.rows));
        budget.add_cache(rows);
        budget.add_cache(weak);
        cache
    }

    /// A number for one open file, never given out before.
    pub fn next_owner(&self) -> u64 {
        self.owners.fetch_add(1, Ordering::Relaxed)
    }

    /// The value at `offset` of file `owner`, if it is here. One short lock of one shard.
    pub fn get(&self, owner: u64, offset: u64) -> Option<V> {
        let key = Key::new(owner, offset);
        let mut shard = self.shard(key).lock();
        let found = shard.touch(key);
        match found {
            Some(_) => shard.hits += 1,
            None => shard.misses += 1,
        }
        found
    }

    /// Enters a value of `charge` bytes and returns it; or, if somebody else was faster, the value
    /// that is here already. What is larger than the capacity is not entered, nor what the budget has
    /// no room for; so a `get` right after may find nothing.
    pub fn insert(&self, owner: u64, offset: u64, value: V, charge: usize) -> V {
        let key = Key::new(owner, offset);
        if !self.make_room(charge) {
            return self.shard(key).lock().touch(key).unwrap_or(value);
        }
        {
            let mut shard = self.shard(key).lock();
            if let Some(there) = shard.touch(key) {
                self.bytes.fetch_sub(charge, Ordering::Relaxed);
                return there;
            }
            shard.add(Entry { key, charge, referenced: false, value: value.clone() });
        }
        self.budget.reclaim();
        value
    }

    /// What is kept of blocks that were not entered.
    pub fn rows(&self) -> &RowCache {
        &self.rows
    }

    /// Is a value that had to be read for one of its entries worth [inserting](BlockCache::insert)? If
    /// nothing has to give way for it, or if it was read a moment ago already.
    pub fn wants(&self, owner: u64, offset: u64, charge: usize) -> bool {
        let hash = Key::new(owner, offset).hash;
        let place = &self.missed[(hash >> 32) as usize % MISSED];
        self.has_room(charge) || place.swap(hash, Ordering::Relaxed) == hash
    }

    /// Would so many bytes more find room without anything giving way?
    pub fn has_room(&self, charge: usize) -> bool {
        let room = |used: usize, limit: usize| used.saturating_add(charge) <= limit;
        room(self.bytes.load(Ordering::Relaxed), self.capacity)
            && room(self.budget.used(), self.budget.limit())
    }

    /// Forgets everything of one file. Looks at every entry: for closing files, not for hot paths.
    pub fn remove_owner(&self, owner: u64) {
        for shard in &self.shards {
            let mut removed = Vec::new();
            let mut shard = shard.lock();
            for place in 0..shard.ring.len() {
                if shard.ring[place].as_ref().is_some_and(|entry| entry.key.owner == owner) {
                    removed.extend(shard.remove(place));
                }
            }
            drop(shard); // before the values, whose drops may be long
            let bytes: usize = removed.iter().map(|entry| entry.charge).sum();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Counters of all shards.
    pub fn stats(&self) -> CacheStats {
        let mut stats = CacheStats::default();
        for shard in &self.shards {
            let shard = shard.lock();
            stats.hits += shard.hits;
            stats.misses += shard.misses;
            stats.bytes += shard.space.bytes();
            stats.entries += shard.ring.len() - shard.free.len();
        }
        stats.hits += self.rows.hits();
        stats
    }

    /// Claims `charge` bytes of the capacity, evicting what it takes. False: there is no way.
    fn make_room(&self, charge: usize) -> bool {
        if charge > self.capacity {
            return false;
        }
        loop {
            let claimed = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| {
                bytes.checked_add(charge).filter(|&sum| sum <= self.capacity)
            });
            if claimed.is_ok() {
                return true;
            }
            if !self.evict_one() {
                return false;
            }
        }
    }

    /// Moves the clock's hand to the next entry without its bit, and evicts that.
    fn evict_one(&self) -> bool {
        // The rest of the hand's shard, a round that clears bits, a round that must find something,
        // unless other threads set the bits again as fast.
        for _ in 0..3 * SHARDS {
            let hand = self.hand.load(Ordering::Relaxed);
            let evicted = self.shards[hand % SHARDS].lock().sweep();
            if let Some(entry) = evicted {
                self.bytes.fetch_sub(entry.charge, Ordering::Relaxed);
                return true; // the value is dropped here, with no lock held
            }
            let next = hand.wrapping_add(1);
            // Lost to another thread: it has moved the hand for us.
            let _ = self.hand.compare_exchange(hand, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        false
    }

    fn shard(&self, key: Key) -> &Mutex<Shard<V>> {
        &self.shards[(key.hash >> 60) as usize % SHARDS]
    }
}

impl<V: Cached> Reclaim for BlockCache<V> {
    fn reclaimable(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn reclaim_one(&self) -> bool {
        self.evict_one()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    hash: u64,
    owner: u64,
    offset: u64,
}

impl Key {
    fn new(owner: u64, offset: u64) -> Key {
        // The finalizer of SplitMix64 over both: every bit of the hash depends on every bit of each.
        let mut hash = owner.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ offset;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Key { hash: hash ^ (hash >> 31), owner, offset }
    }

    fn tag(self) -> u32 {
        (self.hash >> 28) as u32 // neither the lowest bits, which choose the slot, nor the shard's
    }
}

struct Entry<V> {
    key: Key,
    charge: usize,
    referenced: bool,
    value: V,
}

/// A part of the ring, and an index of it: open addressing with linear probing, at most half full.
struct Shard<V> {
    ring: Vec<Option<Entry<V>>>,
    /// Empty places of the ring.
    free: Vec<usize>,
    /// Where the hand stops when it is in this shard.
    hand: usize,
    /// The length is a power of two.
    index: Vec<Slot>,
    space: Reservation,
    hits: u64,
    misses: u64,
}

/// A place of the ring, and a part of the hash of the key there: another key is rarely looked at.
#[derive(Clone, Copy)]
struct Slot {
    place: u32,
    tag: u32,
}

/// The place in an empty slot.
const NOWHERE: u32 = u32::MAX;

const EMPTY: Slot = Slot { place: NOWHERE, tag: 0 };

impl<V: Cached> Shard<V> {
    fn new(space: Reservation) -> Shard<V> {
        let index = vec![EMPTY; 16];
        Shard { ring: Vec::new(), free: Vec::new(), hand: 0, index, space, hits: 0, misses: 0 }
    }

    fn entry_mut(&mut self, place: usize) -> Option<&mut Entry<V>> {
        self.ring.get_mut(place)?.as_mut()
    }

    /// The place of a key in the ring.
    fn find(&self, key: Key) -> Option<usize> {
        let mask = self.index.len() - 1;
        let mut at = key.hash as usize & mask;
        loop {
            let Slot { place, tag } = self.index[at];
            if place == NOWHERE {
                return None;
            }
            if tag == key.tag() && self.key_at(place) == key {
                return Some(place as usize);
            }
            at = (at + 1) & mask;
        }
    }

    /// The value of a key, which gets its second chance.
    fn touch(&mut self, key: Key) -> Option<V> {
        let place = self.find(key)?;
        let entry = self.entry_mut(place)?;
        entry.referenced = true;
        entry.value.look_ahead();
        Some(entry.value.clone())
    }

    fn key_at(&self, place: u32) -> Key {
        match &self.ring[place as usize] {
            Some(entry) => entry.key,
            None => unreachable!("the index points at entries"),
        }
    }

    /// Adds an entry that is not here.
    fn add(&mut self, entry: Entry<V>) {
        let (key, charge) = (entry.key, entry.charge);
        let place = match self.free.pop() {
            Some(place) => {
                self.ring[place] = Some(entry);
                place
            }
            None => {
                self.ring.push(Some(entry));
                self.ring.len() - 1
            }
        };
        assert!(place < NOWHERE as usize, "a shard holds fewer than 2^32 entries");
        if self.ring.len() * 2 > self.index.len() {
            self.index = vec![EMPTY; self.index.len() * 2];
            for place in 0..self.ring.len() {
                if let Some(entry) = &self.ring[place] {
                    self.enter(entry.key, place as u32);
                }
            }
        } else {
            self.enter(key, place as u32);
        }
        // Quietly: the budget would come back for this shard's lock.
        self.space.grow_quietly(charge);
    }

    fn enter(&mut self, key: Key, place: u32) {
        let mask = self.index.len() - 1;
        let mut at = key.hash as usize & mask;
        while self.index[at].place != NOWHERE {
            at = (at + 1) & mask;
        }
        self.index[at] = Slot { place, tag: key.tag() };
    }

    /// Removes what is at a place of the ring.
    fn remove(&mut self, place: usize) -> Option<Entry<V>> {
        let key = self.entry_mut(place)?.key;
        let mask = self.index.len() - 1;
        let mut hole = key.hash as usize & mask;
        while self.index[hole].place != place as u32 {
            hole = (hole + 1) & mask;
        }
        // Closes the gap, so that a search may end at the first empty slot: what probed past the hole
        // moves into it.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let other = self.index[at];
            if other.place == NOWHERE {
                break;
            }
            let home = self.key_at(other.place).hash as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.index[hole] = other;
                hole = at;
            }
        }
        self.index[hole] = EMPTY;
        let entry = self.ring[place].take()?;
        self.free.push(place);
        self.space.shrink(entry.charge);
        Some(entry)
    }

    /// Moves the hand on, clearing bits, up to an entry that has none, which is removed, or up to the
    /// end of this shard's part of the ring.
    fn sweep(&mut self) -> Option<Entry<V>> {
        while self.hand < self.ring.len() {
            let place = self.hand;
            self.hand += 1;
            match self.entry_mut(place) {
                None => {}
                Some(entry) if entry.referenced => entry.referenced = false,
                Some(_) => {
                    // Likely the next to go: to let go of it waits for memory as well.
                    if let Some(Some(next)) = self.ring.get(self.hand) {
                        next.value.look_ahead();
                    }
                    return self.remove(place);
                }
            }
        }
        self.hand = 0;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;
    use std::collections::BTreeMap;

    fn cache(limit: usize, capacity: usize) -> (MemoryBudget, Arc<BlockCache<Arc<u64>>>) {
        let budget = MemoryBudget::new(limit);
        let cache = BlockCache::new(&budget, capacity);
        (budget, cache)
    }

    quickcheck! {
        fn holds_what_was_entered_and_never_too_much(
            ops: Vec<(u8, u8, u8)>, capacity: u16, limit: u16
        ) -> bool {
            let (capacity, limit) = (usize::from(capacity % 2000), usize::from(limit % 2000));
            let (budget, cache) = cache(limit, capacity);
            let mut other = budget.reserve(0);
            let mut entered: BTreeMap<(u64, u64), u64> = BTreeMap::new();
            ops.into_iter().enumerate().all(|(i, (op, a, b))| {
                let (owner, offset) = (u64::from(a % 3), u64::from(b % 32));
                match op % 8 {
                    0 => {
                        cache.remove_owner(owner);
                        entered.retain(|key, _| key.0 != owner);
                    }
                    1 => other.grow(usize::from(a)),
                    2 => other.shrink(other.bytes().min(usize::from(b))),
                    3 | 4 => {
                        let found = cache.get(owner, offset);
                        if found.is_some_and(|v| entered.get(&(owner, offset)) != Some(&*v)) {
                            return false;
                        }
                    }
                    _ => {
                        let there = cache.get(owner, offset);
                        let value = Arc::new(i as u64);
                        let out = cache.insert(owner, offset, value, usize::from(a));
                        if !Arc::ptr_eq(&out, there.as_ref().unwrap_or(&out)) && *out != i as u64 {
                            return false;
                        }
                        if cache.get(owner, offset).is_some_and(|now| !Arc::ptr_eq(&now, &out)) {
                            return false;
                        }
                        entered.insert((owner, offset), *out);
                    }
                }
                let stats = cache.stats();
                stats.bytes <= capacity
                    && stats.bytes == cache.bytes.load(Ordering::Relaxed)
                    && budget.used() == stats.bytes + other.bytes()
                    && (budget.used() <= limit || stats.entries == 0)
            })
        }

        fn the_index_is_a_map(ops: Vec<(bool, u8)>) -> bool {
            let budget = MemoryBudget::new(usize::MAX);
            let mut shard = Shard::<Arc<u8>>::new(budget.reserve(0));
            let mut model = BTreeMap::new();
            // Homes close together and at the end of the index, so that probes are long and wrap.
            let key = |n: u8| Key { hash: 12 + u64::from(n % 5), owner: 0, offset: u64::from(n) };
            ops.into_iter().all(|(add, n)| {
                let there = shard.find(key(n));
                match there {
                    None if add => {
                        let value = Arc::new(n);
                        shard.add(Entry { key: key(n), charge: 1, referenced: false, value });
                        model.insert(n, ());
                    }
                    Some(place) if !add => {
                        model.remove(&n);
                        shard.remove(place);
                    }
                    _ => {}
                }
                shard.space.bytes() == model.len()
                    && (0..=255).all(|n| {
                        let place = shard.find(key(n));
                        let value = place.and_then(|p| shard.entry_mut(p)).map(|e| *e.value);
                        value == model.get(&n).map(|()| n)
                    })
            })
        }
    }

    #[test]
    fn the_first_value_wins() {
        let (_budget, cache) = cache(100, 100);
        let owner = cache.next_owner();
        assert_ne!(owner, cache.next_owner());
        let first = cache.insert(owner, 0, Arc::new(1), 10);
        let second = cache.insert(owner, 0, Arc::new(2), 10);
        assert!(Arc::ptr_eq(&first, &second));
        assert!(cache.get(owner, 1).is_none());
        assert!(cache.get(owner, 0).is_some());
        let expected = CacheStats { hits: 1, misses: 1, bytes: 10, entries: 1 };
        assert_eq!(cache.stats(), expected);
    }

    #[test]
    fn what_was_used_gets_a_second_chance() {
        let (_budget, cache) = cache(usize::MAX, 100);
        for offset in 0..100 {
            cache.insert(1, offset, Arc::new(offset), 1);
        }
        for round in 1..20 {
            for hot in 0..20 {
                assert!(cache.get(1, hot).is_some(), "a hot entry was evicted in round {round}");
            }
            for cold in 0..50 {
                cache.insert(1, round * 1000 + cold, Arc::new(0), 1);
            }
        }
        assert_eq!(cache.stats().entries, 100);
    }

    #[test]
    fn evicted_values_live_on_elsewhere() {
        let (budget, cache) = cache(100, 100);
        let pinned = cache.insert(1, 0, Arc::new(7), 60);
        let other = budget.reserve(50);
        assert!(cache.get(1, 0).is_none(), "gave way to other memory");
        assert_eq!((*pinned, budget.used()), (7, 50));
        cache.insert(1, 0, Arc::new(8), 60);
        assert!(cache.get(1, 0).is_none(), "no room in the budget");
        cache.insert(1, 1, Arc::new(9), 101);
        assert!(cache.get(1, 1).is_none(), "larger than the cache");
        drop(other);
        cache.insert(1, 0, pinned, 60);
        drop(cache);
        assert_eq!(budget.used(), 0, "a dropped cache gives everything back");
    }

    #[test]
    fn the_largest_cache_gives_way() {
        let budget = MemoryBudget::new(100);
        let (a, b) = (BlockCache::new(&budget, 1000), BlockCache::new(&budget, 1000));
        for offset in 0..10 {
            a.insert(1, offset, Arc::new(()), 10);
        }
        for offset in 0..20 {
            b.insert(1, offset, Arc::new(()), 10);
            assert!(budget.used() <= 100);
        }
        assert!(a.stats().bytes.abs_diff(b.stats().bytes) <= 10, "an idle cache shares its room");
    }

    #[test]
    fn many_threads() {
        let (budget, cache) = cache(4000, 3000);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (cache, budget) = (&cache, &budget);
                scope.spawn(move || {
                    let mut rng = crate::base::rng::Rng::new(thread);
                    for i in 0..5000 {
                        let (owner, offset) = (rng.below(4), rng.below(100));
                        let expected = owner * 1000 + offset;
                        let value = cache
                            .get(owner, offset)
                            .unwrap_or_else(|| cache.insert(owner, offset, Arc::new(expected), 40));
                        assert_eq!(*value, expected);
                        let _other = budget.reserve(rng.below(2000) as usize);
                        if i % 500 == 0 {
                            cache.remove_owner(owner);
                        }
                        assert!(cache.bytes.load(Ordering::Relaxed) <= 3000);
                    }
                });
            }
        });
        let stats = cache.stats();
        assert_eq!(stats.bytes, stats.entries * 40);
        assert_eq!(budget.used(), stats.bytes);
        assert_eq!(cache.bytes.load(Ordering::Relaxed), stats.bytes);
    }
}
