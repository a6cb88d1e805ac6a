#!/usr/bin/env bash
# Makes sure that everything needed is there; installs Debian packages for what is not. Says exactly what is missing.
#   setup.sh build   what compiling needs
#   setup.sh demo    also what the demo shows; it runs for everybody, and shows more to root
#   setup.sh bench   also what the measurement runs; likewise
#   setup.sh run     also what the tests need: programs, root, a kernel that is new enough
set -euo pipefail

purpose="${1:-run}"
case "$purpose" in
    build | demo | bench | run) ;;
    *)
        echo "setup.sh: build, demo, bench or run, not '$purpose'" >&2
        exit 2
        ;;
esac
root=no
[ "$(id -u)" != 0 ] || root=yes
PATH="$PATH:/usr/sbin:/sbin"
packages=()
missing=()

# need KIND THING PACKAGE: a command on the path, a file, or a pattern of files, and the Debian package that brings it.
need() {
    local kind="$1" thing="$2" package="$3"
    case "$kind" in
        command) command -v "$thing" >/dev/null 2>&1 && return 0 ;;
        file) [ -e "$thing" ] && return 0 ;;
        pattern) compgen -G "$thing" >/dev/null && return 0 ;;
    esac
    missing+=("$thing (Debian package $package)")
    packages+=("$package")
}

look() {
    packages=()
    missing=()
    need command cc gcc
    need command clang clang
    need file /usr/include/linux/if_xdp.h linux-libc-dev
    need file /usr/include/bpf/bpf_helpers.h libbpf-dev
    [ "$purpose" != build ] || return 0
    need command redis-server redis-server
    need command redis-benchmark redis-tools
    # Network namespaces are root's.
    [ "$root" = no ] || need command ip iproute2
    [ "$purpose" != demo ] || return 0
    need command iperf3 iperf3
    [ "$purpose" != bench ] || return 0
    need command sockperf sockperf
    need command nginx nginx-light
    need command curl curl
    need command nft nftables
    need command ethtool ethtool
    need command python3 python3
    need command memcached memcached
    need command memcslap libmemcached-tools
    need command haproxy haproxy
    need pattern '/usr/lib/postgresql/*/bin/pgbench' postgresql
    need command node nodejs
    need command valgrind valgrind
    need command javac default-jdk-headless
}

undo=()

# Packages start their services when they are installed; a redis or nginx that listens is not what was asked for. Nor is a database
# cluster, which PostgreSQL's would make. Both are told so while the installation lasts.
hold_back() {
    local path="$1" mode="$2" text="$3"
    [ ! -e "$path" ] || return 0
    mkdir -p "$(dirname "$path")"
    printf '%b' "$text" >"$path"
    chmod "$mode" "$path"
    undo+=("$path")
    trap 'rm -f "${undo[@]}"' EXIT
}

install_packages() {
    hold_back /usr/sbin/policy-rc.d 755 '#!/bin/sh\nexit 101\n'
    hold_back /etc/postgresql-common/createcluster.d/underpass.conf 644 'create_main_cluster = false\n'
    echo "installing: ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends "${packages[@]}" >/dev/null 2>&1 && return 0
    # The package lists may be old or absent.
    apt-get update -q >/dev/null
    apt-get install -y --no-install-recommends "${packages[@]}" >/dev/null
}

look
if [ "${#packages[@]}" -gt 0 ] && [ "$root" = yes ] && command -v apt-get >/dev/null 2>&1; then
    install_packages
    look
fi

command -v cargo >/dev/null 2>&1 || missing+=("cargo: a Rust toolchain, 1.91 or newer (https://rustup.rs)")
[ "$purpose" != run ] || [ "$root" = yes ] || missing+=("root: network namespaces, AF_XDP, BPF and TCP_REPAIR need it")
# What is shown on loopback alone works with older kernels.
if [ "$purpose" = run ] || { [ "$purpose" != build ] && [ "$root" = yes ]; }; then
    IFS=. read -r major minor _ < <(uname -r | tr -c '0-9\n' .)
    if [ "$major" -lt 5 ] || { [ "$major" -eq 5 ] && [ "$minor" -lt 18 ]; }; then
        missing+=("Linux 5.18 or newer (this is $(uname -r))")
    fi
fi
if [ "${#missing[@]}" -gt 0 ]; then
    echo "missing:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    [ "${#packages[@]}" -eq 0 ] || echo "as root: apt-get install ${packages[*]}" >&2
    exit 1
fi
