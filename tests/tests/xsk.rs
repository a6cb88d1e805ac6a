//! AF_XDP sockets on a real interface: rings of the kernel's own making. (What arrives needs an XDP program: see the benchmark's floor tests.)

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use underpass_lab::{Host, Lab, LabOptions, Side, wait_for};
use underpass_stack::mem::Region;
use underpass_stack::xsk::{BindMode, Desc, FramePool, Queue, RingSizes, socket};

const SIZES: RingSizes = RingSizes { fill: 64, completion: 64, rx: 64, tx: 64 };
const LIMIT: Duration = Duration::from_secs(5);

struct Attached {
    queue: Queue,
    pool: FramePool,
    region: Region,
}

/// A socket on queue 0; `more` gets the interface's number and the socket before it is mapped.
fn attach(host: &Host, more: impl FnOnce(u32, &OwnedFd) + Send) -> Attached {
    let pool = FramePool::new(128, 2048).unwrap();
    let region = Region::create(c"test-umem", pool.umem_len()).unwrap();
    let ifindex = interface_index(host);
    let queue = host.namespace.inside(|| {
        let fd = socket::open().unwrap();
        socket::register_umem(fd.as_fd(), &region, 2048, 0).unwrap();
        socket::set_rings(fd.as_fd(), SIZES).unwrap();
        socket::bind(fd.as_fd(), ifindex, 0, BindMode::Copy, true, None).unwrap();
        more(ifindex, &fd);
        Queue::map(fd, SIZES).unwrap()
    });
    Attached { queue: queue.unwrap(), pool, region }
}

fn interface_index(host: &Host) -> u32 {
    let text = host.namespace.ip(&["-o", "link", "show", &host.interface]).unwrap();
    text.split(':').next().unwrap().trim().parse().unwrap()
}

/// Packets that the host's kernel has received on its interface (/proc/net/dev).
fn received(host: &Host) -> u64 {
    let text = host.namespace.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap().unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{}:", host.interface))).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn sent_frames_reach_the_other_host_and_come_back_to_the_pool() {
    let lab = Lab::new().unwrap();
    let peer = lab.host(Side::Client);
    let mut own = attach(lab.host(Side::Server), |_, _| {});
    let before = received(peer);
    // Three times around the rings.
    for _ in 0..3 {
        for _ in 0..SIZES.tx {
            let frame = own.pool.take().unwrap();
            let addr = own.pool.addr_of(frame);
            let frame = own.region.bytes_mut(addr as usize, 60).unwrap();
            frame[..12].fill(0xff);
            frame[6] = 2;
            frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());
            assert!(own.queue.tx_push(Desc::new(addr, 60)));
        }
        assert!(!own.queue.tx_push(Desc::new(0, 60)), "the ring is full");
        own.queue.tx_flush();
        assert!(own.queue.tx_needs_kick());
        wait_for("completions", LIMIT, || {
            own.queue.kick_tx().unwrap();
            while let Some(addr) = own.queue.completion_pop() {
                assert!(own.pool.give_addr(addr));
            }
            own.pool.available() == own.pool.count()
        })
        .unwrap();
        assert_eq!(own.queue.tx_pending(), 0);
    }
    wait_for("arrival", LIMIT, || received(peer) >= before + u64::from(3 * SIZES.tx)).unwrap();
    assert_eq!(socket::statistics(own.queue.fd()).unwrap().tx_invalid_descs, 0);
    assert!(!socket::is_zero_copy(own.queue.fd()).unwrap(), "copy mode was asked for");
}

#[test]
fn queues_share_a_umem_and_a_taken_queue_is_refused() {
    let lab = Lab::with(LabOptions { queues: 2, ..LabOptions::default() }).unwrap();
    let own = attach(lab.host(Side::Server), |ifindex, first| {
        let second = socket::open().unwrap();
        socket::set_rings(second.as_fd(), SIZES).unwrap();
        let bind = |queue| socket::bind(second.as_fd(), ifindex, queue, BindMode::Copy, true, Some(first.as_fd()));
        bind(1).unwrap();
        let mut shared = Queue::map(second, SIZES).unwrap();
        assert!(shared.fill_push(0) && shared.fill_push(2048));
        shared.fill_flush();
        assert_eq!(shared.fill_room(), SIZES.fill - 2);

        let region = Region::create(c"other-umem", 64 * 2048).unwrap();
        let third = socket::open().unwrap();
        socket::register_umem(third.as_fd(), &region, 2048, 0).unwrap();
        socket::set_rings(third.as_fd(), SIZES).unwrap();
        let refused = socket::bind(third.as_fd(), ifindex, 0, BindMode::Copy, true, None).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBUSY));
    });
    drop(own);
}

#[test]
fn a_successor_goes_on_where_the_rings_stand() {
    let lab = Lab::new().unwrap();
    let mut own = attach(lab.host(Side::Server), |_, _| {});
    for frame in 0..10 {
        assert!(own.queue.fill_push(own.pool.addr_of(frame)));
    }
    own.queue.fill_flush();
    let heir = own.queue.fd().try_clone_to_owned().unwrap();
    drop(own.queue);
    let mut heir = Queue::map(heir, SIZES).unwrap();
    assert_eq!(heir.fill_room(), SIZES.fill - 10);
    assert_eq!((heir.rx_pop(), heir.rx_available()), (None, 0));
}

#[test]
fn odd_sizes_and_foreign_descriptors_are_refused() {
    let fd = socket::open().unwrap();
    let odd = RingSizes { rx: 100, ..SIZES };
    assert_eq!(socket::set_rings(fd.as_fd(), odd).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(Queue::map(fd, odd).is_err());
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(Queue::map(file.into(), SIZES).is_err());
    let unbound = socket::open().unwrap();
    assert!(Queue::map(unbound, SIZES).is_err(), "no rings were made");
}
