//! Point lookups: memtable, frozen memtables, tables; the first answer wins.

use std::cell::Cell;

use crate::base::error::{Error, Result};
use crate::base::key::{SEQNO_MAX, SeqNo, ValueKind};
use crate::base::sync::Arc;
use crate::db::column_family::{ColumnFamily, Family};
use crate::db::core::Core;
use crate::db::holders::{Held, Holder};
use crate::db::snapshot::Snapshot;
use crate::db::super_version::{Immutable, SuperVersion};
use crate::iter::resolve::{MergeOperator, Resolver, Step};
use crate::memtable::{Found, MemTable, Peek, ReadPin, ValueCopy, Versions};

/// What a read sees: a [`SuperVersion`], and a sequence number in it.
pub(in crate::db) struct View {
    pub super_version: Arc<SuperVersion>,
    pub pin: ReadPin,
}

impl View {
    /// Takes the bundle *first*, then pins what is visible. The other way round, a flush and a
    /// compaction in between could drop the only version that is visible at the older number.
    #[inline]
    pub fn new(core: &Core, family: &Family, snapshot: Option<&Snapshot>) -> View {
        let super_version = family.cell.load();
        let pin = match snapshot {
            Some(snapshot) => core.pin_of(snapshot).clone(),
            None => core.pin(),
        };
        View { super_version, pin }
    }
}

impl Core {
    /// Holders what is visible now.
    #[inline]
    pub fn pin(&self) -> ReadPin {
        self.read_pins.pin(&self.visible)
    }

    /// What a snapshot of this database pins.
    #[inline]
    pub fn pin_of<'a>(&self, snapshot: &'a Snapshot) -> &'a ReadPin {
        assert_eq!(snapshot.instance(), self.instance, "a snapshot of another database");
        snapshot.pin()
    }
}

/// Lends the newest value of `key` to `f`. `at` is what was visible after the bundle was taken, and
/// becomes the later number that was read at in the end, if one had to be pinned.
#[inline]
pub(in crate::db) fn lookup_newest<R>(
    core: &Core,
    super_version: &SuperVersion,
    operator: impl FnOnce() -> Option<Arc<dyn MergeOperator>>,
    key: &[u8],
    at: &mut SeqNo,
    f: impl FnOnce(Option<&[u8]>) -> R,
) -> Result<R> {
    // The newest source decides alone when it has a value: everything else, range tombstones
    // included, is older. What it has not even heard of needs no pin either.
    if !super_version.mem.has_range_tombstones() {
        match super_version.mem.peek(key, *at, &mut ValueCopy::new()) {
            Peek::Newest(Found { kind: ValueKind::Put, value, .. }) => return Ok(f(Some(value))),
            Peek::Newest(Found { kind: ValueKind::Delete, .. }) => return Ok(f(None)),
            Peek::Absent if super_version.has_nothing_older() => return Ok(f(None)),
            Peek::Absent => return lookup_older(super_version, operator, key, *at, f),
            Peek::Newest(_) | Peek::Unclear => {}
        }
    }
    let pin = core.pin();
    *at = pin.seqno();
    lookup_in(super_version, Some(&pin), operator, key, *at, f)
}

/// Lends the value of `key`, of which the memtable knows nothing, to `f`.
#[inline]
pub(in crate::db) fn lookup_older<R>(
    super_version: &SuperVersion,
    operator: impl FnOnce() -> Option<Arc<dyn MergeOperator>>,
    key: &[u8],
    at: SeqNo,
    f: impl FnOnce(Option<&[u8]>) -> R,
) -> Result<R> {
    lookup_in(super_version, None, operator, key, at, f)
}

/// Lends the value of `key` at `pin` to `f`.
#[inline]
pub(in crate::db) fn lookup<R>(
    super_version: &SuperVersion,
    pin: &ReadPin,
    operator: impl FnOnce() -> Option<Arc<dyn MergeOperator>>,
    key: &[u8],
    f: impl FnOnce(Option<&[u8]>) -> R,
) -> Result<R> {
    lookup_in(super_version, Some(pin), operator, key, pin.seqno(), f)
}

/// Keys whose misses in a memtable overlap.
const AT_ONCE: usize = 32;

