//! Connections that change hands in mid-stream.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::tcp::{Algorithm, Connection, ImportError, Instant, Recovery, State, Tcb};
use underpass_stack::testkit::random::Random;
use underpass_stack::testkit::traffic::Traffic;
use underpass_stack::testkit::{A, B, Host, LinkSpec, Pair, Setup};
use zerocopy::FromZeros;

const SECOND: u64 = 1_000_000_000;

/// Runs traffic while both ends change hands in one of `every` steps.
fn hand_over(link: LinkSpec, flags: u32, every: u64, close: bool, seed: u64) -> (Pair, u64) {
    println!("seed {seed} {link:?} flags {flags:x} every {every} close {close}");
    let setup = Setup { isn: [u32::MAX - 70_000, 4_000_000_000], flags, ..Setup::default() };
    let mut pair = Pair::new(&setup, link, seed);
    let mut random = Random::new(seed);
    let mut traffic = Traffic::new([300_000, 250_000], 4000, seed);
    traffic.close = [close; 2];
    let mut hands = 0;
    traffic.run(&mut pair, 3000 * SECOND, |pair| {
        for side in [A, B] {
            if random.below(every) == 0 {
                hands += 1;
                pair.hosts[side].change_hands(pair.now);
            }
        }
    });
    if close {
        let ended = |state| matches!(state, State::TimeWait | State::Closed);
        let done = pair.run(200 * SECOND, |p| {
            let side = random.below(20) as usize;
            if side <= B {
                p.hosts[side].change_hands(p.now);
            }
            p.hosts.iter().all(|host| ended(host.tcb.state()))
        });
        assert!(done, "seed {seed}: {:?} {:?}", pair.hosts[A].tcb.state(), pair.hosts[B].tcb.state());
    }
    (pair, hands)
}

const ALL: u32 = flag::SACK | flag::TIMESTAMPS | flag::WSCALE;

#[test]
fn on_a_good_link_nothing_is_sent_again() {
    let (pair, hands) = hand_over(LinkSpec::default(), ALL, 2, false, 1);
    assert!(hands > 10, "{hands}");
    for host in &pair.hosts {
        assert_eq!(host.count(Counter::Timeouts) + host.count(Counter::Retransmits), 0);
        assert_eq!(host.count(Counter::ChallengeAcks) + host.count(Counter::RxOutOfWindow), 0);
    }
}

#[test]
fn in_the_middle_of_loss_recovery() {
    for seed in 0..40 {
        let flags = if seed % 2 == 0 { ALL } else { flag::WSCALE };
        let link = LinkSpec { loss: 50, duplication: 20, reordering: 100, jitter: 200_000, ..LinkSpec::default() };
        let (pair, hands) = hand_over(link, flags, 20, seed % 3 == 0, seed);
        assert!(hands > 2 && pair.hosts[A].count(Counter::RxOutOfOrder) > 0, "{hands}");
    }
}

#[test]
fn an_image_is_the_same_after_a_round_trip() {
    let (mut seen, mut random) = ((false, false), Random::new(7));
    // Without SACK, timeouts repair what is lost.
    for (congestion, flags) in [(Algorithm::Cubic, ALL), (Algorithm::Reno, ALL), (Algorithm::Cubic, flag::WSCALE)] {
        let link = LinkSpec { loss: 100, ..LinkSpec::default() };
        let mut pair = Pair::new(&Setup { congestion, flags, ..Setup::default() }, link, 7);
        let mut traffic = Traffic::new([100_000, 100_000], 4000, 7);
        traffic.close = [true, false];
        traffic.run(&mut pair, 3000 * SECOND, |pair| {
            // An image alone tells neither of holes nor of data beyond them: who forgot them at each step would hardly ever mend one.
            if random.below(4) != 0 {
                return;
            }
            let host = &mut pair.hosts[A];
            let before = host.export(pair.now);
            host.change_hands_by_image(pair.now);
            let after = host.export(pair.now);
            // Of a back-off with nothing in flight nobody knows whether it is the retransmission timer's.
            let backoff = if before.0.snd_nxt == before.0.snd_una { 0 } else { before.0.backoff };
            let same = Image { backoff, ..before.0 };
            seen = (seen.0 | (before.0.cwnd < 10), seen.1 | (backoff != 0));
            assert_eq!((same, &before.1, &before.2), (after.0, &after.1, &after.2));
        });
    }
    assert_eq!(seen, (true, true), "reduced windows and backed-off timers have crossed");
}

