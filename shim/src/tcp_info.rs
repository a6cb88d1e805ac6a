//! TCP_INFO of a connection on the lane: the silent kernel socket's answer with the engine's figures put in (`struct tcp_info`,
//! <linux/tcp.h>).

use std::os::fd::RawFd;

use underpass_stack::tcp::{Connection, Instant, State};

use crate::sys;

/// Offsets of the fields that differ.
mod at {
    pub const STATE: usize = 0;
    pub const CA_STATE: usize = 1;
    pub const RETRANSMITS: usize = 2;
    pub const PROBES: usize = 3;
    pub const BACKOFF: usize = 4;
    pub const RTO: usize = 8;
    /// Bit 0.
    pub const DELIVERY_APP_LIMITED: usize = 7;
    pub const SND_MSS: usize = 16;
    pub const RCV_MSS: usize = 20;
    pub const UNACKED: usize = 24;
    pub const SACKED: usize = 28;
    pub const LOST: usize = 32;
    pub const RETRANS: usize = 36;
    pub const LAST_DATA_SENT: usize = 44;
    pub const LAST_DATA_RECV: usize = 52;
    pub const LAST_ACK_RECV: usize = 56;
    pub const PMTU: usize = 60;
    pub const RCV_SSTHRESH: usize = 64;
    pub const RTT: usize = 68;
    pub const RTTVAR: usize = 72;
    pub const SND_SSTHRESH: usize = 76;
    pub const SND_CWND: usize = 80;
    pub const RCV_RTT: usize = 92;
    pub const RCV_SPACE: usize = 96;
    pub const TOTAL_RETRANS: usize = 100;
    pub const PACING_RATE: usize = 104;
    pub const BYTES_ACKED: usize = 120;
    pub const BYTES_RECEIVED: usize = 128;
    pub const SEGS_OUT: usize = 136;
    pub const SEGS_IN: usize = 140;
    pub const NOTSENT_BYTES: usize = 144;
    pub const DATA_SEGS_IN: usize = 152;
    pub const DATA_SEGS_OUT: usize = 156;
    pub const DELIVERY_RATE: usize = 160;
    pub const BYTES_SENT: usize = 200;
    pub const BYTES_RETRANS: usize = 208;
    pub const SND_WND: usize = 228;
    pub const RCV_WND: usize = 232;
}

