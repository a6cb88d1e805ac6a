//! The connection as it is before the first event.

use std::net::Ipv6Addr;

use underpass_stack::ip::flow::FlowKey;
use underpass_stack::tcp::Algorithm;
use underpass_stack::tcp::Scoreboard;
use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::tcp::scoreboard::{Piece, fate, phase};

use super::syntax::Words;
use super::value;

/// Bytes that timestamps take of every segment.
const TIMESTAMPS: u16 = 12;

/// What `set` lines can choose; times as in an image.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Bytes of each ring.
    pub ring: usize,
    /// The number that scripts call 0 in our stream: the oldest unacknowledged one.
    pub own: u32,
    /// The number that scripts call 0 in the peer's stream: the next one expected.
    pub peer: u32,
    /// Bytes of the path's largest packet.
    pub mtu: u32,
    /// Bytes received and not read.
    pub unread: u32,
    /// Bytes sent and not acknowledged.
    pub inflight: u32,
    /// Bytes queued and not sent.
    pub queued: u32,
    /// Most that may be offered, bytes; 0 for the whole ring.
    pub rcv_buf: u32,
    /// The peer's window field as of now.
    pub window_field: u16,
    /// RFC 5681's numbers are the easiest to write down.
    pub congestion: Algorithm,
    mss: u16,
    peer_mss: Option<u16>,
    rcv_wnd: Option<u32>,
    image: Image,
    /// What is known of what is in flight, and of the recovery that is under way.
    known: Vec<Piece>,
    phase: u32,
    recover: u32,
}

impl Default for Setup {
    /// Both streams wrap around soon, so that every script sees it.
    fn default() -> Self {
        let image = Image {
            ts_val: 500_000,
            srtt_us: 100_000,
            rttvar_us: 50_000,
            cwnd: 10,
            ssthresh: u32::MAX,
            keep_idle_ms: 7_200_000,
            keep_interval_ms: 75_000,
            keep_count: 9,
            flow: FlowKey::tcp(([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into()),
            ..Image::default()
        };
        Self {
            ring: 64 << 10,
            own: u32::MAX - 1500,
            peer: u32::MAX - 700,
            mtu: 1500,
            unread: 0,
            inflight: 0,
            queued: 0,
            rcv_buf: 0,
            window_field: 60_000,
            congestion: Algorithm::Reno,
            mss: 1000,
            peer_mss: None,
            rcv_wnd: None,
            image,
            known: Vec::new(),
            phase: phase::OPEN,
            recover: 0,
        }
    }
}

impl Setup {
    /// One `set` line: words that stand alone, or a word and its value.
    pub fn set(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        while let Some(key) = words.maybe() {
            match self.flag(key) {
                _ if key == "ipv6" => {
                    let address = |host| (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host), host).into();
                    self.image.flow = FlowKey::tcp(address(1), address(2));
                }
                Some(bit) => self.image.flags |= bit,
                None => self.value(key, words)?,
            }
        }
        Ok(())
    }

    fn flag(&self, key: &str) -> Option<u32> {
        Some(match key {
            "sack" => flag::SACK,
            "ts" => flag::TIMESTAMPS,
            "ecn" => flag::ECN,
            "nodelay" => flag::NODELAY,
            "cork" => flag::CORK,
            "fin-queued" => flag::FIN_QUEUED,
            "fin-sent" => flag::FIN_SENT,
            "fin-acked" => flag::FIN_ACKED,
            "fin-received" => flag::FIN_RECEIVED,
            _ => return None,
        })
    }

    fn value(&mut self, key: &str, words: &mut Words<'_>) -> Result<(), String> {
        let image = &mut self.image;
        let micros = |word| value::time(word).map(|ns| (ns / 1_000) as u32);
        let millis = |word| value::time(word).map(|ns| (ns / 1_000_000) as u32);
        match key {
            "ring" => self.ring = words.number()?,
            "isn" => self.own = words.number()?,
            "peer-isn" => self.peer = words.number()?,
            "mtu" => self.mtu = words.number()?,
            "mss" => self.mss = words.number()?,
            "peer-mss" => self.peer_mss = Some(words.number()?),
            "unread" => self.unread = words.number()?,
            "inflight" => self.inflight = words.number()?,
            "queued" => self.queued = words.number()?,
            "rcv-buf" => self.rcv_buf = words.number()?,
            "rcv-wnd" => self.rcv_wnd = Some(words.number()?),
            "snd-wnd" => self.window_field = words.number()?,
            "max-wnd" => image.max_window = words.number()?,
            "cc" => self.congestion = Algorithm::named(words.next()?.as_bytes()).ok_or("no such algorithm")?,
            "cwnd" => image.cwnd = words.number()?,
            "known" => {
                let (start, end) = value::range(words.next()?)?;
                let at = |relative: i64| self.own.wrapping_add(relative as u32);
                let fate = fate_named(words.next()?)?;
                self.known.push(Piece { start: at(start), end: at(end), fate });
            }
            "recovering" => (self.phase, self.recover) = (phase::RECOVERY, words.number()?),
            "timed-out" => (self.phase, self.recover) = (phase::LOSS, words.number()?),
            "backoff" => image.backoff = words.number()?,
            "ssthresh" => image.ssthresh = words.number()?,
            "ts-val" => image.ts_val = words.number()?,
            "ts-recent" => {
                image.ts_recent = words.number()?;
                image.flags |= flag::TS_RECENT;
            }
            "wscale" => {
                (image.rcv_wscale, image.snd_wscale) = (words.number()?, words.number()?);
                image.flags |= flag::WSCALE;
            }
            "srtt" => image.srtt_us = micros(words.next()?)?,
            "rttvar" => image.rttvar_us = micros(words.next()?)?,
            "user-timeout" => image.user_timeout_ms = millis(words.next()?)?,
            "keepalive" => {
                image.keep_idle_ms = millis(words.next()?)?;
                image.keep_interval_ms = millis(words.next()?)?;
                image.keep_count = words.number()?;
                image.flags |= flag::KEEPALIVE;
            }
            _ => return Err(format!("`{key}` cannot be set")),
        }
        Ok(())
    }

    /// The peer's clock as we know it.
    pub fn peer_clock(&self) -> u32 {
        self.image.ts_recent
    }

    /// What is known beside it.
    pub fn scoreboard(&self) -> Scoreboard<'_> {
        Scoreboard { phase: self.phase, recover: self.own.wrapping_add(self.recover), pieces: &self.known }
    }

