#!/usr/bin/env bash
# The proof: what every commit has to survive, in about a quarter of an hour on two cores. Each line
# writes a part of the report; the last one adds them up, prints the table, writes
# target/reliability.json, and fails if a number is missing or below its goal.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -rf target/reliability
seed=$((16#$(git rev-parse --short=8 HEAD 2>/dev/null || echo 1)))
sim() { cargo run --release --quiet -p alluvium-sim -- "$@"; }
canaries() { cargo run --release --quiet -p alluvium-sim --features canary -- canaries "$@"; }

sim sweep --budget ci --seed "$seed"
sim model --ops 2000000 --seed "$seed"
canaries --drawn 8 --seed "$seed"
# Killed processes, the golden set and the fuzz targets are not part of this lane yet.
cargo run --release --quiet -p alluvium-report -- --without kills,bytes_flipped,fuzz_targets
