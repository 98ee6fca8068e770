//! The system's allocator, and how much of it is asked for: what hostile bytes must not decide.
#![allow(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Most bytes of one allocation.
pub const SINGLE_BYTES_MAX: usize = 64 << 20;
/// Most bytes at once, of the whole process.
pub const TOTAL_BYTES_MAX: usize = 256 << 20;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn more(bytes: usize) {
    if bytes > LARGEST.load(Relaxed) {
        LARGEST.fetch_max(bytes, Relaxed);
    }
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    if live > MOST.load(Relaxed) {
        MOST.fetch_max(live, Relaxed);
    }
}

fn less(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
}

// SAFETY: every call is handed to the system's allocator as it is; counting does not allocate.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        less(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        more(size);
        less(layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The largest allocation so far, in bytes.
pub fn largest() -> usize {
    LARGEST.load(Relaxed)
}

/// The most bytes that were allocated at once so far, all threads together.
pub fn most() -> usize {
    MOST.load(Relaxed)
}

/// Forgets what was asked for so far, so that what comes next is seen.
pub fn forget() {
    LARGEST.store(0, Relaxed);
    MOST.store(LIVE.load(Relaxed), Relaxed);
}

/// Complains if a limit was exceeded since it was last asked.
pub fn check() -> Result<(), String> {
    let (largest, most) = (largest(), most());
    if largest <= SINGLE_BYTES_MAX && most <= TOTAL_BYTES_MAX {
        return Ok(());
    }
    forget();
    Err(format!("{largest} bytes were allocated at once, {most} in all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_noticed() {
        let _alone = crate::ALONE.lock();
        forget();
        check().unwrap();
        drop(std::hint::black_box(vec![0u8; SINGLE_BYTES_MAX + 1]));
        assert!(check().is_err());
        let many: Vec<Vec<u8>> = (0..5).map(|_| vec![1u8; 60 << 20]).collect();
        assert!(check().is_err());
        drop(std::hint::black_box(many));
        forget();
        check().unwrap();
    }
}
