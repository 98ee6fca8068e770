//! Versions of real small tables against the naive reading of their entries: clip, then read.

use quickcheck::quickcheck;

use super::*;
use crate::base::error::ErrorKind;
use crate::base::id::{FileId, FileNumber};
use crate::base::key::{InternalKey, SEQNO_MAX, ValueKind, successor};
use crate::base::rng::Rng;
use crate::fs::Fs;
use crate::fs::memory::MemFs;
use crate::iter::range_del::RangeTombstone;
use crate::iter::resolve::MergeOperator;
use crate::iter::{InternalIterator, VecIterator};
use crate::table::{TableBuilder, TableOptions};
use crate::version::file::TableOpener;
use crate::version::tests::opener;

type Entry = (Vec<u8>, SeqNo, ValueKind, Vec<u8>);

/// What one file shows: everything outside its bounds is gone.
#[derive(Clone, Default)]
struct Shown {
    entries: Vec<Entry>,
    tombstones: Vec<RangeTombstone>,
}

/// A tree, and what each of its files shows.
struct World {
    version: Version,
    /// By level, in the level's order.
    shown: Vec<Vec<Shown>>,
    opener: Arc<TableOpener>,
    edit: FamilyEdit,
}

struct Append;

impl MergeOperator for Append {
    fn name(&self) -> &str {
        "append"
    }
    fn merge(
        &self,
        _: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.extend_from_slice(base.unwrap_or(b""));
        operands.iter().for_each(|operand| out.extend_from_slice(operand));
        Ok(())
    }
}

/// All keys there are, with neighbours that differ by one zero byte.
fn keys() -> Vec<Vec<u8>> {
    let plain = (b'a'..=b'p').map(|c| vec![c]);
    let mut keys: Vec<_> = plain.flat_map(|key| [successor(&key), key]).collect();
    keys.sort();
    keys
}

fn any_range(rng: &mut Rng, keys: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
    let a = rng.below(keys.len() as u64 - 1) as usize;
    let b = a + 1 + rng.below((keys.len() - a - 1) as u64) as usize;
    (keys[a].clone(), keys[b].clone())
}

/// What a file holds, with sequence numbers from `seqno` on.
fn content(rng: &mut Rng, keys: &[Vec<u8>], seqno: &mut SeqNo) -> Shown {
    let mut shown = Shown::default();
    for _ in 0..1 + rng.below(25) {
        let key = keys[rng.below(keys.len() as u64) as usize].clone();
        *seqno += 1;
        let kind = match rng.below(6) {
            0 => ValueKind::Delete,
            1 | 2 => ValueKind::Merge,
            _ => ValueKind::Put,
        };
        let value =
            if kind == ValueKind::Delete { Vec::new() } else { format!("<{seqno}>").into() };
        shown.entries.push((key, *seqno, kind, value));
        if rng.below(8) == 0 && keys.len() > 1 {
            let (start, end) = any_range(rng, keys);
            *seqno += 1;
            shown.tombstones.push(RangeTombstone { start, end, seqno: *seqno });
        }
    }
    shown.entries.sort_by(|a, b| (&a.0, b.1).cmp(&(&b.0, a.1)));
    shown
}

fn clip(all: &Shown, bounds: &KeyRange) -> Shown {
    let entries = all.entries.iter().filter(|e| bounds.contains(&e.0)).cloned();
    let tombstones = all.tombstones.iter().filter_map(|t| {
        let part = KeyRange::new(t.start.clone(), Some(t.end.clone())).intersect(bounds);
        let end = part.end.clone()?;
        (!part.is_empty()).then_some(RangeTombstone { start: part.start, end, seqno: t.seqno })
    });
    Shown { entries: entries.collect(), tombstones: tombstones.collect() }
}

