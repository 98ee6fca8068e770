//! F4.1: a change of the set of live files, as the manifest and checkpoints store it.
//!
//! ```text
//! edit    (tag·2 + must-understand) length payload …      tags ascending, lists repeat theirs
//! family  its id, what it gains and loses: level ‖ number, level ‖ file meta (F4.2)
//! ```

use std::collections::BTreeMap;

use crate::base::coding::{Decoder, put_field, put_number, put_varint};
use crate::base::error::Result;
use crate::base::format::{Layout, field};
use crate::base::id::{FamilyId, FileNumber};
use crate::base::key::SeqNo;
use crate::base::limits::{LEVELS, NAME_BYTES_MAX};
use crate::base::sync::Arc;
use crate::log::LogPosition;
use crate::version::meta::{
    Fields, FileMeta, read_file_number, read_log_start, read_seqno, unknown,
};

/// A column family as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyRecord {
    /// Its number. Never given to another family of this database.
    pub id: FamilyId,
    /// Its name, 1 to 255 bytes.
    pub name: String,
    /// Name of the merge operator its operands need.
    pub merge_operator: Option<String>,
    /// Name of the compaction filter it was last opened with.
    pub compaction_filter: Option<String>,
    /// Options that the layers above keep with it; opaque here.
    pub options: Vec<u8>,
    /// The tables hold every operation at or below this, and none above. Replay skips those at or
    /// below it.
    pub flushed_seqno: SeqNo,
}

/// What changes in one family.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FamilyEdit {
    /// Files that leave a level. A file that moves leaves one level and is added to another.
    pub removed: Vec<(u8, FileNumber)>,
    /// Files that join a level.
    pub added: Vec<(u8, Arc<FileMeta>)>,
    /// The new flushed sequence number; it only grows.
    pub flushed_seqno: Option<SeqNo>,
    /// New options of the layers above.
    pub options: Option<Vec<u8>>,
    /// A new merge operator's name, where there was none.
    pub merge_operator: Option<String>,
    /// A new compaction filter's name.
    pub compaction_filter: Option<String>,
}

/// The database was closed in order: everything is in tables, nothing is needed from a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanMarker {
    /// The epoch that was closed.
    pub epoch: u32,
    /// The last sequence number given out.
    pub last_seqno: SeqNo,
    /// The last checkpoint that the state equals or follows; 0: none.
    pub checkpoint_id: u64,
}

/// One change, applied as a whole or not at all. Every field is optional.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct VersionEdit {
    /// The first record of a manifest: the whole state, not a change.
    pub snapshot: bool,
    /// The snapshot goes on in the next record.
    pub more: bool,
    /// The epoch, in a snapshot.
    pub epoch: Option<u32>,
    /// The random number in the identities of files written in this epoch.
    pub instance: Option<u64>,
    /// No sequence number up to this is given out again.
    pub last_seqno: Option<SeqNo>,
    /// No family gets a number below this again.
    pub next_family: Option<u32>,
    /// Is the log on?
    pub wal_mode: Option<bool>,
    /// The oldest log segment still needed; it only grows. With counter 0: the log begins anew in
    /// that epoch, and its first segment is not recorded yet.
    pub log_start: Option<FileNumber>,
    /// Closed in order. Any later edit takes it back.
    pub clean: Option<CleanMarker>,
    /// The log was synced up to here before what this edit adds was recorded.
    pub log_durable: Option<LogPosition>,
    /// Options of the database that the layers above keep; opaque here.
    pub options: Option<Vec<u8>>,
    /// New families, ids ascending.
    pub created: Vec<FamilyRecord>,
    /// Families that are gone with all their files.
    pub dropped: Vec<FamilyId>,
    /// Changes within families, new ones included.
    pub families: BTreeMap<FamilyId, FamilyEdit>,
}

