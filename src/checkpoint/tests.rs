//! Checkpoints of real databases, on a disk that crashes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::ColumnFamily;
use crate::ColumnFamilyOptions;
use crate::Db;
use crate::Env;
use crate::FileSet;
use crate::Fs;
use crate::Keep;
use crate::MemFs;
use crate::MemoryBudget;
use crate::MergeOperator;
use crate::Options;
use crate::ReadableFile;
use crate::base::bytes::Bytes;
use crate::base::error::Error;
use crate::base::error::ErrorKind;
use crate::base::error::Result;
use crate::base::rng::Rng;
use crate::base::sync::Arc;
use crate::base::sync::Mutex;
use crate::checkpoint::registry::Registry;
use crate::checkpoint::restore::latest;
use crate::checkpoint::restore::load;
use crate::checkpoint::restore::restore;
use crate::checkpoint::restore::verify;
use crate::checkpoint::save::JobCheckpoint;
use crate::checkpoint::save::PartInput;
use crate::checkpoint::save::Saved;
use crate::checkpoint::save::save;
use crate::checkpoint::store::CheckpointStore;
use crate::checkpoint::store::DirStore;
use crate::checkpoint::store::ObjectName;
use crate::checkpoint::store::SharedName;
use crate::checkpoint::store::Stored;

const GROUPS: u16 = 64;
const FAMILIES: [&str; 3] = ["value", "list", "timer"];

/// What the families hold, key by key.
type Model = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

struct Append;

impl MergeOperator for Append {
    fn name(&self) -> &str {
        "append"
    }

    fn merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.extend_from_slice(base.unwrap_or_default());
        operands.iter().for_each(|operand| out.extend_from_slice(operand));
        Ok(())
    }
}

fn options() -> Options {
    Options { log: false, ..Options::default() }
}

fn env(fs: &Arc<dyn Fs>, seed: u64) -> Env {
    Env::simulated(Arc::clone(fs), MemoryBudget::new(64 << 20), seed)
}

fn disk(fs: &MemFs) -> Arc<dyn Fs> {
    Arc::new(fs.clone())
}

fn store(fs: &Arc<dyn Fs>) -> DirStore {
    DirStore::open(Arc::clone(fs), "store").unwrap()
}

fn key(group: u16, n: u64) -> Vec<u8> {
    [&group.to_be_bytes()[..], &n.to_be_bytes()[6..]].concat()
}

/// A database with its families and what it should hold.
struct State {
    db: Db,
    families: Vec<ColumnFamily>,
    groups: RangeInclusive<u16>,
    model: Model,
}

impl State {
    fn new(fs: &Arc<dyn Fs>, dir: &str, groups: RangeInclusive<u16>, seed: u64) -> State {
        let db = Db::open(Path::new(dir), options(), env(fs, seed)).unwrap();
        State::with(db, groups, Model::new())
    }

    fn with(db: Db, groups: RangeInclusive<u16>, model: Model) -> State {
        let family = |name: &&str| {
            let options = ColumnFamilyOptions {
                memtable_bytes_max: 16 << 10,
                block_bytes: 256,
                file_bytes: 2 << 10,
                l0_depth_trigger: 3,
                level_bytes_base: 16 << 10,
                merge_operator: Some(Arc::new(Append)),
                ..ColumnFamilyOptions::default()
            };
            db.column_family(name, options).unwrap()
        };
        let families = FAMILIES.iter().map(family).collect();
        State { db, families, groups, model }
    }

    /// Writes a random mixture of everything, with steps of the background in between.
    fn churn(&mut self, rng: &mut Rng, writes: usize) {
        let width = u64::from(*self.groups.end() - *self.groups.start()) + 1;
        for _ in 0..writes {
            let f = rng.below(3) as usize;
            let family = &self.families[f];
            let group = self.groups.start() + rng.below(width) as u16;
            let k = key(group, rng.below(8));
            let value = rng.next_u64().to_le_bytes();
            match rng.below(20) {
                0..9 => {
                    self.db.put(family, &k, &value).unwrap();
                    self.model.insert((f, k), value.to_vec());
                }
                9..14 => {
                    self.db.merge(family, &k, &value[..3]).unwrap();
                    self.model.entry((f, k)).or_default().extend_from_slice(&value[..3]);
                }
                14..18 => {
                    self.db.delete(family, &k).unwrap();
                    self.model.remove(&(f, k));
                }
                18 => {
                    let end = key(group, rng.below(10));
                    self.db.delete_range(family, &k, &end).unwrap();
                    self.model.retain(|(g, key), _| *g != f || *key < k || *key >= end);
                }
                _ => drop(self.db.step(rng.next_u64()).unwrap()),
            }
        }
    }

    fn capture(&self) -> FileSet {
        self.db.checkpoint().unwrap().wait().unwrap()
    }

    fn part<'a>(&self, set: &'a FileSet) -> PartInput<'a> {
        PartInput { first_group: *self.groups.start(), last_group: *self.groups.end(), set }
    }

    #[track_caller]
    fn check(&self) {
        let mut seen = Model::new();
        for (f, family) in self.families.iter().enumerate() {
            let mut scan = self.db.scan(family, ..).unwrap();
            while scan.next().unwrap() {
                let (key, value) = (scan.key().to_vec(), scan.value().to_vec());
                let got = self.db.get(family, &key).unwrap();
                assert_eq!(got.as_deref(), Some(&value[..]), "get differs from scan");
                seen.insert((f, key), value);
            }
        }
        assert!(seen == self.model, "{} keys instead of {}", seen.len(), self.model.len());
        self.db.verify().unwrap();
    }
}

fn job<'a>(id: u64, parts: Vec<PartInput<'a>>) -> JobCheckpoint<'a> {
    JobCheckpoint {
        id,
        max_parallelism: GROUPS.into(),
        parts,
        operator_state: vec![("buffer".into(), vec![7])],
        user: b"offset 3".to_vec(),
    }
}

