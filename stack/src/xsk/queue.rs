//! The rings of one finished AF_XDP socket, for whoever holds its descriptor. Needs no privilege.
//!
//! Pushes and pops work on private cursors; `*_flush` and `rx_release` publish them, once a batch. Addresses that come out of
//! the rings are claims: check them with [`super::umem::FramePool`] before use.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::abi::{Desc, RingOffsets};
use super::mapping::Mapping;
use super::ring::{ConsumerCursor, ProducerCursor};
use super::socket::{RingSizes, get_option};
use crate::mem::{Plain, Region};

/// The four rings of an AF_XDP socket. The socket closes when this is dropped and no other process holds it.
#[derive(Debug)]
pub struct Queue {
    fd: OwnedFd,
    fill: Producing<u64>,
    tx: Producing<Desc>,
    rx: Consuming<Desc>,
    completion: Consuming<u64>,
    /// Packets that waited at the last [`Self::rx_look`].
    seen: u32,
}

#[derive(Debug)]
pub(super) struct Producing<T> {
    cursor: ProducerCursor,
    ring: Mapping<T>,
}

#[derive(Debug)]
pub(super) struct Consuming<T> {
    cursor: ConsumerCursor,
    ring: Mapping<T>,
}

impl Queue {
    /// Maps the rings of a socket whose rings were made with these sizes, and goes on where their cursors stand: one process
    /// may take over from another. At most one side of each ring may be used by one process at a time.
    pub fn map(fd: OwnedFd, sizes: RingSizes) -> io::Result<Self> {
        if !sizes.is_valid() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let offsets = mmap_offsets(fd.as_fd())?;
        let fill = map_ring(fd.as_fd(), offsets.fr, libc::XDP_UMEM_PGOFF_FILL_RING, sizes.fill)?;
        let completion = map_ring(fd.as_fd(), offsets.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING, sizes.completion)?;
        let rx = map_ring(fd.as_fd(), offsets.rx, libc::XDP_PGOFF_RX_RING as u64, sizes.rx)?;
        let tx = map_ring(fd.as_fd(), offsets.tx, libc::XDP_PGOFF_TX_RING as u64, sizes.tx)?;
        Ok(Self::over(fd, fill, tx, rx, completion))
    }

    /// Over rings that are mapped already.
    pub(super) fn over(
        fd: OwnedFd,
        fill: Mapping<u64>,
        tx: Mapping<Desc>,
        rx: Mapping<Desc>,
        completion: Mapping<u64>,
    ) -> Self {
        Self {
            fd,
            fill: Producing::new(fill),
            tx: Producing::new(tx),
            rx: Consuming::new(rx),
            completion: Consuming::new(completion),
            seen: 0,
        }
    }

    /// The socket, for poll(2) and friends.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The next received packet. Its frame is ours from now on; its ring entry is the kernel's again after [`Self::rx_release`].
    #[inline]
    pub fn rx_pop(&mut self) -> Option<Desc> {
        self.rx.pop()
    }

    /// Remembers how many received packets wait now. Are there any?
    #[inline]
    pub fn rx_look(&mut self) -> bool {
        self.seen = self.rx_available();
        self.seen != 0
    }

    /// How many of the packets that waited at the last [`Self::rx_look`] were not asked for since, `most` at most. They have to be popped
    /// next, with [`Self::rx_pop_known`].
    #[inline]
    pub fn rx_take_seen(&mut self, most: u32) -> u32 {
        let count = self.seen.min(most);
        self.seen -= count;
        count
    }

    /// The next of the packets that [`Self::rx_take_seen`] has announced, as [`Self::rx_pop`] gives it.
    #[inline]
    pub fn rx_pop_known(&mut self) -> Desc {
        self.rx.ring.read(self.rx.cursor.take_known())
    }

    /// Takes the same packet, after [`Self::rx_peek_known`].
    #[inline]
    pub fn rx_skip_known(&mut self) {
        self.rx.cursor.take_known();
    }

    /// The same packet, which stays the next one.
    #[inline]
    pub fn rx_peek_known(&self) -> Desc {
        self.rx.ring.read(self.rx.cursor.peek_known())
    }

