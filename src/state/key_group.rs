//! Key groups: the units in which keyed state is divided and moved.
//!
//! A job fixes its *maximum parallelism*, the number of key groups, for good. A key's group follows
//! from the Java hash of the key; an operator instance owns a contiguous range of groups. Both are
//! bit for bit Flink's, so that state and records meet when either side is Flink.

use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::key::KeyRange;
use crate::base::limits::KEY_GROUPS_MAX;

/// Bytes of the key-group prefix of every key, whatever the maximum parallelism.
pub const PREFIX_BYTES: usize = 2;

/// The key group of a key with this Java hash: Flink's
/// `KeyGroupRangeAssignment.assignToKeyGroup`, bit for bit. Some ten instructions.
///
/// # Panics
/// If `max_parallelism` is not within `1..=KEY_GROUPS_MAX`; `check_max_parallelism` tells before.
#[inline]
pub fn assign(hash: i32, max_parallelism: u32) -> u16 {
    assert!((1..=KEY_GROUPS_MAX).contains(&max_parallelism), "max parallelism out of bounds");
    (murmur(hash) % max_parallelism) as u16
}

/// Which of `parallelism` operator instances owns `group`: Flink's
/// `computeOperatorIndexForKeyGroup`.
///
/// # Panics
/// If `parallelism` exceeds `max_parallelism`, or either is out of bounds, or the group is.
pub fn operator_index(max_parallelism: u32, parallelism: u32, group: u16) -> u32 {
    assert!(max_parallelism <= KEY_GROUPS_MAX && (1..=max_parallelism).contains(&parallelism));
    assert!(u32::from(group) < max_parallelism, "group out of bounds");
    u32::from(group) * parallelism / max_parallelism
}

/// The groups that operator instance `index` of `parallelism` owns: Flink's
/// `computeKeyGroupRangeForOperatorIndex`.
///
/// # Errors
/// `InvalidArgument` if a number is out of bounds, or there are more instances than groups.
pub fn key_group_range(
    max_parallelism: u32,
    parallelism: u32,
    index: u32,
) -> Result<KeyGroupRange> {
    check_max_parallelism(max_parallelism)?;
    if !(1..=max_parallelism).contains(&parallelism) || index >= parallelism {
        return Err(Error::invalid(format!(
            "instance {index} of {parallelism}, with {max_parallelism} key groups"
        )));
    }
    let start = (index * max_parallelism).div_ceil(parallelism);
    let end = ((index + 1) * max_parallelism - 1) / parallelism;
    KeyGroupRange::new(start as u16, end as u16)
}

/// The maximum parallelism of a job that does not name one: the power of two from one and a half
/// times the parallelism, within `128..=KEY_GROUPS_MAX`: Flink's `computeDefaultMaxParallelism`.
///
/// # Errors
/// `InvalidArgument` if `parallelism` is not within `1..=KEY_GROUPS_MAX`.
pub fn default_max_parallelism(parallelism: u32) -> Result<u32> {
    check_max_parallelism(parallelism)?;
    Ok((parallelism + parallelism / 2).next_power_of_two().clamp(128, KEY_GROUPS_MAX))
}

/// Is this a possible number of key groups?
///
/// # Errors
/// `InvalidArgument` if not.
pub fn check_max_parallelism(max_parallelism: u32) -> Result<()> {
    if (1..=KEY_GROUPS_MAX).contains(&max_parallelism) {
        return Ok(());
    }
    Err(Error::invalid(format!("parallelism {max_parallelism} is not within 1..={KEY_GROUPS_MAX}")))
}

/// MurmurHash3 of one 32-bit block, made non-negative in Flink's way.
fn murmur(hash: i32) -> u32 {
    let mut code = hash as u32;
    code = code.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    code = code.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    code ^= 4; // length of the block
    code = (code ^ code >> 16).wrapping_mul(0x85eb_ca6b);
    code = (code ^ code >> 13).wrapping_mul(0xc2b2_ae35);
    code ^= code >> 16;
    match code as i32 {
        i32::MIN => 0,
        code => code.unsigned_abs(),
    }
}