/// The part of a model in these groups.
fn clip(model: &Model, groups: &RangeInclusive<u16>) -> Model {
    let inside = |key: &[u8]| groups.contains(&u16::from_be_bytes([key[0], key[1]]));
    model.iter().filter(|((_, key), _)| inside(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Restores, compares with the model, and goes on working with it.
fn restored(
    fs: &Arc<dyn Fs>,
    saved: &Saved,
    groups: RangeInclusive<u16>,
    dir: &str,
    model: &Model,
) -> State {
    let seed = saved.id * 1000 + dir.bytes().map(u64::from).sum::<u64>();
    let store = store(fs);
    let db = restore(&store, saved, groups.clone(), Path::new(dir), options(), env(fs, seed));
    let state = State::with(db.unwrap(), groups.clone(), clip(model, &groups));
    state.check();
    let names = fs.list(Path::new(dir)).unwrap();
    assert!(names.iter().all(|listed| !listed.name.starts_with("restore-")), "{names:?}");
    state
}

fn objects(store: &dyn CheckpointStore) -> usize {
    let shared = |name: &ObjectName| matches!(name, ObjectName::Shared(_));
    store.list().unwrap().iter().filter(|stored| shared(&stored.name)).count()
}

#[test]
fn what_is_saved_is_restored() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(1));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 1);
    state.churn(rng, 5000);
    let set = state.capture();
    let store = store(&fs);
    assert_eq!(latest(&store).unwrap(), None);
    let saved = save(&store, &job(4, vec![state.part(&set)]), None).unwrap();
    assert_eq!((saved.files_new, saved.files_reused), (set.tables().count(), 0));
    assert_eq!((saved.bytes_new, saved.bytes_total), (set.bytes(), set.bytes()));
    assert_eq!(latest(&store).unwrap(), Some(4));
    let loaded = load(&store, 4).unwrap();
    assert_eq!((&loaded.envelope, loaded.identity), (&saved.envelope, saved.identity));
    assert_eq!(loaded.envelope.user, b"offset 3");
    assert_eq!((loaded.files_new, loaded.files_reused), (0, saved.files_new));
    verify(&store, &loaded).unwrap();
    // The files of both are linked, or, from another disk's view, copied.
    restored(&fs, &loaded, 0..=63, "linked", &state.model);
    let other = disk(&memory);
    let copied = DirStore::open(Arc::clone(&other), "store").unwrap();
    let db = restore(&copied, &loaded, 0..=63, Path::new("copied"), options(), env(&fs, 77));
    let mut copied = State::with(db.unwrap(), 0..=63, state.model.clone());
    copied.check();
    copied.churn(rng, 2000);
    copied.db.compact_range(&copied.families[0], ..).unwrap();
    copied.check();
    assert_eq!(load(&store, 5).unwrap_err().kind(), ErrorKind::NotFound);
    let taken = save(&store, &job(4, vec![]), None).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::InvalidArgument);
    verify(&store, &saved).unwrap();
}

#[test]
fn only_what_the_base_lacks_is_put() {
    let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(2));
    let mut state = State::new(&fs, "a", 0..=63, 2);
    let store = store(&fs);
    state.churn(rng, 5000);
    let set = state.capture();
    let first = save(&store, &job(1, vec![state.part(&set)]), None).unwrap();
    // Nothing changed: nothing is put.
    let same = save(&store, &job(2, vec![state.part(&set)]), Some(&first)).unwrap();
    assert_eq!((same.files_new, same.bytes_new), (0, 0));
    assert_eq!((same.files_reused, same.bytes_total), (first.files_new, set.bytes()));
    // One table more.
    state.db.put(&state.families[0], &key(3, 3), b"x").unwrap();
    state.model.insert((0, key(3, 3)), b"x".to_vec());
    let set = state.capture();
    let third = save(&store, &job(3, vec![state.part(&set)]), Some(&same)).unwrap();
    assert_eq!((third.files_new, third.files_reused), (1, first.files_new));
    let new: u64 = third.bytes_total - first.bytes_total;
    assert_eq!((third.bytes_new, third.bytes_total), (new, set.bytes()));
    assert_eq!(objects(&store), first.files_new + 1);
    // Without a base everything is put again, beside what is there and under other names.
    let full = save(&store, &job(4, vec![state.part(&set)]), None).unwrap();
    assert_eq!((full.files_new, full.files_reused), (set.tables().count(), 0));
    let names = |saved: &Saved| -> Vec<_> {
        saved.envelope.objects.iter().map(|object| object.name.clone()).collect()
    };
    assert!(names(&full).iter().all(|name| !names(&third).contains(name)));
    // A database that was restored shares the tables it was made of.
    let state = restored(&fs, &third, 0..=63, "b", &state.model);
    let set = state.capture();
    let again = save(&store, &job(5, vec![state.part(&set)]), Some(&third)).unwrap();
    assert_eq!((again.files_new, again.files_reused), (0, third.envelope.objects.len()));
    restored(&fs, &again, 0..=63, "c", &state.model);
}

