#!/usr/bin/env bash
# Builds target/package/underpass_VERSION_ARCH.deb from what `make build` has built.
set -euo pipefail
cd "$(dirname "$0")/.."

version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
architecture="$(dpkg --print-architecture)"
command=target/release/underpass
# The newest symbol version that the two files ask for.
libc="$(objdump -T "$command" target/release/libunderpass.so | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1 | cut -d_ -f2)"
out=target/package
root="$out/root"

rm -rf "$root"
install -D -m 755 "$command" "$root/usr/bin/underpass"
install -D -m 644 target/release/libunderpass.so "$root/usr/lib/underpass/libunderpass.so"
strip --strip-debug "$root/usr/bin/underpass" "$root/usr/lib/underpass/libunderpass.so"
install -D -m 644 packaging/systemd/underpass.service "$root/lib/systemd/system/underpass.service"
for profile in packaging/profiles/*.env; do
    # The command has them built in; these are to be read, and copied to /etc/underpass/profiles.
    install -D -m 644 "$profile" "$root/usr/share/doc/underpass/examples/$(basename "$profile")"
done
install -d "$root/usr/share/man/man1" "$root/usr/share/bash-completion/completions" \
    "$root/usr/share/zsh/vendor-completions" "$root/usr/share/fish/vendor_completions.d"
"$command" man | gzip -9n >"$root/usr/share/man/man1/underpass.1.gz"
"$command" completions bash >"$root/usr/share/bash-completion/completions/underpass"
"$command" completions zsh >"$root/usr/share/zsh/vendor-completions/_underpass"
"$command" completions fish >"$root/usr/share/fish/vendor_completions.d/underpass.fish"
install -D -m 644 packaging/underpass.toml "$root/usr/share/doc/underpass/examples/underpass.toml"
install -D -m 644 README.md "$root/usr/share/doc/underpass/README.md"
cat LICENSE-MIT LICENSE-APACHE >"$root/usr/share/doc/underpass/copyright"

install -d "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: underpass
Version: $version
Architecture: $architecture
Section: net
Priority: optional
Maintainer: The Underpass contributors <underpass@localhost>
Depends: libc6 (>= $libc), adduser
Description: faster sockets for unmodified programs
 A preloaded library moves busy TCP connections, live, out of the kernel into
 an in-process TCP stack fed by AF_XDP, and back. No kernel module, no patched
 driver, no change to the program.
CONTROL
install -m 755 packaging/postinst packaging/prerm "$root/DEBIAN/"
dpkg-deb --root-owner-group --build "$root" "$out/underpass_${version}_${architecture}.deb"
