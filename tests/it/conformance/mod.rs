//! Flink's own tests of state, by their names, against the public interface. Each runs with the log
//! off, buffered or synced: as its name decides, or as `ALLUVIUM_LOG` says ([`job::Log`]); the gate runs
//! all with each. Tests with a name of ours have no one counterpart.
//!
//! A test of Flink's is found in the module of the second column, by its name in snake case; where there
//! is none, the third column says why. A test holds the table to that.
//!
//! | Flink 2.3.0 | module | |
//! |---|---|---|
//! | **StateBackendTestBase** | | |
//! | `testEnableStateLatencyTracking` | – | no latency tracking: the listener and `Stats` tell what happens |
//! | `testIsSafeToReuseState` | `states` | always, as values are serialized when they are written |
//! | `testKeyGroupedInternalPriorityQueue`, `testKeyGroupedInternalPriorityQueueAddAll` | `timers` | |
//! | `testGetKeys`, `testGetKeysAndNamespaces`, `testNumStateEntries` | `states` | |
//! | `testRequireNonNullNamespace` | `states` | a namespace cannot be null, but missing |
//! | `testEmptyStateCheckpointing` | `states` | no null handles: a checkpoint of nothing restores as nothing |
//! | `testBackendUsesRegisteredKryoDefaultSerializer`, `testBackendUsesRegisteredKryoDefaultSerializerUsingGetOrCreate`, `testBackendUsesRegisteredKryoSerializer`, `testBackendUsesRegisteredKryoSerializerUsingGetOrCreate`, `testKryoRegisteringRestoreResilienceWithRegisteredType`, `testKryoRegisteringRestoreResilienceWithDefaultSerializer`, `testKryoRegisteringRestoreResilienceWithRegisteredSerializer`, `testKryoRestoreResilienceWithDifferentRegistrationOrder`, `testPojoRestoreResilienceWithDifferentRegistrationOrder` | `serializers` | a serializer of the caller's is used, and what it had registered is found again |
//! | `testValueState`, `testValueStateRace`, `testMultipleValueStates`, `testValueStateNullUpdate`, `testValueStateNullAsDefaultValue`, `testValueStateDefaultValue`, `testCopyDefaultValue` | `states` | a snapshot's handles stand for the serialized query |
//! | `testValueStateWorkWithTtl` | `ttl` | |
//! | `testListState`, `testListStateAPIs`, `testListStateMerging`, `testListStateDefaultValue` | `states` | |
//! | `testListStateAddNull`, `testListStateAddAllNullEntries`, `testListStateAddAllNull`, `testListStateUpdateNullEntries`, `testListStateUpdateNull` | – | the types have no null |
//! | `testReducingState`, `testReducingStateAddAndGet`, `testReducingStateMerging`, `testReducingStateDefaultValue`, `testAggregatingStateAddAndGetWithMutableAccumulator`, `testAggregatingStateMergingWithMutableAccumulator`, `testAggregatingStateAddAndGetWithImmutableAccumulator`, `testAggregatingStateMergingWithImmutableAccumulator` | `states` | |
//! | `testMapState`, `testMapStateIsEmpty`, `testMapStateIteratorArbitraryAccess`, `testMapStateEntryCompare`, `testMapStateDefaultValue`, `testMapStateGetKeys`, `testMapStateGetKeysAndNamespaces` | `states` | `remove` and `put` for `iterator.remove` and `setValue` |
//! | `testSnapshotNonAccessedState`, `testKeyGroupSnapshotRestoreScaleDown`, `testKeyGroupSnapshotRestoreScaleUp`, `testKeyGroupsSnapshotRestoreNoRescale`, `testKeyGroupsSnapshotRestoreScaleUpUnEvenDistribute`, `testKeyGroupsSnapshotRestoreScaleDownUnEvenDistribute` | `checkpoints` | |
//! | `testRestoreWithWrongKeySerializer`, `testValueStateRestoreWithWrongSerializers`, `testListStateRestoreWithWrongSerializers`, `testReducingStateRestoreWithWrongSerializers`, `testMapStateRestoreWithWrongSerializers` | `migration` | |
//! | `testQueryableStateRegistration`, `testConcurrentMapIfQueryable` | – | no registry of queryable state; reading from other threads: `views` |
//! | `testParallelAsyncSnapshots`, `testAsyncSnapshot`, `testAsyncSnapshotCancellation`, `testCheckConcurrencyProblemWhenPerformingCheckpointAsync` | `checkpoints` | |
//! | `testNonConcurrentSnapshotTransformerAccess` | – | a checkpoint is files: nothing transforms them |
//! | `testConcurrentModificationWithApplyToAllKeys`, `testApplyToAllKeysLambdaFunction` | `states` | |
//! | **EmbeddedRocksDBStateBackendTest** | | |
//! | `testCorrectMergeOperatorSet`, `testReleasingSnapshotAfterBackendClosed`, `testDismissingSnapshot`, `testCompletingSnapshot`, `testSharedIncrementalStateDeRegistration`, `testMapStateClear`, `testSmallFilesCompaction` | `checkpoints` | |
//! | `testDismissingSnapshotNotRunnable`, `testCancelRunningSnapshot` | – | giving up is a drop, after which nothing can be run, and there are no streams: `testAsyncSnapshotCancellation` |
//! | `testDisposeDeletesAllDirectories` | – | closing keeps the directory, on purpose: local recovery |
//! | `testConfigureTernaryBooleanConfigs` | – | options of Java; so are the metrics of a restore |
//! | **RocksIncrementalSnapshotStrategyTest** | | |
//! | `testCheckpointIsIncremental` | `checkpoints` | and what was run of unconfirmed, aborted and restored bases: `registry`. An unconfirmed checkpoint is never a base, a restored one is; no savepoints |
//! | **RocksDBClaimSavepointThenCheckpointRestoreTest** | | |
//! | `testFirstCheckpointSurvivesMetadataRoundTrip` | `registry` | no claim modes; envelopes name objects, not paths |
//! | **RocksDBStateUploaderTest, RocksDBStateDownloaderTest** | | |
//! | `testMultiThreadUploadThreadPoolExceptionRethrow`, `testUploadedSstCanBeCleanedUp`, `testMultiThreadUploadCorrectly`, `testMultiThreadRestoreThreadPoolExceptionRethrow`, `testMultiThreadRestoreCorrectly`, `testMultiThreadCleanupOnFailure` | `transfer` | one thread uploads, and one downloads; what crashes leave: the crate's `a_crash_while_saving_leaves_all_or_nothing`, `a_crash_while_restoring_leaves_all_or_nothing` |
//! | **RocksIncrementalCheckpointRescalingTest** | | |
//! | `testScalingUp`, `testScalingDown` | `checkpoints` | |
//! | **RocksDBIncrementalCheckpointUtilsTest** | | |
//! | `testClipDbWithKeyGroupRange` | `checkpoints` | there is no best handle to be chosen, as all are clipped |
//! | **RocksDBAutoCompactionIngestRestoreTest** | | |
//! | `testAutoCompactionEnabledWithIngestDBRestore` | `checkpoints` | no temporary databases |
//! | **StateAssignmentOperationTest** | | |
//! | `testRepartitionSplitDistributeStates`, `testRepartitionUnionState`, `testRepartitionBroadcastState`, `testRepartitionBroadcastStateWithNullSubtaskState`, `testRepartitionBroadcastStateWithEmptySubtaskState`, `testReDistributeCombinedPartitionableStates` | `operator` | |
//! | `testChannelStateAssignmentStability`, `testChannelStateAssignmentDownscaling`, `testChannelStateAssignmentTwoDifferentGates`, `testChannelStateAssignmentNoRescale`, `testChannelStateAssignmentUpscaling`, `testOnlyUpstreamChannelStateAssignment`, `testStateWithFullyFinishedOperators` | – | records in flight and finished operators are the stream processor's |
//! | **SharedStateRegistryTest** | | |
//! | `testRegistryNormal`, `testUnregisterWithUnexistedKey`, `testUnregisterNonInitialCheckpoint`, `testUnregisterInitialCheckpoint` | `registry` | |
//! | `testUnregisterUnusedSavepointState`, `testRegisterChangelogStateBackendHandles`, `testUnregisterInitialCheckpointUsedInChangelog`, `testFireMergingOperatorStateRegister` | – | no savepoints, no changelog, no merged files |
//! | IncrementalRemoteKeyedStateHandleTest, placeholders | – | handles do not own objects: envelopes name them, and only `Registry` deletes |
//! | **InternalPriorityQueueTestBase** | | |
//! | `testPeekPollOrder`, `testRemoveInsertMixKeepsOrder`, `testPoll`, `testIsEmpty`, `testBulkAddRestoredElements`, `testIterator`, `testAdd`, `testRemove` | `timers` | |
//! | `testGetSubsetForKeyGroup` | `timers` | the variant with key groups |
//! | **InternalTimerServiceImplTest** | | |
//! | `testKeyGroupStartIndexSetting`, `testTimerAssignmentToKeyGroups`, `testOnlySetsOnePhysicalProcessingTimeTimer`, `testRegisterEarlierProcessingTimerMovesPhysicalProcessingTimer`, `testRegisteringProcessingTimeTimerInOnProcessingTimeDoesNotLeakPhysicalTimers`, `testCurrentProcessingTime`, `testCurrentEventTime`, `testSetAndFireEventTimeTimers`, `testSetAndFireProcessingTimeTimers`, `testDeleteEventTimeTimers`, `testDeleteProcessingTimeTimers`, `testForEachEventTimeTimers`, `testForEachProcessingTimeTimers`, `testSnapshotAndRestore`, `testSnapshotAndRebalancingRestore` | `timers` | |
//! | **TtlStateTestBase, RocksDBTtlStateTestBase** | | |
//! | `testNonExistentValue`, `testValueSetNull`, `testExactExpirationOnWrite`, `testRelaxedExpirationOnWrite`, `testExactExpirationOnRead`, `testRelaxedExpirationOnRead`, `testExpirationTimestampOverflow`, `testMergeNamespaces`, `testMultipleKeys`, `testMultipleNamespaces`, `testSnapshotChangeRestore`, `testRestoreTtlAndRegisterNonTtlStateCompatFailure`, `testCompactFilter`, `testCompactFilterWithSnapshot`, `testCompactFilterWithSnapshotAndRescalingAfterRestore`, `testMultipleKeysWithSnapshotCleanup`, `testMultipleNamespacesWithSnapshotCleanup` | `ttl` | |
//! | `testIncrementalCleanupWholeState`, `testIncrementalCleanup` | – | of the heap backend; here compaction cleans up: `testCompactFilter`, and `tests/it/state_model` beside checkpoints and restores |
//! | **StateBackendMigrationTestBase** | | |
//! | `testKeyedValueStateMigration`, `testKeyedValueStateSerializerReconfiguration`, `testKeyedValueStateRegistrationFailsIfNewStateSerializerIsIncompatible`, `testKeyedListStateMigration`, `testKeyedListStateSerializerReconfiguration`, `testKeyedListStateRegistrationFailsIfNewStateSerializerIsIncompatible`, `testKeyedMapStateAsIs`, `testKeyedMapStateStateMigration`, `testKeyedMapStateSerializerReconfiguration`, `testKeyedMapStateRegistrationFailsIfNewStateSerializerIsIncompatible`, `testStateBackendRestoreFailsIfNewKeySerializerRequiresMigration`, `testStateBackendRestoreSucceedsIfNewKeySerializerRequiresReconfiguration`, `testStateBackendRestoreFailsIfNewKeySerializerIsIncompatible`, `testKeyedStateRegistrationFailsIfNewNamespaceSerializerRequiresMigration`, `testKeyedStateRegistrationSucceedsIfNewNamespaceSerializerRequiresReconfiguration`, `testKeyedStateRegistrationFailsIfNewNamespaceSerializerIsIncompatible`, `testOperatorPartitionableListStateMigration`, `testOperatorPartitionableListStateSerializerReconfiguration`, `testOperatorPartitionableListStateFailsIfNewSerializerIsIncompatible`, `testOperatorUnionListStateMigration`, `testOperatorUnionListStateSerializerReconfiguration`, `testOperatorUnionListStateFailsIfNewSerializerIsIncompatible`, `testBroadcastStateValueMigration`, `testBroadcastStateKeyMigration`, `testBroadcastStateValueSerializerReconfiguration`, `testBroadcastStateKeySerializerReconfiguration`, `testBroadcastStateRegistrationFailsIfNewValueSerializerIsIncompatible`, `testBroadcastStateRegistrationFailsIfNewKeySerializerIsIncompatible`, `testStateMigrationAfterChangingTTL`, `testStateMigrationAfterChangingTTLFromDisablingToEnabling`, `testStateMigrationAfterChangingTTLFromEnablingToDisabling` | `migration` | |
//! | `testPriorityQueueStateCreationFailsIfNewSerializerIsNotCompatible` | `timers` | timers are never migrated |
//! | **StateSerializerProviderTest** | | |
//! | all | – | there is no such object; its rules: `migration` (`a_registered_state_is_not_migrated`, `migrated_parts_and_others_are_joined`) |
//! | **OperatorStateBackendTest** | | |
//! | `testRegisterStates`, `testSnapshotEmpty`, `testSnapshotBroadcastStateWithEmptyOperatorState`, `testSnapshotRestoreSync`, `testSnapshotRestoreAsync` | `operator` | |
//! | `testCreateOnAbstractStateBackend`, `testRegisterStatesWithoutTypeSerializer`, `testCorrectClassLoaderUsedOnSnapshot`, `testSnapshotAsyncClose`, `testSnapshotAsyncCancel` | – | of Java: class loaders, Kryo, streams. A snapshot is taken at once and shares what it has |
//! | **Small suites** | | |
//! | KeyGroupRangeTest, KeyGroupRangeAssignment tests | – | the crate's `state::key_group`, with vectors printed by Flink |
//! | CompositeKeySerializationUtilsTest, SerializedCompositeKeyBuilderTest | – | the crate's `state::key`: another layout, the same properties |
//! | RocksDBRocksStateKeysIteratorTest, RocksDBRocksStateKeysAndNamespacesIteratorTest: | | |
//! | `testIterator` | `checkpoints` | |
//! | RocksKeyGroupsRocksSingleStateIteratorTest, KeyGroupRangeOffsetTest, StateSnapshotCompressionTest | – | no stream of entries: a checkpoint is files |
//! | RocksDBWriteBatchWrapperTest | – | batches are not flushed by themselves: `views` |
//! | DistributeStateHandlerHelperTest | – | every table is clipped |
//! | RocksDBFullRestoreOperationTest, RocksDBRecoveryTest | `checkpoints` | `a_failed_restore_leaves_no_database` |
//! | **RocksDBMapStateTest** | | |
//! | `testEmptyMapDoesNotScanDeletedEntriesOfNextKey`, `testIteratorCacheReloadAfterEntriesWereRemoved`, `testIteratorCacheReloadDoesNotScanDeletedEntriesOfNextKey`, `testClearDoesNotScanDeletedEntriesOfNextKey`, `testIteratorCacheReloadDoesNotAdvanceAfterExhaustedSeek` | `checkpoints` | |
//! | TaskLocalStateStoreImplTest | – | no task-local store: objects of a store on the same disk are linked |
//!
//! What implementers get wrong, and where it is held:
//!
//! | fact | here |
//! |---|---|
//! | a base is the last *confirmed* checkpoint, without what a later unconfirmed one put again | `test_checkpoint_is_incremental`; objects have unique names, and only the base's are taken over |
//! | lengths of keys and namespaces; the void namespace | another layout: the crate's `state::key` |
//! | a list without elements is nothing, however it came to be | `test_list_state_apis` |
//! | `add` and `remove` of timers say whether the head may have changed | `test_add`, `test_remove`, the vector of `test_key_grouped_internal_priority_queue` |
//! | key groups follow the Java hash; ranges; sources with other borders | the crate's `state::key_group`; `test_key_group_snapshot_restore_…`, `test_clip_db_with_key_group_range` |
//! | null values are entries; iterators neither skip nor run over | `test_map_state`, `RocksDBMapStateTest` |
//! | the first `add` does not reduce; no result of nothing; the order of merging | `test_reducing_state_add_and_get`, `…_merging`, `test_aggregating_…` |
//! | `time + ttl <= now`; shown once; folded into; emptiness of what has expired; no defaults; switching | `ttl`: the tables that were run, and `add_to_an_expired_accumulator`, `is_empty_looks_at_what_is_stored`, `defaults_are_ignored`, `ttl_can_be_switched_on_for_restored_state` |
//! | restored states are carried on, listed, and migrate lazily and whole; keys and namespaces never | `test_snapshot_non_accessed_state`, `test_get_keys_and_namespaces`, `migration` |
//! | operator lists and maps of one name; timers with a changed serializer | both refused: `test_register_states`, `test_priority_queue_state_creation_fails_…` |
//! | foreign key groups left in files | `test_clip_db_with_key_group_range`, and `entries` in `test_key_group_snapshot_restore_…` |
//! | foreign keys are refused, no key is noticed; current key and namespace after loops and merges | `test_require_non_null_namespace`, `test_value_state_race`, `test_concurrent_modification_with_apply_to_all_keys`, `test_list_state_merging` |

