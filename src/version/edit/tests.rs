//! Edits: round trips, what is skipped and what is refused, and their bytes pinned.

use super::*;
use crate::base::error::ErrorKind;
use crate::base::key::SEQNO_MAX;
use crate::version::meta::tests::meta;
use quickcheck::{Arbitrary, Gen, quickcheck};

fn name(g: &mut Gen) -> String {
    let mut name = String::arbitrary(g);
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    if name.is_empty() { "n".to_owned() } else { name }
}

fn number(g: &mut Gen) -> FileNumber {
    FileNumber::new(u32::arbitrary(g).max(1), u32::arbitrary(g).max(1))
}

fn maybe<T>(g: &mut Gen, make: impl Fn(&mut Gen) -> T) -> Option<T> {
    bool::arbitrary(g).then(|| make(g))
}

fn few<T>(g: &mut Gen, make: impl Fn(&mut Gen) -> T) -> Vec<T> {
    (0..u8::arbitrary(g) % 3).map(|_| make(g)).collect()
}

fn seqno(g: &mut Gen) -> SeqNo {
    u64::arbitrary(g) & SEQNO_MAX
}

fn level(g: &mut Gen) -> u8 {
    u8::arbitrary(g) % LEVELS as u8
}

impl Arbitrary for FamilyRecord {
    fn arbitrary(g: &mut Gen) -> FamilyRecord {
        FamilyRecord {
            id: FamilyId(u32::arbitrary(g)),
            name: name(g),
            merge_operator: maybe(g, name),
            compaction_filter: maybe(g, name),
            options: Vec::arbitrary(g),
            flushed_seqno: seqno(g),
        }
    }
}

impl Arbitrary for FamilyEdit {
    fn arbitrary(g: &mut Gen) -> FamilyEdit {
        FamilyEdit {
            removed: few(g, |g| (level(g), number(g))),
            added: few(g, |g| (level(g), Arc::new(FileMeta::arbitrary(g)))),
            flushed_seqno: maybe(g, seqno),
            options: Option::arbitrary(g),
            merge_operator: maybe(g, name),
            compaction_filter: maybe(g, name),
        }
    }
}

impl Arbitrary for VersionEdit {
    fn arbitrary(g: &mut Gen) -> VersionEdit {
        VersionEdit {
            snapshot: bool::arbitrary(g),
            more: bool::arbitrary(g),
            epoch: maybe(g, |g| u32::arbitrary(g).max(1)),
            instance: Option::arbitrary(g),
            last_seqno: maybe(g, seqno),
            next_family: Option::arbitrary(g),
            wal_mode: Option::arbitrary(g),
            log_start: maybe(g, number),
            log_durable: maybe(g, |g| LogPosition::new(number(g), u64::arbitrary(g))),
            clean: maybe(g, |g| CleanMarker {
                epoch: u32::arbitrary(g).max(1),
                last_seqno: seqno(g),
                checkpoint_id: u64::arbitrary(g),
            }),
            options: Option::arbitrary(g),
            created: few(g, FamilyRecord::arbitrary),
            dropped: few(g, |g| FamilyId(u32::arbitrary(g))),
            families: few(g, |g| (FamilyId(u32::arbitrary(g)), FamilyEdit::arbitrary(g)))
                .into_iter()
                .collect(),
        }
    }
}

fn decode(bytes: &[u8]) -> Result<VersionEdit> {
    VersionEdit::decode(Decoder::new(bytes))
}

quickcheck! {
    fn round_trips(edit: VersionEdit) -> bool {
        decode(&edit.encode()).unwrap() == edit
    }

    fn unknown_fields_are_skipped_unless_they_matter(edit: VersionEdit, tag: u32) -> bool {
        let (mut may, mut must) = (edit.encode(), edit.encode());
        put_field(&mut may, tag.max(tag::LOG_DURABLE + 1), false, b"news");
        put_field(&mut must, tag.max(tag::LOG_DURABLE + 1), true, b"news");
        decode(&may).unwrap() == edit
            && decode(&must).unwrap_err().kind() == ErrorKind::Unsupported
    }

    fn decoding_anything_returns(edit: VersionEdit, at: usize, byte: u8, cut: usize) -> bool {
        let mut out = edit.encode();
        if !out.is_empty() {
            let at = at % out.len();
            out[at] = byte;
            out.truncate(out.len() - (cut % 4).min(out.len()));
        }
        decode(&out).map_or(true, |edit| decode(&edit.encode()).unwrap() == edit)
    }
}

#[test]
fn pinned() {
    let mut edit = VersionEdit {
        last_seqno: Some(5),
        wal_mode: Some(true),
        log_start: Some(FileNumber::new(1, 2)),
        created: vec![FamilyRecord {
            id: FamilyId(1),
            name: "a".to_owned(),
            merge_operator: None,
            compaction_filter: Some("f".to_owned()),
            options: Vec::new(),
            flushed_seqno: 4,
        }],
        dropped: vec![FamilyId(0)],
        ..VersionEdit::default()
    };
    edit.family(FamilyId(1)).flushed_seqno = Some(5);
    edit.family(FamilyId(1)).removed.push((2, FileNumber::new(1, 3)));
    let mut want = b"\x0b\x01\x05\x0f\x01\x01\x11\x05\x82\x80\x80\x80\x10".to_vec();
    want.extend_from_slice(b"\x17\x0c\x03\x01\x01\x05\x01a\x08\x01f\x0d\x01\x04");
    want.extend_from_slice(b"\x19\x01\0\x1b\x0e\x03\x01\x01\x05\x01\x05\x0d\x06\x02");
    want.extend_from_slice(b"\x83\x80\x80\x80\x10");
    assert_eq!(edit.encode(), want);
    assert_eq!(VersionEdit::default().encode(), b"");
}

#[test]
fn what_is_out_of_range_is_refused() {
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    for name in [b"".as_slice(), long.as_bytes(), b"\xff"] {
        let mut record = Vec::new();
        put_number(&mut record, tag::record::ID, true, 1);
        put_field(&mut record, tag::record::NAME, true, name);
        put_number(&mut record, tag::record::FLUSHED, true, 1);
        let mut out = Vec::new();
        put_field(&mut out, tag::CREATED, true, &record);
        assert_eq!(decode(&out).unwrap_err().kind(), ErrorKind::Corruption, "{name:?}");
    }
    let mut deep = VersionEdit::default();
    let file = Arc::new(meta(FileNumber::new(1, 2), (b"a", b"b"), (1, 2)));
    deep.family(FamilyId(0)).added.push((LEVELS as u8, file));
    assert_eq!(decode(&deep.encode()).unwrap_err().kind(), ErrorKind::Corruption);
    for (tag, payload) in [
        (tag::EPOCH, b"\0".as_slice()),
        (tag::WAL_MODE, b"\x02"),
        (tag::SNAPSHOT, b"\0"),
        (tag::LOG_START, b"\x05"),
        (tag::INSTANCE, b"1234567"),
        (tag::NEXT_FAMILY, b"\xff\xff\xff\xff\x7f"),
        (tag::CLEAN, b""),
        (tag::FAMILY, b""),
    ] {
        let mut out = Vec::new();
        put_field(&mut out, tag, true, payload);
        assert_eq!(decode(&out).unwrap_err().kind(), ErrorKind::Corruption, "tag {tag}");
    }
    let once = VersionEdit { last_seqno: Some(1), ..VersionEdit::default() }.encode();
    assert_eq!(decode(&once.repeat(2)).unwrap_err().kind(), ErrorKind::Corruption);
}
