#!/usr/bin/env bash
# Runs every fuzz target for a while, from its committed corpus on; fails when one crashes, hangs or takes too much memory,
# and keeps what it found in fuzz/artifacts/. Builds with the stable toolchain: coverage is a pass of LLVM's own, and no
# sanitizer is wanted, since the crates under test forbid unsafe code.
#
#     scripts/fuzz-smoke.sh [SECONDS] [TARGET...]      30 seconds and every target unless told otherwise
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds="${1:-30}"
shift || true
targets=("$@")
if [ "${#targets[@]}" -eq 0 ]; then
    for file in fuzz_targets/*.rs; do
        targets+=("$(basename "$file" .rs)")
    done
fi

# A folder of its own: other flags than the workspace's, and nobody waits for the other's lock.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/aljibe/target}/fuzz"
cargo fmt --check
host="$(rustc -vV | sed -n 's/^host: //p')"
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
coverage+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
# With --target the flags reach the fuzzed code and not the build scripts.
RUSTFLAGS="$coverage --cfg fuzzing" cargo build --release --locked --target "$host"

found="$(mktemp -d)"
trap 'rm -rf "$found"' EXIT
mkdir -p artifacts
failed=()
for target in "${targets[@]}"; do
    echo "== fuzz $target, $seconds s"
    mkdir -p "$found/$target" "corpus/$target"
    if ! "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=512 \
        -malloc_limit_mb=64 -max_len=8192 -artifact_prefix="artifacts/$target-" -print_final_stats=1 \
        "$found/$target" "corpus/$target" >"$found/$target.log" 2>&1; then
        failed+=("$target")
        tail -n 40 "$found/$target.log"
        continue
    fi
    grep -E 'Done [0-9]+ runs|stat::peak_rss_mb' "$found/$target.log"
done
if [ "${#failed[@]}" -gt 0 ]; then
    echo "fuzz: failed: ${failed[*]}; inputs are in fuzz/artifacts/" >&2
    exit 1
fi
