//! The preloaded library: it stands in front of the socket calls of an unmodified program and moves busy TCP connections to a
//! lane and back.
//!
//! A call comes in through `hooks`, finds its descriptor in the `fd` table, and gets its meaning in `call`; `tier` moves sockets,
//! `policy` says when, `wait` is where threads wait, `carry` moves bytes on each tier: `engine` holds the stack of the `xdp` lane, whose
//! daemon `session` talks to; `shm` is the lane between processes of this host. `helper` works while the program does not call.

mod buffers;
mod call;
mod carry;
mod doorbell;
mod engine;
mod epoll_set;
mod errno;
mod fd;
mod fork;
mod guard;
mod helper;
mod holders;
mod hooks;
mod init;
mod launch;
mod log;
mod options;
mod policy;
mod real;
mod session;
mod shm;
mod signals;
mod socket;
mod sys;
mod tcp_info;
mod tier;
mod unusual;
mod wait;
