#!/bin/bash
# bollard 0.21.1's own suite, which its crate ships, as its authors ship it: compiled in a project of its
# own, outside our workspace. Usage: bollard.sh fetch | images | run EXPECTED RESULTS
set -euo pipefail
dir="$COMPAT_DIR/bollard"
source="$dir/bollard-0.21.1"
# Found by the home directory, which is another while the suite runs.
export CARGO_HOME="${CARGO_HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)/.cargo}"
export RUSTUP_HOME="${RUSTUP_HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)/.rustup}"
export CARGO_TARGET_DIR="$dir/target" CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0
tests() { (cd "$source" && cargo test --locked --features test_websocket "$@"); }
case "$1" in
    fetch)
        [ ! -e "$dir/fetched" ] || exit 0
        mkdir -p "$dir/fetch/src"
        printf '[workspace]\n[package]\nname = "fetch"\nedition = "2024"\n[dependencies]\nbollard = "=0.21.1"\n' > "$dir/fetch/Cargo.toml"
        touch "$dir/fetch/src/lib.rs"
        (cd "$dir/fetch" && cargo fetch --quiet)
        cp -r "$CARGO_HOME"/registry/src/*/bollard-0.21.1 "$dir"
        # So that it stands alone below our own workspace.
        printf '\n[workspace]\n' >> "$source/Cargo.toml"
        tests --quiet --no-run
        touch "$dir/fetched" ;;
    images) echo alpine:latest hello-world:linux fussybeaver/uhttpd ;;
    run)
        skipped=$(awk '!/^#/ && NF && $1 !~ /::/ {print $1}' "$2")
        binaries=$(cd "$source/tests" && for file in *.rs; do
            grep -qxF "${file%.rs}" <<< "$skipped" || printf -- '--test %s ' "${file%.rs}"
        done)
        # The upstream is the one the suite of ours pulls from; there is none on localhost:5000.
        # shellcheck disable=SC2086 # a list of options
        DISABLE_REGISTRY=1 timeout 900 bash -c "$(declare -f tests); source='$source'; tests --offline --no-fail-fast $binaries -- --test-threads 1" 2>&1 || true ;;
esac | tee >(
    [ "$1" != run ] || awk '
        /Running tests\// { split($2, path, /[\/.]/); binary = path[2] }
        /^test .* \.\.\. / { name = binary "::" $2 }
        /(^test .* \.\.\. |^)ok$/ { if (name) { print "pass", name; name = "" } }
        /(^test .* \.\.\. |^)FAILED$/ { if (name) { print "fail", name; name = "" } }
        /(^test .* \.\.\. |^)ignored/ { if (name) { print "skip", name; name = "" } }' > "$3")