fn write(opener: &TableOpener, number: FileNumber, content: &Shown) -> FileMeta {
    let path = opener.path(number);
    let options = TableOptions {
        block_bytes: 64,
        restart_interval: 2,
        key_group_bytes: 0,
        ..TableOptions::default()
    };
    let file = opener.fs.create(&path).unwrap();
    let mut builder = TableBuilder::new(file, &path, FileId::new(4, number), options).unwrap();
    for (key, seqno, kind, value) in &content.entries {
        builder.add(InternalKey::new(key, *seqno, *kind), value).unwrap();
    }
    content.tombstones.iter().for_each(|t| builder.add_range_tombstone(t).unwrap());
    FileMeta::from_table(&builder.finish().unwrap(), number)
}

/// Random levels, oldest first: some files hold much more than they may show.
fn world(rng: &mut Rng) -> World {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    fs.create_dir(std::path::Path::new(crate::version::tests::DIR)).unwrap();
    let (opener, _) = opener(&fs);
    let (keys, mut seqno, mut counter) = (keys(), 0, 1);
    let mut edit = FamilyEdit::default();
    let mut shown = vec![Vec::new(); LEVELS];
    for level in [2, 1] {
        let mut cuts: Vec<usize> = (0..4).map(|_| rng.below(keys.len() as u64) as usize).collect();
        cuts.sort();
        cuts.dedup();
        for cut in cuts.windows(2).map(|pair| pair[0]..pair[1]) {
            let clipped = rng.below(2) == 0;
            let within = if clipped { &keys[..] } else { &keys[cut.clone()] };
            let part = KeyRange::new(keys[cut.start].clone(), Some(keys[cut.end].clone()));
            let all = content(rng, within, &mut seqno);
            counter += 1;
            let meta = write(&opener, FileNumber::new(1, counter), &all);
            if let Some(meta) = meta.clip(&part) {
                shown[level as usize].push(clip(&all, &meta.bounds));
                edit.added.push((level, Arc::new(meta)));
            }
        }
    }
    for _ in 0..rng.below(5) {
        let all = content(rng, &keys, &mut seqno);
        let (start, end) = any_range(rng, &keys);
        let part = match rng.below(2) {
            0 => KeyRange::all(),
            _ => KeyRange::new(start, Some(end)),
        };
        counter += 1;
        let meta = write(&opener, FileNumber::new(1, counter), &all);
        if let Some(meta) = meta.clip(&part) {
            shown[0].insert(0, clip(&all, &meta.bounds));
            edit.added.push((0, Arc::new(meta)));
        }
    }
    let make =
        |meta: &Arc<FileMeta>| Arc::new(TableFile::new(Arc::clone(meta), Arc::clone(&opener)));
    let version = Version::new(levels::empty()).edited(&edit, make).unwrap().0;
    version.check().unwrap();
    World { version, shown, opener, edit }
}

/// All versions of a key that a reader at `at` sees, newest first, and the highest range tombstone.
fn naive(world: &World, key: &[u8], at: SeqNo) -> Option<Vec<u8>> {
    let all = || world.shown.iter().flatten();
    let tombstones = all().flat_map(|shown| &shown.tombstones);
    let covering = tombstones.filter(|t| *t.start <= *key && *key < *t.end && t.seqno <= at);
    let cover = covering.map(|t| t.seqno).max().unwrap_or(0);
    let entries = all().flat_map(|shown| &shown.entries);
    let mut versions: Vec<_> = entries.filter(|e| e.0 == key && e.1 <= at && e.1 > cover).collect();
    versions.sort_by_key(|e| e.1);
    versions.iter().fold(None, |value, (_, _, kind, operand)| match kind {
        ValueKind::Put => Some(operand.clone()),
        ValueKind::Merge => Some([value.unwrap_or_default(), operand.clone()].concat()),
        _ => None,
    })
}

fn get(version: &Version, key: &[u8], at: SeqNo) -> Result<Option<Vec<u8>>> {
    let mut resolver = Resolver::new();
    resolver.reset(at);
    let mut lent = None;
    let step = version.get(key, at, &mut resolver, &mut |value| lent = Some(value.to_vec()))?;
    assert_eq!(lent.is_some(), step == Step::Value);
    match step {
        Step::Value => Ok(lent),
        Step::Absent => Ok(None),
        Step::Merge => Ok(Some(resolver.merged(key, Some(&Append))?.to_vec())),
        Step::More => panic!("the version is the last source"),
    }
}