    /// Received packets that wait.
    #[inline]
    pub fn rx_available(&mut self) -> u32 {
        self.rx.cursor.available(self.rx.ring.producer())
    }

    /// Does a received packet wait? One load: for those who look again and again.
    #[inline]
    pub fn rx_waits(&self) -> bool {
        self.rx.cursor.is_behind(self.rx.ring.producer())
    }

    /// Gives the entries popped so far back to the kernel.
    #[inline]
    pub fn rx_release(&mut self) {
        self.rx.release();
    }

    /// Offers an empty frame for receiving. False if the ring is full.
    #[inline]
    pub fn fill_push(&mut self, addr: u64) -> bool {
        self.fill.push(addr)
    }

    /// Entries free in the fill ring.
    #[inline]
    pub fn fill_room(&mut self) -> u32 {
        self.fill.cursor.room(self.fill.ring.consumer())
    }

    /// Shows the frames pushed so far to the kernel, and wakes a driver that has run dry and waits for that (zero-copy ones do).
    #[inline]
    pub fn fill_flush(&mut self) {
        self.fill.flush();
        if self.rx_needs_kick() {
            self.kick_rx();
        }
    }

    /// Does the driver wait for [`Self::kick_rx`] before it takes frames from the fill ring?
    #[inline]
    fn rx_needs_kick(&self) -> bool {
        self.fill.ring.needs_wakeup()
    }

    /// Queues a packet for sending. False if the ring is full.
    #[inline]
    pub fn tx_push(&mut self, packet: Desc) -> bool {
        self.tx.push(packet)
    }

    /// The same where [`Self::tx_has_room`] has just said that there is room.
    #[inline]
    pub fn tx_push_known(&mut self, packet: Desc) {
        self.tx.ring.write(self.tx.cursor.reserve_known(), packet);
    }

    /// Shows the packets pushed so far to the kernel. Follow with [`Self::kick_tx`] if [`Self::tx_needs_kick`].
    #[inline]
    pub fn tx_flush(&mut self) {
        self.tx.flush();
    }

    /// Entries free in the TX ring.
    #[inline]
    pub fn tx_room(&mut self) -> u32 {
        self.tx.cursor.room(self.tx.ring.consumer())
    }

    /// Is there room in the TX ring, as far as is known without asking the kernel?
    #[inline]
    pub fn tx_has_room(&self) -> bool {
        self.tx.cursor.has_room()
    }

    /// Packets that the kernel has taken off the TX ring, as far as is known so, modulo 2^32.
    #[inline]
    pub fn tx_taken(&self) -> u32 {
        self.tx.cursor.taken()
    }

    /// How much, as far as is known so?
    #[inline]
    pub fn tx_room_known(&self) -> u32 {
        self.tx.cursor.room_known()
    }

    /// Packets that the kernel has not yet taken off the TX ring.
    #[inline]
    pub fn tx_pending(&mut self) -> u32 {
        self.tx.cursor.outstanding(self.tx.ring.consumer())
    }

    /// Are there any?
    #[inline]
    pub fn tx_is_pending(&mut self) -> bool {
        self.tx.cursor.is_ahead(self.tx.ring.consumer())
    }

    /// Does the kernel want a [`Self::kick_tx`] before it looks at the TX ring? Always so in copy mode.
    #[inline]
    pub fn tx_needs_kick(&self) -> bool {
        self.tx.ring.needs_wakeup()
    }

