//! bpf(2) calls that the library for BPF has none for: structures of operations, which a program implements for the kernel
//! (linux/bpf.h). One of the files with `unsafe`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use zerocopy::IntoBytes;

use super::btf::MAGIC;
use super::instructions::Instruction;

/// Commands.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const BTF_LOAD: libc::c_int = 18;
const LINK_CREATE: libc::c_int = 28;
/// Types of maps, of programs, of attachments.
const MAP_ARRAY: u32 = 2;
const MAP_STRUCT_OPS: u32 = 26;
const PROG_STRUCT_OPS: u32 = 27;
const ATTACH_STRUCT_OPS: u32 = 44;
/// A map flag: its element is put into use by a link.
const F_LINK: u32 = 1 << 13;
/// What a program has to be licensed under to be allowed here.
const LICENCE: &[u8] = b"Dual MIT/GPL\0";
/// As objects are called for those who list them.
const NAME: [u8; 16] = *b"underpass\0\0\0\0\0\0\0";
/// The smallest type information there is: a header, a pointer to void, an empty name.
const SMALLEST: [u32; 10] = [MAGIC_AND_VERSION, 24, 0, 12, 12, 4, 0, 2 << 24, 0, 0];
const MAGIC_AND_VERSION: u32 = {
    let [first, second] = MAGIC.to_ne_bytes();
    u32::from_ne_bytes([first, second, 1, 0])
};
/// Room for the verifier's words.
const LOG: usize = 4096;

#[repr(C)]
#[derive(Default, IntoBytes)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
    map_ifindex: u32,
    btf_fd: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
    btf_vmlinux_value_type_id: u32,
}

#[repr(C)]
#[derive(Default, IntoBytes)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default, IntoBytes)]
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
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

#[repr(C)]
#[derive(Default, IntoBytes)]
struct BtfLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    btf_log_true_size: u32,
}

#[repr(C)]
#[derive(Default, IntoBytes)]
struct LinkCreate {
    map_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// bpf(2).
///
/// # Safety
/// What `attr` points to is as the command has it: there to be read, or written, for the lengths that `attr` gives.
unsafe fn bpf<T: IntoBytes>(command: libc::c_int, mut attr: T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads the bytes of `attr`, none of which is padding, and may write there; the rest is the caller's promise.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as libc::c_int) }
}

/// As [`bpf`], for commands that answer a descriptor.
///
/// # Safety
/// That of [`bpf`], and `command` is such a one.
unsafe fn bpf_fd(command: libc::c_int, attr: impl IntoBytes) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; the descriptor is new and nobody else's.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// A map with one element.
pub struct Cell {
    map: OwnedFd,
    size: usize,
}

impl Cell {
    /// An array's, of so many bytes, zero.
    pub fn array(size: usize) -> io::Result<Self> {
        Self::create(MapCreate { map_type: MAP_ARRAY, ..MapCreate::default() }, size)
    }

    /// A structure of operations: `type_id` of the kernel's types, `size` bytes. To be put into use by a [`link`], or by being set.
    pub fn operations(type_id: u32, size: usize, linked: bool) -> io::Result<Self> {
        // The kernel wants types of ours for every map that has some, though its own are meant.
        let types = btf_load(&SMALLEST)?;
        let attr = MapCreate {
            map_type: MAP_STRUCT_OPS,
            map_flags: if linked { F_LINK } else { 0 },
            btf_fd: types.as_raw_fd() as u32,
            btf_vmlinux_value_type_id: type_id,
            ..MapCreate::default()
        };
        Self::create(attr, size)
    }

    fn create(attr: MapCreate, size: usize) -> io::Result<Self> {
        let value_size = u32::try_from(size).map_err(io::Error::other)?;
        let attr = MapCreate { key_size: 4, value_size, max_entries: 1, map_name: NAME, ..attr };
        // SAFETY: no pointers.
        let map = unsafe { bpf_fd(MAP_CREATE, attr) }?;
        Ok(Self { map, size })
    }

    /// Sets the element.
    ///
    /// # Errors
    /// `value` is not as long as it, or the kernel does not take it.
    pub fn set(&self, value: &[u8]) -> io::Result<()> {
        if value.len() != self.size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let key = 0u32;
        let attr = Element { value: value.as_ptr() as u64, ..self.element(&key) };
        // SAFETY: a key of four bytes and a value of the map's size, both only read.
        unsafe { bpf(MAP_UPDATE_ELEM, attr) }.map(drop)
    }

    /// Takes the element away: the operations are in use no longer.
    pub fn delete(&self) -> io::Result<()> {
        let key = 0u32;
        // SAFETY: a key of four bytes, only read.
        unsafe { bpf(MAP_DELETE_ELEM, self.element(&key)) }.map(drop)
    }

    fn element(&self, key: &u32) -> Element {
        Element { map_fd: self.map.as_raw_fd() as u32, key: &raw const *key as u64, ..Element::default() }
    }
}

impl AsFd for Cell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// Puts a structure of operations into use, until what is returned is closed.
pub fn link(operations: &Cell) -> io::Result<OwnedFd> {
    let map_fd = operations.map.as_raw_fd() as u32;
    let attr = LinkCreate { map_fd, attach_type: ATTACH_STRUCT_OPS, ..LinkCreate::default() };
    // SAFETY: no pointers.
    unsafe { bpf_fd(LINK_CREATE, attr) }
}

/// Loads a program for member `index` of the structure of operations `type_id` of the kernel's types.
///
/// # Errors
/// The kernel's, with the verifier's last words.
pub fn load(program: &[Instruction], type_id: u32, index: u32) -> io::Result<OwnedFd> {
    let attr = ProgLoad {
        prog_type: PROG_STRUCT_OPS,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: LICENCE.as_ptr() as u64,
        prog_name: NAME,
        attach_btf_id: type_id,
        expected_attach_type: index,
        ..ProgLoad::default()
    };
    // SAFETY: so many instructions and a string with its end, both only read.
    let refused = match unsafe { bpf_fd(PROG_LOAD, attr) } {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    let mut log = vec![0u8; LOG];
    let attr = ProgLoad { log_level: 1, log_size: LOG as u32, log_buf: log.as_mut_ptr() as u64, ..attr };
    // SAFETY: as before, and `log_size` bytes to be written.
    unsafe { bpf_fd(PROG_LOAD, attr) }
        .map_err(|_| io::Error::new(refused.kind(), format!("{refused}: {}", words(&log))))
}

/// What the verifier said before it told its figures.
fn words(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let said = text.trim_end_matches('\0').lines().rfind(|line| !line.starts_with("processed "));
    said.unwrap_or_default().to_owned()
}

fn btf_load(types: &[u32]) -> io::Result<OwnedFd> {
    let attr = BtfLoad { btf: types.as_ptr() as u64, btf_size: size_of_val(types) as u32, ..BtfLoad::default() };
    // SAFETY: so many bytes, only read.
    unsafe { bpf_fd(BTF_LOAD, attr) }
}
