//! What readers share with flushes and compactions: the bundle, its generation, the snapshots.

use crate::base::key::{InternalKey, SeqNo, ValueKind};
use crate::base::sync::{Arc, AtomicBool, AtomicU64, Ordering, Weakened, spawn};
use crate::batch::WriteBatch;
use crate::cache::budget::MemoryBudget;
use crate::db::snapshot::{Snapshot, SnapshotList};
use crate::db::super_version::{Cell, SuperVersion};
use crate::db::write_queue::{Ticket, WriteQueue};
use crate::kernels::{Kernel, Mistake};
use crate::memtable::{MemTable, MemTableOptions, MemTableWriter, ReadPin, ReadPins};
use crate::version::version::Version;

pub const KERNELS: &[Kernel] = &[
    Kernel {
        name: "writers: each gets its outcome, and none waits for ever",
        run: line_of_writers,
        preemptions: 2,
        needs: &[],
    },
    Kernel {
        name: "bundle: taken before the number, it holds what is visible",
        run: || {
            read_beside_a_compaction(|cell, now| {
                let bundle = cell.load();
                let at = now.load(Ordering::Acquire);
                (bundle, at)
            })
        },
        preemptions: 3,
        needs: &[Weakened::Release],
    },
    Kernel {
        name: "bundle: a generation is not newer than the bundle that is kept with it",
        run: || {
            refresh_beside_an_update(|cell| {
                let generation = cell.generation();
                (generation, cell.load())
            })
        },
        preemptions: 3,
        needs: &[],
    },
    Kernel {
        name: "snapshots: what a compaction drops no snapshot sees",
        run: || snapshot_beside_a_compaction(|list, pins, now| list.take(|| pins.pin(now), 1)),
        preemptions: 3,
        needs: &[],
    },
];

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "bundle: taken after the number",
        run: || {
            read_beside_a_compaction(|cell, now| {
                let at = now.load(Ordering::Acquire);
                (cell.load(), at)
            })
        },
        preemptions: 2,
    },
    Mistake {
        name: "bundle: the generation is looked at last",
        run: || {
            refresh_beside_an_update(|cell| {
                let bundle = cell.load();
                (cell.generation(), bundle)
            })
        },
        preemptions: 2,
    },
    Mistake {
        name: "snapshots: pinned before it is in the list",
        run: || {
            snapshot_beside_a_compaction(|list, pins, now| {
                let pin = pins.pin(now);
                list.take(|| pin, 1)
            })
        },
        preemptions: 2,
    },
];

fn memtable(pins: &Arc<ReadPins>) -> (MemTableWriter, Arc<MemTable>) {
    let options = MemTableOptions { bytes_max: 1 << 20, keys_hint: 0 };
    MemTable::new(options, pins, MemoryBudget::new(1 << 30).reserve(0))
}

fn bundle(mem: &Arc<MemTable>) -> SuperVersion {
    SuperVersion {
        mem: Arc::clone(mem),
        immutables: Vec::new(),
        version: Arc::new(Version::default()),
    }
}

fn put(writer: &mut MemTableWriter, seqno: SeqNo) {
    writer.insert(InternalKey::new(b"k", seqno, ValueKind::Put), b"value", None);
}

/// Version 2 of a key is written, and a compaction leaves nothing but that. The memtables stand for
/// tables here: all that matters is which bundle holds which version.
fn read_beside_a_compaction(take: fn(&Cell, &AtomicU64) -> (Arc<SuperVersion>, SeqNo)) {
    let pins: Arc<ReadPins> = Arc::default();
    let (mut writer, mem) = memtable(&pins);
    put(&mut writer, 1);
    let visible = Arc::new(AtomicU64::new(1));
    let cell = Arc::new(Cell::new(bundle(&mem)));
    let (now, there) = (Arc::clone(&visible), Arc::clone(&cell));
    let reader = spawn(move || {
        let (bundle, at) = take(&there, &now);
        let newest = bundle.mem.newest(b"k").expect("one version is always there");
        let oldest = bundle.mem.seqno_min().expect("one version is always there");
        assert!(oldest <= at, "nothing that is visible at {at}, only {oldest}");
        assert!(newest >= at, "visible at {at}, and only {newest} is there");
    });
    put(&mut writer, 2);
    visible.store(2, Ordering::Release);
    let (mut writer, compacted) = memtable(&pins);
    put(&mut writer, 2);
    cell.update(|_| bundle(&compacted));
    reader.join().unwrap();
}