mod tag {
    pub const SNAPSHOT: u32 = 1;
    pub const MORE: u32 = 2;
    pub const EPOCH: u32 = 3;
    pub const INSTANCE: u32 = 4;
    pub const LAST_SEQNO: u32 = 5;
    pub const NEXT_FAMILY: u32 = 6;
    pub const WAL_MODE: u32 = 7;
    pub const LOG_START: u32 = 8;
    pub const CLEAN: u32 = 9;
    pub const OPTIONS: u32 = 10;
    pub const CREATED: u32 = 11;
    pub const DROPPED: u32 = 12;
    pub const FAMILY: u32 = 13;
    pub const LOG_DURABLE: u32 = 14;
    pub const LISTS: &[u32] = &[CREATED, DROPPED, FAMILY];

    pub mod record {
        pub const ID: u32 = 1;
        pub const NAME: u32 = 2;
        pub const MERGE: u32 = 3;
        pub const FILTER: u32 = 4;
        pub const OPTIONS: u32 = 5;
        pub const FLUSHED: u32 = 6;
    }

    pub mod family {
        pub const ID: u32 = 1;
        pub const FLUSHED: u32 = 2;
        pub const OPTIONS: u32 = 3;
        pub const MERGE: u32 = 4;
        pub const FILTER: u32 = 5;
        pub const REMOVED: u32 = 6;
        pub const ADDED: u32 = 7;
        pub const LISTS: &[u32] = &[REMOVED, ADDED];
    }

    pub mod clean {
        pub const EPOCH: u32 = 1;
        pub const LAST_SEQNO: u32 = 2;
        pub const CHECKPOINT: u32 = 3;
    }
}

/// F4.1 as tables.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        id: "F4.1",
        title: "Version edit: fields (tag·2 + must-understand, length, payload), tags ascending",
        fields: &[
            field("tag 1!", "0", "snapshot", "the whole state: first record of a manifest"),
            field("tag 2!", "0", "more", "the snapshot goes on in the next record"),
            field("tag 3!", "v", "epoch", "epoch, 1 or greater"),
            field("tag 4!", "8", "instance", "random number in the file identities of this epoch"),
            field("tag 5!", "v", "last_seqno", "no sequence number up to this is reused"),
            field("tag 6!", "v", "next_family", "no family number below this is reused"),
            field("tag 7!", "1", "wal_mode", "1: log on; 0: log off"),
            field("tag 8!", "v", "log_start", "oldest log segment needed; counter 0: none yet"),
            field("tag 9!", "n", "clean", "closed in order: F4.1.3; void after any later edit"),
            field("tag 10!", "n", "options", "options of the database: empty today"),
            field("tag 11!", "n", "created", "list: a new family, F4.1.1"),
            field("tag 12!", "v", "dropped", "list: id of a family that is gone"),
            field("tag 13!", "n", "family", "list: change of one family, F4.1.2; ids ascending"),
            field(
                "tag 14!",
                "v v",
                "log_durable",
                "segment, offset: the log is durable up to here",
            ),
        ],
    },
    Layout {
        id: "F4.1.1",
        title: "Family record: fields",
        fields: &[
            field("tag 1!", "v", "id", "family number"),
            field("tag 2!", "n", "name", "UTF-8, 1 to 255 bytes"),
            field("tag 3!", "n", "merge_operator", "name of the merge operator; absent: none"),
            field("tag 4", "n", "compaction_filter", "name of the compaction filter; absent: none"),
            field("tag 5!", "n", "options", "options of the family, F4.5; absent: empty"),
            field("tag 6!", "v", "flushed_seqno", "tables hold what is at or below, nothing above"),
        ],
    },
    Layout {
        id: "F4.1.2",
        title: "Family edit: fields",
        fields: &[
            field("tag 1!", "v", "id", "family number"),
            field("tag 2!", "v", "flushed_seqno", "new flushed sequence number"),
            field("tag 3!", "n", "options", "new options, F4.5"),
            field("tag 4!", "n", "merge_operator", "name of the merge operator"),
            field("tag 5", "n", "compaction_filter", "name of the compaction filter"),
            field("tag 6!", "n", "removed", "list: level (1 byte), file number (v)"),
            field("tag 7!", "n", "added", "list: level (1 byte), file meta (F4.2)"),
        ],
    },
    Layout {
        id: "F4.1.3",
        title: "Clean marker: fields",
        fields: &[
            field("tag 1!", "v", "epoch", "the epoch that was closed"),
            field("tag 2!", "v", "last_seqno", "last sequence number given out"),
            field("tag 3!", "v", "checkpoint_id", "last checkpoint; 0: none"),
        ],
    },
];