type Owned = Option<(Vec<u8>, SeqNo, Vec<u8>)>;

fn entry(cursor: &impl InternalIterator) -> Owned {
    cursor.entry().map(|(key, value)| (key.user_key.to_vec(), key.seqno, value.to_vec()))
}

/// Both cursors make the same random moves and must stand on the same entry.
fn assert_moves_alike(
    rng: &mut Rng,
    cursor: &mut impl InternalIterator,
    oracle: &mut impl InternalIterator,
    keys: &[Vec<u8>],
) {
    for _ in 0..60 {
        let key = &keys[rng.below(keys.len() as u64) as usize];
        let target = InternalKey::seek(key, [SEQNO_MAX, rng.below(200)][rng.below(2) as usize]);
        let stands = oracle.entry().is_some();
        let moved = match rng.below(9) {
            0 => cursor.first().and_then(|()| oracle.first()),
            1 => cursor.last().and_then(|()| oracle.last()),
            2 => cursor.seek(target).and_then(|()| oracle.seek(target)),
            3 => cursor.seek_for_prev(key).and_then(|()| oracle.seek_for_prev(key)),
            4..=6 if stands => cursor.next().and_then(|()| oracle.next()),
            7 | 8 if stands => cursor.prev().and_then(|()| oracle.prev()),
            _ => Ok(()),
        };
        moved.unwrap();
        assert_eq!(entry(cursor), entry(oracle));
    }
}

quickcheck! {
    fn clip_then_read_is_read_then_clip(seed: u64) -> bool {
        let rng = &mut Rng::new(seed);
        let world = world(rng);
        let mut keys = keys();
        keys.extend([b"".to_vec(), b"zz".to_vec()]);
        for at in [SEQNO_MAX, rng.below(200), rng.below(100), 0] {
            for key in &keys {
                let got = get(&world.version, key, at).unwrap();
                assert_eq!(got, naive(&world, key, at), "{key:?} at {at}");
            }
        }
        true
    }

    fn cursors_show_the_files_within_their_bounds(seed: u64) -> bool {
        let rng = &mut Rng::new(seed);
        let world = world(rng);
        let mut cursors = Vec::new();
        let fill_cache = rng.below(2) == 0;
        let level0 = world.version.iterators(&KeyRange::all(), fill_cache, |it| cursors.push(it));
        assert_eq!(level0, world.version.runs.len());
        let entries_of = |file: &Arc<TableFile>| {
            let place = world.version.levels[0].iter().position(|f| Arc::ptr_eq(f, file));
            world.shown[0][place.unwrap()].entries.clone()
        };
        let runs = world.version.runs.iter();
        let mut expected: Vec<Vec<Entry>> =
            runs.map(|run| run.iter().flat_map(entries_of).collect()).collect();
        for level in world.shown[1..].iter().filter(|files| !files.is_empty()) {
            expected.push(level.iter().flat_map(|shown| shown.entries.clone()).collect());
        }
        assert_eq!(cursors.len(), expected.len());
        for (cursor, entries) in cursors.iter_mut().zip(expected) {
            assert_moves_alike(rng, cursor, &mut VecIterator::new(entries), &keys());
        }
        true
    }

    fn cursors_of_a_range_are_complete_in_it(seed: u64) -> bool {
        let rng = &mut Rng::new(seed);
        let world = world(rng);
        let (start, end) = any_range(rng, &keys());
        let range = KeyRange::new(start, Some(end));
        let mut cursors = Vec::new();
        let level0 = world.version.iterators(&range, true, |it| cursors.push(it));
        let overlaps = |f: &Arc<TableFile>| f.meta().bounds.overlaps(&range);
        let runs = world.version.runs.iter().filter(|run| run.iter().any(overlaps));
        assert_eq!(level0, runs.count());
        let mut found = Vec::new();
        for cursor in &mut cursors {
            cursor.seek(InternalKey::seek(&range.start, SEQNO_MAX)).unwrap();
            while let Some((key, seqno, _)) = entry(cursor).filter(|e| range.contains(&e.0)) {
                found.push((key, seqno));
                cursor.next().unwrap();
            }
        }
        let all = world.shown.iter().flatten().flat_map(|shown| &shown.entries);
        let mut expected: Vec<_> =
            all.filter(|e| range.contains(&e.0)).map(|e| (e.0.clone(), e.1)).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        true
    }

    fn range_tombstones_are_cut_and_sizes_add_up(seed: u64) -> bool {
        let rng = &mut Rng::new(seed);
        let world = world(rng);
        let version = &world.version;
        for key in keys() {
            let here = KeyRange::new(key.clone(), Some(successor(&key)));
            let found = version.range_tombstones(&here).unwrap();
            let cover = found.iter().map(|t| t.cover(&key, SEQNO_MAX)).max().unwrap_or(0);
            let all = world.shown.iter().flatten().flat_map(|shown| &shown.tombstones);
            let naive = all.filter(|t| t.start <= key && key < t.end).map(|t| t.seqno).max();
            assert_eq!(cover, naive.unwrap_or(0));
        }
        let depth = keys().iter().map(|key| {
            version.levels[0].iter().filter(|f| f.meta().bounds.contains(key)).count()
        }).max();
        assert!(version.overlap_depth_l0() >= depth.unwrap());
        let cut = keys()[rng.below(20) as usize].clone();
        let all = version.approximate_size(&KeyRange::all()).unwrap();
        let left = version.approximate_size(&KeyRange::new(b"".as_slice(), Some(cut.clone())));
        let right = version.approximate_size(&KeyRange::new(cut, None::<Vec<u8>>));
        assert!(left.unwrap() <= all && right.unwrap() <= all);
        all <= (0..LEVELS).map(|level| version.bytes(level)).sum()
    }
}

