// SPDX-License-Identifier: MIT OR Apache-2.0
// Steering: exact TCP flows go to the AF_XDP sockets of their stack, everything else to the kernel.
//
// When in doubt, pass: a frame that is malformed, fragmented or encapsulated belongs to the kernel, and so does what opens a
// connection, unless the stack has one between the same ends: the kernel's socket of that says nothing.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_FLOWS 65536
#define MAX_WATCHES 256
#define MAX_XSKS 4096

// struct FlowKey in stack/src/ip/flow.rs.
struct flow_key {
	__u8 local[16];
	__u8 remote[16];
	__be16 local_port;
	__be16 remote_port;
	__u8 proto;
	__u8 pad[3];
};

// struct FlowValue in stack/src/control.rs.
struct flow_value {
	__u32 xsk_base;
	__u32 mode;
	__u64 passed;
	__u32 passed_end;
	__u32 pad;
};

// Order of steer::Steered in ctl/src/steer/counters.rs.
enum counter { REDIRECTED, WATCHED, MISSED, NOT_OURS, COUNTERS };

// Flows that belong to a stack.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FLOWS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
} flows SEC(".maps");

// Flows about to be promoted. A map of its own, so that what was recorded here stays readable after the flow was
// switched over: an update of the flow's own entry would replace it and lose what is counted in that instant.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_WATCHES);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
} watches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, MAX_XSKS);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct vlan_tag {
	__be16 tci;
	__be16 proto;
};

// What the watch needs to know of a segment.
struct segment {
	__u32 seq;
	__u32 end;
	__u8 syn;
};

static __always_inline void count(__u32 which)
{
	__u64 *cell = bpf_map_lookup_elem(&counters, &which);

	if (cell)
		*cell += 1;
}

static __always_inline void map_v4(__u8 *out, __be32 address)
{
	__builtin_memset(out, 0, 10);
	out[10] = 0xff;
	out[11] = 0xff;
	__builtin_memcpy(out + 12, &address, 4);
}

// Fills in the ports and the segment's numbers. `payload` counts from the TCP header on. 0 on success.
static __always_inline int parse_tcp(void *at, void *end, __u32 payload, struct flow_key *key, struct segment *seg)
{
	struct tcphdr *tcp = at;

	if ((void *)(tcp + 1) > end)
		return -1;
	__u32 header = tcp->doff * 4;
	if (header < sizeof(*tcp) || header > payload)
		return -1;
	key->local_port = tcp->dest;
	key->remote_port = tcp->source;
	key->proto = IPPROTO_TCP;
	seg->seq = bpf_ntohl(tcp->seq);
	seg->end = seg->seq + (payload - header) + tcp->fin;
	seg->syn = tcp->syn;
	return 0;
}

static __always_inline int parse_v4(void *at, void *end, struct flow_key *key, struct segment *seg)
{
	struct iphdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_TCP)
		return -1;
	// MF or an offset: a fragment.
	if (ip->frag_off & bpf_htons(0x3fff))
		return -1;
	__u32 total = bpf_ntohs(ip->tot_len);
	if (total < sizeof(*ip))
		return -1;
	map_v4(key->local, ip->daddr);
	map_v4(key->remote, ip->saddr);
	return parse_tcp(ip + 1, end, total - sizeof(*ip), key, seg);
}

// ::ffff:0:0/96
static __always_inline int is_mapped(const struct in6_addr *address)
{
	return !address->s6_addr32[0] && !address->s6_addr32[1] && address->s6_addr32[2] == bpf_htonl(0xffff);
}

static __always_inline int parse_v6(void *at, void *end, struct flow_key *key, struct segment *seg)
{
	struct ipv6hdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 6 || ip->nexthdr != IPPROTO_TCP)
		return -1;
	// In the map these stand for IPv4.
	if (is_mapped(&ip->daddr) || is_mapped(&ip->saddr))
		return -1;
	__builtin_memcpy(key->local, &ip->daddr, 16);
	__builtin_memcpy(key->remote, &ip->saddr, 16);
	return parse_tcp(ip + 1, end, bpf_ntohs(ip->payload_len), key, seg);
}

static __always_inline int parse(struct xdp_md *ctx, struct flow_key *key, struct segment *seg)
{
	void *at = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = at;

	if ((void *)(eth + 1) > end)
		return -1;
	__be16 proto = eth->h_proto;
	at = eth + 1;
	// A tag without a VLAN's number says no more than a priority. All others are packets of another interface.
	if (proto == bpf_htons(ETH_P_8021Q)) {
		struct vlan_tag *tag = at;

		if ((void *)(tag + 1) > end || (tag->tci & bpf_htons(0x0fff)))
			return -1;
		proto = tag->proto;
		at = tag + 1;
	}
	if (proto == bpf_htons(ETH_P_IP))
		return parse_v4(at, end, key, seg);
	if (proto == bpf_htons(ETH_P_IPV6))
		return parse_v6(at, end, key, seg);
	return -1;
}

// Remembers how far the kernel's socket has been fed. The record is written in place: promotion reads it after the flow
// was switched over.
static __always_inline void watch(struct flow_value *value, struct segment *seg)
{
	if (value->passed == 0 || (__s32)(seg->end - value->passed_end) > 0)
		value->passed_end = seg->end;
	__sync_fetch_and_add(&value->passed, 1);
	count(WATCHED);
}

SEC("xdp")
int underpass_steer(struct xdp_md *ctx)
{
	struct flow_key key = {};
	struct segment seg = {};

	if (parse(ctx, &key, &seg) < 0) {
		count(NOT_OURS);
		return XDP_PASS;
	}
	struct flow_value *value = bpf_map_lookup_elem(&flows, &key);
	if (value) {
		count(REDIRECTED);
		return bpf_redirect_map(&xsks, value->xsk_base + ctx->rx_queue_index, XDP_PASS);
	}
	if (seg.syn) {
		count(NOT_OURS);
		return XDP_PASS;
	}
	value = bpf_map_lookup_elem(&watches, &key);
	if (value)
		watch(value, &seg);
	else
		count(MISSED);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
