//! Random lives of a database's file set: replayed, crashed at every operation, damaged byte by byte.

use std::path::Path;

use quickcheck::quickcheck;

use crate::base::coding::Decoder;
use crate::base::error::{ErrorKind, Result};
use crate::base::id::{FamilyId, FileId, FileNumber};
use crate::base::key::KeyRange;
use crate::base::limits::BATCH_BYTES_MAX;
use crate::base::rng::Rng;
use crate::base::sync::{Arc, Receiver, unbounded};
use crate::cache::block_cache::BlockCache;
use crate::cache::budget::MemoryBudget;
use crate::fs::Fs;
use crate::fs::fault::{Effect, Fault, FaultFs, Op};
use crate::fs::memory::MemFs;
use crate::fs::memory::image::Keep;
use crate::log::LogPosition;
use crate::version::current::in_turn;
use crate::version::edit::{CleanMarker, FamilyRecord, VersionEdit};
use crate::version::file::TableOpener;
use crate::version::levels::overlapping;
use crate::version::manifest::{ManifestWriter, Recovered, recover};
use crate::version::meta::FileMeta;
use crate::version::names::FileNumbers;
use crate::version::set::VersionSet;
use crate::version::state::State;

pub(super) const DIR: &str = "/db";

fn open(fs: &Arc<dyn Fs>) -> Result<Recovered> {
    let dir = Path::new(DIR);
    fs.create_dir(dir)?;
    recover(fs, dir, fs.list(dir)?)
}

/// An opener over `fs`, and where it reports obsolete files.
pub(super) fn opener(fs: &Arc<dyn Fs>) -> (Arc<TableOpener>, Receiver<FileNumber>) {
    let budget = MemoryBudget::new(64 << 20);
    let (sweeper, obsolete) = unbounded();
    let opener = TableOpener {
        fs: Arc::clone(fs),
        dir: DIR.into(),
        cache: BlockCache::new(&budget, 32 << 20),
        budget,
        value_bytes_max: 1 << 20,
        sweeper,
    };
    (Arc::new(opener), obsolete)
}

fn file(number: FileNumber, range: (u64, u64), seqnos: (u64, u64)) -> Arc<FileMeta> {
    let key = |n: u64| n.to_be_bytes().to_vec();
    Arc::new(FileMeta {
        number,
        id: FileId::new(1, number),
        len: 1 + seqnos.1,
        digest: [number.counter() as u8; 32],
        checksum: number.counter().into(),
        bounds: KeyRange { start: key(range.0), end: Some(key(range.1)) },
        clipped: range.0.is_multiple_of(2),
        seqno_min: seqnos.0,
        seqno_max: seqnos.1,
        entries: 1,
        deletes: range.1 % 3,
        range_deletes: range.1 % 2,
        timestamps: None,
        timestamp_extractor: None,
    })
}

/// Where one of the families of `state` is, if it has one.
fn any_family(rng: &mut Rng, state: &State) -> Option<FamilyId> {
    let count = state.families.len() as u64;
    (count > 0).then(|| *state.families.keys().nth(rng.below(count) as usize).unwrap())
}

/// An edit as the engine makes them: create, drop, flush, compact, move, and header changes.
fn random_edit(rng: &mut Rng, state: &State, numbers: &FileNumbers) -> VersionEdit {
    let mut edit = VersionEdit::default();
    let last = state.header.last_seqno;
    match (rng.below(12), any_family(rng, state)) {
        (0, _) | (_, None) => edit.created.push(FamilyRecord {
            id: FamilyId(state.header.next_family + rng.below(2) as u32),
            name: format!("family {}", numbers.next()),
            merge_operator: (rng.below(2) == 0).then(|| "append".to_owned()),
            compaction_filter: None,
            options: vec![7; rng.below(3) as usize],
            flushed_seqno: last,
        }),
        (1, Some(id)) if state.families.len() > 1 => edit.dropped.push(id),
        (1 | 2, _) => {
            edit.wal_mode = Some(rng.below(2) == 0);
            edit.last_seqno = Some(last + rng.below(10));
            edit.log_start = Some(numbers.next());
            edit.options = Some(vec![rng.below(9) as u8]);
        }
        (3, _) => {
            let epoch = state.header.epoch;
            edit.clean = Some(CleanMarker { epoch, last_seqno: last, checkpoint_id: rng.below(9) });
        }
        (4..8, Some(id)) => {
            let (start, seqnos) = (rng.below(50), (last + 1, last + 1 + rng.below(5)));
            let range = (start, start + 1 + rng.below(20));
            edit.family(id).added.push((0, file(numbers.next(), range, seqnos)));
            edit.family(id).flushed_seqno = Some(seqnos.1);
        }
        (8 | 9, Some(id)) => compact(rng, state, id, numbers, &mut edit),
        (_, Some(id)) => {
            let levels = &state.families[&id].levels;
            let family = edit.family(id);
            if let Some(moved) = levels[1].first()
                && overlapping(&levels[2], &moved.bounds).is_empty()
            {
                family.removed.push((1, moved.number));
                family.added.push((2, Arc::clone(moved)));
            }
            family.options = Some(vec![1]);
        }
    }
    edit
}

