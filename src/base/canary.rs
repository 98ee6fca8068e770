//! Bugs that can be planted, to see whether the harnesses find them.
//!
//! Each is one line somewhere in the engine, of a class of bugs that databases really had. In a build
//! without the feature `canary` none of them is there: [`Canary::is_planted`] is the constant `false`.
//! With it, the harness chooses one at run time, and must find it: `alluvium-sim canaries`, and
//! `shuttle canaries` in `tests/check` for those that only an unlucky order of threads shows. For any
//! other program of such a build, the environment's `ALLUVIUM_CANARY` may name one.

#[cfg(feature = "canary")]
use std::sync::atomic::{AtomicUsize, Ordering}; // no model checker's: asking changes no order

/// Who must find a bug.
#[cfg(feature = "canary")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harness {
    /// Power cuts at every moment of a life, and of the recovery.
    Crash,
    /// Operations of the file system and the store that fail.
    Fault,
    /// Random programs beside plain maps.
    Program,
    /// Damaged files.
    Damage,
    /// Foreign bytes for every decoder.
    Hostile,
    /// Compaction filters beside snapshots.
    Filter,
    /// Random schedules of whole small databases.
    Threads,
}

macro_rules! canaries {
    ($($name:ident: $harness:ident, $class:literal, $text:literal;)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Canary {
            $(#[doc = $text] $name,)*
        }

        #[cfg(feature = "canary")]
        impl Canary {
            /// All of them.
            pub const ALL: &[Canary] = &[$(Canary::$name),*];

            /// The harness that must find it.
            pub fn harness(self) -> Harness {
                match self { $(Canary::$name => Harness::$harness,)* }
            }

            /// The class of bugs in the catalogue, and what is wrong in words.
            pub fn describe(self) -> (&'static str, &'static str) {
                match self { $(Canary::$name => ($class, $text),)* }
            }
        }
    };
}

canaries! {
    DamagedLogIsCut: Damage, "damage in the middle of the log",
        "Recovery cuts the log at damage although what follows proves that it was durable.";
    CurrentIsNotDurable: Crash, "rename without a sync of the directory",
        "`CURRENT` is renamed, and the directory is not synced.";
    OldManifestGoesFirst: Crash, "order of unlink and rename",
        "The old manifest is removed before `CURRENT` names the new one.";
    FailedSyncIsRetried: Fault, "a sync fails, its repetition succeeds",
        "A sync of the log that failed is tried again, and believed.";
    UnknownCommitIsRefused: Fault, "a failed write of unknown outcome",
        "A commit that may be there is reported as not committed, and writing goes on.";
    SeqnosAreReused: Crash, "sequence numbers reused after recovery",
        "Recovery forgets the sequence numbers that it has replayed.";
    BrokenManifestGoesOn: Fault, "appends behind a failed append to the manifest",
        "A manifest is appended to after an append has failed.";
    EpochIsReused: Crash, "a live manifest's number reused",
        "A new epoch looks at the manifest, and not at the files that are there.";
    TablesGoBeforeTheEpoch: Crash, "files deleted in recovery, then a late manifest record",
        "Recovery removes tables before a manifest that does without them is durable.";
    RecoveredIsNotDurable: Crash, "a second crash during recovery",
        "What was replayed from the log's unsynced tail is shown before it is durable.";
    DeleteDropsEarly: Program, "a tombstone dropped too early",
        "A compaction drops deletes although older versions may lie below.";
    DeletesHideNothing: Program, "a tombstone dropped too early",
        "A scan takes deleted keys out of a memtable although older versions lie below.";
    OperandsJoinOverRange: Program, "merge operands under a range tombstone",
        "A memtable joins an operand over a range tombstone to one that lies under it.";
    SnapshotIsIgnored: Program, "a version below a snapshot dropped",
        "A compaction keeps only what the newest reader sees.";
    RangeDeleteMissesFirstKey: Program, "edges of range tombstones",
        "A range tombstone that goes on in the next output misses its first key.";
    FilterHidesRangeDelete: Program, "range tombstones and filters",
        "A read skips a table's range tombstones if the filter denies the key.";
    OperandsAreReversed: Crash, "merge operands dropped, doubled, in the wrong order",
        "A compaction folds operands newest first.";
    FilterSeesSnapshots: Filter, "a compaction filter ignores snapshots",
        "A filter is asked about versions that snapshots see.";
    BackwardSeekMissesFile: Crash, "seeks and backward seeks",
        "A backward seek to the first key of a file begins in the file before.";
    OldVersionIsCached: Program, "a cache that knows nothing of snapshots",
        "What a reader of an earlier time found is cached as if it were the newest version.";
    TableGoesUnderReader: Program, "an iterator over a file that is gone",
        "A table that was compacted away is removed while readers hold it.";
    ReadErrorIsTheEnd: Fault, "a read error taken for the end",
        "A cursor over a table takes a failed read for the end of the table.";
    ChecksumsAreUnbound: Damage, "misplaced blocks",
        "Checksums do not cover the file and the offset.";
    BlockLengthWraps: Hostile, "overflow in a block's lengths",
        "The number of restarts is subtracted from the length without a look.";
    UnpackedLengthIsTrusted: Hostile, "decompression bombs",
        "A packed block may claim any length.";
    JobDiesSilently: Fault, "a background job dies silently",
        "The failure of a background job is told to nobody.";
    DirectoryIsShared: Crash, "a directory opened twice",
        "The lock of the directory is let go when the database is open.";
    AbortDeletesShared: Crash, "an aborted checkpoint's files deleted",
        "Giving up a checkpoint deletes what it shares with others.";
    SaverDeletesReused: Fault, "a task deletes what it thinks it owns",
        "A checkpoint that could not be saved takes its base's objects with it.";
    NamesAreReused: Program, "the same name for different bytes",
        "Objects are named by number alone, and an existing one is taken for the wanted one.";
    RestoreDeletesSource: Crash, "a restored checkpoint's files discarded",
        "A restore removes the objects that it has linked.";
    LostAnswerDeletes: Fault, "an ambiguous put taken for a failure",
        "Objects are deleted although the envelope that names them may exist.";
    VisibleBeforeWritten: Threads, "a batch seen in parts",
        "A batch is published before it is in the memtables.";
    NextLeaderSleeps: Threads, "a lost wake-up",
        "Who came while a group was led is not woken to lead the next.";
    MemtablesGoFirst: Threads, "a gap while a flush is installed",
        "The memtables that were flushed go before their table is there.";
    WaitsWithoutAsking: Threads, "what is waited for comes just before the wait",
        "A writer without room waits although there may be room by now.";
    FlushTakesLater: Threads, "a checkpoint beside a flush",
        "A flush takes memtables from both sides of a checkpoint.";
}

/// The place of the planted bug in [`Canary::ALL`], counted from 1; 0: none.
#[cfg(feature = "canary")]
static PLANTED: AtomicUsize = AtomicUsize::new(UNASKED);

/// The environment has not been asked yet.
#[cfg(feature = "canary")]
const UNASKED: usize = usize::MAX;

impl Canary {
    /// Is this bug planted?
    #[cfg(not(feature = "canary"))]
    #[inline(always)]
    pub const fn is_planted(self) -> bool {
        false
    }

    /// Is this bug planted?
    #[cfg(feature = "canary")]
    #[inline]
    pub fn is_planted(self) -> bool {
        let planted = match PLANTED.load(Ordering::Relaxed) {
            UNASKED => Canary::plant_named(),
            planted => planted,
        };
        planted == self as usize + 1
    }

    /// Plants the bug that the environment names, if it does.
    ///
    /// # Panics
    /// If there is no such bug.
    #[cfg(feature = "canary")]
    #[cold]
    fn plant_named() -> usize {
        let named = std::env::var("ALLUVIUM_CANARY").ok().map(|name| {
            let is = |canary: &&Canary| format!("{canary:?}") == name;
            let canary = Canary::ALL.iter().find(is);
            *canary.unwrap_or_else(|| panic!("ALLUVIUM_CANARY: no bug is named {name}"))
        });
        Canary::plant(named);
        PLANTED.load(Ordering::Relaxed)
    }

    /// Plants a bug in the whole process, in place of the one before; `None`: the truth again.
    #[cfg(feature = "canary")]
    pub fn plant(canary: Option<Canary>) {
        PLANTED.store(canary.map_or(0, |canary| canary as usize + 1), Ordering::SeqCst);
    }
}