mod checkpoints;
pub mod job;
mod migration;
mod operator;
mod registry;
mod serializers;
mod states;
mod timers;
mod transfer;
mod ttl;
mod views;

use std::collections::BTreeSet;

const SOURCES: [(&str, &str); 10] = [
    ("checkpoints", include_str!("checkpoints.rs")),
    ("migration", include_str!("migration.rs")),
    ("operator", include_str!("operator.rs")),
    ("registry", include_str!("registry.rs")),
    ("serializers", include_str!("serializers.rs")),
    ("states", include_str!("states.rs")),
    ("timers", include_str!("timers.rs")),
    ("transfer", include_str!("transfer.rs")),
    ("ttl", include_str!("ttl.rs")),
    ("views", include_str!("views.rs")),
];

/// `testListStateAPIs` as `test_list_state_apis`.
fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, c) in chars.iter().enumerate() {
        let after = i > 0 && !chars[i - 1].is_uppercase();
        let rest = &chars[i + 1..];
        let word = rest.len() >= 2 && rest[..2].iter().all(|c| c.is_lowercase());
        if i > 0 && c.is_uppercase() && (after || word) {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// Whatever the table gives a module is a test there; the other way round, every test that is named as
/// Flink's are is in the table.
#[test]
fn the_table_is_true() {
    let mut listed = BTreeSet::new();
    let lines = include_str!("mod.rs").lines();
    for row in lines.filter(|line| line.starts_with("//! | `test")) {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let ["//!", names, module, note, ""] = columns[..] else { panic!("{row}") };
        for name in names.split('`').filter(|name| name.starts_with("test")) {
            match module.strip_prefix('`').and_then(|module| module.strip_suffix('`')) {
                Some(module) => assert!(listed.insert((module, snake_case(name))), "{name} again"),
                None => assert!(module == "–" && !note.is_empty(), "{name}: why not?"),
            }
        }
    }
    let mut tests = BTreeSet::new();
    for (module, source) in SOURCES {
        let names = source
            .split("#[test]\nfn test_")
            .skip(1)
            .map(|rest| format!("test_{}", rest.split_once('(').expect("a function").0));
        tests.extend(names.map(|name| (module, name)));
    }
    assert!(tests.len() > 150, "{} tests", tests.len());
    let either: Vec<_> = listed.symmetric_difference(&tests).collect();
    assert!(either.is_empty(), "in the table or among the tests only: {either:?}");
}