/// A contiguous, never empty range of key groups, both ends inclusive: Flink's `KeyGroupRange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyGroupRange {
    start: u16,
    end: u16,
}

impl KeyGroupRange {
    /// From `start` to `end`, both inclusive.
    ///
    /// # Errors
    /// `InvalidArgument` if `end` lies before `start`, or is no group.
    pub fn new(start: u16, end: u16) -> Result<KeyGroupRange> {
        if start > end || u32::from(end) >= KEY_GROUPS_MAX {
            return Err(Error::invalid(format!("no range of key groups: {start} to {end}")));
        }
        Ok(KeyGroupRange { start, end })
    }

    /// The first group.
    pub fn start(self) -> u16 {
        self.start
    }

    /// The last group.
    pub fn end(self) -> u16 {
        self.end
    }

    /// Number of groups, at least one.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(self) -> usize {
        usize::from(self.end - self.start) + 1
    }

    /// Is the group inside?
    #[inline]
    pub fn contains(self, group: u16) -> bool {
        (self.start..=self.end).contains(&group)
    }

    /// The groups that are in both, if there are any.
    pub fn intersect(self, other: KeyGroupRange) -> Option<KeyGroupRange> {
        KeyGroupRange::new(self.start.max(other.start), self.end.min(other.end)).ok()
    }

    /// The groups, ascending.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = u16> + ExactSizeIterator {
        self.start..self.end + 1 // `end` is below 1 << 15
    }

    /// The keys of these groups: a half-open range over the two-byte prefix.
    pub fn key_range(self) -> KeyRange {
        KeyRange::new(self.start.to_be_bytes(), Some((self.end + 1).to_be_bytes()))
    }
}

impl std::fmt::Display for KeyGroupRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}, {}]", self.start, self.end)
    }
}

/// What `hashCode` of the corresponding Java object returns, on which Flink's key groups rest.
///
/// Keys that are equal in Java must hash alike here. Unsigned integers hash as the signed one with
/// the same bits, but `u16` is Java's `Character`.
pub trait JavaHash {
    /// The 32-bit hash.
    fn java_hash(&self) -> i32;
}

macro_rules! small_integers {
    ($($type:ty),*) => {$(
        impl JavaHash for $type {
            #[inline]
            fn java_hash(&self) -> i32 {
                *self as i32
            }
        }
    )*};
}
small_integers!(i8, i16, i32, u16, u32);

/// As a Java `byte`: signed.
impl JavaHash for u8 {
    fn java_hash(&self) -> i32 {
        i32::from(*self as i8)
    }
}

impl JavaHash for i64 {
    #[inline]
    fn java_hash(&self) -> i32 {
        (*self as u64).java_hash()
    }
}

impl JavaHash for u64 {
    #[inline]
    fn java_hash(&self) -> i32 {
        (self ^ self >> 32) as i32
    }
}

impl JavaHash for bool {
    fn java_hash(&self) -> i32 {
        if *self { 1231 } else { 1237 }
    }
}

/// All NaNs are one; the zeros are two.
impl JavaHash for f32 {
    fn java_hash(&self) -> i32 {
        if self.is_nan() { 0x7fc0_0000 } else { self.to_bits() as i32 }
    }
}

/// All NaNs are one; the zeros are two.
impl JavaHash for f64 {
    fn java_hash(&self) -> i32 {
        if self.is_nan() {
            0x7ff8_0000_0000_0000u64.java_hash()
        } else {
            self.to_bits().java_hash()
        }
    }
}

/// A `Character` inside the basic plane; beyond it Java has none, and the code point is the hash.
impl JavaHash for char {
    fn java_hash(&self) -> i32 {
        *self as i32
    }
}

