//! A memtable's writer, and readers that hold pins or none.

use crate::base::key::{InternalKey, SeqNo, ValueKind};
use crate::base::sync::{Arc, AtomicU64, Ordering, Weakened, spawn, yield_now};
use crate::cache::budget::MemoryBudget;
use crate::kernels::{Kernel, Mistake};
use crate::memtable::{
    Found, MemTable, MemTableOptions, MemTableWriter, Peek, ReadPins, ValueCopy,
};

pub const KERNELS: &[Kernel] = &[
    Kernel {
        name: "memtable: what is visible is found",
        run: publish,
        preemptions: 2,
        needs: &[Weakened::Release, Weakened::Acquire],
    },
    Kernel {
        name: "memtable: a copy is one version",
        run: copy,
        preemptions: 3,
        needs: &[Weakened::Release, Weakened::Acquire, Weakened::Fence],
    },
    Kernel { name: "memtable: what is pinned stays", run: pinned, preemptions: 3, needs: &[] },
    Kernel { name: "memtable: joined operands are whole", run: joined, preemptions: 3, needs: &[] },
];

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "memtable: published before it was written",
        run: || {
            write_beside_a_reader(|writer, pins, visible| {
                visible.store(2, Ordering::Release);
                put(writer, pins, b"k", 2);
            })
        },
        preemptions: 2,
    },
    Mistake {
        name: "memtable: pins let go before publication",
        run: || {
            overwritten_beside_a_pin(|writer, pins, visible| {
                put(writer, pins, b"k", 2);
                visible.store(2, Ordering::Release);
            })
        },
        preemptions: 2,
    },
];

/// A table, its writer, the pins it respects, and what is visible.
pub struct Table {
    pub writer: MemTableWriter,
    pub table: Arc<MemTable>,
    pub pins: Arc<ReadPins>,
    pub visible: Arc<AtomicU64>,
}

pub fn table() -> Table {
    let pins: Arc<ReadPins> = Arc::default();
    let space = MemoryBudget::new(1 << 30).reserve(0);
    let options = MemTableOptions { bytes_max: 1 << 20, keys_hint: 0 };
    let (writer, table) = MemTable::new(options, &pins, space);
    Table { writer, table, pins, visible: Arc::new(AtomicU64::new(0)) }
}

/// Two words that belong together. The length is such that no vector instructions copy it.
fn value(seqno: SeqNo) -> [u8; 16] {
    let mut value = [seqno as u8; 16];
    value[..8].copy_from_slice(&seqno.to_le_bytes());
    value
}

fn is_whole(found: Found<'_>) -> bool {
    found.value == value(found.seqno)
}

fn put(writer: &mut MemTableWriter, pins: &ReadPins, key: &[u8], seqno: SeqNo) {
    let held = pins.try_hold();
    let overwrite = held.as_ref().map(|held| held.overwrite());
    let key = InternalKey::new(key, seqno, ValueKind::Put);
    writer.insert(key, &value(seqno), overwrite);
}

/// As a leader commits: the pins are let go after publication.
fn commit(
    writer: &mut MemTableWriter,
    pins: &ReadPins,
    visible: &AtomicU64,
    key: &[u8],
    seqno: SeqNo,
) {
    let held = pins.try_hold();
    let overwrite = held.as_ref().map(|held| held.overwrite());
    let key = InternalKey::new(key, seqno, ValueKind::Put);
    writer.insert(key, &value(seqno), overwrite);
    visible.store(seqno, Ordering::Release);
    drop(held);
}

/// Appends without overwriting.
fn append(writer: &mut MemTableWriter, visible: &AtomicU64, key: &[u8], seqno: SeqNo) {
    writer.insert(InternalKey::new(key, seqno, ValueKind::Put), &value(seqno), None);
    visible.store(seqno, Ordering::Release);
}

/// As a get reads: without a pin, and with one if that does not do. The number of what it found.
fn get(
    table: &MemTable,
    pins: &Arc<ReadPins>,
    visible: &AtomicU64,
    key: &[u8],
) -> (SeqNo, Option<SeqNo>) {
    let at = visible.load(Ordering::Acquire);
    match table.peek(key, at, &mut ValueCopy::new()) {
        Peek::Absent => return (at, None),
        Peek::Newest(found) => {
            assert!(is_whole(found), "a mixture of versions");
            return (at, Some(found.seqno));
        }
        Peek::Unclear => {}
    }
    let pin = pins.pin(visible);
    let found = table.versions(key, &pin).next();
    found.iter().for_each(|found| assert!(is_whole(*found), "a mixture of versions, pinned"));
    (pin.seqno(), found.map(|found| found.seqno))
}