    /// The image to import.
    pub fn image(&self) -> Image {
        let has = |bits: u32| u32::from(self.image.flags & bits != 0);
        let scale = self.image.rcv_wscale;
        let offered = (self.ring as u32 - self.unread).min(u32::from(u16::MAX) << scale);
        let snd_end = self.own.wrapping_sub(has(flag::FIN_ACKED)).wrapping_add(self.inflight + self.queued);
        let snd_wnd = u32::from(self.window_field) << self.image.snd_wscale;
        let options = if has(flag::TIMESTAMPS) == 1 { TIMESTAMPS } else { 0 };
        Image {
            snd_una: self.own,
            snd_nxt: self.own.wrapping_add(self.inflight + has(flag::FIN_SENT)),
            snd_end,
            rcv_nxt: self.peer,
            rcv_read: self.peer.wrapping_sub(self.unread + has(flag::FIN_RECEIVED)),
            snd_wl1: self.peer,
            snd_wnd,
            max_window: self.image.max_window.max(snd_wnd),
            rcv_wnd: self.rcv_wnd.unwrap_or(offered),
            rcv_wup: self.peer,
            mss_clamp: self.peer_mss.unwrap_or(self.mss + options),
            ..self.image
        }
    }
}

fn fate_named(name: &str) -> Result<u32, String> {
    match name {
        "sacked" => Ok(fate::SACKED),
        "lost" => Ok(fate::LOST),
        "resent" => Ok(fate::RESENT),
        _ => Err(format!("`{name}` is no fate: sacked, lost or resent")),
    }
}