#[test]
fn a_table_for_which_all_names_are_taken_is_refused() {
    let fs = disk(&MemFs::new());
    let state = State::new(&fs, "a", 0..=63, 3);
    state.db.put(&state.families[0], &key(1, 1), b"x").unwrap();
    let (set, store) = (state.capture(), store(&fs));
    let first = save(&store, &job(1, vec![state.part(&set)]), None).unwrap();
    let taken = &first.envelope.objects[0].name;
    for n in 2..=1000 {
        let name = ObjectName::Shared(SharedName::new(&format!("{taken}.{n}")).unwrap());
        store.put_new(&name, &mut std::iter::once(Ok(Bytes::from(vec![1])))).unwrap();
    }
    let refused = save(&store, &job(2, vec![state.part(&set)]), None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    assert_eq!((objects(&store), latest(&store).unwrap()), (1000, Some(1)));
    verify(&store, &first).unwrap();
}

#[test]
fn checkpoints_overlap_with_writes_and_each_other() {
    for seed in 0..8 {
        let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(seed));
        let mut state = State::new(&fs, "a", 0..=63, seed);
        let registry = Registry::open(Arc::new(store(&fs)), 2).unwrap();
        state.churn(rng, 1500);
        let first = (state.db.checkpoint().unwrap(), state.model.clone());
        state.churn(rng, 700);
        let second = (state.db.checkpoint().unwrap(), state.model.clone());
        state.churn(rng, 700);
        // The second may well be complete before the first is asked for.
        let set_2 = second.0.wait().unwrap();
        let saved_2 = registry.save(&job(2, vec![state.part(&set_2)])).unwrap();
        state.churn(rng, 700);
        let set_1 = first.0.wait().unwrap();
        assert!(set_1.seqno() < set_2.seqno());
        // Neither is confirmed: the third shares nothing with either.
        let third = (state.capture(), state.model.clone());
        let saved_3 = registry.save(&job(3, vec![state.part(&third.0)])).unwrap();
        assert_eq!(saved_3.files_reused, 0);
        registry.confirm(&saved_2).unwrap();
        registry.confirm(&saved_3).unwrap();
        let base = registry.base();
        let saved_1 = save(&store(&fs), &job(9, vec![state.part(&set_1)]), base.as_ref()).unwrap();
        restored(&fs, &saved_1, 0..=63, "r1", &first.1);
        restored(&fs, &saved_2, 0..=63, "r2", &second.1);
        restored(&fs, &saved_3, 0..=63, "r3", &third.1);
        state.check();
    }
}

#[test]
fn two_become_three_become_one() {
    for seed in 0..6 {
        let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(seed));
        let store = store(&fs);
        let mut states =
            vec![State::new(&fs, "a0", 0..=31, seed), State::new(&fs, "a1", 32..=63, seed + 100)];
        let mut base: Option<Saved> = None;
        let steps: [&[RangeInclusive<u16>]; 4] =
            [&[0..=20, 21..=42, 43..=63], &[0..=63], &[0..=9, 10..=63], &[5..=12, 40..=40]];
        for (round, ranges) in steps.into_iter().enumerate() {
            for state in &mut states {
                state.churn(rng, 1500);
            }
            let sets: Vec<FileSet> = states.iter().map(State::capture).collect();
            let parts = states.iter().zip(&sets).map(|(state, set)| state.part(set)).rev();
            let id = round as u64 + 1;
            let saved = save(&store, &job(id, parts.collect()), base.as_ref()).unwrap();
            let tables: usize = sets.iter().map(|set| set.tables().count()).sum();
            assert!(saved.envelope.objects.len() <= tables);
            assert_eq!(saved.files_new + saved.files_reused, saved.envelope.objects.len());
            verify(&store, &saved).unwrap();
            let mut model = Model::new();
            states.iter().for_each(|state| model.extend(state.model.clone()));
            states = ranges
                .iter()
                .enumerate()
                .map(|(i, range)| {
                    restored(&fs, &saved, range.clone(), &format!("{id}-{i}"), &model)
                })
                .collect();
            // Before anything is written, a checkpoint of the rescaled job needs no table more.
            let sets: Vec<FileSet> = states.iter().map(State::capture).collect();
            let parts = states.iter().zip(&sets).map(|(state, set)| state.part(set));
            let at_once = save(&store, &job(100 + id, parts.collect()), Some(&saved)).unwrap();
            assert_eq!(at_once.files_new, 0, "one object may be several tables");
            base = Some(at_once);
        }
        for mut state in states {
            state.churn(rng, 1000);
            for family in &state.families {
                state.db.compact_range(family, ..).unwrap();
            }
            state.check();
        }
    }
}

/// One part deletes a range that reaches into groups which it does not own, with a sequence number
/// far above those of the part that owns them.
#[test]
fn a_range_delete_ends_at_its_clip() {
    let fs = disk(&MemFs::new());
    let (mut low, mut high) =
        (State::new(&fs, "low", 32..=63, 1), State::new(&fs, "high", 0..=31, 2));
    for group in 0..GROUPS {
        let state = if group < 32 { &mut high } else { &mut low };
        state.db.put(&state.families[0], &key(group, 1), b"kept").unwrap();
        state.model.insert((0, key(group, 1)), b"kept".to_vec());
    }
    for n in 0..1000 {
        high.db.put(&high.families[1], &key(0, 0), &[n as u8]).unwrap();
    }
    high.db.delete_range(&high.families[0], &key(8, 0), &key(60, 0)).unwrap();
    high.model.retain(|(f, k), _| *f != 0 || *k < key(8, 0));
    high.model.insert((1, key(0, 0)), vec![999u32 as u8]);
    let sets = (low.capture(), high.capture());
    assert!(sets.0.seqno() < sets.1.seqno());
    let store = store(&fs);
    let saved = save(&store, &job(1, vec![low.part(&sets.0), high.part(&sets.1)]), None).unwrap();
    let mut model = low.model.clone();
    model.extend(high.model.clone());
    for (i, groups) in [0..=63, 20..=40, 32..=63, 0..=31].into_iter().enumerate() {
        let state = restored(&fs, &saved, groups, &format!("r{i}"), &model);
        for family in &state.families {
            state.db.compact_range(family, ..).unwrap();
        }
        state.check();
        // And once more, through a checkpoint of the clipped database.
        let set = state.capture();
        let id = 10 + i as u64;
        let saved = save(&store, &job(id, vec![state.part(&set)]), Some(&saved)).unwrap();
        restored(&fs, &saved, state.groups.clone(), &format!("s{i}"), &state.model);
    }
}