/// All files of levels 0 and 1 become a few of level 1.
fn compact(
    rng: &mut Rng,
    state: &State,
    id: FamilyId,
    numbers: &FileNumbers,
    edit: &mut VersionEdit,
) {
    let family = edit.family(id);
    let mut greatest = 0;
    for level in [0, 1] {
        for input in state.families[&id].levels[level].iter() {
            family.removed.push((level as u8, input.number));
            greatest = greatest.max(input.seqno_max);
        }
    }
    let mut start = 0;
    for _ in 0..family.removed.len().min(3) {
        let end = start + 1 + rng.below(30);
        family.added.push((1, file(numbers.next(), (start, end), (0, greatest))));
        start = end + rng.below(2);
    }
}

/// The state without what an open changes.
fn essence(state: &State) -> State {
    let mut state = state.clone();
    state.header.epoch = 1;
    state.header.instance = 0;
    state.header.clean = None;
    state
}

/// An edit may say that the log is durable up to a segment, and nothing of that.
#[test]
fn a_snapshot_says_how_far_the_log_is_durable() {
    let mut state = State::default();
    let log_durable = Some(LogPosition::new(FileNumbers::new(1, 2).next(), 0));
    let (epoch, instance) = (Some(1), Some(1));
    let begin = VersionEdit { snapshot: true, epoch, instance, ..VersionEdit::default() };
    state.apply(&begin).unwrap();
    state.apply(&VersionEdit { log_durable, ..VersionEdit::default() }).unwrap();
    let mut copy = State::default();
    state.snapshot_edits().iter().for_each(|edit| copy.apply(edit).unwrap());
    assert_eq!(copy, state);
    assert_eq!(Some(copy.header.log_durable), log_durable);
}

fn assert_same_files(set: &VersionSet, state: &State) {
    let mut from_set = State::default();
    from_set.apply(&set.snapshot_edit()).unwrap();
    assert_eq!(from_set, *state);
    set.families().values().for_each(|family| family.version.check().unwrap());
}

quickcheck! {
    fn what_was_appended_is_recovered(seed: u64) -> bool {
        let rng = &mut Rng::new(seed);
        let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
        let (opener, obsolete) = opener(&fs);
        let mut expected = State::default();
        let mut gone: Vec<FileNumber> = Vec::new();
        for round in 0..4 {
            let recovered = open(&fs).unwrap();
            assert_eq!(recovered.is_new(), round == 0);
            assert_eq!(recovered.state, expected);
            let epoch = recovered.epoch;
            let mut writer = recovered.start_epoch(rng.next_u64(), &VersionEdit::default(), &mut in_turn).unwrap();
            assert_eq!(writer.number(), Some(FileNumber::new(epoch, 1)));
            let mut set = VersionSet::new(Arc::clone(&opener), writer.state());
            for _ in 0..rng.below(40) {
                let edit = random_edit(rng, writer.state(), writer.numbers());
                assert_eq!(VersionEdit::decode(Decoder::new(&edit.encode())).unwrap(), edit);
                let before: Vec<_> = writer.state().tables().map(|(_, _, f)| f.number).collect();
                writer.append(&edit).unwrap();
                drop(set.install(&edit));
                gone.extend(before.into_iter().filter(|&number| !writer.state().has_table(number)));
                assert_same_files(&set, writer.state());
            }
            expected = writer.state().clone();
        }
        let mut swept: Vec<FileNumber> = obsolete.try_iter().collect();
        gone.sort();
        swept.sort();
        gone == swept
    }

    fn a_long_snapshot_takes_several_records(seed: u64) -> bool {
        let rng = &mut Rng::new(seed);
        let numbers = FileNumbers::new(1, 2);
        let mut state = State::default();
        state.header.epoch = 1;
        let id = FamilyId(0);
        let mut edit = VersionEdit::default();
        edit.created.push(FamilyRecord {
            id,
            name: "wide".to_owned(),
            merge_operator: None,
            compaction_filter: None,
            options: Vec::new(),
            flushed_seqno: 9,
        });
        for n in 0..6 {
            let mut wide = FileMeta::clone(&file(numbers.next(), (n, n + 1), (1, 9)));
            wide.bounds.start.resize(400 << 10, rng.below(9) as u8);
            edit.family(id).added.push((1, Arc::new(wide)));
        }
        edit.clean = Some(CleanMarker { epoch: 1, last_seqno: 9, checkpoint_id: 3 });
        state.apply(&edit).unwrap();
        let edits = state.snapshot_edits();
        let mut replayed = State::default();
        for (i, edit) in edits.iter().enumerate() {
            replayed.apply(edit).unwrap();
            assert_eq!(replayed.header.incomplete, i + 1 < edits.len());
        }
        edits.len() > 1 && replayed == state && replayed.apply(&edits[0]).is_err()
    }
}