/// Over UTF-16 units.
impl JavaHash for str {
    fn java_hash(&self) -> i32 {
        let add = |hash: i32, unit: i32| hash.wrapping_mul(31).wrapping_add(unit);
        if self.is_ascii() {
            self.bytes().fold(0, |hash, byte| add(hash, i32::from(byte)))
        } else {
            self.encode_utf16().fold(0, |hash, unit| add(hash, i32::from(unit)))
        }
    }
}

impl JavaHash for String {
    fn java_hash(&self) -> i32 {
        self.as_str().java_hash()
    }
}

/// As `java.util.List`, and for bytes as `Arrays.hashCode`. Flink itself takes no arrays as keys.
impl<T: JavaHash> JavaHash for [T] {
    fn java_hash(&self) -> i32 {
        self.iter().fold(1i32, |hash, x| hash.wrapping_mul(31).wrapping_add(x.java_hash()))
    }
}

impl<T: JavaHash> JavaHash for Vec<T> {
    fn java_hash(&self) -> i32 {
        self.as_slice().java_hash()
    }
}

/// `None` is Java's null: zero.
impl<T: JavaHash> JavaHash for Option<T> {
    fn java_hash(&self) -> i32 {
        self.as_ref().map_or(0, JavaHash::java_hash)
    }
}

impl<T: JavaHash + ?Sized> JavaHash for &T {
    fn java_hash(&self) -> i32 {
        (**self).java_hash()
    }
}

/// Flink's `Tuple2`.
impl<A: JavaHash, B: JavaHash> JavaHash for (A, B) {
    fn java_hash(&self) -> i32 {
        self.0.java_hash().wrapping_mul(31).wrapping_add(self.1.java_hash())
    }
}

/// Flink's `Tuple3`.
impl<A: JavaHash, B: JavaHash, C: JavaHash> JavaHash for (A, B, C) {
    fn java_hash(&self) -> i32 {
        let first = self.0.java_hash().wrapping_mul(31).wrapping_add(self.1.java_hash());
        first.wrapping_mul(31).wrapping_add(self.2.java_hash())
    }
}

