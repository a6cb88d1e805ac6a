//! What the record of a connection on the xdp lane says.

use serde::Serialize;
use underpass_stack::arena::ConnRecord;
use underpass_stack::tcp::State;

/// Figures that only a lane keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Smoothed round-trip time, µs; 0 when not measured yet.
    pub rtt_us: u32,
    /// Its variation, µs.
    pub rttvar_us: u32,
    /// Congestion window, segments.
    pub cwnd: u32,
    /// Congestion control, by the name that TCP_CONGESTION has for it.
    pub congestion: &'static str,
    /// Rate at which is sent at most, bytes a second; 0: the congestion window alone decides.
    pub pacing_rate: u64,
    /// Bytes of data in a full segment.
    pub mss: u32,
    /// Bytes that the program received on the lane since the promotion.
    pub bytes_in: u64,
    /// Bytes that the program sent on the lane since the promotion.
    pub bytes_out: u64,
    /// Segments sent again since the promotion.
    pub retransmits: u64,
    /// Size of the receive ring, bytes.
    pub recv_ring: u32,
    /// Size of the send ring, bytes.
    pub send_ring: u32,
}

/// A connection as its record tells.
#[derive(Clone, Debug)]
pub struct View {
    /// State, named as ss(8) does.
    pub state: &'static str,
    /// Bytes not read by the program.
    pub recv_q: u32,
    /// Bytes that the peer has not acknowledged, sent or not.
    pub send_q: u32,
    /// The rest.
    pub figures: Figures,
}

/// Reads a record. Any bytes give some view.
pub fn view(record: &ConnRecord) -> View {
    let tcb = &record.tcb;
    let (rtt_us, rttvar_us) = tcb.rtt_us();
    let figures = Figures {
        rtt_us,
        rttvar_us,
        cwnd: tcb.congestion().0.checked_div(tcb.mss()).unwrap_or(0),
        congestion: tcb.algorithm().name(),
        pacing_rate: tcb.kept_rate(),
        mss: tcb.mss(),
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        retransmits: u64::from(tcb.retransmits()),
        recv_ring: record.rcv_ring.len,
        send_ring: record.snd_ring.len,
    };
    View {
        state: state_name(tcb.state()),
        recv_q: queue(tcb.readable(), record.rcv_ring.len),
        send_q: queue(tcb.unacked().saturating_add(tcb.unsent()), record.snd_ring.len),
        figures,
    }
}

/// No more can be queued than the ring holds; a record caught in mid-change may claim so.
fn queue(bytes: usize, ring: u32) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).min(ring)
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Established => "ESTAB",
        State::FinWait1 => "FIN-WAIT-1",
        State::FinWait2 => "FIN-WAIT-2",
        State::CloseWait => "CLOSE-WAIT",
        State::Closing => "CLOSING",
        State::LastAck => "LAST-ACK",
        State::TimeWait => "TIME-WAIT",
        State::Closed => "CLOSED",
    }
}
