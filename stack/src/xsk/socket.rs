//! The privileged half: making an AF_XDP socket and binding it to an interface queue (CAP_NET_RAW; the XDP program that feeds
//! it is somebody else's business). Order: [`open`], [`register_umem`] (first socket of a UMEM only), [`set_rings`], [`bind`].

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::abi::XDP_MAX_TX_SKB_BUDGET;
use crate::mem::Region;

/// Entries of the four rings, each a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Empty frames for the kernel.
    pub fill: u32,
    /// Sent frames from the kernel.
    pub completion: u32,
    /// Received packets.
    pub rx: u32,
    /// Packets to send.
    pub tx: u32,
}

impl RingSizes {
    /// Are all four powers of two?
    pub fn is_valid(&self) -> bool {
        [self.fill, self.completion, self.rx, self.tx].iter().all(|size| size.is_power_of_two())
    }
}

/// How packets get between driver and UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindMode {
    /// The driver uses the UMEM itself; EOPNOTSUPP where it cannot.
    ZeroCopy,
    /// The kernel copies; works everywhere.
    Copy,
}

/// A new AF_XDP socket, close-on-exec. EPERM without CAP_NET_RAW.
pub fn open() -> io::Result<OwnedFd> {
    // SAFETY: plain system call.
    let raw = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just returned to us and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Makes the whole of `region` the socket's packet memory, in frames of `frame_size` bytes (a power of two, 2048 to the page size), of which
/// the kernel leaves `headroom` free before each packet. ENOBUFS if RLIMIT_MEMLOCK is too small.
pub fn register_umem(fd: BorrowedFd<'_>, region: &Region, frame_size: u32, headroom: u32) -> io::Result<()> {
    let registration = libc::xdp_umem_reg {
        addr: region.base() as u64,
        len: region.len() as u64,
        chunk_size: frame_size,
        headroom,
        flags: 0,
        tx_metadata_len: 0,
    };
    set_option(fd, libc::XDP_UMEM_REG, &registration)
}

/// Makes the four rings. EINVAL unless all sizes are powers of two.
pub fn set_rings(fd: BorrowedFd<'_>, sizes: RingSizes) -> io::Result<()> {
    if !sizes.is_valid() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    set_option(fd, libc::XDP_UMEM_FILL_RING, &sizes.fill)?;
    set_option(fd, libc::XDP_UMEM_COMPLETION_RING, &sizes.completion)?;
    set_option(fd, libc::XDP_RX_RING, &sizes.rx)?;
    set_option(fd, libc::XDP_TX_RING, &sizes.tx)?;
    // Older kernels do not know this one and send 32 packets a call.
    let _ = set_option(fd, XDP_MAX_TX_SKB_BUDGET, &sizes.tx.max(32));
    Ok(())
}

/// Binds to one queue of an interface of the caller's network namespace. `need_wakeup`: the kernel says in the rings when it wants
/// a system call (XDP_USE_NEED_WAKEUP).
///
/// With `shared_with`, an already bound socket whose UMEM this socket uses too (XDP_SHARED_UMEM, with fill and completion rings
/// of its own since Linux 5.10): the kernel takes `mode` and `need_wakeup` over from there.
///
/// EBUSY if the queue has an AF_XDP socket already, EOPNOTSUPP if the driver has no zero-copy, ENETDOWN if the interface is down.
pub fn bind(
    fd: BorrowedFd<'_>,
    ifindex: u32,
    queue: u32,
    mode: BindMode,
    need_wakeup: bool,
    shared_with: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let own_flags = match mode {
        BindMode::ZeroCopy => libc::XDP_ZEROCOPY,
        BindMode::Copy => libc::XDP_COPY,
    } | if need_wakeup { libc::XDP_USE_NEED_WAKEUP } else { 0 };
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: if shared_with.is_some() { libc::XDP_SHARED_UMEM } else { own_flags },
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared_with.map_or(0, |other| other.as_raw_fd() as u32),
    };
    // SAFETY: `address` is a valid sockaddr_xdp of the given size.
    let result = unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_xdp>() as libc::socklen_t)
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Was zero-copy granted (XDP_OPTIONS)?
pub fn is_zero_copy(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut options = libc::xdp_options { flags: 0 };
    get_option(fd, libc::XDP_OPTIONS, &mut options)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// What the kernel has counted on this socket (XDP_STATISTICS).
pub fn statistics(fd: BorrowedFd<'_>) -> io::Result<libc::xdp_statistics> {
    let mut counted = libc::xdp_statistics {
        rx_dropped: 0,
        rx_invalid_descs: 0,
        tx_invalid_descs: 0,
        rx_ring_full: 0,
        rx_fill_ring_empty_descs: 0,
        tx_ring_empty_descs: 0,
    };
    get_option(fd, libc::XDP_STATISTICS, &mut counted)?;
    Ok(counted)
}

/// `value` is one of the option's own plain C structures.
fn set_option<T>(fd: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads size_of::<T>() bytes of `value`, which is that large.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `value` is one of the option's own plain C structures, of integers only.
pub(super) fn get_option<T>(fd: BorrowedFd<'_>, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes of integers into `value`.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, std::ptr::from_mut(value).cast(), &raw mut len)
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
