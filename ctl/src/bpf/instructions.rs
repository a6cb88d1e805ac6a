//! The programs of our congestion control, as instructions (Linux Documentation/bpf/standardization/instruction-set.rst): a dozen, with
//! offsets that only the running kernel knows.

use std::os::fd::{AsRawFd, BorrowedFd};

use zerocopy::{Immutable, IntoBytes};

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
pub struct Instruction {
    code: u8,
    /// Destination and source, four bits each: as a compiler for the machine lays out bit-fields.
    registers: u8,
    offset: i16,
    value: i32,
}

/// Where things are in `struct tcp_sock`, bytes. Its first member is, by way of others, `struct sock_common`.
#[derive(Clone, Copy, Debug)]
pub struct Offsets {
    /// `skc_cookie`.
    pub cookie: i16,
    /// `snd_cwnd`.
    pub cwnd: i16,
    /// `snd_ssthresh`.
    pub ssthresh: i16,
}

/// The one element of the map that `init` looks at.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
pub struct Wanted {
    /// Whose (SO_COOKIE).
    pub cookie: u64,
    /// Congestion window, segments.
    pub cwnd: u32,
    /// Slow start threshold, segments.
    pub ssthresh: u32,
}

/// Registers: the result; arguments, the first of which is an array of the operation's own at first.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    Instruction { code, registers, offset, value }
}

/// `to = *(u64 *)(from + offset)`.
const fn load(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x79, to, from, offset, 0)
}

/// `to = *(u32 *)(from + offset)`.
const fn load_word(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x61, to, from, offset, 0)
}

/// `*(u32 *)(to + offset) = from`.
const fn store_word(to: u8, offset: i16, from: u8) -> Instruction {
    instruction(0x63, to, from, offset, 0)
}

/// `to = value`.
const fn set(to: u8, value: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, value)
}

/// `to >>= bits`.
const fn shift_right(to: u8, bits: i32) -> Instruction {
    instruction(0x77, to, 0, 0, bits)
}

/// Passes over so many instructions if the registers differ.
const fn skip_unless_equal(one: u8, other: u8, count: i16) -> Instruction {
    instruction(0x5d, one, other, count, 0)
}

/// Passes over so many instructions if the register is not less than the number.
const fn skip_from(one: u8, least: i32, count: i16) -> Instruction {
    instruction(0x35, one, 0, count, least)
}

/// `to` = the address of the map's first element (BPF_PSEUDO_MAP_VALUE), in two instructions.
fn element(to: u8, map: BorrowedFd<'_>) -> [Instruction; 2] {
    const PSEUDO_MAP_VALUE: u8 = 2;
    [instruction(0x18, to, PSEUDO_MAP_VALUE, 0, map.as_raw_fd()), instruction(0, 0, 0, 0, 0)]
}

const EXIT: Instruction = instruction(0x95, 0, 0, 0, 0);

/// `void init(struct sock *)`: the socket that is wanted gets what is wanted, no other gets anything.
pub fn init(offsets: Offsets, wanted: BorrowedFd<'_>) -> Vec<Instruction> {
    let [low, high] = element(R2, wanted);
    vec![
        load(R1, R1, 0),
        low,
        high,
        load(R3, R1, offsets.cookie),
        load(R4, R2, std::mem::offset_of!(Wanted, cookie) as i16),
        skip_unless_equal(R3, R4, 4),
        load_word(R3, R2, std::mem::offset_of!(Wanted, cwnd) as i16),
        store_word(R1, offsets.cwnd, R3),
        load_word(R3, R2, std::mem::offset_of!(Wanted, ssthresh) as i16),
        store_word(R1, offsets.ssthresh, R3),
        set(R0, 0),
        EXIT,
    ]
}

/// `u32 ssthresh(struct sock *)`: half of the window, two segments at least (RFC 5681).
pub fn ssthresh(offsets: Offsets) -> Vec<Instruction> {
    vec![load(R1, R1, 0), load_word(R0, R1, offsets.cwnd), shift_right(R0, 1), skip_from(R0, 2, 1), set(R0, 2), EXIT]
}

/// `u32 undo_cwnd(struct sock *)`: the window as it is.
pub fn undo_cwnd(offsets: Offsets) -> Vec<Instruction> {
    vec![load(R1, R1, 0), load_word(R0, R1, offsets.cwnd), EXIT]
}

/// `void cong_avoid(struct sock *, u32 ack, u32 acked)`: nothing. No socket has this algorithm for longer than two system calls.
pub fn cong_avoid() -> Vec<Instruction> {
    vec![set(R0, 0), EXIT]
}
