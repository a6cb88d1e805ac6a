# Two commands matter: `make demo` and `make test`. Both install what they need (Debian, Ubuntu; as root), then build and run.

CARGO ?= cargo
BENCH := target/release/underpass-bench

.PHONY: help setup build test demo bench lint deb clean

help:
	@echo "make demo   kernel and underpass side by side: ping-pong and redis (root)"
	@echo "make test   everything that has to pass (root)"
	@echo "make build  target/release/underpass and target/release/libunderpass.so"
	@echo "make bench  the full measurement; results as a table and as JSON (root)"
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

demo: setup
	$(CARGO) build --release --workspace --locked
	$(BENCH) --quick pingpong redis

bench: setup
	$(CARGO) build --release --workspace --locked
	$(BENCH)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

deb: build
	@packaging/deb.sh

clean:
	$(CARGO) clean
