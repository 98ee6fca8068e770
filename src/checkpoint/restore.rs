//! Restoring: everything is fetched and verified, and only then does a database appear. Up to that all
//! that can be done beside the verification is.
//!
//! A database is made of all parts that intersect its key groups, each clipped to the groups that
//! both have; no table is rewritten. What is wrong with a checkpoint is told completely, and no other
//! checkpoint is taken in its place: which one to restore is the caller's decision.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::path::PathBuf;

use xxhash_rust::xxh3::Xxh3;

use crate::Db;
use crate::Env;
use crate::FileLock;
use crate::Fs;
use crate::ImportFamily;
use crate::ImportSource;
use crate::ImportTable;
use crate::Options;
use crate::ReadableFile;
use crate::base::canary::Canary;
use crate::base::error::Error;
use crate::base::error::ErrorKind;
use crate::base::error::Result;
use crate::base::key::KeyRange;
use crate::base::limits::ENVELOPE_BYTES_MAX;
use crate::base::sync::Arc;
use crate::base::sync::Mutex;
use crate::checkpoint::format::Envelope;
use crate::checkpoint::format::ObjectRef;
use crate::checkpoint::format::Part;
use crate::checkpoint::format::PartFamily;
use crate::checkpoint::save::PIECE_BYTES;
use crate::checkpoint::save::Saved;
use crate::checkpoint::store::CheckpointStore;
use crate::checkpoint::store::ObjectName;
use crate::checkpoint::store::read_object;

/// How the names of fetched objects begin. No file of a database has such a name.
const STAGED: &str = "restore-";

/// The file that a directory with a database holds.
const CURRENT: &str = "CURRENT";

/// Bytes that are read at once for a checksum alone: they should still be in the processor's cache
/// when they are summed, and come from memory that the allocator has at hand.
const COMPARED_BYTES: u64 = 64 << 10;

/// The checkpoint with this id. Reads its envelope, and no other object.
///
/// # Errors
/// `NotFound`: there is none. `Corruption`: the envelope is damaged, or another checkpoint's.
/// `Unsupported`: a newer build wrote it.
pub fn load(store: &dyn CheckpointStore, id: u64) -> Result<Saved> {
    let name = ObjectName::Checkpoint(id);
    let bytes = read_object(store, &name, ENVELOPE_BYTES_MAX)?;
    let path = PathBuf::from(name.to_string());
    let (envelope, identity) = Envelope::decode(&bytes).map_err(|e| e.in_file(&path))?;
    if envelope.checkpoint != id {
        let text = format!("this is the envelope of checkpoint {}", envelope.checkpoint);
        return Err(Error::corruption(text).at(0).in_file(&path));
    }
    Ok(Saved::new(envelope, identity, &[]))
}

/// The greatest id of a checkpoint in the store, unread. `None`: there is none.
pub fn latest(store: &dyn CheckpointStore) -> Result<Option<u64>> {
    let ids = store.list()?.into_iter().filter_map(|stored| match stored.name {
        ObjectName::Checkpoint(id) => Some(id),
        ObjectName::Shared(_) => None,
    });
    Ok(ids.max())
}

/// Reads all objects of a checkpoint and compares them with what was saved.
///
/// # Errors
/// One `Corruption` whose text lists everything that is wrong, by object. If nothing is found wrong
/// but something could not be read: the error of reading it.
pub fn verify(store: &dyn CheckpointStore, saved: &Saved) -> Result<()> {
    let mut findings = Findings::default();
    for object in &saved.envelope.objects {
        findings.add(prove(store, object, |_| Ok(())));
    }
    findings.report(saved.id)
}

