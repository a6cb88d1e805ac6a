// SPDX-License-Identifier: MIT OR Apache-2.0
// Gives one TCP socket a congestion window. Neither a socket option nor TCP_REPAIR has a word for it; an iterator over the
// sockets of a network namespace may set the initial one (TCP_BPF_IW, linux/bpf.h) of a socket that has sent nothing yet.

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>

// The part of the kernel's own that is looked at; the loader finds out where it lies.
struct sock_common {
	struct {
		__s64 counter;
	} skc_cookie;
} __attribute__((preserve_access_index));

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

// What the kernel hands to iterators over TCP sockets.
struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

// struct Wanted in ctl/src/bpf/cwnd.rs.
struct wanted {
	__u64 cookie;
	__s32 segments;
	__u32 given;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wanted);
} wanted SEC(".maps");

SEC("iter/tcp")
int underpass_cwnd(struct bpf_iter__tcp *ctx)
{
	struct sock_common *socket = ctx->sk_common;
	__u32 only = 0;
	struct wanted *want = bpf_map_lookup_elem(&wanted, &only);

	if (!socket || !want || (__u64)socket->skc_cookie.counter != want->cookie)
		return 0;
	int segments = want->segments;
	char found = 1;

	if (bpf_setsockopt(socket, IPPROTO_TCP, TCP_BPF_IW, &segments, sizeof(segments)) == 0)
		want->given++;
	// Whoever reads gets a byte, and need not look any further.
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
