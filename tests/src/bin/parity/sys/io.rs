//! Bytes in and out.

use std::os::fd::RawFd;

use libc::{c_int, c_void, iovec, msghdr};

use super::outcome;

/// recv(2).
pub fn recv(fd: RawFd, buf: &mut [u8], flags: c_int) -> i64 {
    // SAFETY: the pointer and length are those of a slice that we hold exclusively.
    outcome(unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), flags) } as i64)
}

/// recv(2) without a buffer, as MSG_TRUNC allows (tcp(7)).
pub fn recv_nowhere(fd: RawFd, len: usize, flags: c_int) -> i64 {
    // SAFETY: with MSG_TRUNC the kernel writes nothing; without, it refuses the address.
    outcome(unsafe { libc::recv(fd, std::ptr::null_mut(), len, flags) } as i64)
}

/// send(2).
pub fn send(fd: RawFd, buf: &[u8], flags: c_int) -> i64 {
    // SAFETY: the pointer and length are those of a slice.
    outcome(unsafe { libc::send(fd, buf.as_ptr().cast(), buf.len(), flags) } as i64)
}

/// read(2).
pub fn read(fd: RawFd, buf: &mut [u8]) -> i64 {
    // SAFETY: as in `recv`.
    outcome(unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) } as i64)
}

/// write(2).
pub fn write(fd: RawFd, buf: &[u8]) -> i64 {
    // SAFETY: as in `send`.
    outcome(unsafe { libc::write(fd, buf.as_ptr().cast(), buf.len()) } as i64)
}

/// pread(2) of one byte from the start.
pub fn pread(fd: RawFd) -> i64 {
    let mut byte = 0u8;
    // SAFETY: one byte of ours.
    outcome(unsafe { libc::pread(fd, (&raw mut byte).cast(), 1, 0) } as i64)
}

/// pwrite(2) of one byte to the start.
pub fn pwrite(fd: RawFd) -> i64 {
    let byte = 0u8;
    // SAFETY: one byte of ours.
    outcome(unsafe { libc::pwrite(fd, (&raw const byte).cast(), 1, 0) } as i64)
}

/// lseek(2) to the start.
pub fn lseek(fd: RawFd) -> i64 {
    // SAFETY: no memory involved.
    outcome(unsafe { libc::lseek(fd, 0, libc::SEEK_SET) })
}

fn vectors(bufs: &mut [Vec<u8>]) -> Vec<iovec> {
    bufs.iter_mut().map(|buf| iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() }).collect()
}

/// readv(2) into buffers of these sizes; the count given to the kernel may lie.
pub fn readv(fd: RawFd, sizes: &[usize], count: Option<c_int>) -> (i64, Vec<u8>) {
    let mut bufs: Vec<Vec<u8>> = sizes.iter().map(|&size| vec![0; size]).collect();
    let iov = vectors(&mut bufs);
    // SAFETY: a count larger than the table is used only where the kernel refuses it unread (above IOV_MAX, or negative).
    let got = outcome(unsafe { libc::readv(fd, iov.as_ptr(), count.unwrap_or(iov.len() as c_int)) } as i64);
    (got, bufs.concat())
}

/// writev(2).
pub fn writev(fd: RawFd, parts: &[&[u8]], count: Option<c_int>) -> i64 {
    let mut bufs: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    let iov = vectors(&mut bufs);
    // SAFETY: as in `readv`.
    outcome(unsafe { libc::writev(fd, iov.as_ptr(), count.unwrap_or(iov.len() as c_int)) } as i64)
}

/// What recvmsg(2) said.
pub struct Message {
    /// Its result.
    pub got: i64,
    /// All buffers.
    pub bytes: Vec<u8>,
    /// `msg_flags`.
    pub flags: c_int,
    /// `msg_namelen`.
    pub name_len: u32,
    /// `msg_controllen`.
    pub control_len: usize,
    /// Level, type and bytes of each piece of ancillary data.
    pub told: Vec<(c_int, c_int, Vec<u8>)>,
}

fn header(iov: &mut [iovec], name: &mut [u8], control: &mut [u8]) -> msghdr {
    // SAFETY: msghdr is plain data, zero is valid.
    let mut header: msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = iov.as_mut_ptr();
    header.msg_iovlen = iov.len();
    if !name.is_empty() {
        header.msg_name = name.as_mut_ptr().cast::<c_void>();
        header.msg_namelen = name.len() as u32;
    }
    if !control.is_empty() {
        header.msg_control = control.as_mut_ptr().cast::<c_void>();
        header.msg_controllen = control.len();
    }
    header
}

