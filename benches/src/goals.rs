//! What alluvium is to reach, as ratios to RocksDB configured as Flink does, in the same run.

/// When a goal is reached.
#[derive(Clone, Copy, Debug)]
pub enum Want {
    /// So many times RocksDB's rate.
    Faster(f64),
    /// So many times the rate of another of RocksDB's steps.
    FasterThan(&'static str, f64),
    /// RocksDB takes so many times longer.
    Shorter(f64),
    /// At most so many times what RocksDB takes.
    AtMost(f64),
    /// alluvium's number itself is at most this.
    Below(f64),
    /// What it costs more than another step, at most so many times what it does of RocksDB.
    GrowsAtMost(&'static str, f64),
    /// At least this part of alluvium's own rate in another step.
    OfOwn(&'static str, f64),
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// What it is about.
    pub name: &'static str,
    /// The step that is measured.
    pub step: &'static str,
    /// The number of the measure that counts.
    pub number: &'static str,
    /// What is to be reached.
    pub want: Want,
}

const fn goal(name: &'static str, step: &'static str, number: &'static str, want: Want) -> Goal {
    Goal { name, step, number, want }
}

use Want::{AtMost, Below, Faster, FasterThan, GrowsAtMost, OfOwn, Shorter};

/// All goals, in the order of the table.
pub const GOALS: &[Goal] = &[
    goal("value get", "value-get", "rate", Faster(6.0)),
    goal("value get, absent", "value-absent", "rate", Faster(10.0)),
    goal("value update", "value-update", "rate", Faster(7.0)),
    goal("TTL update", "ttl-update", "rate", Faster(7.0)),
    goal("TTL get", "ttl-get", "rate", Faster(6.0)),
    goal("value add, caller", "value-add", "rate", Faster(6.0)),
    goal("value add, settled", "value-add-settled", "settled", Faster(2.5)),
    goal("read-modify-write, 1,000 hot keys", "rmw-hot", "rate", Faster(8.0)),
    goal("read-modify-write, zipfian", "rmw-zipf", "rate", Faster(8.0)),
    goal(
        "multi-get of 32, a key, to single get",
        "multi-get",
        "rate",
        FasterThan("value-get", 8.0),
    ),
    goal("multi-get of 32, a key", "multi-get", "rate", Faster(1.0)),
    goal("snapshot + 10 gets", "snapshot-get", "rate", Faster(5.0)),
    goal("value get from tables", "value-get-table", "rate", Faster(3.0)),
    goal("value get from tables, absent", "value-absent-table", "rate", Faster(7.0)),
    goal("map get", "map-get", "rate", Faster(4.0)),
    goal("map contains, half absent", "map-contains", "rate", Faster(5.0)),
    goal("map iterate, an entry", "map-iterate", "rate", Faster(4.0)),
    goal("map isEmpty", "map-is-empty", "rate", Faster(5.0)),
    goal("map isEmpty, emptied maps, µs", "map-emptied", "micros", Below(10.0)),
    goal("map update", "map-update", "rate", Faster(7.0)),
    goal("map remove", "map-remove", "rate", Faster(7.0)),
    goal("map putAll, an entry", "map-put-all", "rate", Faster(2.0)),
    goal("map add, caller", "map-add", "rate", Faster(6.0)),
    goal("map add, settled", "map-add-settled", "settled", Faster(2.5)),
    goal("prefix scan of 10 in tables, an entry", "scan-prefix10", "rate", Faster(3.5)),
    goal("list append", "list-append", "rate", Faster(6.0)),
    goal("list get of 100", "list-get", "rate", Faster(8.0)),
    goal("list get of 100, compacted", "list-get-table", "rate", Faster(2.5)),
    goal("read-modify-write, zipfian, beyond memory", "rmw-zipf-big", "rate", Faster(4.0)),
    goal("the same with checkpoints", "rmw-checkpoint", "rate", Faster(6.0)),
    goal("the same, of its rate without", "rmw-checkpoint", "rate", OfOwn("rmw-timed", 0.9)),
    goal("random fill, settled", "fill-random", "settled", Faster(3.0)),
    goal("random fill, write amplification", "fill-random", "wa", AtMost(1.1)),
    goal("random fill, space", "fill-random", "space", AtMost(1.1)),
    goal("random fill, peak memory", "fill-random", "memory", AtMost(1.1)),
    goal("overwrite, settled", "overwrite-random", "settled", Faster(3.0)),
    goal("sequential fill, settled", "fill-seq", "settled", Faster(2.0)),
    goal("YCSB load, settled", "ycsb-load", "settled", Faster(2.5)),
    goal("YCSB A", "ycsb-a", "rate", Faster(3.0)),
    goal("YCSB B", "ycsb-b", "rate", Faster(2.5)),
    goal("YCSB C", "ycsb-c", "rate", Faster(2.5)),
    goal("YCSB D", "ycsb-d", "rate", Faster(2.5)),
    goal("YCSB E", "ycsb-e", "rate", Faster(2.5)),
    goal("YCSB F", "ycsb-f", "rate", Faster(3.0)),
    goal("uniform get beyond the cache", "get-uniform", "rate", Faster(2.0)),
    goal("absent get beyond the cache", "get-absent", "rate", Faster(12.0)),
    goal("full scan", "scan-full", "rate", Faster(4.0)),
    goal("full scan, reverse", "scan-reverse", "rate", Faster(4.0)),
    goal("two readers beside a writer, reads", "readers2-writer1", "rate", Faster(4.0)),
    goal("window churn", "window-churn", "rate", Faster(5.0)),
    goal("windows: last firing to the first", "window-churn", "growth", Below(1.2)),
    goal("windows: scan of the emptied store, ms", "window-churn", "empty", Below(1.0)),
    goal("timers: add", "timers-add", "rate", Faster(5.0)),
    goal("timers: poll", "timers-poll", "rate", Faster(5.0)),
    goal("checkpoint, blocking part", "checkpoint", "blocking", Shorter(20.0)),
    goal("checkpoint, blocking part, ms", "checkpoint", "blocking", Below(0.5)),
    goal("checkpoint, increment", "checkpoint", "increment", AtMost(1.1)),
    goal("restore until the first read", "restore", "ms", Shorter(1.0)),
    goal("rescale to half until the first read", "rescale", "ms", Shorter(1.0)),
    goal("reopen clean", "reopen-clean", "ms", Shorter(1.5)),
    goal("reopen after kill -9", "reopen-crash", "ms", Shorter(6.0)),
    goal("reopen after kill -9, lost", "reopen-crash", "lost", Below(0.0)),
    goal("log, unsynced", "wal-put", "rate", Faster(5.0)),
    goal("log, synced, 1 writer", "sync-put", "rate", Faster(1.5)),
    goal("log, synced, 8 writers", "sync-put-8", "rate", Faster(3.0)),
    goal("load: cost, 64 M to 1 M", "load-64m", "settled", GrowsAtMost("load-1m", 1.0)),
    goal("uniform get: 64 M to 1 M", "get-64m", "rate", GrowsAtMost("get-1m", 1.0)),
    goal("absent get: 64 M to 1 M", "absent-64m", "rate", GrowsAtMost("absent-1m", 1.0)),
    goal("zipfian get: 64 M to 1 M", "zipf-get-64m", "rate", GrowsAtMost("zipf-get-1m", 1.0)),
    goal("scan of 10: 64 M to 1 M", "scan10-64m", "rate", GrowsAtMost("scan10-1m", 1.0)),
    goal("read-modify-write: 64 M to 1 M", "zipf-rmw-64m", "rate", GrowsAtMost("zipf-rmw-1m", 1.0)),
    goal("overwrite: 64 M to 1 M", "overwrite-64m", "settled", GrowsAtMost("overwrite-1m", 1.0)),
];