/// Makes a database in `dir` out of those key groups of a checkpoint. Groups that no part of the
/// checkpoint has are empty.
///
/// Everything that is needed is read and verified before the directory becomes a database. Where the
/// store's objects are files on the file system of `env`, the tables are links to them, verified by
/// their checksums; else they are copied, and verified by their digests too.
/// Sequence numbers of the parts are kept.
///
/// # Errors
/// In all cases the target has no database, unless it had one before; only a failure of the file
/// system after the import has taken effect leaves the whole of it. The directory may be used again.
/// `Corruption`: lists everything that is wrong with the objects needed, as [`verify`] does; or the
/// tables hold other entries of a key group than were there when the checkpoint was saved.
/// `InvalidArgument`: groups out of range, or there is a database. `Busy`: another handle has the
/// directory. `Incompatible`: parts disagree about a merge operator.
pub fn restore(
    store: &dyn CheckpointStore,
    saved: &Saved,
    groups: RangeInclusive<u16>,
    dir: &Path,
    options: Options,
    env: Env,
) -> Result<Db> {
    let envelope = &saved.envelope;
    if groups.is_empty() || u32::from(*groups.end()) >= envelope.max_parallelism {
        return Err(Error::invalid(format!(
            "key groups {} to {}, of {}",
            groups.start(),
            groups.end(),
            envelope.max_parallelism
        )));
    }
    let mut sources = Vec::new();
    for part in &envelope.parts {
        let (first, last) =
            (part.first_group.max(*groups.start()), part.last_group.min(*groups.end()));
        if first <= last {
            sources.push((part, key_range(envelope.prefix_bytes, first, last)));
        }
    }
    let (fs, side) = (Arc::clone(env.fs()), env.clone());
    let (files, copied) = needed(store, saved, &sources, &env)?;
    // The one reads from memory, the other waits for the device: for all but the name `CURRENT`.
    side.beside(
        || compare(&side, store, &files),
        |compare| {
            let mut compare = Some(compare);
            let mut compared =
                || compare.take().map_or_else(Findings::default, |compare| compare());
            let mut staging = Staging::begin(&*fs, dir)?;
            let restored = staging.fetch(store, &copied).and_then(|(mut paths, found)| {
                if found.is_any() {
                    compared().and(found).report(saved.id)?;
                }
                paths.extend(files.iter().map(|file| (file.index, file.path.clone())));
                let sources = sources.iter().map(|(part, clip)| source(part, clip, &paths));
                let sources: Vec<_> = sources.collect();
                staging.lock = None; // the import takes it
                Db::import_if(dir, options, env, &sources, || compared().report(saved.id))
            });
            if Canary::RestoreDeletesSource.is_planted() {
                staging.created.extend(files.iter().map(|file| file.path.clone()));
            }
            staging.remove();
            // An object that is damaged is the reason for whatever else fails.
            restored.or_else(|e| compared().report(saved.id).and(Err(e)))
        },
    )
}

/// The keys of these groups.
fn key_range(prefix_bytes: u8, first: u16, last: u16) -> KeyRange {
    let prefix = |group: u16| match prefix_bytes {
        1 => vec![group as u8],
        _ => group.to_be_bytes().to_vec(),
    };
    KeyRange::new(prefix(first), Some(prefix(last + 1)))
}

/// A part as the database imports it; `paths` says where its objects lie, by their index.
fn source(part: &Part, clip: &KeyRange, paths: &BTreeMap<u32, PathBuf>) -> ImportSource {
    let family = |family: &PartFamily| {
        let tables = family.tables.iter().filter_map(|table| {
            let path = paths.get(&table.object)?.clone(); // else it lies outside the clip
            Some(ImportTable { level: table.level, meta: table.meta.clone(), path })
        });
        ImportFamily {
            name: family.name.clone(),
            merge_operator: family.merge_operator.clone(),
            options: family.options.clone(),
            tables: tables.collect(),
            census: family.census.clone(),
        }
    };
    let families = part.families.iter().map(family).collect();
    ImportSource { seqno: part.seqno, clip: clip.clone(), families }
}

/// An object of an envelope, by its index, and where it lies or will lie.
struct Needed<'a> {
    index: u32,
    object: &'a ObjectRef,
    path: PathBuf,
}

