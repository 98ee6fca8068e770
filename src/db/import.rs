//! Restore and rescale: a new database made of tables that exist, each asked only for a key range.
//!
//! No table is read and none is rewritten: files get new names by hard links, and one manifest
//! records them with the bounds within which they count. Key groups make the sources disjoint, so
//! that their tables keep their levels, and sequence numbers of different sources are never compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::coding::Decoder;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::{FamilyId, FileNumber};
use crate::base::key::{KeyRange, SeqNo};
use crate::base::limits::LEVELS;
use crate::base::sync::Arc;
use crate::db::Db;
use crate::db::census::Census;
use crate::db::file_set::{FileSet, SetFamily};
use crate::db::open::Opening;
use crate::db::options::{ColumnFamilyOptions, Env, Options};
use crate::fs::{Fs, Listed};
use crate::table::Properties;
use crate::version::edit::{FamilyRecord, VersionEdit};
use crate::version::manifest::recover;
use crate::version::meta::FileMeta;
use crate::version::names::FileName;
use crate::version::state::State;

/// A file set to import from, and the part of it that is wanted.
#[derive(Clone, Debug)]
pub struct ImportSource {
    /// The set is its database at this sequence number.
    pub seqno: SeqNo,
    /// Only keys in this range are taken.
    pub clip: KeyRange,
    /// The families.
    pub families: Vec<ImportFamily>,
}

/// A family of an [`ImportSource`].
#[derive(Clone, Debug)]
pub struct ImportFamily {
    /// Families of different sources are matched by name.
    pub name: String,
    /// The merge operator that its operands need.
    pub merge_operator: Option<String>,
    /// Its recorded options, as [`SetFamily::options`](crate::SetFamily::options) gave them.
    pub options: Vec<u8>,
    /// Its tables; those of level 0 newest first.
    pub tables: Vec<ImportTable>,
    /// What all its tables hold of each key group, as
    /// [`SetFamily::census`](crate::SetFamily::census) gave it: the import is refused if the tables
    /// given here hold something else of the groups in the clip. Empty: nothing is compared.
    pub census: Vec<u8>,
}

impl ImportFamily {
    /// A family of a file set, to be imported on the file system that it lies on.
    ///
    /// # Errors
    /// Those of [`SetFamily::census`](crate::SetFamily::census).
    pub fn of(set: &FileSet, family: &SetFamily) -> Result<ImportFamily> {
        let tables = set.tables_of(family);
        Ok(ImportFamily {
            name: family.name().to_owned(),
            merge_operator: family.merge_operator().map(str::to_owned),
            options: family.options().to_vec(),
            tables: tables
                .map(|table| ImportTable { level: table.level, meta: table.meta, path: table.path })
                .collect(),
            census: family.census()?,
        })
    }
}

/// A table of an [`ImportFamily`].
#[derive(Clone, Debug)]
pub struct ImportTable {
    /// Level it came from, and goes to.
    pub level: u8,
    /// Its description, as [`SetTable::meta`](crate::SetTable::meta) gave it.
    pub meta: Vec<u8>,
    /// Where its bytes lie, on the file system of the new database.
    pub path: PathBuf,
}

impl ImportTable {
    /// The keys for which the table of this description is asked. If a clip leaves none of them, an
    /// import does not need the table.
    ///
    /// # Errors
    /// `Corruption` or `Unsupported`: it is no description of a table.
    pub fn bounds(meta: &[u8]) -> Result<KeyRange> {
        FileMeta::decode(Decoder::new(meta)).map(|meta| meta.bounds)
    }
}

