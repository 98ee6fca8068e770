//! Of the database, the structures that threads share.

#[path = "../../../src/db/snapshot.rs"]
mod snapshot;
#[path = "../../../src/db/super_version.rs"]
mod super_version;
#[path = "../../../src/db/write_queue.rs"]
mod write_queue;

#[path = "kernels/db.rs"]
pub mod kernels;
