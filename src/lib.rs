//! alluvium: an embedded, log-structured state engine for stream processing.
//!
//! Two ways in: [`Db`], ordered keys in column families, and [`StateBackend`], the state of a stream
//! processor.
//!
#![doc = include_str!("state/guide.md")]

mod base;
mod batch;
mod cache;
mod checkpoint;
mod compaction;
mod db;
mod fs;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod inspect;
mod iter;
mod log;
mod memtable;
mod state;
mod table;
mod version;

pub use crate::base::bytes::Bytes;
#[cfg(feature = "canary")]
#[doc(hidden)]
pub use crate::base::canary;
pub use crate::base::error::Error;
pub use crate::base::error::ErrorKind;
pub use crate::base::error::Result;
pub use crate::base::id::FamilyId;
pub use crate::base::id::FileId;
pub use crate::base::id::FileNumber;
pub use crate::base::key::KeyRange;
pub use crate::base::key::SeqNo;
pub use crate::base::limits;
pub use crate::batch::WriteBatch;
pub use crate::cache::budget::MemoryBudget;
pub use crate::checkpoint::format::Envelope;
pub use crate::checkpoint::format::ObjectRef;
pub use crate::checkpoint::format::Part;
pub use crate::checkpoint::format::PartFamily;
pub use crate::checkpoint::format::PartTable;
pub use crate::checkpoint::registry::Registry;
pub use crate::checkpoint::restore::latest as latest_checkpoint;
pub use crate::checkpoint::restore::load as load_checkpoint;
pub use crate::checkpoint::restore::restore as restore_checkpoint;
pub use crate::checkpoint::restore::verify as verify_checkpoint;
pub use crate::checkpoint::save::JobCheckpoint;
pub use crate::checkpoint::save::PartInput;
pub use crate::checkpoint::save::Saved;
pub use crate::checkpoint::save::save as save_checkpoint;
pub use crate::checkpoint::store::CheckpointStore;
pub use crate::checkpoint::store::DirStore;
pub use crate::checkpoint::store::ObjectName;
pub use crate::checkpoint::store::SharedName;
pub use crate::checkpoint::store::Stored;
pub use crate::compaction::filter::CompactionFilter;
pub use crate::compaction::filter::CompactionFilterFactory;
pub use crate::compaction::filter::Decision;
pub use crate::compaction::filter::EntryKind;
pub use crate::db::Db;
pub use crate::db::Reader;
pub use crate::db::Writer;
pub use crate::db::column_family::ColumnFamily;
pub use crate::db::file_set::FileSet;
pub use crate::db::file_set::PendingCheckpoint;
pub use crate::db::file_set::SetFamily;
pub use crate::db::file_set::SetTable;
pub use crate::db::import::ImportFamily;
pub use crate::db::import::ImportSource;
pub use crate::db::import::ImportTable;
pub use crate::db::options::Background;
pub use crate::db::options::ColumnFamilyOptions;
pub use crate::db::options::Env;
pub use crate::db::options::Listener;
pub use crate::db::options::Options;
pub use crate::db::options::WriteOptions;
pub use crate::db::salvage::Salvaged;
pub use crate::db::scan::Scan;
pub use crate::db::snapshot::Snapshot;
pub use crate::db::stats::Event;
pub use crate::db::stats::FamilyStats;
pub use crate::db::stats::Stats;
pub use crate::db::update::Update;
#[cfg(any(test, feature = "testing"))]
pub use crate::fs::FailedSync;
pub use crate::fs::FileLock;
pub use crate::fs::Fs;
pub use crate::fs::Listed;
pub use crate::fs::ReadableFile;
pub use crate::fs::WritableFile;
pub use crate::fs::disk::DiskFs;
#[cfg(any(test, feature = "testing"))]
pub use crate::fs::fault::Effect as FaultEffect;
#[cfg(any(test, feature = "testing"))]
pub use crate::fs::fault::Fault;
#[cfg(any(test, feature = "testing"))]
pub use crate::fs::fault::FaultFs;
#[cfg(any(test, feature = "testing"))]
pub use crate::fs::fault::Op as FaultOp;
pub use crate::fs::memory::MemFs;
pub use crate::fs::memory::image::Keep;
pub use crate::fs::memory::trace::Effect as DiskEffect;
pub use crate::fs::memory::trace::Recording;
pub use crate::fs::memory::trace::Replay;
pub use crate::iter::resolve::MergeOperator;
pub use crate::state::aggregating::AggregateFunction;
pub use crate::state::aggregating::AggregatingState;
pub use crate::state::backend::StateBackend;
pub use crate::state::batch::Clear;
pub use crate::state::batch::StateBatch;
pub use crate::state::evolution::Compatibility;
pub use crate::state::evolution::SerializerSnapshot;
pub use crate::state::key::CompositeKey;
pub use crate::state::key::KeyBuilder;
pub use crate::state::key::KeyShape;
pub use crate::state::key_group::JavaHash;
pub use crate::state::key_group::KeyGroupRange;
pub use crate::state::key_group::assign as assign_key_group;
pub use crate::state::key_group::default_max_parallelism;
pub use crate::state::key_group::key_group_range;
pub use crate::state::key_group::operator_index;
pub use crate::state::keys::Keys;
pub use crate::state::keys::KeysAndNamespaces;
pub use crate::state::list::ListAppend;
pub use crate::state::list::ListState;
pub use crate::state::map::MapIter;
pub use crate::state::map::MapState;
pub use crate::state::meta::StateKind;
pub use crate::state::operator::BroadcastState;
pub use crate::state::operator::OperatorListState;
pub use crate::state::operator::OperatorState;
pub use crate::state::operator_snapshot::OperatorMode;
pub use crate::state::operator_snapshot::OperatorSnapshot;
pub use crate::state::operator_snapshot::redistribute as redistribute_operator_state;
pub use crate::state::options::BackendOptions;
#[cfg(feature = "serde")]
pub use crate::state::postcard::PostcardSerializer;
pub use crate::state::reducing::ReducingState;
pub use crate::state::rescale::Share;
pub use crate::state::rescale::key_group_ranges;
pub use crate::state::rescale::shares;
pub use crate::state::serializer;
pub use crate::state::serializer::Builtin;
pub use crate::state::serializer::Serializer;
pub use crate::state::snapshot::StateSnapshot;
pub use crate::state::timer::Timer;
pub use crate::state::timer::TimerIter;
pub use crate::state::timer::TimerQueue;
pub use crate::state::timer::TimerService;
pub use crate::state::ttl::Clock;
pub use crate::state::ttl::TtlConfig;
pub use crate::state::ttl::TtlUpdate;
pub use crate::state::ttl::TtlVisibility;
pub use crate::state::value::ValueState;
pub use crate::state::window::TimeWindow;
pub use crate::state::window::TimeWindowSerializer;
pub use crate::table::Codec;
pub use crate::table::TimestampExtractor;

/// The example of the front page, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
