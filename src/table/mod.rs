//! Sorted, immutable files: built once, read for ever after (format F3).
//!
//! The question this folder answers: *how does a sorted run of versions lie in a file, so that one key
//! costs at most one block, and no wrong byte passes unnoticed?* `format` has the picture of the file.
//! A table knows neither levels nor other tables; its bytes are input and may be hostile.

pub mod block;
pub mod block_builder;
pub mod block_cursor;
pub mod block_key;
pub mod builder;
pub mod compression;
pub mod filter;
pub mod format;
pub mod index;
pub mod iter;
pub mod lookup;
pub mod lz4;
pub mod properties;
pub mod reader;
pub mod salvage;
pub mod scratch;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::base::id::FileId;
use crate::base::key::KeyRange;
use crate::base::limits::VALUE_BYTES_MAX;
use crate::base::sync::Arc;

pub use crate::table::block::Block;
pub use crate::table::builder::TableBuilder;
pub use crate::table::compression::Codec;
pub use crate::table::iter::TableIterator;
pub use crate::table::properties::KeyGroupCount;
pub use crate::table::properties::Properties;
pub use crate::table::reader::Table;

/// Tells the timestamp of an entry, so that expired files and blocks can be recognised unread.
pub trait TimestampExtractor: Send + Sync {
    /// Stored in the table's properties: another name means other timestamps.
    fn name(&self) -> &str;
    /// The timestamp of a put or a merge operand; `None` if it has none, and then neither have its
    /// block and its table.
    fn timestamp(&self, key: &[u8], value: &[u8]) -> Option<i64>;
}

/// How a table is written. Reading needs none of it.
#[derive(Clone)]
pub struct TableOptions {
    /// A block ends before the entry that would take it beyond this many raw bytes. Default 2 KiB.
    pub block_bytes: usize,
    /// Every so many entries a key is stored whole, for binary search. Default 16; 0 counts as 1.
    pub restart_interval: usize,
    /// How blocks are compressed; one that does not shrink by an eighth is stored as it is.
    pub codec: Codec,
    /// Effort of [`Codec::Zstd`].
    pub zstd_level: i32,
    /// Filter bits for each user key: 10 let about one absent key in a hundred pass. 0: no filter.
    pub filter_bits_per_key: u32,
    /// 2 (default) or 1: entries are counted and hashed per group, the big-endian number in the first
    /// so many bytes of their key; shorter keys have none. 0: they are not.
    pub key_group_bytes: u8,
    /// Where timestamps come from, if entries have any.
    pub timestamp: Option<Arc<dyn TimestampExtractor>>,
    /// Longest value that [`TableBuilder::add`] accepts without complaint.
    pub value_bytes_max: usize,
}

impl Default for TableOptions {
    fn default() -> TableOptions {
        TableOptions {
            block_bytes: 2 << 10,
            restart_interval: 16,
            codec: Codec::None,
            zstd_level: 1,
            filter_bits_per_key: 10,
            key_group_bytes: 2,
            timestamp: None,
            value_bytes_max: VALUE_BYTES_MAX,
        }
    }
}

impl fmt::Debug for TableOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableOptions")
            .field("block_bytes", &self.block_bytes)
            .field("restart_interval", &self.restart_interval)
            .field("codec", &self.codec)
            .field("zstd_level", &self.zstd_level)
            .field("filter_bits_per_key", &self.filter_bits_per_key)
            .field("key_group_bytes", &self.key_group_bytes)
            .field("timestamp", &self.timestamp.as_ref().map(|t| t.name().to_owned()))
            .field("value_bytes_max", &self.value_bytes_max)
            .finish()
    }
}

/// What is known of a table once it is written: everything its owner keeps in order to find it again
/// and to know that it is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMeta {
    /// Identity; also in the file itself.
    pub id: FileId,
    /// Length of the file in bytes.
    pub len: u64,
    /// BLAKE3 of all bytes of the file.
    pub digest: [u8; 32],
    /// XXH3-128 of all bytes of the file.
    pub checksum: u128,
    /// The same as in the file.
    pub properties: Properties,
    /// All user keys of entries and all ranges of range tombstones, half-open. An empty table has the
    /// empty range.
    pub bounds: KeyRange,
}
