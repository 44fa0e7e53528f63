# The list of commands. CI calls these and nothing else.
NODES ?= 1
export NODES

BINARIES = wharfage api-gateway image-svc scheduler node-agent netd
SHIM = target/release/wharfage-shim

.PHONY: up down build test bench compat check sqlx openapi

## up: install what is missing, build, start everything, run hello-world. Idempotent.
up: packages build
	@target/release/wharfage up --nodes $(NODES)

## down: stop everything; leave no process, mount, namespace, link, table or cgroup.
down:
	@if [ -x target/release/wharfage ]; then target/release/wharfage down; else echo "nothing was built, nothing runs"; fi

.PHONY: packages
packages:
	@scripts/packages.sh run

build:
	@printf '  building … ' >&2; start=$$(date +%s); \
	cargo build --release --quiet --workspace $(BINARIES:%=--bin %) && \
	cargo rustc --release --quiet -p shim --bin wharfage-shim -- -C target-feature=+crt-static && \
	echo "ok ($$(( $$(date +%s) - start )) s)" >&2

## test: everything, on real PostgreSQL, Redis, runc, kernel and docker CLI.
test:
	@scripts/packages.sh test
	@$(MAKE) --no-print-directory build
	@scripts/test.sh

## bench: beside dockerd, in one run; figures go to docs/benchmarks.md by hand.
bench:
	@scripts/packages.sh bench
	@$(MAKE) --no-print-directory build
	@scripts/bench.sh

## compat: the suites of other people's clients, all or SUITE=docker-py|bollard|compose.
compat:
	@scripts/packages.sh test
	@$(MAKE) --no-print-directory build
	@scripts/compat.sh $(SUITE)

## check: formatting, lints, licences and advisories, drift of generated files.
check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --log-level error check licenses bans sources; else echo "cargo-deny is not installed: cargo install --locked cargo-deny" >&2; exit 1; fi
	cargo test --quiet -p tests --test openapi

## openapi: rewrite openapi/*.json from the code.
openapi:
	UPDATE_EXPECT=1 cargo test --quiet -p tests --test openapi

## sqlx: rewrite the query cache (.sqlx) against a throw-away PostgreSQL.
sqlx:
	scripts/sqlx-cache.sh