#[test]
fn everything_wrong_is_told_and_nothing_is_restored() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(3));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 3);
    state.churn(rng, 5000);
    let set = state.capture();
    let linking = store(&fs);
    let saved = save(&linking, &job(1, vec![state.part(&set)]), None).unwrap();
    let path = |i: usize| Path::new("store/shared").join(saved.envelope.objects[i].name.as_str());
    assert!(saved.envelope.objects.len() > 4);
    let image = memory.crash_image(Keep::All, 0);
    image.corrupt(&path(0), 5, 1);
    image.truncate(&path(2), 17);
    let damaged = disk(&image);
    damaged.remove(&path(3)).unwrap();
    let (linking, copying) = (store(&damaged), store(&disk(&image)));
    let threads = || Env::new(MemoryBudget::new(64 << 20)).with_fs(Arc::clone(&damaged));
    let simulated = || env(&damaged, 9);
    let attempts = [(&linking, threads()), (&linking, simulated()), (&copying, simulated())];
    for (store, env) in attempts {
        let target = Path::new("target");
        let refused = restore(store, &saved, 0..=63, target, options(), env).unwrap_err();
        for error in [refused, verify(store, &saved).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Corruption);
            for (i, object) in saved.envelope.objects.iter().enumerate() {
                let told = error.to_string().contains(object.name.as_str());
                assert_eq!(told, matches!(i, 0 | 2 | 3), "{i}: {error}");
            }
        }
        assert_eq!(damaged.list(target).unwrap(), []);
    }
    for i in [0, 2, 3] {
        image.write(&path(i), &memory.read(&path(i)));
    }
    restored(&damaged, &saved, 0..=63, "target", &state.model);
    // There is a database now.
    let target = Path::new("target");
    let again = restore(&copying, &saved, 0..=63, target, options(), env(&damaged, 10));
    assert_eq!(again.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let outside = restore(&copying, &saved, 0..=64, Path::new("x"), options(), env(&damaged, 11));
    assert_eq!(outside.unwrap_err().kind(), ErrorKind::InvalidArgument);
    // A damaged envelope is a checkpoint that cannot be loaded, not one that is passed over.
    image.corrupt(Path::new("store/checkpoints/chk-1"), 40, 4);
    assert_eq!(latest(&copying).unwrap(), Some(1));
    assert_eq!(load(&copying, 1).unwrap_err().kind(), ErrorKind::Corruption);
    let registry = Registry::open(Arc::new(copying), 1);
    assert_eq!(registry.err().unwrap().kind(), ErrorKind::Corruption);
    assert_eq!(objects(&linking), saved.envelope.objects.len());
}

/// Tables that are linked are only compared with their checksums: that must show every byte.
#[test]
fn every_damaged_byte_of_a_linked_table_is_noticed() {
    let memory = MemFs::new();
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 5);
    state.churn(&mut Rng::new(5), 30);
    let set = state.capture();
    let store = store(&fs);
    let saved = save(&store, &job(1, vec![state.part(&set)]), None).unwrap();
    for object in &saved.envelope.objects {
        let path = Path::new("store/shared").join(object.name.as_str());
        let good = memory.read(&path);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            memory.write(&path, &bad);
            let refused = restore(&store, &saved, 0..=63, Path::new("r"), options(), env(&fs, 6));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corruption, "{object:?} byte {at}");
        }
        memory.write(&path, &good);
    }
    restored(&fs, &saved, 0..=63, "r", &state.model);
}

#[test]
fn whoever_reads_all_compares_digest_and_checksum() {
    let memory = MemFs::new();
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 5);
    state.churn(&mut Rng::new(5), 300);
    let set = state.capture();
    let (linking, copying) = (store(&fs), store(&disk(&memory)));
    let saved = save(&linking, &job(1, vec![state.part(&set)]), None).unwrap();
    let (mut digest, mut checksum) = (saved.clone(), saved.clone());
    digest.envelope.objects[0].digest[31] ^= 1;
    checksum.envelope.objects[0].checksum ^= 1;
    let restore = |store: &DirStore, saved: &Saved, dir: &str| {
        restore(store, saved, 0..=63, Path::new(dir), options(), env(&fs, 6)).map(drop)
    };
    for wrong in [&digest, &checksum] {
        assert_eq!(verify(&linking, wrong).unwrap_err().kind(), ErrorKind::Corruption);
        let copied = restore(&copying, wrong, "copied");
        assert_eq!(copied.unwrap_err().kind(), ErrorKind::Corruption);
    }
    let linked = restore(&linking, &checksum, "linked");
    assert_eq!(linked.unwrap_err().kind(), ErrorKind::Corruption);
    restore(&linking, &digest, "linked").unwrap();
    verify(&copying, &saved).unwrap();
}

#[test]
fn a_table_that_changed_is_not_saved() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(4));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 4);
    state.churn(rng, 5000);
    let set = state.capture();
    let store = store(&fs);
    let last = set.tables().last().unwrap();
    type Damage = fn(&MemFs, &Path);
    let damages: [Damage; 3] = [
        |memory, path| memory.corrupt(path, 3, 1),
        |memory, path| memory.truncate(path, 100),
        |memory, path| memory.remove(path).unwrap(),
    ];
    for damage in damages {
        let whole = memory.read(&last.path);
        damage(&memory, &last.path);
        let error = save(&store, &job(1, vec![state.part(&set)]), None).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(&*last.path)));
        assert_eq!(store.list().unwrap(), []);
        memory.write(&last.path, &whole);
    }
    let overlap = vec![state.part(&set), state.part(&set)];
    let error = save(&store, &job(1, overlap), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(store.list().unwrap(), []);
    save(&store, &job(1, vec![state.part(&set)]), None).unwrap();
}

