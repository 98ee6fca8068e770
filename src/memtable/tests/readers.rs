//! Readers beside the writer.

use super::*;
use crate::base::rng::Rng;

/// A writer and readers at once. Version `v` of key `k` has a sequence number that both tell, so that
/// readers know what they must find at any published one.
#[test]
fn readers_beside_the_writer() {
    const KEYS: u64 = if cfg!(miri) { 20 } else { 3000 };
    const ROUNDS: u64 = if cfg!(miri) { 3 } else { 30 };
    fn key(k: u64) -> [u8; 8] {
        k.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
    }
    fn newest(k: u64, at: SeqNo) -> Option<SeqNo> {
        let round = at.checked_sub(k + 1)? / KEYS;
        Some(round * KEYS + k + 1)
    }
    fn check(k: u64, at: SeqNo, found: Found<'_>) {
        assert_eq!(Some(found.seqno), newest(k, at));
        assert_eq!(found.value, vec![k as u8; found.seqno as usize % 100]);
    }
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    let visible = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (table, visible, pins) = (&table, &visible, &pins);
            scope.spawn(move || {
                let mut rng = Rng::new(reader);
                let mut at = 0;
                while at < KEYS * ROUNDS {
                    at = visible.load(Ordering::Acquire);
                    for _ in 0..100 {
                        let k = rng.below(KEYS);
                        let mut copy = ValueCopy::new();
                        let key = key(k);
                        match table.peek(&key, at, &mut copy) {
                            Peek::Absent => assert_eq!(newest(k, at), None),
                            Peek::Newest(found) => check(k, at, found),
                            Peek::Unclear => {
                                let pin = pins.pin(visible);
                                let found = table.versions(&key, &pin).next();
                                assert_eq!(found.is_some(), newest(k, pin.seqno()).is_some());
                                found.inspect(|found| check(k, pin.seqno(), *found));
                            }
                        }
                    }
                    if rng.below(4) > 0 {
                        continue;
                    }
                    let pin = pins.pin(visible);
                    at = pin.seqno();
                    let mut cursor = table.cursor(pin.clone(), false);
                    cursor.first().unwrap();
                    let mut seen = 0;
                    let mut last: Option<(Vec<u8>, Reverse<SeqNo>)> = None;
                    while let Some((key, _)) = cursor.entry() {
                        let place = (key.user_key.to_vec(), Reverse(key.seqno));
                        assert!(last.as_ref().is_none_or(|last| *last < place));
                        assert!(key.seqno <= at);
                        seen += u64::from(last.is_none_or(|(last, _)| last != place.0));
                        last = Some(place);
                        cursor.next().unwrap();
                    }
                    assert_eq!(seen, at.min(KEYS));
                    let mut keys = 0;
                    cursor.last().unwrap();
                    while let Some((key, _)) = cursor.entry() {
                        keys += u64::from(table.versions(key.user_key, &pin).next().is_some());
                        cursor.prev().unwrap();
                    }
                    assert_eq!(keys, at.min(KEYS));
                }
            });
        }
        for seqno in 1..=KEYS * ROUNDS {
            let k = (seqno - 1) % KEYS;
            let value = vec![k as u8; seqno as usize % 100];
            let held = pins.try_hold();
            let overwrite = held.as_ref().map(|held| held.overwrite());
            let key = key(k);
            let version = InternalKey::new(&key, seqno, ValueKind::Put);
            writer.insert(version, &value, overwrite);
            visible.store(seqno, Ordering::Release);
        }
    });
}
