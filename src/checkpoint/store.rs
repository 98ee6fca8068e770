//! Where checkpoints are kept: immutable objects under names that are never used twice.
//!
//! ```text
//! <root>/shared/<name>          objects: tables, named by content
//! <root>/checkpoints/chk-<n>    the envelope of checkpoint n
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use crate::Fs;
use crate::ReadableFile;
use crate::WritableFile;
use crate::base::bytes::Bytes;
use crate::base::error::Error;
use crate::base::error::ErrorKind;
use crate::base::error::Result;
use crate::base::id::FileNumber;
use crate::base::sync::Arc;
use crate::base::sync::Mutex;

/// Longest name of a shared object in bytes.
pub const NAME_BYTES_MAX: usize = 160;

/// Most files that one name may have left behind half-written before a new attempt is refused.
const LEFTOVERS_MAX: u32 = 1000;

/// The name of a shared object: 1 to 160 of `a-z 0-9 . _ -`, and no leading dot. Never a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharedName(String);

impl SharedName {
    /// The name, if it is one.
    ///
    /// # Errors
    /// `InvalidArgument` if it is none.
    pub fn new(name: &str) -> Result<SharedName> {
        let good = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let len_good = (1..=NAME_BYTES_MAX).contains(&name.len());
        if len_good && !name.starts_with('.') && name.bytes().all(good) {
            return Ok(SharedName(name.to_owned()));
        }
        let shown: String = name.chars().take(40).collect();
        Err(Error::invalid(format!("not a name of an object: {shown:?}")))
    }

    /// The name of a table: its BLAKE3 digest proves the content, its number makes the name unique.
    pub fn of_table(digest: &[u8; 32], number: FileNumber) -> SharedName {
        use std::fmt::Write;
        let mut name = String::with_capacity(96);
        for byte in digest {
            write!(name, "{byte:02x}").expect("writing to a string");
        }
        write!(name, "-{number}").expect("writing to a string");
        SharedName(name)
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SharedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a store holds. `Display` gives its path below the root, with `/` between the parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectName {
    /// The envelope of the checkpoint with this id.
    Checkpoint(u64),
    /// An object that envelopes name.
    Shared(SharedName),
}

/// The directories below the root.
const CHECKPOINTS: &str = "checkpoints";
const SHARED: &str = "shared";

impl ObjectName {
    /// The inverse of `Display`; `None` for anything else.
    pub fn parse(path: &str) -> Option<ObjectName> {
        let (dir, name) = path.split_once('/')?;
        let object = match dir {
            CHECKPOINTS => ObjectName::Checkpoint(name.strip_prefix("chk-")?.parse().ok()?),
            SHARED => ObjectName::Shared(SharedName::new(name).ok()?),
            _ => return None,
        };
        (object.to_string() == path).then_some(object)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectName::Checkpoint(id) => write!(f, "{CHECKPOINTS}/chk-{id}"),
            ObjectName::Shared(name) => write!(f, "{SHARED}/{name}"),
        }
    }
}

/// An object of a store and its length in bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    /// Its name.
    pub name: ObjectName,
    /// Its length in bytes.
    pub len: u64,
}

/// Keeps immutable objects. Four calls, all of them blocking, none of which changes an object.
pub trait CheckpointStore: Send + Sync {
    /// Creates an object from the pieces of `source`, whole and durable, or not at all.
    ///
    /// # Errors
    /// `InvalidArgument` if the name exists: then it was not touched, and is durable. An error of
    /// `source`. After any
    /// other error the object may be there or not, as after a request whose answer was lost.
    fn put_new(
        &self,
        name: &ObjectName,
        source: &mut dyn Iterator<Item = Result<Bytes>>,
    ) -> Result<()>;

    /// An object, for reading.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn get(&self, name: &ObjectName) -> Result<Arc<dyn ReadableFile>>;

    /// Everything there is, sorted: checkpoints by id, then objects by name.
    fn list(&self) -> Result<Vec<Stored>>;

    /// Does a list show everything that was put before it, whoever put it? A store of which that is not
    /// known says no, as if nobody had asked: then nothing is deleted because of what a list lacks.
    fn list_is_complete(&self) -> bool {
        false
    }

    /// Deletes an object. No error if there is none: deleting may be repeated.
    fn delete(&self, name: &ObjectName) -> Result<()>;

    /// Where an object lies, if it is a plain file: a restore on the same file system, which means
    /// the very same `Arc`, then links it instead of copying it. Does not say that it is there.
    fn local_path(&self, _name: &ObjectName) -> Option<(&Arc<dyn Fs>, PathBuf)> {
        None
    }
}

/// All bytes of an object.
///
/// # Errors
/// `NotFound` if there is none; `Corruption` if it is longer than `len_max`, before anything is
/// allocated.
pub fn read_object(
    store: &dyn CheckpointStore,
    name: &ObjectName,
    len_max: usize,
) -> Result<Bytes> {
    let object = store.get(name)?;
    match usize::try_from(object.len()) {
        Ok(len) if len <= len_max => object.read_at(0, len),
        _ => Err(Error::corruption(format!("{name} has {} bytes", object.len()))),
    }
}

/// A store in a directory.
///
/// Several processes may put objects at once as long as each checkpoint has one writer; within a
/// process a name is created by exactly one of those who try.
pub struct DirStore {
    fs: Arc<dyn Fs>,
    root: PathBuf,
    /// Held while a finished file gets its name, so that none is replaced.
    publishing: Mutex<()>,
    /// Directories that are yet to be synced since the store was opened, or a put has failed there: what
    /// is seen in them may not be durable.
    doubtful: Mutex<BTreeSet<PathBuf>>,
}

