//! Saving: the tables that the store lacks, then the envelope, whose appearance is the commit.
//!
//! What a failure leaves behind: before the envelope, objects that nothing names, which are deleted
//! at once or by the [`Registry`](crate::Registry) later; with the envelope, either all or nothing
//! of it, and if the store cannot say which, nothing is deleted.

use std::collections::BTreeMap;

use crate::FileSet;
use crate::Fs;
use crate::ReadableFile;
use crate::SetFamily;
use crate::SetTable;
use crate::base::bytes::Bytes;
use crate::base::canary::Canary;
use crate::base::error::Error;
use crate::base::error::ErrorKind;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::checkpoint::format::Digest;
use crate::checkpoint::format::Envelope;
use crate::checkpoint::format::ObjectRef;
use crate::checkpoint::format::Part;
use crate::checkpoint::format::PartFamily;
use crate::checkpoint::format::PartTable;
use crate::checkpoint::restore::load;
use crate::checkpoint::store::CheckpointStore;
use crate::checkpoint::store::ObjectName;
use crate::checkpoint::store::SharedName;

/// Bytes that are read from a table, or from an object, at once.
pub const PIECE_BYTES: u64 = 1 << 20;

/// Bytes of the key-group prefix of the envelopes written here.
const PREFIX_BYTES: u8 = 2;

/// Most names that are tried for one object.
const NAMES_MAX: u32 = 1000;

/// The state of one database of a job: a range of key groups.
#[derive(Clone, Copy, Debug)]
pub struct PartInput<'a> {
    /// First key group.
    pub first_group: u16,
    /// Last key group, inclusive.
    pub last_group: u16,
    /// The files of the database. Every key begins with its key group, two bytes big-endian.
    pub set: &'a FileSet,
}

/// A checkpoint of a whole job, to be saved.
#[derive(Clone, Debug)]
pub struct JobCheckpoint<'a> {
    /// Greater than the id of every checkpoint of the job before. Gaps are no harm.
    pub id: u64,
    /// Number of key groups of the job, fixed for good.
    pub max_parallelism: u32,
    /// The databases, in any order; their key groups must be disjoint.
    pub parts: Vec<PartInput<'a>>,
    /// State that belongs to no key, by name.
    pub operator_state: Vec<(String, Vec<u8>)>,
    /// Opaque to the engine, such as the positions of sources.
    pub user: Vec<u8>,
}

/// A checkpoint that is in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Its id.
    pub id: u64,
    /// BLAKE3 of its envelope: no other checkpoint has it.
    pub identity: Digest,
    /// What it consists of.
    pub envelope: Envelope,
    /// Objects that saving it has put.
    pub files_new: usize,
    /// Objects that it shares with its base; all, if it was loaded.
    pub files_reused: usize,
    /// Bytes of the objects that saving it has put.
    pub bytes_new: u64,
    /// Bytes of all its objects.
    pub bytes_total: u64,
}

impl Saved {
    /// A checkpoint whose objects at the places in `new` were put by saving it.
    pub(in crate::checkpoint) fn new(envelope: Envelope, identity: Digest, new: &[usize]) -> Saved {
        let objects = &envelope.objects;
        Saved {
            id: envelope.checkpoint,
            identity,
            files_new: new.len(),
            files_reused: objects.len() - new.len(),
            bytes_new: new.iter().map(|&i| objects[i].len).sum(),
            bytes_total: objects.iter().map(|object| object.len).sum(),
            envelope,
        }
    }
}

