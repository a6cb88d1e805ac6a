//! Where the state of whichever algorithm is in use lies.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::bbr::Bbr;
use super::cubic::Cubic;
use super::dctcp::Dctcp;
use super::newreno::NewReno;

/// Room for the state of the one algorithm that is in use, in words.
const STATE_WORDS: usize =
    if size_of::<Cubic>() > size_of::<Bbr>() { size_of::<Cubic>() } else { size_of::<Bbr>() }.div_ceil(8);

/// The state of the algorithm in use; which one that is, [`Congestion`] knows. Any content is a state of any algorithm.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(super) struct State([u64; STATE_WORDS]);

/// A record that fits into [`State`].
pub(super) trait Fits: FromBytes + IntoBytes + KnownLayout + Immutable + Sized {
    const FITS: () = assert!(size_of::<Self>() <= size_of::<State>() && align_of::<Self>() <= align_of::<State>());
}

impl Fits for Cubic {}
impl Fits for NewReno {}
impl Fits for Dctcp {}
impl Fits for Bbr {}

impl State {
    pub fn of<T: Fits>(record: &T) -> Self {
        let () = T::FITS;
        let mut state = Self([0; STATE_WORDS]);
        // It fits.
        let _ = record.write_to_prefix(state.0.as_mut_bytes());
        state
    }

    /// The same, to look at.
    pub fn look<T: Fits>(&self) -> Option<&T> {
        let () = T::FITS;
        T::ref_from_prefix(self.0.as_bytes()).ok().map(|(record, _)| record)
    }

    /// The state as that of one algorithm; there always is one.
    #[inline(always)]
    pub fn get<T: Fits>(&mut self) -> Option<&mut T> {
        let () = T::FITS;
        T::mut_from_prefix(self.0.as_mut_bytes()).ok().map(|(record, _)| record)
    }
}