/// Flink's `Tuple4`.
impl<A: JavaHash, B: JavaHash, C: JavaHash, D: JavaHash> JavaHash for (A, B, C, D) {
    fn java_hash(&self) -> i32 {
        let add = |hash: i32, part: i32| hash.wrapping_mul(31).wrapping_add(part);
        let first = add(self.0.java_hash(), self.1.java_hash());
        add(add(first, self.2.java_hash()), self.3.java_hash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    /// Printed by Flink 2.3.0 itself: the key's hash, its murmur, its group of 10, 128, 256, 4096
    /// and 32768.
    #[rustfmt::skip]
    #[test]
    fn groups_are_flinks() {
        let rows: &[(i32, i32, u32, [u16; 5])] = &[
            ((0i32).java_hash(), 0, 593689054, [4, 94, 222, 2526, 31198]),
            ((1i32).java_hash(), 1, 68075478, [8, 86, 214, 4054, 16342]),
            ((2i32).java_hash(), 2, 1085422463, [3, 127, 127, 2943, 15231]),
            ((3i32).java_hash(), 3, 847579505, [5, 113, 113, 2417, 2417]),
            ((5i32).java_hash(), 5, 236698494, [4, 126, 126, 2942, 15230]),
            ((10i32).java_hash(), 10, 848998979, [9, 67, 67, 579, 12867]),
            ((42i32).java_hash(), 42, 1134849565, [5, 29, 29, 3613, 28189]),
            ((100i32).java_hash(), 100, 616682048, [8, 64, 64, 576, 21056]),
            ((127i32).java_hash(), 127, 1931274395, [5, 27, 155, 2203, 26779]),
            ((128i32).java_hash(), 128, 132521001, [1, 41, 41, 3113, 7209]),
            ((1000i32).java_hash(), 1000, 3506311, [1, 7, 135, 135, 135]),
            ((65535i32).java_hash(), 65535, 1986290322, [2, 18, 146, 658, 25234]),
            ((65536i32).java_hash(), 65536, 82754377, [7, 73, 73, 2889, 15177]),
            ((1000000i32).java_hash(), 1000000, 2127295249, [9, 17, 17, 785, 29457]),
            ((-1i32).java_hash(), -1, 1982413648, [8, 80, 80, 2896, 15184]),
            ((-2i32).java_hash(), -2, 1087594050, [0, 66, 66, 3650, 24130]),
            ((-42i32).java_hash(), -42, 189366624, [4, 96, 96, 352, 352]),
            ((-100i32).java_hash(), -100, 359108696, [6, 88, 88, 88, 4184]),
            ((-1000i32).java_hash(), -1000, 696921294, [4, 78, 206, 3278, 11470]),
            ((2147483647i32).java_hash(), 2147483647, 1653689534, [4, 62, 190, 3262, 19646]),
            ((-2147483648i32).java_hash(), -2147483648, 1718298732, [2, 108, 108, 2156, 10348]),
            ((123456789i32).java_hash(), 123456789, 1088346449, [9, 81, 81, 2385, 22865]),
            ((-123456789i32).java_hash(), -123456789, 1470798557, [7, 93, 221, 2781, 6877]),
            ("".java_hash(), 0, 593689054, [4, 94, 222, 2526, 31198]),
            ("a".java_hash(), 97, 1455541201, [1, 81, 209, 3025, 19409]),
            ("b".java_hash(), 98, 516420758, [8, 22, 150, 1174, 29846]),
            ("abc".java_hash(), 96354, 74834163, [3, 115, 243, 243, 24819]),
            ("hello".java_hash(), 99162322, 1715862179, [9, 35, 163, 2723, 31395]),
            ("flink".java_hash(), 97520992, 1330823394, [4, 98, 226, 226, 16610]),
            ("user-1".java_hash(), -836031825, 1662039673, [3, 121, 121, 1657, 13945]),
            ("user-2".java_hash(), -836031824, 2010244374, [4, 22, 22, 1302, 25878]),
            ("käse".java_hash(), 3410411, 1117012990, [0, 126, 254, 1022, 17406]),
            ("polygenelubricants".java_hash(), -2147483648, 1718298732, [2, 108, 108, 2156, 10348]),
            ("AaAa".java_hash(), 2031744, 295916583, [3, 39, 39, 1063, 21543]),
            ("BBBB".java_hash(), 2031744, 295916583, [3, 39, 39, 1063, 21543]),
            ((0i64).java_hash(), 0, 593689054, [4, 94, 222, 2526, 31198]),
            ((1i64).java_hash(), 1, 68075478, [8, 86, 214, 4054, 16342]),
            ((-1i64).java_hash(), 0, 593689054, [4, 94, 222, 2526, 31198]),
            ((42i64).java_hash(), 42, 1134849565, [5, 29, 29, 3613, 28189]),
            ((-42i64).java_hash(), 41, 667785406, [6, 62, 190, 2238, 6334]),
            ((4294967296i64).java_hash(), 1, 68075478, [8, 86, 214, 4054, 16342]),
            ((9223372036854775807i64).java_hash(), -2147483648, 1718298732, [2, 108, 108, 2156, 10348]),
            ((-9223372036854775808i64).java_hash(), -2147483648, 1718298732, [2, 108, 108, 2156, 10348]),
            ((1700000000000i64).java_hash(), -807048821, 1892790720, [0, 64, 192, 448, 12736]),
            ((1i32, "a").java_hash(), 128, 132521001, [1, 41, 41, 3113, 7209]),
            (true.java_hash(), 1231, 1090530765, [5, 77, 205, 3533, 11725]),
            ((-5i8).java_hash(), -5, 1637461840, [0, 80, 80, 3920, 12112]),
            ((300i16).java_hash(), 300, 802221488, [8, 48, 176, 3504, 28080]),
            ('x'.java_hash(), 120, 2120728247, [7, 55, 183, 3767, 16055]),
            ((1.5f64).java_hash(), 1073217536, 1684538177, [7, 65, 65, 833, 833]),
            ((1.5f32).java_hash(), 1069547520, 376679366, [6, 70, 198, 3014, 11206]),
        ];
        for &(hash, want, code, groups) in rows {
            assert_eq!((hash, murmur(hash)), (want, code));
            for (max, group) in [10, 128, 256, 4096, 32768].into_iter().zip(groups) {
                assert_eq!(assign(hash, max), group, "hash {hash} of {max}");
            }
        }
    }

    /// As (max parallelism, parallelism, the first ranges, the last one if some are left out).
    #[rustfmt::skip]
    #[allow(clippy::type_complexity)]
    #[test]
    fn ranges_are_flinks() {
        let rows: &[(u32, u32, &[(u16, u16)], Option<(u16, u16)>)] = &[
            (128, 1, &[(0, 127)], None),
            (128, 2, &[(0, 63), (64, 127)], None),
            (128, 3, &[(0, 42), (43, 85), (86, 127)], None),
            (128, 4, &[(0, 31), (32, 63), (64, 95), (96, 127)], None),
            (128, 5, &[(0, 25), (26, 51), (52, 76), (77, 102), (103, 127)], None),
            (128, 7, &[(0, 18), (19, 36), (37, 54), (55, 73), (74, 91), (92, 109), (110, 127)], None),
            (128, 10, &[(0, 12), (13, 25), (26, 38), (39, 51), (52, 63), (64, 76), (77, 89), (90, 102), (103, 115), (116, 127)], None),
            (128, 77, &[(0, 1), (2, 3), (4, 4), (5, 6), (7, 8), (9, 9), (10, 11), (12, 13), (14, 14), (15, 16), (17, 18), (19, 19)], Some((127, 127))),
            (10, 3, &[(0, 3), (4, 6), (7, 9)], None),
            (10, 4, &[(0, 2), (3, 4), (5, 7), (8, 9)], None),
            (256, 6, &[(0, 42), (43, 85), (86, 127), (128, 170), (171, 213), (214, 255)], None),
            (4096, 100, &[(0, 40), (41, 81), (82, 122), (123, 163), (164, 204), (205, 245), (246, 286), (287, 327), (328, 368), (369, 409), (410, 450), (451, 491)], Some((4056, 4095))),
            (32768, 3, &[(0, 10922), (10923, 21845), (21846, 32767)], None),
            (5, 5, &[(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)], None),
            (13, 5, &[(0, 2), (3, 5), (6, 7), (8, 10), (11, 12)], None),
        ];
        for &(max, parallelism, first, last) in rows {
            let all: Vec<_> = (0..parallelism)
                .map(|i| key_group_range(max, parallelism, i).unwrap())
                .map(|range| (range.start(), range.end()))
                .collect();
            assert_eq!(&all[..first.len()], first, "{max} / {parallelism}");
            match last {
                Some(last) => assert_eq!(all.last(), Some(&last)),
                None => assert_eq!(all.len(), first.len()),
            }
        }
    }

    #[test]
    fn murmur_of_bare_integers() {
        for (code, want) in [
            (0, 593_689_054),
            (1, 68_075_478),
            (-1, 1_982_413_648),
            (2, 1_085_422_463),
            (i32::MIN, 1_718_298_732),
            (0x1234_5678, 331_494_558),
            (0xdead_beefu32 as i32, 1_047_277_220),
        ] {
            assert_eq!(murmur(code), want);
        }
    }

    #[test]
    fn defaults_are_flinks() {
        for (parallelisms, want) in [
            (&[1, 2, 10, 85][..], 128),
            (&[86, 100, 128, 150, 170, 171], 256),
            (&[200, 341], 512),
            (&[342], 1024),
            (&[1000], 2048),
            (&[10_000], 16_384),
            (&[21_845, 21_846, 32_768], 32_768),
        ] {
            for &parallelism in parallelisms {
                assert_eq!(default_max_parallelism(parallelism).unwrap(), want, "{parallelism}");
            }
        }
        assert!(default_max_parallelism(0).is_err() && default_max_parallelism(32_769).is_err());
    }

    #[test]
    fn refuses_what_is_out_of_bounds() {
        use crate::base::error::ErrorKind::InvalidArgument;
        for (max, parallelism, index) in
            [(0, 1, 0), (32_769, 1, 0), (5, 6, 0), (5, 0, 0), (5, 5, 5), (5, 2, u32::MAX)]
        {
            let error = key_group_range(max, parallelism, index).unwrap_err();
            assert_eq!(error.kind(), InvalidArgument, "{max} {parallelism} {index}");
        }
        assert_eq!(KeyGroupRange::new(3, 2).unwrap_err().kind(), InvalidArgument);
        assert_eq!(KeyGroupRange::new(0, 32_768).unwrap_err().kind(), InvalidArgument);
        assert_eq!(KeyGroupRange::new(3, 3).unwrap().to_string(), "[3, 3]");
    }

    #[test]
    fn one_nan_two_zeros() {
        assert_eq!(f64::NAN.java_hash(), (-f64::NAN).java_hash());
        assert_eq!(f32::NAN.java_hash(), f32::from_bits(0x7fc0_0001).java_hash());
        assert_ne!(0.0f64.java_hash(), (-0.0f64).java_hash());
    }

    #[test]
    fn composite_hashes() {
        assert_eq!([1u8, 0xff].java_hash(), (31 + 1) * 31 - 1, "Arrays.hashCode of bytes");
        assert_eq!((1, "a", None::<i32>).java_hash(), 128 * 31);
        assert_eq!((1, "a", None::<i32>, 5).java_hash(), 128 * 31 * 31 + 5);
        assert_eq!("\u{1f600}".java_hash(), 0xd83d * 31 + 0xde00, "two UTF-16 units");
        assert_eq!(0x78u16.java_hash(), 'x'.java_hash());
        assert_eq!(u64::MAX.java_hash(), (-1i64).java_hash());
    }

    fn pair(max: u32, parallelism: u32) -> (u32, u32) {
        let max = max % KEY_GROUPS_MAX + 1;
        (max, parallelism % max + 1)
    }

    quickcheck! {
        fn owner_and_range_agree(max: u32, parallelism: u32, group: u16) -> bool {
            let (max, parallelism) = pair(max, parallelism);
            let group = (u32::from(group) % max) as u16;
            let index = operator_index(max, parallelism, group);
            key_group_range(max, parallelism, index).unwrap().contains(group)
        }

        fn ranges_divide_the_groups(max: u32, parallelism: u32) -> bool {
            let (max, parallelism) = pair(max % 500, parallelism);
            let ranges = (0..parallelism).map(|i| key_group_range(max, parallelism, i).unwrap());
            ranges.flat_map(KeyGroupRange::iter).map(u32::from).eq(0..max)
        }

        fn key_range_is_the_prefix(a: u16, b: u16, key: Vec<u8>) -> bool {
            let (a, b) = (a % 0x8000, b % 0x8000);
            let range = KeyGroupRange::new(a.min(b), a.max(b)).unwrap();
            let inside = |g: u16| range.key_range().contains(&[&g.to_be_bytes(), &key[..]].concat());
            let mut near = [0, a, b, a.saturating_sub(1), b.saturating_sub(1), a + 1, b + 1];
            near.iter_mut().for_each(|g| *g = (*g).min(0x7fff));
            near.iter().all(|&g| inside(g) == range.contains(g))
        }

        fn intersection_group_by_group(a: (u16, u16), b: (u16, u16)) -> bool {
            let range = |(x, y): (u16, u16)| {
                let (x, y) = (x % 40, y % 40);
                KeyGroupRange::new(x.min(y), x.max(y)).unwrap()
            };
            let (a, b) = (range(a), range(b));
            let both: Vec<u16> = a.iter().filter(|&g| b.contains(g)).collect();
            match a.intersect(b) {
                Some(i) => i.iter().eq(both.iter().copied()) && i.len() == both.len(),
                None => both.is_empty(),
            }
        }
    }
}