/// What the kernel says.
pub fn of_kernel(fd: RawFd) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 512];
    let len = sys::sockopt_bytes(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

/// The numbers of enum in <net/tcp_states.h>.
fn number_of(state: State) -> u8 {
    match state {
        State::Established => 1,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        State::TimeWait => 6,
        State::Closed => 7,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Closing => 11,
    }
}

/// The engine's figures in the kernel's answer.
pub fn of_lane(mut bytes: Vec<u8>, connection: &mut Connection<'_>, now: Instant) -> Vec<u8> {
    let window = connection.recv_limit() as u32;
    let (tally, report) = (connection.tally(), connection.figures(now));
    let tcb = &connection.tcb;
    let mss = tcb.mss().max(1);
    let (rtt, rttvar) = tcb.rtt_us();
    let (cwnd, ssthresh) = tcb.congestion();
    let total = word(&bytes, at::TOTAL_RETRANS).wrapping_add(tcb.retransmits());
    let segments = |n: u32| if n == u32::MAX { 0x7fff_ffff } else { n / mss };
    // What the kernel counted before, and the lane since.
    let with = |offset: usize, more: u32| word(&bytes, offset).wrapping_add(more);
    let counted = [
        (at::SEGS_OUT, with(at::SEGS_OUT, tally.segments_out)),
        (at::SEGS_IN, with(at::SEGS_IN, tally.segments_in)),
        (at::DATA_SEGS_IN, with(at::DATA_SEGS_IN, tally.data_in)),
        (at::DATA_SEGS_OUT, with(at::DATA_SEGS_OUT, tally.data_out)),
        (at::RTO, report.rto),
        (at::RCV_MSS, report.rcv_mss),
        (at::SACKED, report.sacked.div_ceil(mss)),
        // The kernel goes on counting what is lost as such when it has been sent again.
        (at::LOST, report.lost.saturating_add(report.resent).div_ceil(mss)),
        (at::RETRANS, report.resent.div_ceil(mss)),
        (at::LAST_DATA_SENT, report.last_data_sent),
        (at::LAST_DATA_RECV, report.last_data_recv),
        (at::LAST_ACK_RECV, report.last_ack_recv),
        (at::PMTU, report.pmtu),
        (at::RCV_SSTHRESH, window),
        (at::RCV_RTT, report.rcv_rtt),
        (at::RCV_SPACE, report.rcv_space),
        (at::SND_WND, report.snd_wnd),
        (at::RCV_WND, report.rcv_wnd),
    ];
    let now_known = [
        (at::SND_MSS, mss),
        (at::UNACKED, (tcb.unacked() as u32).div_ceil(mss)),
        (at::RTT, rtt),
        (at::RTTVAR, rttvar),
        (at::SND_SSTHRESH, segments(ssthresh)),
        (at::SND_CWND, segments(cwnd).max(1)),
        (at::TOTAL_RETRANS, total),
        (at::NOTSENT_BYTES, tcb.unsent() as u32),
    ];
    for (offset, value) in counted.into_iter().chain(now_known) {
        if let Some(place) = bytes.get_mut(offset..offset + 4) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
    }
    let (delivery_rate, app_limited) = tcb.delivery_rate();
    for (offset, value) in [(at::PACING_RATE, tcb.pacing_rate()), (at::DELIVERY_RATE, delivery_rate)] {
        if let Some(place) = bytes.get_mut(offset..offset + 8) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
    }
    if let Some(place) = bytes.get_mut(at::DELIVERY_APP_LIMITED) {
        *place = (*place & !1) | u8::from(app_limited);
    }
    let small = [
        (at::STATE, number_of(tcb.state())),
        (at::CA_STATE, report.ca_state),
        (at::RETRANSMITS, report.retransmits),
        (at::PROBES, report.probes),
        (at::BACKOFF, report.retransmits),
    ];
    for (offset, value) in small {
        if let Some(place) = bytes.get_mut(offset) {
            *place = value;
        }
    }
    let long = [
        (at::BYTES_ACKED, tally.bytes_acked),
        (at::BYTES_RECEIVED, tally.bytes_received),
        (at::BYTES_SENT, tally.bytes_sent),
        (at::BYTES_RETRANS, tally.bytes_resent),
    ];
    add(&mut bytes, &long);
    bytes
}

/// Adds to numbers of 64 bits.
fn add(bytes: &mut [u8], numbers: &[(usize, u64)]) {
    for &(offset, more) in numbers {
        if let Some(place) = bytes.get_mut(offset..offset + 8) {
            let before = <[u8; 8]>::try_from(&*place).map_or(0, u64::from_ne_bytes);
            place.copy_from_slice(&before.wrapping_add(more).to_ne_bytes());
        }
    }
}

/// The kernel's answer with the bytes put in that went through a channel's rings: `read` and `written` by the program, `taken` by the peer.
pub fn of_channel(mut bytes: Vec<u8>, read: u64, written: u64, taken: u64) -> Vec<u8> {
    add(&mut bytes, &[(at::BYTES_ACKED, taken), (at::BYTES_RECEIVED, read), (at::BYTES_SENT, written)]);
    bytes
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    let field = bytes.get(offset..offset + 4).and_then(|b| b.try_into().ok());
    field.map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offsets_are_those_of_libc() {
        let info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
        let base = info.as_ptr() as usize;
        let offset = |field: usize| field - base;
        // SAFETY: addresses only, nothing is read.
        unsafe {
            let info = info.as_ptr();
            assert_eq!(offset(&raw const (*info).tcpi_rtt as usize), at::RTT);
            assert_eq!(offset(&raw const (*info).tcpi_snd_cwnd as usize), at::SND_CWND);
            assert_eq!(offset(&raw const (*info).tcpi_total_retrans as usize), at::TOTAL_RETRANS);
            assert_eq!(offset(&raw const (*info).tcpi_unacked as usize), at::UNACKED);
            assert_eq!(offset(&raw const (*info).tcpi_rto as usize), at::RTO);
            assert_eq!(offset(&raw const (*info).tcpi_rcv_mss as usize), at::RCV_MSS);
            assert_eq!(offset(&raw const (*info).tcpi_last_data_sent as usize), at::LAST_DATA_SENT);
            assert_eq!(offset(&raw const (*info).tcpi_last_ack_recv as usize), at::LAST_ACK_RECV);
            assert_eq!(offset(&raw const (*info).tcpi_pmtu as usize), at::PMTU);
            assert_eq!(offset(&raw const (*info).tcpi_rcv_space as usize), at::RCV_SPACE);
        }
    }
}
