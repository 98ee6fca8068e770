//! What the handles of all states share: the backend's current key, and the way to a cell.
//!
//! Handles own everything that they need, so that they can be stored beside their backend. The
//! current key is the backend's: its version tells a handle at the price of one load whether the key
//! has changed since it last looked, and only then it copies the key, without a lock. All other buffers
//! are the handle's own, and are used again and again. Reading or writing one value, this layer has no
//! locked instruction and allocates nothing.

use std::collections::BTreeMap;

use crate::ColumnFamily;
use crate::Db;
use crate::Reader;
use crate::Scan;
use crate::SeqNo;
use crate::Snapshot;
use crate::Update;
use crate::WriteBatch;
use crate::WriteOptions;
use crate::Writer;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::key::KeyRange;
use crate::base::sync::Arc;
use crate::base::sync::AtomicU64;
use crate::base::sync::Mutex;
use crate::base::sync::Ordering;
use crate::base::sync::Weak;
use crate::state::current_key::CLOSED;
use crate::state::current_key::CurrentKey;
use crate::state::current_key::NO_KEY;
use crate::state::current_key::UNSEEN;
use crate::state::key::KeyBuilder;
use crate::state::key::KeyShape;
use crate::state::meta::in_state;
use crate::state::serializer::Serializer;
use crate::state::serializer::put_delimited;
use crate::state::snapshot::View;
use crate::state::ttl::Touch;
use crate::state::ttl::Toucher;
use crate::state::ttl::Ttl;

/// The backend's half of what it shares with its handles.
pub struct Shared {
    key: CurrentKey,
    /// How often the database was exchanged; as in `opened`, to be looked at without its lock.
    exchanges: AtomicU64,
    opened: Mutex<Opened>,
}

/// The database as it was opened last.
struct Opened {
    db: Weak<Db>,
    /// How often it was exchanged.
    exchanges: u64,
    /// The families of the states that handles may find anew after an exchange.
    families: BTreeMap<String, ColumnFamily>,
}

impl Opened {
    /// The family of a state after an exchange.
    fn family(&self, name: &str) -> Result<&ColumnFamily> {
        self.families.get(name).ok_or_else(|| {
            let text = format!("state {name:?} was rolled back to another form: ask for it again");
            Error::incompatible(text)
        })
    }
}

impl Shared {
    pub fn new(db: &Weak<Db>) -> Shared {
        let opened = Opened { db: Weak::clone(db), exchanges: 0, families: BTreeMap::new() };
        let (key, opened) = (CurrentKey::new(), Mutex::new(opened));
        Shared { key, exchanges: AtomicU64::new(0), opened }
    }

    /// The current key, as the owner composed it.
    #[inline]
    pub fn set_key(&self, key: &mut KeyBuilder) {
        let (padded, bytes) = key.padded_key_prefix();
        self.key.set(padded, bytes);
    }

    /// From now on every handle returns errors.
    pub fn close(&self) {
        self.key.close();
    }

    /// Lets handles go on with another database, in which these states are theirs, after
    /// [`close`](Shared::close). The current key stays.
    pub fn reopen(&self, db: &Arc<Db>, families: BTreeMap<String, ColumnFamily>) {
        let mut opened = self.opened.lock();
        opened.db = Arc::downgrade(db);
        opened.exchanges += 1;
        opened.families = families;
        self.exchanges.store(opened.exchanges, Ordering::Release);
        self.key.reopen(opened.exchanges);
    }

    pub fn db(&self) -> Result<Arc<Db>> {
        self.opened.lock().db.upgrade().ok_or_else(closed)
    }
}

#[cold]
fn read_only() -> Error {
    Error::invalid("a snapshot cannot be changed")
}

#[cold]
fn no_key(version: u64) -> Error {
    if version == CLOSED { closed() } else { Error::invalid("no key is set") }
}

#[cold]
fn no_namespace() -> Error {
    Error::invalid("no namespace is set")
}

#[cold]
fn closed() -> Error {
    Error::invalid("the state backend is closed")
}

