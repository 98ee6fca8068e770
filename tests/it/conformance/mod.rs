//! Flink's own tests of state, by their names, against the public interface. Each runs with the log
//! off, buffered or synced: as its name decides, or as `ALLUVIUM_LOG` says ([`job::Log`]); the gate runs
//! all with each. Tests with a name of ours have no one counterpart.
//!
//! | Flink 2.3.0 | here |
//! |---|---|
//! | **StateBackendTestBase** | |
//! | `testEnableStateLatencyTracking` | no latency tracking: the listener and `Stats` tell what happens |
//! | `testIsSafeToReuseState` | `states`: always, as values are serialized when they are written |
//! | `testKeyGroupedInternalPriorityQueue`, `…AddAll` | `timers` |
//! | `testGetKeys`, `testGetKeysAndNamespaces`, `testNumStateEntries` | `states` |
//! | `testRequireNonNullNamespace` | `states`: a namespace cannot be null, but missing |
//! | `testEmptyStateCheckpointing` | `states`: no null handles; a checkpoint of nothing restores as nothing |
//! | `testBackendUsesRegisteredKryo…` (4), `testKryoRegistering…` (3), `testKryoRestoreResilience…`, `testPojoRestoreResilience…` | `serializers`: that one of the caller's is used, and what it had registered is found again |
//! | `testValueState`, `testValueStateRace`, `testMultipleValueStates`, `testValueStateNullUpdate`, `testValueStateNullAsDefaultValue`, `testValueStateDefaultValue`, `testCopyDefaultValue` | `states`; a snapshot's handles stand for the serialized query |
//! | `testValueStateWorkWithTtl` | `ttl` |
//! | `testListState`, `testListStateAPIs`, `testListStateMerging`, `testListStateDefaultValue` | `states` |
//! | `testListStateAddNull`, `…AddAllNullEntries`, `…AddAllNull`, `…UpdateNullEntries`, `…UpdateNull` | nothing to run: the types have no null |
//! | `testReducingState`, `…AddAndGet`, `…Merging`, `…DefaultValue` | `states` |
//! | `testAggregatingStateAddAndGetWith…Accumulator`, `…MergingWith…Accumulator` | `states` |
//! | `testMapState`, `…IsEmpty`, `…IteratorArbitraryAccess`, `…EntryCompare`, `…DefaultValue`, `…GetKeys`, `…GetKeysAndNamespaces` | `states`; `remove` and `put` for `iterator.remove` and `setValue` |
//! | `testSnapshotNonAccessedState`, `testKeyGroupSnapshotRestoreScale…`, `testKeyGroupsSnapshotRestore…` | `checkpoints` |
//! | `testRestoreWithWrongKeySerializer`, `test…StateRestoreWithWrongSerializers` (4) | `migration` |
//! | `testQueryableStateRegistration`, `testConcurrentMapIfQueryable` | no registry of queryable state; reading from other threads: `views` |
//! | `testParallelAsyncSnapshots`, `testAsyncSnapshot`, `testAsyncSnapshotCancellation`, `testCheckConcurrencyProblemWhenPerformingCheckpointAsync` | `checkpoints` |
//! | `testNonConcurrentSnapshotTransformerAccess` | a checkpoint is files: nothing transforms them |
//! | `testConcurrentModificationWithApplyToAllKeys`, `testApplyToAllKeysLambdaFunction` | `states` |
//! | **EmbeddedRocksDBStateBackendTest** | |
//! | `testCorrectMergeOperatorSet`, `testCompletingSnapshot`, `testSmallFilesCompaction`, `testSharedIncrementalStateDeRegistration` | `checkpoints` |
//! | `testReleasingSnapshotAfterBackendClosed`, `testDismissingSnapshot` | `checkpoints` |
//! | `testDismissingSnapshotNotRunnable`, `testCancelRunningSnapshot` | giving up is a drop, after which nothing can be run, and there are no streams; `testAsyncSnapshotCancellation` |
//! | `testDisposeDeletesAllDirectories` | closing keeps the directory, on purpose: local recovery |
//! | `testMapStateClear` | `checkpoints` |
//! | `testConfigureTernaryBooleanConfigs`, metrics of restores | options of Java |
//! | **RocksIncrementalSnapshotStrategyTest** `testCheckpointIsIncremental`, and what was run of unconfirmed, aborted and restored bases | `checkpoints`, `registry`: an unconfirmed checkpoint is never a base, a restored one is. No savepoints |
//! | **RocksDBClaimSavepointThenCheckpointRestoreTest** | `registry`: `test_first_checkpoint_survives_metadata_round_trip`. No claim modes; envelopes name objects, not paths |
//! | **Uploader** `testMultiThreadUpload…`, `testUploadedSstCanBeCleanedUp` | one thread uploads here; what failures leave: the crate's `only_what_the_base_lacks_is_put`, `answers_that_are_lost_cost_no_data`, `a_crash_while_saving_leaves_all_or_nothing` |
//! | **Downloader** `testMultiThreadRestore…`, `testMultiThreadCleanupOnFailure`, newer ones of causes | one thread downloads; `everything_wrong_is_told_and_nothing_is_restored`, `a_crash_while_restoring_leaves_all_or_nothing`; `checkpoints`: `a_failed_restore_leaves_no_database` |
//! | **RocksIncrementalCheckpointRescalingTest** `testScalingUp`, `testScalingDown` | `checkpoints` |
//! | **RocksDBIncrementalCheckpointUtilsTest** clip | `checkpoints`: `test_clip_db_with_key_group_range`; there is no best handle to be chosen, as all are clipped |
//! | **RocksDBAutoCompactionIngestRestoreTest** | `checkpoints`: `test_auto_compaction_enabled_with_ingest_db_restore`; no temporary databases |
//! | **StateAssignmentOperationTest** `testRepartition…` (5), `testReDistributeCombinedPartitionableStates` | `operator` |
//! | `testChannelState…`, `testOnlyUpstreamChannelStateAssignment`, `testStateWithFullyFinishedOperators` | records in flight and finished operators are the stream processor's |
//! | **SharedStateRegistryTest** `testRegistryNormal`, `testUnregisterWithUnexistedKey`, `testUnregisterNonInitialCheckpoint`, `testUnregisterInitialCheckpoint` | `registry` |
//! | `testUnregisterUnusedSavepointState`, `testRegisterChangelogStateBackendHandles`, `testUnregisterInitialCheckpointUsedInChangelog`, `testFireMergingOperatorStateRegister` | no savepoints, no changelog, no merged files |
//! | IncrementalRemoteKeyedStateHandleTest, placeholders | handles do not own objects: envelopes name them, and only `Registry` deletes |
//! | **InternalPriorityQueueTestBase**, **InternalTimerServiceImplTest** | `timers` |
//! | **TtlStateTestBase**, RocksDBTtlStateTestBase | `ttl` |
//! | `testIncrementalCleanup…` (2) | of the heap backend; here compaction cleans up: `testCompactFilter…`, and `tests/it/state_model` beside checkpoints and restores |
//! | **StateBackendMigrationTestBase** | `migration`; timers are never migrated: `timers` |
//! | **StateSerializerProviderTest** | there is no such object; its rules: `migration` (`a_registered_state_is_not_migrated`, `migrated_parts_and_others_are_joined`) |
//! | **OperatorStateBackendTest** `testRegisterStates`, `testSnapshotEmpty`, `testSnapshotBroadcastStateWithEmptyOperatorState`, `testSnapshotRestoreSync`, `testSnapshotRestoreAsync` | `operator` |
//! | `testCreateOnAbstractStateBackend`, `testRegisterStatesWithoutTypeSerializer`, `testCorrectClassLoaderUsedOnSnapshot`, `testSnapshotAsyncClose`, `testSnapshotAsyncCancel` | of Java: class loaders, Kryo, streams |
//! | KeyGroupRangeTest, KeyGroupRangeAssignment tests | the crate's `state::key_group`, with vectors printed by Flink |
//! | CompositeKeySerializationUtilsTest, SerializedCompositeKeyBuilderTest | the crate's `state::key`: another layout, the same properties |
//! | RocksDBRocksStateKeysIteratorTest, …KeysAndNamespacesIteratorTest | `checkpoints`: `test_iterator` |
//! | RocksKeyGroupsRocksSingleStateIteratorTest, KeyGroupRangeOffsetTest, StateSnapshotCompressionTest | no stream of entries: a checkpoint is files |
//! | RocksDBWriteBatchWrapperTest | batches are not flushed by themselves: `views` |
//! | DistributeStateHandlerHelperTest | every table is clipped |
//! | RocksDBFullRestoreOperationTest, RocksDBRecoveryTest | `checkpoints`: `a_failed_restore_leaves_no_database` |
//! | **RocksDBMapStateTest** | `checkpoints` |
//! | TaskLocalStateStoreImplTest | no task-local store: objects of a store on the same disk are linked |

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
mod ttl;
mod views;