/// Lends the values of several keys at one moment to `f`, with their places in the list.
pub(in crate::db) fn lookup_many(
    View { super_version, pin }: &View,
    operator: Option<&Arc<dyn MergeOperator>>,
    keys: &[&[u8]],
    mut f: impl FnMut(usize, Option<&[u8]>),
) -> Result<()> {
    let mem = &super_version.mem;
    for (chunk, many) in keys.chunks(AT_ONCE).enumerate() {
        mem.look_ahead(many);
        for (i, key) in (chunk * AT_ONCE..).zip(many) {
            if !mem.has_range_tombstones() {
                match mem.versions(key, pin).next() {
                    Some(Found { kind: ValueKind::Put, value, .. }) => {
                        f(i, Some(value));
                        continue;
                    }
                    Some(Found { kind: ValueKind::Delete, .. }) => {
                        f(i, None);
                        continue;
                    }
                    _ => {}
                }
            }
            lookup(super_version, pin, || operator.cloned(), key, |value| f(i, value))?;
        }
    }
    Ok(())
}

thread_local! {
    static KEPT: Cell<Option<Box<Resolver>>> = const { Cell::new(None) };
}

/// A thread keeps no more for its next read.
const KEPT_BYTES: usize = 64 << 10;

/// This thread's resolver, whose buffers hold the operands of one key after the other. A new one if it is
/// in use: whom a value is lent to may read another.
struct KeptResolver(Option<Box<Resolver>>);

impl KeptResolver {
    #[inline]
    fn take(at: SeqNo) -> KeptResolver {
        let mut resolver = KEPT.try_with(Cell::take).ok().flatten().unwrap_or_default();
        resolver.reset(at);
        KeptResolver(Some(resolver))
    }

    #[inline]
    fn get(&mut self) -> &mut Resolver {
        self.0.as_mut().expect("until it is dropped")
    }
}

impl Drop for KeptResolver {
    #[inline]
    fn drop(&mut self) {
        let kept = self.0.take().filter(|resolver| resolver.kept_bytes() <= KEPT_BYTES);
        // Not at the end of the thread.
        let _ = KEPT.try_with(|place| place.set(kept));
    }
}

/// Looks into the current memtable only with a pin.
fn lookup_in<R>(
    super_version: &SuperVersion,
    pin: Option<&ReadPin>,
    operator: impl FnOnce() -> Option<Arc<dyn MergeOperator>>,
    key: &[u8],
    at: SeqNo,
    f: impl FnOnce(Option<&[u8]>) -> R,
) -> Result<R> {
    let mut resolver = KeptResolver::take(at);
    let resolver = resolver.get();
    let mut lend = Some(f);
    let mut lent = None;
    let step = search(super_version, pin, resolver, key, at, &mut |value| {
        let f = lend.take().expect("one value is lent");
        lent = Some(f(Some(value)));
    })?;
    match step {
        Step::Value => Ok(lent.expect("the value was lent")),
        Step::Absent => Ok(lend.take().expect("nothing was lent")(None)),
        Step::Merge => {
            let merged = resolver.merged(key, operator().as_deref())?;
            Ok(lend.take().expect("nothing was lent")(Some(merged)))
        }
        Step::More => unreachable!("the search ends with an answer"),
    }
}

/// Feeds all versions of `key` to the resolver, newest source first, until it knows the answer. A
/// plain value is lent to `found`. The current memtable is left out without a pin.
fn search(
    super_version: &SuperVersion,
    pin: Option<&ReadPin>,
    resolver: &mut Resolver,
    key: &[u8],
    at: SeqNo,
    found: &mut dyn FnMut(&[u8]),
) -> Result<Step> {
    if let Some(pin) = pin {
        let mem = &super_version.mem;
        match search_memtable(mem, mem.versions(key, pin), resolver, key, at, found) {
            Step::More => {}
            step => return Ok(step),
        }
    }
    for Immutable { table, .. } in &super_version.immutables {
        match search_memtable(table, table.frozen_versions(key, at), resolver, key, at, found) {
            Step::More => {}
            step => return Ok(step),
        }
    }
    match super_version.version.get(key, at, resolver, found)? {
        Step::More => Ok(resolver.end()),
        step => Ok(step),
    }
}

fn search_memtable(
    mem: &MemTable,
    versions: Versions<'_>,
    resolver: &mut Resolver,
    key: &[u8],
    at: SeqNo,
    found: &mut dyn FnMut(&[u8]),
) -> Step {
    if mem.has_range_tombstones() {
        match mem.range_tombstones().cover(key, at) {
            0 => {}
            cover => resolver.cover(cover),
        }
    }
    versions.resolve(resolver, found)
}