    /// Has the kernel send what the TX ring holds. It may stop early for want of room in the completion ring or the device: not an
    /// error, [`Self::tx_pending`] tells; kick again after popping completions. ENETDOWN: the interface is down.
    pub fn kick_tx(&mut self) -> io::Result<()> {
        loop {
            let before = self.tx_pending();
            let error = match wake_tx(self.fd.as_fd()) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error.raw_os_error() {
                // The budget of one call is used up: go on while packets leave.
                Some(libc::EAGAIN) if (1..before).contains(&self.tx_pending()) => {}
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS) => return Ok(()),
                _ => return Err(error),
            }
        }
    }

    /// Has the driver look at the fill ring. What could fail, an interface that is down, fails the sender as well, and is told there.
    #[cold]
    fn kick_rx(&mut self) {
        // SAFETY: a receive of zero bytes touches no memory.
        unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            );
        }
    }

    /// Frames that the kernel has sent and that were not taken back.
    #[inline]
    pub fn completions(&mut self) -> u32 {
        self.completion.cursor.available(self.completion.ring.producer())
    }

    /// Sent frames that were taken back so far, modulo 2^32.
    #[inline]
    pub fn completed(&self) -> u32 {
        self.completion.cursor.peek_known()
    }

    /// The address of a frame that the kernel has sent. Its frame and its ring entry are free again.
    #[inline]
    pub fn completion_pop(&mut self) -> Option<u64> {
        let addr = self.completion_take()?;
        self.completion_release();
        Some(addr)
    }

    /// The same, but the ring entry is the kernel's again only after [`Self::completion_release`].
    #[inline]
    fn completion_take(&mut self) -> Option<u64> {
        self.completion.pop()
    }

    /// The same where [`Self::completions`] has just said that there is one.
    #[inline]
    pub fn completion_take_known(&mut self) -> u64 {
        self.completion.ring.read(self.completion.cursor.take_known())
    }

    /// Gives the entries taken so far back to the kernel.
    #[inline]
    pub fn completion_release(&mut self) {
        self.completion.release();
    }
}

impl<T> Producing<T> {
    pub(super) fn ring(&self) -> &Mapping<T> {
        &self.ring
    }
}

impl<T> Consuming<T> {
    pub(super) fn ring(&self) -> &Mapping<T> {
        &self.ring
    }
}

impl<T: Plain> Producing<T> {
    pub(super) fn new(ring: Mapping<T>) -> Self {
        Self { cursor: ProducerCursor::resume(ring.producer(), ring.consumer(), ring.size()), ring }
    }

    #[inline]
    pub(super) fn push(&mut self, entry: T) -> bool {
        // The usual way first, without another mask: the mapping has one of its own.
        if self.cursor.has_room() {
            self.ring.write(self.cursor.reserve_known(), entry);
            return true;
        }
        let Some(index) = self.cursor.reserve(self.ring.consumer()) else { return false };
        self.ring.write(index, entry);
        true
    }

    #[inline]
    pub(super) fn flush(&mut self) {
        self.cursor.publish(self.ring.producer());
    }

    /// The same without the last `hidden` entries.
    #[inline]
    pub(super) fn flush_all_but(&mut self, hidden: u32) {
        self.cursor.publish_all_but(self.ring.producer(), hidden);
    }
}

impl<T: Plain> Consuming<T> {
    pub(super) fn new(ring: Mapping<T>) -> Self {
        Self { cursor: ConsumerCursor::resume(ring.producer(), ring.consumer(), ring.size()), ring }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        self.cursor.take(self.ring.producer()).map(|index| self.ring.read(index))
    }

    #[inline]
    pub(super) fn release(&mut self) {
        self.cursor.release(self.ring.consumer());
    }
}