/// Puts into the store what it lacks of a checkpoint, and then its envelope. Reads and writes only
/// the tables that `base` does not have; holds one piece of 1 MiB in memory.
///
/// `base` must be confirmed, and must be kept by the [`Registry`](crate::Registry) of the store until
/// this checkpoint is confirmed or given up. Without one every table is put. Nothing is ever shared
/// because the store happens to have an object of a fitting name.
///
/// # Errors
/// `CommitUnknown`: the store cannot say whether the envelope is there. Nothing was deleted; the
/// checkpoint exists if and only if [`load`] finds it, once no request is under way any more.
/// After all other errors the checkpoint does not exist and what was put for it is deleted, as far as
/// that succeeds. `Corruption`: a table is not what it was when it was written; the text names it.
/// `InvalidArgument`: the id is taken, or the parts contradict each other. Else those of the store
/// and of the file system.
pub fn save(
    store: &dyn CheckpointStore,
    job: &JobCheckpoint<'_>,
    base: Option<&Saved>,
) -> Result<Saved> {
    let mut plan = Plan::new(base);
    let mut parts = job.parts.clone();
    parts.sort_by_key(|part| part.first_group);
    let parts = parts.iter().map(|part| plan.part(part)).collect::<Result<_>>()?;
    let envelope = Envelope {
        checkpoint: job.id,
        max_parallelism: job.max_parallelism,
        prefix_bytes: PREFIX_BYTES,
        user: job.user.clone(),
        objects: plan.objects,
        parts,
        operator_state: job.operator_state.clone(),
    };
    envelope.encode()?; // what cannot be an envelope is refused before anything is put
    let mut upload = Upload { store, put: Vec::new() };
    if Canary::SaverDeletesReused.is_planted() {
        let all = envelope.objects.iter().map(|object| ObjectName::Shared(object.name.clone()));
        upload.put.extend(all);
    }
    let saved = upload.run(envelope, &plan.missing);
    if let Err(e) = &saved
        && (e.kind() != ErrorKind::CommitUnknown || Canary::LostAnswerDeletes.is_planted())
    {
        upload.take_back();
    }
    saved
}

/// Which objects a checkpoint consists of, and which of them the base lacks.
struct Plan<'a> {
    base: BTreeMap<Digest, &'a ObjectRef>,
    objects: Vec<ObjectRef>,
    /// The place of each digest in `objects`: two tables may have the same bytes.
    places: BTreeMap<Digest, u32>,
    missing: Vec<Missing<'a>>,
}

/// A table that has to be put.
struct Missing<'a> {
    object: usize,
    table: SetTable,
    fs: &'a Arc<dyn Fs>,
}

impl<'a> Plan<'a> {
    fn new(base: Option<&'a Saved>) -> Plan<'a> {
        let base = base.into_iter().flat_map(|saved| &saved.envelope.objects);
        let base = base.map(|object| (object.digest, object)).collect();
        Plan { base, objects: Vec::new(), places: BTreeMap::new(), missing: Vec::new() }
    }

    fn part(&mut self, part: &PartInput<'a>) -> Result<Part> {
        let families = part.set.families().iter();
        Ok(Part {
            first_group: part.first_group,
            last_group: part.last_group,
            seqno: part.set.seqno(),
            record: Vec::new(),
            families: families.map(|f| self.family(part.set, f)).collect::<Result<_>>()?,
        })
    }

    fn family(&mut self, set: &'a FileSet, family: &SetFamily) -> Result<PartFamily> {
        let tables = set.tables_of(family).map(|table| {
            let (level, meta) = (table.level, table.meta.clone());
            PartTable { object: self.object(set.fs(), table), level, meta }
        });
        Ok(PartFamily {
            name: family.name().to_owned(),
            merge_operator: family.merge_operator().map(str::to_owned),
            options: family.options().to_vec(),
            tables: tables.collect(),
            census: family.census()?,
        })
    }

    fn object(&mut self, fs: &'a Arc<dyn Fs>, table: SetTable) -> u32 {
        if let Some(&place) = self.places.get(&table.digest) {
            return place;
        }
        let object = self.objects.len();
        let place = u32::try_from(object).expect("memory holds fewer tables");
        self.places.insert(table.digest, place);
        match self.base.get(&table.digest) {
            Some(shared) if shared.len == table.len => self.objects.push((*shared).clone()),
            _ => {
                let name = SharedName::of_table(&table.digest, table.number);
                let SetTable { len, digest, checksum, .. } = table;
                self.objects.push(ObjectRef { name, len, digest, checksum });
                self.missing.push(Missing { object, table, fs });
            }
        }
        place
    }
}

/// One attempt to save, and what it has put for certain.
struct Upload<'a> {
    store: &'a dyn CheckpointStore,
    put: Vec<ObjectName>,
}