impl VersionEdit {
    /// The change of one family, made if it is not there.
    pub fn family(&mut self, id: FamilyId) -> &mut FamilyEdit {
        self.families.entry(id).or_default()
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.snapshot {
            put_field(&mut out, tag::SNAPSHOT, true, &[]);
        }
        if self.more {
            put_field(&mut out, tag::MORE, true, &[]);
        }
        if let Some(epoch) = self.epoch {
            put_number(&mut out, tag::EPOCH, true, u64::from(epoch));
        }
        if let Some(instance) = self.instance {
            put_field(&mut out, tag::INSTANCE, true, &instance.to_le_bytes());
        }
        if let Some(seqno) = self.last_seqno {
            put_number(&mut out, tag::LAST_SEQNO, true, seqno);
        }
        if let Some(id) = self.next_family {
            put_number(&mut out, tag::NEXT_FAMILY, true, u64::from(id));
        }
        if let Some(on) = self.wal_mode {
            put_field(&mut out, tag::WAL_MODE, true, &[u8::from(on)]);
        }
        if let Some(number) = self.log_start {
            put_number(&mut out, tag::LOG_START, true, number.0);
        }
        if let Some(clean) = &self.clean {
            put_field(&mut out, tag::CLEAN, true, &clean.encode());
        }
        if let Some(options) = &self.options {
            put_field(&mut out, tag::OPTIONS, true, options);
        }
        for record in &self.created {
            put_field(&mut out, tag::CREATED, true, &record.encode());
        }
        for id in &self.dropped {
            put_number(&mut out, tag::DROPPED, true, u64::from(id.0));
        }
        for (&id, edit) in &self.families {
            put_field(&mut out, tag::FAMILY, true, &edit.encode(id));
        }
        if let Some(LogPosition { segment, offset }) = self.log_durable {
            let mut payload = Vec::new();
            put_varint(&mut payload, segment.0);
            put_varint(&mut payload, offset);
            put_field(&mut out, tag::LOG_DURABLE, true, &payload);
        }
        out
    }

    /// Reads the stored form: all that is left in `d`.
    ///
    /// # Errors
    /// `Corruption` if it is none or a number or a name is out of range; `Unsupported` if a field must
    /// be understood and is not.
    pub fn decode(d: Decoder<'_>) -> Result<VersionEdit> {
        let mut edit = VersionEdit::default();
        let mut fields = Fields::new(d, tag::LOG_DURABLE, tag::LISTS);
        while let Some((tag, must, mut d)) = fields.next()? {
            match tag {
                tag::SNAPSHOT => edit.snapshot = true,
                tag::MORE => edit.more = true,
                tag::EPOCH => edit.epoch = Some(read_epoch(&mut d)?),
                tag::INSTANCE => edit.instance = Some(d.u64()?),
                tag::LAST_SEQNO => edit.last_seqno = Some(read_seqno(&mut d)?),
                tag::NEXT_FAMILY => edit.next_family = Some(d.varint32()?),
                tag::WAL_MODE => edit.wal_mode = Some(read_bool(&mut d)?),
                tag::LOG_START => edit.log_start = Some(read_log_start(&mut d)?),
                tag::CLEAN => edit.clean = Some(CleanMarker::decode(take(&mut d)?)?),
                tag::OPTIONS => edit.options = Some(read_rest(&mut d)?),
                tag::CREATED => edit.created.push(FamilyRecord::decode(take(&mut d)?)?),
                tag::DROPPED => edit.dropped.push(FamilyId(d.varint32()?)),
                tag::FAMILY => {
                    let before = d.clone();
                    let (id, family) = FamilyEdit::decode(take(&mut d)?)?;
                    if edit.families.last_key_value().is_some_and(|(&last, _)| last >= id) {
                        return Err(before.error("families out of order"));
                    }
                    edit.families.insert(id, family);
                }
                tag::LOG_DURABLE => {
                    let segment = read_file_number(&mut d)?;
                    edit.log_durable = Some(LogPosition::new(segment, d.varint()?));
                }
                _ => {
                    unknown(tag, must, &d, "version edit")?;
                    continue;
                }
            }
            d.finish()?;
        }
        Ok(edit)
    }
}