#[test]
fn only_the_tables_inside_the_clip_are_needed() {
    let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(11));
    let mut state = State::new(&fs, "a", 0..=63, 11);
    state.churn(rng, 8000);
    for family in &state.families {
        state.db.compact_range(family, ..).unwrap();
    }
    let set = state.capture();
    let store = store(&fs);
    let saved = save(&store, &job(1, vec![state.part(&set)]), None).unwrap();
    let inside: Vec<_> = set
        .tables()
        .filter(|table| *table.bounds.start < *key(4, 0))
        .map(|table| table.digest)
        .collect();
    for object in &saved.envelope.objects {
        if !inside.contains(&object.digest) {
            store.delete(&ObjectName::Shared(object.name.clone())).unwrap();
        }
    }
    assert!(inside.len() < objects(&store) + 1 && objects(&store) < saved.files_new / 2);
    restored(&fs, &saved, 0..=3, "r", &state.model);
    let all = restore(&store, &saved, 0..=63, Path::new("s"), options(), env(&fs, 1));
    assert_eq!(all.unwrap_err().kind(), ErrorKind::Corruption);
}

/// A store in which one call goes wrong.
struct Flaky {
    inner: DirStore,
    fate: Mutex<Option<Fate>>,
}

#[derive(Clone, Copy)]
enum Fate {
    /// The request is lost.
    PutLost { envelope: bool },
    /// The request is done, and its answer is lost.
    PutUnanswered { envelope: bool },
    /// The request is done twice: the answer is that of the second.
    PutTwice { envelope: bool },
    /// Deletions are not done.
    DeleteLost,
}

impl CheckpointStore for Flaky {
    fn put_new(
        &self,
        name: &ObjectName,
        source: &mut dyn Iterator<Item = Result<Bytes>>,
    ) -> Result<()> {
        let is_envelope = matches!(name, ObjectName::Checkpoint(_));
        let mut fate = self.fate.lock();
        let lost = Error::new(ErrorKind::Io, "connection reset");
        match *fate {
            Some(Fate::PutLost { envelope }) if envelope == is_envelope => {
                *fate = None;
                Err(lost)
            }
            Some(Fate::PutUnanswered { envelope }) if envelope == is_envelope => {
                self.inner.put_new(name, source)?;
                *fate = None;
                Err(lost)
            }
            Some(Fate::PutTwice { envelope }) if envelope == is_envelope => {
                self.inner.put_new(name, source)?;
                *fate = None;
                self.inner.put_new(name, &mut std::iter::empty())
            }
            _ => self.inner.put_new(name, source),
        }
    }

    fn get(&self, name: &ObjectName) -> Result<Arc<dyn ReadableFile>> {
        self.inner.get(name)
    }

    fn list(&self) -> Result<Vec<Stored>> {
        self.inner.list()
    }

    fn list_is_complete(&self) -> bool {
        self.inner.list_is_complete()
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        match *self.fate.lock() {
            Some(Fate::DeleteLost) => Err(Error::new(ErrorKind::Io, "connection reset")),
            _ => self.inner.delete(name),
        }
    }
}

#[test]
fn answers_that_are_lost_cost_no_data() {
    let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(12));
    let mut state = State::new(&fs, "a", 0..=63, 12);
    state.churn(rng, 1500);
    let set = state.capture();
    let tables = set.tables().count();
    let flaky = Arc::new(Flaky { inner: store(&fs), fate: Mutex::new(None) });
    let registry = Registry::open(Arc::<Flaky>::clone(&flaky), 1).unwrap();
    let attempt = |id, fate| {
        *flaky.fate.lock() = Some(fate);
        registry.save(&job(id, vec![state.part(&set)]))
    };
    // Whether the envelope is there cannot be said, and so nothing is deleted.
    let unknown = attempt(1, Fate::PutLost { envelope: true }).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::CommitUnknown);
    assert_eq!(load(&*flaky, 1).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(objects(&*flaky), tables);
    assert_eq!(registry.sweep().unwrap_err().kind(), ErrorKind::Busy);
    registry.abort(1).unwrap();
    registry.sweep().unwrap();
    assert_eq!(flaky.list().unwrap(), []);
    let unknown = attempt(2, Fate::PutUnanswered { envelope: true }).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::CommitUnknown);
    registry.confirm(&load(&*flaky, 2).unwrap()).unwrap();
    restored(&fs, &registry.base().unwrap(), 0..=63, "r2", &state.model);
    // The store repeats a request by itself.
    let saved = attempt(3, Fate::PutTwice { envelope: true }).unwrap();
    assert_eq!((saved.files_new, saved.files_reused), (0, tables));
    registry.abort(3).unwrap();
    let full = |id, fate| {
        *flaky.fate.lock() = Some(fate);
        save(&*flaky, &job(id, vec![state.part(&set)]), None)
    };
    let saved = full(4, Fate::PutTwice { envelope: false }).unwrap();
    assert_eq!(saved.files_new, tables);
    restored(&fs, &saved, 0..=63, "r4", &state.model);
    // An object of which nobody knows whether it is there is left to the sweep.
    let before = objects(&*flaky);
    for fate in [Fate::PutLost { envelope: false }, Fate::PutUnanswered { envelope: false }] {
        assert_eq!(full(5, fate).unwrap_err().kind(), ErrorKind::Io);
    }
    assert_eq!(objects(&*flaky), before + 1);
    let registry = Registry::open(Arc::<Flaky>::clone(&flaky), 1).unwrap();
    assert_eq!((registry.retained(), objects(&*flaky)), (vec![4], tables));
    // Deletions that fail are made up for.
    *flaky.fate.lock() = Some(Fate::DeleteLost);
    let saved = registry.save(&job(6, vec![])).unwrap();
    assert_eq!(registry.confirm(&saved).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!((registry.retained(), objects(&*flaky)), (vec![6], tables));
    assert_eq!(load(&*flaky, 4).unwrap().id, 4, "still whole");
    *flaky.fate.lock() = None;
    registry.sweep().unwrap();
    assert_eq!(flaky.list().unwrap().len(), 1);
}