impl Upload<'_> {
    fn run(&mut self, mut envelope: Envelope, missing: &[Missing<'_>]) -> Result<Saved> {
        for missing in missing {
            envelope.objects[missing.object].name = self.put_table(missing)?;
        }
        let (bytes, identity) = envelope.encode()?;
        self.commit(envelope.checkpoint, bytes, &identity)?;
        let new: Vec<usize> = missing.iter().map(|missing| missing.object).collect();
        Ok(Saved::new(envelope, identity, &new))
    }

    /// Puts a table under a name that nobody had. Whoever has the table's own name already, such as
    /// another checkpoint under way, may delete it at any time.
    fn put_table(&mut self, missing: &Missing<'_>) -> Result<SharedName> {
        let table = &missing.table;
        for attempt in 1..=NAMES_MAX {
            let mut name = SharedName::of_table(&table.digest, table.number);
            if Canary::NamesAreReused.is_planted() {
                name = SharedName::new(&table.number.to_string())?;
            } else if attempt > 1 {
                name = SharedName::new(&format!("{name}.{attempt}"))?;
            }
            let object = ObjectName::Shared(name.clone());
            let mut pieces = Pieces::open(&**missing.fs, table)?;
            let put = self.store.put_new(&object, &mut pieces);
            if let Some(failure) = pieces.failure {
                return Err(failure);
            }
            match put {
                Ok(()) => {
                    self.put.push(object);
                    return Ok(name);
                }
                Err(_) if Canary::NamesAreReused.is_planted() => return Ok(name),
                Err(e) if e.kind() == ErrorKind::InvalidArgument => {}
                // Perhaps it is there, perhaps it is another's: it is left to the registry.
                Err(e) => return Err(e),
            }
        }
        let name = SharedName::of_table(&table.digest, table.number);
        Err(Error::invalid(format!("{NAMES_MAX} objects are named {name}")))
    }

    fn commit(&self, id: u64, bytes: Vec<u8>, identity: &Digest) -> Result<()> {
        let name = ObjectName::Checkpoint(id);
        let unknown = |e| {
            let text = format!("whether checkpoint {id} was saved is not known: load it");
            Error::because(ErrorKind::CommitUnknown, text, &e)
        };
        match self.store.put_new(&name, &mut std::iter::once(Ok(Bytes::from(bytes)))) {
            Ok(()) => Ok(()),
            // Perhaps by this very put, if the store repeats requests whose answer was lost.
            Err(exists) if exists.kind() == ErrorKind::InvalidArgument => {
                match load(self.store, id) {
                    Ok(there) if there.identity == *identity => Ok(()),
                    Ok(_) => Err(exists),
                    Err(e) => Err(unknown(e)),
                }
            }
            Err(e) => Err(unknown(e)),
        }
    }

    fn take_back(&self) {
        for object in &self.put {
            let _ = self.store.delete(object); // else the registry will
        }
    }
}

/// The bytes of a table, checked on their way.
struct Pieces<'a> {
    table: &'a SetTable,
    file: Arc<dyn ReadableFile>,
    hasher: blake3::Hasher,
    offset: u64,
    /// Why the last piece is not the end of the table.
    failure: Option<Error>,
}

impl<'a> Pieces<'a> {
    fn open(fs: &dyn Fs, table: &'a SetTable) -> Result<Pieces<'a>> {
        let file = fs.open(&table.path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => changed_table(table, "is missing"),
            _ => e,
        })?;
        if file.len() != table.len {
            let text = format!("has {} bytes instead of {}", file.len(), table.len);
            return Err(changed_table(table, &text));
        }
        Ok(Pieces { table, file, hasher: blake3::Hasher::new(), offset: 0, failure: None })
    }

    fn read(&mut self) -> Result<Bytes> {
        let len = PIECE_BYTES.min(self.table.len - self.offset);
        let piece = self.file.read_at(self.offset, len as usize)?;
        self.hasher.update(&piece);
        self.offset += len;
        if self.offset == self.table.len && self.hasher.finalize().as_bytes() != &self.table.digest
        {
            return Err(changed_table(self.table, "is not what was written"));
        }
        Ok(piece)
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        if self.failure.is_some() || self.offset == self.table.len {
            return None;
        }
        let piece = self.read();
        self.failure = piece.as_ref().err().cloned();
        Some(piece)
    }
}

#[track_caller]
fn changed_table(table: &SetTable, what: &str) -> Error {
    Error::corruption(format!("table {} {what}", table.number)).at(0).in_file(&table.path)
}