#[test]
fn a_tombstone_of_another_source_does_not_reach_across_the_clip() {
    // Two imported sources: numbers of the first are much higher, and its tombstone covers all keys.
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    fs.create_dir(std::path::Path::new(crate::version::tests::DIR)).unwrap();
    let (opener, _) = opener(&fs);
    let put = |key: &[u8], seqno| (key.to_vec(), seqno, ValueKind::Put, b"v".to_vec());
    let everything = RangeTombstone { start: b"a".to_vec(), end: b"z".to_vec(), seqno: 1_000_000 };
    let high = Shown { entries: vec![put(b"b", 999_999)], tombstones: vec![everything] };
    let low = Shown { entries: vec![put(b"c", 4), put(b"n", 5)], tombstones: vec![] };
    let half = |a: &[u8], b: &[u8]| KeyRange::new(a, Some(b));
    let high = write(&opener, FileNumber::new(1, 2), &high).clip(&half(b"a", b"m")).unwrap();
    let low = write(&opener, FileNumber::new(1, 3), &low).clip(&half(b"m", b"z")).unwrap();
    assert!(high.clipped && low.clipped);
    assert!(low.clip(&half(b"a", b"b")).is_none());
    for levels in [[0, 0], [0, 1], [1, 1], [1, 2]] {
        let added = vec![(levels[0], Arc::new(high.clone())), (levels[1], Arc::new(low.clone()))];
        let make =
            |meta: &Arc<FileMeta>| Arc::new(TableFile::new(Arc::clone(meta), Arc::clone(&opener)));
        let edit = FamilyEdit { added, ..FamilyEdit::default() };
        let version = Version::new(levels::empty()).edited(&edit, make).unwrap().0;
        assert_eq!(get(&version, b"n", SEQNO_MAX).unwrap(), Some(b"v".to_vec()));
        assert_eq!(get(&version, b"b", SEQNO_MAX).unwrap(), None);
        assert_eq!(get(&version, b"b", 999_999).unwrap(), Some(b"v".to_vec()));
        assert_eq!(get(&version, b"c", SEQNO_MAX).unwrap(), None, "outside its file's bounds");
        assert_eq!(version.overlap_depth_l0(), levels.iter().filter(|l| **l == 0).count().min(1));
    }
}

