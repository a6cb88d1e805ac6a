//! Was the loss one at all? (RFC 3522, RFC 4015: Eifel; RFC 3708: D-SACK; RFC 5682: F-RTO)

use super::seq::SeqNr;
use super::time::Instant;

/// What is remembered since the window was last reduced.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Undo {
    /// `snd_una` then; `None`: there is nothing to undo.
    since: Option<SeqNr>,
    /// Bytes sent again since that the peer has not reported to be duplicates.
    unproven: u32,
    /// When something was first sent again since; never: nothing was.
    resent_at: Instant,
    /// What was sent again lies between these.
    span: Option<(SeqNr, SeqNr)>,
}

impl Undo {
    /// The window is about to be reduced; what of the flight was sent again before, if something was.
    pub fn begin(&mut self, una: SeqNr, resent: Option<(SeqNr, SeqNr)>) {
        let unproven = resent.map_or(0, |(start, end)| end.ahead_of(start));
        *self = Self { since: Some(una), unproven, span: resent, ..Self::default() };
    }

    /// There is nothing to undo any more.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// `[start, end)` was sent again.
    pub fn on_resent(&mut self, now: Instant, start: SeqNr, end: SeqNr) {
        if self.since.is_some() {
            self.unproven = self.unproven.saturating_add(end.ahead_of(start));
            if !self.resent_at.is_set() {
                self.resent_at = now;
            }
            let (low, high) = self.span.unwrap_or((start, end));
            self.span = Some((low.earlier(start), high.later(end)));
        }
    }

    /// The peer reports that `[start, end)` arrived twice. Networks duplicate too: what was not sent again does not count.
    pub fn on_duplicate(&mut self, start: SeqNr, end: SeqNr) {
        if self.span.is_some_and(|(low, high)| start.lt(high) && end.gt(low)) {
            self.unproven = self.unproven.saturating_sub(end.ahead_of(start));
        }
    }

    /// Does an acknowledgement that echoes this of our clock, ms, answer what was sent before anything was sent again (RFC 3522)?
    pub fn is_late_original(&self, echo: Option<u32>) -> bool {
        let can_tell = self.since.is_some() && self.resent_at.is_set();
        echo.is_some_and(|echo| can_tell && (echo.wrapping_sub(self.resent_at.millis()) as i32) < 0)
    }

    /// Was nothing sent again yet, although the window was reduced?
    pub fn nothing_was_resent(&self) -> bool {
        self.since.is_some() && !self.resent_at.is_set() && self.unproven == 0
    }

    /// Was everything that was sent again reported to have arrived twice (RFC 3708)?
    pub fn all_were_duplicates(&self) -> bool {
        self.resent_at.is_set() && self.unproven == 0
    }
}

/// Where the test for a spurious timeout stands (RFC 5682, section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Frto {
    /// None is under way: retransmit as ever.
    #[default]
    Off,
    /// The oldest segment was sent again (step 1).
    Resent,
    /// It was acknowledged: new data goes out now, nothing else (step 2b).
    New,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn an_older_echo_shows_that_the_original_arrived() {
        let mut undo = Undo::default();
        undo.on_resent(Instant(70 * MS), SeqNr(5), SeqNr(105));
        assert!(!undo.is_late_original(Some(1)), "nothing was reduced");
        undo.begin(SeqNr(5), None);
        assert!(!undo.is_late_original(Some(1)), "nothing was sent again");
        undo.on_resent(Instant(70 * MS), SeqNr(5), SeqNr(105));
        undo.on_resent(Instant(90 * MS), SeqNr(105), SeqNr(205));
        for (echo, late) in [(Some(69), true), (Some(70), false), (Some(95), false), (None, false)] {
            assert_eq!(undo.is_late_original(echo), late, "{echo:?}");
        }
    }

    #[test]
    fn all_that_was_sent_again_must_be_a_duplicate() {
        let mut undo = Undo::default();
        undo.begin(SeqNr(1000), None);
        assert!(!undo.all_were_duplicates());
        undo.on_resent(Instant(1), SeqNr(1000), SeqNr(1200));
        undo.on_duplicate(SeqNr(900), SeqNr(1000));
        undo.on_duplicate(SeqNr(1000), SeqNr(1100));
        assert!(!undo.all_were_duplicates(), "one was not sent again");
        undo.on_duplicate(SeqNr(1100), SeqNr(1200));
        assert!(undo.all_were_duplicates());
        undo.end();
        assert!(!undo.all_were_duplicates());
    }
}
