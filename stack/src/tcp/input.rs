//! skeleton
use super::{Connection, Instant, Outcome, Segment};
impl Connection<'_> {
    /// A segment arrived for this connection (RFC 9293, section 3.10.7.4).
    pub fn on_segment(&mut self, now: Instant, segment: &Segment<'_>) -> Outcome { let _ = (now, segment); todo!() }
    /// Carries out what [`Tcb::deadline`](super::Tcb::deadline) promised; harmless at any other time.
    pub fn on_timer(&mut self, now: Instant) -> Outcome { let _ = now; todo!() }
    /// The next segment to put on the wire; its state counts as sent from now on. Call until `None`.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<SegmentOut> { let _ = now; todo!() }
    pub(crate) fn after_read(&mut self) {}
}
use super::SegmentOut;
use super::image::Image;
use crate::ip::flow::FlowKey;
impl super::Tcb {
    /// The state as an image; a pure read that accepts any record (check the result with [`Image::is_sound`]).
    pub fn image(&self, flow: FlowKey, now: Instant) -> Image { let _ = (flow, now); todo!() }
    /// TCP_NODELAY.
    pub fn set_nodelay(&mut self, on: bool) { let _ = on; todo!() }
    /// TCP_CORK.
    pub fn set_cork(&mut self, on: bool) { let _ = on; todo!() }
    /// SO_KEEPALIVE with TCP_KEEPIDLE, TCP_KEEPINTVL (ms) and TCP_KEEPCNT.
    pub fn set_keepalive(&mut self, now: Instant, on: bool, idle_ms: u32, interval_ms: u32, count: u32) { let _ = (now,on,idle_ms,interval_ms,count); todo!() }
    /// TCP_USER_TIMEOUT, ms; 0: none.
    pub fn set_user_timeout(&mut self, ms: u32) { let _ = ms; todo!() }
    /// TCP_QUICKACK.
    pub fn set_quickack(&mut self, on: bool) { let _ = on; todo!() }
    /// The path's MTU is another now.
    pub fn set_mtu(&mut self, mtu: u32) { let _ = mtu; todo!() }
}
