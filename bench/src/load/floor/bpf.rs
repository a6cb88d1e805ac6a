//! A redirect program of fifteen instructions, loaded by bpf(2) directly. The only file of the floor with `unsafe`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::Hook;

// Commands, types and flags of bpf(2), linux/bpf.h.
const BPF_MAP_CREATE: i64 = 0;
const BPF_MAP_UPDATE_ELEM: i64 = 2;
const BPF_PROG_LOAD: i64 = 5;
const BPF_LINK_CREATE: i64 = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_PASS: i32 = 2;
const BPF_FUNC_REDIRECT_MAP: i32 = 51;
const BPF_PSEUDO_MAP_FD: u8 = 1;
const QUEUES: u32 = 64;

/// One instruction: opcode, registers (destination, source), offset, immediate (`struct bpf_insn`).
#[repr(C)]
struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Start of `union bpf_attr` for BPF_MAP_CREATE.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// For BPF_MAP_UPDATE_ELEM.
#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// For BPF_PROG_LOAD, up to the field that we need last.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// For BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The attached program and its map of sockets; detached when dropped.
pub struct Redirect {
    map: OwnedFd,
    _link: OwnedFd,
}

impl Redirect {
    /// Has frames of one EtherType redirected to the sockets that [`Self::insert`] names. EBUSY if the interface has an XDP
    /// program already.
    pub fn attach(ifindex: u32, hook: Hook, ethertype: u16) -> io::Result<Self> {
        let create =
            MapCreate { map_type: BPF_MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, max_entries: QUEUES, map_flags: 0 };
        let map = bpf_fd(BPF_MAP_CREATE, &create)?;
        let program = load(&program(map.as_raw_fd(), ethertype))?;
        let flags = match hook {
            Hook::Native => XDP_FLAGS_DRV_MODE,
            Hook::Generic => XDP_FLAGS_SKB_MODE,
        };
        let create =
            LinkCreate { prog_fd: program.as_raw_fd() as u32, target_ifindex: ifindex, attach_type: BPF_XDP, flags };
        Ok(Self { map, _link: bpf_fd(BPF_LINK_CREATE, &create)? })
    }

    /// Frames of this queue go to this bound socket from now on.
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = socket.as_raw_fd() as u32;
        let update = MapUpdate {
            map_fd: self.map.as_raw_fd() as u32,
            pad: 0,
            key: &raw const queue as u64,
            value: &raw const value as u64,
            flags: 0,
        };
        bpf(BPF_MAP_UPDATE_ELEM, &update).map(|_| ())
    }
}

/// Number of an interface of this network namespace.
pub fn interface_index(name: &CStr) -> io::Result<u32> {
    // SAFETY: `name` is NUL-terminated.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// `return ethertype matches ? bpf_redirect_map(map, ctx->rx_queue_index, XDP_PASS) : XDP_PASS`
#[rustfmt::skip]
fn program(map: i32, ethertype: u16) -> [Insn; 15] {
    let insn = |code, dst: u8, src: u8, offset, immediate| Insn { code, registers: src << 4 | dst, offset, immediate };
    let on_wire = i32::from(ethertype.to_be());
    [
        insn(0x61, 2, 1, 0, 0),                             //  0 r2 = ctx->data
        insn(0x61, 3, 1, 4, 0),                             //  1 r3 = ctx->data_end
        insn(0xbf, 4, 2, 0, 0),                             //  2 r4 = r2
        insn(0x07, 4, 0, 0, 14),                            //  3 r4 += 14
        insn(0x2d, 4, 3, 8, 0),                             //  4 if r4 > r3 goto 13
        insn(0x69, 5, 2, 12, 0),                            //  5 r5 = *(u16 *)(r2 + 12)
        insn(0x55, 5, 0, 6, on_wire),                       //  6 if r5 != ethertype goto 13
        insn(0x61, 2, 1, 16, 0),                            //  7 r2 = ctx->rx_queue_index
        insn(0x18, 1, BPF_PSEUDO_MAP_FD, 0, map),           //  8 r1 = map (two slots)
        insn(0x00, 0, 0, 0, 0),                             //  9
        insn(0xb7, 3, 0, 0, XDP_PASS),                      // 10 r3 = XDP_PASS
        insn(0x85, 0, 0, 0, BPF_FUNC_REDIRECT_MAP),         // 11 r0 = bpf_redirect_map(r1, r2, r3)
        insn(0x95, 0, 0, 0, 0),                             // 12 exit
        insn(0xb7, 0, 0, 0, XDP_PASS),                      // 13 r0 = XDP_PASS
        insn(0x95, 0, 0, 0, 0),                             // 14 exit
    ]
}

fn load(program: &[Insn]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..5].copy_from_slice(b"floor");
    let attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: name,
        prog_ifindex: 0,
        expected_attach_type: BPF_XDP,
    };
    bpf_fd(BPF_PROG_LOAD, &attributes)
}

fn bpf_fd<T>(command: i64, attributes: &T) -> io::Result<OwnedFd> {
    let raw = bpf(command, attributes)?;
    // SAFETY: the command has just returned this descriptor to us and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

/// `attributes` is the command's own part of `union bpf_attr`; pointers in it outlive the call.
fn bpf<T>(command: i64, attributes: &T) -> io::Result<i64> {
    // SAFETY: the kernel reads size_of::<T>() bytes of attributes, which is that large, and takes the rest as zero; what its pointers
    // refer to is alive in the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
