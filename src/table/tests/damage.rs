//! Tables that are damaged, forged, swapped, or on a disk that fails.

use super::*;
use crate::base::error::ErrorKind;
use crate::table::format::{BLOCK_TRAILER_BYTES, FOOTER_BYTES, Footer, put_block};

fn scan_from(table: &Arc<Table>, target: &Version) -> Result<Vec<Version>> {
    let mut iter = table.iter(true);
    iter.seek(InternalKey::new(&target.0, target.1, target.2))?;
    go_on(iter)
}

fn is_sorted(list: &[Version]) -> bool {
    list.is_sorted_by(|a, b| InternalKey::new(&a.0, a.1, a.2) < InternalKey::new(&b.0, b.1, b.2))
}

/// A small table with every kind of block, and a key whose versions span blocks.
fn small() -> (Vec<Version>, Vec<RangeTombstone>) {
    let mut list = Vec::new();
    for i in 0..4u8 {
        list.push((vec![0, i, b'k'], 40 + u64::from(i), ValueKind::Put, vec![i; 12]));
    }
    for seqno in (1..8).rev() {
        list.push((b"hot".to_vec(), seqno, ValueKind::Merge, b"aaaaaaaaaaaaaaaaaaaa".to_vec()));
    }
    list.push((b"zoo".to_vec(), 9, ValueKind::Delete, Vec::new()));
    let del = RangeTombstone { start: b"a".to_vec(), end: b"c".to_vec(), seqno: 50 };
    (list, vec![del])
}

/// Everything that can be asked of a table.
fn answers(table: &Arc<Table>, list: &[Version]) -> Result<Vec<Vec<Version>>> {
    let mut all = vec![scan(table, true)?, scan_back(table)?, scan(table, false)?];
    for v in list {
        all.push(get(table, &v.0, v.1)?);
    }
    let mut iter = table.iter(true);
    for v in list {
        iter.seek_for_prev(&v.0)?;
        all.push(
            iter.entry()
                .map(|(k, v)| (k.user_key.to_vec(), k.seqno, k.kind, v.to_vec()))
                .into_iter()
                .collect(),
        );
    }
    Ok(all)
}

/// Every answer of a damaged table must be right or a refusal that names the place. `true` if the
/// damage was found.
fn judge(fs: &MemFs, list: &[Version], want: &[Vec<Version>], len: u64, what: &str) -> bool {
    let check = |e: crate::base::error::Error| {
        let known = matches!(e.kind(), ErrorKind::Corruption | ErrorKind::Unsupported);
        assert!(known, "{what}: {e}");
        assert_eq!(e.path(), Some(path()), "{what}: {e}");
        assert!(e.offset().is_some_and(|offset| offset <= len), "{what}: {e}");
    };
    let table = match open(fs) {
        Ok(table) => table,
        Err(e) => {
            check(e);
            return true;
        }
    };
    match answers(&table, list) {
        Ok(got) => assert_eq!(got, want, "{what}"),
        Err(e) => check(e),
    }
    match table.verify(None) {
        Ok(()) => false,
        Err(e) => {
            check(e);
            true
        }
    }
}

#[test]
fn no_changed_byte_passes() {
    for codec in Codec::ALL.into_iter().filter(|codec| codec.is_compiled_in()) {
        let (list, dels) = small();
        let fs = MemFs::new();
        let meta = write(&fs, path(), id(1), &list, &dels, &tiny(codec));
        assert!(meta.properties.data_blocks > 2);
        let want = answers(&open(&fs).unwrap(), &list).unwrap();
        let good = fs.read(path());
        for (at, &byte) in good.iter().enumerate() {
            for bad in [byte ^ 0x01, byte ^ 0x80, 0, 0xff] {
                if bad == byte {
                    continue;
                }
                let what = format!("{codec:?}, byte {at} = {bad:#04x}");
                fs.corrupt(path(), at as u64, byte ^ bad);
                assert!(judge(&fs, &list, &want, meta.len, &what), "{what}: not found");
                fs.corrupt(path(), at as u64, byte ^ bad);
            }
        }
        assert!(!judge(&fs, &list, &want, meta.len, "whole"));
        for len in 0..good.len() {
            fs.write(path(), &good[..len]);
            let what = format!("{codec:?}, cut to {len}");
            assert!(judge(&fs, &list, &want, meta.len, &what), "{what}: not found");
        }
        fs.write(path(), &[&good[..], &[0]].concat());
        assert!(judge(&fs, &list, &want, meta.len + 1, "a byte more"));
    }
}

/// The blocks of a table file: offset and stored length.
fn blocks(table: &Table, footer: &Footer) -> Vec<(u64, u32)> {
    let index = table.index();
    let data = (0..index.len()).map(|i| index.handle(i));
    data.chain(footer.parts().into_iter().flatten()).map(|h| (h.offset, h.len)).collect()
}

