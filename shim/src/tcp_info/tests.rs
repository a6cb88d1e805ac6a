use underpass_stack::testkit::traffic::Traffic;
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(got(bytes, offset).unwrap())
}

fn long(bytes: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(got(bytes, offset).unwrap())
}

/// A kernel's answer in which every byte is `byte`.
fn kernels(byte: u8) -> Vec<u8> {
    vec![byte; 280]
}

/// A transfer from A to B over a bad link.
fn busy() -> Pair {
    let link = LinkSpec { loss: 30, duplication: 20, reordering: 30, jitter: 2 * MS, delay: 5 * MS, ..LinkSpec::CLEAN };
    let mut pair = Pair::new(&Setup::default(), link, 3);
    let mut traffic = Traffic::new([500_000, 0], 20_000, 1);
    traffic.run(&mut pair, 600 * SECOND, |_| ());
    assert!(traffic.is_done() && pair.run(60 * SECOND, |pair| pair.hosts[A].tcb.unacked() == 0));
    // A timeout and its repair.
    pair.links[A].spec.loss = 1000;
    let now = pair.now;
    pair.hosts[A].connection().send(now, b"lost", false);
    pair.pass(SECOND);
    pair.links[A].spec = LinkSpec::CLEAN;
    assert!(pair.run(60 * SECOND, |pair| pair.hosts[A].tcb.unacked() == 0));
    pair
}

fn told(pair: &mut Pair, side: usize, kernels: Vec<u8>) -> Vec<u8> {
    let now = pair.now;
    of_lane(kernels, &mut pair.hosts[side].connection(), now)
}

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
        assert_eq!(offset(&raw const (*info).tcpi_ato as usize), at::ATO);
        assert_eq!(offset(&raw const (*info).tcpi_rcv_mss as usize), at::RCV_MSS);
        assert_eq!(offset(&raw const (*info).tcpi_last_data_sent as usize), at::LAST_DATA_SENT);
        assert_eq!(offset(&raw const (*info).tcpi_last_ack_recv as usize), at::LAST_ACK_RECV);
        assert_eq!(offset(&raw const (*info).tcpi_pmtu as usize), at::PMTU);
        assert_eq!(offset(&raw const (*info).tcpi_reordering as usize), at::REORDERING);
        assert_eq!(offset(&raw const (*info).tcpi_rcv_space as usize), at::RCV_SPACE);
    }
}

/// What the lane counted is what is added, whatever the kernel had counted before, and both ends agree.
#[test]
fn totals_go_on_from_the_kernels() {
    let mut pair = busy();
    let (fresh, later) = (told(&mut pair, A, kernels(0)), told(&mut pair, A, kernels(1)));
    for offset in TOTALS_32 {
        assert_eq!(word(&later, offset), word(&fresh, offset) + 0x0101_0101, "at {offset}");
    }
    for offset in TOTALS_64 {
        assert_eq!(long(&later, offset), long(&fresh, offset) + 0x0101_0101_0101_0101, "at {offset}");
    }
    for offset in TOTALS_16 {
        assert_eq!(
            got(&later, offset).map(u16::from_ne_bytes),
            Some(got(&fresh, offset).map_or(0, u16::from_ne_bytes) + 0x0101)
        );
    }
    let receiver = told(&mut pair, B, kernels(0));
    assert_eq!(long(&fresh, at::BYTES_ACKED), 500_004);
    assert_eq!(long(&receiver, at::BYTES_RECEIVED), 500_004);
    assert_eq!(word(&fresh, at::DELIVERED), word(&fresh, at::DATA_SEGS_OUT) - word(&fresh, at::TOTAL_RETRANS));
    assert!(word(&fresh, at::DSACK_DUPS) > 0 && word(&fresh, at::REORD_SEEN) > 0);
    assert!(word(&receiver, at::RCV_OOOPACK) > 0 && word(&receiver, at::TOTAL_RETRANS) == 0);
    assert!(
        got(&fresh, at::TOTAL_RTO).map(u16::from_ne_bytes)
            >= got(&fresh, at::TOTAL_RTO_RECOVERIES).map(u16::from_ne_bytes)
    );
    assert!(got(&fresh, at::TOTAL_RTO_RECOVERIES) != Some([0; 2]) && word(&fresh, at::TOTAL_RTO_TIME) > 0);
}

#[test]
fn nothing_else_is_left_as_the_silent_socket_had_it() {
    let mut pair = busy();
    let (one, other) = (told(&mut pair, A, kernels(0)), told(&mut pair, A, kernels(1)));
    let differ: Vec<usize> = (0..at::TOTAL_RTO).filter(|&at| one[at] != other[at]).collect();
    let totals = TOTALS_32.map(|at| (at, 4)).into_iter().chain(TOTALS_64.map(|at| (at, 8)));
    let agreed = [
        (5, 2),   // options, window scales
        (40, 4),  // fackets: always 0
        (48, 4),  // last_ack_sent: always 0
        (84, 4),  // advmss
        (112, 8), // max_pacing_rate
        (236, 4), // rehash
    ];
    let places: Vec<(usize, usize)> = totals.chain(agreed).collect();
    // Of the kernel's share of byte 7, TCP Fast Open has two bits.
    let stale = |at: &&usize| {
        **at != at::DELIVERY_APP_LIMITED && !places.iter().any(|(from, len)| (*from..from + len).contains(*at))
    };
    assert_eq!(differ.iter().find(stale), None);
    assert_eq!([at::BUSY_TIME, at::RWND_LIMITED, at::SNDBUF_LIMITED].map(|at| long(&other, at)), [0; 3]);
    assert_eq!((word(&one, at::MIN_RTT) / 1000, word(&one, at::REORDERING)), (10, 3));
}

#[test]
fn the_kernels_shortest_round_trip_stands_until_there_is_another() {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::CLEAN, 1);
    assert_eq!(word(&told(&mut pair, A, kernels(1)), at::MIN_RTT), 0x0101_0101);
}

/// The kernel begins at 0 after a demotion, and what had not been read is counted by it again.
#[test]
fn what_was_counted_before_a_demotion_is_not_forgotten() {
    let mut pair = busy();
    let before = told(&mut pair, A, kernels(1));
    let earlier = Earlier::of(before.clone(), 1000);
    let after = earlier.with(kernels(0));
    for offset in TOTALS_32 {
        assert_eq!(word(&after, offset), word(&before, offset), "at {offset}");
    }
    for offset in TOTALS_64 {
        let unread = if offset == at::BYTES_RECEIVED { 1000 } else { 0 };
        assert_eq!(long(&after, offset), long(&before, offset) - unread, "at {offset}");
    }
    for offset in TOTALS_16 {
        assert_eq!(got::<2>(&after, offset), got(&before, offset), "at {offset}");
    }
    assert_eq!(word(&after, at::RTT), 0, "that is no count");
    let mut again = Earlier::of(before.clone(), 1000);
    again.without_acked(0);
    assert_eq!(again.with(kernels(0)), after);
    again.without_acked(1);
    let again = again.with(kernels(0));
    assert_eq!(long(&again, at::BYTES_ACKED) + 1, long(&after, at::BYTES_ACKED));
    assert_eq!(word(&again, at::DELIVERED) + 1, word(&after, at::DELIVERED));
    assert_eq!(Earlier::NONE.with(kernels(7)), kernels(7));
    let short = earlier.with(vec![0; at::DELIVERED]);
    assert_eq!(
        (short.len(), long(&short, at::BYTES_RECEIVED)),
        (at::DELIVERED, long(&before, at::BYTES_RECEIVED) - 1000)
    );
}
