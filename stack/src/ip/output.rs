//! Frames out.
#![deny(unsafe_code)]
use super::flow::FlowKey;
use super::path::Path;
use crate::tcp::SegmentOut;
use crate::tcp::image::Image;

/// Writes Ethernet, IPv4 and TCP headers and the data into `frame`; returns the frame's length, or `None` if it does
/// not fit or the flow is not IPv4.
pub fn build(frame: &mut [u8], path: &Path, flow: &FlowKey, segment: &SegmentOut, payload: (&[u8], &[u8]), ip_id: u16) -> Option<usize> { let _ = (frame,path,flow,segment,payload,ip_id); todo!() }

/// Completes the TCP checksum of a frame that carries only its pseudo-header sum. True if there was one to complete.
pub fn complete_checksum(frame: &mut [u8]) -> bool { let _ = frame; todo!() }

/// A bare control segment of the peer, to be made up for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromPeer {
    /// FIN|ACK: the peer's FIN, whose sequence number is `rcv_nxt - 1`.
    Fin,
    /// RST|ACK at `rcv_nxt`.
    Reset,
    /// ACK of everything that the image calls acknowledged.
    Ack,
}

/// Writes a frame as if the peer of `image` had sent it; returns its length. `path` is our path to the peer.
pub fn synthesize(frame: &mut [u8], path: &Path, image: &Image, what: FromPeer) -> Option<usize> { let _ = (frame,path,image,what); todo!() }
