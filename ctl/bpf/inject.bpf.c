// SPDX-License-Identifier: MIT OR Apache-2.0
// Injection: a batch of frames enters an interface's receive path in one system call.
//
// Never attached. BPF_PROG_TEST_RUN runs this once for each frame of the batch; a copy of each goes to the interface. An XDP
// program could do the same (BPF_F_TEST_XDP_LIVE_FRAMES), but running one more than once waits for two RCU grace
// periods, ten milliseconds and more.

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

// BATCH, MIN_FRAME, MAX_FRAME and Slot in ctl/src/steer/inject.rs.
#define BATCH 64
#define MIN_FRAME 14
#define MAX_FRAME 3300

struct slot {
	__u32 len;
	__u8 bytes[MAX_FRAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BATCH);
	__type(key, __u32);
	__type(value, struct slot);
} frames SEC(".maps");

// Progress in ctl/src/steer/inject.rs: where to, how many went there, and which is next.
struct progress {
	__u32 ifindex;
	__u32 passed;
	__u32 next;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct progress);
} progress SEC(".maps");

SEC("classifier")
int underpass_inject(struct __sk_buff *skb)
{
	__u32 only = 0, at, len;
	struct progress *done = bpf_map_lookup_elem(&progress, &only);
	struct slot *slot;

	if (!done)
		return TC_ACT_SHOT;
	at = done->next++;
	slot = bpf_map_lookup_elem(&frames, &at);
	if (!slot)
		return TC_ACT_SHOT;
	len = slot->len;
	if (len < MIN_FRAME || len > MAX_FRAME)
		return TC_ACT_SHOT;
	if (bpf_skb_change_tail(skb, len, 0) || bpf_skb_store_bytes(skb, 0, slot->bytes, len, 0))
		return TC_ACT_SHOT;
	if (bpf_clone_redirect(skb, done->ifindex, BPF_F_INGRESS))
		return TC_ACT_SHOT;
	done->passed++;
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