/// The way of one handle to the current cell of its state.
pub struct Cell<N> {
    shared: Arc<Shared>,
    db: Weak<Db>,
    exchanges: u64,
    family: ColumnFamily,
    reader: Reader,
    writer: Writer,
    /// What is to be shown, if it is not the newest.
    pinned: Option<Arc<Snapshot>>,
    /// Older snapshots are in another form.
    since: SeqNo,
    builder: KeyBuilder,
    /// Version of the key in `builder`; [`UNSEEN`] if that is to be made anew.
    seen: u64,
    serializer: Arc<dyn Serializer<Value = N>>,
    /// Delimited, as it stands in composite keys.
    namespace: Vec<u8>,
    has_namespace: bool,
    /// If its values expire.
    ttl: Option<Arc<Ttl>>,
}

impl<N: 'static> Cell<N> {
    pub fn new(
        shared: Arc<Shared>,
        family: ColumnFamily,
        key_len: Option<usize>,
        serializer: Arc<dyn Serializer<Value = N>>,
        since: SeqNo,
        ttl: Option<Arc<Ttl>>,
    ) -> Result<Cell<N>> {
        let opened = shared.opened.lock();
        let (db, exchanges) = (Weak::clone(&opened.db), opened.exchanges);
        drop(opened);
        let opened = shared.db()?;
        let (reader, writer) = (opened.reader(&family)?, opened.writer(&family)?);
        let shape = KeyShape { key: key_len, namespace: serializer.fixed_len() };
        Ok(Cell {
            shared,
            db,
            exchanges,
            family,
            reader,
            writer,
            pinned: None,
            since,
            builder: KeyBuilder::new(shape),
            seen: UNSEEN,
            // The void namespace needs not be set: it is the only one.
            has_namespace: shape.namespace == Some(0),
            serializer,
            namespace: Vec::new(),
            ttl,
        })
    }

    /// The same state as a snapshot shows it, under the snapshot's current key.
    ///
    /// # Errors
    /// `InvalidArgument`: a snapshot of another backend, or from before a rollback. `Incompatible`: the
    /// state was migrated since.
    pub fn at(&self, view: &View) -> Result<Cell<N>> {
        let (family, since) = self.in_view(view)?;
        let (shared, serializer) = (Arc::clone(&view.shared), Arc::clone(&self.serializer));
        let key_len = self.builder.shape().key;
        let ttl = self.ttl.clone();
        let mut cell = Cell::new(shared, family, key_len, serializer, since, ttl)?;
        cell.pinned = Some(Arc::clone(&view.pinned));
        cell.namespace.clone_from(&self.namespace);
        cell.has_namespace = self.has_namespace;
        Ok(cell)
    }

    /// A cursor over all of the state in a range of keys, as a snapshot shows it.
    ///
    /// # Errors
    /// Those of [`at`](Cell::at).
    pub fn scan_view(&self, view: &View, range: KeyRange) -> Result<Scan> {
        let (family, _) = self.in_view(view)?;
        let db = view.db.upgrade().ok_or_else(closed)?;
        db.scan_range(&family, range, Some(&view.pinned))
    }

    /// The state's family for a snapshot of its backend, and since when it is in its form.
    fn in_view(&self, view: &View) -> Result<(ColumnFamily, SeqNo)> {
        let opened = self.shared.opened.lock();
        if !Weak::ptr_eq(&opened.db, &view.db) {
            return Err(Error::invalid("a snapshot of another backend"));
        }
        // Perhaps this handle was not used since the database was exchanged.
        let (family, since) = match opened.exchanges == self.exchanges {
            true => (self.family.clone(), self.since),
            false => (opened.family(self.name())?.clone(), 0),
        };
        drop(opened);
        if view.pinned.seqno() < since {
            let text = format!("state {:?} was migrated after the snapshot", self.name());
            return Err(Error::incompatible(text));
        }
        Ok((family, since))
    }

    pub fn name(&self) -> &str {
        self.family.name()
    }

    /// The database, to read from.
    fn db(&self) -> Result<Arc<Db>> {
        self.db.upgrade().ok_or_else(closed)
    }

    /// The database, to write to.
    fn db_mut(&self) -> Result<Arc<Db>> {
        self.check_writable()?;
        self.db()
    }

    #[inline]
    fn check_writable(&self) -> Result<()> {
        if self.pinned.is_none() { Ok(()) } else { Err(read_only()) }
    }

    pub fn set_namespace(&mut self, namespace: &N) {
        self.namespace.clear();
        let width = self.builder.shape().namespace;
        put_delimited(width, &mut self.namespace, |out| self.serializer.encode(namespace, out));
        self.has_namespace = true;
        self.seen = UNSEEN;
    }

    /// Makes the builder stand on the current cell.
    #[inline]
    fn find(&mut self) -> Result<()> {
        if self.shared.key.version() == self.seen { Ok(()) } else { self.compose() }
    }

    fn compose(&mut self) -> Result<()> {
        let version = self.compose_key()?;
        if !self.has_namespace {
            return Err(no_namespace());
        }
        self.builder.set_delimited_namespace(&self.namespace);
        self.seen = version;
        Ok(())
    }

    /// Makes the builder stand on the current key, and returns its version.
    #[inline]
    fn compose_key(&mut self) -> Result<u64> {
        self.seen = UNSEEN;
        let key = &self.shared.key;
        let version = self.builder.copy_key_prefix(|out| key.copy(out));
        if version == CLOSED || version == NO_KEY {
            return Err(no_key(version));
        }
        // Stored before the version that brought us here.
        if self.shared.exchanges.load(Ordering::Acquire) != self.exchanges {
            self.follow()?;
        }
        Ok(version)
    }

    /// Goes on with the database that is open now: it was exchanged.
    #[cold]
    fn follow(&mut self) -> Result<()> {
        let opened = self.shared.opened.lock();
        if opened.exchanges != self.exchanges {
            let family = opened.family(self.family.name())?;
            let db = opened.db.upgrade().ok_or_else(closed)?;
            (self.reader, self.writer) = (db.reader(family)?, db.writer(family)?);
            self.family = family.clone();
            self.db = Weak::clone(&opened.db);
            self.exchanges = opened.exchanges;
            self.since = 0;
        }
        Ok(())
    }

    /// Is there a current cell?
    pub fn check(&mut self) -> Result<()> {
        self.find()
    }

    /// Lends the bytes of the cell to `f`.
    #[inline]
    pub fn read<R>(&mut self, f: impl FnOnce(Option<&[u8]>) -> Result<R>) -> Result<R> {
        self.find()?;
        let (source, builder) = self.source();
        source.read(builder.cell(), f)
    }

    /// Lends the bytes of an entry in the cell to `f`.
    #[inline]
    pub fn read_entry<R>(
        &mut self,
        user_key: impl FnOnce(&mut Vec<u8>),
        f: impl FnOnce(Option<&[u8]>) -> Result<R>,
    ) -> Result<R> {
        self.find()?;
        let (source, builder) = self.source();
        source.read(builder.entry(user_key), f)
    }

    #[inline]
    fn source(&mut self) -> (Source<'_>, &mut KeyBuilder) {
        let Cell { shared, db, family, reader, pinned, builder, ttl, .. } = self;
        let (pinned, ttl) = (pinned.as_deref(), ttl.as_deref());
        (Source { shared, db, family, reader, pinned, ttl }, builder)
    }

    /// For what reads entail, if values expire.
    pub fn toucher(&self) -> Option<Toucher> {
        let (shared, family) = (Arc::clone(&self.shared), self.family.clone());
        let ttl = Arc::clone(self.ttl.as_ref()?);
        Some(Toucher { shared, family, ttl, reads_only: self.pinned.is_some() })
    }

    /// Does it show a snapshot?
    pub fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }

    /// How its values expire.
    pub fn ttl(&self) -> Option<&Arc<Ttl>> {
        self.ttl.as_ref()
    }

    /// Puts a list in place of the current one, given in parts; without any it is removed.
    pub fn replace(&mut self, parts: &[Vec<u8>]) -> Result<()> {
        self.find()?;
        let mut batch = WriteBatch::new();
        let cell = self.builder.cell();
        match parts.split_first() {
            None => batch.delete(&self.family, cell),
            Some((first, rest)) => {
                batch.put(&self.family, cell, first);
                rest.iter().for_each(|part| batch.merge(&self.family, cell, part));
            }
        }
        self.db_mut()?.write(&batch, WriteOptions::default()).map(drop)
    }

    /// Lends the cell's value and merge operands, oldest first, to `f`.
    pub fn operands<R>(
        &mut self,
        f: impl FnOnce(Option<&[u8]>, &[&[u8]]) -> Result<R>,
    ) -> Result<R> {
        self.find()?;
        if let Some(pinned) = &self.pinned {
            self.db.upgrade().ok_or_else(closed)?;
            let merged =
                self.reader.get_at(pinned, self.builder.cell(), |merged| f(merged, &[]))?;
            return merged.map_err(|e| in_state(self.family.name(), &e));
        }
        let outcome = self.db()?.get_operands(&self.family, self.builder.cell(), f)?;
        outcome.map_err(|e| in_state(self.family.name(), &e))
    }

    #[inline]
    pub fn put(&mut self, value: &[u8]) -> Result<()> {
        self.find()?;
        self.check_writable()?;
        self.writer.put(self.builder.cell(), value)
    }

    #[inline]
    pub fn merge(&mut self, operand: &[u8]) -> Result<()> {
        self.find()?;
        self.check_writable()?;
        self.writer.merge(self.builder.cell(), operand)
    }

    #[inline]
    pub fn delete(&mut self) -> Result<()> {
        self.find()?;
        self.check_writable()?;
        self.writer.delete(self.builder.cell())
    }

    #[inline]
    pub fn put_entry(&mut self, user_key: impl FnOnce(&mut Vec<u8>), value: &[u8]) -> Result<()> {
        self.find()?;
        self.check_writable()?;
        self.writer.put(self.builder.entry(user_key), value)
    }

    #[inline]
    pub fn delete_entry(&mut self, user_key: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.find()?;
        self.check_writable()?;
        self.writer.delete(self.builder.entry(user_key))
    }

    /// Reads the cell and writes what `f` makes of it, in one step.
    pub fn update(
        &mut self,
        mut f: impl FnMut(Option<&[u8]>, &mut Vec<u8>) -> Update,
    ) -> Result<()> {
        self.find()?;
        self.check_writable()?;
        let cell = self.builder.cell();
        match &self.ttl {
            None => self.writer.update(cell, f),
            Some(ttl) => self.writer.update(cell, |old, out| ttl.update(old, out, &mut f)),
        }
    }

    /// The same with an entry in the cell.
    pub fn update_entry(
        &mut self,
        user_key: impl FnOnce(&mut Vec<u8>),
        mut f: impl FnMut(Option<&[u8]>, &mut Vec<u8>) -> Update,
    ) -> Result<()> {
        self.find()?;
        self.check_writable()?;
        let key = self.builder.entry(user_key);
        match &self.ttl {
            None => self.writer.update(key, f),
            Some(ttl) => self.writer.update(key, |old, out| ttl.update(old, out, &mut f)),
        }
    }

    /// Is there any entry in the cell?
    pub fn has_entries(&mut self) -> Result<bool> {
        self.find()?;
        let pinned = self.pinned.as_deref();
        self.db()?.has_prefix(&self.family, self.builder.cell(), pinned)
    }

    /// A cursor over the entries in the cell, and the number of bytes before their user keys.
    pub fn scan(&mut self) -> Result<(Scan, usize)> {
        self.find()?;
        let cell = self.builder.cell();
        let pinned = self.pinned.as_deref();
        let scan = self.db()?.scan_range(&self.family, KeyRange::prefix(cell), pinned)?;
        Ok((scan, cell.len()))
    }

    /// The keys of the cells of the current key in the namespace `target` and, each once, in those of
    /// `sources`. Changes neither the current key nor the current namespace.
    pub fn cells<'a>(
        &mut self,
        target: &N,
        sources: impl IntoIterator<Item = &'a N>,
    ) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
        self.compose_key()?;
        let (serializer, builder) = (&*self.serializer, &mut self.builder);
        let mut cell = |namespace: &N| {
            builder.set_namespace(|out| serializer.encode(namespace, out));
            builder.cell().to_vec()
        };
        let target = cell(target);
        let mut cells = Vec::new();
        for source in sources {
            let source = cell(source);
            if !cells.contains(&source) {
                cells.push(source);
            }
        }
        Ok((target, cells))
    }

    /// Lends the bytes of a cell that [`cells`](Cell::cells) named to `f`, if they are to be shown.
    pub fn read_at<R>(
        &mut self,
        cell: &[u8],
        f: impl FnOnce(Option<&[u8]>) -> Result<R>,
    ) -> Result<R> {
        let shown = |bytes: &&[u8]| self.ttl.as_ref().is_none_or(|ttl| ttl.shows(bytes, ttl.now()));
        self.reader
            .get_with(cell, |bytes| f(bytes.filter(shown)))?
            .map_err(|e| in_state(self.family.name(), &e))
    }

    /// Lends value and operands of a cell that [`cells`](Cell::cells) named to `f`.
    pub fn operands_at<R>(
        &mut self,
        cell: &[u8],
        f: impl FnOnce(Option<&[u8]>, &[&[u8]]) -> Result<R>,
    ) -> Result<R> {
        let outcome = self.db()?.get_operands(&self.family, cell, f)?;
        outcome.map_err(|e| in_state(self.family.name(), &e))
    }

    /// Writes what `fill` puts into a batch, all or nothing.
    pub fn write(&self, fill: impl FnOnce(&mut WriteBatch, &ColumnFamily)) -> Result<()> {
        let mut batch = WriteBatch::new();
        fill(&mut batch, &self.family);
        self.db_mut()?.write(&batch, WriteOptions::default()).map(drop)
    }

    /// The state's family.
    pub fn family(&self) -> ColumnFamily {
        self.family.clone()
    }

    /// The widths of the parts of its keys.
    pub fn shape(&self) -> KeyShape {
        self.builder.shape()
    }

    /// The serializer of its namespaces.
    pub fn namespaces(&self) -> Arc<dyn Serializer<Value = N>> {
        Arc::clone(&self.serializer)
    }

    /// Is it a cell of this backend?
    pub fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// Hands database and family to `f`, whatever the key.
    pub fn store<R>(&self, f: impl FnOnce(&Db, &ColumnFamily) -> Result<R>) -> Result<R> {
        f(&*self.db_mut()?, &self.family)
    }

    /// Hands everything that a batch needs to `f`: database, family, and the builder on the cell.
    pub fn with<R>(
        &mut self,
        f: impl FnOnce(&Db, &ColumnFamily, &mut KeyBuilder) -> Result<R>,
    ) -> Result<R> {
        self.find()?;
        f(&*self.db_mut()?, &self.family, &mut self.builder)
    }
}