/// A store whose lists lack envelopes that were put some time ago.
struct Stale {
    inner: DirStore,
    /// Envelopes from this one on are not listed yet.
    from: Mutex<u64>,
    claims: bool,
}

impl CheckpointStore for Stale {
    fn put_new(
        &self,
        name: &ObjectName,
        source: &mut dyn Iterator<Item = Result<Bytes>>,
    ) -> Result<()> {
        self.inner.put_new(name, source)
    }

    fn get(&self, name: &ObjectName) -> Result<Arc<dyn ReadableFile>> {
        self.inner.get(name)
    }

    fn list(&self) -> Result<Vec<Stored>> {
        let mut all = self.inner.list()?;
        let from = *self.from.lock();
        all.retain(|stored| !matches!(stored.name, ObjectName::Checkpoint(id) if id >= from));
        Ok(all)
    }

    fn list_is_complete(&self) -> bool {
        self.claims
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.inner.delete(name)
    }
}

/// Two checkpoints of one database in a store whose list shows the first envelope only; `claims`: and
/// which says that it shows all.
fn half_listed(claims: bool) -> (Arc<dyn Fs>, Arc<Stale>, State, Vec<Saved>) {
    let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(14));
    let mut state = State::new(&fs, "a", 0..=63, 14);
    let stale = Arc::new(Stale { inner: store(&fs), from: Mutex::new(u64::MAX), claims });
    let mut saved: Vec<Saved> = Vec::new();
    for id in 1..3 {
        state.churn(rng, 900);
        let set = state.capture();
        saved.push(save(&*stale, &job(id, vec![state.part(&set)]), saved.last()).unwrap());
    }
    *stale.from.lock() = 2;
    (fs, stale, state, saved)
}

#[test]
fn a_stale_list_costs_no_checkpoint() {
    let (fs, stale, mut state, saved) = half_listed(false);
    let (rng, model) = (&mut Rng::new(15), state.model.clone());
    let before = stale.inner.list().unwrap();
    let registry = Registry::open(Arc::<Stale>::clone(&stale), 2).unwrap();
    assert_eq!(registry.retained(), [1], "all that is known");
    assert_eq!(registry.sweep().unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(registry.begin(2).unwrap().unwrap().id, 1);
    registry.abort(2).unwrap();
    let attempt = |state: &mut State, id, rng: &mut Rng| {
        state.churn(rng, 300);
        let set = state.capture();
        let saved = registry.save(&job(id, vec![state.part(&set)])).unwrap();
        registry.confirm(&saved).unwrap();
        saved
    };
    // As long as the list shows nothing new, nothing is known to be complete.
    for id in [3, 4] {
        attempt(&mut state, id, rng);
        verify(&*stale, &saved[1]).unwrap();
    }
    assert_eq!(registry.retained(), [1, 3, 4]);
    assert!(stale.inner.list().unwrap().len() > before.len());
    restored(&fs, &saved[1], 0..=63, "r2", &model);
    // Now it does: the second is known, and may go like any other.
    *stale.from.lock() = u64::MAX;
    attempt(&mut state, 5, rng);
    assert_eq!(registry.retained(), [4, 5]);
    let known = |id| load(&*stale, id).map(|saved| verify(&*stale, &saved)).is_ok();
    assert_eq!([1, 2, 3, 4, 5].map(known), [false, false, false, true, true]);
    let kept = [4, 5].map(|id| load(&*stale, id).unwrap().envelope.objects);
    let names: std::collections::BTreeSet<_> = kept.iter().flatten().map(|o| &o.name).collect();
    assert_eq!(objects(&*stale), names.len());
}

/// What the rule is for: a store that claims what is not true loses the second checkpoint.
#[test]
fn a_list_that_claims_to_be_complete_is_believed() {
    let (_, stale, _, saved) = half_listed(true);
    Registry::open(Arc::<Stale>::clone(&stale), 2).unwrap();
    verify(&*stale, &saved[0]).unwrap();
    assert!(verify(&*stale, &saved[1]).is_err());
}

const KEEPS: [Keep; 3] = [Keep::Nothing, Keep::All, Keep::Torn];

#[test]
fn a_crash_while_saving_leaves_all_or_nothing() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(5));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 5);
    state.churn(rng, 1500);
    let (set_1, model_1) = (state.capture(), state.model.clone());
    let first = save(&store(&fs), &job(1, vec![state.part(&set_1)]), None).unwrap();
    state.churn(rng, 300);
    let set = state.capture();
    drop(store(&fs));
    let mut seen = [0; 2];
    for n in 0.. {
        // Every attempt on a disk of its own: the tables of the set are read from the first one.
        let image = memory.crash_image(Keep::All, 0);
        let store_of = |memory: &MemFs| store(&disk(memory));
        let target = store_of(&image);
        image.crash_after(Some(image.ops() + n));
        let saved = save(&target, &job(2, vec![state.part(&set)]), Some(&first));
        let acknowledged = saved.is_ok();
        for (i, keep) in KEEPS.into_iter().enumerate() {
            let after = image.crash_image(keep, n * 3 + i as u64);
            let fs = disk(&after);
            let target = store_of(&after);
            target.remove_leftovers().unwrap();
            let there = load(&target, 2);
            match &there {
                Ok(there) => {
                    let denied = |e: &Error| e.kind() != ErrorKind::CommitUnknown;
                    assert!(!saved.as_ref().err().is_some_and(denied));
                    verify(&target, there).unwrap();
                    restored(&fs, there, 0..=63, "r2", &state.model);
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::NotFound);
                    assert!(!acknowledged);
                }
            }
            seen[usize::from(there.is_ok())] += 1;
            // The first is as good as ever; the registry finds the newest, and clears the rest away.
            restored(&fs, &first, 0..=63, "r1", &model_1);
            let registry = Registry::open(Arc::new(target), 1).unwrap();
            let kept = registry.base().unwrap();
            assert_eq!(kept.id, if there.is_ok() { 2 } else { 1 });
            let target = store_of(&after);
            assert_eq!(objects(&target), kept.envelope.objects.len());
            verify(&target, &kept).unwrap();
        }
        if acknowledged {
            break;
        }
    }
    assert!(seen[0] > 10 && seen[1] > 3, "{seen:?}");
}

