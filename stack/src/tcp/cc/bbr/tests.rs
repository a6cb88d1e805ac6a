use super::*;
use crate::tcp::cc::Ack;
use crate::tcp::rate::RateSample;
use crate::tcp::seq::SeqNr;

const MSS: u32 = 1000;
const MS: u64 = 1_000_000;
/// Acknowledgements of a round.
const ACKS: u64 = 20;

/// A path that carries `bw` bytes a second with a round trip of `rtt` ns and whose queue takes everything else.
struct Path {
    bbr: Bbr,
    window: Window,
    now: Instant,
    delivered: u64,
    bw: u64,
    rtt: u64,
    in_flight: u64,
    phase: Phase,
}

impl Path {
    fn new(bw: u64, rtt_ms: u64) -> Self {
        let window = Window { cwnd: 10 * MSS, ssthresh: u32::MAX };
        let (rtt, now) = (rtt_ms * MS, Instant(5_000 * MS));
        Self {
            bbr: Bbr::new(&window, Some(rtt)),
            window,
            now,
            delivered: 0,
            bw,
            rtt,
            in_flight: 10_000,
            phase: Phase::Open,
        }
    }

    fn bdp(&self) -> u64 {
        self.bw * (self.rtt / 1_000) / 1_000_000
    }

    /// A round trip: what is in flight comes back, no faster than the path carries it, and as much leaves as window and rate allow.
    fn round(&mut self, app_limited: bool, lost: u32) {
        let took = self.rtt.max(self.in_flight * 1_000_000_000 / self.bw);
        for n in 0..ACKS {
            self.step(took, took / ACKS, app_limited, if n == 0 { lost } else { 0 });
        }
    }

    fn step(&mut self, rtt: u64, time: u64, app_limited: bool, lost: u32) {
        let at = |rate: u64, time: u64| rate * (time / 1_000) / 1_000_000;
        self.now = self.now.after(time);
        let before = self.in_flight;
        let carried = at(self.bw, time).min(before * time / rtt);
        self.delivered += carried;
        self.in_flight -= (carried + u64::from(lost)).min(before);
        let rate = RateSample {
            delivered: carried * rtt / time,
            interval: rtt,
            is_app_limited: app_limited,
            prior_delivered: self.delivered.saturating_sub(before),
            total_delivered: self.delivered,
            newly_delivered: carried as u32,
            newly_lost: lost,
            prior_in_flight: before as u32,
            in_flight: self.in_flight as u32,
            rtt: Some(rtt),
            ..RateSample::default()
        };
        let (una, nxt) = (SeqNr(self.delivered as u32), SeqNr(self.delivered as u32));
        let (now, srtt) = (self.now, Some(self.rtt));
        let ack = Ack { now, acked: carried as u32, acks: 1, flight: before as u32, mss: MSS, srtt, una, nxt };
        self.bbr.on_delivery(&mut self.window, &Told { ack, rate }, self.phase);
        let room = u64::from(self.window.cwnd).saturating_sub(self.in_flight);
        self.in_flight += room.min(at(self.bbr.pacing_rate(), time));
    }

    fn rounds(&mut self, n: u32) {
        (0..n).for_each(|_| self.round(false, 0));
    }

    fn seconds(&mut self, n: u64) {
        let end = self.now.after(n * 1_000 * MS);
        while self.now < end {
            self.round(false, 0);
        }
    }
}

#[test]
fn startup_doubles_until_the_path_is_full_and_drains() {
    let mut path = Path::new(10_000_000, 40);
    let mut windows = Vec::new();
    while path.bbr.mode() == Mode::Startup {
        windows.push(path.window.cwnd);
        path.round(false, 0);
        assert!(windows.len() < 20, "{windows:?}");
    }
    assert!(windows.windows(2).take(5).all(|w| w[1] > w[0] * 9 / 5), "{windows:?}");
    // From 10 to 400 segments, and three rounds without more.
    assert!((8..=11).contains(&windows.len()), "{windows:?}");
    path.rounds(3);
    assert_eq!(path.bbr.mode(), Mode::ProbeBw);
    assert!(path.bbr.bw().abs_diff(path.bw) <= path.bw / 100, "{}", path.bbr.bw());
    assert!(u64::from(path.window.ssthresh) >= path.bdp());
}

