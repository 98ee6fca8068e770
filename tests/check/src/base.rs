//! As `src/base/mod.rs`, but for `sync`.

#[path = "../../../src/base/biased_mutex.rs"]
pub mod biased_mutex;
#[path = "../../../src/base/bytes.rs"]
pub mod bytes;
#[path = "../../../src/base/canary.rs"]
pub mod canary;
#[path = "../../../src/base/checksum.rs"]
pub mod checksum;
#[path = "../../../src/base/coding.rs"]
pub mod coding;
#[path = "../../../src/base/error.rs"]
pub mod error;
#[path = "../../../src/base/format.rs"]
pub mod format;
#[path = "../../../src/base/id.rs"]
pub mod id;
#[path = "../../../src/base/key.rs"]
pub mod key;
#[path = "../../../src/base/limits.rs"]
pub mod limits;
#[path = "../../../src/base/rng.rs"]
pub mod rng;
#[path = "sync/mod.rs"]
pub mod sync;
