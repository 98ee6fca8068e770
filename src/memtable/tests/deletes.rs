//! Deleted keys leave the order, and no scan is wrong for it.

use super::*;
use crate::base::rng::Rng;

/// All keys are written and deleted in turns, while others scan. What a scan sees is told by its
/// sequence number.
#[test]
fn scans_beside_deletes() {
    const KEYS: u64 = if cfg!(miri) { 12 } else { 600 };
    const ROUNDS: u64 = if cfg!(miri) { 4 } else { 40 };
    fn is_alive(k: u64, at: SeqNo) -> bool {
        // The number of writes of this key: it is written by every KEYS-th.
        (at + KEYS - 1 - k) / KEYS % 2 == 1
    }
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    let visible = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (table, visible, pins) = (&table, &visible, &pins);
            scope.spawn(move || {
                let mut rng = Rng::new(reader);
                let mut old: Vec<ReadPin> = Vec::new();
                let mut at = 0;
                while at < KEYS * ROUNDS {
                    let pin = pins.pin(visible);
                    at = pin.seqno();
                    if rng.below(8) == 0 {
                        old.push(pin.clone());
                    }
                    if rng.below(8) == 0 {
                        old.clear();
                    }
                    let older = old.last().filter(|_| rng.below(4) == 0).cloned();
                    let pin = older.unwrap_or(pin);
                    let seen = pin.seqno();
                    let (start, end) = (rng.below(KEYS), rng.below(KEYS));
                    let mut cursor = table.cursor(pin, rng.below(2) == 0);
                    let found = alive(&mut cursor, &start.to_be_bytes(), &end.to_be_bytes(), seen);
                    let found: Vec<Vec<u8>> = found.into_iter().map(|(key, _)| key).collect();
                    let wanted = (start..end).filter(|k| is_alive(*k, seen));
                    assert_eq!(found, wanted.map(|k| k.to_be_bytes().to_vec()).collect::<Vec<_>>());
                }
            });
        }
        for seqno in 1..=KEYS * ROUNDS {
            let kind = match (seqno - 1) / KEYS % 2 {
                0 => ValueKind::Put,
                _ => ValueKind::Delete,
            };
            let held = pins.try_hold();
            let overwrite = held.as_ref().map(|held| held.overwrite());
            let key = ((seqno - 1) % KEYS).to_be_bytes();
            writer.insert(InternalKey::new(&key, seqno, kind), b"", overwrite);
            visible.store(seqno, Ordering::Release);
        }
    });
}

/// A queue: what was taken out at its front is passed again by nobody.
#[test]
fn what_was_deleted_is_passed_once() {
    const MANY: u64 = if cfg!(miri) { 30 } else { 5000 };
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    let visible = AtomicU64::new(0);
    let mut seqno = 0;
    let mut write = |key: u64, kind| {
        seqno += 1;
        let key = key.to_be_bytes();
        let held = pins.try_hold();
        let overwrite = held.as_ref().map(|held| held.overwrite());
        writer.insert(InternalKey::new(&key, seqno, kind), b"", overwrite);
        visible.store(seqno, Ordering::Release);
    };
    (0..MANY).for_each(|key| write(key, ValueKind::Put));
    for round in 0..3 * MANY / 10 {
        let pin = pins.pin(&visible);
        let at = pin.seqno();
        let mut cursor = table.cursor(pin, false);
        cursor.first().unwrap();
        let mut steps = 0;
        while is_deleted(&cursor) {
            let key = place_of(&cursor).unwrap().0;
            cursor.skip(&key).unwrap();
            steps += 1;
            cursor.pass_deleted(None, at).unwrap();
        }
        assert!(steps <= 1, "passed at once");
        let head = place_of(&cursor).unwrap().0;
        assert_eq!(head, (round * 10).to_be_bytes());
        for key in round * 10..round * 10 + 10 {
            write(key, ValueKind::Delete);
            write(key + MANY, ValueKind::Put);
        }
    }
    let order = table.order.lock();
    let kept: usize = order.runs().iter().map(|run| run.heads().len()).sum();
    assert!(kept < 3 * MANY as usize, "{kept} heads of {MANY} keys");
}

/// Keys that were deleted before anybody asked for the order, or since, are not in it for long.
#[test]
fn what_was_deleted_is_forgotten() {
    const MANY: u64 = if cfg!(miri) { 30 } else { 1000 };
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    let visible = AtomicU64::new(0);
    let mut seqno = 0;
    let mut write_all = |keys: std::ops::Range<u64>, kind| {
        for key in keys {
            seqno += 1;
            let held = pins.try_hold();
            let overwrite = held.as_ref().map(|held| held.overwrite());
            writer.insert(InternalKey::new(&key.to_be_bytes(), seqno, kind), b"", overwrite);
            visible.store(seqno, Ordering::Release);
        }
    };
    let open = |alone| {
        drop(table.cursor(pins.pin(&visible), alone));
        table.order.lock().runs().iter().map(|run| run.heads().len() as u64).sum::<u64>()
    };
    write_all(0..MANY, ValueKind::Put);
    write_all(0..MANY, ValueKind::Delete);
    assert_eq!(open(true), 0);
    assert_eq!(table.glance(b"", &pins.pin(&visible), true), Glance::Nothing);
    write_all(0..MANY, ValueKind::Put);
    assert_eq!(open(true), MANY);
    let older = pins.pin(&visible);
    write_all(0..MANY, ValueKind::Delete);
    assert_eq!((open(false), open(true)), (MANY, MANY), "the pin needs them");
    drop(older);
    write_all(MANY..3 * MANY, ValueKind::Put);
    write_all(MANY..3 * MANY, ValueKind::Delete);
    assert_eq!((open(false), open(true)), (3 * MANY, 0));
}
