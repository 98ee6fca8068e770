//! Builds entry blocks.

use crate::base::coding::{put_u32, put_varint};
use crate::base::key::{InternalKey, SeqNo};

/// Builds one entry block after the other. The caller adds entries in order.
pub struct BlockBuilder {
    restart_interval: usize,
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    since_restart: usize,
    last_key: Vec<u8>,
}

impl BlockBuilder {
    /// A builder that stores every `restart_interval`-th key whole.
    pub fn new(restart_interval: usize) -> BlockBuilder {
        BlockBuilder {
            restart_interval: restart_interval.max(1),
            bytes: Vec::new(),
            restarts: Vec::new(),
            since_restart: 0,
            last_key: Vec::new(),
        }
    }

    /// Appends an entry.
    pub fn add(&mut self, key: InternalKey<'_>, value: &[u8]) {
        let user_key = key.user_key;
        let restart = self.restarts.is_empty() || self.since_restart == self.restart_interval;
        let shared = if restart {
            let offset = u32::try_from(self.bytes.len()).expect("a block has less than 4 GiB");
            self.restarts.push(offset);
            self.since_restart = 0;
            0
        } else {
            shared_prefix(&self.last_key, user_key)
        };
        self.since_restart += 1;
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, (user_key.len() - shared) as u64);
        put_varint(&mut self.bytes, value.len() as u64);
        let seqno_len = seqno_bytes(key.seqno);
        self.bytes.push((seqno_len as u8) << 4 | key.kind as u8);
        self.bytes.extend_from_slice(&user_key[shared..]);
        self.bytes.extend_from_slice(&key.seqno.to_le_bytes()[..seqno_len]);
        self.bytes.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&user_key[shared..]);
    }

    /// Bytes of the block if it were finished now.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + 4 * self.restarts.len() + 4
    }

    /// At most the bytes of the block if this entry were added and it were finished then.
    pub fn bytes_with(&self, key: InternalKey<'_>, value: &[u8]) -> usize {
        self.bytes() + 3 * 5 + 1 + key.user_key.len() + seqno_bytes(key.seqno) + value.len() + 4
    }

    /// Is there no entry yet?
    pub fn is_empty(&self) -> bool {
        self.restarts.is_empty()
    }

    /// The finished block, without a trailer. [`clear`](BlockBuilder::clear) must follow.
    pub fn finish(&mut self) -> &[u8] {
        for &restart in &self.restarts {
            put_u32(&mut self.bytes, restart);
        }
        put_u32(&mut self.bytes, self.restarts.len() as u32);
        &self.bytes
    }

    /// Begins the next block.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.restarts.clear();
        self.since_restart = 0;
        self.last_key.clear();
    }
}

/// How many bytes a sequence number needs: none to seven. Eight of them in each entry would be the larger
/// part of what does not pack, and the zeros among them a match each.
#[inline]
pub fn seqno_bytes(seqno: SeqNo) -> usize {
    (SeqNo::BITS - seqno.leading_zeros()).div_ceil(8) as usize
}

/// How many bytes two keys have in common at their front.
#[inline]
pub fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    let mut shared = 0;
    while let (Some(x), Some(y)) = (a[shared..].first_chunk(), b[shared..].first_chunk()) {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return shared + (differ.trailing_zeros() / 8) as usize;
        }
        shared += 8;
    }
    if let (Some(x), Some(y)) = (a[shared..].first_chunk(), b[shared..].first_chunk()) {
        let differ = u32::from_le_bytes(*x) ^ u32::from_le_bytes(*y);
        if differ != 0 {
            return shared + (differ.trailing_zeros() / 8) as usize;
        }
        shared += 4;
    }
    while shared < len && a[shared] == b[shared] {
        shared += 1;
    }
    shared
}
