#!/bin/bash
# docker-py 6.1.3's own integration suite, from its PyPI sdist (later ones ship no tests), as its authors
# ship it. Usage: docker-py.sh fetch | images | run EXPECTED RESULTS
set -euo pipefail
dir="$COMPAT_DIR/docker-py"
source="$dir/docker-6.1.3"
case "$1" in
    fetch)
        [ ! -e "$dir/fetched" ] || exit 0
        mkdir -p "$dir"
        python3 -m pip download --quiet --disable-pip-version-check --no-binary docker --no-deps --dest "$dir" docker==6.1.3
        tar -xzf "$dir/docker-6.1.3.tar.gz" -C "$dir"
        python3 -m venv "$dir/venv"
        "$dir/venv/bin/pip" install --quiet --disable-pip-version-check 'requests<2.32' 'urllib3<2' pytest pytest-timeout \
            websocket-client packaging paramiko
        touch "$dir/fetched" ;;
    images) echo busybox alpine:latest alpine:3.10 hello-world:latest ;;
    run)
        # What is listed by file is not run: a line without `::`.
        ignored=$(awk '!/^#/ && NF && $1 !~ /::/ {print "--ignore=" $1}' "$2")
        cd "$source"
        status=0
        # Over TCP: docker-py attaches over a WebSocket to nothing else.
        export DOCKER_HOST="tcp://127.0.0.1:$COMPAT_PORT"
        # shellcheck disable=SC2086 # a list of options
        PYTHONPATH="$source" PYTHONDONTWRITEBYTECODE=1 DOCKER_TEST_API_VERSION=1.41 "$dir/venv/bin/python" -m pytest \
            -p no:cacheprovider --no-header --quiet --tb=short --timeout 60 -rA $ignored tests/integration || status=$?
        # 1: some tests failed, which is for the comparison to judge.
        [ $status -le 1 ] || exit $status ;;
esac | tee >(
    [ "$1" != run ] || sed -nE 's/^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (tests[^ ]*).*/\1 \2/p' \
        | sed -E 's/^(PASSED|XPASS) /pass /; s/^(FAILED|ERROR) /fail /; s/^(SKIPPED|XFAIL) /skip /' > "$3")
