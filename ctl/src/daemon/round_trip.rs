//! How does a restored socket learn the round trip that the lane had measured?
//!
//! TCP_REPAIR has no word for it, and data that was queued in repair mode is not timed. A socket that knows no round trip waits for three
//! seconds (with SACK a loss probe goes out after one) before it sends anything again, and paces as if the path took a millisecond. But the
//! kernel believes the timestamps of an acknowledgement (RFC 7323, section 4). So the socket gets a byte more, from before SND.UNA, and hears at
//! once that the peer has it, as an answer to what was sent a round trip ago. The peer does have it: if that is lost on its way, the byte is
//! sent again and the peer drops it as old.

use underpass_stack::tcp::image::{Image, flag};

/// The byte before SND.UNA. Nobody reads it again.
const ACKNOWLEDGED: [u8; 1] = [0];

/// The round trip to be told, ms: the unit of the kernel's timestamps. `None`: none is known, or there is no way to tell it.
pub fn to_be_told(image: &Image) -> Option<u32> {
    let has = |bits: u32| image.flags & bits == bits;
    // A peer that is gone, or has everything that there will ever be, is sent nothing that could be lost. And an acknowledgement would be a
    // way out for those whose timeout was doubled: they go on with the kernel's first one.
    let is_over = image.flags & (flag::RESET_RECEIVED | flag::FIN_ACKED) != 0;
    let is_known = image.srtt_us != 0 && image.backoff == 0 && has(flag::TIMESTAMPS | flag::TS_RECENT);
    (is_known && !is_over).then(|| (image.srtt_us.saturating_add(500) / 1000).max(1))
}

/// Bytes from before SND.UNA that the restored socket is to take for being in flight.
pub fn bytes_before(image: &Image) -> &'static [u8] {
    if to_be_told(image).is_some() { &ACKNOWLEDGED } else { &[] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_told_in_the_unit_of_timestamps() {
        let stamps = flag::TIMESTAMPS | flag::TS_RECENT;
        let image = |srtt_us, flags, backoff| Image { srtt_us, flags, backoff, ..Image::default() };
        let told = |srtt_us| to_be_told(&image(srtt_us, stamps, 0));
        assert_eq!([1, 1499, 1500, 99_700].map(told), [1, 1, 2, 100].map(Some));
        assert_eq!(told(u32::MAX), Some(4_294_967));
        let silent =
            [image(0, stamps, 0), image(9, flag::TIMESTAMPS, 0), image(9, flag::TS_RECENT, 0), image(9, stamps, 1)];
        let over = [flag::RESET_RECEIVED, flag::FIN_ACKED].map(|over| image(9, stamps | over, 0));
        for image in silent.into_iter().chain(over) {
            assert_eq!((to_be_told(&image), bytes_before(&image)), (None, &[][..]), "{image:?}");
        }
    }
}
