#!/usr/bin/env bash
# The long lane, by part: tools/nightly.sh [PART...] [--minutes M] [--seed S]
#
#   sim       power cuts, faults, damage, hostile bytes, filters        (90 minutes)
#   model     random programs beside plain maps                         (40)
#   canaries  every bug that can be planted, each looked for a minute   (10)
#   golden    every damage to the golden files, and forged inputs        (as long as it takes)
#   process   processes that are killed, and a soak                     (60)
#   fuzz      every fuzz target, with libFuzzer where cargo-fuzz is there,
#             else mutations on stable                                  (4 a target)
#
# Without a part: all of them, one after the other. `--minutes` is for each part (for canaries, for
# all of them together). What fails prints one line that replays it.
set -euo pipefail
cd "$(dirname "$0")/.."

parts=() minutes="" seed=$(date +%s)
while [ $# -gt 0 ]; do
    case "$1" in
        --minutes) minutes=$2; shift ;;
        --seed) seed=$2; shift ;;
        sim | model | canaries | golden | process | fuzz) parts+=("$1") ;;
        *) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
[ ${#parts[@]} -gt 0 ] || parts=(sim model canaries golden process fuzz)

sim() { cargo run --release --quiet -p alluvium-sim -- "$@"; }

fuzz() {
    local seconds=$((${1:-4} * 60)) target
    for target in fuzz/fuzz_targets/*.rs; do
        target=$(basename "$target" .rs)
        if cargo fuzz --version >/dev/null 2>&1; then
            (cd fuzz && cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -seed="$seed")
        else
            FUZZ_MUTATIONS=$((seconds * 500)) cargo test --release --quiet --test it \
                "fuzz_replay::$target"
        fi
    done
}

for part in "${parts[@]}"; do
    printf '\n== %s, seed %s\n' "$part" "$seed"
    case "$part" in
        sim) sim sweep --minutes "${minutes:-90}" --seed "$seed" ;;
        model) sim model --minutes "${minutes:-40}" --seed "$seed" ;;
        canaries)
            seconds=60
            [ -z "$minutes" ] || seconds=$((minutes * 60 / 29 + 1))
            cargo run --release --quiet -p alluvium-sim --features canary -- \
                canaries --all --seconds "$seconds" --seed "$seed"
            ;;
        golden) cargo run --release --quiet -p alluvium-sweep ;;
        process)
            cargo run --release --quiet -p alluvium-process -- kill --kills 3000 --seed "$seed"
            cargo run --release --quiet -p alluvium-process -- soak --minutes "${minutes:-60}" \
                --seed "$seed"
            ;;
        fuzz) fuzz "$minutes" ;;
    esac
done
cargo run --release --quiet -p alluvium-report -- --partial