/// What a read of one key needs of its handle.
struct Source<'a> {
    shared: &'a Shared,
    db: &'a Weak<Db>,
    family: &'a ColumnFamily,
    reader: &'a mut Reader,
    pinned: Option<&'a Snapshot>,
    ttl: Option<&'a Ttl>,
}

impl Source<'_> {
    /// Lends the value of a key to `f`.
    #[inline]
    fn read<R>(self, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> Result<R>) -> Result<R> {
        let outcome = match (self.ttl, self.pinned) {
            (None, None) => self.reader.get_with(key, f)?,
            (Some(ttl), None) => return self.read_and_touch(ttl, key, f),
            (ttl, Some(pinned)) => {
                self.db.upgrade().ok_or_else(closed)?;
                let now = ttl.map(|ttl| (ttl, ttl.now()));
                let shown = |bytes: &&[u8]| now.is_none_or(|(ttl, now)| ttl.shows(bytes, now));
                self.reader.get_at(pinned, key, |bytes| f(bytes.filter(shown)))?
            }
        };
        outcome.map_err(|e| in_state(self.family.name(), &e))
    }

    /// Lends the value of a key to `f` if it is to be shown, and does what the read entails.
    fn read_and_touch<R>(
        self,
        ttl: &Ttl,
        key: &[u8],
        f: impl FnOnce(Option<&[u8]>) -> Result<R>,
    ) -> Result<R> {
        let touch = Touch { shared: self.shared, family: self.family, ttl, now: ttl.now() };
        let mut due = None;
        let outcome = self.reader.get_with(key, |bytes| {
            due = bytes.filter(|bytes| touch.is_due(bytes)).map(<[u8]>::to_vec);
            f(bytes.filter(|bytes| ttl.shows(bytes, touch.now)))
        })?;
        let outcome = outcome.map_err(|e| in_state(self.family.name(), &e))?;
        if let Some(read) = due {
            touch.touch(key, &read)?;
        }
        Ok(outcome)
    }
}
