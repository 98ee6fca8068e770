#!/usr/bin/env bash
# Instructions an operation of the hot paths, held against callgrind.txt: more than 10 % above fails.
# ALLUVIUM_BLESS=1 writes the file anew.
set -euo pipefail
cd "$(dirname "$0")"

cargo build --release --quiet
program=target/release/alluvium-bench
out=$(mktemp)
trap 'rm -f "$out" "$out".*' EXIT
failed=0
for path in $("$program" hot); do
    valgrind --tool=callgrind --callgrind-out-file="$out.callgrind" \
        --toggle-collect='alluvium_bench::hot::*counted_*' \
        "$program" hot "$path" >"$out.ops" 2>"$out.err" || { cat "$out.err" >&2; exit 1; }
    instructions=$(awk '/Collected/ { print $NF }' "$out.err")
    now=$((instructions / $(cat "$out.ops")))
    if [ "$now" -eq 0 ]; then
        echo "$path: nothing was counted" >&2
        exit 1
    fi
    echo "$path $now" >>"$out"
    if [ -n "${ALLUVIUM_BLESS:-}" ]; then
        echo "$path: $now"
        continue
    fi
    before=$(awk -v path="$path" '$1 == path { print $2 }' callgrind.txt)
    if [ -z "$before" ]; then
        echo "$path: not in callgrind.txt: run with ALLUVIUM_BLESS=1" >&2
        failed=1
    elif [ $((now * 100)) -gt $((before * 110)) ]; then
        echo "$path: $now instructions, were $before: over 10 % more" >&2
        failed=1
    else
        echo "$path: $now (were $before)"
    fi
done
if [ -n "${ALLUVIUM_BLESS:-}" ]; then
    cp "$out" callgrind.txt
fi
exit "$failed"
