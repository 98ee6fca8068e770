//! Writes the golden files with this build's encoders, from fixed seeds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use alluvium::{
    BackendOptions, Clock, Codec, ColumnFamily, ColumnFamilyOptions, Db, DirStore, Env, Fs,
    JobCheckpoint, KeyGroupRange, ListAppend, MemFs, MemoryBudget, Options, PartInput, Result,
    Saved, StateBackend, TtlConfig, WriteBatch, WriteOptions, save_checkpoint,
};

use crate::golden::content::{self, History};
use crate::golden::{CLEAN, Files, Golden, PACKED, STORE, UNCLEAN};

/// The golden files as this build writes them.
///
/// # Errors
/// The engine's, which has none to give here.
pub fn make() -> Result<Golden> {
    let mut golden = Golden { files: Files::new(), expected: BTreeMap::new() };
    let (files, history) = unclean()?;
    add(&mut golden.files, UNCLEAN, files);
    golden.expected.insert(UNCLEAN.to_owned(), history.to_string());
    for (name, codec) in [(CLEAN, Codec::None), (PACKED, Codec::Zstd)] {
        let (files, text) = closed(codec)?;
        add(&mut golden.files, name, files);
        golden.expected.insert(name.to_owned(), text);
    }
    let (files, text) = store()?;
    add(&mut golden.files, STORE, files);
    golden.expected.insert(STORE.to_owned(), text);
    Ok(golden)
}

fn add(all: &mut Files, name: &str, files: Files) {
    all.extend(files.into_iter().map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
}

/// All settings are given, so that another default changes no byte.
pub fn family_options(codec: Codec, lists: bool) -> ColumnFamilyOptions {
    ColumnFamilyOptions {
        memtable_bytes_max: 64 << 10,
        block_bytes: 256,
        restart_interval: 4,
        codecs: [codec; 7],
        zstd_level: 1,
        filter_bits_per_key: 10,
        key_group_bytes: 2,
        l0_depth_trigger: 8,
        l0_scan_bytes: 4 << 10,
        level_bytes_base: 1 << 20,
        level_multiplier: 10,
        file_bytes: 1 << 20,
        merge_operator: lists.then(|| Arc::new(ListAppend) as Arc<_>),
        compaction_filter: None,
        timestamp: None,
    }
}

fn env(fs: &MemFs, seed: u64) -> Env {
    Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(8 << 20), seed)
}

fn files_of(fs: &MemFs, dir: &str) -> Result<Files> {
    let listed = fs.list(Path::new(dir))?.into_iter();
    Ok(listed.map(|file| (file.name.clone(), fs.read(&Path::new(dir).join(file.name)))).collect())
}

/// Key `i`, in one of four key groups.
fn key(i: u8) -> [u8; 5] {
    [0, i % 4, b'k', b'0' + i / 10, b'0' + i % 10]
}

/// Two tables a family, the older one in a deep level, with every kind of operation in them. Calls
/// `after` after each.
fn fill(
    db: &Db,
    plain: &ColumnFamily,
    lists: &ColumnFamily,
    after: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    for i in 0..24 {
        db.put(plain, &key(i), &vec![b'a' + i; usize::from(i % 7) * 3])?;
        after()?;
        db.merge(lists, &key(i % 6), &[1, b'a' + i])?;
        after()?;
    }
    db.compact_range(plain, ..)?;
    db.compact_range(lists, ..)?;
    for i in (1..24).step_by(3) {
        db.put(plain, &key(i), b"newer")?;
        after()?;
        db.merge(lists, &key(i % 6), &[1, b'A' + i])?;
        after()?;
    }
    db.delete(plain, &key(5))?;
    after()?;
    db.delete(lists, &key(2))?;
    after()?;
    db.delete_range(plain, &[0, 2], &[0, 2, b'k', b'1'])?;
    after()?;
    db.flush_all()
}

