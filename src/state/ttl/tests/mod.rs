//! State that expires: what its users see, and how much of it stays on disk.

use super::*;
use crate::BackendOptions;
use crate::JavaHash;
use crate::base::sync::Mutex;

mod disk;
mod model;

const GROUPS: u32 = 128;

fn small(options: &mut BackendOptions) {
    options.family.memtable_bytes_max = 4 << 10;
    options.family.block_bytes = 128;
    options.family.l0_depth_trigger = 2;
    options.family.level_bytes_base = 4 << 10;
    options.family.file_bytes = 1 << 10;
}

fn clock(now: &Arc<Mutex<i64>>) -> Clock {
    let now = Arc::clone(now);
    Clock::new(move || *now.lock())
}