/// recvmsg(2), with room for a name and control data.
pub fn recvmsg(fd: RawFd, sizes: &[usize], flags: c_int) -> Message {
    let mut bufs: Vec<Vec<u8>> = sizes.iter().map(|&size| vec![0; size]).collect();
    let mut iov = vectors(&mut bufs);
    let (mut name, mut control) = ([0; 128], [0; 256]);
    let mut header = header(&mut iov, &mut name, &mut control);
    // SAFETY: the header describes memory of ours.
    let got = outcome(unsafe { libc::recvmsg(fd, &raw mut header, flags) } as i64);
    let (flags, name_len, control_len) = (header.msg_flags, header.msg_namelen, header.msg_controllen);
    Message { got, bytes: bufs.concat(), flags, name_len, control_len, told: told(&control, control_len) }
}

/// The pieces in a control buffer (cmsg(3)).
fn told(control: &[u8], len: usize) -> Vec<(c_int, c_int, Vec<u8>)> {
    let mut rest = &control[..len.min(control.len())];
    let mut pieces = Vec::new();
    // `struct cmsghdr`: a length that counts the header too, then level and type.
    while let Some((head, _)) = rest.split_at_checked(16) {
        let (len, name) = head.split_at(8);
        let len = usize::from_ne_bytes(len.try_into().unwrap());
        let [level, kind] = [&name[..4], &name[4..]].map(|word| c_int::from_ne_bytes(word.try_into().unwrap()));
        let Some(body) = rest.get(16..len) else { break };
        pieces.push((level, kind, body.to_vec()));
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    pieces
}

/// sendmsg(2); with a destination address if wanted.
pub fn sendmsg(fd: RawFd, parts: &[&[u8]], flags: c_int, with_name: bool) -> i64 {
    let mut bufs: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    let mut iov = vectors(&mut bufs);
    let mut name = if with_name { elsewhere().to_vec() } else { Vec::new() };
    let header = header(&mut iov, &mut name, &mut []);
    // SAFETY: the header describes memory of ours.
    outcome(unsafe { libc::sendmsg(fd, &raw const header, flags) } as i64)
}

/// sendto(2) to an address that the connection does not have.
pub fn sendto(fd: RawFd, buf: &[u8], flags: c_int) -> i64 {
    let name = elsewhere();
    let (at, len) = (buf.as_ptr().cast(), buf.len());
    // SAFETY: two slices of ours.
    outcome(unsafe { libc::sendto(fd, at, len, flags, name.as_ptr().cast(), name.len() as u32) } as i64)
}

/// recvfrom(2); also the address length that came back.
pub fn recvfrom(fd: RawFd, buf: &mut [u8], flags: c_int) -> (i64, u32) {
    let mut name = [0u8; 128];
    let mut len = name.len() as u32;
    let (at, size) = (buf.as_mut_ptr().cast(), buf.len());
    // SAFETY: a slice, an address buffer and its length, all ours.
    let got = unsafe { libc::recvfrom(fd, at, size, flags, name.as_mut_ptr().cast(), &raw mut len) };
    (outcome(got as i64), len)
}

/// A sockaddr_in of 127.0.0.1:9.
fn elsewhere() -> [u8; 16] {
    let mut name = [0; 16];
    name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    name[2..8].copy_from_slice(&[0, 9, 127, 0, 0, 1]);
    name
}

/// sendmmsg(2) of two messages; the result and what each sent.
pub fn sendmmsg(fd: RawFd, parts: [&[u8]; 2]) -> (i64, [u32; 2]) {
    let mut bufs = parts.map(|part| vec![part.to_vec()]);
    let mut iovs = [vectors(&mut bufs[0]), vectors(&mut bufs[1])];
    let [first, second] = &mut iovs;
    let mut messages = [first, second].map(|iov| libc::mmsghdr { msg_hdr: header(iov, &mut [], &mut []), msg_len: 0 });
    // SAFETY: two headers that describe memory of ours.
    let sent = outcome(unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), 2, 0) });
    (sent, messages.map(|message| message.msg_len))
}

/// recvmmsg(2) into two buffers; the result and what each got.
pub fn recvmmsg(fd: RawFd, sizes: [usize; 2], flags: c_int) -> (i64, [u32; 2], Vec<u8>) {
    let mut bufs = sizes.map(|size| vec![vec![0; size]]);
    let mut iovs = [vectors(&mut bufs[0]), vectors(&mut bufs[1])];
    let [first, second] = &mut iovs;
    let mut messages = [first, second].map(|iov| libc::mmsghdr { msg_hdr: header(iov, &mut [], &mut []), msg_len: 0 });
    // SAFETY: two headers that describe memory of ours; no timeout.
    let got = unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), 2, flags as _, std::ptr::null_mut()) };
    (outcome(got), messages.map(|message| message.msg_len), bufs.concat().concat())
}

/// sendfile(2) from the file's start.
pub fn sendfile(to: RawFd, from: RawFd, len: usize) -> i64 {
    let mut offset = 0;
    // SAFETY: an offset of ours.
    outcome(unsafe { libc::sendfile(to, from, &raw mut offset, len) } as i64)
}

/// splice(2).
pub fn splice(from: RawFd, to: RawFd, len: usize, flags: u32) -> i64 {
    // SAFETY: no offsets.
    outcome(unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), len, flags) } as i64)
}
