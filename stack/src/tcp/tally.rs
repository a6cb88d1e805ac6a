//! What has gone in and out, for those who ask (TCP_INFO; RFC 4898 has names for most of it).

use super::connection::Connection;
use super::delack::DELAY;
use super::loss::{DUP_THRESH, Phase};
use super::segment::Segment;
use super::time::Instant;

/// Counts since the import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of the sequence space that the peer has acknowledged.
    pub bytes_acked: u64,
    /// Bytes of the sequence space that arrived in order.
    pub bytes_received: u64,
    /// Bytes of data sent, those sent again included.
    pub bytes_sent: u64,
    /// Segments received.
    pub segments_in: u32,
    /// Segments sent.
    pub segments_out: u32,
    /// Of those received, with data.
    pub data_in: u32,
    /// Of those sent, with data.
    pub data_out: u32,
}

/// Counts of what seldom happens: a connection has them when something of it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seldom {
    /// Bytes of data sent again.
    pub bytes_resent: u64,
    /// Segments with data, sent again.
    pub data_resent: u32,
    /// Segments that arrived with data beyond a gap.
    pub out_of_order: u32,
    /// Segments that the peer said had arrived twice (RFC 2883).
    pub dsack_dups: u32,
    /// Acknowledgements that showed that segments had overtaken each other.
    pub reordered: u32,
    /// Segments that acknowledgements with ECE delivered (RFC 3168).
    pub delivered_ce: u32,
    /// Retransmission timeouts.
    pub timeouts: u16,
    /// Of these, the first in a row.
    pub timeout_recoveries: u16,
    /// From the first timeout to the end of the recovery, of those that have ended, ms.
    pub timeout_time: u32,
    /// When the recovery after a timeout began that has not ended; never: there is none.
    timed_out_at: Instant,
    /// Segments that were in flight at the import.
    imported: u32,
    /// What [`Connection::delivered`] has said.
    delivered: u32,
}

/// A connection's state as `struct tcp_info` wants it, beside what [`Tally`] counts. Times in ms or µs as there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// TCP_CA_Open (0), TCP_CA_Recovery (3) or TCP_CA_Loss (4).
    pub ca_state: u8,
    /// Timeouts in a row.
    pub retransmits: u8,
    /// Window or keepalive probes in a row that nobody has answered.
    pub probes: u8,
    /// µs.
    pub rto: u32,
    /// Bytes of data in the largest segment received.
    pub rcv_mss: u32,
    /// Bytes that the peer has acknowledged selectively.
    pub sacked: u32,
    /// Bytes that are lost and were not sent again since.
    pub lost: u32,
    /// Bytes that were sent again and are in the network.
    pub resent: u32,
    /// Bytes of the largest packet.
    pub pmtu: u32,
    /// Since data was sent last, ms.
    pub last_data_sent: u32,
    /// Since data was received last, ms.
    pub last_data_recv: u32,
    /// Since anything acceptable was received last, ms.
    pub last_ack_recv: u32,
    /// The round trip as a receiver sees it, µs; 0 if not known.
    pub rcv_rtt: u32,
    /// What the program reads in one, bytes.
    pub rcv_space: u32,
    /// The peer's window, bytes.
    pub snd_wnd: u32,
    /// The window that the peer may still use, bytes.
    pub rcv_wnd: u32,
    /// The longest time for which an acknowledgement is put off, µs.
    pub ato: u32,
    /// Shortest round trip of late, µs, if one was measured.
    pub min_rtt: Option<u32>,
    /// Segments that arrive before one that is missing until it is taken for lost.
    pub reordering: u32,
    /// In recoveries after timeouts, the present one included, ms.
    pub timeout_time: u32,
}

