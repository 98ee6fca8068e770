//! Flink's own tests of state, by their names, against the public interface; each runs with the log
//! off, buffered and synced ([`job::each_log`]). Tests with a name of ours have no one counterpart.
//!
//! | Flink 2.3.0 | here |
//! |---|---|
//! | **StateBackendTestBase** | |
//! | `testEnableStateLatencyTracking` | no latency tracking: the listener and `Stats` tell what happens |
//! | `testIsSafeToReuseState` | always: values are serialized when they are written |
//! | `testKeyGroupedInternalPriorityQueue`, `…AddAll` | `timers` |
//! | `testGetKeys`, `testGetKeysAndNamespaces`, `testNumStateEntries` | `states` |
//! | `testRequireNonNullNamespace` | `states`: a namespace cannot be null, but missing |
//! | `testEmptyStateCheckpointing` | `states`: no null handles; a checkpoint of nothing restores as nothing |
//! | `testBackendUsesRegisteredKryo…` (4), `testKryoRegistering…` (3), `testKryoRestoreResilience…`, `testPojoRestoreResilience…` | no Kryo, no POJOs; that a serializer of the caller's is used, and its configuration found again: `migration` |
//! | `testValueState`, `testValueStateRace`, `testMultipleValueStates`, `testValueStateNullUpdate`, `testValueStateNullAsDefaultValue`, `testValueStateDefaultValue`, `testCopyDefaultValue` | `states`; a snapshot's handles stand for the serialized query |
//! | `testValueStateWorkWithTtl` | `ttl` |
//! | `testListState`, `testListStateAPIs`, `testListStateMerging`, `testListStateDefaultValue` | `states` |
//! | `testListStateAddNull`, `…AddAllNullEntries`, `…AddAllNull`, `…UpdateNullEntries`, `…UpdateNull` | there is no null |
//! | `testReducingState`, `…AddAndGet`, `…Merging`, `…DefaultValue` | `states` |
//! | `testAggregatingStateAddAndGetWith…Accumulator`, `…MergingWith…Accumulator` | `states` |
//! | `testMapState`, `…IsEmpty`, `…IteratorArbitraryAccess`, `…EntryCompare`, `…DefaultValue`, `…GetKeys`, `…GetKeysAndNamespaces` | `states`; `remove` and `put` for `iterator.remove` and `setValue` |
//! | `testSnapshotNonAccessedState`, `testKeyGroupSnapshotRestoreScale…`, `testKeyGroupsSnapshotRestore…` | `checkpoints` |
//! | `testRestoreWithWrongKeySerializer`, `test…StateRestoreWithWrongSerializers` (4) | `migration` |
//! | `testQueryableStateRegistration`, `testConcurrentMapIfQueryable` | no registry of queryable state; `views` |
//! | `testParallelAsyncSnapshots`, `testAsyncSnapshot`, `testAsyncSnapshotCancellation`, `testCheckConcurrencyProblemWhenPerformingCheckpointAsync` | `checkpoints` |
//! | `testNonConcurrentSnapshotTransformerAccess` | a checkpoint is files: nothing transforms them |
//! | `testConcurrentModificationWithApplyToAllKeys`, `testApplyToAllKeysLambdaFunction` | `states` |
//! | **EmbeddedRocksDBStateBackendTest** | |
//! | `testCorrectMergeOperatorSet`, `testCompletingSnapshot`, `testSharedIncrementalStateDeRegistration` | `checkpoints` |
//! | `testSmallFilesCompaction` | not held: tiny tables of keys that do not overlap are never merged (a known shortcoming) |
//! | `testReleasingSnapshotAfterBackendClosed`, `testDismissingSnapshot`, `…NotRunnable`, `testCancelRunningSnapshot` | no native objects and no streams to leak; `testAsyncSnapshotCancellation`, and the crate's tests of checkpoints that are given up |
//! | `testDisposeDeletesAllDirectories` | closing keeps the directory, on purpose: local recovery |
//! | `testMapStateClear` | errors of reads are returned: the crate's fault injection |
//! | `testConfigureTernaryBooleanConfigs`, metrics of restores | options of Java |
//! | **RocksIncrementalSnapshotStrategyTest** `testCheckpointIsIncremental` and the trace of 7.3 | `checkpoints`, and the tests of `Registry` |
//! | `RocksDBClaimSavepointThenCheckpointRestoreTest` | no savepoints and no claim modes; envelopes name objects, not paths |
//! | **Uploader, downloader** | one thread uploads and downloads here; failures and what they leave: the tests of `save` and `restore` |
//! | **RocksIncrementalCheckpointRescalingTest** `testScalingUp`, `testScalingDown` | `checkpoints` |
//! | **RocksDBIncrementalCheckpointUtilsTest** clip | `checkpoints`: `test_clip_db_with_key_group_range`; there is no best handle to be chosen, as all are clipped |
//! | `RocksDBAutoCompactionIngestRestoreTest` | no temporary databases |
//! | **StateAssignmentOperationTest** `testRepartition…` (5), `testReDistributeCombinedPartitionableStates` | `operator` |
//! | `testChannelState…`, `testOnlyUpstreamChannelStateAssignment`, `testStateWithFullyFinishedOperators` | records in flight and finished operators are the stream processor's |
//! | **SharedStateRegistryTest**, IncrementalRemoteKeyedStateHandleTest | `checkpoints`: `test_shared_incremental_state_de_registration`; objects live by reference from envelopes: the tests of `Registry`. No placeholders, no file merging, no changelog |
//! | **InternalPriorityQueueTestBase**, **InternalTimerServiceImplTest** | `timers` |
//! | **TtlStateTestBase**, RocksDBTtlStateTestBase | `ttl` |
//! | **StateBackendMigrationTestBase** | `migration`; timers are never migrated: `timers` |
//! | `testStateMigrationAfterChangingTTL…` | `ttl` |
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
//! | RocksDBMapStateTest | `checkpoints`: `test_empty_map_does_not_scan_deleted_entries_of_next_key`, `test_iterator_cache_reload_after_entries_were_removed` |
//! | TaskLocalStateStoreImplTest | no task-local store: objects of a store on the same disk are linked |

mod checkpoints;
pub mod job;
mod migration;
mod operator;
mod states;
mod timers;
mod ttl;
mod views;