/// Three keys appear, one gets a second version: whoever sees the number finds the version.
fn publish() {
    let Table { mut writer, table, pins, visible } = table();
    append(&mut writer, &visible, b"a", 1);
    let (seen, now, shared) = (Arc::clone(&table), Arc::clone(&visible), Arc::clone(&pins));
    let reader = spawn(move || {
        for (key, first) in [(b"b", 2), (b"a", 1), (b"c", 4)] {
            let (at, found) = get(&seen, &shared, &now, key);
            let newest = match key {
                b"a" if at >= 3 => Some(3),
                _ => (at >= first).then_some(first),
            };
            // More may be there than was visible when it began; never less.
            assert!(found >= newest, "at {at} {found:?} instead of {newest:?}");
        }
    });
    append(&mut writer, &visible, b"b", 2);
    append(&mut writer, &visible, b"a", 3);
    append(&mut writer, &visible, b"c", 4);
    reader.join().unwrap();
}

/// One version is overwritten twice, under the eyes of one who copies.
fn copy() {
    let Table { mut writer, table, pins, visible } = table();
    commit(&mut writer, &pins, &visible, b"k", 1);
    let (seen, now, shared) = (Arc::clone(&table), Arc::clone(&visible), Arc::clone(&pins));
    let reader = spawn(move || {
        let (at, found) = get(&seen, &shared, &now, b"k");
        assert_eq!(found, Some(at), "what is visible is the version to see");
    });
    commit(&mut writer, &pins, &visible, b"k", 2);
    commit(&mut writer, &pins, &visible, b"k", 3);
    reader.join().unwrap();
}

fn pinned() {
    overwritten_beside_a_pin(|writer, pins, visible| commit(writer, pins, visible, b"k", 2));
}

/// Somebody takes a pin, looks, and looks again.
fn overwritten_beside_a_pin(write: fn(&mut MemTableWriter, &ReadPins, &AtomicU64)) {
    let Table { mut writer, table, pins, visible } = table();
    commit(&mut writer, &pins, &visible, b"k", 1);
    let (seen, now, shared) = (Arc::clone(&table), Arc::clone(&visible), Arc::clone(&pins));
    let reader = spawn(move || {
        let pin = shared.pin(&now);
        for _ in 0..2 {
            let found = seen.versions(b"k", &pin).next().expect("a version is pinned");
            assert_eq!(found.seqno, pin.seqno());
            assert!(is_whole(found), "what was pinned was overwritten");
            yield_now();
        }
    });
    write(&mut writer, &pins, &visible);
    reader.join().unwrap();
}

/// An operand gives up its place to a larger one, which a third is joined to, while somebody takes a pin
/// and looks, twice.
fn joined() {
    let Table { mut writer, table, pins, visible } = table();
    writer.join_operands(true);
    let mut append = |seqno| {
        let held = pins.try_hold();
        let overwrite = held.as_ref().map(|held| held.overwrite());
        let key = InternalKey::new(b"k", seqno, ValueKind::Merge);
        writer.insert(key, &[seqno as u8; 8], overwrite);
        visible.store(seqno, Ordering::Release);
        drop(held);
    };
    append(1);
    let (seen, now, shared) = (Arc::clone(&table), Arc::clone(&visible), Arc::clone(&pins));
    let reader = spawn(move || {
        let pin = shared.pin(&now);
        for _ in 0..2 {
            let mut found: Vec<&[u8]> =
                seen.versions(b"k", &pin).map(|found| found.value).collect();
            found.reverse();
            let wanted: Vec<u8> = (1..=pin.seqno()).flat_map(|seqno| [seqno as u8; 8]).collect();
            assert_eq!(found.concat(), wanted, "what was pinned is another list");
            yield_now();
        }
    });
    append(2);
    append(3);
    reader.join().unwrap();
}

/// As [`publish`], with one key and a given way to write it.
fn write_beside_a_reader(write: fn(&mut MemTableWriter, &ReadPins, &AtomicU64)) {
    let Table { mut writer, table, pins, visible } = table();
    commit(&mut writer, &pins, &visible, b"k", 1);
    let (seen, now, shared) = (Arc::clone(&table), Arc::clone(&visible), Arc::clone(&pins));
    let reader = spawn(move || {
        let (at, found) = get(&seen, &shared, &now, b"k");
        assert_eq!(found, Some(at));
    });
    write(&mut writer, &pins, &visible);
    reader.join().unwrap();
}
