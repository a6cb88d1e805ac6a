//! What has become of what is in flight? (RFC 6675, section 3: the scoreboard.) A connection takes it along when it changes hands.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::connection::Connection;
use super::image::flag;
use super::loss::Phase;
use super::prr::Prr;
use super::seq::SeqNr;
use super::timer::Timer;

/// Values of [`Piece::fate`]. Of what has none, nothing is known but that it was sent.
pub mod fate {
    /// The peer has acknowledged it selectively (RFC 2018).
    pub const SACKED: u32 = 1;
    /// Lost, and not sent again since.
    pub const LOST: u32 = 2;
    /// Sent again; it may have been lost before.
    pub const RESENT: u32 = 3;
}

/// Values of [`Scoreboard::phase`].
pub mod phase {
    /// No recovery is under way.
    pub const OPEN: u32 = 0;
    /// Fast recovery: the window was reduced.
    pub const RECOVERY: u32 = 1;
    /// After a retransmission timeout.
    pub const LOSS: u32 = 2;
}

/// Bytes `[start, end)` of the sequence space that have fared alike.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Piece {
    /// Its first sequence number.
    pub start: u32,
    /// One past its last.
    pub end: u32,
    /// One of [`fate`].
    pub fate: u32,
}

/// What the one who hands a connection over knows of its transmissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scoreboard<'a> {
    /// One of [`phase`].
    pub phase: u32,
    /// The sequence number whose acknowledgement ends the recovery.
    pub recover: u32,
    /// In the order of the stream; what is not in flight is passed over.
    pub pieces: &'a [Piece],
}

impl Connection<'_> {
    /// Takes over, after [`Connection::import`], what is known of the transmissions: what has arrived or was sent again is not taken for
    /// lost once more, and a recovery goes on instead of reducing the window a second time. Whether that was a mistake will never be known
    /// here (RFC 4015): what would have told is not handed over.
    pub fn resume(&mut self, board: &Scoreboard<'_>) {
        for piece in board.pieces {
            self.resume_piece(piece);
        }
        self.resume_phase(board);
        if !self.recovery.is_calm() {
            // What is missing is known: a tail loss probe has nothing to find out (RFC 8985, section 7.2).
            self.tcb.timers.stop(Timer::LossProbe);
        }
    }

    fn resume_phase(&mut self, board: &Scoreboard<'_>) {
        let recovery = &mut *self.recovery;
        let (una, nxt) = (self.tcb.snd_una, self.tcb.snd_nxt);
        debug_assert!(recovery.sent.is_sound(una, nxt), "{board:?}");
        let phase = match board.phase {
            phase::RECOVERY => Phase::Recovery,
            phase::LOSS => Phase::Loss,
            _ => return,
        };
        if !una.lt(nxt) {
            return;
        }
        let told = SeqNr(board.recover);
        let recover = if told.gt(una) && told.le(nxt) { told } else { nxt };
        let unheard = recovery.sent.span().saturating_sub(recovery.sent.sacked());
        recovery.rare().prr = Prr::new(unheard);
        let urgent = recovery.sent.lost() != 0;
        recovery.loss = recovery.loss.resume(phase, recover, urgent);
    }

    fn resume_piece(&mut self, piece: &Piece) {
        let recovery = &mut *self.recovery;
        let (una, nxt) = (self.tcb.snd_una, self.tcb.snd_nxt);
        let (start, end) = (SeqNr(piece.start).later(una), SeqNr(piece.end).earlier(nxt));
        if !(una.le(start) && start.lt(end) && end.le(nxt)) {
            return;
        }
        match piece.fate {
            fate::SACKED if self.tcb.has(flag::SACK) => recovery.sent.take_sacked(start, end, |_| ()),
            fate::LOST => {
                let lost = recovery.sent.lose_range(start, end);
                recovery.rate.on_lost(lost);
            }
            fate::RESENT => recovery.sent.know_resent(start, end),
            _ => {}
        }
    }
}
