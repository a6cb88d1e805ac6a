//! TCP_INFO of a connection on the lane: the silent kernel socket's answer with the engine's figures put in (`struct tcp_info`,
//! <linux/tcp.h>).

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;

use underpass_stack::tcp::tally::Report;
use underpass_stack::tcp::{Connection, Instant, State, Tcb};

use crate::socket::Socket;
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
    pub const ATO: usize = 12;
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
    pub const REORDERING: usize = 88;
    pub const RCV_RTT: usize = 92;
    pub const RCV_SPACE: usize = 96;
    pub const TOTAL_RETRANS: usize = 100;
    pub const PACING_RATE: usize = 104;
    pub const BYTES_ACKED: usize = 120;
    pub const BYTES_RECEIVED: usize = 128;
    pub const SEGS_OUT: usize = 136;
    pub const SEGS_IN: usize = 140;
    pub const NOTSENT_BYTES: usize = 144;
    pub const MIN_RTT: usize = 148;
    pub const DATA_SEGS_IN: usize = 152;
    pub const DATA_SEGS_OUT: usize = 156;
    pub const DELIVERY_RATE: usize = 160;
    pub const BUSY_TIME: usize = 168;
    pub const RWND_LIMITED: usize = 176;
    pub const SNDBUF_LIMITED: usize = 184;
    pub const DELIVERED: usize = 192;
    pub const DELIVERED_CE: usize = 196;
    pub const BYTES_SENT: usize = 200;
    pub const BYTES_RETRANS: usize = 208;
    pub const DSACK_DUPS: usize = 216;
    pub const REORD_SEEN: usize = 220;
    pub const RCV_OOOPACK: usize = 224;
    pub const SND_WND: usize = 228;
    pub const RCV_WND: usize = 232;
    pub const TOTAL_RTO: usize = 240;
    pub const TOTAL_RTO_RECOVERIES: usize = 242;
    pub const TOTAL_RTO_TIME: usize = 244;
}

/// Fields that count over a connection's life, by their size in bits.
const TOTALS_16: [usize; 2] = [at::TOTAL_RTO, at::TOTAL_RTO_RECOVERIES];
const TOTALS_32: [usize; 11] = [
    at::TOTAL_RETRANS,
    at::SEGS_OUT,
    at::SEGS_IN,
    at::DATA_SEGS_IN,
    at::DATA_SEGS_OUT,
    at::DELIVERED,
    at::DELIVERED_CE,
    at::DSACK_DUPS,
    at::REORD_SEEN,
    at::RCV_OOOPACK,
    at::TOTAL_RTO_TIME,
];
const TOTALS_64: [usize; 4] = [at::BYTES_ACKED, at::BYTES_RECEIVED, at::BYTES_SENT, at::BYTES_RETRANS];