/// A life of three openings with a few edits each, until something fails. `seen`: the
/// last state that was acknowledged, and the one that was to follow.
fn live(fs: &Arc<dyn Fs>, seed: u64, seen: &mut (State, State), epochs: &mut u32) -> Result<()> {
    let rng = &mut Rng::new(seed);
    for _ in 0..3 {
        let recovered = open(fs)?;
        assert!(recovered.epoch > *epochs, "epoch {} again", recovered.epoch);
        let mut writer =
            recovered.start_epoch(rng.next_u64(), &VersionEdit::default(), &mut in_turn)?;
        *epochs = writer.numbers().epoch();
        for _ in 0..4 {
            let edit = random_edit(rng, writer.state(), writer.numbers());
            seen.1 = writer.state().clone();
            seen.1.apply(&edit).unwrap();
            writer.append(&edit)?;
            seen.0 = seen.1.clone();
        }
    }
    Ok(())
}

/// Recovers a crashed disk: the state is the one before or after the step that was cut short.
fn assert_recovers(image: &MemFs, seen: &(State, State), epochs: u32, what: &str) -> Recovered {
    let fs: Arc<dyn Fs> = Arc::new(image.clone());
    let recovered = open(&fs).unwrap_or_else(|e| panic!("{what}: {e}"));
    let found = essence(&recovered.state);
    assert!(found == essence(&seen.0) || found == essence(&seen.1), "{what}: another state");
    assert!(recovered.epoch > epochs, "{what}: epoch {} again", recovered.epoch);
    recovered
}

#[test]
fn a_crash_at_any_operation_leaves_the_state_before_or_after() {
    for seed in 0..6 {
        for cut in 0.. {
            let disk = MemFs::new();
            disk.crash_after(Some(cut));
            let fs: Arc<dyn Fs> = Arc::new(disk.clone());
            let (mut seen, mut epochs) = ((State::default(), State::default()), 0);
            let ended = live(&fs, seed, &mut seen, &mut epochs);
            for (keep, tries) in [(Keep::Nothing, 1), (Keep::All, 1), (Keep::Torn, 4)] {
                for image_seed in 0..tries {
                    let what = format!("life {seed}, crash after {cut}, {keep:?} {image_seed}");
                    let image = disk.crash_image(keep, image_seed);
                    let first = assert_recovers(&image, &seen, epochs, &what);
                    crash_again(&image, &first.state, epochs, &what);
                }
            }
            if ended.is_ok() {
                assert!(cut > 50, "the life has many operations");
                break;
            }
        }
    }
}

/// Crashes the recovery as well, at every one of its operations.
fn crash_again(image: &MemFs, state: &State, epochs: u32, what: &str) {
    let seen = (state.clone(), state.clone());
    for cut in 0.. {
        let disk = image.crash_image(Keep::All, 0);
        disk.crash_after(Some(cut));
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let started =
            open(&fs).and_then(|r| r.start_epoch(cut, &VersionEdit::default(), &mut in_turn));
        // An epoch that began has given out numbers.
        let epochs = started.as_ref().map_or(epochs, |writer| writer.numbers().epoch());
        for (keep, seed) in
            [(Keep::Nothing, 0), (Keep::All, 0), (Keep::Torn, cut), (Keep::Torn, 99)]
        {
            let what = format!("{what}, then after {cut}, {keep:?} {seed}");
            assert_recovers(&disk.crash_image(keep, seed), &seen, epochs, &what);
        }
        if disk.ops() < cut {
            break;
        }
    }
}

