//! Clients that lie.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use underpass_stack::arena::{CONNS_AT, ConnRecord};
use underpass_stack::control::{
    Attach, Demote, Demoted, Done, FrameRef, Hello, Inject, MAX_INJECT, Message, Promote, Status, Welcome,
};
use underpass_stack::lane::Reason;
use underpass_stack::mem::Region;

use crate::client::{Client, ask, hear, open_session, tell};
use crate::{Bed, pattern};

#[test]
fn garbage_closes_the_session_and_nothing_else() {
    let bed = Bed::new();
    let whole = Status { pad: 0 }.encode();
    let mut wrong_version = whole.clone();
    wrong_version[4] ^= 0xff;
    let unknown = [&whole[..6], &999u16.to_ne_bytes(), &whole[8..]].concat();
    let garbage: Vec<Vec<u8>> = vec![
        vec![0],
        vec![0xff; 5000],
        whole[..whole.len() - 1].to_vec(),
        wrong_version,
        unknown,
        Promote { slot: 0, generation: 0 }.encode()[..9].to_vec(),
    ];
    for bytes in garbage {
        let session = open_session(&bed.socket).unwrap();
        tell(session.as_fd(), &bytes, &[]).unwrap();
        assert!(hear(session.as_fd()).unwrap().bytes.is_empty(), "session open after {} bytes", bytes.len());
    }
    assert_eq!(bed.status().sessions, 0);
}

#[test]
fn requests_without_their_descriptors_or_out_of_turn_are_refused() {
    let bed = Bed::new();
    let session = open_session(&bed.socket).unwrap();
    let refused = |message: &dyn Fn() -> crate::client::Answer| message().as_message::<Done>().unwrap_err();
    let hello = Hello { pid: 0, pad: 0, name: [b'x'; 32] };
    let attach = Attach { ifindex: 1, frame_size: 2048, frame_count: 64, rx_ring: 64, tx_ring: 64, port: 0 };
    assert_eq!(refused(&|| ask(session.as_fd(), &hello, &[])), Reason::ProtocolError);
    assert_eq!(refused(&|| ask(session.as_fd(), &Promote { slot: 0, generation: 1 }, &[])), Reason::ProtocolError);
    assert_eq!(refused(&|| ask(session.as_fd(), &attach, &[])), Reason::ProtocolError);
    assert_eq!(refused(&|| ask(session.as_fd(), &Demote { slot: 0, generation: 0 }, &[])), Reason::BadImage);
    // An arena that its owner could shrink under us, and one that is none.
    let loose = Region::create(c"loose", 4096).unwrap();
    assert_eq!(refused(&|| ask(session.as_fd(), &hello, &[loose.fd().unwrap()])), Reason::ProtocolError);
    loose.seal().unwrap();
    assert_eq!(refused(&|| ask(session.as_fd(), &hello, &[loose.fd().unwrap()])), Reason::ProtocolError);
    let client = Client::connect(&bed.socket);
    for wrong in [
        Attach { frame_size: 1000, ..attach },
        Attach { frame_count: u32::MAX, ..attach },
        Attach { rx_ring: 3, ..attach },
        Attach { rx_ring: 1 << 30, ..attach },
        Attach { port: 99, ..attach },
        Attach { frame_count: 65, ..attach },
    ] {
        let umem = Region::create(c"frames", 64 * 2048).unwrap();
        umem.seal().unwrap();
        let answer = client.ask(&wrong, &[umem.fd().unwrap(), client.socket.as_fd()]);
        assert_eq!(answer.as_message::<Done>().unwrap_err(), Reason::ProtocolError, "{wrong:?}");
    }
    assert_eq!(bed.status().sessions, 1);
}

#[test]
fn a_forged_record_harms_only_its_own_connection() {
    let bed = Bed::new();
    let (mut good, echo) = bed.echo();
    let (ours, mut peer) = bed.pair();
    let mut client = Client::connect(&bed.socket);
    let first = client.promote(&good).unwrap();
    let slot = client.promote(&ours).unwrap();
    let generation = client.freeze(slot);
    // Another connection's addresses, and a ring outside the arena.
    let stolen = client.stack.record(first).unwrap().flow;
    let own = *client.stack.record(slot).unwrap();
    let mut writable = Region::open_owner(client.stack.arena().fd().unwrap().try_clone_to_owned().unwrap()).unwrap();
    let at = CONNS_AT + slot as usize * underpass_stack::arena::CONN_STRIDE;
    let mut forge = |change: &dyn Fn(&mut ConnRecord)| {
        let record = writable.get_mut::<ConnRecord>(at).unwrap();
        *record = own;
        change(record);
    };
    for change in [
        &(|r: &mut ConnRecord| r.flow = stolen) as &dyn Fn(&mut ConnRecord),
        &|r: &mut ConnRecord| r.rcv_ring.block = u32::MAX - 10,
        &|r: &mut ConnRecord| r.snd_ring.len = u32::MAX,
        &|r: &mut ConnRecord| r.phase = 77,
        &|r: &mut ConnRecord| r.generation = generation.wrapping_add(1),
    ] {
        forge(change);
        let answer = client.ask(&Demote { slot, generation }, &[]);
        assert_eq!(answer.as_message::<Done>().unwrap_err(), Reason::BadImage);
    }
    forge(&|_| ());
    client.ask(&Demote { slot, generation }, &[]).as_message::<Demoted>().unwrap();
    (&ours).write_all(b"sound").unwrap();
    let mut heard = [0; 5];
    peer.read_exact(&mut heard).unwrap();
    client.demote(first).unwrap();
    good.write_all(&pattern(0, 100)).unwrap();
    good.read_exact(&mut [0; 100]).unwrap();
    drop(good);
    echo.join().unwrap();
}

#[test]
fn frames_of_strangers_and_places_outside_the_umem_are_not_injected() {
    let bed = Bed::new();
    let (ours, _peer) = bed.pair();
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    let port = client.stack.record(slot).unwrap().port;
    let frames = [
        FrameRef { addr: u32::MAX, len: 100 },
        FrameRef { addr: 0, len: u32::MAX },
        FrameRef { addr: 0, len: 0 },
        FrameRef { addr: 256, len: 60 },
        FrameRef { addr: 1024 * 2048 - 10, len: 11 },
    ];
    assert_eq!(client.inject(port, &frames), Ok(0));
    assert_eq!(client.inject(99, &frames), Err(Reason::ProtocolError));
    let ask = Inject { port, count: MAX_INJECT as u32 + 1, frames: [FrameRef::default(); MAX_INJECT] };
    assert_eq!(client.ask(&ask, &[]).as_message::<Done>().unwrap_err(), Reason::ProtocolError);
    assert_eq!(bed.status().injected, 0);
    client.demote(slot).unwrap();
}

#[test]
fn a_second_hello_is_refused() {
    let bed = Bed::new();
    let client = Client::connect(&bed.socket);
    let hello = Hello { pid: 0, pad: 0, name: [0; 32] };
    let answer = client.ask(&hello, &[client.stack.arena().fd().unwrap()]);
    assert_eq!(answer.as_message::<Welcome>().unwrap_err(), Reason::ProtocolError);
    assert_eq!(bed.status().sessions, 1);
}