/// What the kernel says.
fn of_kernel(fd: RawFd) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 512];
    let len = sys::sockopt_bytes(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

/// Is a kernel socket without a connection?
pub fn is_closed(fd: RawFd) -> bool {
    of_kernel(fd).and_then(|bytes| got(&bytes, at::STATE)) == Some([number_of(State::Closed)])
}

/// When the kernel's socket last received an acknowledgement, which every segment has.
pub fn last_ack(fd: RawFd, now: Instant) -> Option<Instant> {
    let millis = u32::from_ne_bytes(got(&of_kernel(fd)?, at::LAST_ACK_RECV)?);
    Some(Instant(now.0.saturating_sub(u64::from(millis) * 1_000_000)))
}

/// What the kernel says of a socket, with what it has forgotten in demotions.
pub fn of_socket(socket: &Socket) -> Option<Vec<u8>> {
    let kernel = of_kernel(socket.fd.load(Relaxed))?;
    Some(socket.earlier.lock().with(kernel))
}

/// The numbers of enum in <net/tcp_states.h>.
fn number_of(state: State) -> u8 {
    match state {
        State::Established => 1,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        // In TIME-WAIT the kernel's socket is closed: what waits is no socket any more.
        State::TimeWait | State::Closed => 7,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Closing => 11,
    }
}

/// The engine's figures in the kernel's answer.
///
/// The kernel's socket is silent: what it counted before the promotion is true, and the lane's is added ([`totals`]); what describes the
/// path and the windows of now is the engine's ([`state`]). The engine does not measure for how long there was something to send
/// (tcpi_busy_time) and what held it back (tcpi_rwnd_limited, tcpi_sndbuf_limited), and the silent socket's clock of these may go on:
/// they are 0. Left as the kernel has them are what both have agreed on with the peer, SO_MAX_PACING_RATE, tcpi_rehash (the lane never
/// chooses another path) and the counts of accurate ECN, which never comes to the lane.
pub fn of_lane(mut bytes: Vec<u8>, connection: &mut Connection<'_>, now: Instant) -> Vec<u8> {
    totals(&mut bytes, connection, now);
    state(&mut bytes, connection, now);
    for offset in [at::BUSY_TIME, at::RWND_LIMITED, at::SNDBUF_LIMITED] {
        put(&mut bytes, offset, 0u64.to_ne_bytes());
    }
    bytes
}

/// What the kernel counted before, and the lane since.
fn totals(bytes: &mut [u8], connection: &mut Connection<'_>, now: Instant) {
    let (tally, delivered) = (connection.tally(), connection.delivered());
    let seldom = connection.seldom();
    let words = [
        (at::TOTAL_RETRANS, connection.tcb.retransmits()),
        (at::SEGS_OUT, tally.segments_out),
        (at::SEGS_IN, tally.segments_in),
        (at::DATA_SEGS_IN, tally.data_in),
        (at::DATA_SEGS_OUT, tally.data_out),
        (at::DELIVERED, delivered),
        (at::DELIVERED_CE, seldom.delivered_ce),
        (at::DSACK_DUPS, seldom.dsack_dups),
        (at::REORD_SEEN, seldom.reordered),
        (at::RCV_OOOPACK, seldom.out_of_order),
        (at::TOTAL_RTO_TIME, connection.figures(now).timeout_time),
    ];
    for (offset, more) in words {
        add_word(bytes, offset, more);
    }
    for (offset, more) in [(at::TOTAL_RTO, seldom.timeouts), (at::TOTAL_RTO_RECOVERIES, seldom.timeout_recoveries)] {
        add_short(bytes, offset, more);
    }
    let long = [
        (at::BYTES_ACKED, tally.bytes_acked),
        (at::BYTES_RECEIVED, tally.bytes_received),
        (at::BYTES_SENT, tally.bytes_sent),
        (at::BYTES_RETRANS, seldom.bytes_resent),
    ];
    for (offset, more) in long {
        add_long(bytes, offset, more);
    }
}

/// What is so now.
fn state(bytes: &mut [u8], connection: &Connection<'_>, now: Instant) {
    let (report, tcb) = (connection.figures(now), &connection.tcb);
    let small = [
        (at::STATE, number_of(tcb.state())),
        (at::CA_STATE, report.ca_state),
        (at::RETRANSMITS, report.retransmits),
        (at::PROBES, report.probes),
        (at::BACKOFF, report.retransmits),
    ];
    for (offset, value) in small {
        put(bytes, offset, [value]);
    }
    flight(bytes, connection, &report);
    let words = [
        (at::RTO, report.rto),
        (at::ATO, report.ato),
        (at::RCV_MSS, report.rcv_mss),
        (at::LAST_DATA_SENT, report.last_data_sent),
        (at::LAST_DATA_RECV, report.last_data_recv),
        (at::LAST_ACK_RECV, report.last_ack_recv),
        (at::PMTU, report.pmtu),
        (at::RCV_SSTHRESH, connection.recv_limit() as u32),
        (at::REORDERING, report.reordering),
        (at::RCV_RTT, report.rcv_rtt),
        (at::RCV_SPACE, report.rcv_space),
        (at::SND_WND, report.snd_wnd),
        (at::RCV_WND, report.rcv_wnd),
    ];
    for (offset, value) in words {
        put(bytes, offset, value.to_ne_bytes());
    }
    // Until the lane has measured one, what the kernel measured on the same path.
    if let Some(min_rtt) = report.min_rtt {
        put(bytes, at::MIN_RTT, min_rtt.to_ne_bytes());
    }
    rates(bytes, tcb);
}

/// What is on its way to the peer, and how much may be. The kernel counts segments.
fn flight(bytes: &mut [u8], connection: &Connection<'_>, report: &Report) {
    let tcb = &connection.tcb;
    let mss = tcb.mss().max(1);
    let (rtt, rttvar) = tcb.rtt_us();
    let (cwnd, ssthresh) = tcb.congestion();
    let segments = |n: u32| if n == u32::MAX { 0x7fff_ffff } else { n / mss };
    let words = [
        (at::SND_MSS, mss),
        (at::UNACKED, (tcb.unacked() as u32).div_ceil(mss)),
        (at::SACKED, report.sacked.div_ceil(mss)),
        // The kernel goes on counting what is lost as such when it has been sent again.
        (at::LOST, report.lost.saturating_add(report.resent).div_ceil(mss)),
        (at::RETRANS, report.resent.div_ceil(mss)),
        (at::RTT, rtt),
        (at::RTTVAR, rttvar),
        (at::SND_SSTHRESH, segments(ssthresh)),
        (at::SND_CWND, segments(cwnd).max(1)),
        (at::NOTSENT_BYTES, tcb.unsent() as u32),
    ];
    for (offset, value) in words {
        put(bytes, offset, value.to_ne_bytes());
    }
}

fn rates(bytes: &mut [u8], tcb: &Tcb) {
    let (delivery_rate, app_limited) = tcb.delivery_rate();
    put(bytes, at::PACING_RATE, tcb.pacing_rate().to_ne_bytes());
    put(bytes, at::DELIVERY_RATE, delivery_rate.to_ne_bytes());
    if let Some([limited]) = got(bytes, at::DELIVERY_APP_LIMITED) {
        put(bytes, at::DELIVERY_APP_LIMITED, [(limited & !1) | u8::from(app_limited)]);
    }
}

/// What a connection had counted when it was last given back to the kernel, whose socket counts from 0 since.
#[derive(Debug)]
pub struct Earlier(Vec<u8>);

impl Earlier {
    /// Nothing.
    pub const NONE: Self = Self(Vec::new());

    /// The lane's answer of then. The kernel counts the `unread` bytes that it is given as received once more.
    pub fn of(mut told: Vec<u8>, unread: usize) -> Self {
        add_long(&mut told, at::BYTES_RECEIVED, (unread as u64).wrapping_neg());
        Self(told)
    }

    /// The kernel counts so many bytes as acknowledged once more, as a segment of their own.
    pub fn without_acked(&mut self, again: u32) {
        add_long(&mut self.0, at::BYTES_ACKED, u64::from(again).wrapping_neg());
        add_word(&mut self.0, at::DELIVERED, u32::from(again != 0).wrapping_neg());
    }

    /// The kernel's answer with all of it.
    pub fn with(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for offset in TOTALS_16 {
            add_short(&mut bytes, offset, got(&self.0, offset).map_or(0, u16::from_ne_bytes));
        }
        for offset in TOTALS_32 {
            add_word(&mut bytes, offset, got(&self.0, offset).map_or(0, u32::from_ne_bytes));
        }
        for offset in TOTALS_64 {
            add_long(&mut bytes, offset, got(&self.0, offset).map_or(0, u64::from_ne_bytes));
        }
        bytes
    }
}

/// The kernel's answer with the bytes put in that went through a channel's rings: `read` and `written` by the program, `taken` by the peer.
pub fn of_channel(mut bytes: Vec<u8>, read: u64, written: u64, taken: u64) -> Vec<u8> {
    for (offset, more) in [(at::BYTES_ACKED, taken), (at::BYTES_RECEIVED, read), (at::BYTES_SENT, written)] {
        add_long(&mut bytes, offset, more);
    }
    bytes
}

/// A field, if the answer reaches so far: older kernels tell less.
fn got<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset + N)?.try_into().ok()
}

fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(offset..offset + N) {
        place.copy_from_slice(&value);
    }
}

fn add_short(bytes: &mut [u8], offset: usize, more: u16) {
    let before = got(bytes, offset).map_or(0, u16::from_ne_bytes);
    put(bytes, offset, before.wrapping_add(more).to_ne_bytes());
}

fn add_word(bytes: &mut [u8], offset: usize, more: u32) {
    let before = got(bytes, offset).map_or(0, u32::from_ne_bytes);
    put(bytes, offset, before.wrapping_add(more).to_ne_bytes());
}

fn add_long(bytes: &mut [u8], offset: usize, more: u64) {
    let before = got(bytes, offset).map_or(0, u64::from_ne_bytes);
    put(bytes, offset, before.wrapping_add(more).to_ne_bytes());
}

#[cfg(test)]
mod tests;
