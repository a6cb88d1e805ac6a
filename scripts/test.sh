#!/usr/bin/env bash
# Everything that has to pass. Warnings are refused by clippy, which also runs the compiler's own lints: RUSTFLAGS would
# throw away what other commands have built. The test runner's summary comes last.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo build --release --workspace --locked
cargo clippy --workspace --all-targets --locked -- -D warnings
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked --no-fail-fast
else
    cargo test --workspace --locked --no-fail-fast
fi