impl Db {
    /// Creates a database in `dir` out of the given sources, without reading or writing an entry of
    /// their tables: costs one link a table, two small reads of it if there is a census to compare,
    /// and one manifest.
    ///
    /// If it fails before its manifest is valid, the directory holds no database, and a later import
    /// may use it; if it fails after that (beginning the log), the directory holds all of it.
    ///
    /// # Errors
    /// `InvalidArgument`: the directory holds a database, the clips overlap, or there is no such level.
    /// `Incompatible`: two sources disagree about a family's merge operator. `Corruption`: a table is
    /// missing, or has another length than its description says, or the tables hold other entries of a
    /// key group than the source's census says. Those of the file system.
    pub fn import(dir: &Path, options: Options, env: Env, sources: &[ImportSource]) -> Result<Db> {
        Db::import_if(dir, options, env, sources, || Ok(()))
    }

    /// The same, unless `check` fails, which is asked last: when everything is done but for the change of
    /// name that makes the directory a database. No table has a name there then.
    ///
    /// # Errors
    /// Those of [`import`](Db::import) and of `check`.
    pub(crate) fn import_if(
        dir: &Path,
        options: Options,
        env: Env,
        sources: &[ImportSource],
        check: impl FnOnce() -> Result<()>,
    ) -> Result<Db> {
        check_clips(sources)?;
        let fs = Arc::clone(env.fs());
        fs.create_dir(dir)?;
        let lock = fs.lock(dir)?;
        clear(&*fs, dir)?;
        let recovered = recover(&fs, dir, fs.list(dir)?)?;
        if !recovered.is_new() {
            return Err(Error::invalid("the directory holds a database").in_file(dir));
        }
        let mut plan = Plan::new(recovered.epoch);
        for source in sources {
            check_census(&*fs, source)?;
            plan.add(source)?;
        }
        // Their names are durable before `CURRENT` is, as the manifest's is: by the same sync.
        let linked = link(&*fs, dir, &plan.links)
            .and_then(|()| fs.list(dir))
            .and_then(|listing| plan.check_lengths(dir, &listing));
        linked.inspect_err(|_| unlink(&*fs, dir, &plan.links))?;
        let opening = Opening::new(dir, options, env, lock, Vec::new());
        let check = || check().inspect_err(|_| unlink(&*fs, dir, &plan.links));
        let core = opening.finish(recovered, plan.edit, check)?;
        Ok(Db::start(core))
    }
}

/// Gives tables their names in the new database.
fn link(fs: &dyn Fs, dir: &Path, links: &[(PathBuf, FileNumber)]) -> Result<()> {
    let mut links = links.iter();
    links.try_for_each(|(from, number)| fs.link(from, &path(dir, *number)).map_err(missing))
}

/// Takes these names away, as far as they are there. Only tidiness: as long as there is no `CURRENT`, the
/// next import does.
fn unlink(fs: &dyn Fs, dir: &Path, links: &[(PathBuf, FileNumber)]) {
    for (_, number) in links {
        let _ = fs.remove(&path(dir, *number));
    }
}

fn path(dir: &Path, number: FileNumber) -> PathBuf {
    dir.join(FileName::Table(number).to_string())
}

/// Sources must not claim the same key.
fn check_clips(sources: &[ImportSource]) -> Result<()> {
    for (i, source) in sources.iter().enumerate() {
        if sources[..i].iter().any(|other| other.clip.overlaps(&source.clip)) {
            return Err(Error::invalid("two sources are to give the same keys"));
        }
    }
    Ok(())
}

/// Do the tables hold of each key group in the clip what they should?
fn check_census(fs: &dyn Fs, source: &ImportSource) -> Result<()> {
    for family in &source.families {
        let recorded = Census::decode(&family.census)?;
        if recorded.is_empty() {
            continue;
        }
        let mut census = Census::default();
        for table in &family.tables {
            let meta = FileMeta::decode(Decoder::new(&table.meta))?;
            let bounds = meta.bounds.intersect(&source.clip);
            if bounds.is_empty() {
                continue;
            }
            let file = fs.open(&table.path).map_err(missing)?;
            let properties = Properties::read(&*file, &meta.id);
            let properties = properties.map_err(|e| e.in_file(&table.path))?;
            census.add(&table.path, &bounds, &properties);
        }
        census.check(&family.name, &source.clip, &recorded)?;
    }
    Ok(())
}

