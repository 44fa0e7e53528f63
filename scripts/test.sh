#!/bin/bash
# The whole suite of tests. Everything is real: PostgreSQL, Redis, runc, the kernel's network, the
# docker CLI. Leaves the machine as it was, and checks that it did.
set -euo pipefail
cd "$(dirname "$0")/.."
wharfage=target/release/wharfage

stage() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
stock() { # what the suite could leave behind, as text
    awk '{print $2}' /proc/self/mounts | sort
    ls /sys/class/net | sort
    nft list tables | sort
    find /sys/fs/cgroup -maxdepth 4 -type d -path '*wharfage*' 2>/dev/null | sort
    cat /proc/sys/net/ipv4/ip_forward /sys/kernel/rcu_expedited
    # Zombies are left out: it is the machine's init that has yet to reap them.
    ps -eo stat=,comm= | awk '$1 !~ /^Z/ {print $2}' \
        | grep -E '^(wharfage|api-gateway|image-svc|scheduler|node-agent|netd|redis-server|docker-regist)' | sort || true
}
down() { $wharfage down; }
trap 'status=$?; if [ $status != 0 ]; then tail -n 30 .wharfage/log/*.log 2>/dev/null | cut -c1-400; fi; $wharfage down >/dev/null 2>&1 || true; exit $status' EXIT

# The development profile: it compiles faster than the tests would run slower. The suite itself,
# which the end-to-end tests meet, is the release build that `make up` starts.
# Always the whole workspace, and targets chosen by name: what is selected decides the features that
# dependencies are compiled with, and another selection would compile most of them once more.
targets() { cargo test --quiet --workspace "$@"; }
integration=$(cargo metadata --no-deps --format-version 1 \
    | jq -r '.packages[] | select(.name != "tests") | .targets[] | select(.kind == ["test"]) | "--test=" + .name' | sort -u)

stage "unit, property and integration tests"
# shellcheck disable=SC2086 # a list of options
targets --lib --bins $integration

stage "tidiness and generated files"
targets --test tidy --test openapi

stage "one host: the CLI and REST, end to end"
$wharfage down >/dev/null 2>&1
stock > /tmp/wharfage-before.txt
$wharfage up
$wharfage up --quiet # idempotent
targets --test e2e
stage "one host: kill -9 of every service in turn"
targets --test crash -- --test-threads=1
stage "one host: kill rounds and cycles, the short form"
targets --test endurance -- --test-threads=1
down
stock > /tmp/wharfage-after.txt
diff /tmp/wharfage-before.txt /tmp/wharfage-after.txt || { echo "make down left something behind"; exit 1; }

stage "three hosts"
NODES=3 $wharfage up --quiet
targets --test fleet
down
stock > /tmp/wharfage-after.txt
diff /tmp/wharfage-before.txt /tmp/wharfage-after.txt || { echo "make down left something behind"; exit 1; }
stage "all passed"
