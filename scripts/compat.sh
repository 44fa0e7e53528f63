#!/bin/bash
# Runs docker-py 6.1.3's own integration suite, as its authors ship it, against a fresh suite of ours:
# the container, exec and network parts. Prints what passed and what did not; docs/compatibility.md says what
# is not built yet. The only thing added is the credential, which docker-py has no setting for.
set -euo pipefail
cd "$(dirname "$0")/.."
dir="$PWD/target/compat"
if [ ! -d "$dir/docker-6.1.3" ]; then
    mkdir -p "$dir"
    python3 -m pip download --quiet --disable-pip-version-check --no-binary docker --no-deps --dest "$dir" docker==6.1.3
    tar -xzf "$dir/docker-6.1.3.tar.gz" -C "$dir"
fi
if [ ! -d "$dir/venv" ]; then
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install --quiet --disable-pip-version-check 'requests<2.32' 'urllib3<2' pytest pytest-timeout \
        websocket-client packaging paramiko
fi
cat > "$dir/wharfage_credential.py" <<'P'
"""Sends the project's token with every request of docker-py."""
import os
import requests

send = requests.Session.send

def with_credential(session, request, **options):
    request.headers["Authorization"] = "Bearer " + os.environ["WHARFAGE_TOKEN"]
    return send(session, request, **options)

requests.Session.send = with_credential
P
target/release/wharfage up --quiet
trap 'target/release/wharfage down >/dev/null 2>&1' EXIT
# shellcheck disable=SC1091 # made by `up`
source .wharfage/env
for image in busybox hello-world alpine:latest alpine:3.10; do docker pull -q "$image"; done
cd "$dir/docker-6.1.3"
PYTHONPATH="$dir:$PWD" DOCKER_TEST_API_VERSION=1.41 "$dir/venv/bin/python" -m pytest -p wharfage_credential -q --timeout 30 \
    --no-header -rfE tests/integration/api_container_test.py tests/integration/api_exec_test.py \
    tests/integration/models_containers_test.py tests/integration/api_network_test.py \
    tests/integration/models_networks_test.py "$@" || true
