//! Rollback: all states as a checkpoint has them, in the same directory and under the same handles.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use crate::Db;
use crate::Env;
use crate::FileSet;
use crate::Fs;
use crate::ImportFamily;
use crate::ImportSource;
use crate::Options;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::backend::StateBackend;
use crate::state::backend::attach;
use crate::state::meta::Meta;
use crate::state::meta::StateKind;
use crate::state::meta::StateRecord;

/// How the names of links begin that wait to be imported: a restore removes what is left of them.
const STAGED: &str = "restore-";

/// The file that a directory with a database holds. Without it there is none.
const CURRENT: &str = "CURRENT";

impl<K: 'static> StateBackend<K> {
    /// Returns all states to what they were when `set` was captured from this backend. No table is
    /// read or written: costs a link a table and one manifest.
    ///
    /// Handles stay valid, and so does the current key. A state that did not exist then is empty; one
    /// that was migrated since has to be asked for again. Snapshots, file sets and timer services of
    /// before must not be used any more.
    ///
    /// # Errors
    /// `InvalidArgument`: the set lies on another file system. `Busy`: another thread is using a
    /// handle at this moment. Those of [`Db::import`]. After any error the backend is closed; the
    /// directory holds the database as after a crash, or none, and then a restore may use it.
    pub fn rollback(self, set: &FileSet) -> Result<StateBackend<K>> {
        let fs = Arc::clone(self.db.env().fs());
        if !Arc::ptr_eq(&fs, set.fs()) {
            return Err(Error::invalid("the file set lies on another file system"));
        }
        let clip = self.options.key_groups.key_range();
        let dir = self.db.path().to_owned();
        let mut links = Vec::new();
        let families = link(&*fs, &dir, set, &mut links);
        let rolled = families.and_then(|families| {
            let source = ImportSource { seqno: set.seqno(), clip, families };
            self.rollback_with(|dir, options, env| Db::import(dir, options, env, &[source]))
        });
        for link in links {
            let _ = fs.remove(&link); // else the next restore will
        }
        rolled
    }

    /// Returns all states to a checkpoint in a store: closes the database, removes everything in its
    /// directory, and goes on with the database that `reopen` makes there, by
    /// [`restore_checkpoint`](crate::restore_checkpoint) say. Otherwise as
    /// [`rollback`](StateBackend::rollback).
    ///
    /// ```
    /// # use alluvium::*;
    /// # let fs = std::sync::Arc::new(MemFs::new());
    /// # let env = Env::new(MemoryBudget::new(64 << 20)).with_fs(fs.clone());
    /// # let options = BackendOptions::new(128, KeyGroupRange::new(0, 127)?);
    /// # let dir = std::path::Path::new("state");
    /// # let store = DirStore::open(fs, "store")?;
    /// # let mut backend = StateBackend::<u32>::open(dir, options, env)?;
    /// # let mut count = backend.value_state::<u64>("count")?;
    /// # backend.set_current_key(&7)?;
    /// # count.update(&1)?;
    /// # let set = backend.checkpoint()?.wait()?;
    /// # let job = JobCheckpoint {
    /// #     id: 1,
    /// #     max_parallelism: 128,
    /// #     parts: vec![PartInput { first_group: 0, last_group: 127, set: &set }],
    /// #     operator_state: vec![],
    /// #     user: vec![],
    /// # };
    /// # save_checkpoint(&store, &job, None)?;
    /// # count.update(&2)?;
    /// let saved = load_checkpoint(&store, 1)?;
    /// let backend = backend.rollback_with(|dir, options, env| {
    ///     restore_checkpoint(&store, &saved, 0..=127, dir, options, env)
    /// })?;
    /// assert_eq!(count.value()?, Some(1));
    /// # drop(backend);
    /// # Ok::<(), alluvium::Error>(())
    /// ```
    ///
    /// # Errors
    /// The same, and those of `reopen`.
    pub fn rollback_with(
        self,
        reopen: impl FnOnce(&Path, Options, Env) -> Result<Db>,
    ) -> Result<StateBackend<K>> {
        self.shared.0.close();
        let db = Arc::into_inner(self.db);
        let db = db.ok_or_else(|| Error::busy("a state is in use on another thread"))?;
        let (dir, env) = (db.path().to_owned(), db.env().clone());
        drop(db);
        clear(&**env.fs(), &dir)?;
        let db = reopen(&dir, self.options.db.clone(), env)?;
        let asked: Vec<(String, StateRecord)> =
            self.meta.asked().map(|(name, record)| (name.to_owned(), record.clone())).collect();
        let (meta, keys) = attach(&db, &self.options, self.keys)?;
        let (db, timers) = (Arc::new(db), BTreeMap::new());
        let mut backend = StateBackend { db, meta, keys, timers, ..self };
        backend.open_families()?;
        let mut families = BTreeMap::new();
        for (name, record) in asked {
            if record.kind != StateKind::Timers && is_form(&backend.meta, &name, &record) {
                let family = backend.family(&name, record.kind)?;
                backend.meta.register(&backend.db, &name, &record, 0)?;
                families.insert(name, family);
            }
        }
        backend.shared.0.reopen(&backend.db, families);
        Ok(backend)
    }
}

/// Are all entries of a state what handles of this form read and write?
fn is_form(meta: &Meta, name: &str, record: &StateRecord) -> bool {
    meta.forms(name).iter().all(|form| form.record == *record)
}

/// Links the tables of a set under names that a clearing of the directory spares.
fn link(
    fs: &dyn Fs,
    dir: &Path,
    set: &FileSet,
    links: &mut Vec<PathBuf>,
) -> Result<Vec<ImportFamily>> {
    let mut families = Vec::new();
    for family in set.families() {
        let mut family = ImportFamily::of(set, family)?;
        for table in &mut family.tables {
            let path = dir.join(format!("{STAGED}{}", links.len()));
            let _ = fs.remove(&path); // of a rollback that was cut short
            fs.link(&table.path, &path)?;
            links.push(path.clone());
            table.path = path;
        }
        families.push(family);
    }
    Ok(families)
}

/// Removes everything but links that wait: what makes it a database first.
fn clear(fs: &dyn Fs, dir: &Path) -> Result<()> {
    fs.remove(&dir.join(CURRENT))?;
    fs.sync_dir(dir)?;
    for listed in fs.list(dir)?.into_iter().filter(|listed| !listed.name.starts_with(STAGED)) {
        fs.remove(&dir.join(listed.name))?;
    }
    Ok(())
}
