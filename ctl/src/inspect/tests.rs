//! Looking into arenas: of this very process, damaged ones, and ones full of lies.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use proptest::prelude::*;
use underpass_stack::arena::{self, ArenaHeader, ConnRecord, Phase, SocketEntry};
use underpass_stack::lane::{Reason, Tier};
use underpass_stack::mem::{Plain, Region};
use underpass_stack::stats::Counter;
use zerocopy::{FromZeros, IntoBytes};

use super::arena_file::{ArenaFile, Unreadable};
use super::procfs::{self, fd_path};
use super::{Process, find, sockets};

const SLOT: u32 = 3;

/// Only an arena with the right name is found by [`find`]; tests run side by side in one process.
fn arena_of_this_process(name: &CStr) -> Region {
    let mut region = Region::create(name, arena::ARENA_LEN).unwrap();
    let header = region.get_mut::<ArenaHeader>(0).unwrap();
    *header = header_of_this_process();
    region
}

fn header_of_this_process() -> ArenaHeader {
    let mut header = ArenaHeader::new_zeroed();
    header.magic = arena::MAGIC;
    header.version = arena::VERSION;
    header.len = arena::ARENA_LEN as u64;
    header.pid = procfs::own_pid(std::process::id()).unwrap();
    header.fd_limit = 4096;
    header.conn_limit = SLOT + 1;
    header.name[..5].copy_from_slice(b"cache");
    header
}

fn open(region: &Region) -> Result<ArenaFile, Unreadable> {
    ArenaFile::open(&fd_path(std::process::id(), region.fd().unwrap().as_raw_fd()))
}

/// This process, seen through this arena.
fn process(region: &Region) -> Process {
    let pid = std::process::id();
    let arena = open(region).unwrap();
    let (header, descriptors) = (arena.header().unwrap(), procfs::descriptors(pid).unwrap());
    Process { pid, name: String::new(), command: String::new(), header, arena, descriptors }
}