/// Where the kernel puts the parts of the rings (XDP_MMAP_OFFSETS). Kernels before 5.4 answer in a shorter form without flags: they
/// are too old for us, and their answer is told by its zero entries offset.
fn mmap_offsets(fd: BorrowedFd<'_>) -> io::Result<libc::xdp_mmap_offsets> {
    const NONE: libc::xdp_ring_offset = libc::xdp_ring_offset { producer: 0, consumer: 0, desc: 0, flags: 0 };
    let mut offsets = libc::xdp_mmap_offsets { rx: NONE, tx: NONE, fr: NONE, cr: NONE };
    get_option(fd, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    if offsets.cr.desc == 0 {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    Ok(offsets)
}

fn map_ring<T: Plain>(
    fd: BorrowedFd<'_>,
    offsets: libc::xdp_ring_offset,
    pgoff: u64,
    size: u32,
) -> io::Result<Mapping<T>> {
    let offsets = RingOffsets::from(offsets);
    Mapping::over(Region::map_at(fd, Mapping::<T>::len_for(offsets, size), pgoff)?, offsets, size)
}

fn wake_tx(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a send of zero bytes reads no memory.
    let result = unsafe { libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: RingOffsets = RingOffsets { producer: 0, consumer: 64, flags: 128, entries: 192 };

    /// A producer and a consumer over one memfd, as process and kernel have over one ring.
    fn pair(size: u32) -> (Producing<Desc>, Consuming<Desc>) {
        let owner = Region::create(c"ring", Mapping::<Desc>::len_for(LAYOUT, size)).unwrap();
        let other = Region::open_owner(owner.fd().unwrap().try_clone_to_owned().unwrap()).unwrap();
        let writer = Producing::new(Mapping::over(owner, LAYOUT, size).unwrap());
        (writer, Consuming::new(Mapping::over(other, LAYOUT, size).unwrap()))
    }

    #[test]
    fn descriptors_cross_between_two_mappings() {
        let (mut writer, mut reader) = pair(4);
        for round in 0..10u32 {
            for n in 0..4 {
                assert!(writer.push(Desc::new(u64::from(round), n)));
            }
            assert!(!writer.push(Desc::default()), "a fifth entry in a ring of four");
            assert_eq!(reader.pop(), None, "seen before it was flushed");
            writer.flush();
            for n in 0..4 {
                assert_eq!(reader.pop(), Some(Desc::new(u64::from(round), n)));
            }
            assert_eq!(reader.pop(), None);
            reader.release();
        }
    }

    #[test]
    fn two_threads_lose_nothing() {
        const COUNT: u32 = 200_000;
        let (mut writer, mut reader) = pair(64);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..COUNT {
                    while !writer.push(Desc::new(u64::from(n) << 11, n)) {
                        writer.flush();
                        std::thread::yield_now();
                    }
                    if n % 7 == 0 {
                        writer.flush();
                    }
                }
                writer.flush();
            });
            let mut expected = 0;
            while expected < COUNT {
                match reader.pop() {
                    Some(packet) => {
                        assert_eq!(packet, Desc::new(u64::from(expected) << 11, expected));
                        expected += 1;
                    }
                    None => {
                        reader.release();
                        std::thread::yield_now();
                    }
                }
            }
        });
    }

    #[test]
    fn a_second_reader_goes_on_where_the_first_released() {
        let (mut writer, mut reader) = pair(8);
        for n in 0..5 {
            assert!(writer.push(Desc::new(0, n)));
        }
        writer.flush();
        assert_eq!(reader.pop().unwrap().len, 0);
        reader.release();
        assert_eq!(reader.pop().unwrap().len, 1);
        let mut heir = Consuming::new(reader.ring);
        assert_eq!(heir.pop().unwrap().len, 1, "taken but not released by the first");
    }

    fn ring<T: Plain>(size: u32) -> (Region, Mapping<T>) {
        let owner = Region::create(c"ring", Mapping::<T>::len_for(LAYOUT, size)).unwrap();
        let other = Region::open_owner(owner.fd().unwrap().try_clone_to_owned().unwrap()).unwrap();
        (owner, Mapping::over(other, LAYOUT, size).unwrap())
    }

    #[test]
    fn a_driver_that_waits_for_frames_is_woken() {
        // In place of the AF_XDP socket, one whose receives take something away.
        let (socket, peer) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let (mut memory, fill) = ring::<u64>(8);
        let rings = (ring::<Desc>(8).1, ring::<Desc>(8).1, ring::<u64>(8).1);
        let mut queue = Queue::over(socket.try_clone().unwrap().into(), fill, rings.0, rings.1, rings.2);
        socket.set_nonblocking(true).unwrap();
        for (wanted, left) in [(0, 1), (libc::XDP_RING_NEED_WAKEUP, 0)] {
            memory.bytes_mut(128, 4).unwrap().copy_from_slice(&wanted.to_ne_bytes());
            peer.send(b"wake").unwrap();
            assert!(queue.fill_push(0));
            queue.fill_flush();
            assert_eq!(usize::from(socket.recv(&mut [0; 4]).is_ok()), left, "{wanted}");
        }
    }

    #[test]
    fn a_ring_that_does_not_fit_its_memory_is_refused() {
        let region = Region::create(c"ring", 256).unwrap();
        assert!(Mapping::<Desc>::over(region, LAYOUT, 8).is_err());
        let region = Region::create(c"ring", 4096).unwrap();
        assert!(Mapping::<Desc>::over(region, LAYOUT, 7).is_err());
    }
}
