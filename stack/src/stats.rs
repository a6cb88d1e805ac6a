//! The counters of a stack: one table, shown by `underpass stats`, kept in the arena so that they outlive the process.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::lane::Reason;

macro_rules! counters {
    ($($variant:ident, $name:literal, $text:literal;)*) => {
        /// One counter; its number is its place in the arena's counter page.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Counter { $(#[doc = $text] $variant,)* }

        impl Counter {
            /// Every counter, in the order of the page.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)*];

            /// The name shown by `underpass stats`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What is counted.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

counters! {
    Promotions, "promotions", "connections moved to the lane";
    PromotionsRefused, "promotions_refused", "promotions that the daemon or the stack refused";
    Demotions, "demotions", "connections given back to the kernel";
    DemotionsFailed, "demotions_failed", "demotions that the daemon could not carry out";
    Passes, "passes", "runs over RX ring, timers and TX ring";
    PassesHelper, "passes_helper", "passes made by the helper thread";
    RxFrames, "rx_frames", "frames received";
    RxBytes, "rx_bytes", "bytes received, headers included";
    TxFrames, "tx_frames", "frames sent";
    TxBytes, "tx_bytes", "bytes sent, headers included";
    TxKicks, "tx_kicks", "system calls that started transmission";
    TxKicksFailed, "tx_kicks_failed", "of these, ended with an error other than busy";
    XskRingFull, "xsk_ring_full", "frames that the kernel dropped: the RX ring was full";
    XskFillEmpty, "xsk_fill_empty", "frames that the kernel dropped: the fill ring was empty";
    XskDropped, "xsk_dropped", "frames that the kernel dropped: they did not fit";
    RxRunt, "rx_runt", "dropped: shorter than its headers say";
    RxOversize, "rx_oversize", "dropped: longer than a frame buffer";
    RxNotTcp, "rx_not_tcp", "not a TCP packet: injected into the kernel";
    RxFragment, "rx_fragment", "an IP fragment: injected into the kernel";
    RxBadIpHeader, "rx_bad_ip_header", "dropped: malformed IP header or wrong header checksum";
    RxBadTcpHeader, "rx_bad_tcp_header", "dropped: malformed TCP header or options";
    RxBadChecksum, "rx_bad_checksum", "dropped: wrong TCP checksum";
    RxNoConnection, "rx_no_connection", "no such connection in the stack: injected into the kernel";
    RxOutOfWindow, "rx_out_of_window", "segments outside the receive window";
    RxPaws, "rx_paws", "segments rejected by timestamp (PAWS)";
    RxOutOfOrder, "rx_out_of_order", "segments received out of order";
    RxDuplicate, "rx_duplicate", "segments that brought nothing new";
    RxUrgent, "rx_urgent", "segments with urgent data: the connection was demoted";
    Injected, "injected", "frames handed to the kernel's receive path";
    InjectFailed, "inject_failed", "frames that the daemon did not inject";
    SegmentsSent, "segments_sent", "TCP segments sent";
    Retransmits, "retransmits", "TCP segments sent again";
    Timeouts, "timeouts", "retransmission timeouts";
    FastRetransmits, "fast_retransmits", "loss recoveries entered by duplicate acknowledgements";
    ZeroWindowProbes, "zero_window_probes", "probes of a closed window";
    KeepaliveProbes, "keepalive_probes", "keepalive probes";
    ChallengeAcks, "challenge_acks", "challenge ACKs sent (RFC 5961)";
    ResetsReceived, "resets_received", "valid resets received";
    DelayedAcks, "delayed_acks", "acknowledgements sent by the delayed-ACK timer";
    TooBigTaken, "too_big_taken", "messages of routers that packets are too big, acted on";
    TooBigIgnored, "too_big_ignored", "such messages that name nothing in flight, or nothing new";
    BlackHoles, "black_holes", "packets made smaller because full ones vanished silently";
    MtuProbesLost, "mtu_probes_lost", "larger packets that were tried and lost";
    NoFrame, "no_frame", "sends put off because no frame was free";
    FillShort, "fill_short", "fill ring refills put off because no frame was free";
    ShmPromotions, "shm_promotions", "connections that went over to the shm lane";
    ShmDemotions, "shm_demotions", "connections that left the shm lane";
    SpinsPaid, "spins_paid", "waits that ended while spinning";
    SpinsWasted, "spins_wasted", "waits that spun and then slept";
    Sleeps, "sleeps", "waits that slept";
    Doorbells, "doorbells", "sleeping threads woken by another thread";
    CallsForeign, "calls_foreign", "calls on a connection that another process's stack carries";
    Panics, "panics", "bugs of the library caught at a hook";
}

/// Where the counts of refusals begin in the page, one for each reason's number.
const REFUSALS_AT: usize = 256;
/// Reasons that are counted.
pub const REFUSALS: usize = 128;

/// The counter page of a stack.
#[derive(Clone, Copy)]
pub struct Stats<'a>(pub &'a [AtomicU64]);

impl Stats<'_> {
    /// Adds to a counter. The owner counts under the stack's lock, so that a load and a store do; others only read.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        if let Some(cell) = self.0.get(counter as usize) {
            cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        }
    }

    /// Adds to the promotions refused for a reason.
    pub fn add_refusals(&self, reason: Reason, n: u64) {
        if let Some(cell) = self.0.get(refusals_at(reason)) {
            cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        }
    }

    /// Reads a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).map_or(0, |cell| cell.load(Relaxed))
    }
}

/// Words of the page.
pub const WORDS: usize = REFUSALS_AT + REFUSALS;

/// The place of a reason's refusals in the page.
pub const fn refusals_at(reason: Reason) -> usize {
    REFUSALS_AT + reason as usize
}

const _: () = assert!(Counter::ALL.len() <= REFUSALS_AT && WORDS * size_of::<u64>() <= 4096);
