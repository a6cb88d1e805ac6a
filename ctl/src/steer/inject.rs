//! Puts frames into the kernel's receive path: BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES
//! (Linux Documentation/bpf/bpf_prog_run.rst), as if they had just come in from the interface.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::programs::ProgramFd;

use super::OBJECT;
use super::program::load_program;
use crate::bpf::Error;

const PROGRAM: &str = "underpass_pass";
/// bpf(2) command.
const BPF_PROG_TEST_RUN: libc::c_int = 10;
/// Frames are really processed, not only the verdict returned.
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
/// An Ethernet header: the kernel takes nothing shorter.
const MIN_FRAME: usize = 14;
/// A frame lies in one page beside 256 bytes of headroom and the kernel's own records; a little less than what fits.
pub const MAX_FRAME: usize = 3300;

/// `struct xdp_md` of linux/bpf.h.
#[repr(C)]
#[derive(Default)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

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

/// A program that passes everything, never attached to an interface.
pub struct Injector {
    program: ProgramFd,
}

impl Injector {
    /// Loads the program.
    pub fn load() -> Result<Self, Error> {
        let mut object = aya::Ebpf::load(OBJECT).map_err(Error::of("loading the XDP object"))?;
        Ok(Self { program: load_program(&mut object, PROGRAM)? })
    }

    /// The kernel receives `frame` (complete checksums, no VLAN offload) on interface `ifindex` of the namespace that the calling thread is
    /// in. A generic-mode XDP program of the interface sees the frame once more, so its flow must not be redirected
    /// any longer.
    ///
    /// # Errors
    /// `EMSGSIZE` for a frame that does not fit (see [`MAX_FRAME`]), else what bpf(2) says.
    pub fn inject(&self, frame: &[u8], ifindex: u32) -> io::Result<()> {
        if !(MIN_FRAME..=MAX_FRAME).contains(&frame.len()) {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        test_run(self.program.as_fd(), frame, ifindex, true)
    }
}

/// Runs an XDP program on a frame, and with `live` has the kernel carry its verdict out.
pub(super) fn test_run(program: BorrowedFd<'_>, frame: &[u8], ifindex: u32, live: bool) -> io::Result<()> {
    let len = frame.len() as u32;
    let context = XdpMd { data_end: len, ingress_ifindex: ifindex, ..XdpMd::default() };
    let mut attr = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: len,
        data_in: frame.as_ptr() as u64,
        repeat: 1,
        ctx_size_in: size_of::<XdpMd>() as u32,
        ctx_in: (&raw const context) as u64,
        flags: if live { BPF_F_TEST_XDP_LIVE_FRAMES } else { 0 },
        batch_size: u32::from(live),
        ..TestRun::default()
    };
    // SAFETY: `attr` is laid out as the kernel's union member and outlives the call, as do `frame` and `context`, of
    // which the kernel reads exactly the lengths given; it writes back only the verdict and duration members
    // of `attr` (no output buffers are named).
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attr, size_of::<TestRun>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