fn write<T: Plain>(region: &mut Region, offset: usize, value: T) {
    *region.get_mut(offset).unwrap() = value;
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn inode(fd: i32) -> u64 {
    procfs::descriptors(std::process::id()).unwrap().sockets[&fd]
}

/// Says of this socket that it is on the lane, in [`SLOT`].
fn promote(region: &mut Region, socket: &TcpStream, record: ConnRecord) {
    let fd = socket.as_raw_fd();
    let entry = SocketEntry {
        kind: 1,
        tier: Tier::Xdp as u8,
        reason: Reason::Busy as u16,
        slot: SLOT,
        inode: inode(fd),
        promoted: 2,
        demoted: 1,
        channel_at: 0,
    };
    write(region, arena::board_offset(fd).unwrap(), entry);
    write(region, arena::conn_offset(SLOT).unwrap(), ConnRecord { inode: inode(fd), ..record });
}

#[test]
fn a_preloaded_process_is_found_with_its_counters_and_sockets() {
    let mut region = arena_of_this_process(arena::MEMFD_NAME);
    region.counters(arena::STATS_AT, Counter::ALL.len()).unwrap()[Counter::Panics as usize]
        .store(7, std::sync::atomic::Ordering::Relaxed);
    let (client, server) = pair();
    let mut record = ConnRecord::new_zeroed();
    record.phase = Phase::Live as u32;
    record.generation = 9;
    record.bytes_in = 1234;
    promote(&mut region, &client, record);

    let found = find(Some(std::process::id())).unwrap();
    let process = found.processes.first().expect("this process has an arena");
    assert_eq!((process.name.as_str(), found.processes.len()), ("cache", 1));
    assert_eq!(process.arena.counters().unwrap()[Counter::Panics as usize], 7);

    let list = sockets::list(process).unwrap();
    let row = |socket: &TcpStream| list.iter().find(|s| s.fd == socket.as_raw_fd()).unwrap();
    let lane = row(&client);
    assert_eq!((lane.tier, lane.reason, lane.state), ("xdp", "busy", "ESTAB"));
    assert_eq!((lane.local, lane.peer), (client.local_addr().ok(), client.peer_addr().ok()));
    assert_eq!((lane.slot, lane.generation, lane.promoted, lane.demoted), (Some(SLOT), Some(9), 2, 1));
    assert_eq!(lane.figures.as_ref().unwrap().bytes_in, 1234);
    let kernel = row(&server);
    assert_eq!((kernel.tier, kernel.reason, kernel.figures.is_none()), ("kernel", "not-yet-busy", true));
}

#[test]
fn an_entry_of_an_earlier_socket_with_this_number_is_ignored() {
    let mut region = arena_of_this_process(c"unnamed");
    let (client, _server) = pair();
    promote(&mut region, &client, ConnRecord::new_zeroed());
    let offset = arena::board_offset(client.as_raw_fd()).unwrap();
    region.get_mut::<SocketEntry>(offset).unwrap().inode += 1_000_000;
    let list = sockets::list(&process(&region)).unwrap();
    let row = list.iter().find(|s| s.fd == client.as_raw_fd()).unwrap();
    assert_eq!((row.tier, row.promoted), ("kernel", 0));
}

#[test]
fn what_is_no_arena_is_told_why() {
    let mut region = arena_of_this_process(c"unnamed");
    region.get_mut::<ArenaHeader>(0).unwrap().version = 77;
    assert!(matches!(open(&region).unwrap().header(), Err(Unreadable::Version(77))));
    region.get_mut::<ArenaHeader>(0).unwrap().magic = 0;
    assert!(matches!(open(&region).unwrap().header(), Err(Unreadable::NotArena)));
    let short = Region::create(c"short", 4096).unwrap();
    assert!(matches!(open(&short).unwrap().counters(), Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof));
    assert!(matches!(ArenaFile::open(std::path::Path::new("/dev/null")), Err(Unreadable::NotArena)));
}

#[test]
fn an_arena_that_shrinks_while_we_look_is_an_error_not_a_fault() {
    let region = arena_of_this_process(c"unnamed");
    let process = process(&region);
    let path = fd_path(std::process::id(), region.fd().unwrap().as_raw_fd());
    OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap();
    assert!(process.arena.counters().is_err());
    assert!(process.arena.conn(0).is_none());
    assert!(sockets::list(&process).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A program may write anything into its arena; what is shown may be wrong, but it is shown.
    #[test]
    fn lies_are_shown_without_harm(
        header in proptest::collection::vec(any::<u8>(), size_of::<ArenaHeader>()),
        record in proptest::collection::vec(any::<u8>(), size_of::<ConnRecord>()),
        phase in 0u32..5,
        slot in prop_oneof![Just(SLOT), any::<u32>()],
        stats in proptest::collection::vec(any::<u8>(), 4096),
    ) {
        let mut region = Region::create(c"hostile", arena::ARENA_LEN).unwrap();
        region.bytes_mut(0, header.len()).unwrap().copy_from_slice(&header);
        region.bytes_mut(arena::STATS_AT, stats.len()).unwrap().copy_from_slice(&stats);
        let head = region.get_mut::<ArenaHeader>(0).unwrap();
        (head.magic, head.version) = (arena::MAGIC, arena::VERSION);
        let (client, _server) = pair();
        let mut claimed = ConnRecord::new_zeroed();
        claimed.as_mut_bytes().copy_from_slice(&record);
        claimed.phase = phase;
        promote(&mut region, &client, claimed);
        region.get_mut::<SocketEntry>(arena::board_offset(client.as_raw_fd()).unwrap()).unwrap().slot = slot;

        let process = process(&region);
        prop_assert!(process.ports().len() <= arena::MAX_PORTS);
        prop_assert_eq!(process.arena.counters().unwrap().len(), underpass_stack::stats::WORDS);
        for socket in sockets::list(&process).unwrap() {
            prop_assert!(serde_json::to_string(&socket).is_ok());
        }
        prop_assert!(!procfs::padded_text(&process.header.name).contains(char::is_control));
    }
}