/// A small database with a few edits in its manifest.
fn small() -> (MemFs, ManifestWriter) {
    let disk = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let writer = open(&fs).unwrap().start_epoch(5, &VersionEdit::default(), &mut in_turn).unwrap();
    (disk, writer)
}

fn fill(writer: &mut ManifestWriter, edits: usize) -> Vec<State> {
    let rng = &mut Rng::new(3);
    let mut states = vec![writer.state().clone()];
    for _ in 0..edits {
        let edit = random_edit(rng, writer.state(), writer.numbers());
        writer.append(&edit).unwrap();
        states.push(writer.state().clone());
    }
    states
}

#[test]
fn every_damaged_byte_is_refused_or_harmless() {
    let (disk, mut writer) = small();
    let states = fill(&mut writer, 6);
    let manifest = format!("{DIR}/{}.manifest", writer.number().unwrap());
    let current = format!("{DIR}/CURRENT");
    for (path, harmless) in [(&manifest, true), (&current, false)] {
        let len = disk.read(Path::new(path)).len();
        for at in 0..len {
            for xor in [1, 0x80, 0xff] {
                let image = disk.crash_image(Keep::All, 0);
                image.corrupt(Path::new(path), at as u64, xor);
                let fs: Arc<dyn Fs> = Arc::new(image);
                match open(&fs) {
                    Ok(recovered) => {
                        assert!(harmless, "{path} @ {at}");
                        assert_eq!(recovered.state, *writer.state(), "{path} @ {at}");
                    }
                    Err(e) => {
                        let kinds = [ErrorKind::Corruption, ErrorKind::Unsupported];
                        assert!(kinds.contains(&e.kind()), "{path} @ {at}: {e}");
                        assert!(e.path().is_some() && e.offset().is_some(), "{e}");
                    }
                }
            }
        }
        for cut in 0..len {
            let image = disk.crash_image(Keep::All, 0);
            image.truncate(Path::new(path), cut as u64);
            let fs: Arc<dyn Fs> = Arc::new(image);
            match open(&fs) {
                Ok(recovered) => assert!(harmless && states.contains(&recovered.state)),
                Err(e) => assert_eq!(e.kind(), ErrorKind::Corruption, "{path} cut to {cut}"),
            }
        }
    }
}

#[test]
fn missing_files_are_named() {
    let (disk, mut writer) = small();
    fill(&mut writer, 30);
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let tables: Vec<_> = writer.state().tables().map(|(_, _, f)| Arc::clone(f)).collect();
    assert!(tables.len() > 2);
    let path = |meta: &FileMeta| format!("{DIR}/{}.sst", meta.number);
    for table in &tables {
        disk.write(Path::new(&path(table)), &vec![0; table.len as usize]);
    }
    open(&fs).unwrap().check_files().unwrap();
    fs.remove(Path::new(&path(&tables[0]))).unwrap();
    disk.truncate(Path::new(&path(&tables[1])), 0);
    let e = open(&fs).unwrap().check_files().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corruption);
    let text = e.to_string();
    assert!(text.contains(&format!("{}.sst is missing", tables[0].number)), "{text}");
    assert!(text.contains(&format!("{}.sst has 0 bytes", tables[1].number)), "{text}");

    let obsolete = |listing: Vec<_>| open(&fs).unwrap().state.obsolete_files(&listing);
    assert!(obsolete(fs.list(Path::new(DIR)).unwrap()).is_empty(), "all of this epoch");
    fs.remove(Path::new(&format!("{DIR}/CURRENT"))).unwrap();
    let e = open(&fs).err().expect("tables without CURRENT");
    assert_eq!(e.kind(), ErrorKind::Corruption);
}

