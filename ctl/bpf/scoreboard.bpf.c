// SPDX-License-Identifier: MIT OR Apache-2.0
// What has become of the segments that a TCP socket has sent: which the peer has acknowledged selectively, which are lost, which were sent
// again. No socket option and no TCP_REPAIR tells. The queue is looked at when the socket is closed for being restored empty: a
// tracepoint is passed then, and nothing was thrown away yet.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define TCP_CLOSE 7
// Of the tree's nodes each is met three times at most.
#define STEPS (3 << 16)
#define PIECES 1024

// The parts of the kernel's own that are looked at; the loader finds out where they lie.
struct rb_node {
	unsigned long __rb_parent_color;
	struct rb_node *rb_right;
	struct rb_node *rb_left;
} __attribute__((preserve_access_index));

struct rb_root {
	struct rb_node *rb_node;
} __attribute__((preserve_access_index));

struct sock_common {
	struct {
		__s64 counter;
	} skc_cookie;
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
	struct rb_root tcp_rtx_queue;
} __attribute__((preserve_access_index));

struct tcp_sock {
	__u32 high_seq;
} __attribute__((preserve_access_index));

struct sk_buff {
	struct rb_node rbnode;
	char cb[48];
} __attribute__((preserve_access_index));

struct tcp_skb_cb {
	__u32 seq;
	__u32 end_seq;
	__u8 sacked;
} __attribute__((preserve_access_index));

// struct Found in ctl/src/bpf/scoreboard.rs.
struct piece {
	__u32 start;
	__u32 end;
	__u32 marks;
};

struct found {
	__u64 cookie;
	__u32 high_seq;
	__u32 count;
	struct piece pieces[PIECES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct found);
} found SEC(".maps");

// A way through the tree, from the left to the right.
struct walk {
	struct found *found;
	unsigned long node;
	unsigned long from;
};

#define READ(what, from) bpf_probe_read_kernel(&(what), sizeof(what), __builtin_preserve_access_index(&(from)))

// Neighbours with the same marks become one piece. What finds no room is not told.
static void visit(struct found *found, const struct sk_buff *segment)
{
	const struct tcp_skb_cb *control = (const void *)__builtin_preserve_access_index(&segment->cb);
	__u32 start = 0, end = 0, count = found->count;
	__u8 marks = 0;

	READ(start, control->seq);
	READ(end, control->end_seq);
	READ(marks, control->sacked);
	if (count > 0 && count <= PIECES) {
		struct piece *last = &found->pieces[count - 1];

		if (last->end == start && last->marks == marks) {
			last->end = end;
			return;
		}
	}
	if (count < PIECES) {
		found->pieces[count].start = start;
		found->pieces[count].end = end;
		found->pieces[count].marks = marks;
		found->count = count + 1;
	}
}

static long step(__u32 n, void *context)
{
	struct walk *walk = context;
	const struct rb_node *node = (const void *)walk->node;
	unsigned long parent = 0, left = 0, right = 0, next;

	if (!node)
		return 1;
	READ(parent, node->__rb_parent_color);
	READ(left, node->rb_left);
	READ(right, node->rb_right);
	parent &= ~3UL;
	if (walk->from == parent && left) {
		next = left;
	} else if (walk->from == parent || walk->from == left) {
		visit(walk->found, (const void *)node - __builtin_preserve_field_info(((struct sk_buff *)0)->rbnode, 0));
		next = right ? right : parent;
	} else {
		next = parent;
	}
	walk->from = walk->node;
	walk->node = next;
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int underpass_scoreboard(__u64 *ctx)
{
	const struct sock *socket = (const struct sock *)ctx[0];
	const struct tcp_sock *tcp = (const struct tcp_sock *)ctx[0];
	__u32 only = 0;
	struct found *out;
	struct walk walk = {};
	__u64 cookie = 0;

	if ((int)ctx[2] != TCP_CLOSE)
		return 0;
	out = bpf_map_lookup_elem(&found, &only);
	READ(cookie, socket->__sk_common.skc_cookie);
	if (!out || out->cookie == 0 || out->cookie != cookie)
		return 0;
	// Once for each time that it is asked.
	out->cookie = 0;
	READ(out->high_seq, tcp->high_seq);
	READ(walk.node, socket->tcp_rtx_queue.rb_node);
	walk.found = out;
	bpf_loop(STEPS, step, &walk, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
