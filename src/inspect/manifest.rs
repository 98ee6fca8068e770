//! Version edits and table descriptions in words.

use crate::inspect::report::Hex;
use crate::inspect::report::Range;
use crate::inspect::report::Report;
use crate::version::edit::FamilyEdit;
use crate::version::edit::FamilyRecord;
use crate::version::edit::VersionEdit;
use crate::version::meta::FileMeta;
use crate::version::names::FileName;

/// Everything in an edit.
pub fn describe_edit(report: &mut Report, edit: &VersionEdit) {
    if edit.snapshot {
        let more = if edit.more { ", to be continued" } else { "" };
        report.line(2, format_args!("snapshot of the whole state{more}"));
    }
    if let Some(epoch) = edit.epoch {
        report.line(2, format_args!("epoch {epoch}"));
    }
    if let Some(instance) = edit.instance {
        report.line(2, format_args!("instance {instance:016x}"));
    }
    if let Some(seqno) = edit.last_seqno {
        report.line(2, format_args!("last sequence number {seqno}"));
    }
    if let Some(family) = edit.next_family {
        report.line(2, format_args!("next family {family}"));
    }
    if let Some(on) = edit.wal_mode {
        report.line(2, format_args!("log {}", if on { "on" } else { "off" }));
    }
    if let Some(number) = edit.log_start {
        report.line(2, format_args!("log starts with {}", FileName::Log(number)));
    }
    if let Some(durable) = edit.log_durable {
        report.line(2, format_args!("log durable up to {durable}"));
    }
    if let Some(clean) = &edit.clean {
        let (epoch, seqno, checkpoint) = (clean.epoch, clean.last_seqno, clean.checkpoint_id);
        let text = format_args!(
            "closed in order: epoch {epoch}, last sequence number {seqno}, checkpoint {checkpoint}"
        );
        report.line(2, text);
    }
    if let Some(options) = &edit.options {
        report.line(2, format_args!("options of {} bytes", options.len()));
    }
    edit.created.iter().for_each(|record| describe_record(report, record));
    for id in &edit.dropped {
        report.line(2, format_args!("family {id} dropped"));
    }
    for (id, family) in &edit.families {
        report.line(2, format_args!("family {id} changes"));
        describe_change(report, family);
    }
}

fn describe_record(report: &mut Report, record: &FamilyRecord) {
    report.line(2, format_args!("family {} {:?} created", record.id, record.name));
    if let Some(name) = &record.merge_operator {
        report.line(3, format_args!("merge operator {name:?}"));
    }
    if let Some(name) = &record.compaction_filter {
        report.line(3, format_args!("compaction filter {name:?}"));
    }
    let options = record.options.len();
    report.line(
        3,
        format_args!("flushed up to {}, options of {options} bytes", record.flushed_seqno),
    );
}

fn describe_change(report: &mut Report, family: &FamilyEdit) {
    if let Some(seqno) = family.flushed_seqno {
        report.line(3, format_args!("flushed up to {seqno}"));
    }
    if let Some(options) = &family.options {
        report.line(3, format_args!("options of {} bytes", options.len()));
    }
    if let Some(name) = &family.merge_operator {
        report.line(3, format_args!("merge operator {name:?}"));
    }
    if let Some(name) = &family.compaction_filter {
        report.line(3, format_args!("compaction filter {name:?}"));
    }
    for (level, number) in &family.removed {
        report.line(3, format_args!("level {level} loses {}", FileName::Table(*number)));
    }
    for (level, meta) in &family.added {
        report.line(3, format_args!("level {level} gains {}", FileName::Table(meta.number)));
        describe_meta(report, 4, meta);
    }
}

/// What the database knows of a table.
pub fn describe_meta(report: &mut Report, indent: usize, meta: &FileMeta) {
    let clipped = if meta.clipped { ", clipped" } else { "" };
    report.line(indent, format_args!("keys {}{clipped}", Range(&meta.bounds)));
    let (len, entries, deletes) = (meta.len, meta.entries, meta.deletes);
    let (ranges, min, max) = (meta.range_deletes, meta.seqno_min, meta.seqno_max);
    let text = format_args!(
        "{len} bytes, {entries} entries ({deletes} deletes), {ranges} range deletes, \
         sequence numbers {min} to {max}"
    );
    report.line(indent, text);
    if let Some((least, greatest)) = meta.timestamps {
        let name = meta.timestamp_extractor.as_deref().unwrap_or("unnamed");
        report.line(indent, format_args!("timestamps {least} to {greatest}, from {name:?}"));
    }
    report.line(indent, format_args!("file id {}, BLAKE3 {}", meta.id, Hex(&meta.digest)));
    report.line(indent, format_args!("XXH3-128 {:032x}", meta.checksum));
}
