//! What the daemon asks the kernel about a network namespace, over netlink, and what it hears from routers there.

pub mod address;
pub mod conntrack;
pub mod flow_label;
pub mod icmp;
pub mod ipsec;
pub mod link;
pub mod neigh;
pub mod netlink;
pub mod netns;
pub mod route;
pub mod sys;
pub mod watch;