#[test]
fn a_table_that_is_missing_short_or_another_is_refused() {
    let world = world(&mut Rng::new(5));
    let (_, meta) = world.edit.added.last().unwrap().clone();
    let open = |meta: FileMeta| {
        let file = TableFile::new(Arc::new(meta), Arc::clone(&world.opener));
        file.table().map(|_| ()).map_err(|e| e.kind())
    };
    assert_eq!(open((*meta).clone()), Ok(()));
    let spoils: [fn(&mut FileMeta); 7] = [
        |m| m.number = FileNumber::new(1, 999),
        |m| m.len += 1,
        |m| m.id = FileId::new(8, m.number),
        |m| m.seqno_max += 1,
        |m| m.range_deletes += 1,
        |m| m.bounds = KeyRange::all(),
        |m| m.number = FileNumber::new(1, m.number.counter() - 1),
    ];
    for (i, spoil) in spoils.iter().enumerate() {
        let mut bad = (*meta).clone();
        spoil(&mut bad);
        assert_eq!(open(bad), Err(ErrorKind::Corruption), "{i}");
    }
}

#[test]
fn the_last_owner_of_an_obsolete_file_reports_it() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    fs.create_dir(std::path::Path::new(crate::version::tests::DIR)).unwrap();
    let (opener, obsolete) = opener(&fs);
    let key = (b"k".to_vec(), 1, ValueKind::Put, b"v".to_vec());
    let number = FileNumber::new(1, 2);
    let meta = write(&opener, number, &Shown { entries: vec![key], tombstones: vec![] });
    let file = Arc::new(TableFile::new(Arc::new(meta), opener));
    let mut cursor = ClippedIterator::new(Arc::clone(&file), true);
    cursor.first().unwrap();
    file.mark_obsolete();
    drop(file);
    assert!(obsolete.try_recv().is_err(), "a cursor still reads it");
    assert!(cursor.entry().is_some());
    drop(cursor);
    assert_eq!(obsolete.try_recv(), Ok(number));
}

#[test]
fn what_scans_asked_is_forgotten_when_level_0_is_merged() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    fs.create_dir(std::path::Path::new(crate::version::tests::DIR)).unwrap();
    let (opener, _) = opener(&fs);
    let shown = |seqno| Shown {
        entries: vec![(b"k".to_vec(), seqno, ValueKind::Put, b"v".to_vec())],
        tombstones: vec![],
    };
    let metas: Vec<_> = (1..=3)
        .map(|i| Arc::new(write(&opener, FileNumber::new(1, i), &shown(u64::from(i)))))
        .collect();
    let file = |meta: &Arc<FileMeta>| Arc::new(TableFile::new(Arc::clone(meta), opener.clone()));
    let edit = |version: &Version, added: &[(u8, u32)], removed: &[(u8, u32)]| {
        let added = added.iter().map(|&(level, i)| (level, metas[i as usize - 1].clone()));
        let removed = removed.iter().map(|&(level, i)| (level, FileNumber::new(1, i)));
        let edit = FamilyEdit {
            added: added.collect(),
            removed: removed.collect(),
            ..FamilyEdit::default()
        };
        version.edited(&edit, file).unwrap().0
    };
    let first = edit(&Version::new(levels::empty()), &[(6, 1), (0, 2)], &[]);
    assert_eq!(first.ask_runs(3), (0, 2));
    let flushed = edit(&first, &[(0, 3)], &[]);
    assert_eq!(flushed.ask_runs(2), (2, 3), "a flush forgets nothing");
    assert_eq!(edit(&flushed, &[(5, 1)], &[(6, 1)]).asked(), 3, "nor what happens below");
    assert_eq!(edit(&flushed, &[(1, 2)], &[(0, 2)]).asked(), 0);
    flushed.forget_asked();
    assert_eq!(flushed.asked(), 0);
}
