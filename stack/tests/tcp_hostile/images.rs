//! Images that contradict themselves: they are refused, or the engine can live with them. And records that somebody has written over: what
//! the daemon reads of them is refused, or sound.

use underpass_stack::tcp::image::Image;
use underpass_stack::tcp::scoreboard::Piece;
use underpass_stack::tcp::{Instant, Scoreboard};
use underpass_stack::testkit::{A, Host, Setup};
use zerocopy::{FromBytes, IntoBytes};

use super::input::Input;
use super::segments::{Player, byte};

const RING: u32 = 1 << 14;
/// The fields behind the addresses.
const NUMBERS_AT: usize = size_of::<underpass_stack::ip::flow::FlowKey>();
/// Numbers at which something may go wrong.
const ODD: [u32; 12] =
    [0, 1, 2, RING - 1, RING, RING + 1, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_0000, u32::MAX - 1, u32::MAX];

/// No clock that counts nanoseconds from the boot on gets further in a century.
const LATEST: u64 = 1 << 62;

/// Returns the number of steps.
pub fn play(input: &[u8]) -> u64 {
    let mut input = Input(input);
    let now = Instant(1 + (input.word() >> (input.byte() % 64)).min(LATEST));
    let (setup, image) = image(&mut input);
    let mut host = Host::new(&setup, A, now);
    let way = input.byte() % 4;
    if way == 0 {
        scribble(&mut host, &mut input, &image, now);
        return 1;
    }
    let (unread, unacked) = (bytes(1, image.rcv_read, image.unread()), bytes(A, first(&image), image.unacknowledged()));
    if host.try_import(&image, &unread, &unacked, now).is_err() {
        return 1;
    }
    if way == 1 {
        hand_over(&mut host, &mut input, &image);
    }
    assert!(unread.len() as u32 <= RING && unacked.len() as u32 <= RING, "more than the rings hold: {image:?}");
    1 + Player::adopt(host, &image, setup.mtu as usize, RING as usize, now).play(input)
}

/// A good image in which some fields were changed.
fn image(input: &mut Input<'_>) -> (Setup, Image) {
    let setup = Setup {
        ring: RING as usize,
        isn: [input.word() as u32, input.word() as u32],
        wscale: input.byte() % 15,
        ..Setup::default()
    };
    let mut image = setup.image(A);
    // Data that waits, so that there is something to contradict.
    image.rcv_read = image.rcv_read.wrapping_sub(u32::from(input.byte()) * 16);
    image.rcv_wnd = image.rcv_wnd.saturating_sub(image.unread());
    image.snd_end = image.snd_end.wrapping_add(u32::from(input.byte()) * 32);
    image.snd_nxt = image.snd_nxt.wrapping_add(input.up_to(image.unacknowledged() as usize) as u32);
    let raw = image.as_mut_bytes();
    let words = (raw.len() - NUMBERS_AT) / 4;
    for _ in 0..input.byte() % 6 {
        let at = NUMBERS_AT + 4 * (usize::from(input.byte()) % words);
        let old = u32::from_ne_bytes(std::array::from_fn(|i| raw[at + i]));
        let new = match input.byte() % 8 {
            0 => ODD[usize::from(input.byte()) % ODD.len()],
            1 => input.word() as u32,
            2 => old.wrapping_add(ODD[usize::from(input.byte()) % ODD.len()]),
            3 => old.wrapping_sub(input.byte().into()),
            4 => old ^ (1 << (input.byte() % 32)),
            _ => old.wrapping_add(input.byte().into()),
        };
        raw[at..at + 4].copy_from_slice(&new.to_ne_bytes());
    }
    (setup, image)
}

/// A scoreboard that may be nonsense.
fn hand_over(host: &mut Host, input: &mut Input<'_>, image: &Image) {
    let number = |input: &mut Input<'_>| match input.byte() % 8 {
        0 => image.snd_una.wrapping_add(ODD[usize::from(input.byte()) % ODD.len()]),
        1 => input.word() as u32,
        _ => image.snd_una.wrapping_add(u32::from(input.byte()) * 32),
    };
    let count = input.byte() % 16;
    let pieces: Vec<Piece> = (0..count)
        .map(|_| Piece { start: number(input), end: number(input), fate: u32::from(input.byte()) % 5 })
        .collect();
    let board = Scoreboard { phase: u32::from(input.byte()) % 4, recover: number(input), pieces: &pieces };
    host.connection().resume(&board);
    host.assert_bounded();
}

/// The first unacknowledged byte.
fn first(image: &Image) -> u32 {
    image.snd_end.wrapping_sub(image.unacknowledged())
}

/// As many bytes as the image says, if they fit into a ring: more of them are not even looked at.
fn bytes(side: usize, from: u32, len: u32) -> Vec<u8> {
    (0..len.min(RING + 1)).map(|i| byte(side, from.wrapping_add(i))).collect()
}

/// Writes over a record, and reads it as the daemon does.
fn scribble(host: &mut Host, input: &mut Input<'_>, image: &Image, now: Instant) {
    let words = host.tcb.as_bytes().len() / 4;
    for _ in 0..1 + input.byte() % 8 {
        let (at, word) = (4 * (input.word() as usize % words), input.word() as u32);
        host.tcb.as_mut_bytes()[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    let read = host.tcb.image(image.flow, now);
    if read.is_sound(RING, RING) {
        assert!(read.unread() <= RING && read.unacknowledged() <= RING);
        // What is sound once is so after it was told.
        let told = Image::read_from_bytes(read.as_bytes()).expect("as long as an image");
        assert!(told == read && told.is_sound(RING, RING));
    }
    let mut last = 0;
    for (start, end) in host.ahead() {
        let (start, end) = (start.wrapping_sub(read.rcv_read), end.wrapping_sub(read.rcv_read));
        assert!(last <= start && start < end && end <= RING, "{start} {end}");
        last = end;
    }
    let _ = (host.tcb.state(), host.tcb.deadline(), host.tcb.rtt_us(), host.tcb.congestion(), host.tcb.at_eof());
    let _ = host.tcb.plain_window();
}