/// Who keeps a bundle and its generation notices that there is a newer one, once it has heard of it.
fn refresh_beside_an_update(look: fn(&Cell) -> (u64, Arc<SuperVersion>)) {
    let pins: Arc<ReadPins> = Arc::default();
    let (mut writer, old) = memtable(&pins);
    put(&mut writer, 1);
    let (mut writer, new) = memtable(&pins);
    put(&mut writer, 2);
    let cell = Arc::new(Cell::new(bundle(&old)));
    let told = Arc::new(AtomicBool::new(false));
    let (there, heard) = (Arc::clone(&cell), Arc::clone(&told));
    let reader = spawn(move || {
        let (mut generation, mut bundle) = look(&there);
        let told = heard.load(Ordering::Acquire);
        if there.generation() != generation {
            (generation, bundle) = look(&there);
        }
        assert!(generation > 0);
        assert!(!told || bundle.mem.newest(b"k") == Some(2), "an old bundle is taken for new");
    });
    cell.update(|_| bundle(&new));
    told.store(true, Ordering::Release);
    reader.join().unwrap();
}

/// Version 2 becomes visible while a compaction asks whether it may drop version 1.
fn snapshot_beside_a_compaction(
    take: fn(&Arc<SnapshotList>, &Arc<ReadPins>, &AtomicU64) -> Snapshot,
) {
    let pins: Arc<ReadPins> = Arc::default();
    let list: Arc<SnapshotList> = Arc::default();
    let visible = Arc::new(AtomicU64::new(1));
    let (snapshots, now) = (Arc::clone(&list), Arc::clone(&visible));
    let compaction = spawn(move || {
        let (seqnos, visible) = snapshots.seqnos_and_visible(&now);
        visible >= 2 && !seqnos.contains(&1)
    });
    let now = Arc::clone(&visible);
    let reader = spawn(move || take(&list, &pins, &now));
    visible.store(2, Ordering::Release);
    let snapshot = reader.join().unwrap();
    let drops = compaction.join().unwrap();
    assert!(!(drops && snapshot.seqno() == 1), "dropped what a snapshot sees");
}

/// Three writers, of whom one syncs: whoever leads numbers the batches of its group.
fn line_of_writers() {
    let queue: Arc<WriteQueue> = Arc::default();
    let number = Arc::new(AtomicU64::new(0));
    let write = |sync: bool| {
        let (queue, number) = (Arc::clone(&queue), Arc::clone(&number));
        move || {
            let ticket = Arc::new(Ticket::new(WriteBatch::new(), sync, None));
            let outcome = queue.join(&ticket).unwrap_or_else(|| {
                queue.gather();
                let group = queue.take();
                assert!(Arc::ptr_eq(&group[0], &ticket), "the leader's own is at the front");
                let next = |_: &Arc<Ticket>| {
                    let seqno = number.fetch_add(1, Ordering::Relaxed) + 1;
                    Ok(Some(seqno))
                };
                queue.pass_on(&group, group.iter().map(next).collect());
                ticket.wait().expect("a leader's own ticket is in its group")
            });
            outcome.expect("nothing fails").expect("nothing has changed")
        }
    };
    let others = [false, true].map(|sync| spawn(write(sync)));
    let mut numbers = vec![write(false)()];
    numbers.extend(others.map(|other| other.join().unwrap()));
    numbers.sort();
    assert_eq!(numbers, [1, 2, 3]);
}
