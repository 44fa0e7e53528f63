#!/bin/bash
# Other people's suites, as their authors ship them, against a suite of ours: docker-py, bollard, compose.
# Each finds a Docker socket where it looks for one, /var/run/docker.sock, in a mount namespace of its own
# (or a TCP port, where a client cannot do everything over a socket); tests/compat/credential.py behind
# it adds the project's token. tests/compat/expected says what does not
# pass, and why; anything else that fails, and anything on that list that passes, fails the run.
# Usage: scripts/compat.sh [fetch] [docker-py|bollard|compose]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
wharfage="${WHARFAGE_BIN_DIR:-target/release}/wharfage"
export COMPAT_PORT=7375
export COMPAT_DIR="${CARGO_TARGET_DIR:-$root/target}/compat"
only_fetch=""
if [ "${1:-}" = fetch ]; then only_fetch=yes; shift; fi
suites=(docker-py bollard compose)
if [ -n "${1:-}" ]; then suites=("$1"); fi
for suite in "${suites[@]}"; do
    [ -x "tests/compat/$suite.sh" ] || { echo "there is no suite $suite" >&2; exit 2; }
    "tests/compat/$suite.sh" fetch
done
[ -z "$only_fetch" ] || exit 0

$wharfage down >/dev/null 2>&1 || true
api() { curl --fail --silent --show-error -H "Authorization: Bearer $WHARFAGE_ADMIN_TOKEN" -H 'Content-Type: application/json' "$WHARFAGE_URL/api/v1/$1" -d "$2"; }
# A project that nobody used before, of a tenant with this name; prints a token for it.
project() {
    local tenant project
    tenant=$(api tenants "{\"name\": \"$1\"}" | jq -r .id)
    project=$(api "tenants/$tenant/projects" '{"name": "compat"}' | jq -r .id)
    api "projects/$project/tokens" '{"label": "compat"}' | jq -r .secret
}
trap '$wharfage down >/dev/null 2>&1 || true' EXIT
status=0
for suite in "${suites[@]}"; do
    $wharfage up --quiet 2>"$COMPAT_DIR/up.log" || { cat "$COMPAT_DIR/up.log" >&2; exit 1; }
    # shellcheck disable=SC1091 # made by `up`
    source .wharfage/env
    # What a client keeps at home (docker-py's contexts) is of this run alone, too.
    rm -rf "$COMPAT_DIR/home" "$COMPAT_DIR/cli" && mkdir -p "$COMPAT_DIR/home/.docker" "$COMPAT_DIR/cli"
    echo '{}' > "$COMPAT_DIR/home/.docker/config.json"
    tenant="compat-$suite-$(date +%s)"
    WHARFAGE_TOKEN=$(project "$tenant")
    # Where its repositories are in the hosted registry.
    export COMPAT_NAMESPACE="$tenant/compat"
    export WHARFAGE_TOKEN DOCKER_CONFIG="$COMPAT_DIR/cli"
    jq -n '{HttpHeaders: {Authorization: ("Bearer " + env.WHARFAGE_TOKEN)}}' > "$DOCKER_CONFIG/config.json"
    for image in $("tests/compat/$suite.sh" images); do docker pull --quiet "$image" >/dev/null; done
    results="$COMPAT_DIR/$suite.results" log="$COMPAT_DIR/$suite.log"
    : > "$results"
    echo "== $suite (all of its output: $log)"
    env -u DOCKER_HOST -u DOCKER_CONFIG COMPAT_HOME="$COMPAT_DIR/home" unshare --mount --propagation private bash -euc '
        mount -t tmpfs -o mode=755 run /run
        python3 "$1/tests/compat/credential.py" /run/docker.sock "$COMPAT_PORT" "${WHARFAGE_URL#http://}" &
        forwarder=$!
        trap "kill $forwarder" EXIT
        while [ ! -S /run/docker.sock ]; do sleep 0.05; done
        HOME="$COMPAT_HOME" "$1/tests/compat/$2.sh" run "$1/tests/compat/expected/$2.txt" "$3" >"$4" 2>&1
    ' compat "$root" "$suite" "$results" "$log" || { tail -n 40 "$log"; status=1; }
    # What a suite leaves would start again with the next `up`.
    docker ps --all --quiet | xargs -r docker rm --force >/dev/null
    python3 tests/compat/compare.py "$results" "tests/compat/expected/$suite.txt" || status=1
    $wharfage down >/dev/null 2>&1
done
exit $status
