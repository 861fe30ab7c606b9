#!/usr/bin/env bash
# Everything a change must pass. Ends with one line that counts all tests; stops at the first step that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/aljibe/target}"

step() {
    echo "== $* (after ${SECONDS} s)"
}

step "format"
cargo fmt --all --check

step "clippy, warnings are errors"
cargo clippy --release --locked --workspace --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --quiet

# The cores own no file, socket, clock or thread: a target that has none of them must take them.
if rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null | xargs -r test -d; then
    step "the sans-io crates on wasm32"
    cargo check --release --locked --target wasm32-unknown-unknown -p units -p proto -p volume -p replication
else
    echo "SKIPPED: wasm32 check of the sans-io crates: this toolchain lacks the target wasm32-unknown-unknown"
fi

if cargo deny --version >/dev/null 2>&1; then
    step "licences and bans"
    cargo deny --offline --log-level error check bans licenses sources
else
    echo "SKIPPED: cargo deny: not installed"
fi

if [ -x scripts/fuzz-smoke.sh ]; then
    step "fuzz smoke"
    scripts/fuzz-smoke.sh
fi

step "tests"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
status=0
cargo test --release --locked --workspace --no-fail-fast 2>&1 | tee "$log" || status=$?
step "schemathesis"
tests/api/schemathesis.sh || status=$?
echo "== all steps took ${SECONDS} s"
# Of a long log the end is what is kept: it tells what failed and why. What went wrong first, then the names, which are fewer.
awk '/^thread .* panicked at / { left = 4 }
    /^stack backtrace:|^note: |^$/ { left = 0 }
    left > 0 || /^error(\[E[0-9]+\])?: |^  process didn.t exit successfully/ { print; left-- }' "$log" | tail -n 40
# There are two lists, first with what was printed.
awk '/^failures:$/ { names = "" }
    /^    [^ ]+$/ { names = names "FAILED:" $0 "\n" }
    /^test result: FAILED/ { printf "%s", names }
    /^test result: / { names = "" }' "$log" | tail -n 20
awk '/^test result: / {
        for (i = 1; i < NF; i++) {
            if ($(i + 1) ~ /^passed/) passed += $i
            if ($(i + 1) ~ /^failed/) failed += $i
            if ($(i + 1) ~ /^ignored/) ignored += $i
        }
    }
    END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"
exit "$status"
