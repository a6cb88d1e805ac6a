#!/usr/bin/env bash
# Everything that has to pass. Warnings are refused by clippy, which also runs the compiler's own lints: RUSTFLAGS would
# throw away what other commands have built. So the models, which need them, are built elsewhere. The test runner's summary comes
# last, before it the models' own.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo build --release --workspace --locked
cargo clippy --workspace --all-targets --locked -- -D warnings
models=$(RUSTFLAGS="--cfg loom" RUST_BACKTRACE=0 CARGO_TARGET_DIR=target/loom \
    cargo test --package underpass-stack --locked --test shm_models) || { echo "$models"; exit 1; }
echo "models of shared memory: $(grep --only-matching '[0-9]* passed.*' <<<"$models")"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked --no-fail-fast
else
    cargo test --workspace --locked --no-fail-fast
fi
