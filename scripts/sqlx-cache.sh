#!/bin/sh
# Rewrites .sqlx, the cache that lets the workspace compile without a database: starts a throw-away
# PostgreSQL, applies migrations/, and lets sqlx's macros describe every query into the cache.
set -eu
cd "$(dirname "$0")/.."
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
dir=$(mktemp -d /tmp/wharfage-sqlx.XXXXXX)
chown postgres "$dir"
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
as_postgres "$bin/initdb" -D "$dir/data" -U postgres -A trust >/dev/null
as_postgres "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" -o "-c listen_addresses='' -k $dir -c fsync=off" start >/dev/null
trap 'as_postgres "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null; rm -rf "$dir"' EXIT
"$bin/createdb" -h "$dir" -U postgres wharfage
for file in migrations/*.sql; do "$bin/psql" -q -v ON_ERROR_STOP=1 -h "$dir" -U postgres wharfage -f "$file"; done
rm -rf .sqlx && mkdir .sqlx
touch crates/store/src/lib.rs
DATABASE_URL="postgres://postgres@localhost/wharfage?host=$dir" SQLX_OFFLINE_DIR="$PWD/.sqlx" \
    CARGO_TARGET_DIR="${TMPDIR:-/tmp}/wharfage-sqlx-target" cargo check --quiet -p store --tests
echo "$(ls .sqlx | wc -l) queries cached"
