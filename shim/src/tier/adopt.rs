//! What a dead daemon had made, handed to its successor.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering::*;

use underpass_stack::control::{AdoptConn, AdoptPort, Attach, Done};
use underpass_stack::lane::Reason;
use underpass_stack::stack::Port;

use super::attach::drop_port;
use super::demote;
use crate::fd::Ref;
use crate::socket::Socket;
use crate::{engine, log, session};

/// Hands everything that a dead daemon had made to its successor.
pub fn adopt() {
    if session::reopen().is_err() {
        return;
    }
    let ports: Vec<_> = match engine::get() {
        Some(engine) => engine.stack.ports().filter_map(|(number, port)| adopt_port(number, port)).collect(),
        None => return,
    };
    for (netns, message, fds) in ports {
        if let Err(reason) = session::ask(&message, &fds).and_then(|answer| answer.expect::<Done>()) {
            log::info(format_args!("the new daemon does not take an attachment over: {}", reason.text()));
            drop_port(netns, message.attach.ifindex);
        }
    }
    let owners = engine::get().map(|engine| engine.owners()).unwrap_or_default();
    for socket in owners {
        // Without its queues a lane is dead. The daemon has heard of the connection so that it can be given back.
        if adopt_connection(&socket) == Some(Steered(false))
            && let Err(reason) = demote(&socket, Reason::LinkDown)
        {
            log::warn(format_args!("a connection without its queues stays where it is: {}", reason.text()));
        }
    }
}

/// Do a connection's packets reach its lane?
#[derive(PartialEq, Eq)]
struct Steered(bool);

fn adopt_port(number: u32, port: &Port) -> Option<(u64, AdoptPort, Vec<RawFd>)> {
    let config = port.config();
    let mut fds = vec![port.umem_fd()?.as_raw_fd()];
    fds.extend(port.queue_fds().map(|fd| fd.as_raw_fd()));
    let attach = Attach {
        ifindex: config.ifindex,
        frame_size: config.frame_size,
        frame_count: config.frame_count,
        rx_ring: config.rings.rx,
        tx_ring: config.rings.tx,
        port: number,
    };
    let message = AdoptPort { attach, xsk_base: config.xsk_base, queues: fds.len() as u32 - 1 };
    Some((config.netns, message, fds))
}

/// `None`: not on the lane, or the daemon refused it.
fn adopt_connection(socket: &Ref<Socket>) -> Option<Steered> {
    let _change = socket.change.lock();
    let slot = socket.slot()?;
    let generation = engine::get().and_then(|engine| engine.stack.record(slot).map(|r| r.generation))?;
    let message = AdoptConn { slot, generation, port: socket.port.load(Relaxed), restore: *socket.restore.lock() };
    let asked = session::ask(&message, &[socket.fd.load(Relaxed)]).and_then(|answer| answer.expect::<Done>());
    match asked {
        Ok(done) => Some(Steered(done.count > 0)),
        Err(reason) => {
            log::warn(format_args!("the new daemon refused a connection: {}", reason.text()));
            None
        }
    }
}
