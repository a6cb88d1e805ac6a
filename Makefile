# Two commands matter: `make demo` and `make test`. Both install what they need (Debian, Ubuntu; as root), then build and run. The demo
# runs for everybody: without root it installs nothing, and shows what needs no privilege.

CARGO ?= cargo
BENCH := $(or $(CARGO_TARGET_DIR),target)/release/underpass-bench
# The lane between programs of one host; root is shown the one across a network, too.
SHOWN := shm-pingpong shm-redis $(if $(filter 0,$(shell id -u)),pingpong redis)

.PHONY: help setup build test demo bench lint deb clean

help:
	@echo "make demo   kernel and underpass side by side: ping-pong and redis (more as root)"
	@echo "make test   everything that has to pass (root)"
	@echo "make build  target/release/underpass and target/release/libunderpass.so"
	@echo "make bench  the full measurement; results as a table and as JSON (more as root)"
	@echo "make lint   formatting and clippy"
	@echo "make deb    a Debian package in target/package"
	@echo "make setup  only what has to be installed"
	@echo "make clean  remove what was built"

setup:
	@scripts/setup.sh run

build:
	@scripts/setup.sh build
	$(CARGO) build --release --workspace --locked

test: setup
	@scripts/test.sh

demo:
	@scripts/setup.sh demo
	$(CARGO) build --release --workspace --locked
	$(BENCH) --quick $(SHOWN)
	@[ "$$(id -u)" = 0 ] || echo "Run by root, the demo also shows connections across a network, in namespaces of their own."

bench:
	@scripts/setup.sh bench
	$(CARGO) build --release --workspace --locked
	$(BENCH)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

deb: build
	@packaging/deb.sh

clean:
	$(CARGO) clean