#[test]
fn only_what_is_ours_old_and_dead_is_obsolete() {
    let (disk, mut writer) = small();
    fill(&mut writer, 30);
    let live = writer.state().tables().next().unwrap().2.number;
    drop(writer);
    for name in ["000001-009999.sst", "000001-000900.log", "notes.txt", "000001-009998.manifest"] {
        disk.write(&Path::new(DIR).join(name), b"x");
    }
    disk.write(&Path::new(DIR).join(format!("{live}.sst")), b"x");
    let fs: Arc<dyn Fs> = Arc::new(disk);
    let start = VersionEdit { log_start: Some(FileNumber::new(2, 5)), ..VersionEdit::default() };
    let writer = open(&fs).unwrap().start_epoch(5, &start, &mut in_turn).unwrap();
    let listing = fs.list(Path::new(DIR)).unwrap();
    assert_eq!(writer.state().obsolete_files(&listing), ["000001-000900.log", "000001-009999.sst"]);
    let names: Vec<_> = listing.iter().map(|listed| listed.name.as_str()).collect();
    let left = ["000001-000900.log", "000001-009999.sst", "000002-000001.manifest", "CURRENT"];
    assert!(left.iter().all(|name| names.contains(name)), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.ends_with(".manifest")).count(), 1);
}

#[test]
fn edits_that_do_not_fit_are_refused_before_anything_is_written() {
    let (disk, mut writer) = small();
    fill(&mut writer, 30);
    let id = *writer.state().families.keys().next().unwrap();
    let mut operator = VersionEdit::default();
    operator.family(id).merge_operator = Some("one".to_owned());
    writer.append(&operator).unwrap();
    let before = (writer.state().clone(), disk.ops());
    let record = writer.state().families[&id].record.clone();
    let flushed = writer.state().families[&id].record.flushed_seqno;
    let last = writer.state().header.last_seqno;
    let number = FileNumber::new(1, 90_000);
    let mut bad: Vec<VersionEdit> = Vec::new();
    let mut refuse = |spoil: &dyn Fn(&mut VersionEdit)| {
        let mut edit = VersionEdit::default();
        spoil(&mut edit);
        bad.push(edit);
    };
    refuse(&|e| e.family(id).flushed_seqno = Some(flushed - 1));
    refuse(&|e| e.last_seqno = Some(last - 1));
    refuse(&|e| e.log_start = Some(FileNumber::new(1, 1)));
    refuse(&|e| e.family(FamilyId(999)).flushed_seqno = Some(last));
    refuse(&|e| e.dropped.push(FamilyId(999)));
    refuse(&|e| e.family(id).removed.push((3, number)));
    refuse(&|e| e.family(id).added.push((3, file(number, (1, 2), (1, flushed + 1)))));
    refuse(&|e| e.family(id).added.push((3, file(FileNumber::new(2, 9), (1, 2), (1, 1)))));
    refuse(&|e| {
        e.family(id).added.push((3, file(number, (1, 2), (1, 1))));
        e.family(id).added.push((4, file(number, (1, 2), (1, 1))));
    });
    refuse(&|e| e.snapshot = true);
    refuse(&|e| e.more = true);
    refuse(&|e| e.epoch = Some(9));
    refuse(&|e| {
        e.family(id).flushed_seqno = Some(flushed);
        e.dropped.push(id);
    });
    refuse(&|e| e.family(id).merge_operator = Some("another".to_owned()));
    let create = |e: &mut VersionEdit, id, name: &str| {
        e.created.push(FamilyRecord { id, name: name.to_owned(), ..record.clone() });
    };
    refuse(&|e| create(e, id, "its number is taken"));
    refuse(&|e| create(e, FamilyId(9000), &record.name));
    refuse(&|e| create(e, FamilyId(9000), ""));
    refuse(&|e| create(e, FamilyId(u32::MAX), "the last number"));
    for (i, edit) in bad.iter().enumerate() {
        let e = writer.append(edit).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{i}: {e}");
    }
    assert_eq!(before, (writer.state().clone(), disk.ops()));
}

