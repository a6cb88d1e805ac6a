//! The TCP engine, sans-IO: time is an argument, packets come in and go out as values.
//!
//! One question a file. Segments come in through `input`, leave through `output`; `timer` says when to look again;
//! [`transfer`] takes a connection over from the kernel and gives it back.
#![deny(unsafe_code)]

pub(crate) mod ack;
pub mod ahead;
pub(crate) mod cc;
pub(crate) mod close;
pub mod connection;
pub(crate) mod delack;
pub mod ecn;
pub(crate) mod emit;
pub(crate) mod foresee;
pub(crate) mod heard;
pub mod image;
pub(crate) mod input;
pub(crate) mod keepalive;
pub(crate) mod loss;
pub(crate) mod mtu;
pub(crate) mod nagle;
pub mod outcome;
pub(crate) mod output;
pub(crate) mod pacing;
pub(crate) mod persist;
pub(crate) mod predict;
pub(crate) mod prr;
pub(crate) mod rack;
pub(crate) mod ranges;
pub(crate) mod rate;
pub(crate) mod reassemble;
pub mod recovery;
pub(crate) mod report;
pub(crate) mod rtt;
pub mod scoreboard;
pub mod segment;
pub(crate) mod sent;
pub mod seq;
pub(crate) mod settings;
pub(crate) mod tail;
pub mod tally;
pub mod tcb;
pub mod time;
pub(crate) mod timeout;
pub(crate) mod timer;
pub(crate) mod timestamps;
pub(crate) mod train;
pub mod transfer;
pub(crate) mod tune;
pub(crate) mod undo;
pub(crate) mod window;

pub use cc::{Algorithm, Learnt};
pub use connection::Connection;
pub use ecn::Codepoint;
pub use outcome::Outcome;
pub use recovery::Recovery;
pub use scoreboard::Scoreboard;
pub use segment::{Flags, Kind, PlainOut, Segment, SegmentOut, TrainOut};
pub use seq::SeqNr;
pub use tcb::{State, Tcb};
pub use time::Instant;
pub use timeout::Silence;
pub use transfer::ImportError;
