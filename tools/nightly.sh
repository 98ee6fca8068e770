#!/usr/bin/env bash
# The long lane, by part: tools/nightly.sh [PART...] [--minutes M] [--seed S]
#
#   sim       power cuts, faults, damage, hostile bytes, filters        (90 minutes)
#   model     random programs beside plain maps                         (40)
#   state     random programs over keyed state beside plain collections (40)
#   canaries  every bug that can be planted, each looked for a minute   (32)
#   golden    every damage to the golden files, then forged inputs      (30)
#   process   processes that are killed, and a soak                     (60)
#   fuzz      every fuzz target, with libFuzzer where cargo-fuzz and a nightly toolchain are there,
#             else mutations on stable                                  (4 a target)
#   threads   all orders of small structures, random schedules of whole small databases    (30)
#   miri      the unit tests of the files with `unsafe` (the biased lock, the memtable, the log's
#             window) and of what they stand on, under Miri, where a nightly toolchain has it: Stacked
#             Borrows with strict provenance, Tree Borrows, and several schedules of those with
#             threads                                                   (as long as it takes)
#
# Without a part: all of them, one after the other. `--minutes` is for each part; for fuzz and canaries,
# for all targets and bugs together. What fails prints one line that replays it, and the next part goes on.
set -euo pipefail
cd "$(dirname "$0")/.."

all=(sim model state canaries golden process fuzz threads miri)
parts=() minutes="" seed=$(date +%s)
while [ $# -gt 0 ]; do
    case "$1" in
        --minutes) minutes=$2; shift ;;
        --seed) seed=$2; shift ;;
        sim | model | state | canaries | golden | process | fuzz | threads | miri) parts+=("$1") ;;
        *) sed -n '2,21s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
[ ${#parts[@]} -gt 0 ] || parts=("${all[@]}")
rm -rf target/reliability # the report is of one commit
mkdir -p target/reliability
export ALLUVIUM_ERROR_PLACES=$PWD/target/reliability/error_places # every process adds to it

run() { cargo run --release --quiet -p "$@"; }
check() {
    cargo run --quiet --manifest-path tests/check/Cargo.toml --features "$1" --bin "$1" -- "${@:2}"
}

sim() { run alluvium-sim -- sweep --minutes "${minutes:-90}" --seed "$seed"; }

model() { run alluvium-sim -- model --minutes "${minutes:-40}" --seed "$seed"; }

# A round at a time until time is up: each has a seed of its own.
state() {
    local end=$((SECONDS + ${minutes:-40} * 60)) round=0 log
    while [ $round -eq 0 ] || [ $SECONDS -lt $end ]; do
        ALLUVIUM_STATE_PROGRAMS=5000 ALLUVIUM_SEED=$((seed + round)) \
            cargo test --release --quiet --test it -- state_model || {
            echo "BAD; replay it: ALLUVIUM_STATE_PROGRAMS=5000 ALLUVIUM_SEED=$((seed + round))" \
                "cargo test --release --test it state_model"
            return 1
        }
        round=$((round + 1))
    done
    for log in off buffered synced; do
        ALLUVIUM_LOG=$log cargo test --release --quiet --test it -- conformance || {
            echo "BAD; replay it: ALLUVIUM_LOG=$log cargo test --release --test it conformance"
            return 1
        }
    done
}

canaries() {
    # Most are found at once; half a minute is what the rarest need.
    local seconds=60
    [ -z "$minutes" ] || seconds=$((minutes * 60 / 32 + 30))
    run alluvium-sim --features canary -- canaries --all --seconds "$seconds" --seed "$seed"
}

golden() { run alluvium-sweep -- --minutes "${minutes:-30}" --seed "$seed"; }

process() {
    run alluvium-process -- kill --minutes "${minutes:-60}" --seed "$seed" &&
        run alluvium-process -- limits --seed "$seed" &&
        run alluvium-process -- soak --minutes "${minutes:-60}" --seed "$seed"
}

fuzz() {
    local targets=(fuzz/fuzz_targets/*.rs) seconds=240 target failed=0
    [ -z "$minutes" ] || seconds=$((minutes * 60 / ${#targets[@]} + 1))
    if cargo fuzz --version >/dev/null 2>&1 && cargo +nightly --version >/dev/null 2>&1; then
        (cd fuzz && cargo +nightly fuzz build)
        for target in "${targets[@]}"; do
            fuzz_one "$(basename "$target" .rs)" "$seconds" || failed=1
        done
    else
        echo "cargo-fuzz or a nightly toolchain is missing: mutations on stable"
        ALLUVIUM_SEED=$seed FUZZ_MUTATIONS=$((seconds * 500)) \
            cargo test --release --quiet --test it fuzz_replay || {
            echo "BAD; replay it: ALLUVIUM_SEED=$seed FUZZ_MUTATIONS=$((seconds * 500))" \
                "cargo test --release --test it fuzz_replay"
            failed=1
        }
    fi
    return $failed
}

# One target for so many seconds. What it finds on the way stays in fuzz/target; the corpus of the
# sources is for seeds, and for inputs that found a bug.
fuzz_one() {
    local target=$1 new=target/corpus/$1 log
    log=$(mktemp)
    cd fuzz
    mkdir -p "$new"
    if cargo +nightly fuzz run "$target" "$new" "corpus/$target" -- \
        -max_total_time="$2" -seed=$((seed % 4294967295 + 1)) -timeout=30 -malloc_limit_mb=80 \
        -verbosity=0 -print_final_stats=1 >"$log" 2>&1; then
        echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, $2 s"
        cd ..
        rm "$log"
    else
        tail -n 60 "$log"
        echo "BAD $target; replay it: $(sed -n 's/^\tcargo fuzz run/(cd fuzz \&\& cargo +nightly fuzz run/p' "$log" | head -n 1))"
        cd ..
        return 1
    fi
}

threads() {
    check loom &&
        check shuttle --schedules 2000 --minutes "${minutes:-30}" --seed "$seed" &&
        check shuttle canaries --schedules 20000 --seed "$seed"
}

miri() {
    if ! cargo +nightly miri --version >/dev/null 2>&1; then
        echo "Miri is missing: rustup component add --toolchain nightly miri rust-src"
        return 0
    fi
    # Both models of what a pointer may do; and where threads meet, several orders of theirs.
    local all=(base:: memtable:: fs::mmap::tests::a_window_at_the_ends_of_its_memory)
    local threads=(biased_mutex overwrites_are_whole readers_see_what_was_published
        readers_beside scans_beside_deletes)
    miri_with "-Zmiri-strict-provenance" "${all[@]}" &&
        miri_with "-Zmiri-tree-borrows" "${all[@]}" &&
        miri_with "-Zmiri-many-seeds=1..5" "${threads[@]}"
}

# No C, no isolation from the clock. What maps files it cannot run.
miri_with() {
    local flags="-Zmiri-disable-isolation $1"
    local set=(MIRIFLAGS="$flags" QUICKCHECK_TESTS=5 QUICKCHECK_GENERATOR_SIZE=12)
    local miri="cargo +nightly miri test --quiet --no-default-features --lib --"
    echo "$1: ${*:2}"
    env "${set[@]}" $miri "${@:2}" || {
        echo "BAD; replay it: MIRIFLAGS='$flags' ${set[*]:1} $miri ${*:2}"
        return 1
    }
}

failed=()
for part in "${parts[@]}"; do
    printf '\n== %s, seed %s\n' "$part" "$seed"
    "$part" || failed+=("$part")
done
run alluvium-report -- --partial || failed+=(report)
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