/// The objects that the sources need: those that are files on the file system of `env`, and those that
/// are to be copied.
fn needed<'a>(
    store: &dyn CheckpointStore,
    saved: &'a Saved,
    sources: &[(&Part, KeyRange)],
    env: &Env,
) -> Result<(Vec<Needed<'a>>, Vec<Needed<'a>>)> {
    let mut indices = BTreeSet::new();
    for (part, clip) in sources {
        for table in part.families.iter().flat_map(|family| &family.tables) {
            if ImportTable::bounds(&table.meta)?.overlaps(clip) {
                indices.insert(table.object);
            }
        }
    }
    let (mut files, mut copied) = (Vec::new(), Vec::new());
    for index in indices {
        let object = &saved.envelope.objects[index as usize];
        let local = store.local_path(&ObjectName::Shared(object.name.clone()));
        match local.filter(|(local, _)| Arc::ptr_eq(local, env.fs())) {
            Some((_, path)) => files.push(Needed { index, object, path }),
            None => copied.push(Needed { index, object, path: PathBuf::new() }),
        }
    }
    Ok((files, copied))
}

/// Objects on their way into a directory, which this holds.
struct Staging<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    lock: Option<Box<dyn FileLock>>,
    created: Vec<PathBuf>,
}

impl<'a> Staging<'a> {
    /// Takes the directory, and removes what an earlier attempt left in it.
    fn begin(fs: &'a dyn Fs, dir: &'a Path) -> Result<Staging<'a>> {
        fs.create_dir(dir)?;
        let lock = Some(fs.lock(dir)?);
        let listing = fs.list(dir)?;
        if listing.iter().any(|listed| listed.name == CURRENT) {
            return Err(Error::invalid("the directory holds a database").in_file(dir));
        }
        for listed in listing.iter().filter(|listed| listed.name.starts_with(STAGED)) {
            fs.remove(&dir.join(&listed.name))?;
        }
        Ok(Staging { fs, dir, lock, created: Vec::new() })
    }

    /// Copies and verifies objects; says where each lies, and what is wrong.
    fn fetch(
        &mut self,
        store: &dyn CheckpointStore,
        copied: &[Needed<'_>],
    ) -> Result<(BTreeMap<u32, PathBuf>, Findings)> {
        let (mut paths, mut findings) = (BTreeMap::new(), Findings::default());
        for Needed { index, object, .. } in copied {
            // Once something is wrong, the rest is only looked at.
            if findings.is_any() {
                findings.add(prove(store, object, |_| Ok(())));
                continue;
            }
            let path = self.dir.join(format!("{STAGED}{}", object.name));
            findings.add(self.copy(store, object, &path)?);
            paths.insert(*index, path);
        }
        Ok((paths, findings))
    }

    /// Copies an object to `path`, verified and synced.
    fn copy(
        &mut self,
        store: &dyn CheckpointStore,
        object: &ObjectRef,
        path: &Path,
    ) -> Result<Result<Option<String>>> {
        let mut file = self.fs.create(path)?;
        self.created.push(path.to_owned());
        let mut copied = Ok(());
        let found = prove(store, object, |piece| {
            copied = file.append(piece);
            copied.clone()
        });
        copied?;
        if matches!(found, Ok(None)) {
            file.sync()?;
        }
        Ok(found)
    }

    /// Removes the names; the new database has names of its own for the same files.
    fn remove(self) {
        for path in &self.created {
            let _ = self.fs.remove(path); // else the next restore will, if there is one
        }
        if !self.created.is_empty() {
            let _ = self.fs.sync_dir(self.dir);
        }
    }
}

/// What is wrong with the objects of a checkpoint.
#[derive(Default)]
struct Findings {
    damage: Vec<String>,
    unread: Option<Error>,
}

impl Findings {
    fn add(&mut self, found: Result<Option<String>>) {
        match found {
            Ok(damage) => self.damage.extend(damage),
            Err(e) => drop(self.unread.get_or_insert(e)),
        }
    }

    fn and(mut self, others: Findings) -> Findings {
        self.damage.extend(others.damage);
        self.unread = self.unread.or(others.unread);
        self
    }

    fn is_any(&self) -> bool {
        !self.damage.is_empty() || self.unread.is_some()
    }

