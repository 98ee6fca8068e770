//! Entries: what was pushed, linked and overwritten, alone and beside threads that read.

use super::*;
use crate::base::key::SEQNO_MAX;
use crate::memtable::Found;
use crate::memtable::read_pins::{Hold, ReadPins};
use crate::memtable::value_copy::ValueCopy;

fn put<'a>(key: &'a [u8], seqno: SeqNo) -> InternalKey<'a> {
    InternalKey::new(key, seqno, ValueKind::Put)
}

#[test]
fn entries_keep_what_was_pushed() {
    let (mut writer, arena) = Arena::new();
    let many = if cfg!(miri) { 60 } else { 3000 };
    let value = |i: usize| vec![i as u8; if i % 17 == 5 { 700 + i } else { i % 40 }];
    let mut offsets = Vec::new();
    for i in 0..many {
        let key = format!("key{i}");
        offsets.push(writer.push(put(key.as_bytes(), i as u64), &value(i), None, None));
        for (j, &offset) in offsets.iter().enumerate().skip(i.saturating_sub(20)) {
            let entry = arena.entry(offset);
            assert_eq!(entry.key(), format!("key{j}").as_bytes());
            let version = entry.version(Hold::frozen(SEQNO_MAX)).unwrap();
            let kind = ValueKind::Put;
            assert_eq!(version, Found { seqno: j as u64, kind, value: &value(j) });
        }
    }
    assert!(writer.used() <= writer.allocated());
    assert!(writer.chunks > 3);
}

#[test]
fn walks_see_each_entry_once() {
    let (mut writer, arena) = Arena::new();
    let mut position = Position::default();
    let mut seen = Vec::new();
    let many: u64 = if cfg!(miri) { 80 } else { 2000 };
    for i in 0..many {
        let len = if i % 13 == 12 { 3000 } else { (i % 50) as usize };
        writer.push(put(b"k", i), &vec![1; len], None, None);
        if i % 7 == 0 {
            arena.walk(&mut position, |_, entry| seen.push(entry.seqno()));
            seen.sort();
            assert_eq!(seen, (0..=i).collect::<Vec<_>>());
        }
    }
}

#[test]
fn giants_come_first_too() {
    let (mut writer, arena) = Arena::new();
    let giant = vec![7; if cfg!(miri) { 5000 } else { 32 << 20 }];
    let a = writer.push(put(b"a", 1), &giant, None, None);
    let b = writer.push(put(b"b", 2), b"small", None, None);
    let c = writer.push(put(b"c", 3), &giant, Some(b), Some(b));
    let value = |offset| arena.entry(offset).version(Hold::frozen(SEQNO_MAX)).unwrap().value;
    assert!(value(a) == giant && value(c) == giant);
    assert_eq!(arena.entry(c).older(), Some(b));
    let mut seen = Vec::new();
    arena.walk(&mut Position::default(), |offset, _| seen.push(offset));
    seen.sort_by_key(|offset| (offset.chunk(), offset.within()));
    assert_eq!(seen.len(), 3);
}

#[test]
fn links_move_and_the_rest_stays() {
    let (mut writer, arena) = Arena::new();
    let first = writer.push(put(b"k", 1), b"one", None, None);
    let root = arena.entry(first);
    let lent = root.version(Hold::frozen(SEQNO_MAX)).unwrap().value;
    assert_eq!(root.link(), None);
    let mut newest = first;
    for i in 2..20 {
        newest = writer.push(put(b"k", i), b"more", Some(newest), Some(first));
        root.set_newest(newest);
        assert_eq!(root.link(), Some(newest));
        assert_eq!(arena.entry(newest).link(), Some(first));
    }
    assert_eq!(lent, b"one");
}

#[test]
fn readers_see_what_was_published() {
    let (mut writer, arena) = Arena::new();
    let slot = crate::memtable::offset::Slot::empty();
    assert_eq!(slot.both(), None);
    let many = if cfg!(miri) { 100 } else { 20_000 };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0;
            let mut position = Position::default();
            let mut walked = 0;
            while last < many - 1 {
                let Some(offset) = slot.load(9) else { continue };
                let entry = arena.entry(offset);
                assert!(entry.seqno() >= last);
                last = entry.seqno();
                let mut copy = ValueCopy::new();
                let found = entry.peek(SEQNO_MAX - 1, &mut copy).unwrap();
                assert_eq!(found.value, vec![last as u8; last as usize % 200]);
                arena.walk(&mut position, |_, e| walked += u64::from(e.key() == b"key"));
                assert!(walked > last);
            }
        });
        for i in 0..many {
            let value = vec![i as u8; i as usize % 200];
            slot.store(9, writer.push(put(b"key", i), &value, None, None));
        }
    });
}

/// One entry, overwritten again and again. Each version is made of its number, so that a mixture of
/// two would be noticed.
#[test]
fn overwrites_are_whole() {
    let (mut writer, arena) = Arena::new();
    let pins: Arc<ReadPins> = Arc::default();
    let many: u64 = if cfg!(miri) { 100 } else { 200_000 };
    let value = |i: u64| vec![i as u8; 1 + i as usize % 96];
    let visible = AtomicU64::new(1);
    let offset = writer.push(put(b"key", 1), &[1; 96], None, None);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while visible.load(Ordering::Acquire) < many {
                let at = visible.load(Ordering::Acquire);
                let mut copy = ValueCopy::new();
                if let Some(found) = arena.entry(offset).peek(at, &mut copy) {
                    assert_eq!(found.seqno, at);
                    assert!(at == 1 || found.value == value(at));
                    seen += 1;
                }
            }
            seen
        });
        let holder = scope.spawn(|| {
            while visible.load(Ordering::Acquire) < many {
                let pin = pins.pin(&visible);
                let found = arena.entry(offset).version(pin.hold(&pins));
                let Some(found) = found else { continue };
                assert_eq!(found.seqno, pin.seqno());
                std::thread::yield_now();
                assert!(found.seqno == 1 || found.value == value(found.seqno));
            }
        });
        let mut seqno = 1;
        while seqno < many {
            let Some(held) = pins.try_hold() else { continue };
            let trailer = put(b"key", seqno + 1).trailer();
            if writer.overwrite(arena.entry(offset), trailer, &value(seqno + 1), held.overwrite()) {
                seqno += 1;
                visible.store(seqno, Ordering::Release);
            }
        }
        holder.join().unwrap();
        reader.join().unwrap();
    });
    assert!(!writer.overwrite(
        arena.entry(offset),
        BUSY,
        &[0; 97],
        pins.try_hold().unwrap().overwrite()
    ));
    let pin = pins.pin(&visible);
    assert!(!writer.overwrite(
        arena.entry(offset),
        BUSY,
        b"",
        pins.try_hold().unwrap().overwrite()
    ));
    drop(pin);
    let delete = InternalKey::new(b"key", many + 1, ValueKind::Delete).trailer();
    assert!(writer.overwrite(
        arena.entry(offset),
        delete,
        b"",
        pins.try_hold().unwrap().overwrite()
    ));
    let version = arena.entry(offset).version(Hold::frozen(SEQNO_MAX)).unwrap();
    let kind = ValueKind::Delete;
    assert_eq!(version, Found { seqno: many + 1, kind, value: b"" });
    let mut seen = 0;
    arena.walk(&mut Position::default(), |_, _| seen += 1);
    assert_eq!(seen, 1);
}