impl Connection<'_> {
    /// What has gone in and out since the import.
    pub fn tally(&self) -> Tally {
        self.recovery.tally
    }

    /// What seldom happens, since the import.
    pub fn seldom(&self) -> Seldom {
        self.recovery.rare.as_ref().map(|rare| rare.seldom).unwrap_or_default()
    }

    /// What TCP_INFO tells beside.
    pub fn figures(&self, now: Instant) -> Report {
        let (tcb, recovery) = (&*self.tcb, &*self.recovery);
        let narrow = |number: u64| number.min(u64::from(u32::MAX)) as u32;
        let since = |at: Instant| narrow(now.nanos_since(at) / 1_000_000);
        let (rcv_rtt, rcv_space) = recovery.tuning.measured();
        Report {
            ca_state: match recovery.loss.phase {
                Phase::Open => 0,
                Phase::Recovery => 3,
                Phase::Loss => 4,
            },
            retransmits: recovery.loss.timeouts,
            probes: tcb.probes,
            rto: narrow(tcb.rtt.rto() / 1_000),
            rcv_mss: tcb.rcv_mss.into(),
            sacked: recovery.sent.sacked(),
            lost: recovery.sent.lost(),
            resent: recovery.sent.resent(),
            pmtu: tcb.pmtu.current(),
            last_data_sent: since(tcb.data_sent_at),
            last_data_recv: since(tcb.data_heard_at),
            last_ack_recv: since(tcb.heard_at),
            rcv_rtt,
            rcv_space,
            snd_wnd: tcb.snd_wnd,
            rcv_wnd: tcb.rcv_window(),
            ato: narrow(DELAY / 1_000),
            min_rtt: recovery.rack.min_rtt().map(|ns| narrow(ns / 1_000)),
            reordering: DUP_THRESH,
            timeout_time: self.seldom().timeout_time_by(now),
        }
    }

    /// Segments that have arrived since the import: those that were sent, less those still out. Counting them as they arrive would
    /// cost each acknowledgement something. What is out is known in bytes, so this can be off by what is in flight; it never goes back.
    pub fn delivered(&mut self) -> u32 {
        let out = self.recovery.sent.segments_out(self.tcb.snd_end, self.tcb.mss);
        let sent = self.recovery.tally.data_out;
        let seldom = self.recovery.seldom();
        let originals = seldom.imported.wrapping_add(sent).wrapping_sub(seldom.data_resent);
        let more = originals.wrapping_sub(out).wrapping_sub(seldom.delivered);
        if (more as i32) > 0 {
            seldom.delivered = seldom.delivered.wrapping_add(more);
        }
        seldom.delivered
    }
}

impl Seldom {
    /// Nothing but what is in flight: `unacked` bytes.
    pub(crate) fn begin(unacked: u32, mss: u32) -> Self {
        Self { imported: unacked.div_ceil(mss.max(1)), ..Self::default() }
    }

    /// A segment with `len` bytes of data goes out again.
    pub(crate) fn resend(&mut self, len: u32) {
        self.data_resent = self.data_resent.wrapping_add(u32::from(len != 0));
        self.bytes_resent = self.bytes_resent.wrapping_add(len.into());
    }

    /// The retransmission timer ran out, for the first time in a row or not.
    pub(crate) fn time_out(&mut self, now: Instant, first: bool) {
        self.timeouts = self.timeouts.wrapping_add(1);
        self.timeout_recoveries = self.timeout_recoveries.wrapping_add(u16::from(first));
        if !self.timed_out_at.is_set() {
            self.timed_out_at = now;
        }
    }

    /// No recovery after a timeout is going on.
    pub(crate) fn end_timeout(&mut self, now: Instant) {
        if self.timed_out_at.is_set() {
            self.timeout_time = self.timeout_time_by(now);
            self.timed_out_at = Instant::NEVER;
        }
    }

    fn timeout_time_by(&self, now: Instant) -> u32 {
        let present = if self.timed_out_at.is_set() { now.nanos_since(self.timed_out_at) } else { 0 };
        self.timeout_time.wrapping_add((present / 1_000_000) as u32)
    }
}

impl Tally {
    pub(crate) fn take_in(&mut self, segment: &Segment<'_>) {
        self.segments_in = self.segments_in.wrapping_add(1);
        self.data_in = self.data_in.wrapping_add(u32::from(!segment.payload.is_empty()));
    }

    /// A segment was as expected: it acknowledged so much, and brought so much data.
    #[inline]
    pub(crate) fn predicted(&mut self, acked: u32, len: u32) {
        self.segments_in = self.segments_in.wrapping_add(1);
        self.data_in = self.data_in.wrapping_add(u32::from(len != 0));
        self.progress(acked, len);
    }

    /// The same of several segments that were taken for one, all with data or none.
    pub(crate) fn predicted_train(&mut self, segments: u32, acked: u32, len: u32) {
        self.segments_in = self.segments_in.wrapping_add(segments);
        self.data_in = self.data_in.wrapping_add(if len == 0 { 0 } else { segments });
        self.progress(acked, len);
    }

    pub(crate) fn progress(&mut self, acked: u32, received: u32) {
        self.bytes_acked = self.bytes_acked.wrapping_add(u64::from(acked));
        self.bytes_received = self.bytes_received.wrapping_add(u64::from(received));
    }

    /// A segment with `len` bytes of data, sent for the first time or again.
    #[inline(always)]
    pub(crate) fn send_out(&mut self, len: u32) {
        let len = u64::from(len);
        self.segments_out = self.segments_out.wrapping_add(1);
        self.data_out = self.data_out.wrapping_add(u32::from(len > 0));
        self.bytes_sent = self.bytes_sent.wrapping_add(len);
    }

    /// So many segments with `len` bytes of data each.
    pub(crate) fn send_train(&mut self, count: u32, len: u32) {
        self.segments_out = self.segments_out.wrapping_add(count);
        self.data_out = self.data_out.wrapping_add(count);
        self.bytes_sent = self.bytes_sent.wrapping_add(u64::from(count) * u64::from(len));
    }
}
