//! Taking a connection over from the kernel, and giving it back.
use super::image::Image;
use super::{Connection, Instant, Tcb};

/// Why an image cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportError {
    /// A ring's size is not a power of two.
    RingSize,
    /// The image's numbers contradict each other or the bytes beside it.
    Unsound,
    /// The window that the kernel advertised does not fit into the receive ring.
    WindowTooLarge,
    /// The path's MTU leaves no room for data.
    Mtu,
}

impl<'a> Connection<'a> {
    /// Takes a connection over: fills in `tcb` and both rings. `recv_bytes` are the unread bytes, `send_bytes` the
    /// unacknowledged and unsent ones; `mtu` is that of the path.
    pub fn import(tcb: &'a mut Tcb, snd: &'a mut [u8], rcv: &'a mut [u8], image: &Image, recv_bytes: &[u8], send_bytes: &[u8], mtu: u32, now: Instant) -> Result<(), ImportError> {
        let _ = (tcb,snd,rcv,image,recv_bytes,send_bytes,mtu,now); todo!()
    }
}
