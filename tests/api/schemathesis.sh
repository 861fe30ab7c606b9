#!/usr/bin/env bash
# Asks a real daemon with an empty pool whatever its own OpenAPI document allows, and does not, by schemathesis: no server error,
# and every answer as the document says. Then whether each route that can be read wants a token.
# Usage: tests/api/schemathesis.sh [schemathesis options]; EXAMPLES=n for another number of requests of a kind.
set -euo pipefail
cd "$(dirname "$0")/../.."
VERSION=4.32.5
cache="${XDG_CACHE_HOME:-$HOME/.cache}/aljibe"
venv="$cache/schemathesis-$VERSION"
aljibe="${CARGO_TARGET_DIR:-$cache/target}/release/aljibe"

[ -x "$aljibe" ] || { echo "schemathesis: $aljibe is not there: make build" >&2; exit 1; }
if [ ! -x "$venv/bin/schemathesis" ]; then
    rm -rf "$venv"
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet "schemathesis==$VERSION"; } >&2; then
        rm -rf "$venv"
        echo "SKIPPED: schemathesis $VERSION cannot be installed: needs python3-venv and a package index"
        exit 0
    fi
fi

work="$(mktemp -d)"
daemon=
stop() {
    [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null || true
    daemon=
}
trap 'stop; rm -rf "$work"' EXIT

# Serves a fresh data folder with some flags; the address of its API is in $api.
start() {
    rm -rf "$work/data"
    mkdir "$work/data"
    "$aljibe" serve --data "$work/data" --nbd "unix:$work/nbd.sock" --api 127.0.0.1:0 --pool-size 2G --shards 1 \
        --api-rate 0 --api-refusal-rate 0 "$@" >"$work/ready" 2>>"$work/log" &
    daemon=$!
    for _ in $(seq 200); do
        grep -q '^ready ' "$work/ready" && break
        sleep 0.1
    done
    api="http://$(sed -n 's/^ready .* api=//p' "$work/ready")"
}

# Links that it guesses from locations are wrong at times, and then it follows none.
cat >"$work/schemathesis.toml" <<'TOML'
[phases.stateful.inference]
algorithms = ["dependency-analysis"]
TOML

failed=0
run() {
    # Its reports, whatever it makes, are not kept in the clone.
    (cd "$work" && "$venv/bin/schemathesis" --config-file "$work/schemathesis.toml" run "$api/v1/openapi.json" --seed 4 --no-color "$@") || failed=1
}

# Without tokens, since it would revoke its own. What the schema allows may still be refused for what it means (one of two members
# wanted, a name that is taken), so that "positive" data need not be accepted.
start --insecure-no-auth
run --phases examples,coverage,fuzzing,stateful --max-examples "${EXAMPLES:-20}" --checks all --continue-on-failure \
    --exclude-checks positive_data_acceptance,ignored_auth --request-timeout 40 --suppress-health-check all "$@"
stop
start
run --phases examples,fuzzing --max-examples 3 --checks ignored_auth,not_a_server_error --include-method GET \
    --header "Authorization: Bearer $(cat "$work/data/token")" --mode positive
stop

if grep -E ' (WARN|ERROR) ' "$work/log" | grep -v 'everybody who reaches the API' | grep . >"$work/bad"; then
    echo "schemathesis: the daemon's log has:" >&2
    head -20 "$work/bad" >&2
    failed=1
fi
exit "$failed"