#[test]
fn a_crash_while_restoring_leaves_all_or_nothing() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(6));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 6);
    state.churn(rng, 1200);
    let set = state.capture();
    let saved = save(&store(&fs), &job(1, vec![state.part(&set)]), None).unwrap();
    let groups = 3..=50;
    let model = clip(&state.model, &groups);
    let dir = Path::new("target");
    for copy in [false, true] {
        let mut seen = [0; 2];
        for n in 0.. {
            let image = memory.crash_image(Keep::All, 0);
            let fs = disk(&image);
            let source = if copy { store(&disk(&image)) } else { store(&fs) };
            let limit = image.ops() + n;
            image.crash_after(Some(limit));
            let target = restore(&source, &saved, groups.clone(), dir, options(), env(&fs, 1));
            let finished = image.ops() < limit && target.is_ok();
            drop(target);
            for (i, keep) in KEEPS.into_iter().enumerate() {
                let fs = disk(&image.crash_image(keep, n * 3 + i as u64));
                let source = store(&fs);
                verify(&source, &saved).unwrap();
                let names = fs.list(dir).unwrap_or_default();
                let made = names.iter().any(|listed| listed.name == "CURRENT");
                seen[usize::from(made)] += 1;
                if !made {
                    restored(&fs, &saved, groups.clone(), "target", &model);
                    continue;
                }
                // It is not closed, and the log is off; but its files are whole.
                let error = Db::open(dir, options(), env(&fs, 2)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Halted, "{error}");
                let again = restore(&source, &saved, groups.clone(), dir, options(), env(&fs, 3));
                assert_eq!(again.unwrap_err().kind(), ErrorKind::InvalidArgument);
                restored(&fs, &saved, groups.clone(), "elsewhere", &model);
            }
            if finished {
                break;
            }
        }
        assert!(seen[0] > 10 && seen[1] > 3, "{seen:?}");
    }
}

/// All that comes before `CURRENT` is done beside the comparison: a crash at any of it leaves nothing that
/// is taken for a database.
#[test]
fn a_crash_while_a_damaged_checkpoint_is_restored_leaves_no_database() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(6));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 6);
    state.churn(rng, 300);
    let set = state.capture();
    let saved = save(&store(&fs), &job(1, vec![state.part(&set)]), None).unwrap();
    let damaged = Path::new("store/shared").join(saved.envelope.objects[0].name.as_str());
    let (dir, mut named) = (Path::new("target"), 0);
    for n in 0.. {
        let image = memory.crash_image(Keep::All, 0);
        let good = image.read(&damaged);
        let bad: Vec<u8> = good.iter().enumerate().map(|(i, b)| b ^ u8::from(i == 7)).collect();
        image.write(&damaged, &bad);
        let fs = disk(&image);
        let source = store(&fs);
        let limit = image.ops() + n;
        image.crash_after(Some(limit));
        let refused = restore(&source, &saved, 0..=63, dir, options(), env(&fs, 1));
        let finished = image.ops() < limit;
        assert!(refused.is_err_and(|e| e.kind() == ErrorKind::Corruption || !finished));
        for (i, keep) in KEEPS.into_iter().enumerate() {
            let after = image.crash_image(keep, n * 3 + i as u64);
            let fs = disk(&after);
            let names = fs.list(dir).unwrap_or_default();
            assert!(names.iter().all(|listed| listed.name != "CURRENT"), "{names:?}");
            named += usize::from(names.iter().any(|listed| listed.name.ends_with(".sst")));
            assert!(!finished || keep != Keep::All || names.is_empty(), "{names:?}");
            after.write(&damaged, &good);
            restored(&fs, &saved, 0..=63, "target", &state.model);
        }
        if finished {
            break;
        }
    }
    assert!(named > 3, "no crash was between the links and the end");
}

#[test]
fn with_the_log_on_a_restored_database_survives_a_crash() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(7));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 7);
    state.churn(rng, 2000);
    let set = state.capture();
    let store = store(&fs);
    let saved = save(&store, &job(1, vec![state.part(&set)]), None).unwrap();
    let (dir, logged) = (Path::new("target"), Options { log: true, ..Options::default() });
    let db = restore(&store, &saved, 0..=63, dir, logged.clone(), env(&fs, 8)).unwrap();
    for keep in KEEPS {
        let fs = disk(&memory.crash_image(keep, 1));
        let db = Db::open(dir, logged.clone(), env(&fs, 9)).unwrap();
        State::with(db, 0..=63, state.model.clone()).check();
    }
    drop(db);
}

