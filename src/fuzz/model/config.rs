//! Options of every kind, drawn from the bits of a number.

use crate::base::limits::LEVELS;
use crate::base::sync::Arc;
use crate::db::options::{ColumnFamilyOptions, Options};
use crate::fuzz::model::plain::{Comma, Length};
use crate::table::Codec;

/// How a database is set up: every choice that its users have, and some that only tests have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The database; its log may be switched at a clean close.
    pub options: Options,
    /// The families: their options are drawn from this, and anew at each opening.
    pub families: u64,
    /// Bytes of memory: block cache and memtables.
    pub memory: usize,
    /// Whether checkpoints are on the database's own file system, so that restores link them.
    pub linked: bool,
}

/// Draws choices from bits.
struct Bits(u64);

impl Bits {
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let n = choices.len() as u64;
        let chosen = choices[(self.0 % n) as usize];
        self.0 /= n;
        chosen
    }
}

impl Config {
    /// The configuration that these bits stand for. All zeros: a log, and small everything.
    pub fn draw(bits: u64) -> Config {
        let mut bits = Bits(bits);
        let log = bits.pick(&[true, true, false, true]);
        let options = Options {
            log,
            sync: log && bits.pick(&[false, false, false, false, true]),
            log_segment_bytes: bits.pick(&[512, 4 << 10, 1 << 20]),
            log_segments_max: bits.pick(&[1, 3, 8]),
            immutables_max: bits.pick(&[1, 2, 4]),
            l0_stop_depth: bits.pick(&[4, 8, 36]),
            memtables_bytes_min: bits.pick(&[1 << 20, 16 << 10]),
            ..Options::default()
        };
        let memory = bits.pick(&[1 << 20, 64 << 20, 48 << 10]);
        Config { options, memory, linked: bits.pick(&[true, false]), families: bits.0 }
    }

    /// The options of the family at `place`, at the `opening`-th opening.
    pub fn family(&self, place: usize, opening: u64) -> ColumnFamilyOptions {
        // SplitMix64's finish: neighbours have nothing in common.
        let mut mixed = self.families ^ (place as u64) << 56 ^ opening << 40;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        family(mixed ^ mixed >> 31)
    }
}

/// The family options that these bits stand for: every setting that changes what is on disk.
fn family(bits: u64) -> ColumnFamilyOptions {
    let mut bits = Bits(bits);
    let all = [Codec::None, Codec::Zstd, Codec::Lz4];
    let built: Vec<Codec> = all.into_iter().filter(|codec| codec.is_compiled_in()).collect();
    let mut codecs = [Codec::None; LEVELS];
    codecs.fill_with(|| bits.pick(&built));
    ColumnFamilyOptions {
        codecs,
        memtable_bytes_max: bits.pick(&[4 << 10, 8 << 10, 16 << 10, 1 << 20]),
        block_bytes: bits.pick(&[64, 256, 1024]),
        restart_interval: bits.pick(&[1, 3, 16]),
        filter_bits_per_key: bits.pick(&[0, 1, 10]),
        key_group_bytes: bits.pick(&[0, 2]),
        l0_depth_trigger: bits.pick(&[1, 2, 4]),
        level_bytes_base: bits.pick(&[512, 4 << 10, 1 << 20]),
        level_multiplier: bits.pick(&[2, 10]),
        file_bytes: bits.pick(&[512, 1024, 1 << 20]),
        timestamp: bits.pick(&[false, true]).then(|| Arc::new(Length) as _),
        merge_operator: Some(Arc::new(Comma { concatenates: bits.pick(&[true, true, false]) })),
        l0_scan_bytes: bits.pick(&[64, 1 << 10, 0]),
        ..ColumnFamilyOptions::default()
    }
}
