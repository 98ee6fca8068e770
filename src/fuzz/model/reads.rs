//! Reads of every kind, each compared with the maps.

use std::ops::Bound;
use std::rc::Rc;

use crate::base::error::Result;
use crate::base::id::FamilyId;
use crate::base::key::KeyRange;
use crate::base::sync::Arc;
use crate::db::scan::Scan;
use crate::fuzz::model::machine::{HeldReader, Machine, remove};
use crate::fuzz::model::plain::{Map, State, fold};

/// Most readers at once.
const READERS_MAX: usize = 4;

/// A scan that stays open, and what it shows whatever happens meanwhile.
pub(super) struct HeldScan {
    scan: Scan,
    id: FamilyId,
    range: KeyRange,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// -1: before the first; the number of entries: behind the last. Unknown after an error.
    place: Option<isize>,
}

fn entries(map: &Map, range: &KeyRange) -> Vec<(Vec<u8>, Vec<u8>)> {
    let within = map.iter().filter(|(key, _)| range.contains(key));
    within.map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl HeldScan {
    fn new(scan: Scan, id: FamilyId, map: &Map, range: KeyRange) -> HeldScan {
        HeldScan { scan, id, entries: entries(map, &range), range, place: Some(-1) }
    }

    /// Moves the cursor, and the place where it should stand then.
    fn go(&mut self, how: u8, key: &[u8]) -> Result<bool> {
        let len = self.entries.len() as isize;
        let below = |inclusive: bool| {
            let before = |k: &[u8]| if inclusive { k <= key } else { k < key };
            self.entries.partition_point(|(k, _)| before(k)) as isize
        };
        // After an error only an absolute move says where one is.
        let (place, how) = match self.place {
            Some(place) => (place, how % 8),
            None => (0, how % 4),
        };
        let (place, moved) = match how {
            0 => (0, self.scan.first()),
            1 => (len - 1, self.scan.last()),
            2 => (below(false), self.scan.seek(key)),
            3 => (below(true) - 1, self.scan.seek_for_prev(key)),
            4 | 5 => ((place + 1).min(len), self.scan.next()),
            6 => ((place - 1).max(-1), self.scan.prev()),
            _ => {
                self.scan.to_end();
                (len, Ok(false))
            }
        };
        self.place = moved.is_ok().then_some(place);
        let found = moved?;
        let expected = usize::try_from(place).ok().and_then(|i| self.entries.get(i));
        let expected = expected.map(|(key, value)| (key.as_slice(), value.as_slice()));
        assert_eq!((found, self.scan.entry()), (expected.is_some(), expected));
        if let Some(expected) = expected {
            assert_eq!((self.scan.key(), self.scan.value()), expected);
        }
        Ok(found)
    }

    /// All of it, forward and then backward.
    fn drain(&mut self) -> Result<()> {
        self.place = Some(-1);
        let mut found = self.go(0, &[])?;
        while found {
            found = self.go(4, &[])?;
        }
        self.go(7, &[])?;
        found = self.go(6, &[])?;
        while found {
            found = self.go(6, &[])?;
        }
        Ok(())
    }
}

impl Machine {
    pub(super) fn get(&mut self, place: usize, key: &[u8]) {
        let Some(family) = self.family(place) else { return };
        let before = self.before();
        // The oldest first: what is cached for it must not be shown to those that come after.
        for (snapshot, state) in &self.snapshots {
            let expected = self.map_at(state, place).get(key).cloned();
            let found = self.db().get_at(&family, snapshot, key);
            if let Some(found) = self.tolerate_read(before, found) {
                assert_eq!(found, expected, "at {snapshot:?}, {key:?}");
            }
            let lent = self.db().get_at_with(&family, snapshot, key, |found| {
                assert_eq!(found, expected.as_deref(), "at {snapshot:?}, {key:?}");
            });
            self.tolerate_read(before, lent);
        }
        let found = self.tolerate_read(before, self.db().get(&family, key));
        if let Some(found) = found {
            assert_eq!(found.as_ref(), self.map_at(&self.now, place).get(key), "now, {key:?}");
            self.note("get", found.as_deref());
        }
        let expected = self.map_at(&self.now, place).get(key).cloned();
        let lent = self.db().get_with(&family, key, |found| assert_eq!(found, expected.as_deref()));
        self.tolerate_read(before, lent);
    }

    /// The values of these keys.
    pub(super) fn multi_get(&self, place: usize, keys: &[Vec<u8>]) -> Vec<Option<Vec<u8>>> {
        let Some(family) = self.family(place) else { return Vec::new() };
        let borrowed: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let mut found = Vec::new();
        let before = self.before();
        let read = self.db().multi_get(&family, &borrowed, |i, value| {
            assert_eq!(i, found.len(), "in the order of the keys");
            found.push(value.map(<[u8]>::to_vec));
        });
        if self.tolerate_read(before, read).is_some() {
            assert_eq!(found.len(), keys.len());
        }
        let map = self.map_at(&self.now, place);
        for (key, found) in keys.iter().zip(&found) {
            assert_eq!(found.as_ref(), map.get(key), "{key:?}");
        }
        found
    }

    /// How operands are split is the engine's matter; together they are the value.
    pub(super) fn get_operands(&mut self, place: usize, key: &[u8]) {
        let Some(family) = self.family(place) else { return };
        let before = self.before();
        let folded = self.db().get_operands(&family, key, |base, operands| {
            let mut folded = Vec::new();
            fold(base, operands, &mut folded);
            (base.is_some() || !operands.is_empty()).then_some(folded)
        });
        if let Some(folded) = self.tolerate_read(before, folded) {
            assert_eq!(folded.as_ref(), self.map_at(&self.now, place).get(key), "{key:?}");
            self.note("get_operands", folded.as_deref());
        }
    }

    pub(super) fn open_reader(&mut self, place: usize) {
        let Some(family) = self.family(place) else { return };
        if self.readers.len() < READERS_MAX {
            let reader = self.db().reader(&family).expect("a live family");
            self.readers.push(HeldReader { reader, id: family.id() });
        }
    }

    pub(super) fn read(&mut self, choice: u8, key: &[u8], then: u8) {
        let Some(mut held) = remove(&mut self.readers, choice) else { return };
        let expected = self.map_of(held.id).get(key).cloned();
        let before = self.before();
        let lent = held.reader.get_with(key, |found| assert_eq!(found, expected.as_deref()));
        self.tolerate_read(before, lent);
        for (snapshot, state) in &self.snapshots {
            let content = state.iter().flatten().find(|content| content.id == held.id);
            let expected = content.and_then(|content| content.map.get(key)).cloned();
            // What a family held at a snapshot is not known for one that was dropped before it.
            if content.is_some() || !self.gone.iter().any(|gone| gone.id == held.id) {
                let lent = held.reader.get_at(snapshot, key, |found| {
                    assert_eq!(found, expected.as_deref());
                });
                self.tolerate_read(before, lent);
            }
        }
        self.note("read", expected.as_deref());
        match then % 8 {
            0 => return,
            1 | 2 => held.reader.release(),
            _ => {}
        }
        self.readers.push(held);
    }

    pub(super) fn open_scan(
        &mut self,
        place: usize,
        start: &[u8],
        end: &[u8],
        how: u8,
        choice: u8,
    ) {
        let Some(family) = self.family(place) else { return };
        let held = match self.snapshots.len() {
            0 => None,
            count => self.snapshots.get(usize::from(choice) % (count + 1)),
        };
        let (range, bounds) = match how % 4 {
            0 => (
                KeyRange::new(start, Some(end)),
                Some((Bound::Included(start), Bound::Excluded(end))),
            ),
            1 => {
                let after = |key: &[u8]| [key, &[0]].concat();
                let range = KeyRange::new(after(start), Some(after(end)));
                (range, Some((Bound::Excluded(start), Bound::Included(end))))
            }
            2 => (KeyRange::prefix(&start[..2]), None),
            _ => (KeyRange::all(), Some((Bound::Unbounded, Bound::Unbounded))),
        };
        let before = self.before();
        let (scan, map) = match (held, bounds) {
            (Some((snapshot, state)), _) => {
                let scan = self.db().scan_range(&family, range.clone(), Some(snapshot));
                (scan, self.map_at(state, place))
            }
            (None, Some(bounds)) => {
                (self.db().scan(&family, bounds), self.map_at(&self.now, place))
            }
            (None, None) => {
                (self.db().scan_prefix(&family, &start[..2]), self.map_at(&self.now, place))
            }
        };
        if how % 4 == 2 {
            let snapshot = held.map(|(snapshot, _)| snapshot);
            let found = self.db().has_prefix(&family, &start[..2], snapshot);
            if let Some(found) = self.tolerate_read(before, found) {
                assert_eq!(found, !entries(&map, &range).is_empty(), "{:?}", &start[..2]);
            }
        }
        if let Some(scan) = self.tolerate_read(before, scan) {
            self.scans.push(HeldScan::new(scan, family.id(), &map, range));
        }
    }

    pub(super) fn move_scan(&mut self, choice: u8, how: u8, key: &[u8]) {
        let Some(mut held) = remove(&mut self.scans, choice) else { return };
        let before = self.before();
        let moved = match how % 16 {
            15 => held.scan.refresh().inspect(|()| {
                held.entries = entries(&self.map_of(held.id), &held.range);
                held.place = Some(-1);
            }),
            14 => held.drain(),
            how => held.go(how, key).map(drop),
        };
        if self.tolerate_read(before, moved).is_none() {
            held.place = None;
        }
        let entry = held.scan.entry().map(|(key, value)| [key, b"=", value].concat());
        self.note("scan", entry.filter(|_| held.place.is_some()).as_deref());
        self.scans.push(held);
    }

    /// Everything, now and at every snapshot, in both directions.
    pub(super) fn check(&self) {
        let mut states: Vec<&State> = vec![&self.now];
        states.extend(self.snapshots.iter().map(|(_, state)| state));
        for (i, state) in states.into_iter().enumerate() {
            let snapshot = i.checked_sub(1).map(|i| &self.snapshots[i].0);
            for place in 0..self.families.len() {
                let Some(family) = &self.families[place] else { continue };
                let map = self.map_at(state, place);
                let before = self.before();
                let scan = self.db().scan_range(family, KeyRange::all(), snapshot);
                let drained = scan.and_then(|scan| {
                    HeldScan::new(scan, family.id(), &map, KeyRange::all()).drain()
                });
                self.tolerate_read(before, drained);
            }
        }
        for place in 0..self.families.len() {
            let keys: Vec<Vec<u8>> = self.map_at(&self.now, place).keys().cloned().collect();
            drop(self.multi_get(place, &keys));
        }
    }

    /// What is held sees at the end what it saw at the beginning; then it is gone.
    pub(super) fn let_go(&mut self) {
        self.check();
        for mut held in std::mem::take(&mut self.scans) {
            let before = self.before();
            let drained = held.drain();
            self.tolerate_read(before, drained);
        }
        self.snapshots.clear();
        self.readers.clear();
        self.checkpoints.clear();
    }

    /// Everything that a family holds.
    pub(super) fn contents(&self, place: usize) -> Result<Rc<Map>> {
        let family = self.families[place].as_ref().expect("open");
        let mut scan = self.db().scan(family, ..)?;
        let mut map = Map::new();
        while scan.next()? {
            map.insert(scan.key().to_vec(), scan.value().to_vec());
        }
        Ok(Rc::new(map))
    }

    /// Calls that tell about a database without showing its keys.
    pub(super) fn look(&mut self, place: usize, start: &[u8], end: &[u8]) {
        let names: Vec<String> = self.db().column_families();
        let open = self.families.iter().flatten();
        let mut expected: Vec<_> = open.map(|f| (f.id(), f.name().to_owned())).collect();
        expected.sort();
        assert_eq!(names, expected.into_iter().map(|(_, name)| name).collect::<Vec<_>>());
        let stats = self.db().stats();
        assert_eq!(stats.families.len(), names.len());
        assert_eq!(stats.snapshots, self.snapshots.len());
        let oldest = self.snapshots.iter().map(|(snapshot, _)| snapshot.seqno()).min();
        assert_eq!(stats.snapshot_oldest, oldest);
        assert_eq!(self.db().path(), self.dir);
        assert!(Arc::ptr_eq(self.db().env().fs(), &self.fs), "another file system");
        if let Some(family) = self.family(place) {
            let before = self.before();
            let (part, all) = (
                self.db().approximate_size(&family, start..end),
                self.db().approximate_size(&family, ..),
            );
            if let (Some(part), Some(all)) =
                (self.tolerate_read(before, part), self.tolerate_read(before, all))
            {
                assert!(part <= all, "a part of {part} bytes of {all}");
            }
        }
    }

    pub(super) fn verify(&mut self) {
        let before = self.before();
        let verified = self.db().verify();
        self.tolerate_read(before, verified);
        let listed = self.disk.fs.list(&self.dir).expect("the directory is there");
        assert!(listed.iter().any(|file| file.name == "CURRENT"));
    }
}
