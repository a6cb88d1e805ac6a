//! One interface queue with its frames.

use std::error::Error;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use underpass_stack::mem::Region;
use underpass_stack::xsk::{BindMode, Desc, FramePool, Queue, RingSizes, socket};

use super::Hook;
use super::bpf::{self, Redirect};

const FRAMES: u32 = 4096;
const FRAME_SIZE: u32 = 2048;
const SIZES: RingSizes = RingSizes { fill: 2048, completion: 2048, rx: 2048, tx: 1024 };
/// Frames kept for sending; the others wait in the fill ring.
const SEND_FRAMES: u32 = 1024;
/// IEEE 802 local experimental EtherType 1: nothing else on the wire uses it.
pub const ETHERTYPE: u16 = 0x88b5;
/// Where a frame carries its number.
const NUMBER_AT: usize = 16;

/// How long a busy interface is tried again.
const PATIENCE: Duration = Duration::from_secs(3);

/// An AF_XDP socket fed by a redirect program of our own.
pub struct Port {
    // Detached when dropped.
    _redirect: Redirect,
    queue: Queue,
    pool: FramePool,
    region: Region,
}

/// What [`Port::discard`] has seen.
pub struct Arrived {
    /// Frames.
    pub frames: usize,
    /// Their bytes, headers included.
    pub bytes: usize,
}

impl Port {
    /// Takes over queue 0 of the interface for frames of [`ETHERTYPE`]. The kernel lets go of a predecessor's program and socket a
    /// little after its end (RCU): EBUSY is worth a few more attempts.
    pub fn open(interface: &str, hook: Hook) -> Result<Self, Box<dyn Error>> {
        let ifindex = bpf::interface_index(&CString::new(interface)?)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::take_over(ifindex, hook) {
                Err(error) if is_busy(&*error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                outcome => return outcome,
            }
        }
    }

    fn take_over(ifindex: u32, hook: Hook) -> Result<Self, Box<dyn Error>> {
        let pool = FramePool::new(FRAMES, FRAME_SIZE).ok_or("impossible frame sizes")?;
        let region = Region::create(c"floor-umem", pool.umem_len())?;
        let fd = socket::open()?;
        socket::register_umem(fd.as_fd(), &region, FRAME_SIZE, 0)?;
        socket::set_rings(fd.as_fd(), SIZES)?;
        let redirect = Redirect::attach(ifindex, hook, ETHERTYPE)?;
        socket::bind(fd.as_fd(), ifindex, 0, BindMode::Copy, true, None)?;
        redirect.insert(0, fd.as_fd())?;
        let queue = Queue::map(fd, SIZES)?;
        let mut port = Self { _redirect: redirect, queue, pool, region };
        port.refill();
        Ok(port)
    }

    /// Queues a frame of `len` bytes that carries `number`; waits for a free frame if there is none.
    pub fn send(&mut self, len: usize, number: u64) -> Result<(), Box<dyn Error>> {
        loop {
            self.collect();
            if let (Some(frame), true) = (self.pool.take(), self.queue.tx_room() > 0) {
                let addr = self.pool.addr_of(frame);
                self.write(addr as usize, len, number)?;
                self.queue.tx_push(Desc::new(addr, len as u32));
                return Ok(());
            }
            self.flush()?;
        }
    }

    /// Has everything queued sent.
    pub fn flush(&mut self) -> Result<(), Box<dyn Error>> {
        self.queue.tx_flush();
        self.queue.kick_tx()?;
        self.collect();
        Ok(())
    }

    /// The next frame that has arrived.
    #[inline]
    pub fn receive(&mut self) -> Option<Desc> {
        let packet = self.queue.rx_pop()?;
        self.queue.rx_release();
        Some(packet)
    }

    /// Sends a received frame back in place.
    pub fn send_back(&mut self, packet: Desc) -> Result<(), Box<dyn Error>> {
        self.queue.tx_push(packet);
        self.flush()?;
        self.refill();
        Ok(())
    }

    /// The number in a received frame.
    pub fn number(&self, packet: Desc) -> Option<u64> {
        let placed = self.pool.place(packet)?;
        let bytes = self.region.bytes(placed.offset, placed.len)?.get(NUMBER_AT..NUMBER_AT + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Hands a received frame to the kernel again.
    #[inline]
    pub fn recycle(&mut self, packet: Desc) {
        self.pool.give_addr(packet.addr);
        self.refill();
    }

    /// Takes up to `most` frames and drops them.
    pub fn discard(&mut self, most: usize) -> Arrived {
        let mut arrived = Arrived { frames: 0, bytes: 0 };
        while arrived.frames < most {
            let Some(packet) = self.queue.rx_pop() else { break };
            arrived.frames += 1;
            arrived.bytes += packet.len as usize;
            self.pool.give_addr(packet.addr);
        }
        if arrived.frames > 0 {
            self.queue.rx_release();
            self.refill();
        }
        arrived
    }

    fn collect(&mut self) {
        while let Some(addr) = self.queue.completion_pop() {
            self.pool.give_addr(addr);
        }
    }

    /// All frames beyond those kept for sending go to the kernel.
    fn refill(&mut self) {
        while self.pool.available() > SEND_FRAMES && self.queue.fill_room() > 0 {
            let Some(frame) = self.pool.take() else { break };
            self.queue.fill_push(self.pool.addr_of(frame));
        }
        self.queue.fill_flush();
    }

    /// To everybody, from a locally administered address: on a wire with two ends that is the other one.
    fn write(&mut self, at: usize, len: usize, number: u64) -> Result<(), &'static str> {
        let frame = self.region.bytes_mut(at, len).ok_or("a frame outside the region")?;
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        frame[NUMBER_AT..NUMBER_AT + 8].copy_from_slice(&number.to_le_bytes());
        Ok(())
    }
}

fn is_busy(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}
