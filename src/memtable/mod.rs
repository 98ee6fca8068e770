//! Signatures; the structure follows.
#![allow(missing_docs, unused_variables)]

use crate::base::error::Result;
use crate::base::key::{InternalKey, SeqNo, ValueKind};
use crate::base::sync::Arc;
use crate::cache::budget::Reservation;
use crate::iter::InternalIterator;
use crate::iter::range_del::RangeTombstones;

pub struct MemTableOptions {
    /// Bytes used from which the table counts as full.
    pub bytes_max: usize,
    /// Distinct keys to expect, such as [`MemTable::keys`] of the table before; 0 if unknown.
    pub entries_hint: usize,
}

pub struct MemTable(());
pub struct MemTableWriter(());
pub struct MemTableIterator(());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    pub seqno: SeqNo,
    pub kind: ValueKind,
    pub value: &'a [u8],
}

pub struct Versions<'a>(&'a ());

impl<'a> Iterator for Versions<'a> {
    type Item = Found<'a>;
    fn next(&mut self) -> Option<Found<'a>> {
        todo!()
    }
}

impl MemTable {
    pub fn new(options: MemTableOptions, space: Reservation) -> (MemTableWriter, Arc<MemTable>) {
        todo!()
    }
    pub fn get(&self, key: &[u8], at: SeqNo) -> Option<Found<'_>> {
        todo!()
    }
    pub fn versions(&self, key: &[u8], at: SeqNo) -> Versions<'_> {
        todo!()
    }
    pub fn newest(&self, key: &[u8]) -> Option<(SeqNo, ValueKind)> {
        todo!()
    }
    pub fn cursor(self: &Arc<Self>) -> MemTableIterator {
        todo!()
    }
    pub fn has_range_tombstones(&self) -> bool {
        todo!()
    }
    pub fn range_tombstones(&self) -> Arc<RangeTombstones> {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// Versions of point keys and range tombstones.
    pub fn entries(&self) -> usize {
        todo!()
    }
    /// Distinct point keys.
    pub fn keys(&self) -> usize {
        todo!()
    }
    /// Bytes charged to the budget.
    pub fn bytes(&self) -> usize {
        todo!()
    }
    pub fn seqno_min(&self) -> Option<SeqNo> {
        todo!()
    }
    pub fn seqno_max(&self) -> Option<SeqNo> {
        todo!()
    }
}

impl MemTableWriter {
    pub fn insert(&mut self, key: InternalKey<'_>, value: &[u8]) {
        todo!()
    }
    pub fn newest(&self, key: &[u8]) -> Option<(SeqNo, ValueKind)> {
        todo!()
    }
    pub fn table(&self) -> &Arc<MemTable> {
        todo!()
    }
    pub fn is_full(&self) -> bool {
        todo!()
    }
    pub fn freeze(self) -> Arc<MemTable> {
        todo!()
    }
}

impl InternalIterator for MemTableIterator {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        todo!()
    }
    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        todo!()
    }
    fn first(&mut self) -> Result<()> {
        todo!()
    }
    fn last(&mut self) -> Result<()> {
        todo!()
    }
    fn next(&mut self) -> Result<()> {
        todo!()
    }
    fn prev(&mut self) -> Result<()> {
        todo!()
    }
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        todo!()
    }
}
