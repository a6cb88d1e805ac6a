//! How much may go out in fast recovery? (RFC 9937: Proportional Rate Reduction)
//!
//! What is delivered lets so much go out that the window has shrunk to the threshold when the recovery's first round trip is over, and
//! not before. Where losses have emptied the network further, it fills up again: as fast as data is delivered (PRR-CRB), or by a
//! segment more for each acknowledgement that shows progress without new losses (PRR-SSRB).

/// State of one recovery; the RFC's names in brackets. Bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prr {
    /// [prr_delivered]
    delivered: u64,
    /// [prr_out]
    out: u64,
    /// What was in flight when it began [RecoverFS].
    flight: u32,
    /// What may go out before the next acknowledgement [SndCnt].
    budget: u32,
    /// Without SACK: bytes that duplicate acknowledgements were taken for and that were not acknowledged since.
    credit: u32,
}

impl Prr {
    /// Recovery begins with `flight` bytes out that were not known to be delivered, those included that the acknowledgement which began
    /// it delivered.
    pub fn new(flight: u32) -> Self {
        Self { flight: flight.max(1), ..Self::default() }
    }

    /// An acknowledgement delivered so much, and `in_flight` is left in the network. `safe`: it advanced, and showed no loss.
    pub fn on_ack(&mut self, delivered: u32, in_flight: u32, ssthresh: u32, mss: u32, safe: bool) {
        if delivered == 0 {
            return;
        }
        self.delivered += u64::from(delivered);
        let count = if in_flight > ssthresh {
            (self.delivered * u64::from(ssthresh)).div_ceil(u64::from(self.flight)).saturating_sub(self.out)
        } else {
            // What an acknowledgement before it allows and has not gone out yet, since both are taken in at once, is not lost.
            let unused = u64::from(self.budget) + u64::from(delivered);
            let conserved = self.delivered.saturating_sub(self.out).max(unused);
            let bound = conserved + if safe { u64::from(mss) } else { 0 };
            bound.min(u64::from(ssthresh - in_flight))
        };
        // The first retransmission goes out whatever the sums say.
        let least = if self.out == 0 { mss } else { 0 };
        self.budget = u32::try_from(count).unwrap_or(u32::MAX).max(least);
    }

    /// Without SACK, a duplicate acknowledgement stands for a full segment: so much was delivered.
    pub fn guess(&mut self, mss: u32) -> u32 {
        self.credit = self.credit.saturating_add(mss);
        mss
    }

    /// `bytes` are acknowledged: so many of them were not guessed before.
    pub fn learn(&mut self, bytes: u32) -> u32 {
        let new = bytes.saturating_sub(self.credit);
        self.credit = self.credit.saturating_sub(bytes);
        new
    }

    /// May `len` bytes go out?
    pub fn allows(&self, len: u32) -> bool {
        len <= self.budget
    }

    /// So much went out, new or again.
    pub fn on_sent(&mut self, len: u32) {
        self.out += u64::from(len);
        self.budget = self.budget.saturating_sub(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    /// Sends what the budget allows, in segments; says how many.
    fn send(prr: &mut Prr) -> u32 {
        let mut sent = 0;
        while prr.allows(MSS) {
            prr.on_sent(MSS);
            sent += 1;
        }
        sent
    }

    #[test]
    fn one_loss_halves_the_window_over_the_round_trip() {
        // RFC 6937, section 4: twenty segments, the first is lost, the threshold is ten.
        let mut prr = Prr::new(20 * MSS);
        let mut in_flight = 19 * MSS - 3 * MSS;
        let mut out = Vec::new();
        for n in 0..17 {
            prr.on_ack(MSS, in_flight, 10 * MSS, MSS, false);
            let sent = send(&mut prr);
            out.push(sent);
            in_flight = in_flight + sent * MSS - if n < 16 { MSS } else { 0 };
        }
        assert_eq!(out[0], 1, "the retransmission");
        assert!(out[1..12].windows(2).all(|two| two[0] + two[1] <= 1), "one for two: {out:?}");
        assert_eq!((out.iter().sum::<u32>(), in_flight), (10, 10 * MSS), "then one for one: {out:?}");
    }

    #[test]
    fn below_the_threshold_a_safe_acknowledgement_lets_one_more_go_than_it_delivered() {
        let mut prr = Prr::new(20 * MSS);
        prr.on_ack(MSS, 4 * MSS, 10 * MSS, MSS, false);
        assert_eq!(send(&mut prr), 1, "conservation: loss was indicated");
        prr.on_ack(MSS, 4 * MSS, 10 * MSS, MSS, true);
        assert_eq!(send(&mut prr), 2);
        prr.on_ack(MSS, 9 * MSS, 10 * MSS, MSS, true);
        assert_eq!(send(&mut prr), 1, "never above the threshold");
    }

    #[test]
    fn nothing_delivered_changes_nothing() {
        let mut prr = Prr::new(20 * MSS);
        prr.on_ack(MSS, 12 * MSS, 10 * MSS, MSS, false);
        prr.on_sent(MSS);
        prr.on_ack(0, 12 * MSS, 10 * MSS, MSS, true);
        assert_eq!(send(&mut prr), 0);
    }
}