/// Lends the merge operands of `key`, oldest first, after the value they apply to, if there is one.
pub(in crate::db) fn operands<R>(
    view: &View,
    key: &[u8],
    f: impl FnOnce(Option<&[u8]>, &[&[u8]]) -> R,
) -> Result<R> {
    let mut resolver = Resolver::new();
    let at = view.pin.seqno();
    resolver.reset(at);
    let mut value = None;
    let sources = &view.super_version;
    let step = search(sources, Some(&view.pin), &mut resolver, key, at, &mut |found| {
        value = Some(found.to_vec());
    })?;
    Ok(match step {
        Step::Value => f(value.as_deref(), &[]),
        Step::Merge => {
            let operands: Vec<&[u8]> = resolver.operands().map(|(_, operand)| operand).collect();
            f(resolver.base(), &operands)
        }
        _ => f(None, &[]),
    })
}

/// Reads one family again and again for the price of a check: it holds on to the family's current
/// memtables and tables, and looks for newer ones at each read.
///
/// A resting reader keeps tables that were compacted away on disk, and memtables that were flushed in
/// memory, for which writers may have to stop; [`release`](Reader::release) lets go of them.
pub struct Reader {
    core: Arc<Core>,
    family: Arc<Family>,
    held: Option<Bundle>,
}

/// What a reader holds between two reads.
struct Bundle {
    generation: u64,
    super_version: Arc<SuperVersion>,
    _held: Held,
}

impl Reader {
    pub(in crate::db) fn new(core: Arc<Core>, family: &ColumnFamily) -> Reader {
        Reader { core, family: Arc::clone(&family.0), held: None }
    }

    /// Lends the newest value of `key`, or `None`, to `f`. See
    /// [`Db::get_with`](crate::Db::get_with).
    ///
    /// # Errors
    /// `Io` or `Corruption` from a table; `Incompatible` for merge operands without an operator.
    #[inline]
    pub fn get_with<R>(&mut self, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        self.read(key, None, f)
    }

    /// The same as of a snapshot.
    ///
    /// # Panics
    /// If the snapshot is of another database.
    pub fn get_at<R>(
        &mut self,
        snapshot: &Snapshot,
        key: &[u8],
        f: impl FnOnce(Option<&[u8]>) -> R,
    ) -> Result<R> {
        self.read(key, Some(snapshot), f)
    }

    /// Lets go of memtables and tables until the next read.
    pub fn release(&mut self) {
        self.held = None;
    }

    #[inline]
    fn read<R>(
        &mut self,
        key: &[u8],
        snapshot: Option<&Snapshot>,
        f: impl FnOnce(Option<&[u8]>) -> R,
    ) -> Result<R> {
        let generation = self.family.cell.generation();
        let held = match &mut self.held {
            Some(held) if held.generation == generation => &held.super_version,
            held => {
                let _held = Held::new(Arc::clone(&self.family), Holder::Reader);
                let super_version = self.family.cell.load();
                &held.insert(Bundle { generation, super_version, _held }).super_version
            }
        };
        let family = &self.family;
        let operator = || family.options().merge_operator.clone();
        match snapshot {
            Some(snapshot) => lookup(held, self.core.pin_of(snapshot), operator, key, f),
            None => {
                // Loaded after the bundle was taken, as in `View::new`.
                let at = &mut self.core.visible();
                lookup_newest(&self.core, held, operator, key, at, f)
            }
        }
    }
}

/// Has anything been written to `key` after `at`, as far as this memtable knows?
#[inline]
pub(in crate::db) fn changed_since(mem: &MemTable, key: &[u8], at: SeqNo) -> bool {
    mem.newest(key).is_some_and(|seqno| seqno > at)
        || (mem.has_range_tombstones() && mem.range_tombstones().cover(key, SEQNO_MAX) > at)
}

/// Keys are not empty and not over the limit.
#[inline]
pub(in crate::db) fn check_key(key: &[u8]) -> Result<()> {
    match key.len() {
        1..=crate::base::limits::KEY_BYTES_MAX => Ok(()),
        0 => Err(Error::invalid("the empty key")),
        len => Err(Error::invalid(format!("a key of {len} bytes"))),
    }
}
