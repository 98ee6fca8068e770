//! What is stored, and in which order it is asked for: the same for every engine and every run.
//!
//! ```text
//! key    group u64 │ "bench:01" │ member u64      ten keys share the first 16 bytes
//! value  member u64 │ version u64 │ filler │ member ^ version u64
//! ```
//!
//! Keys and values are made of their number when they are needed: a few nanoseconds, no cache miss.

/// Bytes of a key.
pub const KEY_BYTES: usize = 24;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 100;
/// Keys that share a prefix.
pub const GROUP: usize = 10;
/// Bytes that they share.
pub const PREFIX_BYTES: usize = 16;

const FAMILY: [u8; 8] = *b"bench:01";
/// Skew of the counters, as in YCSB.
const ZIPF_THETA: f64 = 0.99;

/// Orders of access, drawn once.
pub struct Data {
    /// Keys in the store.
    pub keys: usize,
    /// All keys, in the order in which they are put.
    pub puts: Vec<u32>,
    /// Keys that are overwritten, each once.
    pub writes: Vec<u32>,
    /// The same keys in another order, to be read.
    pub reads: Vec<u32>,
    /// Keys of the counters: few of them often.
    pub skewed: Vec<u32>,
    /// Groups, to be scanned by prefix.
    pub groups: Vec<u32>,
    /// How often each key is in `skewed`.
    pub counts: Vec<u32>,
    /// Whether each key is in `writes`.
    pub written: Vec<bool>,
}

impl Data {
    /// Orders for so many keys and operations (at most as many as keys).
    pub fn new(keys: usize, ops: usize) -> Data {
        let mut random = Random(0x5eed);
        let mut puts: Vec<u32> = (0..keys as u32).collect();
        random.shuffle(&mut puts);
        let mut writes = puts.clone();
        random.shuffle(&mut writes);
        writes.truncate(ops);
        let mut reads = writes.clone();
        random.shuffle(&mut reads);
        let mut groups: Vec<u32> = (0..(keys / GROUP) as u32).collect();
        random.shuffle(&mut groups);
        groups.truncate(ops / GROUP);
        let zipf = Zipf::new(keys);
        // The rank goes through an order of its own, so that hot keys are not neighbours.
        let skewed: Vec<u32> = (0..ops).map(|_| puts[zipf.draw(&mut random)]).collect();
        let mut counts = vec![0; keys];
        skewed.iter().for_each(|&i| counts[i as usize] += 1);
        let mut written = vec![false; keys];
        writes.iter().for_each(|&i| written[i as usize] = true);
        Data { keys, puts, writes, reads, skewed, groups, counts, written }
    }
}

/// Mixes a number: a bijection, so that different numbers give different keys.
#[inline]
fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The key with this number.
#[inline]
pub fn key(number: u32) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..PREFIX_BYTES].copy_from_slice(&prefix(number / GROUP as u32));
    key[PREFIX_BYTES..].copy_from_slice(&mix(u64::from(number)).to_be_bytes());
    key
}

/// What the keys of a group begin with.
#[inline]
pub fn prefix(group: u32) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..8].copy_from_slice(&mix(!u64::from(group)).to_be_bytes());
    prefix[8..].copy_from_slice(&FAMILY);
    prefix
}

/// Makes the value of the key with this number in `out`.
#[inline]
pub fn make_value(out: &mut [u8; VALUE_BYTES], number: u32, version: u32) {
    let (member, version) = (mix(u64::from(number)), u64::from(version));
    out[..8].copy_from_slice(&member.to_be_bytes());
    out[8..16].copy_from_slice(&version.to_le_bytes());
    out[VALUE_BYTES - 8..].copy_from_slice(&(member ^ version).to_be_bytes());
}

/// The version of a value of the key with this number.
///
/// # Panics
/// If it is not a value of this key.
#[inline]
pub fn check_value(value: Option<&[u8]>, number: u32) -> u32 {
    check_bytes(value.expect("the key has a value"), mix(u64::from(number)))
}

/// Checks that key and value belong together.
#[inline]
pub fn check_entry(key: &[u8], value: &[u8]) {
    let member = key[PREFIX_BYTES..].try_into().expect("a key of ours");
    check_bytes(value, u64::from_be_bytes(member));
}

#[inline]
fn check_bytes(value: &[u8], member: u64) -> u32 {
    assert_eq!(value.len(), VALUE_BYTES);
    let word = |at: usize| value[at..at + 8].try_into().expect("eight bytes");
    let version = u64::from_le_bytes(word(8));
    assert_eq!(u64::from_be_bytes(word(0)), member);
    assert_eq!(u64::from_be_bytes(word(VALUE_BYTES - 8)), member ^ version);
    version as u32
}

/// A small generator; the engines' speed depends on none of its finer points.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}

/// Zipfian ranks, as YCSB draws them (Gray et al., "Quickly generating billion-record synthetic
/// databases").
struct Zipf {
    n: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(n: usize) -> Zipf {
        let zeta = |n: usize| (1..=n).map(|i| (i as f64).powf(-ZIPF_THETA)).sum::<f64>();
        let (zeta_n, zeta_2, n) = (zeta(n), zeta(2), n as f64);
        let eta = (1.0 - (2.0 / n).powf(1.0 - ZIPF_THETA)) / (1.0 - zeta_2 / zeta_n);
        Zipf { n, alpha: 1.0 / (1.0 - ZIPF_THETA), zeta: zeta_n, eta }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let u = random.unit();
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5f64.powf(ZIPF_THETA) {
            return 1;
        }
        let rank = self.n * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as usize).min(self.n as usize - 1)
    }
}
