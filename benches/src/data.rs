//! What is stored: keys as Flink composes them, values that say whose they are.
//!
//! ```text
//! key    group u16 │ number u64 │ namespace, 6 bytes │ user key u64, for maps
//! value  check u32 │ version u32 │ filler, half of which compresses
//! ```

/// Key groups of the job: two bytes in front of each key.
pub const KEY_GROUPS: u16 = 128;
/// Bytes of a key of a value, a list, or a whole map.
pub const KEY_BYTES: usize = 16;
/// Bytes of the key of a map's entry.
pub const ENTRY_BYTES: usize = 24;
/// Bytes of a value of the state shapes: a `Long`.
pub const LONG_BYTES: usize = 8;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 100;
/// Skew of everything that is skewed, as in YCSB.
const ZIPF_THETA: f64 = 0.99;

/// Mixes a number: a bijection.
#[inline]
pub fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Scatters the numbers below `n`: a bijection, another one for each salt, without a table.
#[inline]
pub fn scatter(number: u32, n: u32, salt: u32) -> u32 {
    let bits = (u32::BITS - (n - 1).leading_zeros()).max(2);
    let mask = u32::MAX >> (u32::BITS - bits);
    let mut x = number;
    // A bijection of `bits` bits, followed until it comes back below `n`: at most twice as far.
    loop {
        for odd in [0x9e37_79b1, 0x85eb_ca6b, 0xc2b2_ae35] {
            x = x.wrapping_add(salt).wrapping_mul(odd) & mask;
            x ^= x >> bits.div_ceil(2);
        }
        if x < n {
            return x;
        }
    }
}

/// The key with this number, in namespace 0.
#[inline]
pub fn key(number: u32) -> [u8; KEY_BYTES] {
    key_in(number, 0)
}

/// The key with this number in a namespace.
#[inline]
pub fn key_in(number: u32, namespace: u32) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    let group = (mix(u64::from(number)) % u64::from(KEY_GROUPS)) as u16;
    key[..2].copy_from_slice(&group.to_be_bytes());
    key[2..10].copy_from_slice(&u64::from(number).to_be_bytes());
    key[12..].copy_from_slice(&namespace.to_be_bytes());
    key
}

/// The number of a key.
#[inline]
pub fn number_of(key: &[u8]) -> u32 {
    u64::from_be_bytes(key[2..10].try_into().expect("a key of ours")) as u32
}

/// The key of an entry of the map under `key(number)`.
#[inline]
pub fn entry(number: u32, user_key: u32) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..KEY_BYTES].copy_from_slice(&key(number));
    entry[KEY_BYTES..].copy_from_slice(&u64::from(user_key).to_be_bytes());
    entry
}

/// What tells the value of one key from another's.
#[inline]
fn check_of(number: u32) -> u32 {
    (mix(u64::from(number) ^ 0x5555_5555_5555) >> 32) as u32
}

/// A value of eight bytes.
#[inline]
pub fn long(number: u32, version: u32) -> [u8; LONG_BYTES] {
    let mut value = [0; LONG_BYTES];
    value[..4].copy_from_slice(&check_of(number).to_le_bytes());
    value[4..].copy_from_slice(&version.to_le_bytes());
    value
}

/// A value of a hundred bytes.
#[inline]
pub fn record(number: u32, version: u32) -> [u8; RECORD_BYTES] {
    let mut value = [b'.'; RECORD_BYTES];
    value[..LONG_BYTES].copy_from_slice(&long(number, version));
    for i in 0..5u64 {
        let word = mix(u64::from(number) << 32 | u64::from(version) << 3 | i);
        value[8 + 8 * i as usize..][..8].copy_from_slice(&word.to_le_bytes());
    }
    let tail = RECORD_BYTES - 4;
    value[tail..].copy_from_slice(&(check_of(number) ^ version).to_le_bytes());
    value
}

/// The version of a value of the key with this number.
///
/// # Panics
/// If it is absent, or not a value of this key.
#[inline]
pub fn version(value: Option<&[u8]>, number: u32) -> u32 {
    let value = value.expect("the key has a value");
    let word = |at: usize| u32::from_le_bytes(value[at..at + 4].try_into().expect("four bytes"));
    let version = word(4);
    assert_eq!(word(0), check_of(number), "a value of another key");
    match value.len() {
        LONG_BYTES => {}
        RECORD_BYTES => assert_eq!(word(RECORD_BYTES - 4), check_of(number) ^ version),
        len => panic!("a value of {len} bytes"),
    }
    version
}

/// A small generator; the engines' speed depends on none of its finer points.
pub struct Random(u64);

impl Random {
    /// A generator of its own numbers for each seed.
    pub fn new(seed: u64) -> Random {
        Random(mix(seed) << 20)
    }

    /// The next number.
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    /// In `0..n`.
    #[inline]
    pub fn below(&mut self, n: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u32
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The numbers below `n` in a random order.
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut list: Vec<u32> = (0..n).collect();
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i as u32 + 1) as usize);
        }
        list
    }

    /// `count` numbers below `n`, each as likely as any other.
    pub fn uniform(&mut self, n: u32, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.below(n)).collect()
    }

    /// `count` numbers below `n`, few of them often; the hot ones are not neighbours.
    pub fn zipfian(&mut self, n: u32, count: usize) -> Vec<u32> {
        let zipf = Zipf::new(n as usize);
        let salt = self.next() as u32;
        (0..count).map(|_| scatter(zipf.draw(self) as u32, n, salt)).collect()
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
