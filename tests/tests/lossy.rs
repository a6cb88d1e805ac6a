//! Connections change tiers while the wire loses packets, in the midst of recoveries and timeouts: every byte arrives once, and no connection
//! dies of it. How long it takes is the wire's business.

use std::time::Instant;

use underpass_lab::{Kind, Lab, LabOptions, Over, Preload, Profile, Side, Standstills, Talk, Tally};
use underpass_stack::testkit::LinkSpec;

const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");
const EAGER: (&str, &str) = ("UNDERPASS_PROMOTE", "eager");
/// 10 ms there and back, two frames in a hundred lost each way.
const LOSSY: LinkSpec = LinkSpec { delay: 5_000_000, loss: 20, ..LinkSpec::CLEAN };
/// Seven segments, with losses among them and at their end.
const MESSAGES: Kind = Kind::PingPong(10_000);
/// How often a bulk sender may be found wasteful, or the machine absent.
const ATTEMPTS: usize = 4;
/// The part of the time for which the machine may stand still; beyond, any sender's timers run out for nothing.
const AWAY: f64 = 0.02;

/// Demotes each preloaded end so many times, always with something unacknowledged; eager promotion takes it back. Says what was
/// counted meanwhile.
fn shuttle(over: Over, kind: Kind, preload: Preload, demotions: u64) -> Tally {
    let options = LabOptions { profile: Profile::Release, over, link: Some(LOSSY), ..LabOptions::default() };
    let lab = Lab::with_daemon(options).unwrap();
    let mut talk = Talk::start(&lab, TRAFFIC, kind, preload, &[EAGER]).unwrap();
    for side in preload.sides() {
        await_busy_lane(&lab, &mut talk, side, 0);
    }
    let before = Tally::take(&lab, &mut talk, preload).unwrap();
    let more = if matches!(kind, Kind::PingPong(_)) { 6 } else { 200_000 };
    for demoted in 0..demotions {
        for side in preload.sides() {
            demote_busy(&lab, &mut talk, side, demoted);
            talk.go_on(more).unwrap_or_else(|error| panic!("{side:?} demoted {demoted} times: {error}"));
        }
    }
    for side in preload.sides() {
        await_busy_lane(&lab, &mut talk, side, demotions);
        let counters = lab.counters(talk.program(side).pid()).unwrap();
        let count = |name: &str| counters[name];
        assert!(count("demotions") >= demotions && count("promotions") > demotions, "{side:?}: {counters:?}");
        assert_eq!(count("demotions_failed") + count("resets_received"), 0, "{side:?}: {counters:?}");
    }
    let tally = Tally::take(&lab, &mut talk, preload).unwrap().since(&before);
    println!("{over:?} {kind:?} {preload:?}: {tally}");
    assert!(tally.sum(&["stack retransmits"]) > 0, "the wire lost nothing of the lane's: {tally}");
    assert_eq!(tally.sum(&["Tcp.OutRsts", "TcpExt.TCPAbortOnTimeout"]), 0, "{tally}");
    talk.end().unwrap();
    tally
}

/// A bulk sender that forgets what its peer has, whenever it changes tiers, sends all of that again: a window full. The peer, a kernel, counts
/// what had arrived and came again.
fn shuttle_without_waste(over: Over) {
    let mut wasteful = Vec::new();
    for _ in 0..ATTEMPTS {
        let (watch, start) = (Standstills::watch().unwrap(), Instant::now());
        let tally = shuttle(over, Kind::Flood, Preload::Client, 8);
        let in_vain = tally.sum(&["TcpExt.TCPDSACKOldSent", "TcpExt.TCPDSACKOfoSent"]);
        let sent = tally.sum(&["stack segments_sent"]);
        if in_vain * 14 < sent {
            return;
        }
        let away = watch.total().as_secs_f64() / start.elapsed().as_secs_f64();
        println!("{in_vain} of {sent} segments were sent in vain; {watch}");
        if away <= AWAY {
            wasteful.push(tally.to_string());
        }
    }
    assert!(wasteful.is_empty(), "{wasteful:#?}");
}

/// Waits until a side was promoted once more than `demoted` times, and has sent or queued something that its peer has not acknowledged.
fn await_busy_lane(lab: &Lab, talk: &mut Talk, side: Side, demoted: u64) {
    let busy = talk.await_connection(lab, side, "something outstanding on lane xdp", |socket| {
        socket.tier == "xdp" && socket.promoted > demoted && socket.send_q > 0
    });
    busy.unwrap_or_else(|error| panic!("after {demoted} demotions: {error}"));
}

fn demote_busy(lab: &Lab, talk: &mut Talk, side: Side, demoted: u64) {
    await_busy_lane(lab, talk, side, demoted);
    let pid = talk.program(side).pid().to_string();
    let said = lab.underpass(&["demote", "-p", &pid, "--all"]).unwrap();
    assert_eq!(said.trim(), "demoted 1 connection(s)");
}

/// The sender moves, in the midst of whatever it is repairing: its queue is never empty. (The receiver of such a stream hardly ever moves:
/// its kernel holds something out of order most of the time.)
#[test]
fn a_bulk_sender_shuttles_over_a_lossy_wire() {
    shuttle_without_waste(Over::V4);
    shuttle_without_waste(Over::V6);
}

#[test]
fn messages_shuttle_over_a_lossy_wire() {
    shuttle(Over::V4, MESSAGES, Preload::Server, 8);
    shuttle(Over::V6, MESSAGES, Preload::Both, 5);
}
