//! Netlink messages (netlink(7), rtnetlink(7)): requests, answers, attributes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{MsgFlags, NetlinkAddr, bind, recv, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::sys;

/// The protocols in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// NETLINK_ROUTE: links, addresses, routes, neighbours.
    Route,
    /// NETLINK_NETFILTER: connection tracking.
    Netfilter,
    /// NETLINK_XFRM: IPsec policies.
    Xfrm,
    /// NETLINK_GENERIC: what drivers can do.
    Generic,
}

const HEADER: usize = 16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
/// NLM_F_DUMP: every object of a kind.
pub const DUMP: u16 = libc::NLM_F_DUMP as u16;
/// NLM_F_CREATE.
pub const CREATE: u16 = libc::NLM_F_CREATE as u16;
/// NLM_F_REPLACE.
pub const REPLACE: u16 = libc::NLM_F_REPLACE as u16;
/// NLA_F_NESTED, and with it every flag bit of an attribute's type.
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;
/// The kernel sends at most this much at once, Documentation/userspace-api/netlink/intro.rst.
const RECEIVE: usize = 32 << 10;

/// A message under construction.
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A message of this type whose fixed part is `body`.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(body);
        Self { bytes }
    }

    /// Appends an attribute.
    pub fn attr(mut self, kind: u16, payload: &[u8]) -> Self {
        self.push(kind, payload);
        self
    }

    /// Appends an attribute that consists of the attributes which `fill` appends.
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.push(kind | NESTED, &[]);
        let mut filled = fill(self);
        let len = (filled.bytes.len() - start) as u16;
        filled.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        filled
    }

    fn push(&mut self, kind: u16, payload: &[u8]) {
        let len = (4 + payload.len()) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub kind: u16,
    /// What follows the header.
    pub body: Vec<u8>,
}

impl Message {
    /// The attributes behind a fixed part of `fixed` bytes.
    pub fn attrs(&self, fixed: usize) -> Attrs<'_> {
        Attrs { rest: self.body.get(fixed..).unwrap_or_default() }
    }
}

/// Walks over attributes; ends at the first malformed one.
#[derive(Clone, Copy, Debug)]
pub struct Attrs<'a> {
    rest: &'a [u8],
}

impl<'a> Attrs<'a> {
    /// The attributes inside an attribute.
    pub fn of(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// The first attribute of this kind.
    pub fn find(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self;
        all.find_map(|(k, payload)| (k == kind).then_some(payload))
    }

    /// The first attribute of this kind as a number in host order.
    pub fn find_u32(self, kind: u16) -> Option<u32> {
        self.find(kind).and_then(|payload| Some(u32::from_ne_bytes(payload.get(..4)?.try_into().ok()?)))
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.rest, 0)?);
        let kind = u16_at(self.rest, 2)? & TYPE_MASK;
        let payload = self.rest.get(4..len)?;
        self.rest = self.rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// A netlink socket.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace. With `groups` (RTMGRP_* bits) it receives notifications and does
    /// not block; without, it waits a second for answers.
    pub fn open(protocol: Protocol, groups: u32) -> io::Result<Self> {
        let number = match protocol {
            Protocol::Route => libc::NETLINK_ROUTE,
            Protocol::Netfilter => libc::NETLINK_NETFILTER,
            Protocol::Xfrm => libc::NETLINK_XFRM,
            Protocol::Generic => libc::NETLINK_GENERIC,
        };
        let fd = sys::netlink_socket(number)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends a request and collects its answers until the kernel's acknowledgement.
    ///
    /// # Errors
    /// The errno that the kernel answers with; `EBADMSG` for an answer that does not parse.
    pub fn request(&mut self, request: Request) -> io::Result<Vec<Message>> {
        let mut bytes = request.bytes;
        let dump = u16_at(&bytes, 6).unwrap_or(0) & DUMP == DUMP;
        self.sequence = self.sequence.wrapping_add(1);
        let flags = u16_at(&bytes, 6).unwrap_or(0) | if dump { 0 } else { ACK };
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut answers = Vec::new();
        loop {
            let datagram = self.receive(MsgFlags::empty())?;
            if collect(&datagram, self.sequence, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// The notifications of one datagram. `WouldBlock` when there are none; `ENOBUFS` when some were lost.
    pub fn notifications(&self) -> io::Result<Vec<Message>> {
        let datagram = self.receive(MsgFlags::MSG_DONTWAIT)?;
        let mut out = Vec::new();
        for (_, message) in split(&datagram) {
            out.push(message);
        }
        Ok(out)
    }

    fn receive(&self, flags: MsgFlags) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; RECEIVE];
        loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, flags) {
                Ok(len) => {
                    buffer.truncate(len);
                    return Ok(buffer);
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Adds a datagram's messages to `answers`. True when the answer is complete.
fn collect(datagram: &[u8], sequence: u32, answers: &mut Vec<Message>) -> io::Result<bool> {
    for (seq, message) in split(datagram) {
        if seq != sequence {
            continue;
        }
        match i32::from(message.kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let code = message.body.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
                return match code {
                    Some(0) => Ok(true),
                    Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
                    None => Err(io::Error::from_raw_os_error(libc::EBADMSG)),
                };
            }
            _ => answers.push(message),
        }
    }
    Ok(false)
}

/// The messages of a datagram with their sequence numbers; ends at the first malformed one.
fn split(datagram: &[u8]) -> Vec<(u32, Message)> {
    let mut out = Vec::new();
    let mut rest = datagram;
    while let (Some(len), Some(kind), Some(seq)) = (u32_at(rest, 0), u16_at(rest, 4), u32_at(rest, 8)) {
        let len = len as usize;
        let Some(body) = rest.get(HEADER..len) else { break };
        out.push((seq, Message { kind, body: body.to_vec() }));
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    out
}

/// The number at this place, host order.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The number at this place, host order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_attributes_read_back() {
        let request =
            Request::new(7, 0, &[1, 2, 3, 4]).attr(3, b"abcde").nest(4, |inner| inner.attr(9, &7u32.to_ne_bytes()));
        let message = Message { kind: 7, body: request.bytes[HEADER..].to_vec() };
        assert_eq!(message.attrs(4).find(3), Some(&b"abcde"[..]));
        let inner = Attrs::of(message.attrs(4).find(4).unwrap());
        assert_eq!(inner.find_u32(9), Some(7));
        assert_eq!(inner.find_u32(8), None);
    }

    #[test]
    fn truncated_input_ends_the_walk() {
        let request = Request::new(7, 0, &[]).attr(1, &[9; 8]).attr(2, &[8; 8]);
        let whole = request.bytes[HEADER..].to_vec();
        for cut in 0..whole.len() {
            let seen = Attrs::of(&whole[..cut]).count();
            assert_eq!(seen, cut / 12, "cut at {cut}");
        }
        assert!(split(&[0; 15]).is_empty());
        assert_eq!(Attrs::of(&[1, 0, 0, 0]).count(), 0, "a length shorter than the attribute's own header");
    }
}