impl FamilyRecord {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, tag::record::ID, true, u64::from(self.id.0));
        put_field(&mut out, tag::record::NAME, true, self.name.as_bytes());
        if let Some(name) = &self.merge_operator {
            put_field(&mut out, tag::record::MERGE, true, name.as_bytes());
        }
        if let Some(name) = &self.compaction_filter {
            put_field(&mut out, tag::record::FILTER, false, name.as_bytes());
        }
        if !self.options.is_empty() {
            put_field(&mut out, tag::record::OPTIONS, true, &self.options);
        }
        put_number(&mut out, tag::record::FLUSHED, true, self.flushed_seqno);
        out
    }

    fn decode(d: Decoder<'_>) -> Result<FamilyRecord> {
        let start = d.clone();
        let (mut id, mut name, mut flushed) = (None, None, None);
        let (mut merge_operator, mut compaction_filter, mut options) = (None, None, Vec::new());
        let mut fields = Fields::new(d, tag::record::FLUSHED, &[]);
        while let Some((tag, must, mut d)) = fields.next()? {
            match tag {
                tag::record::ID => id = Some(FamilyId(d.varint32()?)),
                tag::record::NAME => name = Some(read_name(&mut d)?),
                tag::record::MERGE => merge_operator = Some(read_name(&mut d)?),
                tag::record::FILTER => compaction_filter = Some(read_name(&mut d)?),
                tag::record::OPTIONS => options = read_rest(&mut d)?,
                tag::record::FLUSHED => flushed = Some(read_seqno(&mut d)?),
                _ => {
                    unknown(tag, must, &d, "family record")?;
                    continue;
                }
            }
            d.finish()?;
        }
        match (id, name, flushed) {
            (Some(id), Some(name), Some(flushed_seqno)) => Ok(FamilyRecord {
                id,
                name,
                merge_operator,
                compaction_filter,
                options,
                flushed_seqno,
            }),
            _ => Err(start.error("family record lacks id, name or flushed sequence number")),
        }
    }
}