/// Stopped with the log on: after the tables, batches in several segments; the last ones are not
/// synced.
fn unclean() -> Result<(Files, History)> {
    let fs = MemFs::new();
    let options =
        Options { log: true, log_segment_bytes: 500, log_segments_max: 8, ..Options::default() };
    let db = Db::open(Path::new(UNCLEAN), options, env(&fs, 11))?;
    let plain = db.column_family("plain", family_options(Codec::None, false))?;
    let lists = db.column_family("lists", family_options(Codec::None, true))?;
    let mut history = History::default();
    fill(&db, &plain, &lists, &mut || {
        history.push(content::contents(&db)?);
        Ok(())
    })?;
    for i in 0..22u8 {
        let mut batch = WriteBatch::new();
        batch.put(&plain, &key(i), &[b'0' + i % 10; 9]);
        batch.merge(&lists, &key(i % 7), &[1, b'0' + i % 10]);
        match i % 5 {
            1 => batch.delete(&plain, &key(23 - i)),
            3 => batch.delete_range(&plain, &[0, i % 4], &[0, i % 4, b'k', b'0', b'6']),
            _ => batch.put(&lists, &key(30 + i), b"\x01x"),
        }
        db.write(&batch, WriteOptions { sync: matches!(i, 4 | 9) })?;
        history.push(content::contents(&db)?);
    }
    let files = files_of(&fs, UNCLEAN)?; // as the process dies: all that was written is there
    Ok((files, history))
}

/// Closed in order, at a checkpoint.
fn closed(codec: Codec) -> Result<(Files, String)> {
    let fs = MemFs::new();
    let options = Options { log: false, ..Options::default() };
    let db = Db::open(Path::new(CLEAN), options, env(&fs, 12))?;
    let plain = db.column_family("plain", family_options(codec, false))?;
    let lists = db.column_family("lists", family_options(codec, true))?;
    fill(&db, &plain, &lists, &mut || Ok(()))?;
    let state = content::contents(&db)?;
    drop((plain, lists));
    db.close_at(7)?;
    Ok((files_of(&fs, CLEAN)?, state.to_string()))
}

/// The options of the keyed state in the store.
pub fn backend_options() -> Result<BackendOptions> {
    let mut options = BackendOptions::new(4, KeyGroupRange::new(0, 3)?);
    options.family = family_options(Codec::None, false);
    options.clock = Some(Clock::new(|| 1_000));
    options.ttl.insert("seen".to_owned(), TtlConfig::new(500)?);
    Ok(options)
}

/// Keyed state of all kinds, saved twice: the second checkpoint shares tables with the first.
fn store() -> Result<(Files, String)> {
    let fs = MemFs::new();
    let shared: Arc<dyn Fs> = Arc::new(fs.clone());
    let store = DirStore::open(shared, STORE)?;
    let mut backend =
        StateBackend::<u64>::open("state".as_ref(), backend_options()?, env(&fs, 13))?;
    let mut base = None;
    for id in 1..=2u64 {
        content::write_state(&mut backend, id)?;
        base = Some(save(&store, &backend, id, base.as_ref())?);
    }
    let mut files = Files::new();
    for dir in ["checkpoints", "shared"] {
        let path = format!("{STORE}/{dir}");
        add(&mut files, dir, files_of(&fs, &path)?);
    }
    let text = content::read_store(&files, &mut content::Counts::default())?;
    Ok((files, text))
}

fn save(
    store: &DirStore,
    backend: &StateBackend<u64>,
    id: u64,
    base: Option<&Saved>,
) -> Result<Saved> {
    let set = backend.checkpoint()?.wait()?;
    let job = JobCheckpoint {
        id,
        max_parallelism: 4,
        parts: vec![PartInput { first_group: 0, last_group: 3, set: &set }],
        operator_state: vec![("source".to_owned(), vec![id as u8; 5])],
        user: format!("position {id}").into_bytes(),
    };
    save_checkpoint(store, &job, base)
}
