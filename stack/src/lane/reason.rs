//! Why a socket is in the tier it is in.

/// Declares the enum, its names and its texts from one table.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $text:literal;)*) => {
        /// Why a socket is in the tier it is in; shown by `underpass ss`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Reason { $(#[doc = $text] $variant = $number,)* }

        impl Reason {
            /// Every reason, in numeric order.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// Decodes a number from the board or a message; unknown numbers are `Unknown`.
            pub fn from_raw(raw: u16) -> Self {
                match raw { $($number => Self::$variant,)* _ => Self::Unknown }
            }

            /// The short name shown by `underpass ss`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for people.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    Unknown = 0, "unknown", "no reason was recorded";
    Busy = 1, "busy", "on a lane: the connection proved busy";
    NotYetBusy = 2, "not-yet-busy", "the connection has not shown enough traffic";
    NotConnected = 3, "not-connected", "the socket is not an established connection";
    Listening = 4, "listening", "a listening socket: the kernel accepts, connections are promoted one by one";
    Off = 5, "off", "switched off by UNDERPASS, UNDERPASS_LANES or UNDERPASS_PROMOTE";
    NoDaemon = 6, "no-daemon", "no underpass daemon answers on UNDERPASS_SOCKET";
    AccessDenied = 7, "access-denied", "the daemon's socket does not admit this user (join group underpass)";
    NoFreeQueue = 8, "no-free-queue", "another process owns the AF_XDP queues of the interface";
    ForeignXdp = 9, "foreign-xdp", "somebody else's XDP program is on the interface";
    InterfaceExcluded = 10, "interface-excluded", "UNDERPASS_INTERFACES or the daemon's config excludes the interface";
    Loopback = 11, "loopback", "a connection of the host to itself";
    NotEthernet = 12, "not-ethernet", "the interface does not carry Ethernet frames";
    NoRoute = 13, "no-route", "no usable route to the peer";
    NoNeighbour = 14, "no-neighbour", "the next hop's Ethernet address is not known yet";
    LinkDown = 15, "link-down", "the interface is down";
    Mtu = 16, "mtu", "the interface's MTU is larger than a frame";
    LinkLocal = 17, "link-local", "a link-local address means an interface beside: left to the kernel";
    SocketOption = 18, "socket-option", "a socket option is set that the lane cannot honour exactly";
    Filter = 19, "socket-filter", "the program attached its own socket filter";
    Upper = 20, "upper-protocol", "an upper-layer protocol (kTLS, sockmap, MPTCP) is on the socket";
    Mark = 21, "mark", "SO_MARK or SO_BINDTODEVICE routes the socket specially";
    Nat = 22, "nat", "connection tracking translates the flow";
    Ipsec = 23, "ipsec", "an IPsec policy covers the flow";
    WindowTooLarge = 24, "window-too-large", "the advertised window is larger than the largest ring";
    QueueTooLarge = 25, "queue-too-large", "more bytes are queued than the largest ring holds";
    Urgent = 26, "urgent-data", "urgent data is pending or was asked for";
    HalfClosed = 27, "half-closed", "one direction of the connection is already closed";
    Unsettled = 28, "unsettled", "the connection's sequence numbers would not stand still";
    Shared = 29, "shared", "another process may hold the socket";
    StackFull = 30, "stack-full", "the stack's tables or rings are full";
    NoPrivilege = 31, "no-privilege", "the daemon lacks a capability";
    Unsupported = 32, "unsupported-kernel", "the kernel lacks something; see underpass doctor";
    Asked = 33, "asked", "underpass demote asked for it";
    CallNotCarried = 34, "call-not-carried", "the program made a call that the lane cannot express exactly";
    Closing = 35, "closing", "the connection is being closed, which the kernel finishes";
    PeerReset = 36, "peer-reset", "the peer reset the connection, which the kernel reports";
    Timeouts = 37, "timeouts", "too many retransmission timeouts: left to the kernel";
    PathChanged = 38, "path-changed", "route, neighbour, address or link changed";
    Exit = 39, "exit", "the process ends";
    Exec = 40, "exec", "the process executes another program";
    OwnerGone = 41, "owner-gone", "the owning process is gone";
    Stdio = 42, "stdio", "the socket is read or written through stdio";
    IoUring = 43, "io-uring", "the process uses io_uring";
    DaemonGone = 44, "daemon-gone", "the daemon went away; promotions wait for the next one";
    ForeignQueue = 45, "foreign-queue", "the flow arrives on a queue that another process owns";
    ProtocolError = 46, "protocol-error", "daemon and library did not understand each other";
    BadImage = 47, "bad-image", "the connection's recorded state is not consistent";
    Failed = 48, "failed", "an unexpected system error; see the log";
    Panic = 49, "internal-error", "a bug in the library was caught; the connection went back to the kernel";
    NotTcp = 50, "not-tcp", "not a TCP socket";
    UsecTimestamps = 51, "usec-timestamps", "the connection uses microsecond TCP timestamps";
    Bulk = 53, "bulk", "a bulk transfer, which the kernel's segmentation offload carries better";
    Lost = 54, "lost", "the connection could not be given back to the kernel and was ended";
    NoPeer = 55, "no-peer", "the process at the other end is not preloaded, or has not found the connection busy yet";
    PeerGone = 56, "peer-gone", "the process at the other end is gone";
    PeerLeft = 57, "peer-left", "the process at the other end gave the connection back to the kernel";
    PeerSilent = 58, "peer-silent", "the process at the other end did not answer in time";
    AnotherUser = 59, "another-user", "whoever answers for the other end is not the user that owns it";
    NotThePeer = 60, "not-the-peer", "whoever answers for the other end does not hold it";
    Corrupt = 61, "corrupt", "the other process stored nonsense in shared memory: the connection was ended";
    Inherited = 52, "foreign", "the connection lives in another process's stack";
}

impl Reason {
    /// Is it worth asking again after a while?
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            Self::NotYetBusy
                | Self::NotConnected
                | Self::NoDaemon
                | Self::NoFreeQueue
                | Self::NoRoute
                | Self::NoNeighbour
                | Self::LinkDown
                | Self::WindowTooLarge
                | Self::QueueTooLarge
                | Self::Urgent
                | Self::Unsettled
                | Self::Timeouts
                | Self::Shared
                | Self::StackFull
                | Self::Asked
                | Self::CallNotCarried
                | Self::PathChanged
                | Self::DaemonGone
                | Self::Bulk
                | Self::Failed
                | Self::NoPeer
                | Self::PeerLeft
                | Self::PeerSilent
                | Self::NotThePeer
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_decode() {
        let mut names = std::collections::HashSet::new();
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_raw(reason as u16), reason);
            assert!(names.insert(reason.name()), "{} twice", reason.name());
        }
        assert_eq!(Reason::from_raw(9999), Reason::Unknown);
    }
}