impl DirStore {
    /// Opens the store below `root`, and makes the directories that are missing.
    pub fn open(fs: Arc<dyn Fs>, root: impl Into<PathBuf>) -> Result<DirStore> {
        let root = root.into();
        let mut doubtful = BTreeSet::new();
        for dir in [CHECKPOINTS, SHARED].map(|dir| root.join(dir)) {
            fs.create_dir(&dir)?;
            doubtful.insert(dir);
        }
        doubtful.extend(root.parent().filter(|p| !p.as_os_str().is_empty()).map(Path::to_owned));
        doubtful.insert(root.clone());
        Ok(DirStore { fs, root, publishing: Mutex::default(), doubtful: Mutex::new(doubtful) })
    }

    /// Removes what interrupted writers left behind: files that never became objects. Call it only
    /// while nobody else writes to this store. Returns how many there were.
    pub fn remove_leftovers(&self) -> Result<usize> {
        let mut removed = 0;
        for dir in [CHECKPOINTS, SHARED] {
            let dir = self.root.join(dir);
            for file in self.fs.list(&dir)? {
                if is_leftover(&file.name) {
                    self.fs.remove(&dir.join(&file.name))?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.to_string())
    }

    fn refuse_existing(&self, name: &ObjectName, path: &Path) -> Result<()> {
        match self.fs.open(path) {
            Ok(_) => {
                // Perhaps it was put by someone who failed to make its name durable.
                self.fs.sync_dir(dir_of(path))?;
                Err(Error::invalid(format!("{name} exists")).in_file(path))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// A new file beside the object's, under a name that no object can have.
    fn create_unnamed(&self, path: &Path) -> Result<(PathBuf, Box<dyn WritableFile>)> {
        let mut attempt = 0;
        loop {
            let mut unnamed = path.as_os_str().to_owned();
            unnamed.push(format!("~{attempt}"));
            let unnamed = PathBuf::from(unnamed);
            match self.fs.create(&unnamed) {
                Ok(file) => return Ok((unnamed, file)),
                Err(e) if e.kind() != ErrorKind::InvalidArgument => return Err(e),
                Err(e) if attempt == LEFTOVERS_MAX => return Err(e),
                Err(_) => attempt += 1,
            }
        }
    }

    /// What is put is nowhere durable before the directories above it are.
    fn settle_all(&self) -> Result<()> {
        let mut doubtful = self.doubtful.lock();
        while let Some(dir) = doubtful.first() {
            self.fs.sync_dir(dir)?;
            doubtful.pop_first();
        }
        Ok(())
    }

    /// What is seen in this directory from now on must stay, whoever has put it, or failed to.
    fn settle(&self, dir: &Path) -> Result<()> {
        let mut doubtful = self.doubtful.lock();
        if doubtful.contains(dir) {
            self.fs.sync_dir(dir)?;
            doubtful.remove(dir);
        }
        Ok(())
    }

    fn doubt(&self, dir: &Path) {
        self.doubtful.lock().insert(dir.to_owned());
    }

    fn publish(&self, name: &ObjectName, unnamed: &Path, path: &Path) -> Result<()> {
        let _alone = self.publishing.lock();
        self.refuse_existing(name, path)?;
        self.fs.rename(unnamed, path)
    }
}

fn fill(
    file: &mut dyn WritableFile,
    source: &mut dyn Iterator<Item = Result<Bytes>>,
) -> Result<()> {
    for piece in source {
        file.append(&piece?)?;
    }
    file.sync()
}

fn dir_of(path: &Path) -> &Path {
    path.parent().expect("an object lies in a directory")
}

fn is_leftover(name: &str) -> bool {
    name.contains('~')
}

impl CheckpointStore for DirStore {
    fn put_new(
        &self,
        name: &ObjectName,
        source: &mut dyn Iterator<Item = Result<Bytes>>,
    ) -> Result<()> {
        self.settle_all()?;
        let path = self.path(name);
        self.refuse_existing(name, &path)?;
        let (unnamed, mut file) = self.create_unnamed(&path)?;
        let written = fill(&mut *file, source).and_then(|()| self.publish(name, &unnamed, &path));
        drop(file);
        if let Err(e) = written {
            self.doubt(dir_of(&path));
            // Whatever goes wrong here stays for `remove_leftovers`; the first error matters.
            let _ = self.fs.remove(&unnamed);
            return Err(e);
        }
        self.fs.sync_dir(dir_of(&path)).inspect_err(|_| self.doubt(dir_of(&path)))
    }

    fn get(&self, name: &ObjectName) -> Result<Arc<dyn ReadableFile>> {
        let path = self.path(name);
        // The objects that an envelope names were durable before it was put.
        if let ObjectName::Checkpoint(_) = name {
            self.settle(dir_of(&path))?;
        }
        self.fs.open(&path)
    }

    fn list(&self) -> Result<Vec<Stored>> {
        let mut all = Vec::new();
        for dir in [CHECKPOINTS, SHARED] {
            let path = self.root.join(dir);
            self.settle(&path)?;
            for file in self.fs.list(&path)? {
                // Leftovers, and files of others, are none of ours.
                if let Some(name) = ObjectName::parse(&format!("{dir}/{}", file.name)) {
                    all.push(Stored { name, len: file.len });
                }
            }
        }
        all.sort();
        Ok(all)
    }

    fn list_is_complete(&self) -> bool {
        true // a directory is
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        let path = self.path(name);
        match self.fs.remove(&path) {
            Ok(()) => self.fs.sync_dir(dir_of(&path)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn local_path(&self, name: &ObjectName) -> Option<(&Arc<dyn Fs>, PathBuf)> {
        Some((&self.fs, self.path(name)))
    }
}

#[cfg(test)]
mod tests;
