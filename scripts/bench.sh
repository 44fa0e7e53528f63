#!/bin/bash
# Brings the suite up on one host, measures it beside dockerd, takes it down. Prints Markdown.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet --workspace --bin bench
# Counted, but not reached: the load is more than one project may make by default.
export WHARFAGE_RATE_LIMIT__PER_SECOND=1000000 WHARFAGE_RATE_LIMIT__BURST=1000000
target/release/wharfage up --quiet
trap 'target/release/wharfage down >/dev/null 2>&1' EXIT
echo "<!-- $(date -u +%F), $(uname -r), $(nproc) cores, $(git rev-parse --short HEAD): make bench -->"
target/release/bench "$@"