#[test]
fn a_failed_manifest_is_replaced_by_a_new_one() {
    for op in [Op::Append, Op::Sync] {
        for effect in [Effect::Io, Effect::Short, Effect::NoSpace] {
            let disk = MemFs::new();
            let faults = FaultFs::new(Arc::new(disk.clone()));
            let fs: Arc<dyn Fs> = Arc::new(faults.clone());
            let mut writer =
                open(&fs).unwrap().start_epoch(5, &VersionEdit::default(), &mut in_turn).unwrap();
            fill(&mut writer, 5);
            let old = writer.number();
            faults.plan(Fault::new(op, 0).effect(effect));
            fill(&mut writer, 5);
            assert_eq!(faults.struck(), 1);
            assert_ne!(writer.number(), old, "{op:?} {effect:?}");
            for keep in [Keep::Nothing, Keep::All, Keep::Torn] {
                let image: Arc<dyn Fs> = Arc::new(disk.crash_image(keep, 1));
                assert_eq!(open(&image).unwrap().state, *writer.state());
            }
        }
    }
}

#[test]
fn when_that_fails_too_it_halts_and_reopens_before_or_after() {
    for op in [Op::Create, Op::Append, Op::Sync, Op::Rename, Op::SyncDir] {
        for skip in 0..4 {
            let disk = MemFs::new();
            let faults = FaultFs::new(Arc::new(disk.clone()));
            let fs: Arc<dyn Fs> = Arc::new(faults.clone());
            let mut writer =
                open(&fs).unwrap().start_epoch(5, &VersionEdit::default(), &mut in_turn).unwrap();
            fill(&mut writer, 5);
            let before = writer.state().clone();
            faults.plan(Fault::new(Op::Sync, 0)); // of the old manifest
            faults.plan(Fault::new(op, skip).sticky());
            let rng = &mut Rng::new(8);
            let edit = random_edit(rng, writer.state(), writer.numbers());
            let mut after = before.clone();
            after.apply(&edit).unwrap();
            match writer.append(&edit) {
                Ok(()) => assert_eq!(*writer.state(), after),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Halted, "{e}");
                    assert!(e.cause().is_some());
                    assert_eq!(*writer.state(), before);
                    faults.clear();
                    assert_eq!(writer.append(&edit).unwrap_err().kind(), ErrorKind::Halted);
                }
            }
            for (keep, seed) in
                [(Keep::Nothing, 0), (Keep::All, 0), (Keep::Torn, 1), (Keep::Torn, 2)]
            {
                let image: Arc<dyn Fs> = Arc::new(disk.crash_image(keep, seed));
                let found = open(&image).unwrap().state;
                assert!(found == before || found == after, "{op:?} {skip} {keep:?}");
            }
        }
    }
}

#[test]
fn without_space_an_edit_did_not_happen_and_the_next_may() {
    let (disk, mut writer) = small();
    fill(&mut writer, 5);
    let reopened = |keep: Keep| {
        let image: Arc<dyn Fs> = Arc::new(disk.crash_image(keep, 0));
        open(&image).unwrap().state
    };
    for spare in [0, 10, 40, 100, 400] {
        let before = writer.state().clone();
        let options = Some(vec![spare as u8; 500]);
        let edit = VersionEdit { options, ..VersionEdit::default() };
        disk.set_capacity(Some(disk.total_bytes() + spare));
        for _ in 0..2 {
            let e = writer.append(&edit).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::NoSpace, "{e}");
            assert_eq!(*writer.state(), before);
            assert_eq!(reopened(Keep::All), before);
        }
        disk.set_capacity(None);
        writer.append(&edit).unwrap();
        assert_ne!(*writer.state(), before);
        assert_eq!(reopened(Keep::Nothing), *writer.state());
    }
}

#[test]
fn an_edit_that_no_record_holds_changes_nothing() {
    let (disk, mut writer) = small();
    let (before, bytes) = (writer.state().clone(), disk.fingerprint());
    for edit in [
        VersionEdit { options: Some(vec![0; BATCH_BYTES_MAX]), ..VersionEdit::default() },
        VersionEdit { more: true, ..VersionEdit::default() },
    ] {
        let e = writer.append(&edit).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");
        assert!(*writer.state() == before && disk.fingerprint() == bytes);
    }
    fill(&mut writer, 1);
}

#[test]
fn a_long_manifest_is_rewritten() {
    let (disk, mut writer) = small();
    let first = writer.number();
    let edit = VersionEdit { options: Some(vec![1; 1 << 20]), ..VersionEdit::default() };
    for _ in 0..8 {
        writer.append(&edit).unwrap();
    }
    assert_ne!(writer.number(), first);
    assert!(disk.total_bytes() < 6 << 20);
    let fs: Arc<dyn Fs> = Arc::new(disk);
    assert_eq!(open(&fs).unwrap().state, *writer.state());
}
