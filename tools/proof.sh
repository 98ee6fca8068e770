#!/usr/bin/env bash
# The proof: what every commit has to survive, in less than twenty minutes on two cores. Each line
# writes a part of the report; the last one adds them up, prints the table, writes
# target/reliability.json, and fails if a goal is missed. `tools/proof.sh --readme` puts the table
# into the README, too.
#
# What is drawn at random is drawn by the hash of the engine's sources: a commit that changes none of
# them repeats what the one before has survived. Nothing but the soak is measured in time, so that a
# busy machine does as much as an idle one.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -rf target/reliability
mkdir -p target/reliability
export ALLUVIUM_ERROR_PLACES=$PWD/target/reliability/error_places # every process adds to it
seed=$((16#$(git rev-parse HEAD:src 2>/dev/null | cut -c1-8 || true)))
run() { cargo run --release --quiet -p "$@"; }
check() { # a model checker: tests/check is a package of its own
    cargo run --quiet --manifest-path tests/check/Cargo.toml --features "$1" --bin "$1" -- "${@:2}"
}

echo "power cuts, faults, damage, hostile bytes, filters"
run alluvium-sim -- sweep --budget ci --seed "$seed"
echo "random programs beside plain maps"
run alluvium-sim -- model --ops 2000000 --seed "$seed"
echo "golden files: every byte changed in four ways, every cut and tear, salvage; forged inputs"
run alluvium-sweep -- --inputs 20000 --seed "$seed"
echo "real processes: killed, out of space, out of handles, and for a while"
run alluvium-process -- kill --kills 300 --seed "$seed"
run alluvium-process -- limits --seed "$seed"
run alluvium-process -- soak --seconds 25 --seed "$seed"
echo "orders of threads: all of small structures, random ones of whole small databases, planted bugs"
check loom
check shuttle --schedules 2000 --seed "$seed"
check shuttle canaries --schedules 6000 --seed "$seed"
echo "keyed state beside plain collections, and what Flink's own tests ask for, with every kind of log"
ALLUVIUM_STATE_PROGRAMS=2000 ALLUVIUM_SEED=$seed cargo test --quiet --test it -- state_model
for log in off buffered synced; do
    ALLUVIUM_LOG=$log cargo test --quiet --test it -- conformance
done
echo "every structure and every call that is refused; fuzz targets: the corpus and mutations"
cargo test --quiet --lib -- log:: version:: compaction:: checkpoint:: db::
cargo test --quiet --test it -- --skip state_model --skip conformance
echo "planted bugs"
run alluvium-sim --features canary -- canaries --drawn 8 --seconds 120 --seed "$seed"
run alluvium-report -- "$@"
