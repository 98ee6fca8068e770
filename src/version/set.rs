//! The current versions of all families. Lives under the versions mutex: nothing here does I/O.

use std::collections::BTreeMap;

use crate::base::id::FamilyId;
use crate::base::sync::Arc;
use crate::version::edit::{FamilyRecord, VersionEdit};
use crate::version::file::{TableFile, TableOpener};
use crate::version::levels;
use crate::version::state::{Header, State};
use crate::version::version::Version;

/// A family's record and files.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its record, with the current flushed sequence number.
    pub record: Arc<FamilyRecord>,
    /// Its files.
    pub version: Arc<Version>,
}

/// The current families and their files.
pub struct VersionSet {
    opener: Arc<TableOpener>,
    header: Header,
    families: BTreeMap<FamilyId, Family>,
}

/// What an edit changed.
#[derive(Debug, Default)]
#[must_use = "drop it after unlocking: files may be closed"]
pub struct Installed {
    /// Families with a new record or new files, new families included.
    pub changed: Vec<(FamilyId, Family)>,
    /// Families that are gone.
    pub dropped: Vec<FamilyId>,
    /// The versions that were replaced. Dropping them may close files and empty caches, so that is
    /// done after unlocking.
    pub replaced: Vec<Arc<Version>>,
}

impl VersionSet {
    /// Live handles for a recovered state. Opens nothing.
    pub fn new(opener: Arc<TableOpener>, state: &State) -> VersionSet {
        let families = state.families.iter().map(|(&id, family)| {
            let levels = std::array::from_fn(|level| {
                let files = family.levels[level].iter();
                files
                    .map(|m| Arc::new(TableFile::new(Arc::clone(m), Arc::clone(&opener))))
                    .collect()
            });
            let version = Arc::new(Version::new(levels));
            (id, Family { record: Arc::new(family.record.clone()), version })
        });
        let families = families.collect();
        VersionSet { header: state.header.clone(), families, opener }
    }

    /// What concerns no single family.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// All families.
    pub fn families(&self) -> &BTreeMap<FamilyId, Family> {
        &self.families
    }

    /// A family.
    pub fn family(&self, id: FamilyId) -> Option<&Family> {
        self.families.get(&id)
    }

    /// All live files, with family and level.
    #[cfg(test)]
    pub fn live_files(&self) -> impl Iterator<Item = (FamilyId, usize, &Arc<TableFile>)> {
        self.families.iter().flat_map(|(&id, family)| {
            family.version.files().map(move |(level, file)| (id, level, file))
        })
    }

    /// The whole set as one edit, as a checkpoint keeps it.
    #[cfg(test)]
    pub fn snapshot_edit(&self) -> VersionEdit {
        let mut edit = VersionEdit {
            snapshot: true,
            epoch: Some(self.header.epoch),
            instance: Some(self.header.instance),
            last_seqno: Some(self.header.last_seqno),
            next_family: Some(self.header.next_family),
            wal_mode: self.header.wal_mode,
            log_start: self.header.log_start,
            log_durable: self.header.log_durable_said(),
            clean: self.header.clean,
            options: (!self.header.options.is_empty()).then(|| self.header.options.clone()),
            created: self.families.values().map(|f| FamilyRecord::clone(&f.record)).collect(),
            ..VersionEdit::default()
        };
        for (id, level, file) in self.live_files() {
            edit.family(id).added.push((level as u8, Arc::clone(file.shared_meta())));
        }
        edit
    }

    /// Makes a durable edit visible: new versions of the families it touches; files that it removes
    /// are marked obsolete. Pointer work, linear in the files of the levels it touches.
    ///
    /// # Panics
    /// If the edit does not fit; the manifest writer refuses such edits (I2, I3, I7, I8).
    pub fn install(&mut self, edit: &VersionEdit) -> Installed {
        let mut header = self.header.after(edit).unwrap_or_else(|e| panic!("bad edit: {e}"));
        let mut installed = Installed::default();
        let mut gone = Vec::new();
        let mut after = BTreeMap::new();
        for record in &edit.created {
            let version = Arc::new(Version::new(levels::empty()));
            after.insert(record.id, Family { record: Arc::new(record.clone()), version });
        }
        for (id, family_edit) in &edit.families {
            let family = after.get(id).or_else(|| self.families.get(id));
            let family = family.unwrap_or_else(|| panic!("bad edit: there is no family {id}"));
            let mut record = FamilyRecord::clone(&family.record);
            let changed = family_edit.change(&mut record);
            changed.unwrap_or_else(|e| panic!("bad edit: {e}"));
            let version = if family_edit.added.is_empty() && family_edit.removed.is_empty() {
                Arc::clone(&family.version)
            } else {
                let opener = &self.opener;
                let edited = family.version.edited(family_edit, |meta| {
                    Arc::new(TableFile::new(Arc::clone(meta), Arc::clone(opener)))
                });
                let (version, lost) = edited.unwrap_or_else(|e| panic!("bad edit: {e}"));
                gone.extend(lost);
                Arc::new(version)
            };
            after.insert(*id, Family { record: Arc::new(record), version });
        }
        // Nothing can fail from here on.
        for id in &edit.dropped {
            if let Some(family) = self.families.remove(id) {
                gone.extend(family.version.files().map(|(_, file)| Arc::clone(file)));
                installed.replaced.push(family.version);
                installed.dropped.push(*id);
            }
        }
        for (id, family) in after {
            header.last_seqno = header.last_seqno.max(family.record.flushed_seqno);
            if let Some(old) = self.families.insert(id, family.clone()) {
                installed.replaced.push(old.version);
            }
            installed.changed.push((id, family));
        }
        self.header = header;
        gone.iter().for_each(|file| file.mark_obsolete());
        installed
    }
}
