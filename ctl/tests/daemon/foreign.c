// SPDX-License-Identifier: MIT OR Apache-2.0
// Somebody else's XDP program: passes everything.
__attribute__((section("xdp"), used)) int somebody(void *ctx)
{
	(void)ctx;
	return 2; // XDP_PASS
}

__attribute__((section("license"), used)) static char terms[] = "GPL";
