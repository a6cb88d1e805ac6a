//! Frames of a peer that the kernel gets by a detour: what does it need to take them?
#![deny(unsafe_code)]

use zerocopy::FromBytes;

use super::input::packet;
use crate::wire::checksum::Sum;
use crate::wire::tcp;

/// Completes the TCP checksum of a frame that carries only the sum of its pseudo-header, which the kernel would refuse
/// from an injected frame. True if there was one to complete.
pub fn complete_checksum(frame: &mut [u8]) -> bool {
    let Ok(found) = packet(frame) else { return false };
    let Ok((header, _)) = tcp::Header::ref_from_prefix(found.tcp) else { return false };
    let pseudo = found.pseudo();
    if header.checksum != pseudo.partial() || pseudo.plus(found.tcp).is_valid() {
        return false;
    }
    let segment = found.at..found.at + found.tcp.len();
    fill_checksum(&mut frame[segment], pseudo)
}

/// Replaces the timestamps option of a frame's TCP segment, whose checksum must be right, by no-operations. True if there was one.
///
/// A receiver drops a segment whose timestamp is older than the newest that it has heard (PAWS, RFC 7323, section 5), also one that has
/// only been overtaken on its detour. Linux takes those that have none.
pub fn forget_timestamps(frame: &mut [u8]) -> bool {
    let Ok(found) = packet(frame) else { return false };
    let Ok((header, _)) = tcp::Header::ref_from_prefix(found.tcp) else { return false };
    let options = found.tcp.get(tcp::HEADER_LEN..header.header_len()).unwrap_or_default();
    let Some(option) = tcp::find_timestamps(options) else { return false };
    let pseudo = found.pseudo();
    let segment = found.at..found.at + found.tcp.len();
    let bytes = &mut frame[segment];
    bytes[tcp::HEADER_LEN..][option].fill(tcp::NOP);
    fill_checksum(bytes, pseudo)
}

fn fill_checksum(segment: &mut [u8], pseudo: Sum) -> bool {
    let Ok((header, _)) = tcp::Header::mut_from_prefix(segment) else { return false };
    header.checksum = [0; 2];
    let checksum = pseudo.plus(segment).checksum();
    let Ok((header, _)) = tcp::Header::mut_from_prefix(segment) else { return false };
    header.checksum = checksum;
    true
}