    fn report(self, id: u64) -> Result<()> {
        if self.damage.is_empty() {
            return self.unread.map_or(Ok(()), Err);
        }
        let also = self.unread.map(|e| format!("; and not all could be read: {e}"));
        let text = format!("checkpoint {id}: {}", self.damage.join("; "));
        Err(Error::corruption(text + &also.unwrap_or_default()))
    }
}

/// Something about an object, or what is wrong with that.
type Judged<T> = std::result::Result<T, String>;

/// An object of the length that was saved.
fn open(
    store: &dyn CheckpointStore,
    object: &ObjectRef,
) -> Result<Judged<(ObjectName, Arc<dyn ReadableFile>)>> {
    let name = ObjectName::Shared(object.name.clone());
    match store.get(&name) {
        Ok(file) if file.len() == object.len => Ok(Ok((name, file))),
        Ok(file) => Ok(Err(format!("{name} has {} bytes instead of {}", file.len(), object.len))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Err(format!("{name} is missing"))),
        Err(e) => Err(e),
    }
}

/// Compares objects that are files with their checksums, several at the same time.
fn compare(env: &Env, store: &dyn CheckpointStore, files: &[Needed<'_>]) -> Findings {
    let mut largest_first: Vec<usize> = (0..files.len()).collect();
    largest_first.sort_by_key(|&i| Reverse(files[i].object.len));
    let found: Vec<Mutex<Result<Option<String>>>> =
        files.iter().map(|_| Mutex::new(Ok(None))).collect();
    env.in_parallel(files.len(), |n| {
        let i = largest_first[n];
        *found[i].lock() = undamaged(store, files[i].object);
    });
    let mut findings = Findings::default();
    found.into_iter().for_each(|found| findings.add(found.into_inner()));
    findings
}

/// Is the object what was saved, by its checksum? That shows damage, and costs a fifth of a digest.
fn undamaged(store: &dyn CheckpointStore, object: &ObjectRef) -> Result<Option<String>> {
    let mut checksum = Xxh3::new();
    let read = read_through(store, object, COMPARED_BYTES, |piece| {
        checksum.update(piece);
        Ok(())
    })?;
    Ok(judge(read, checksum.digest128() == object.checksum))
}

/// Is the object what was saved, by its digest too? `take` gets the pieces.
///
/// # Errors
/// It could not be read, which says nothing about it; and those of `take`.
fn prove(
    store: &dyn CheckpointStore,
    object: &ObjectRef,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Option<String>> {
    let (mut digest, mut checksum) = (blake3::Hasher::new(), Xxh3::new());
    let read = read_through(store, object, PIECE_BYTES, |piece| {
        digest.update(piece);
        checksum.update(piece);
        take(piece)
    })?;
    let same = digest.finalize().as_bytes() == &object.digest;
    Ok(judge(read, same && checksum.digest128() == object.checksum))
}

/// What is wrong with an object that was read to its end, if anything is.
fn judge(read: Judged<ObjectName>, same: bool) -> Option<String> {
    match read {
        Ok(name) => (!same).then(|| format!("{name} is not what was saved")),
        Err(damage) => Some(damage),
    }
}

/// Reads an object to its end, so many bytes at a time.
///
/// # Errors
/// It could not be read, which says nothing about it; and those of `take`.
fn read_through(
    store: &dyn CheckpointStore,
    object: &ObjectRef,
    piece_bytes: u64,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Judged<ObjectName>> {
    let (name, file) = match open(store, object)? {
        Ok(opened) => opened,
        Err(damage) => return Ok(Err(damage)),
    };
    let mut buffer = vec![0; piece_bytes.min(object.len) as usize];
    let mut offset = 0;
    while offset < object.len {
        let piece = &mut buffer[..piece_bytes.min(object.len - offset) as usize];
        let end = offset + piece.len() as u64;
        match file.read_into(offset, piece) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::Corruption => {
                return Ok(Err(format!("{name} ends before byte {end}")));
            }
            Err(e) => return Err(e),
        }
        take(piece)?;
        offset = end;
    }
    Ok(Ok(name))
}