#[test]
fn pacing_begins_with_the_window_in_a_round_trip() {
    let path = Path::new(10_000_000, 100);
    let expected = 100_000 * HIGH_GAIN / GAIN_ONE * 99 / 100;
    assert!(path.bbr.pacing_rate().abs_diff(expected) <= expected / 100, "{}", path.bbr.pacing_rate());
    let mut path = Path::new(10_000_000, 100);
    path.round(false, 0);
    assert!(path.bbr.pacing_rate() >= expected, "it only grows");
}

#[test]
fn the_cycle_goes_around_and_two_products_are_in_flight() {
    let mut path = Path::new(10_000_000, 40);
    path.rounds(12);
    let mut gains = Vec::new();
    for _ in 0..80 {
        path.round(false, 0);
        gains.push(path.bbr.pacing_gain());
        let rate = path.bbr.pacing_rate() as f64 / (path.bw as f64 * path.bbr.pacing_gain() as f64 / 256.0);
        assert!((0.98..=1.0).contains(&rate), "{rate}");
    }
    for gain in [320, 192] {
        let times = gains.windows(2).filter(|w| w[0] != gain && w[1] == gain).count();
        assert!((5..=20).contains(&times), "{gain}: {times}");
    }
    let share = f64::from(path.window.cwnd) / path.bdp() as f64;
    assert!((2.0..2.3).contains(&share), "{share}");
}

#[test]
fn the_shortest_round_trip_is_looked_for_every_ten_seconds() {
    let mut path = Path::new(10_000_000, 40);
    path.seconds(9);
    assert_eq!(path.bbr.min_rtt, 40_000);
    let before = path.window.cwnd;
    // The path has become longer: for ten seconds nobody knows whether it is a queue.
    path.rtt = 60 * MS;
    let (mut smallest, mut probed) = (u32::MAX, 0);
    let end = path.now.after(12_000 * MS);
    while path.now < end {
        path.round(false, 0);
        if path.bbr.is_probing_rtt() {
            probed += 1;
            smallest = smallest.min(path.window.cwnd);
        }
    }
    assert_eq!(smallest, 4 * MSS);
    assert!((3..=8).contains(&probed), "200 ms and a round: {probed}");
    assert_eq!(path.bbr.min_rtt, 60_000);
    assert!(path.window.cwnd >= before, "and the window came back");
}

#[test]
fn without_the_model_the_window_is_what_the_path_holds() {
    let mut path = Path::new(10_000_000, 40);
    let plain = |path: &Path| path.bbr.without_model(&path.window, MSS);
    path.rounds(3);
    assert_eq!((path.bbr.mode(), plain(&path)), (Mode::Startup, path.window.cwnd), "there is no model yet");
    path.rounds(20);
    let bdp = path.bdp() as u32;
    let is_path = |path: &Path| (bdp * 98 / 100..bdp * 102 / 100).contains(&plain(path));
    for _ in 0..100 {
        path.round(false, 0);
        assert!(is_path(&path), "{} of {bdp}, {:?}", plain(&path), path.bbr.mode());
    }
    // The shortest round trip is looked for.
    (path.bbr.prior_cwnd, path.window.cwnd, path.bbr.mode) = (path.window.cwnd, 4 * MSS, Mode::ProbeRtt as u8);
    assert!(is_path(&path), "{} of {bdp}", plain(&path));
    path.window.cwnd = 3 * MSS;
    path.bbr.mode = Mode::ProbeBw as u8;
    assert_eq!(plain(&path), 3 * MSS, "a window that has come down stays down");
    let mut short = Path::new(1_000_000, 1);
    short.rounds(30);
    assert_eq!(plain(&short), short.window.cwnd.min(10 * MSS), "no less than where everybody begins");
}

#[test]
fn a_quiet_program_does_not_make_the_path_slow() {
    let mut path = Path::new(10_000_000, 40);
    path.rounds(12);
    let known = path.bbr.bw();
    for _ in 0..100 {
        let cwnd = path.window.cwnd;
        path.window.cwnd = 2 * MSS;
        path.round(true, 0);
        path.window.cwnd = cwnd;
    }
    assert_eq!(path.bbr.bw(), known);
}