impl FamilyEdit {
    fn encode(&self, id: FamilyId) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, tag::family::ID, true, u64::from(id.0));
        if let Some(seqno) = self.flushed_seqno {
            put_number(&mut out, tag::family::FLUSHED, true, seqno);
        }
        if let Some(options) = &self.options {
            put_field(&mut out, tag::family::OPTIONS, true, options);
        }
        if let Some(name) = &self.merge_operator {
            put_field(&mut out, tag::family::MERGE, true, name.as_bytes());
        }
        if let Some(name) = &self.compaction_filter {
            put_field(&mut out, tag::family::FILTER, false, name.as_bytes());
        }
        let mut payload = Vec::new();
        for &(level, number) in &self.removed {
            payload.clear();
            payload.push(level);
            put_varint(&mut payload, number.0);
            put_field(&mut out, tag::family::REMOVED, true, &payload);
        }
        for (level, meta) in &self.added {
            payload.clear();
            payload.push(*level);
            meta.encode_into(&mut payload);
            put_field(&mut out, tag::family::ADDED, true, &payload);
        }
        out
    }

    fn decode(d: Decoder<'_>) -> Result<(FamilyId, FamilyEdit)> {
        let start = d.clone();
        let (mut id, mut edit) = (None, FamilyEdit::default());
        let mut fields = Fields::new(d, tag::family::ADDED, tag::family::LISTS);
        while let Some((tag, must, mut d)) = fields.next()? {
            match tag {
                tag::family::ID => id = Some(FamilyId(d.varint32()?)),
                tag::family::FLUSHED => edit.flushed_seqno = Some(read_seqno(&mut d)?),
                tag::family::OPTIONS => edit.options = Some(read_rest(&mut d)?),
                tag::family::MERGE => edit.merge_operator = Some(read_name(&mut d)?),
                tag::family::FILTER => edit.compaction_filter = Some(read_name(&mut d)?),
                tag::family::REMOVED => {
                    edit.removed.push((read_level(&mut d)?, read_file_number(&mut d)?));
                }
                tag::family::ADDED => {
                    let level = read_level(&mut d)?;
                    edit.added.push((level, Arc::new(FileMeta::decode(take(&mut d)?)?)));
                }
                _ => {
                    unknown(tag, must, &d, "family edit")?;
                    continue;
                }
            }
            d.finish()?;
        }
        let id = id.ok_or_else(|| start.error("family edit lacks its id"))?;
        Ok((id, edit))
    }
}

impl CleanMarker {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, tag::clean::EPOCH, true, u64::from(self.epoch));
        put_number(&mut out, tag::clean::LAST_SEQNO, true, self.last_seqno);
        put_number(&mut out, tag::clean::CHECKPOINT, true, self.checkpoint_id);
        out
    }

    fn decode(d: Decoder<'_>) -> Result<CleanMarker> {
        let start = d.clone();
        let (mut epoch, mut last_seqno, mut checkpoint_id) = (None, None, None);
        let mut fields = Fields::new(d, tag::clean::CHECKPOINT, &[]);
        while let Some((tag, must, mut d)) = fields.next()? {
            match tag {
                tag::clean::EPOCH => epoch = Some(read_epoch(&mut d)?),
                tag::clean::LAST_SEQNO => last_seqno = Some(read_seqno(&mut d)?),
                tag::clean::CHECKPOINT => checkpoint_id = Some(d.varint()?),
                _ => {
                    unknown(tag, must, &d, "clean marker")?;
                    continue;
                }
            }
            d.finish()?;
        }
        match (epoch, last_seqno, checkpoint_id) {
            (Some(epoch), Some(last_seqno), Some(checkpoint_id)) => {
                Ok(CleanMarker { epoch, last_seqno, checkpoint_id })
            }
            _ => Err(start.error("clean marker lacks a field")),
        }
    }
}

/// All that is left of `d`, which is then empty.
fn take<'a>(d: &mut Decoder<'a>) -> Result<Decoder<'a>> {
    let all = d.clone();
    d.bytes(all.rest().len())?;
    Ok(all)
}

fn read_rest(d: &mut Decoder<'_>) -> Result<Vec<u8>> {
    Ok(d.bytes(d.rest().len())?.to_vec())
}

fn read_epoch(d: &mut Decoder<'_>) -> Result<u32> {
    let before = d.clone();
    match d.varint32()? {
        0 => Err(before.error("epoch 0")),
        epoch => Ok(epoch),
    }
}

fn read_bool(d: &mut Decoder<'_>) -> Result<bool> {
    let before = d.clone();
    match d.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(before.error("neither 0 nor 1")),
    }
}

fn read_level(d: &mut Decoder<'_>) -> Result<u8> {
    let before = d.clone();
    let level = d.u8()?;
    if usize::from(level) < LEVELS { Ok(level) } else { Err(before.error("no such level")) }
}

fn read_name(d: &mut Decoder<'_>) -> Result<String> {
    let before = d.clone();
    let name = d.bytes(d.rest().len())?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(before.error("a name has 1 to 255 bytes"));
    }
    let name = std::str::from_utf8(name).map_err(|_| before.error("not UTF-8"))?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