#[test]
fn the_registry_deletes_what_nobody_needs() {
    let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(8));
    let mut state = State::new(&fs, "a", 0..=63, 8);
    let shared = Arc::new(store(&fs));
    let registry = Registry::open(Arc::<DirStore>::clone(&shared), 2).unwrap();
    assert_eq!(registry.base(), None);
    let mut saved = Vec::new();
    let mut models = Vec::new();
    for id in 1..=5 {
        state.churn(rng, 800);
        let set = state.capture();
        let one = registry.save(&job(id, vec![state.part(&set)])).unwrap();
        assert_eq!(registry.save(&job(id, vec![])).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(registry.sweep().unwrap_err().kind(), ErrorKind::Busy);
        registry.confirm(&one).unwrap();
        registry.confirm(&one).unwrap();
        registry.sweep().unwrap();
        saved.push(one);
        models.push(state.model.clone());
        let kept = registry.retained();
        assert_eq!(kept, (id.saturating_sub(1).max(1)..=id).collect::<Vec<_>>());
        let mut names: Vec<_> = kept
            .iter()
            .flat_map(|&id| &saved[id as usize - 1].envelope.objects)
            .map(|object| ObjectName::Shared(object.name.clone()))
            .collect();
        names.sort();
        names.dedup();
        let mut expected: Vec<_> = kept.iter().map(|&id| ObjectName::Checkpoint(id)).collect();
        expected.extend(names);
        let listed: Vec<_> = shared.list().unwrap().into_iter().map(|s| s.name).collect();
        assert_eq!(listed, expected, "after {id}");
    }
    assert!(saved.iter().any(|saved| saved.files_reused > 0));
    // Notices that come late, twice, or to strangers.
    registry.confirm(&saved[0]).unwrap();
    registry.abort(5).unwrap();
    registry.abort(77).unwrap();
    let stranger = Saved { id: 77, ..saved[4].clone() };
    assert_eq!(registry.confirm(&stranger).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(registry.retained(), [4, 5]);
    // An aborted checkpoint takes with it only what it alone has.
    state.churn(rng, 500);
    let set = state.capture();
    let before = shared.list().unwrap();
    let aborted = registry.save(&job(6, vec![state.part(&set)])).unwrap();
    assert!(aborted.files_new > 0);
    registry.abort(6).unwrap();
    registry.abort(6).unwrap();
    assert_eq!(shared.list().unwrap(), before);
    // After a restart: as before, and strays are gone.
    save(&*shared, &job(7, vec![]), None).unwrap();
    shared.put_new(&stray(), &mut std::iter::empty()).unwrap();
    let reopened = Registry::open(Arc::<DirStore>::clone(&shared), 2).unwrap();
    assert_eq!(reopened.retained(), [5, 7]);
    assert!(!shared.list().unwrap().iter().any(|stored| stored.name == stray()));
    restored(&fs, &saved[4], 0..=63, "r5", &models[4]);
}

fn stray() -> ObjectName {
    ObjectName::parse("shared/stray").unwrap()
}

#[test]
fn a_base_is_safe_while_somebody_builds_on_it() {
    let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(9));
    let mut state = State::new(&fs, "a", 0..=63, 9);
    let registry = Registry::open(Arc::new(store(&fs)), 1).unwrap();
    state.churn(rng, 1500);
    let set_1 = state.capture();
    let saved_1 = registry.save(&job(1, vec![state.part(&set_1)])).unwrap();
    registry.confirm(&saved_1).unwrap();
    // 2 and 3 are under way, both on 1; 3 shares nothing with it, and is confirmed first.
    let model_2 = state.model.clone();
    let base_2 = registry.begin(2).unwrap();
    state.churn(rng, 1500);
    for family in &state.families {
        state.db.compact_range(family, ..).unwrap();
    }
    let set_3 = state.capture();
    let saved_3 = registry.save(&job(3, vec![state.part(&set_3)])).unwrap();
    assert_eq!(saved_3.files_reused, 0);
    registry.confirm(&saved_3).unwrap();
    assert_eq!(load(&store(&fs), 1).unwrap_err().kind(), ErrorKind::NotFound);
    let saved_2 = save(&store(&fs), &job(2, vec![state.part(&set_1)]), base_2.as_ref()).unwrap();
    assert_eq!(saved_2.files_new, 0);
    restored(&fs, &saved_2, 0..=63, "r2", &model_2);
    // Confirmed late, it is at once the oldest.
    registry.confirm(&saved_2).unwrap();
    assert_eq!(registry.retained(), [3]);
    assert_eq!(objects(&store(&fs)), saved_3.envelope.objects.len());
    restored(&fs, &saved_3, 0..=63, "r3", &state.model);
}

#[test]
fn a_crash_while_deleting_is_finished_later() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(10));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 10);
    let mut models = Vec::new();
    for id in 1..=3 {
        state.churn(rng, 600);
        let set = state.capture();
        let base = latest(&store(&fs)).unwrap().map(|id| load(&store(&fs), id).unwrap());
        save(&store(&fs), &job(id, vec![state.part(&set)]), base.as_ref()).unwrap();
        models.push(state.model.clone());
    }
    for n in 0.. {
        let image = memory.crash_image(Keep::All, 0);
        let target = Arc::new(store(&disk(&image)));
        image.crash_after(Some(image.ops() + n));
        let done = Registry::open(target, 1).is_ok();
        for (i, keep) in KEEPS.into_iter().enumerate() {
            let after = disk(&image.crash_image(keep, n * 3 + i as u64));
            let target = store(&after);
            // Whatever is listed is whole.
            for stored in target.list().unwrap() {
                if let ObjectName::Checkpoint(id) = stored.name {
                    let saved = load(&target, id).unwrap();
                    restored(&after, &saved, 0..=63, &format!("r{id}"), &models[id as usize - 1]);
                }
            }
            let registry = Registry::open(Arc::new(target), 1).unwrap();
            assert_eq!(registry.retained(), [3]);
            let kept = registry.base().unwrap().envelope.objects.len();
            assert_eq!(objects(&store(&after)), kept);
        }
        if done {
            break;
        }
    }
}