#[test]
fn a_slower_path_is_known_after_ten_rounds() {
    let mut path = Path::new(10_000_000, 40);
    path.rounds(15);
    path.bw = 2_000_000;
    path.rounds(12);
    assert!(path.bbr.bw() <= 2_100_000, "{}", path.bbr.bw());
}

#[test]
fn recovery_conserves_packets_for_a_round_and_then_gives_the_window_back() {
    let mut path = Path::new(10_000_000, 40);
    path.rounds(15);
    let before = path.window.cwnd;
    path.bbr.on_loss(&path.window);
    path.phase = Phase::Recovery;
    path.round(false, 10 * MSS);
    assert!(path.window.cwnd < before, "what is in flight, no more");
    path.round(false, 0);
    path.phase = Phase::Open;
    path.round(false, 0);
    assert!(path.window.cwnd >= before * 9 / 10, "{} {before}", path.window.cwnd);
    assert!(path.bbr.bw() >= 9_000_000, "a loss says nothing of the rate");
}

#[test]
fn a_timeout_leaves_the_model() {
    let mut path = Path::new(10_000_000, 40);
    path.rounds(15);
    let (before, rate) = (path.window.cwnd, path.bbr.pacing_rate());
    path.bbr.on_timeout(&path.window);
    path.window.cwnd = MSS;
    path.phase = Phase::Open;
    path.round(false, 0);
    assert!(path.window.cwnd >= before && path.bbr.pacing_rate() >= rate * 3 / 4);
}

#[test]
fn after_silence_it_goes_on_at_the_known_rate_and_does_not_look_for_the_round_trip_at_once() {
    let mut path = Path::new(10_000_000, 40);
    path.rounds(15);
    path.now = path.now.after(30_000 * MS);
    path.bbr.on_restart(&mut path.window, path.now);
    let rate = path.bw * 99 / 100;
    assert!(path.bbr.pacing_rate().abs_diff(rate) <= rate / 50);
    path.round(false, 0);
    assert_eq!(path.bbr.mode(), Mode::ProbeBw);
}

#[test]
fn a_model_from_elsewhere_spares_the_startup() {
    let mut path = Path::new(10_000_000, 40);
    let bdp = path.bdp();
    (path.window.cwnd, path.in_flight) = (2 * bdp as u32, bdp);
    path.bbr.learn(path.bw, 40_000, true, path.now);
    for _ in 0..12 {
        path.round(false, 0);
        assert!(path.in_flight <= bdp * 3 / 2, "a queue was built: {} of {bdp}", path.in_flight);
        assert_eq!(path.bbr.mode(), Mode::ProbeBw);
        assert!(path.bbr.bw() >= path.bw * 9 / 10);
    }
}

#[test]
fn a_startup_goes_on_with_the_rate_that_was_found() {
    let slow_start = Path::new(10_000_000, 40).bbr.pacing_rate();
    // Much was found, or hardly anything, since the program had little to say.
    for (found, rate) in [(4_000_000, 11_500_000), (1_000, slow_start)] {
        let mut path = Path::new(10_000_000, 40);
        path.window.cwnd = 200_000;
        path.bbr.learn(found, 40_000, false, path.now);
        assert_eq!(path.bbr.mode(), Mode::Startup);
        assert!(path.bbr.pacing_rate().abs_diff(rate) < 300_000, "{found}: {}", path.bbr.pacing_rate());
        path.rounds(15);
        assert_eq!(path.bbr.mode(), Mode::ProbeBw);
        assert!(path.bbr.bw() >= 9_000_000);
    }
}

#[test]
fn nonsense_from_elsewhere_is_survived() {
    for bandwidth in [0, 1, u64::MAX] {
        for (rtt, full) in [(0, true), (u32::MAX, true), (0, false), (u32::MAX, false)] {
            let mut path = Path::new(10_000_000, 40);
            path.bbr.learn(bandwidth, rtt, full, path.now);
            path.rounds(60);
            assert!((1..=BW_MAX).contains(&path.bbr.pacing_rate()));
            // Too much is forgotten after a while; too little grows as slowly as probing goes.
            assert!(path.bbr.bw() <= 2 * path.bw, "{bandwidth} {rtt} {full}: {}", path.bbr.bw());
        }
    }
}
