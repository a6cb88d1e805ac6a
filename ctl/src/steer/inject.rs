//! Puts frames into the kernel's receive path as if they had just come in from an interface: `bpf/inject.bpf.c`, run by
//! BPF_PROG_TEST_RUN (Linux Documentation/bpf/bpf_prog_run.rst). One of the files with `unsafe`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::{Array, MapData, MapError};
use aya::programs::{ProgramError, ProgramFd, SchedClassifier};

use super::program::missing;
use crate::bpf::Error;

/// The compiled `bpf/inject.bpf.c`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/inject.bpf.o"));

const PROGRAM: &str = "underpass_inject";
/// bpf(2) command.
const BPF_PROG_TEST_RUN: libc::c_int = 10;
/// Frames in one system call at most.
const BATCH: usize = 64;
/// An Ethernet header: the kernel takes nothing shorter.
const MIN_FRAME: usize = 14;
/// Longer than any frame in a UMEM that carries a connection.
pub const MAX_FRAME: usize = 3300;

/// The `test` member of `union bpf_attr` of linux/bpf.h.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// `struct slot` of `bpf/inject.bpf.c`: a length, then the frame.
type Slot = [u8; 4 + MAX_FRAME];
/// `struct progress` there: the interface, how many frames it has received, and which is next.
type Progress = [u32; 3];

/// A program that sends a batch of frames into an interface, never attached to any.
pub struct Injector {
    program: ProgramFd,
    frames: Array<MapData, Slot>,
    progress: Array<MapData, Progress>,
}

impl Injector {
    /// Loads the program.
    pub fn load() -> Result<Self, Error> {
        let mut object = aya::Ebpf::load(OBJECT).map_err(Error::of("loading the injection object"))?;
        let program = object.program_mut(PROGRAM).ok_or_else(|| missing(PROGRAM))?;
        let program: &mut SchedClassifier = program.try_into().map_err(Error::of::<ProgramError>(PROGRAM))?;
        program.load().map_err(Error::of("verifying the injection program"))?;
        let program = program.fd().and_then(|fd| fd.try_clone().map_err(Into::into)).map_err(Error::of(PROGRAM))?;
        let mut take = |name: &'static str| object.take_map(name).ok_or_else(|| missing(name));
        Ok(Self {
            program,
            frames: take("frames")?.try_into().map_err(Error::of::<MapError>("map frames"))?,
            progress: take("progress")?.try_into().map_err(Error::of::<MapError>("map progress"))?,
        })
    }

    /// The kernel receives `frames` (complete checksums, no VLAN offload) in their order on interface `ifindex` of the namespace that
    /// the calling thread is in; returns how many of them. One that is no frame or does not fit (see [`MAX_FRAME`]) is left out. A
    /// generic-mode XDP program of the interface sees the frames once more, so their flows must not be redirected any longer.
    ///
    /// # Errors
    /// What bpf(2) said last, if none was received for it.
    pub fn inject(&mut self, frames: &[Vec<u8>], ifindex: u32) -> io::Result<usize> {
        let fit: Vec<&[u8]> = frames.iter().map(Vec::as_slice).filter(|frame| fits(frame)).collect();
        let (mut passed, mut failed) = (0, None);
        for batch in fit.chunks(BATCH) {
            match self.inject_batch(batch, ifindex) {
                Ok(more) => passed += more,
                // The next may fare better.
                Err(error) => failed = Some(error),
            }
        }
        failed.filter(|_| passed == 0).map_or(Ok(passed), Err)
    }

    fn inject_batch(&mut self, batch: &[&[u8]], ifindex: u32) -> io::Result<usize> {
        let mut slot: Slot = [0; 4 + MAX_FRAME];
        for (at, frame) in batch.iter().enumerate() {
            slot[..4].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
            slot[4..4 + frame.len()].copy_from_slice(frame);
            self.frames.set(at as u32, slot, 0).map_err(io::Error::other)?;
        }
        self.progress.set(0, [ifindex, 0, 0], 0).map_err(io::Error::other)?;
        // What the program begins with does not matter, but its length: the socket buffer is as large, and says so, when it reaches TCP,
        // which infers from that how much window a byte of memory is worth.
        test_run(self.program.as_fd(), &[0; MAX_FRAME], batch.len() as u32)?;
        let [_, passed, _] = self.progress.get(&0, 0).map_err(io::Error::other)?;
        Ok(passed as usize)
    }
}

fn fits(frame: &[u8]) -> bool {
    (MIN_FRAME..=MAX_FRAME).contains(&frame.len())
}

/// Runs a program `repeat` times on a frame, which is on the loopback interface of the calling thread's namespace.
pub(super) fn test_run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<()> {
    let mut attr = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        ..TestRun::default()
    };
    // SAFETY: `attr` is laid out as the kernel's union member and outlives the call, as does `frame`, of
    // which the kernel reads exactly the length given; it writes back only the verdict and duration members
    // of `attr` (no output buffers are named).
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attr, size_of::<TestRun>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
    };
    use nix::sys::time::{TimeVal, TimeValLike};

    use super::*;

    const LOOPBACK: u32 = 1;
    /// "Local Experimental Ethertype 1" (IEEE 802): nobody else's.
    const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

    /// A frame of `len` bytes that carries its number wherever there is room.
    fn frame(number: u16, len: usize) -> Vec<u8> {
        let header = [[2; 12].as_slice(), &EXPERIMENTAL].concat();
        header.into_iter().chain(number.to_be_bytes().into_iter().cycle()).take(len).collect()
    }

    #[test]
    fn more_than_a_batch_arrives_whole_and_in_order() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let heard = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
        setsockopt(&heard, sockopt::ReceiveTimeout, &TimeVal::seconds(5)).unwrap();
        setsockopt(&heard, sockopt::RcvBufForce, &(4 << 20)).unwrap();
        // Longer and shorter in turns: nothing of the one before may be left.
        let sent: Vec<Vec<u8>> = (0..150).map(|n| frame(n, [16, MAX_FRAME, 60, 1514][n as usize % 4])).collect();
        let mut given = sent.clone();
        given.insert(70, frame(999, MAX_FRAME + 1));
        given.insert(10, frame(999, MIN_FRAME - 1));
        assert_eq!(Injector::load().unwrap().inject(&given, LOOPBACK).unwrap(), sent.len());
        let mut room = [0; 2 * MAX_FRAME];
        let mut seen = Vec::new();
        while seen.len() < sent.len() {
            let len = recv(heard.as_raw_fd(), &mut room, MsgFlags::empty())
                .unwrap_or_else(|error| panic!("{error} after {} frames", seen.len()));
            if room[12..14] == EXPERIMENTAL {
                seen.push(room[..len].to_vec());
            }
        }
        assert!(seen == sent, "{:?}", seen.iter().zip(&sent).position(|(seen, sent)| seen != sent));
    }
}