#[test]
fn forged_checksums_cause_no_panic() {
    for codec in Codec::ALL.into_iter().filter(|codec| codec.is_compiled_in()) {
        let (list, dels) = small();
        let fs = MemFs::new();
        write(&fs, path(), id(1), &list, &dels, &tiny(codec));
        let good = fs.read(path());
        let footer_at = good.len() - FOOTER_BYTES;
        let footer = Footer::decode(&good[footer_at..], footer_at as u64, &id(1)).unwrap();
        let table = open(&fs).unwrap();
        for (offset, len) in blocks(&table, &footer) {
            let (start, len) = (offset as usize, len as usize);
            for at in start..start + len + 5 {
                for value in [good[at] ^ 1, good[at] ^ 0x80, 0, 1, 0x7f, 0xff] {
                    let mut bytes = good.clone();
                    bytes[at] = value;
                    let stored = bytes[start..start + len].to_vec();
                    let raw_len = &bytes[start + len + 1..start + len + 5];
                    let raw_len = u32::from_le_bytes(raw_len.try_into().unwrap());
                    let mut block = Vec::new();
                    let Some(codec) = Codec::from_byte(bytes[start + len]) else { continue };
                    put_block(&mut block, &id(1), offset, codec, &stored, raw_len);
                    bytes[start..start + len + BLOCK_TRAILER_BYTES].copy_from_slice(&block);
                    fs.write(path(), &bytes);
                    if let Ok(table) = open(&fs) {
                        let _ = answers(&table, &list);
                        for fill_cache in [false, true] {
                            // What cannot be in order is refused on the way.
                            if let Ok(list) = scan(&table, fill_cache) {
                                let is_data = |v: &Version| v.2 != ValueKind::RangeDelete;
                                assert!(is_sorted(&list) && list.iter().all(is_data));
                            }
                        }
                        for target in [&list[1], &list[list.len() / 2]] {
                            if let Ok(found) = scan_from(&table, target) {
                                let at = |v: &Version| {
                                    InternalKey::new(&v.0, v.1, v.2)
                                        >= InternalKey::new(&target.0, target.1, target.2)
                                };
                                assert!(is_sorted(&found) && found.first().is_none_or(at));
                            }
                        }
                        let _ = table.verify(None);
                        table.approximate_offset(b"hot");
                    }
                }
            }
        }
    }
}

#[test]
fn swapped_files_and_blocks_are_found_out() {
    let (list, dels) = small();
    let other = Path::new("/u.sst");
    let fs = MemFs::new();
    write(&fs, path(), id(1), &list, &dels, &tiny(Codec::None));
    write(&fs, other, id(2), &list, &dels, &tiny(Codec::None));
    let (one, two) = (fs.read(path()), fs.read(other));
    for (path, id) in [(path(), id(2)), (other, id(1))] {
        let e = open_as(&fs, path, id).err().unwrap();
        assert_eq!((e.kind(), e.path()), (ErrorKind::Corruption, Some(path)));
        assert!(e.to_string().contains("another file's identity"), "{e}");
    }
    // A block from the same offset of the other file, which is sound there.
    let table = open(&fs).unwrap();
    for i in 0..table.index().len() {
        let handle = table.index().handle(i);
        let range = handle.offset as usize..handle.end().unwrap() as usize;
        let mut mixed = one.clone();
        mixed[range.clone()].copy_from_slice(&two[range]);
        fs.write(path(), &mixed);
        let e = open(&fs).unwrap().verify(None).unwrap_err();
        assert_eq!((e.kind(), e.offset()), (ErrorKind::Corruption, Some(handle.offset)));
    }
}

#[test]
fn read_errors_surface() {
    let (list, dels) = small();
    let fs = MemFs::new();
    let meta = write(&fs, path(), id(1), &list, &dels, &tiny(Codec::None));
    let table = open(&fs).unwrap();
    fs.truncate(path(), 1);
    assert!(scan(&table, true).is_err() && scan_back(&table).is_err());
    assert!(list.iter().all(|v| get(&table, &v.0, v.1).is_err()));
    assert!(table.verify(Some((&meta.digest, meta.checksum))).is_err());
}

#[test]
fn write_errors_surface() {
    let (list, _) = small();
    for ops in 1..4 {
        let fs = MemFs::new();
        let file = fs.create(path()).unwrap();
        fs.crash_after(Some(ops));
        let mut builder = TableBuilder::new(file, path(), id(1), tiny(Codec::None)).unwrap();
        for (key, seqno, kind, value) in &list {
            builder.add(InternalKey::new(key, *seqno, *kind), value).unwrap();
        }
        match builder.finish() {
            Ok(_) => assert_eq!(ops, 3),
            Err(e) => assert_eq!((e.kind(), e.path()), (ErrorKind::Io, Some(path()))),
        }
    }
}
