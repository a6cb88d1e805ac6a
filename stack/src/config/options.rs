//! Every option, once: this table feeds the parser, `underpass run --help` and the manual page.

use std::ffi::OsStr;

use super::{Config, value};
use crate::arena::{MAX_RING, MIN_RING};

/// Largest ring to ask for, bytes; what the kernel had promised a peer may need a larger one.
const LARGEST: u32 = 8 << 20;

/// One option of the library, an environment variable.
#[derive(Debug)]
pub struct OptionSpec {
    /// The variable's name.
    pub name: &'static str,
    /// OpenOnload's name for the same thing, read when `name` is not set.
    pub alias: Option<&'static str>,
    /// The value used when the variable is unset, empty or bad; empty where `default_text` says what happens.
    pub default: &'static str,
    /// The default in words, where the value alone does not say it.
    pub default_text: &'static str,
    /// The accepted values.
    pub accepts: &'static str,
    /// What the option does, in one sentence.
    pub text: &'static str,
    /// Stores a value; `None` if it is not acceptable, and then the configuration is unchanged.
    pub(super) set: fn(&mut Config, &OsStr) -> Option<()>,
}

impl OptionSpec {
    /// The default as shown to people.
    pub fn shown_default(&self) -> &'static str {
        if self.default_text.is_empty() { self.default } else { self.default_text }
    }
}

/// The table.
pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "UNDERPASS",
        alias: None,
        default: "on",
        default_text: "",
        accepts: "on, off",
        text: "Off makes the library a pure pass-through.",
        set: |c, v| v.to_str().and_then(value::switch).map(|on| c.enabled = on),
    },
    OptionSpec {
        name: "UNDERPASS_LANES",
        alias: None,
        default: "shm,xdp",
        default_text: "",
        accepts: "a list of shm, xdp",
        text: "Which lanes may carry connections.",
        set: |c, v| value::lanes(v.to_str()?).map(|l| c.lanes = l),
    },
    OptionSpec {
        name: "UNDERPASS_PROMOTE",
        alias: None,
        default: "auto",
        default_text: "",
        accepts: "auto, eager, off",
        text: "When a connection moves to a lane: once it proves busy, at its first data call, or never.",
        set: |c, v| value::promote(v).map(|p| c.promote = p),
    },
    OptionSpec {
        name: "UNDERPASS_SPIN_USEC",
        alias: Some("EF_POLL_USEC"),
        default: "auto",
        default_text: "",
        accepts: "auto, 0 (never), -1 (always), or 1..10000000 microseconds",
        text: "How long a waiting thread spins before it sleeps; auto spins only while it pays.",
        set: |c, v| value::spin(v.to_str()?).map(|s| c.spin = s),
    },
    OptionSpec {
        name: "UNDERPASS_SOCKET",
        alias: None,
        default: "/run/underpass/control.sock",
        default_text: "",
        accepts: "an absolute path of at most 107 bytes",
        text: "Where the daemon listens.",
        set: |c, v| value::socket(v).map(|path| c.socket = path),
    },
    OptionSpec {
        name: "UNDERPASS_INTERFACES",
        alias: Some("EF_INTERFACE_WHITELIST"),
        default: "",
        default_text: "all",
        accepts: "a list of interface names of at most 15 bytes each",
        text: "Which network interfaces may be accelerated.",
        set: |c, v| value::interfaces(v.to_str()?).map(|list| c.interfaces = list),
    },
    OptionSpec {
        name: "UNDERPASS_LOG",
        alias: None,
        default: "off",
        default_text: "",
        accepts: "off, error, warn, info, debug, trace",
        text: "What the library reports about itself.",
        set: |c, v| value::log(v).map(|level| c.log = level),
    },
    OptionSpec {
        name: "UNDERPASS_LOG_FILE",
        alias: Some("EF_LOG_FILE"),
        default: "",
        default_text: "stderr",
        accepts: "a path",
        text: "The file that reports are appended to.",
        set: |c, v| value::optional_path(v).map(|path| c.log_file = path),
    },
    OptionSpec {
        name: "UNDERPASS_NAME",
        alias: Some("EF_NAME"),
        default: "",
        default_text: "the command's name",
        accepts: "at most 31 bytes of UTF-8 without control characters",
        text: "The name that underpass ps shows.",
        set: |c, v| value::name(v.to_str()?).map(|n| c.name = n),
    },
    OptionSpec {
        name: "UNDERPASS_FRAMES",
        alias: Some("EF_MAX_PACKETS"),
        default: "4096",
        default_text: "",
        accepts: "512..65536, rounded up to a power of two",
        text: "Packet buffers per interface.",
        set: |c, v| value::sized(v, 512, 65_536).map(|n| c.frames = n),
    },
    OptionSpec {
        name: "UNDERPASS_RING",
        alias: Some("EF_RXQ_SIZE"),
        default: "2048",
        default_text: "",
        accepts: "64..8192, rounded up to a power of two",
        text: "Entries of each AF_XDP ring.",
        set: |c, v| value::sized(v, 64, 8192).map(|n| c.ring = n),
    },
    OptionSpec {
        name: "UNDERPASS_RCVBUF",
        alias: Some("EF_TCP_RCVBUF"),
        default: "262144",
        default_text: "",
        accepts: "65536..8388608, rounded up to a power of two",
        text: "Receive buffer of a connection on the xdp lane, in bytes: to begin with, if the program has not set SO_RCVBUF.",
        set: |c, v| value::sized(v, MIN_RING, LARGEST).map(|n| c.rcvbuf = n),
    },
    OptionSpec {
        name: "UNDERPASS_SNDBUF",
        alias: Some("EF_TCP_SNDBUF"),
        default: "262144",
        default_text: "",
        accepts: "65536..8388608, rounded up to a power of two",
        text: "Send buffer of a connection on the xdp lane, in bytes: to begin with, if the program has not set SO_SNDBUF.",
        set: |c, v| value::sized(v, MIN_RING, LARGEST).map(|n| c.sndbuf = n),
    },
    OptionSpec {
        name: "UNDERPASS_RCVBUF_MAX",
        alias: None,
        default: "8388608",
        default_text: "",
        accepts: "65536..67108864, rounded up to a power of two",
        text: "What the receive buffer of a connection grows to where the path and the program can use it, in bytes.",
        set: |c, v| value::sized(v, MIN_RING, MAX_RING).map(|n| c.rcvbuf_max = n),
    },
    OptionSpec {
        name: "UNDERPASS_SNDBUF_MAX",
        alias: None,
        default: "8388608",
        default_text: "",
        accepts: "65536..67108864, rounded up to a power of two",
        text: "What the send buffer of a connection grows to where the path can use it, in bytes.",
        set: |c, v| value::sized(v, MIN_RING, MAX_RING).map(|n| c.sndbuf_max = n),
    },
    OptionSpec {
        name: "UNDERPASS_SHM_RING",
        alias: None,
        default: "262144",
        default_text: "",
        accepts: "4096..8388608, rounded up to a power of two",
        text: "Ring of each direction of a connection on the shm lane, in bytes; the larger wish of the two ends counts.",
        set: |c, v| value::sized(v, 4096, LARGEST).map(|n| c.shm_ring = n),
    },
    OptionSpec {
        name: "UNDERPASS_CC",
        alias: None,
        default: "auto",
        default_text: "",
        accepts: "auto (the socket's own, TCP_CONGESTION), cubic, reno, dctcp, bbr",
        text: "Congestion control of a connection on the xdp lane; a socket with another one stays in the kernel.",
        set: |c, v| value::congestion(v).map(|algorithm| c.congestion = algorithm),
    },
];