fn missing(e: Error) -> Error {
    match e.kind() {
        ErrorKind::NotFound => {
            Error::because(ErrorKind::Corruption, "a table is missing", &e).at(0)
        }
        _ => e,
    }
}

/// Removes what an import that failed left behind. Without `CURRENT` there is no database.
fn clear(fs: &dyn Fs, dir: &Path) -> Result<()> {
    let listing = fs.list(dir)?;
    if listing.iter().any(|listed| FileName::parse(&listed.name) == Some(FileName::Current)) {
        return Err(Error::invalid("the directory holds a database").in_file(dir));
    }
    for listed in listing {
        if let Some(FileName::Table(_)) = FileName::parse(&listed.name) {
            fs.remove(&dir.join(&listed.name))?;
        }
    }
    Ok(())
}

/// The edit that makes the new database, and the links that it needs.
struct Plan {
    epoch: u32,
    counter: u32,
    edit: VersionEdit,
    names: BTreeMap<String, FamilyId>,
    links: Vec<(PathBuf, FileNumber)>,
}

impl Plan {
    fn new(epoch: u32) -> Plan {
        let (names, links) = (BTreeMap::new(), Vec::new());
        Plan { epoch, counter: 0, edit: VersionEdit::default(), names, links }
    }

    fn add(&mut self, source: &ImportSource) -> Result<()> {
        let last = self.edit.last_seqno.get_or_insert(0);
        *last = source.seqno.max(*last);
        for family in &source.families {
            let id = self.family(family, source.seqno)?;
            // Numbers ascend, and newer level-0 tables must have greater ones.
            for table in family.tables.iter().rev() {
                self.table(id, table, &source.clip)?;
            }
        }
        Ok(())
    }

    fn family(&mut self, family: &ImportFamily, seqno: SeqNo) -> Result<FamilyId> {
        if let Some(id) = self.names.get(&family.name) {
            let record = &mut self.edit.created[id.0 as usize];
            if record.merge_operator != family.merge_operator {
                return Err(Error::incompatible(format!(
                    "family {:?} has merge operator {:?} in one source and {:?} in another",
                    family.name, record.merge_operator, family.merge_operator
                )));
            }
            record.flushed_seqno = record.flushed_seqno.max(seqno);
            return Ok(*id);
        }
        ColumnFamilyOptions::decode(&family.options)?;
        let id = FamilyId(self.edit.created.len() as u32);
        self.names.insert(family.name.clone(), id);
        self.edit.created.push(FamilyRecord {
            id,
            name: family.name.clone(),
            merge_operator: family.merge_operator.clone(),
            compaction_filter: None,
            options: family.options.clone(),
            flushed_seqno: seqno,
        });
        self.edit.next_family = Some(id.0 + 1);
        Ok(id)
    }

    /// Is every table as long as its description says?
    fn check_lengths(&self, dir: &Path, listing: &[Listed]) -> Result<()> {
        let mut state = State::default();
        let edit = VersionEdit {
            snapshot: true,
            epoch: Some(self.epoch),
            instance: Some(0),
            ..self.edit.clone()
        };
        state.apply(&edit)?;
        state.check_files(dir, listing)
    }

    fn table(&mut self, id: FamilyId, table: &ImportTable, clip: &KeyRange) -> Result<()> {
        if usize::from(table.level) >= LEVELS {
            return Err(Error::invalid(format!("a table of level {}", table.level)));
        }
        let mut meta = FileMeta::decode(Decoder::new(&table.meta))?;
        let bounds = meta.bounds.intersect(clip);
        if bounds.is_empty() {
            return Ok(());
        }
        self.counter += 1;
        meta.number = FileNumber::new(self.epoch, self.counter);
        meta.clipped |= bounds != meta.bounds;
        meta.bounds = bounds;
        self.links.push((table.path.clone(), meta.number));
        self.edit.family(id).added.push((table.level, Arc::new(meta)));
        Ok(())
    }
}