#[test]
fn impossible_images_are_refused() {
    let setup = Setup::default();
    let good = setup.image(A);
    let import = |image: &Image, recv: usize, send: usize, ring: usize, mtu: u32| {
        let mut tcb = Tcb::new_zeroed();
        let (mut snd, mut rcv) = (vec![0; 1 << 16], vec![0; ring]);
        let now = Instant(1);
        let mut recovery = Recovery::default();
        let (recv, send) = (vec![0; recv], vec![0; send]);
        Connection::import(&mut tcb, &mut snd, &mut rcv, &mut recovery, image, &recv, &send, mtu, now)
    };
    let bad = |change: &dyn Fn(&mut Image)| {
        let mut image = good;
        change(&mut image);
        import(&image, image.unread().min(100) as usize, 0, 1 << 16, 1500)
    };
    assert_eq!(bad(&|_| ()), Ok(()));
    assert_eq!(import(&good, 1, 0, 1 << 16, 1500), Err(ImportError::Unsound), "bytes that the image does not know");
    assert_eq!(import(&good, 0, 1, 1 << 16, 1500), Err(ImportError::Unsound));
    assert_eq!(import(&good, 0, 0, 1000, 1500), Err(ImportError::RingSize));
    assert_eq!(import(&good, 0, 0, 1 << 15, 1500), Err(ImportError::WindowTooLarge));
    assert_eq!(import(&good, 0, 0, 1 << 16, 60), Err(ImportError::Mtu));
    assert_eq!(bad(&|i| i.snd_nxt += 1), Err(ImportError::Unsound), "sent more than there is");
    assert_eq!(bad(&|i| i.snd_wscale = 15), Err(ImportError::Unsound));
    assert_eq!(bad(&|i| i.rcv_wup += 1), Err(ImportError::Unsound));
    assert_eq!(bad(&|i| i.rcv_wnd = u32::MAX), Err(ImportError::WindowTooLarge));
    assert_eq!(bad(&|i| i.rcv_read -= 10), Err(ImportError::WindowTooLarge));
    assert_eq!(bad(&|i| i.rcv_read += 10), Err(ImportError::Unsound));
}

#[test]
fn bytes_in_flight_that_were_lost_are_sent_again_after_the_import() {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
    let now = pair.now;
    assert_eq!(pair.hosts[A].connection().send(now, &[7; 5000], false), 5000);
    pair.flush();
    pair.links[A].cut();
    pair.hosts[A].change_hands(now);
    assert!(pair.run(3 * SECOND, |p| p.hosts[B].tcb.readable() == 5000));
}

/// A sends eight full segments, of which the first and the fourth are lost; then B changes hands, and all arrives. Returns where data lay beyond
/// gaps before and after, and how often something was sent again.
fn beyond_gaps(v6: bool, change: fn(&mut Host, Instant)) -> ([Vec<(u32, u32)>; 2], u64) {
    let mut pair = Pair::new(&Setup { v6, ..Setup::default() }, LinkSpec::default(), 1);
    let full = pair.hosts[A].tcb.mss() as usize;
    let data: Vec<u8> = (0..8 * full).map(|n| ((n * 31) >> 3) as u8).collect();
    for (n, segment) in data.chunks(full).enumerate() {
        let now = pair.now;
        pair.links[A].spec.loss = if n == 0 || n == 3 { 1000 } else { 0 };
        assert_eq!(pair.hosts[A].connection().send(now, segment, false), full);
        pair.flush();
    }
    // They arrive, and nothing of what B says of it yet.
    pair.pass(60_000);
    let (now, host) = (pair.now, &mut pair.hosts[B]);
    let before = host.ahead();
    change(host, now);
    let after = host.ahead();
    assert!(pair.run(5 * SECOND, |pair| pair.hosts[B].tcb.readable() == data.len()), "stuck");
    let mut got = vec![0; data.len()];
    assert_eq!(pair.hosts[B].connection().recv(&mut got), data.len());
    assert!(got == data);
    ([before, after], pair.hosts[A].count(Counter::Retransmits) + pair.hosts[A].count(Counter::Timeouts))
}

/// The peer was told of it by SACK and will not send it again.
#[test]
fn what_arrived_out_of_order_goes_along() {
    for v6 in [false, true] {
        let ([before, after], again) = beyond_gaps(v6, Host::change_hands);
        assert_eq!((before.len(), again), (2, 2), "what was lost is sent again, once");
        assert_eq!(before, after);
    }
}

#[test]
fn what_a_dead_owner_had_out_of_order_is_sent_again() {
    let ([before, after], again) = beyond_gaps(false, Host::change_hands_by_image);
    assert_eq!((before.len(), after.len()), (2, 0));
    assert!(again > 2, "{again}");
}

mod any_record {
    use super::*;
    use proptest::prelude::*;
    use underpass_stack::ip::flow::FlowKey;
    use zerocopy::{FromBytes, IntoBytes};

    proptest! {
        /// The daemon reads records that a hostile owner may have filled with anything.
        #[test]
        fn makes_an_image_without_harm(bytes in proptest::collection::vec(any::<u8>(), size_of::<Tcb>()), now: u64) {
            let tcb = Tcb::read_from_bytes(&bytes).unwrap();
            let image = tcb.image(FlowKey::default(), Instant(now));
            let sound = image.is_sound(1 << 16, 1 << 16);
            let _ = (sound, tcb.state(), tcb.deadline(), tcb.rtt_us(), tcb.congestion());
            let _ = (tcb.readable(), tcb.unsent(), tcb.unacked(), tcb.at_eof());
        }

        /// Nor do a few wrong words in an otherwise good record.
        #[test]
        fn survives_scribbling(words in proptest::collection::vec((0..size_of::<Tcb>() / 4, any::<u32>()), 1..4)) {
            let setup = Setup::default();
            let pair = Pair::new(&setup, LinkSpec::default(), 1);
            let mut bytes = pair.hosts[A].tcb.as_bytes().to_vec();
            for (at, word) in words {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
            }
            let image = Tcb::read_from_bytes(&bytes).unwrap().image(setup.image(A).flow, pair.now);
            if image.is_sound(1 << 16, 1 << 16) {
                prop_assert!(image.unread() <= 1 << 16 && image.unacknowledged() <= 1 << 16);
            }
        }
    }
}
